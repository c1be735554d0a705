//! Sandboxes as tests start them: a usual spec, and output that is collected.
//!
//! Owns: what the suites of one mechanism and of all mechanisms have in common. Does not know: mechanisms.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};

use vilya_isolate::{Descriptors, Ended, Reach, ResourceLimits, Root, Spec, StartError, Started};

/// The Python that the probes are written in.
pub(crate) const PYTHON: &str = "/usr/bin/python3";

/// A name that no other test uses, in this process or another.
pub(crate) fn unique(stem: &str) -> String {
    // Relaxed: only uniqueness matters.
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{stem}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn spec(command: &[&str]) -> Spec {
    Spec {
        name: unique("sandbox"),
        command: command.iter().map(|part| (*part).to_owned()).collect(),
        environment: vec![("PATH".into(), "/usr/bin:/bin".into()), ("HOME".into(), "/tmp".into())],
        working_directory: "/tmp".into(),
        root: Root::System,
        binds: Vec::new(),
        limits: ResourceLimits {
            memory_bytes: 256 << 20,
            cpu_millis: None,
            processes: 64,
            tmp_bytes: 8 << 20,
            open_files: 256,
        },
        cores: Vec::new(),
        hostname: "sandbox".into(),
        reach: Reach::Nothing,
    }
}

pub(crate) fn python(program: &str) -> Spec {
    spec(&[PYTHON, "-I", "-B", "-c", program])
}

pub(crate) fn null() -> OwnedFd {
    File::options().read(true).write(true).open("/dev/null").expect("/dev/null").into()
}

/// A sandbox whose output is read.
pub(crate) struct Running {
    pub(crate) started: Started,
    stdout: File,
    stderr: File,
}

/// How a sandbox ended and what it said.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) ended: Ended,
}

/// A sandbox that is started in some way and given these as its descriptors 3, 4 and 5.
pub(crate) fn running_with(
    ring: [OwnedFd; 3],
    start: impl FnOnce(Descriptors) -> Result<Started, StartError>,
) -> Result<Running, StartError> {
    let (stdout, write_stdout) = io::pipe().expect("a pipe");
    let (stderr, write_stderr) = io::pipe().expect("a pipe");
    let started = start(Descriptors { ring, stdout: write_stdout.into(), stderr: write_stderr.into() })?;
    let (stdout, stderr): (OwnedFd, OwnedFd) = (stdout.into(), stderr.into());
    Ok(Running { started, stdout: stdout.into(), stderr: stderr.into() })
}

impl Running {
    /// Reads one line of its output.
    pub(crate) fn line(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        while self.stdout.read(&mut byte).expect("its output") == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        String::from_utf8(line).expect("text")
    }

    /// Reads its output to the end and reaps it.
    pub(crate) fn finish(mut self) -> Ran {
        let (mut stdout, mut stderr) = (String::new(), String::new());
        let mut errors = self.stderr;
        let reader = std::thread::spawn(move || {
            errors.read_to_string(&mut stderr).expect("its errors");
            stderr
        });
        self.stdout.read_to_string(&mut stdout).expect("its output");
        let stderr = reader.join().expect("the reader");
        Ran { stdout, stderr, ended: self.started.remains.reap() }
    }
}
