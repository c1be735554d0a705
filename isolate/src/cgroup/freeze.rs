//! Stopping everything in a sandbox's group, and letting it run again.
//!
//! Owns: the freezer of version 2. Invariant: a frozen process can be killed: nothing need be thawed for a sandbox to end, and none is left when
//! the worker dies. Does not know: why something is frozen.
//!
//! The freezer of version 1 is not used: a process that it has frozen does not die of SIGKILL before somebody thaws it, so it would outlive a
//! killed worker. That of version 2 is no controller and needs none; a host that limits by version 1 mostly has version 2 mounted besides, and
//! then each sandbox has a group there for this alone. Signals (SIGSTOP) are not used either: they would have to be sent to each process of a
//! sandbox that may be forking, and a child may send SIGCONT to its parent.

use std::io;
use std::os::fd::BorrowedFd;

use super::switch::Switch;
use super::write_at;

pub(super) const FILE: &std::ffi::CStr = c"cgroup.freeze";

/// Freezes and thaws one sandbox.
#[derive(Clone, Debug)]
pub struct Freezer(pub(super) Switch);

impl Freezer {
    /// Has every process of the sandbox stop, also those that it makes at this moment. They may run on for a moment after this returns.
    ///
    /// # Errors
    /// When the kernel refuses; the sandbox runs on.
    pub fn freeze(&self) -> io::Result<()> {
        self.0.set(true)
    }

    /// Lets them run again. System calls in which they were stopped go on, or end as after SIGCONT.
    ///
    /// # Errors
    /// When the kernel refuses, as it does when the sandbox has been cleaned up after.
    pub fn thaw(&self) -> io::Result<()> {
        self.0.set(false)
    }
}

/// Whether groups below this one can be frozen: tried on it while it is empty.
pub(super) fn try_on(directory: BorrowedFd<'_>) -> Result<(), String> {
    let tried = write_at(directory, FILE, "1").and_then(|()| write_at(directory, FILE, "0"));
    tried.map_err(|error| {
        format!("cgroup.freeze cannot be written: {error}; it needs Linux 5.2 and a group of version 2")
    })
}
