//! The mechanisms of this machine, and sandboxes whose output is collected.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;
use vilya_isolate::{
    CgroupPreference, Descriptors, Docker, DockerOptions, Ended, Mechanism, Native, NativeOptions, Oci, OciOptions,
    OciRuntime, ResourceLimits, Root, SetupError, Spec, StartError, Started,
};

/// The Python that the probes are written in.
pub(crate) const PYTHON: &str = "/usr/bin/python3";

/// A way to set a mechanism up.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Native,
    Oci(OciRuntime),
    Docker,
}

impl Kind {
    pub(crate) const ALL: [Kind; 5] = [
        Kind::Native,
        Kind::Oci(OciRuntime::Crun),
        Kind::Oci(OciRuntime::Runc),
        Kind::Oci(OciRuntime::Youki),
        Kind::Docker,
    ];
}

/// A mechanism with a state directory of its own.
pub(crate) struct Room {
    pub(crate) kind: Kind,
    pub(crate) mechanism: Box<dyn Mechanism>,
    pub(crate) state: TempDir,
    pub(crate) worker_id: String,
}

/// Runs a check on every mechanism there is.
pub(crate) fn each(check: impl Fn(&mut Room)) {
    let mut ran = 0;
    for kind in Kind::ALL {
        let state = tempfile::tempdir().expect("a temporary directory");
        let worker_id = unique("test");
        match set_up(kind, state.path().to_owned(), &worker_id) {
            Ok(mechanism) => {
                println!("on {kind:?}");
                ran += 1;
                check(&mut Room { kind, mechanism, state, worker_id });
            }
            Err(SetupError::Unavailable(why)) => println!("skipped {kind:?}: {why}"),
            Err(error) => panic!("{kind:?} is there and cannot be set up: {error}"),
        }
    }
    assert!(ran > 0, "no mechanism at all");
}

pub(crate) fn set_up(kind: Kind, state_directory: PathBuf, worker_id: &str) -> Result<Box<dyn Mechanism>, SetupError> {
    let worker_id = worker_id.to_owned();
    Ok(match kind {
        Kind::Native => {
            Box::new(Native::new(NativeOptions { state_directory, worker_id, cgroup: CgroupPreference::Auto })?)
        }
        Kind::Docker => Box::new(Docker::new(DockerOptions { state_directory, worker_id, socket: docker_socket() })?),
        Kind::Oci(runtime) => Box::new(Oci::new(&OciOptions { state_directory, worker_id, runtime: Some(runtime) })?),
    })
}

/// The engine to use: the one of the environment, or the usual one.
pub(crate) fn docker_socket() -> PathBuf {
    std::env::var_os("VILYA_TEST_DOCKER_SOCKET").map_or_else(|| "/var/run/docker.sock".into(), PathBuf::from)
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

/// Containers that the engine has of a worker, running or not.
fn containers_of(worker_id: &str) -> usize {
    let mut stream = UnixStream::connect(docker_socket()).expect("an engine");
    stream.write_all(b"GET /containers/json?all=true HTTP/1.0\r\nHost: d\r\n\r\n").expect("it listens");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    answer.matches(&format!("\"vilya.worker\":\"{worker_id}\"")).count()
}

/// Starting on a mechanism that has no room.
pub(crate) mod room {
    use super::{Descriptors, Mechanism, OwnedFd, Running, Spec, StartError, io, null};

    pub(crate) fn start(mechanism: &mut dyn Mechanism, spec: &Spec) -> Result<Running, StartError> {
        start_with(mechanism, spec, [null(), null(), null()])
    }

    pub(crate) fn start_with(
        mechanism: &mut dyn Mechanism,
        spec: &Spec,
        ring: [OwnedFd; 3],
    ) -> Result<Running, StartError> {
        let (stdout, write_stdout) = io::pipe().expect("a pipe");
        let (stderr, write_stderr) = io::pipe().expect("a pipe");
        let descriptors = Descriptors { ring, stdout: write_stdout.into(), stderr: write_stderr.into() };
        let started = mechanism.start(spec, descriptors)?;
        let (stdout, stderr): (OwnedFd, OwnedFd) = (stdout.into(), stderr.into());
        Ok(Running { started, stdout: stdout.into(), stderr: stderr.into() })
    }
}

impl Room {
    pub(crate) fn start(&mut self, spec: &Spec) -> Result<Running, StartError> {
        room::start(self.mechanism.as_mut(), spec)
    }

    /// Starts a sandbox that is given these as its descriptors 3, 4 and 5.
    pub(crate) fn start_with(&mut self, spec: &Spec, ring: [OwnedFd; 3]) -> Result<Running, StartError> {
        room::start_with(self.mechanism.as_mut(), spec, ring)
    }

    /// Whether a protection is in force; says so if not.
    pub(crate) fn enforces(&self, name: &str) -> bool {
        let in_force = self.mechanism.protections().in_force(name);
        if !in_force {
            println!("not enforced by {:?}: {name}", self.kind);
        }
        in_force
    }

    /// Containers of this worker that the runtime or the engine knows.
    pub(crate) fn containers(&self) -> usize {
        match self.kind {
            Kind::Native => 0,
            Kind::Docker => {
                let known = self.state.path().join("isolate/docker/sandboxes");
                std::fs::read_dir(known).expect("its state").count() + containers_of(&self.worker_id)
            }
            Kind::Oci(runtime) => {
                let known = self.state.path().join("isolate/oci").join(runtime.name()).join("state");
                std::fs::read_dir(known).expect("its state").count()
            }
        }
    }

    /// Runs to the end.
    pub(crate) fn run(&mut self, spec: &Spec) -> Ran {
        let kind = self.kind;
        self.start(spec).unwrap_or_else(|error| panic!("{kind:?}: it must start: {error}")).finish()
    }

    /// Runs a Python program to the end.
    pub(crate) fn python(&mut self, program: &str) -> Ran {
        self.run(&python(program))
    }
}

pub(crate) fn null() -> OwnedFd {
    File::open("/dev/null").expect("/dev/null").into()
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
