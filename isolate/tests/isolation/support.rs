//! A mechanism with a state directory of its own.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use vilya_isolate::{
    CgroupPreference, Descriptors, Mechanism, Native, NativeOptions, PoolOptions, Privilege, Spec, StartError, Started,
};

use crate::sandboxes::running_with;
pub(crate) use crate::sandboxes::{PYTHON, Ran, Running, null, python, spec, unique};

/// A mechanism and what belongs to it.
pub(crate) struct Room {
    pub(crate) native: Native,
    pub(crate) state: Arc<TempDir>,
    pub(crate) worker_id: String,
}

impl Room {
    /// One whose sandboxes were made before they are started, where the spec is the usual one.
    pub(crate) fn new() -> Room {
        Room::prepared_with(CgroupPreference::Auto)
    }

    pub(crate) fn prepared_with(cgroup: CgroupPreference) -> Room {
        let mut room = Room::with(cgroup);
        let template = spec(&["/usr/bin/true"]);
        let options = PoolOptions {
            template,
            mount_points: vec!["/function"],
            size: 2,
            loaded: 2,
            threads: 1,
            images: 1,
            image_binds: Vec::new(),
        };
        assert!(room.native.prepare(options).expect("sandboxes can be made ahead"));
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
        Room { native, state: Arc::new(state), worker_id }
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

/// The groups of a recorded base: a directory of the worker's, or else what the paths of its groups begin with.
pub(crate) fn groups_of(base: &str) -> Vec<PathBuf> {
    let place = if base.ends_with('.') { Path::new(base).parent().expect("a place") } else { Path::new(base) };
    let entries = std::fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.is_dir() && path.to_string_lossy().starts_with(base)).collect()
}

pub(crate) fn native(state: &Path, worker_id: &str, cgroup: CgroupPreference) -> Native {
    let options =
        NativeOptions { state_directory: state.to_owned(), worker_id: worker_id.to_owned(), cgroup, mitigations: true };
    Native::new(options).unwrap_or_else(|error| panic!("this host cannot make sandboxes: {error}"))
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
