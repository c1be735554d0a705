//! A sandbox that another program made: what its mechanism does at its end.
//!
//! Owns: the seam between `Remains` and a mechanism. Invariant: a container is ended once, and what could not be removed is named.
//! Does not know: who made it.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use crate::remains::Exit;

/// What a mechanism leaves in the remains of a sandbox.
pub(crate) trait Container: fmt::Debug + Send {
    /// Kills it, besides the signal that its first process was sent already. Whether that arrived is said.
    fn kill(&self, signalled: bool);

    /// Waits until it is dead, and removes it.
    fn end(self: Box<Self>, pidfd: BorrowedFd<'_>) -> End;
}

/// What came of a container.
pub(crate) struct End {
    pub(crate) exit: Exit,
    /// Whether the kernel killed a process of it for memory.
    pub(crate) starved: bool,
    /// What could not be removed.
    pub(crate) left_behind: Vec<PathBuf>,
}
