//! The mechanisms of this machine.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use tempfile::TempDir;
use vilya_isolate::{
    CgroupPreference, Docker, DockerOptions, Mechanism, Native, NativeOptions, Oci, OciOptions, OciRuntime,
    PoolOptions, SetupError, Spec, StartError,
};

use crate::sandboxes::running_with;
pub(crate) use crate::sandboxes::{PYTHON, Ran, Running, null, python, spec, unique};

/// A way to set a mechanism up.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Native,
    /// The same, with sandboxes made ahead, which a start takes if the spec is the usual one.
    Prepared,
    /// Without control groups.
    Ungrouped,
    Oci(OciRuntime),
    Docker,
}

impl Kind {
    /// The same mechanism may be among them more than once.
    pub(crate) const VARIED: [Kind; 7] = [
        Kind::Native,
        Kind::Prepared,
        Kind::Ungrouped,
        Kind::Oci(OciRuntime::Crun),
        Kind::Oci(OciRuntime::Runc),
        Kind::Oci(OciRuntime::Youki),
        Kind::Docker,
    ];

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
    each_of(&Kind::ALL, check);
}

/// Runs a check on those of some mechanisms that this machine has.
pub(crate) fn each_of(kinds: &[Kind], check: impl Fn(&mut Room)) {
    let mut ran = 0;
    for kind in kinds.iter().copied() {
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
        Kind::Native | Kind::Ungrouped => Box::new(Native::new(NativeOptions {
            state_directory,
            worker_id,
            cgroup: if matches!(kind, Kind::Ungrouped) { CgroupPreference::Off } else { CgroupPreference::Auto },
            mitigations: true,
        })?),
        Kind::Prepared => {
            let mut native = set_up(Kind::Native, state_directory, &worker_id)?;
            let template = spec(&["/usr/bin/true"]);
            let options = PoolOptions {
                template,
                mount_points: vec!["/function"],
                size: 2,
                loaded: 1,
                threads: 1,
                images: 1,
                image_binds: Vec::new(),
            };
            if !native.prepare(options).expect("it can, or says that it cannot") {
                return Err(SetupError::Unavailable("sandboxes cannot be made ahead for this processor".into()));
            }
            native
        }
        Kind::Docker => Box::new(Docker::new(DockerOptions { state_directory, worker_id, socket: docker_socket() })?),
        Kind::Oci(runtime) => Box::new(Oci::new(&OciOptions { state_directory, worker_id, runtime: Some(runtime) })?),
    })
}

/// Starts on a mechanism that has no room.
pub(crate) fn start(mechanism: &mut dyn Mechanism, spec: &Spec) -> Result<Running, StartError> {
    running_with([null(), null(), null()], |descriptors| mechanism.start(spec, descriptors))
}

/// The engine to use: the one of the environment, or the usual one.
pub(crate) fn docker_socket() -> PathBuf {
    std::env::var_os("VILYA_TEST_DOCKER_SOCKET").map_or_else(|| "/var/run/docker.sock".into(), PathBuf::from)
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

impl Room {
    pub(crate) fn start(&mut self, spec: &Spec) -> Result<Running, StartError> {
        start(self.mechanism.as_mut(), spec)
    }

    /// Starts a sandbox that is given these as its descriptors 3, 4 and 5.
    pub(crate) fn start_with(&mut self, spec: &Spec, ring: [OwnedFd; 3]) -> Result<Running, StartError> {
        running_with(ring, |descriptors| self.mechanism.start(spec, descriptors))
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
            Kind::Native | Kind::Prepared | Kind::Ungrouped => 0,
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
