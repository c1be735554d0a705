//! Closing a descriptor on the ring.
#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use io_uring::{opcode, squeue, types::Fd};

use super::{Outcome, Reply, Verdict};

pub(super) fn entry(fd: RawFd) -> squeue::Entry {
    opcode::Close::new(Fd(fd)).build()
}

pub(super) fn complete(fd: RawFd, reply: Reply) -> Verdict {
    match reply.errno() {
        None => Verdict::Over(Outcome::Closed),
        // Cancelled before it began: the descriptor is still ours.
        Some(libc::ECANCELED) => {
            close_now(fd);
            Verdict::Over(Outcome::Closed)
        }
        // Any other error is the file's own (a failed flush): the descriptor is gone.
        Some(errno) => Verdict::Over(Reply::failed(errno)),
    }
}

fn close_now(fd: RawFd) {
    // SAFETY: the descriptor was handed over as an `OwnedFd` with the operation, and the kernel did not close it.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
}
