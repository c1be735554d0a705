//! Getting everything back from the kernel when a reactor is dropped.
//!
//! Invariant: no memory is freed that the kernel may still touch. What does not come back in time is leaked, the
//! provided buffers included.

use std::io;

use crate::clock;
use crate::config::{SHUTDOWN_RETRY_NS, SHUTDOWN_WAIT_NS};
use crate::reactor::Reactor;
use crate::ring::Sleep;
use crate::token::Token;

impl Reactor {
    pub(crate) fn shut_down(&mut self) {
        self.closing = true;
        self.abandon_all();
        let until_ns = clock::now_ns() + SHUTDOWN_WAIT_NS;
        // At least once: closes and messages that were taken but not submitted must still happen.
        let mut outcome = self.shut_down_round();
        while self.slots.live() > 0 && outcome.is_ok() && clock::now_ns() < until_ns {
            outcome = self.shut_down_round();
        }
        if self.slots.live() == 0 && self.ring.unregister_buffers().is_ok() {
            return;
        }
        self.buffers.leak();
        for (_, slot) in self.slots.iter_mut() {
            slot.held.leak();
        }
    }

    /// Operations that wait to be armed are over at once; the others when the kernel says so.
    fn abandon_all(&mut self) {
        let mut never_armed: Vec<Token> = Vec::new();
        for (token, slot) in self.slots.iter_mut() {
            slot.abandoned = true;
            if !slot.armed {
                never_armed.push(token);
            }
        }
        for token in never_armed {
            self.slots.remove(token);
        }
    }

    /// Asks again each time: one cancel may miss an operation that the kernel is just working on.
    fn shut_down_round(&mut self) -> io::Result<()> {
        // A full queue is submitted below, and the next round asks.
        self.cancel_all();
        let sleep = if self.slots.live() > 0 { Sleep::For { ns: SHUTDOWN_RETRY_NS } } else { Sleep::No };
        let entered = self.enter(sleep);
        // Abandoned operations deliver nothing; what other threads still sent (messages) has no receiver any more.
        self.harvest(&mut Vec::new());
        if self.ring.unsubmitted() == 0 {
            self.settle_quiet(&mut Vec::new());
        }
        entered
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::{Config, Op, SendData, Wait};

    fn busy() -> (Reactor, UnixStream, UnixStream) {
        let mut reactor = Reactor::new(&Config { entries: 8, completion_entries: 8, ..Config::default() }).unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        reactor.submit(1, Op::Receive { socket: near.as_raw_fd() }).unwrap();
        let data = SendData::Owned(vec![7; 16 << 20]);
        reactor.submit(2, Op::Send { socket: near.as_raw_fd(), data }).unwrap();
        (reactor, near, far)
    }

    #[test]
    fn nothing_is_leaked_that_comes_back() {
        let (mut reactor, _near, _far) = busy();
        reactor.turn(Wait::No, &mut Vec::new()).unwrap();
        reactor.shut_down();
        assert_eq!(reactor.slots.live(), 0);
        assert!(!reactor.buffers.is_leaked());
    }

    #[test]
    fn what_the_kernel_keeps_is_leaked() {
        let (mut reactor, _near, _far) = busy();
        reactor.ring.stuck = true;
        reactor.shut_down();
        assert_eq!(reactor.slots.live(), 2);
        assert!(reactor.buffers.is_leaked());
        // The ring's close cancels both; what they point to is never freed.
    }
}
