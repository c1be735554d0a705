//! Having everything in a sandbox's group run only where nothing else wants to.
//!
//! Owns: the idle class of a group (`cpu.idle`). Invariant: whatever a group's processes do, and however many they become, a process outside
//! of such groups that wakes is run instead of one inside at once. Does not know: why a sandbox is to give way.
//!
//! Not by a small weight: what runs is then still left its slice, some milliseconds, before what wakes gets the core. Not by `SCHED_IDLE` for
//! each process: it would have to be set on all of them while they may be forking, and counts within their group alone.
//!
//! The kernel compares the two ancestors that are siblings. Below a directory of the worker's, which is no idle one, a group gives way at once
//! to other sandboxes alone, and the shards, which are elsewhere, wait for the directory's turn to end. So where a hierarchy of version 1 has
//! the processor alone, the groups are at the top of it. Version 2 has one hierarchy for everything, and there it stays like that.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

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

/// Whether groups can be at the top of a hierarchy and give way there: tried with one of this name.
pub(super) fn try_at_top(top: &Path, name: &str) -> bool {
    let group = top.join(name);
    // One may be left by a worker that was killed in the middle of this.
    let made = fs::create_dir(&group).is_ok() || group.is_dir();
    let gives_way = made && fs::File::open(&group).is_ok_and(|directory| try_on(directory.as_fd()).is_ok());
    made && fs::remove_dir(&group).is_ok() && gives_way
}

/// Whether groups below this one can give way: tried on it while it is empty.
pub(super) fn try_on(directory: BorrowedFd<'_>) -> Result<(), String> {
    let tried = write_at(directory, FILE, "1").and_then(|()| write_at(directory, FILE, "0"));
    tried.map_err(|error| format!("cpu.idle cannot be written: {error}; it needs Linux 5.15 and the cpu controller"))
}
