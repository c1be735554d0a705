//! A Docker engine: the host's, or one of this program's own that has nothing of the host's network and ends with it.
//!
//! Owns: that engine, and what `docker run` costs. Invariant: an engine that was started here is ended here, and what it stored is removed.
//! Does not know: the worker.

use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use vilya_benches::Failure;
use vilya_benches::figures::Figures;
use vilya_benches::sample::Samples;

const OF_THE_HOST: &str = "/var/run/docker.sock";
const IMAGE: &str = "vilya-coldstart-true";
const PROGRAM: &str = "/usr/bin/true";
/// How long an engine may take to come up, and to end.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) struct Engine {
    socket: PathBuf,
    own: Option<(Child, PathBuf)>,
}

impl Engine {
    /// The host's, or a new one.
    pub(crate) fn find() -> Result<Engine, Failure> {
        let host = Path::new(OF_THE_HOST);
        if host.metadata().is_ok_and(|found| found.file_type().is_socket()) {
            return Ok(Engine { socket: host.to_owned(), own: None });
        }
        let folder = std::env::temp_dir().join(format!("vilya-engine-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let socket = folder.join("socket");
        let log = std::fs::File::create(folder.join("log"))?;
        let child = Command::new("dockerd")
            .args(["--iptables=false", "--bridge=none", "--data-root"])
            .arg(folder.join("data"))
            .arg("--exec-root")
            .arg(folder.join("exec"))
            .arg("--pidfile")
            .arg(folder.join("pid"))
            .arg("-H")
            .arg(format!("unix://{}", socket.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("dockerd cannot be started: {error}"))?;
        let mut engine = Engine { socket, own: Some((child, folder)) };
        engine.await_answer()?;
        Ok(engine)
    }

    fn await_answer(&mut self) -> Result<(), Failure> {
        let since = Instant::now();
        while UnixStream::connect(&self.socket).is_err() {
            let ended = self.own.as_mut().is_some_and(|(child, _)| !matches!(child.try_wait(), Ok(None)));
            if ended || since.elapsed() > PATIENCE {
                return Err("a docker engine cannot be started here".into());
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    pub(crate) fn socket(&self) -> String {
        self.socket.display().to_string()
    }

    /// What `docker run` of a program that ends at once takes, its removal included.
    pub(crate) fn run_floor(&self, count: usize, figures: &mut Figures) -> Result<(), Failure> {
        self.import()?;
        let mut samples = Samples::default();
        for _ in 0..count {
            let since = Instant::now();
            self.docker(&["run", "--rm", "--network", "none", IMAGE, PROGRAM], Stdio::null())?;
            samples.push(since.elapsed().as_nanos() as u64);
        }
        figures.push("floor.docker_run_ms", samples.percentile_us(0.5) / 1000.0);
        Ok(())
    }

    /// Makes an image of one program and its libraries.
    fn import(&self) -> Result<(), Failure> {
        let listed = Command::new("ldd").arg(PROGRAM).output()?;
        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        let libraries = text.split_whitespace().filter(|word| word.starts_with('/'));
        let mut tar = Command::new("tar")
            .args(["--create", "--dereference", "--absolute-names", "--file=-", PROGRAM])
            .args(libraries)
            .stdout(Stdio::piped())
            .spawn()?;
        let archive = tar.stdout.take().ok_or("its output is piped")?;
        self.docker(&["import", "-", IMAGE], archive.into())?;
        if tar.wait()?.success() { Ok(()) } else { Err("tar failed".into()) }
    }

    fn docker(&self, arguments: &[&str], input: Stdio) -> Result<(), Failure> {
        let output = Command::new("docker")
            .arg("-H")
            .arg(format!("unix://{}", self.socket.display()))
            .args(arguments)
            .stdin(input)
            .output()
            .map_err(|error| format!("the docker command cannot be run: {error}"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(()) } else { Err(format!("docker {}: {said}", arguments.join(" ")).into()) }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Whether it can be removed or not, the figures stand.
        let _ = self.docker(&["rmi", IMAGE], Stdio::null());
        let Some((child, folder)) = &mut self.own else { return };
        if let Ok(pid) = i32::try_from(child.id()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
        }
        let since = Instant::now();
        while matches!(child.try_wait(), Ok(None)) && since.elapsed() < PATIENCE {
            std::thread::sleep(PAUSE);
        }
        let _ = child.kill();
        let _ = child.wait();
        let _ = std::fs::remove_dir_all(folder);
    }
}
