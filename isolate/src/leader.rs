//! The first process of a sandbox, as its parent names it.
//!
//! Invariant: it is signalled and waited for as what it was when the sandbox was made. By its number alone that holds because it is this
//! process's child: the kernel gives the number to nobody before it is reaped, and only [`Leader::wait`], which ends the name, reaps it. Does
//! not know what else belongs to a sandbox.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys::{self, Status};

/// The first process of a sandbox.
#[derive(Debug)]
pub(crate) enum Leader {
    /// By a descriptor.
    Pidfd(OwnedFd),
    /// By its number: a child of this process, whose descriptor was given away.
    Child(i32),
}

impl Leader {
    /// Gives the descriptor away, if the number, which is that of a child of this process, names it as well; otherwise another one of it.
    pub(crate) fn give(&mut self, pid: i32) -> io::Result<OwnedFd> {
        let Leader::Pidfd(pidfd) = self else { return Err(io::Error::from(io::ErrorKind::NotFound)) };
        if !sys::is_child(pid) {
            return pidfd.try_clone();
        }
        match std::mem::replace(self, Leader::Child(pid)) {
            Leader::Pidfd(pidfd) => Ok(pidfd),
            Leader::Child(_) => unreachable!("it was a descriptor a moment ago"),
        }
    }

    /// # Panics
    /// When it was given away.
    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        match self {
            Leader::Pidfd(pidfd) => pidfd.as_fd(),
            Leader::Child(_) => panic!("the descriptor of a process is used after it was given away"),
        }
    }

    /// An error means that it is dead and reaped.
    pub(crate) fn kill(&self) -> io::Result<()> {
        match self {
            Leader::Pidfd(pidfd) => sys::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL),
            Leader::Child(pid) => sys::kill_child(*pid),
        }
    }

    /// Waits until it has ended, and reaps it.
    pub(crate) fn wait(self) -> io::Result<Status> {
        match self {
            Leader::Pidfd(pidfd) => sys::wait(pidfd.as_fd()),
            Leader::Child(pid) => sys::wait_for_child(pid),
        }
    }
}
