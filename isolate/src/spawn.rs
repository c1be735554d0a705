//! The split of the process, and what the child reports after it.
//!
//! Owns: the arguments of `clone3`, and reading the report. Invariant: whatever the child does, reading ends: with its report, its death, or
//! the end of patience. Does not know: who splits (the keeper's helpers), or what a plan is for.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::ptr;
use std::time::{Duration, Instant};

use crate::apply::Report;
use crate::limits::START_PATIENCE;
use crate::sys::{self, Errno, Word};

/// The kernel's `struct clone_args`.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// From `linux/sched.h`; wider than the integers that libc gives them.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

impl CloneArguments {
    /// A sibling of the caller in new namespaces, born in a version 2 group if there is one. Its exit signal is the caller's own; its pidfd
    /// is stored in the given place.
    pub(crate) fn sibling(namespaces: u64, group: Option<RawFd>, pidfd: *mut RawFd) -> CloneArguments {
        let flags = (libc::CLONE_PARENT | libc::CLONE_PIDFD) as u64;
        CloneArguments {
            flags: namespaces | flags | group.map_or(0, |_| CLONE_INTO_CGROUP),
            pidfd: pidfd.expose_provenance() as u64,
            cgroup: group.map_or(0, |group| group as u64),
            ..CloneArguments::default()
        }
    }

    /// A child of the caller in new namespaces; its pidfd is stored in the given place.
    pub(crate) fn child(namespaces: u64, pidfd: *mut RawFd) -> CloneArguments {
        CloneArguments {
            flags: namespaces | libc::CLONE_PIDFD as u64,
            pidfd: pidfd.expose_provenance() as u64,
            exit_signal: libc::SIGCHLD as u64,
            ..CloneArguments::default()
        }
    }

    /// Splits the process: 0 in the child, its id in the parent.
    ///
    /// # Safety
    /// The place of the pidfd must be valid. The child must only perform a plan, or be of a process with one thread.
    pub(crate) unsafe fn clone3(&self) -> Result<i32, Errno> {
        // SAFETY: the arguments outlive the call and the size is theirs; the rest is the caller's promise.
        unsafe { sys::call(libc::SYS_clone3, [ptr::from_ref(self) as Word, size_of::<CloneArguments>() as Word]) }
            .map(|pid| pid as i32)
    }
}

/// Whether the kernel has `clone3` and lets this process make it: arguments of no size are refused by the call itself, and make nothing.
pub(crate) fn try_clone3() -> io::Result<()> {
    // SAFETY: of arguments without a size nothing is read.
    match unsafe { sys::call(libc::SYS_clone3, [0, 0]) } {
        Err(libc::EINVAL) => Ok(()),
        Err(errno) => Err(io::Error::from_raw_os_error(errno)),
        Ok(_) => unreachable!("the kernel takes no arguments shorter than the first version's"),
    }
}

/// What came of a child.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Every step was performed.
    Started(Report),
    /// A step failed.
    Failed(Report),
    /// The child ended without a word: it was killed.
    Silent,
    /// The child did not get on.
    Late,
}

/// Reads the child's report until the pipe ends, which `exec` or death brings about. The parent's write end must be closed.
pub(crate) fn outcome(report: OwnedFd) -> io::Result<Outcome> {
    const BYTES: usize = size_of::<Report>();
    let deadline = Instant::now() + START_PATIENCE;
    let mut pipe = File::from(report);
    // Two reports at most: before `exec`, and when it failed.
    let mut bytes = [0_u8; 2 * BYTES];
    let mut filled = 0;
    loop {
        let patience = deadline.saturating_duration_since(Instant::now());
        if patience == Duration::ZERO || !sys::poll_readable(pipe.as_fd(), patience)? {
            return Ok(Outcome::Late);
        }
        match pipe.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let last = bytes[..filled].as_chunks::<BYTES>().0.last().map(Report::from_bytes);
    Ok(match last {
        None => Outcome::Silent,
        Some(report) if report.errno == 0 => Outcome::Started(report),
        Some(report) => Outcome::Failed(report),
    })
}
