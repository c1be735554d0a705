//! `demo`: a worker in this process on a port of its own, the example functions deployed to it the way anybody deploys,
//! each invoked cold, warm and from several clients, every answer checked, and everything cleaned up.
//!
//! It uses nothing of the worker that a user could not: configuration, the HTTP API, the deployment of a folder.

mod connection;
mod examples;
mod measure;
mod report;
mod thumbnail;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use tracing_subscriber::filter::LevelFilter;
use vilya_worker::{Running, Worker};

use crate::client::Client;
use crate::deploy::Prepared;
use crate::failure::{Failure, Fault};
use crate::output::{Screen, note};
use crate::signals::StopSignals;
use crate::{serve, settings};
use connection::Rendered;
use examples::Example;
use measure::{Effort, Subject, Unmeasured};
use report::Row;

pub(crate) fn demo(keep: bool, json: bool, screen: &mut Screen) -> Result<(), Failure> {
    // Before the signals are blocked: a build started from here would inherit that.
    let thumbnail = thumbnail::executable()?;
    let examples = examples::all(thumbnail.is_some());
    if thumbnail.is_none() {
        note(format_args!(
            "without the compiled example: {} is not beside this program; `cargo run --release -- demo` builds it",
            thumbnail::PACKAGE
        ));
    }
    let interrupted = StopSignals::flag()?;
    let stage = Stage::set(keep)?;
    let outcome = examples
        .iter()
        .map(|example| stage.perform(example, thumbnail.as_deref(), &interrupted))
        .collect::<Result<Vec<Row>, Failure>>();
    // What was found is said before anything else can go wrong; the worker is stopped whatever was found.
    let said = outcome.and_then(|rows| if json { screen.line(report::json(&rows)) } else { say(&rows, screen) });
    let kept = stage.clear();
    said?;
    let kept = kept?;
    if json { Ok(()) } else { next_steps(kept.as_deref(), screen) }
}

fn say(rows: &[Row], screen: &mut Screen) -> Result<(), Failure> {
    screen.table(&report::table(rows))?;
    screen.line("clients and worker share this machine; overhead is the client's time less the function's own run")
}

fn next_steps(kept: Option<&Path>, screen: &mut Screen) -> Result<(), Failure> {
    let vilya = if std::env::var_os("CARGO").is_some() { "cargo run --release --" } else { "vilya" };
    let checkout = Path::new("isolate/runtimes/examples/hello");
    let folder = match kept {
        Some(root) => Some(Stage::functions(root).join("hello")),
        None => checkout.is_dir().then(|| checkout.to_owned()),
    };
    screen.line("\nnext:")?;
    let Some(folder) = folder else {
        return screen
            .line(format_args!("  {vilya} demo --keep\n      leaves the example folders, to look at and to deploy"));
    };
    screen.line(format_args!("  {vilya} serve\n      starts a worker that stays; then, in another terminal:"))?;
    screen.line(format_args!("  {vilya} deploy {}", folder.display()))?;
    screen.line(format_args!("  {vilya} invoke hello -d '{{\"name\": \"you\"}}' -v"))?;
    screen.line(format_args!("  {vilya} logs hello"))
}

/// A worker and the folder that everything of the demo is in.
struct Stage {
    folder: Option<tempfile::TempDir>,
    worker: Running,
    keep: bool,
}

impl Stage {
    fn set(keep: bool) -> Result<Stage, Failure> {
        let folder = tempfile::Builder::new()
            .prefix("vilya-demo-")
            .tempdir()
            .map_err(|error| Failure::file("make a folder in", &std::env::temp_dir(), &error))?;
        let config = settings::fixed(&[
            ("server.address", "127.0.0.1:0".to_owned()),
            ("server.state_directory", folder.path().join("state").display().to_string()),
        ])?;
        serve::write_log(LevelFilter::WARN);
        let worker = Worker::start(&config).map_err(Failure::local)?;
        Ok(Stage { folder: Some(folder), worker, keep })
    }

    fn functions(root: &Path) -> PathBuf {
        root.join("functions")
    }

    fn root(&self) -> &Path {
        self.folder.as_ref().expect("the folder is there until the stage is cleared").path()
    }

    fn address(&self) -> SocketAddr {
        self.worker.address()
    }

    /// Deploys one example and measures it.
    fn perform(&self, example: &Example, thumbnail: Option<&Path>, interrupted: &AtomicBool) -> Result<Row, Failure> {
        let name = example.name;
        let folder = Self::functions(self.root()).join(name);
        write_out(example, thumbnail, &folder)?;
        let prepared = Prepared::read(&folder)?;
        let client = Client::new(&format!("http://{}", self.address()))?;
        client.deploy(&prepared.name, &prepared.archive, prepared.pulls)?;
        let subject = Subject {
            address: self.address(),
            request: Rendered::invocation(name, example.content_type, example.payload),
            check: &example.check,
            interrupted,
        };
        let measured = subject.measure(&Effort::USUAL).map_err(|error| self.failure(&client, name, &error))?;
        Ok(Row::new(name, example.runtime, &measured))
    }

    /// What went wrong with an example, with the end of its log, which is gone after the demo.
    fn failure(&self, client: &Client, name: &str, error: &Unmeasured) -> Failure {
        if matches!(error, Unmeasured::Interrupted) {
            return Failure::new(Fault::Interrupted, "interrupted: everything is cleaned up");
        }
        if let Ok(log) = client.logs(name, 20) {
            String::from_utf8_lossy(&log).lines().for_each(|line| note(format_args!("  {name}: {line}")));
        }
        Failure::new(Fault::Function, format_args!("the example {name} failed: {error}"))
    }

    /// Stops the worker and removes the folder, or says where it is.
    fn clear(mut self) -> Result<Option<PathBuf>, Failure> {
        self.worker.drain();
        let Some(folder) = self.folder.take() else { return Ok(None) };
        if self.keep {
            let path = folder.keep();
            note(format_args!("kept {}", path.display()));
            return Ok(Some(path));
        }
        let path = folder.path().to_owned();
        folder.close().map_err(|error| Failure::file("remove", &path, &error))?;
        Ok(None)
    }
}

/// Writes an example's files as they are in the source tree.
fn write_out(example: &Example, thumbnail: Option<&Path>, folder: &Path) -> Result<(), Failure> {
    fs::create_dir_all(folder).map_err(|error| Failure::file("make", folder, &error))?;
    for (file, text) in example.files {
        let path = folder.join(file);
        fs::write(&path, text).map_err(|error| Failure::file("write", &path, &error))?;
    }
    if let (Some(handler), Some(executable)) = (example.executable, thumbnail) {
        let path = folder.join(handler);
        fs::copy(executable, &path).map_err(|error| Failure::file("write", &path, &error))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .map_err(|error| Failure::file("make executable", &path, &error))?;
    }
    Ok(())
}
