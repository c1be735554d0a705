//! Multishot accept.
#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use io_uring::{opcode, squeue, types::Fd};

use super::{Outcome, Reply, Verdict};

pub(super) fn entry(listener: RawFd) -> squeue::Entry {
    opcode::AcceptMulti::new(Fd(listener)).flags(libc::SOCK_CLOEXEC).build()
}

pub(super) fn complete(reply: Reply) -> Verdict {
    match (accepted(reply), reply.errno()) {
        (Some(connection), _) => Verdict::event(reply, Outcome::Accepted(connection)),
        // The connection went away before it was accepted: not the listener's end.
        (None, Some(libc::ECONNABORTED | libc::EPROTO | libc::EINTR)) if !reply.more() => Verdict::Again(None),
        (None, errno) => Verdict::Over(Reply::failed(errno.unwrap_or(libc::EIO))),
    }
}

/// Closes a connection that nobody gets.
pub(super) fn reclaim(reply: Reply) {
    drop(accepted(reply));
}

fn accepted(reply: Reply) -> Option<OwnedFd> {
    // SAFETY: the result of an accept, if not negative, is a new descriptor that the kernel gave to this completion
    // alone; each completion entry is looked at once.
    (reply.result >= 0).then(|| unsafe { OwnedFd::from_raw_fd(reply.result) })
}
