//! Having everything in a sandbox's group run only where nothing else wants to.
//!
//! Owns: the idle class of a group (`cpu.idle`). Invariant: whatever a group's processes do, and however many they become, a process outside
//! of such groups that wakes is run instead of one inside at once. Does not know: why a sandbox is to give way.
//!
//! Not by a small weight: what runs is then still left its slice, some milliseconds, before what wakes gets the core. Not by `SCHED_IDLE` for
//! each process: it would have to be set on all of them while they may be forking, and counts within their group alone.

use std::io;
use std::os::fd::BorrowedFd;

use super::switch::Switch;
use super::write_at;

pub(super) const FILE: &std::ffi::CStr = c"cpu.idle";

/// Has one sandbox give way to everything else, and takes that back.
#[derive(Clone, Debug)]
pub struct Precedence(pub(super) Switch);

impl Precedence {
    /// Has every process of the sandbox give way, also those that it makes later.
    ///
    /// # Errors
    /// When the kernel refuses, as it does when the sandbox has been cleaned up after.
    pub fn yield_to_others(&self) -> io::Result<()> {
        self.0.set(true)
    }

    /// Has it run like others again.
    ///
    /// # Errors
    /// As [`yield_to_others`](Precedence::yield_to_others).
    pub fn restore(&self) -> io::Result<()> {
        self.0.set(false)
    }
}

/// Whether groups below this one can give way: tried on it while it is empty.
pub(super) fn try_on(directory: BorrowedFd<'_>) -> Result<(), String> {
    let tried = write_at(directory, FILE, "1").and_then(|()| write_at(directory, FILE, "0"));
    tried.map_err(|error| format!("cpu.idle cannot be written: {error}; it needs Linux 5.15 and the cpu controller"))
}
