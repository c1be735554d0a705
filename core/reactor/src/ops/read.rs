//! One read of a pipe or file into a provided buffer.

use std::os::fd::RawFd;

use io_uring::{opcode, squeue, types::Fd};

use super::{Outcome, Reply, Verdict};
use crate::buffers::{Buffers, GROUP};

/// Tells the kernel to read at the descriptor's own position.
const CURRENT_POSITION: u64 = u64::MAX;

pub(super) fn entry(fd: RawFd, buffer_bytes: u32) -> squeue::Entry {
    opcode::Read::new(Fd(fd), std::ptr::null_mut(), buffer_bytes)
        .offset(CURRENT_POSITION)
        .buf_group(GROUP)
        .build()
        .flags(squeue::Flags::BUFFER_SELECT)
}

pub(super) fn complete(reply: Reply, buffers: &mut Buffers) -> Verdict {
    match (reply.result, reply.buffer()) {
        (1.., Some(buffer)) => Verdict::Over(Outcome::Read(buffers.claim(buffer, reply.result.unsigned_abs()))),
        (result, unused) => {
            if let Some(buffer) = unused {
                buffers.recycle_unseen(buffer);
            }
            match reply.errno() {
                Some(libc::EINTR) => Verdict::Again(None),
                Some(errno) => Verdict::Over(Reply::failed(errno)),
                None if result == 0 => Verdict::Over(Outcome::Ended),
                // Bytes without a buffer: the kernel broke its word.
                None => Verdict::Over(Reply::failed(libc::EIO)),
            }
        }
    }
}
