//! A mechanism with a state directory of its own, and sandboxes whose output is collected.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;
use vilya_isolate::{
    CgroupPreference, Descriptors, Ended, Mechanism, Native, NativeOptions, PoolOptions, Privilege, ResourceLimits,
    Root, Spec, StartError, Started,
};

/// The Python that the probes are written in.
pub(crate) const PYTHON: &str = "/usr/bin/python3";

/// A mechanism and what belongs to it.
pub(crate) struct Room {
    pub(crate) native: Native,
    pub(crate) state: Arc<TempDir>,
}

impl Room {
    /// One whose sandboxes were made before they are started, where that is possible and where the spec is the usual one.
    pub(crate) fn new() -> Room {
        let mut room = Room::with(CgroupPreference::Auto);
        let template = spec(&["/usr/bin/true"]);
        let options = PoolOptions { template, mount_points: vec!["/function"], size: 2, threads: 1 };
        let prepared = room.native.prepare(options).expect("sandboxes can be made ahead");
        assert_eq!(prepared, room.is_root() && room.enforces("memory limit"));
        room
    }

    /// One whose sandboxes are made when they are started.
    pub(crate) fn unprepared() -> Room {
        Room::with(CgroupPreference::Auto)
    }

    pub(crate) fn with(cgroup: CgroupPreference) -> Room {
        let state = tempfile::tempdir().expect("a temporary directory");
        let worker_id = unique("test");
        let native = native(state.path(), &worker_id, cgroup);
        Room { native, state: Arc::new(state) }
    }

    /// Ends the mechanism; its state directory is left.
    pub(crate) fn close(self) -> Arc<TempDir> {
        Arc::clone(&self.state)
    }

    pub(crate) fn is_root(&self) -> bool {
        self.native.host().privilege == Privilege::Root
    }

    /// Whether a protection is in force; says so if not.
    pub(crate) fn enforces(&self, name: &str) -> bool {
        let in_force = self.native.protections().in_force(name);
        if !in_force {
            println!("not enforced here: {name}");
        }
        in_force
    }

    pub(crate) fn start(&mut self, spec: &Spec) -> Result<Running, StartError> {
        start(&mut self.native, spec)
    }

    /// Runs to the end.
    pub(crate) fn run(&mut self, spec: &Spec) -> Ran {
        self.start(spec).unwrap_or_else(|error| panic!("it must start: {error}")).finish()
    }

    /// Runs a Python program to the end.
    pub(crate) fn python(&mut self, program: &str) -> Ran {
        self.run(&python(program))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        remove_bases(self.state.path());
    }
}

/// Leaves no directories of a worker that will never come back. Those with groups in them stay.
pub(crate) fn remove_bases(state: &Path) {
    let recorded = std::fs::read_to_string(state.join("isolate/groups")).unwrap_or_default();
    for base in recorded.lines() {
        let _ = std::fs::remove_dir(base);
    }
}

pub(crate) fn native(state: &Path, worker_id: &str, cgroup: CgroupPreference) -> Native {
    let options = NativeOptions { state_directory: state.to_owned(), worker_id: worker_id.to_owned(), cgroup };
    Native::new(options).unwrap_or_else(|error| panic!("this host cannot make sandboxes: {error}"))
}

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
    }
}

pub(crate) fn python(program: &str) -> Spec {
    spec(&[PYTHON, "-I", "-B", "-c", program])
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

pub(crate) fn start(native: &mut Native, spec: &Spec) -> Result<Running, StartError> {
    start_with(native, spec, [null(), null(), null()])
}

/// Starts a sandbox that is given these as its descriptors 3, 4 and 5.
pub(crate) fn start_with(native: &mut Native, spec: &Spec, ring: [OwnedFd; 3]) -> Result<Running, StartError> {
    running_with(ring, |descriptors| native.start(spec, descriptors))
}

/// A sandbox that is started in some way, with nothing to talk to.
pub(crate) fn running(start: impl FnOnce(Descriptors) -> Result<Started, StartError>) -> Result<Running, StartError> {
    running_with([null(), null(), null()], start)
}

fn running_with(
    ring: [OwnedFd; 3],
    start: impl FnOnce(Descriptors) -> Result<Started, StartError>,
) -> Result<Running, StartError> {
    let (stdout, write_stdout) = io::pipe().expect("a pipe");
    let (stderr, write_stderr) = io::pipe().expect("a pipe");
    let started = start(Descriptors { ring, stdout: write_stdout.into(), stderr: write_stderr.into() })?;
    let (stdout, stderr): (OwnedFd, OwnedFd) = (stdout.into(), stderr.into());
    Ok(Running { started, stdout: stdout.into(), stderr: stderr.into() })
}

pub(crate) fn null() -> OwnedFd {
    File::options().read(true).write(true).open("/dev/null").expect("/dev/null").into()
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

impl Ran {
    /// Its output as lines of a name, a tab or else a space, and a value; the program must have succeeded.
    pub(crate) fn answers(&self) -> BTreeMap<String, String> {
        assert!(self.succeeded(), "the probe failed: {self:?}");
        let pairs = self
            .stdout
            .lines()
            .map(|line| line.split_once('\t').or_else(|| line.split_once(' ')).expect("a name and a value"));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    pub(crate) fn succeeded(&self) -> bool {
        self.ended.exit == vilya_isolate::Exit::Code(0)
    }
}
