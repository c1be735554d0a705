//! From one completion queue entry to at most one [`Completion`].
//!
//! Invariant: what an entry carries (a descriptor, a provided buffer, a send's data) goes to exactly one place: to the
//! owner, or, when nobody wants it any more, back where it came from.

use crate::ops::{Completion, Held, Outcome, Reply, Verdict, message};
use crate::reactor::Reactor;
use crate::ring::Batch;
use crate::token::{Kind, OpId, Token};

impl Reactor {
    /// Settles what is in the completion queue, once around at most.
    pub(crate) fn harvest(&mut self, out: &mut Vec<Completion>) {
        if self.ring.overflowed() {
            // The rest comes with the next enter, which does not sleep.
            self.counters.overflowed += 1;
        }
        let mut batch = Batch::new();
        for _ in 0..self.harvest_rounds {
            let entries = self.ring.reap(&mut batch);
            if entries.is_empty() {
                return;
            }
            for entry in entries {
                self.settle(Token::from_bits(entry.user_data()), Reply::of(entry), out);
            }
        }
    }

    /// Everything armed has been submitted, and what the kernel told of it harvested: the quiet sends of which it told
    /// nothing are done.
    pub(crate) fn settle_quiet(&mut self, out: &mut Vec<Completion>) {
        if self.quiet.is_empty() || self.ring.overflowed() || self.ring.has_completions() {
            return;
        }
        let mut quiet = std::mem::take(&mut self.quiet);
        for token in quiet.drain(..) {
            // Gone, or no longer quiet: the kernel told.
            if self.slots.get_mut(token).is_none_or(|slot| !slot.held.is_quiet()) {
                continue;
            }
            let Some(slot) = self.slots.remove(token) else { continue };
            if slot.abandoned {
                self.counters.swallowed += 1;
                continue;
            }
            self.counters.delivered += 1;
            let outcome = slot.held.succeeded();
            out.push(Completion { owner: slot.owner, op: OpId(token), more: false, outcome });
        }
        // The larger buffer is kept.
        self.quiet = quiet;
    }

    fn settle(&mut self, token: Token, reply: Reply, out: &mut Vec<Completion>) {
        self.counters.completed += 1;
        match token.kind() {
            // The target's own completion tells; a cancel that found nothing came too late.
            Some(Kind::Cancel) => {}
            Some(Kind::Waker) => {
                if !reply.more() && !self.closing {
                    self.counters.rearmed += 1;
                    self.arm_waker();
                }
            }
            Some(Kind::Arrived) => {
                self.counters.messages_received += 1;
                let outcome = Outcome::Message(message::value(token, reply));
                out.push(Completion { owner: 0, op: OpId::NONE, more: true, outcome });
            }
            Some(Kind::Posted) => self.settle_posted(token, reply, out),
            Some(kind) => self.settle_operation(token, kind, reply, out),
            None => self.counters.late += 1,
        }
    }

    /// Only failures of messages complete.
    fn settle_posted(&mut self, token: Token, reply: Reply, out: &mut Vec<Completion>) {
        let Some(owner) = self.postbox.take(token) else {
            self.counters.late += 1;
            return;
        };
        let outcome = Outcome::Failed { errno: -reply.result, data: None, sent_bytes: 0 };
        out.push(Completion { owner, op: OpId(token), more: false, outcome });
    }

    fn settle_operation(&mut self, token: Token, kind: Kind, reply: Reply, out: &mut Vec<Completion>) {
        let Some(slot) = self.slots.get_mut(token) else {
            self.counters.late += 1;
            Held::reclaim(kind, None, reply, &mut self.buffers);
            return;
        };
        if slot.abandoned {
            self.counters.swallowed += 1;
            Held::reclaim(kind, Some(&slot.held), reply, &mut self.buffers);
            if !reply.more() {
                self.retire(token);
            }
            return;
        }
        let owner = slot.owner;
        let interrupted = slot.interrupted;
        let (more, outcome) = match slot.held.complete(reply, &mut self.buffers) {
            Verdict::Continues(outcome) => (true, Some(outcome)),
            Verdict::Again(outcome) if interrupted => {
                if let Some(outcome) = outcome {
                    self.counters.delivered += 1;
                    out.push(Completion { owner, op: OpId(token), more: true, outcome });
                }
                let cut = slot.held.cut();
                self.retire(token);
                (false, Some(cut))
            }
            Verdict::Again(outcome) => {
                match kind {
                    Kind::Send => self.counters.continued += 1,
                    _ => self.counters.rearmed += 1,
                }
                self.arm(token);
                (true, outcome)
            }
            Verdict::Over(outcome) => {
                self.end(token, reply);
                (false, Some(outcome))
            }
        };
        if let Some(outcome) = outcome {
            self.counters.delivered += 1;
            out.push(Completion { owner, op: OpId(token), more, outcome });
        }
    }

    /// The operation is over for its owner. If the kernel says that it has more to come, the slot waits for it.
    fn end(&mut self, token: Token, reply: Reply) {
        if !reply.more() {
            self.retire(token);
        } else if let Some(slot) = self.slots.get_mut(token) {
            slot.abandoned = true;
            self.cancel(token);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(unsafe_code)]

    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use io_uring::opcode;
    use nix::sys::eventfd::{EfdFlags, EventFd};

    use super::*;
    use crate::kept::Owned;
    use crate::{Config, Op, RefusedReason, SendData, Wait};

    fn small() -> Reactor {
        let config =
            Config { entries: 4, completion_entries: 8, buffer_count: 4, buffer_bytes: 64, operations: 8, files: 2 };
        Reactor::new(&config).unwrap()
    }

    fn turn(reactor: &mut Reactor) -> Vec<Completion> {
        let mut out = Vec::new();
        reactor.turn(Wait::No, &mut out).unwrap();
        out
    }

    fn rung() -> EventFd {
        EventFd::from_value_and_flags(1, EfdFlags::EFD_CLOEXEC).unwrap()
    }

    /// A completion with any user data, from the kernel itself.
    fn inject(reactor: &mut Reactor, token: Token) {
        let entry = opcode::Nop::new().build().user_data(token.to_bits());
        // SAFETY: a NOP points to nothing.
        assert!(unsafe { reactor.ring.push(&entry) });
    }

    #[test]
    fn a_completion_for_a_slot_given_away_is_counted_and_not_delivered() {
        let mut reactor = small();
        let bell = rung();
        let first = reactor.submit(1, Op::PollOnce { fd: bell.as_raw_fd() }).unwrap();
        assert_eq!(turn(&mut reactor).len(), 1);
        let silent = EventFd::from_flags(EfdFlags::EFD_CLOEXEC).unwrap();
        let second = reactor.submit(2, Op::PollOnce { fd: silent.as_raw_fd() }).unwrap();
        assert_eq!(first.0.index(), second.0.index());
        inject(&mut reactor, first.0);
        assert!(turn(&mut reactor).is_empty());
        assert_eq!((reactor.counters().late, reactor.operations_live()), (1, 1));
        silent.write(1).unwrap();
        let out = turn(&mut reactor);
        assert_eq!((out.len(), out[0].owner, out[0].op), (1, 2, second));
    }

    #[test]
    fn completions_that_nobody_submitted_are_counted() {
        let mut reactor = small();
        inject(&mut reactor, Token::from_bits(0));
        inject(&mut reactor, Token::from_bits(u64::MAX));
        inject(&mut reactor, Token::new(Kind::Posted, 0, 0));
        assert!(turn(&mut reactor).is_empty());
        assert_eq!(reactor.counters().late, 3);
    }

    /// Fills the submission queue of a kernel that takes nothing.
    fn fill(reactor: &mut Reactor) -> EventFd {
        turn(reactor);
        reactor.ring.stuck = true;
        let silent = EventFd::from_flags(EfdFlags::EFD_CLOEXEC).unwrap();
        for owner in 0..4 {
            reactor.submit(100 + owner, Op::Poll { fd: silent.as_raw_fd() }).unwrap();
        }
        silent
    }

    #[test]
    fn an_unwilling_kernel_refuses_new_operations() {
        let mut reactor = small();
        let silent = fill(&mut reactor);
        let data = SendData::Static(b"back");
        let refused = reactor.submit(1, Op::Send { socket: 0, data }).unwrap_err();
        assert_eq!(refused.reason, RefusedReason::Submissions);
        assert!(matches!(refused.op, Op::Send { .. }));
        let message = Op::Message { ring_fd: 0, value: 1 };
        assert_eq!(reactor.submit(1, message).unwrap_err().reason, RefusedReason::Submissions);
        assert!(reactor.counters().busy > 0);
        reactor.ring.stuck = false;
        silent.write(1).unwrap();
        let mut owners: Vec<_> = turn(&mut reactor).iter().map(|completion| completion.owner).collect();
        owners.sort_unstable();
        assert_eq!(owners, [100, 101, 102, 103]);
    }

    #[test]
    fn cancels_and_armings_wait_for_a_willing_kernel() {
        let mut reactor = small();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC).unwrap();
        let accept = reactor.submit(1, Op::Accept { listener: listener.as_raw_fd() }).unwrap();
        let poll = reactor.submit(2, Op::Poll { fd: bell.as_raw_fd() }).unwrap();
        let _silent = fill(&mut reactor);
        reactor.abandon(poll);
        // As if the kernel had ended the accept: no completion to come, to be armed again.
        reactor.arm(accept.0);
        reactor.arm_waker();
        assert_eq!(reactor.operations_live(), 6);
        bell.write(1).unwrap();
        assert!(turn(&mut reactor).is_empty());
        reactor.ring.stuck = false;
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut accepted = 0;
        for _ in 0..10 {
            for completion in turn(&mut reactor) {
                assert!(matches!(completion.outcome, Outcome::Accepted(_)), "{completion:?}");
                accepted += 1;
            }
        }
        assert_eq!((accepted, reactor.operations_live()), (1, 5), "the poll is gone, the rest lives");
    }

    #[test]
    fn an_operation_abandoned_before_it_is_armed_again_is_over_at_once() {
        let mut reactor = small();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _silent = fill(&mut reactor);
        let token = reactor.slots.insert(1, Held::from_op(Op::Accept { listener: listener.as_raw_fd() }, Owned::Open));
        reactor.arm(token);
        assert_eq!(reactor.operations_live(), 5);
        reactor.abandon(OpId(token));
        assert_eq!(reactor.operations_live(), 4);
        reactor.ring.stuck = false;
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(turn(&mut reactor).is_empty(), "it was never armed");
        assert_eq!(reactor.counters().late, 0);
    }

    /// A short send as the kernel might report it: the rest follows, and the owner hears once.
    #[test]
    fn a_send_cut_short_is_continued_on_the_ring() {
        let mut reactor = small();
        let (mut near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        let data = SendData::Owned(b"0123456789".to_vec());
        let mut held = Held::from_op(Op::Send { socket: near.as_raw_fd(), data }, Owned::Open);
        near.write_all(b"0123").unwrap();
        let short = held.complete(Reply::plain(4), &mut reactor.buffers);
        assert!(matches!(short, Verdict::Again(None)));
        let token = reactor.slots.insert(7, held);
        reactor.arm(token);
        let out = turn(&mut reactor);
        assert!(matches!(&out[..], [Completion { owner: 7, more: false, outcome: Outcome::Sent(_), .. }]));
        drop(near);
        assert_eq!(std::io::read_to_string(far).unwrap(), "0123456789");
    }
}
