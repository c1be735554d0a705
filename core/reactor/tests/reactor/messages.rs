//! Words between two reactors on two threads.

use std::os::fd::AsRawFd;
use std::sync::mpsc;
use std::thread;

use vilya_reactor::{Op, OpId, Outcome, RefusedReason};

use crate::support::{Rig, errno, scene, small};

const ROUNDS: u64 = 10_000;

/// A word in which both halves matter, high bits included.
fn word(round: u64) -> u64 {
    round.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn expect(rig: &mut Rig, expected: u64) {
    let completion = rig.next();
    assert_eq!((completion.owner, completion.op), (0, OpId::NONE));
    match completion.outcome {
        Outcome::Message(value) => assert_eq!(value, expected),
        other => panic!("{other:?}"),
    }
}

/// Back and forth, both sides asleep in between.
#[test]
fn words_arrive_whole_on_the_other_thread() {
    scene(|| {
        let (to_peer, from_home) = mpsc::channel();
        let mut home = Rig::new(&small());
        let (to_home, from_peer) = mpsc::channel();
        let peer = thread::spawn(move || {
            let mut peer = Rig::new(&small());
            to_home.send(peer.reactor.ring_fd()).unwrap();
            let ring_fd = from_home.recv().unwrap();
            for round in 0..ROUNDS {
                expect(&mut peer, word(round));
                peer.submit(1, Op::Message { ring_fd, value: !word(round) });
            }
            peer.turn(vilya_reactor::Wait::No);
            assert_eq!(peer.reactor.counters().messages_received, ROUNDS);
            // Its ring must outlive the other side's last message to it.
            from_home.recv().unwrap();
        });
        let ring_fd = from_peer.recv().unwrap();
        to_peer.send(home.reactor.ring_fd()).unwrap();
        for round in 0..ROUNDS {
            home.submit(1, Op::Message { ring_fd, value: word(round) });
            expect(&mut home, !word(round));
        }
        assert_eq!(home.reactor.operations_live(), 0, "a message holds no slot");
        to_peer.send(0).unwrap();
        peer.join().unwrap();
    });
}

/// Many in a row, more than the receiver's completion queue holds.
#[test]
fn a_burst_arrives_in_order() {
    scene(|| {
        let mut home = Rig::new(&small());
        let ring_fd = home.reactor.ring_fd();
        let peer = thread::spawn(move || {
            let mut peer = Rig::new(&small());
            for round in 0..ROUNDS {
                let mut op = Op::Message { ring_fd, value: word(round) };
                while let Err(refused) = peer.reactor.submit(1, op) {
                    assert_eq!(refused.reason, RefusedReason::Messages);
                    op = refused.op;
                    assert!(peer.poll().is_none(), "none fails");
                }
            }
            assert!(peer.poll().is_none(), "none fails");
        });
        for round in 0..ROUNDS {
            expect(&mut home, word(round));
        }
        peer.join().unwrap();
    });
}

#[test]
fn a_message_to_no_ring_fails_for_its_owner() {
    scene(|| {
        let mut rig = Rig::new(&small());
        let (not_a_ring, _writer) = std::io::pipe().unwrap();
        let posted = rig.submit(7, Op::Message { ring_fd: not_a_ring.as_raw_fd(), value: 1 });
        let completion = rig.next();
        assert_eq!((completion.owner, completion.op, completion.more), (7, posted, false));
        assert_eq!(errno(&completion.outcome), Some(libc::EBADFD));
        let posted = rig.submit(8, Op::Message { ring_fd: not_a_ring.as_raw_fd(), value: 2 });
        rig.reactor.abandon(posted);
        assert!(rig.poll().is_none(), "abandoned");
    });
}
