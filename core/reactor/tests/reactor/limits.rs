//! Full queues, slabs and bad configs: refused with the operation given back, or carried on; nothing lost.

use std::net::TcpStream;
use std::os::fd::AsRawFd;

use nix::sys::eventfd::{EfdFlags, EventFd};
use vilya_reactor::{Config, Op, Outcome, Reactor, RefusedReason, SendData, SetupError, Wait};

use crate::support::{Rig, connection, listener, scene, small};

#[test]
fn a_full_slab_gives_the_operation_back() {
    scene(|| {
        let mut rig = Rig::new(&Config { operations: 2, ..small() });
        let (near, far) = connection();
        let first = rig.submit(1, Op::Receive { socket: near.as_raw_fd() });
        rig.submit(2, Op::Receive { socket: far.as_raw_fd() });
        let data = SendData::Owned(b"given back".to_vec());
        let refused = rig.reactor.submit(3, Op::Send { socket: near.as_raw_fd(), data }).unwrap_err();
        assert_eq!(refused.reason, RefusedReason::Operations);
        assert!(refused.to_string().contains("operations"));
        match &refused.op {
            Op::Send { data: SendData::Owned(data), .. } => assert_eq!(data, b"given back"),
            other => panic!("{other:?}"),
        }
        assert_eq!(rig.reactor.counters().refused, 1);
        rig.reactor.abandon(first);
        rig.turn_until(|rig| rig.reactor.operations_live() == 1);
        rig.submit(3, refused.op);
        let mut owners = [rig.next().owner, rig.next().owner];
        owners.sort_unstable();
        assert_eq!(owners, [2, 3], "sent by 3, received by 2");
    });
}

/// Far more submissions in one go than the queue has entries, and far more completions than theirs has.
#[test]
fn an_overflowing_completion_queue_loses_nothing() {
    scene(|| {
        let config = Config { entries: 8, completion_entries: 8, operations: 500, ..small() };
        let mut rig = Rig::new(&config);
        let bell = EventFd::from_value_and_flags(1, EfdFlags::EFD_CLOEXEC).unwrap();
        for round in 0..5 {
            for owner in 0..500 {
                rig.submit(owner, Op::PollOnce { fd: bell.as_raw_fd() });
            }
            let mut seen = vec![false; 500];
            for _ in 0..500 {
                let completion = rig.next();
                assert!(matches!(completion.outcome, Outcome::Readable) && !completion.more);
                let seen = &mut seen[completion.owner as usize];
                assert!(!*seen, "round {round}: completed twice");
                *seen = true;
            }
            assert!(rig.poll().is_none());
        }
        assert!(rig.reactor.counters().overflowed > 0, "the test overflows the queue");
        assert_eq!(rig.reactor.operations_live(), 0);
    });
}

/// An overflow ends multishot operations in the kernel; they are armed again and their owners notice nothing.
#[test]
fn multishot_operations_survive_an_overflow() {
    scene(|| {
        let config = Config { entries: 4, completion_entries: 4, operations: 128, ..small() };
        let mut rig = Rig::new(&config);
        let (listener, address) = listener();
        rig.submit(1, Op::Accept { listener: listener.as_raw_fd() });
        rig.turn(Wait::No);
        let clients: Vec<_> = (0..60).map(|_| TcpStream::connect(address).unwrap()).collect();
        let mut accepted = Vec::new();
        while accepted.len() < clients.len() {
            let completion = rig.next();
            assert!(completion.more);
            match completion.outcome {
                Outcome::Accepted(socket) => accepted.push(socket),
                other => panic!("{other:?}"),
            }
        }
        assert!(rig.poll().is_none());
        assert!(rig.reactor.counters().rearmed > 0, "the test overflows the queue: {:?}", rig.reactor.counters());
    });
}

#[test]
fn a_full_submission_queue_is_submitted_early() {
    scene(|| {
        let mut rig = Rig::new(&Config { entries: 2, ..small() });
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC).unwrap();
        for owner in 0..50 {
            rig.submit(owner, Op::PollOnce { fd: bell.as_raw_fd() });
        }
        assert!(rig.reactor.counters().enters >= 24, "two entries an enter");
        assert!(rig.poll().is_none());
        bell.write(1).unwrap();
        let mut owners: Vec<_> = (0..50).map(|_| rig.next().owner).collect();
        owners.sort_unstable();
        assert_eq!(owners, (0..50).collect::<Vec<_>>());
    });
}

#[test]
fn a_turn_with_nothing_to_do_makes_no_system_call() {
    scene(|| {
        let mut rig = Rig::new(&small());
        rig.turn(Wait::No);
        let enters = rig.reactor.counters().enters;
        assert_eq!(enters, 1, "the waker's poll");
        for _ in 0..100 {
            assert!(!rig.reactor.work_pending());
            rig.turn(Wait::No);
            rig.turn(Wait::Until(Reactor::now_ns()));
        }
        assert_eq!(rig.reactor.counters().enters, enters);
    });
}

#[test]
fn pending_work_is_seen_without_a_system_call() {
    scene(|| {
        let mut rig = Rig::new(&small());
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC).unwrap();
        rig.submit(1, Op::Poll { fd: bell.as_raw_fd() });
        rig.turn(Wait::No);
        let enters = rig.reactor.counters().enters;
        assert!(!rig.reactor.work_pending());
        bell.write(1).unwrap();
        assert!(rig.reactor.work_pending());
        assert_eq!(rig.reactor.counters().enters, enters);
        assert!(matches!(rig.poll().unwrap().outcome, Outcome::Readable));
        assert!(!rig.reactor.work_pending());
    });
}

#[test]
fn a_bad_config_is_refused_with_the_field() {
    scene(|| match Reactor::new(&Config { entries: 3, ..small() }) {
        Err(error @ SetupError::Config(_)) => {
            assert!(error.to_string().contains("entries is 3"))
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("made"),
    });
}
