//! Stopping everything in a sandbox's group, and letting it run again.
//!
//! Owns: the freezers of both versions. Invariant: what is in a group of ours, by version 2, can be killed while it is frozen: nothing need be
//! thawed for a sandbox to end, and none is left when the worker dies. Does not know: why something is frozen.
//!
//! The freezer of version 1 is used for containers alone, which outlive a killed worker anyway, where they are in no group of version 2: a
//! process that it has frozen does not die of SIGKILL before somebody thaws it. That of version 2 is no controller and needs none; a host that
//! limits by version 1 mostly has version 2 mounted besides, and then each sandbox has a group there for this alone.

use std::ffi::CStr;
use std::io;
use std::os::fd::BorrowedFd;

use super::Version;
use super::switch::Switch;
use super::write_at;

pub(super) const FILE: &CStr = c"cgroup.freeze";
/// That of version 1, and its words for yes and no.
pub(super) const STATE: &str = "freezer.state";
pub(super) const STATES: [&str; 2] = ["FROZEN", "THAWED"];

/// The switch of one sandbox's group.
#[derive(Clone, Debug)]
pub(crate) struct GroupFreezer {
    pub(super) version: Version,
    pub(super) switch: Switch,
}

impl GroupFreezer {
    pub(crate) fn set(&self, frozen: bool) -> io::Result<()> {
        self.switch.set(frozen)
    }

    pub(crate) fn holds_the_killed(&self) -> bool {
        self.version == Version::One
    }
}

/// Whether groups below this one can be frozen: tried on it while it is empty.
pub(super) fn try_on(directory: BorrowedFd<'_>) -> Result<(), String> {
    let tried = write_at(directory, FILE, "1").and_then(|()| write_at(directory, FILE, "0"));
    tried.map_err(|error| {
        format!("cgroup.freeze cannot be written: {error}; it needs Linux 5.2 and a group of version 2")
    })
}
