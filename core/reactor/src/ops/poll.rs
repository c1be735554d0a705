//! Polls: multishot for doorbells that are never read, once for a pidfd, and the waker's own.

use std::os::fd::{AsRawFd, RawFd};

use io_uring::{opcode, squeue, types::Fd};

use super::{Outcome, Reply, Verdict};
use crate::kept::Owned;
use crate::token::{Kind, Token};

pub(super) fn entry(fd: RawFd, multishot: bool) -> squeue::Entry {
    opcode::PollAdd::new(Fd(fd), libc::POLLIN as u32).multi(multishot).build()
}

pub(super) fn entry_of(file: &Owned, multishot: bool) -> squeue::Entry {
    match file {
        Owned::Kept(place) => opcode::PollAdd::new(*place, libc::POLLIN as u32).multi(multishot).build(),
        Owned::Open(file) => entry(file.as_raw_fd(), multishot),
    }
}

/// The poll of the waker's eventfd, which holds no slot.
pub(crate) fn waker_entry(fd: RawFd) -> squeue::Entry {
    entry(fd, true).user_data(Token::new(Kind::Waker, 0, 0).to_bits())
}

pub(super) fn complete(reply: Reply) -> Verdict {
    match reply.errno() {
        None => Verdict::event(reply, Outcome::Readable),
        Some(errno) => Verdict::Over(Reply::failed(errno)),
    }
}

pub(super) fn complete_once(reply: Reply) -> Verdict {
    match reply.errno() {
        None => Verdict::Over(Outcome::Readable),
        Some(errno) => Verdict::Over(Reply::failed(errno)),
    }
}
