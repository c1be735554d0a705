//! Mounts that are added to a sandbox from outside, while only our own code runs in it.
//!
//! Owns: how a thread of the worker visits a mount namespace. Invariant: it comes back, or the worker ends: a thread that stayed would see
//! the sandbox's files as the host's. Does not know: which sandbox, or what is mounted.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::thread::{self, ThreadId};

use crate::sys;

/// A tree to be attached, and where.
pub(crate) struct Attachment {
    pub(crate) tree: OwnedFd,
    pub(crate) target: CString,
}

/// A thread's way back home.
#[derive(Debug)]
pub(crate) struct Passage {
    thread: ThreadId,
    mounts: OwnedFd,
    root: OwnedFd,
    directory: OwnedFd,
}

impl Passage {
    /// Prepares the calling thread: from now on its root and working directory are its own.
    pub(crate) fn of_this_thread() -> io::Result<Passage> {
        sys::unshare(libc::CLONE_FS)?;
        let place = |path: &str| File::options().read(true).custom_flags(libc::O_PATH).open(path).map(OwnedFd::from);
        Ok(Passage {
            thread: thread::current().id(),
            mounts: File::open("/proc/thread-self/ns/mnt")?.into(),
            root: place("/")?,
            directory: place(".")?,
        })
    }

    /// Whether it is the calling thread's.
    pub(crate) fn is_of_this_thread(&self) -> bool {
        self.thread == thread::current().id()
    }

    /// Attaches the trees in the mount namespace of a process.
    ///
    /// # Panics
    /// When the thread cannot come back.
    pub(crate) fn attach(&self, process: BorrowedFd<'_>, attachments: &[Attachment]) -> io::Result<()> {
        sys::enter_namespace(process, libc::CLONE_NEWNS)?;
        let attached = attachments.iter().try_for_each(|one| sys::attach_tree(one.tree.as_fd(), &one.target));
        let home = sys::enter_namespace(self.mounts.as_fd(), libc::CLONE_NEWNS)
            .and_then(|()| sys::stand_in(self.root.as_fd(), self.directory.as_fd()));
        home.expect("a thread of the worker must see the host's files again");
        attached
    }
}
