//! Programs that keep credentials: `docker-credential-NAME get`.
//!
//! Owns: running one. Invariant: a helper and what it started are ended when it takes longer than [`PATIENCE`], and what it printed lies in
//! memory only. Does not know: which helper is for which registry.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Deserialize;

use crate::credentials::Credential;
use crate::error::{PullError, shown};

/// How long a helper may take: some ask a server.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);
const OUTPUT_BYTES_MAX: u64 = 64 << 10;
const LOOK: Duration = Duration::from_millis(5);
/// What helpers print when they have none: the protocol knows no other sign.
const NONE: &str = "credentials not found";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// How long a helper is waited for.
#[derive(Clone, Copy)]
pub(crate) struct Wait<'a> {
    pub(crate) patience: Duration,
    pub(crate) is_given_up: &'a dyn Fn() -> bool,
}

/// Asks a helper for the credentials of a registry; `None` if it has none.
pub(crate) fn ask(name: &str, key: &str, wait: Wait<'_>) -> Result<Option<Credential>, PullError> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if name.is_empty() || !name.chars().all(is_name) {
        let message = format!("the Docker configuration names a helper \"{}\", which none is called", shown(name));
        return Err(PullError::Credentials(message));
    }
    run(&format!("docker-credential-{name}"), key, wait)
}

/// As [`ask`], of this program.
pub(crate) fn run(program: &str, key: &str, wait: Wait<'_>) -> Result<Option<Credential>, PullError> {
    let failed = |why: &str| {
        let advice = "run it by hand as the user that runs the worker, or remove it from the Docker configuration";
        PullError::Credentials(format!("{program} {why}: {advice}"))
    };
    let output = memfd_create("credentials", MFdFlags::MFD_CLOEXEC).map_err(|error| failed(&error.to_string()))?;
    let mut output = File::from(output);
    let both = output.try_clone().and_then(|one| Ok((one, output.try_clone()?)));
    let (stdout, stderr) = both.map_err(|error| failed(&error.to_string()))?;
    let mut command = Command::new(program);
    command.arg("get").stdin(Stdio::piped()).stdout(stdout).stderr(stderr).process_group(0);
    let mut child = command.spawn().map_err(|error| failed(&format!("cannot be run ({error})")))?;
    // One that does not read what it is asked for is judged by how it ends.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(key.as_bytes()));
    let status = ended(&mut child, wait).ok_or_else(|| failed("did not end in time"))?;
    let mut text = String::new();
    let read = output.seek(SeekFrom::Start(0)).and_then(|_| output.take(OUTPUT_BYTES_MAX).read_to_string(&mut text));
    read.map_err(|_| failed("printed what is not text"))?;
    if !status.success() {
        let refusal = failed(&format!("failed ({})", shown(&text)));
        return if text.contains(NONE) { Ok(None) } else { Err(refusal) };
    }
    // What it printed is a secret: it is not shown.
    let answer: Answer = serde_json::from_str(&text).map_err(|_| failed("did not print what a helper prints"))?;
    Ok(Some(Credential::of(answer.username, answer.secret)))
}

fn ended(child: &mut Child, wait: Wait<'_>) -> Option<ExitStatus> {
    let since = Instant::now();
    loop {
        // A child of ours that was not waited for: its id is its own.
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        if since.elapsed() >= wait.patience || (wait.is_given_up)() {
            let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(LOOK);
    }
}
