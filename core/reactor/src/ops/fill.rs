//! One receive straight into a window: whatever is there, at least a byte.

use std::os::fd::RawFd;

use io_uring::{opcode, squeue, types::Fd};

use super::{Outcome, Reply, Verdict};
use crate::config::SEND_BYTES_MAX;
use crate::window::Window;

pub(super) fn entry(socket: RawFd, window: &Window) -> squeue::Entry {
    let bytes = window.len().min(SEND_BYTES_MAX) as u32;
    opcode::Recv::new(Fd(socket), window.address(), bytes).build()
}

pub(super) fn complete(reply: Reply) -> Verdict {
    match reply.errno() {
        Some(libc::EINTR) => Verdict::Again(None),
        Some(errno) => Verdict::Over(Reply::failed(errno)),
        None if reply.result == 0 => Verdict::Over(Outcome::Ended),
        None => Verdict::Over(Outcome::Filled(reply.result.unsigned_abs() as usize)),
    }
}
