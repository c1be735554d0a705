//! Receiving into provided buffers: until the stream ends, or once.

use std::os::fd::RawFd;

use io_uring::{opcode, squeue, types::Fd};

use super::{Outcome, Reply, Verdict};
use crate::buffers::{Buffers, GROUP};

pub(super) fn entry(socket: RawFd) -> squeue::Entry {
    opcode::RecvMulti::new(Fd(socket), GROUP).build()
}

pub(super) fn entry_once(socket: RawFd, buffer_bytes: u32) -> squeue::Entry {
    opcode::Recv::new(Fd(socket), std::ptr::null_mut(), buffer_bytes)
        .buf_group(GROUP)
        .build()
        .flags(squeue::Flags::BUFFER_SELECT)
}

pub(super) fn complete(reply: Reply, buffers: &mut Buffers, once: bool) -> Verdict {
    match (reply.result, reply.buffer()) {
        (1.., Some(buffer)) => {
            let received = Outcome::Received(buffers.claim(buffer, reply.result.unsigned_abs()));
            if once { Verdict::Over(received) } else { Verdict::event(reply, received) }
        }
        (result, unused) => {
            if let Some(buffer) = unused {
                buffers.recycle_unseen(buffer);
            }
            match reply.errno() {
                Some(libc::EINTR) if !reply.more() => Verdict::Again(None),
                Some(errno) => Verdict::Over(Reply::failed(errno)),
                None if result == 0 => Verdict::Over(Outcome::Ended),
                // Bytes without a buffer: the kernel broke its word.
                None => Verdict::Over(Reply::failed(libc::EIO)),
            }
        }
    }
}
