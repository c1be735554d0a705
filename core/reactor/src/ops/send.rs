//! Sending all of some bytes. The kernel continues short sends itself (`MSG_WAITALL`); one that it cuts short anyway is
//! continued here.

use std::os::fd::RawFd;

use io_uring::{opcode, squeue, types::Fd};

use super::{Outcome, Reply, SendData, Verdict};
use crate::config::SEND_BYTES_MAX;

/// A send under way. Owns its bytes until the kernel's last completion.
#[derive(Debug)]
pub(crate) struct Sending {
    socket: RawFd,
    data: SendData,
    sent: usize,
}

impl Sending {
    pub(super) fn new(socket: RawFd, data: SendData) -> Sending {
        Sending { socket, data, sent: 0 }
    }

    pub(super) fn entry(&self) -> squeue::Entry {
        let bytes = (self.data.len() - self.sent).min(SEND_BYTES_MAX) as u32;
        opcode::Send::new(Fd(self.socket), self.data.address(self.sent), bytes)
            // A peer that is gone is an error here, not a signal for the process.
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build()
    }

    pub(super) fn complete(&mut self, reply: Reply) -> Verdict {
        let bytes = self.data.len();
        match reply.errno() {
            Some(libc::EINTR) => return Verdict::Again(None),
            Some(errno) => return Verdict::Over(self.failed(errno)),
            None => {}
        }
        let sent = reply.result.unsigned_abs() as usize;
        self.sent += sent;
        assert!(self.sent <= bytes, "the kernel sends no more than it was given");
        if self.sent == bytes {
            Verdict::Over(Outcome::Sent(self.take()))
        } else if sent == 0 {
            // No progress and no error: asking again would spin.
            Verdict::Over(self.failed(libc::EIO))
        } else {
            Verdict::Again(None)
        }
    }

    pub(super) fn leak(&mut self) {
        std::mem::forget(self.take());
    }

    pub(super) fn failed(&mut self, errno: i32) -> Outcome {
        Outcome::Failed { errno, data: Some(self.take()), sent_bytes: self.sent }
    }

    fn take(&mut self) -> SendData {
        std::mem::replace(&mut self.data, SendData::Static(&[]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_send_is_continued_and_the_buffer_comes_back() {
        let mut sending = Sending::new(3, SendData::Owned(vec![7; 10]));
        assert!(matches!(sending.complete(Reply::plain(4)), Verdict::Again(None)));
        assert_eq!(sending.sent, 4);
        assert!(matches!(sending.complete(Reply::plain(-libc::EINTR)), Verdict::Again(None)));
        match sending.complete(Reply::plain(6)) {
            Verdict::Over(Outcome::Sent(SendData::Owned(data))) => assert_eq!(data, [7; 10]),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_error_after_a_part_gives_the_whole_buffer_back() {
        let mut sending = Sending::new(3, SendData::Owned(vec![7; 10]));
        assert!(matches!(sending.complete(Reply::plain(4)), Verdict::Again(None)));
        match sending.complete(Reply::plain(-libc::EPIPE)) {
            Verdict::Over(Outcome::Failed { errno: libc::EPIPE, data: Some(data), sent_bytes: 4 }) => {
                assert_eq!(data.len(), 10);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn no_progress_is_an_error_and_not_a_loop() {
        let mut sending = Sending::new(3, SendData::Static(b"x"));
        assert!(matches!(sending.complete(Reply::plain(0)), Verdict::Over(Outcome::Failed { errno: libc::EIO, .. })));
        let mut empty = Sending::new(3, SendData::Static(b""));
        assert!(matches!(empty.complete(Reply::plain(0)), Verdict::Over(Outcome::Sent(_))));
    }
}
