//! Control groups that a container runtime makes: found and read, and made only where it makes none.
//!
//! Owns: where the group of a container is, and the empty directories that runtimes leave above such groups. Invariant: nothing is
//! removed but an empty directory. Does not know: containers.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use super::detect::{self, Mounted};
use super::{Controller, Version, read_at, settings};
use crate::limits::{REMOVAL_PATIENCE, REMOVAL_PAUSE};

/// The memory group of a container, open, so that it can be read when its processes are dead.
#[derive(Debug)]
pub(crate) struct MemoryEvents {
    version: Version,
    directory: OwnedFd,
}

impl MemoryEvents {
    /// Of the group at this place of its hierarchy, whether or not its processes still live; `None` if no group counts their memory.
    pub(crate) fn of_group(group: &Path) -> Option<MemoryEvents> {
        let mounted = memory_hierarchy(&fs::read_to_string("/proc/self/cgroup").ok()?)?;
        let directory = File::open(mounted.point.join(group)).ok()?;
        Some(MemoryEvents { version: mounted.version, directory: directory.into() })
    }

    /// Whether the kernel killed a process in it for memory.
    pub(crate) fn killed(&self) -> bool {
        let file = settings::kill_count_file(self.version);
        read_at(self.directory.as_fd(), file).is_ok_and(|text| settings::kill_count(&text) > 0)
    }
}

/// Whether memory is limited by version 2 here.
pub(crate) fn is_unified() -> bool {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    memory_hierarchy(&own).is_some_and(|mounted| mounted.version == Version::Two)
}

/// Where version 2 is mounted on a host that limits memory by version 1.
pub(crate) fn unified_besides() -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let memory = memory_hierarchy(&own)?;
    let mounted = detect::parse(&fs::read_to_string("/proc/self/mountinfo").ok()?, &own);
    let unified = mounted.into_iter().find(|mounted| mounted.version == Version::Two)?;
    (memory.version == Version::One).then_some(unified.point)
}

/// The hierarchy that counts memory: that of version 1 where there is one, since a controller is in one hierarchy only.
fn memory_hierarchy(groups: &str) -> Option<Mounted> {
    let mounted = detect::parse(&fs::read_to_string("/proc/self/mountinfo").ok()?, groups);
    let (one, two): (Vec<Mounted>, Vec<Mounted>) =
        mounted.into_iter().partition(|mounted| mounted.version == Version::One);
    let memory = one.into_iter().find(|mounted| mounted.controllers.contains(&Controller::Memory));
    memory.or_else(|| two.into_iter().next())
}

/// Removes this directory, and the one above it, from every hierarchy, if they are empty.
pub(crate) fn remove_empty(below: &Path) {
    for point in detect::points() {
        for directory in below.ancestors().take(2) {
            // Others may be in it, or it may never have been made.
            let _ = fs::remove_dir(point.join(directory));
        }
    }
}

/// A group of version 2 on a host that limits by version 1, for a container whose runtime makes none there: to be frozen by.
#[derive(Debug)]
pub(crate) struct Enrolment {
    directory: PathBuf,
}

impl Enrolment {
    /// Makes it at this place of the hierarchy that is mounted there.
    pub(crate) fn make(point: &Path, group: &Path) -> io::Result<Enrolment> {
        let directory = point.join(group);
        fs::create_dir_all(&directory)?;
        Ok(Enrolment { directory })
    }

    /// What a process writes 0 to, to be in it with all that it makes.
    pub(crate) fn entrance(&self) -> io::Result<OwnedFd> {
        File::options().write(true).open(self.directory.join("cgroup.procs")).map(OwnedFd::from)
    }
}

/// Removes that of a container that is gone, if there is one.
pub(crate) fn withdraw(point: &Path, group: &Path) {
    // The last of its processes may be leaving; what stays is removed by the next sweep.
    let deadline = Instant::now() + REMOVAL_PATIENCE;
    while fs::remove_dir(point.join(group)).is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY))
        && Instant::now() < deadline
    {
        thread::sleep(REMOVAL_PAUSE);
    }
}
