//! Sending all of some bytes. The kernel continues short sends itself (`MSG_WAITALL`); one that it cuts short anyway is
//! continued here.
//!
//! A quiet send is one that must not wait and whose success is not told (`MSG_DONTWAIT`, `CQE_SKIP_SUCCESS`): the kernel
//! carries it out while it takes the submission, and has told of anything but success by the time that the call returns.
//! One that did not fit goes on as any other.

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
    quiet: bool,
}

impl Sending {
    pub(super) fn new(socket: RawFd, data: SendData, quiet: bool) -> Sending {
        Sending { socket, data, sent: 0, quiet }
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.quiet
    }

    pub(super) fn into_data(self) -> SendData {
        self.data
    }

    pub(super) fn entry(&self) -> squeue::Entry {
        let bytes = (self.data.len() - self.sent).min(SEND_BYTES_MAX) as u32;
        // A peer that is gone is an error here, not a signal for the process.
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        let entry = opcode::Send::new(Fd(self.socket), self.data.address(self.sent), bytes);
        if self.quiet {
            entry.flags(flags | libc::MSG_DONTWAIT).build().flags(squeue::Flags::SKIP_SUCCESS)
        } else {
            entry.flags(flags).build()
        }
    }

    pub(super) fn complete(&mut self, reply: Reply) -> Verdict {
        let bytes = self.data.len();
        // Whatever is told of it: what is left is told of in the end.
        let was_quiet = std::mem::take(&mut self.quiet);
        match reply.errno() {
            Some(libc::EAGAIN) if was_quiet => return Verdict::Again(None),
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
        let mut sending = Sending::new(3, SendData::Owned(vec![7; 10]), false);
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
        let mut sending = Sending::new(3, SendData::Owned(vec![7; 10]), false);
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
        let mut sending = Sending::new(3, SendData::Static(b"x"), false);
        assert!(matches!(sending.complete(Reply::plain(0)), Verdict::Over(Outcome::Failed { errno: libc::EIO, .. })));
        let mut empty = Sending::new(3, SendData::Static(b""), false);
        assert!(matches!(empty.complete(Reply::plain(0)), Verdict::Over(Outcome::Sent(_))));
    }
}
