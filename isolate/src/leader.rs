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

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;

    use super::Leader;
    use crate::sys::{self, Status};

    fn sleeping() -> (Child, i32, Leader) {
        let child = Command::new("/usr/bin/sleep").arg("1000").stdin(Stdio::null()).spawn().expect("it starts");
        let pid = child.id().cast_signed();
        (child, pid, Leader::Pidfd(sys::pidfd_open(pid).expect("it lives")))
    }

    fn dies(pidfd: &impl AsFd) -> bool {
        sys::poll_readable(pidfd.as_fd(), Duration::from_secs(30)).expect("a pidfd can be polled")
    }

    #[test]
    fn it_is_killed_and_waited_for_by_its_descriptor() {
        let (_child, _, leader) = sleeping();
        leader.kill().expect("it lives");
        assert!(dies(&leader.pidfd()));
        assert_eq!(leader.wait().expect("nobody else does"), Status::Killed(libc::SIGKILL));
    }

    #[test]
    fn and_by_its_number_once_its_descriptor_was_given_away() {
        let (_child, pid, mut leader) = sleeping();
        let pidfd = leader.give(pid).expect("a child is named by its number");
        assert!(matches!(leader, Leader::Child(named) if named == pid));
        leader.kill().expect("it lives");
        assert!(dies(&pidfd));
        // Dead and not waited for, it still has its number.
        leader.kill().expect("it is nobody else's");
        assert_eq!(leader.wait().expect("nobody else does"), Status::Killed(libc::SIGKILL));
    }

    #[test]
    fn a_number_that_is_no_childs_any_more_is_not_signalled() {
        let (mut child, pid, mut leader) = sleeping();
        let _pidfd = leader.give(pid).expect("a child is named by its number");
        child.kill().and_then(|()| child.wait()).expect("it ends");
        assert_eq!(leader.kill().expect_err("it was waited for").raw_os_error(), Some(libc::ESRCH));
        leader.wait().expect_err("there is nothing to wait for");
    }

    #[test]
    fn a_descriptor_is_given_away_once_and_that_of_no_child_stays() {
        let (mut child, pid, mut leader) = sleeping();
        let _pidfd = leader.give(pid).expect("the first time");
        leader.give(pid).expect_err("it has none");
        // The parent of this process is no child of it.
        let parent = std::os::unix::process::parent_id().cast_signed();
        let mut other = Leader::Pidfd(sys::pidfd_open(parent).expect("it lives"));
        other.give(parent).expect("another of the same");
        assert!(!sys::poll_readable(other.pidfd(), Duration::ZERO).expect("it is there"), "it lives");
        child.kill().and_then(|()| child.wait()).expect("it ends");
    }
}
