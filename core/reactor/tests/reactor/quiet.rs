//! Quiet sends: their success wakes nobody, and nothing else of them is lost.

use std::io::Read;
use std::net::Shutdown;
use std::os::fd::AsRawFd;

use vilya_reactor::{Op, Outcome, SendData, Wait};

use crate::support::{Rig, connection, pattern, read_all, scene, small};

fn quietly(socket: &impl AsRawFd, data: Vec<u8>) -> Op {
    Op::SendQuietly { socket: socket.as_raw_fd(), data: SendData::Owned(data) }
}

#[test]
fn success_takes_no_completion_and_gives_the_buffer_back() {
    scene(|| {
        let mut rig = Rig::new(&small());
        let (near, mut far) = connection();
        rig.turn(Wait::No);
        let before = rig.reactor.counters().clone();
        rig.submit(1, quietly(&near, b"quiet".to_vec()));
        let completion = rig.poll().expect("told at the end of the turn");
        assert!(matches!(completion.outcome, Outcome::Sent(SendData::Owned(data)) if data == b"quiet"));
        let after = rig.reactor.counters();
        assert_eq!((after.completed - before.completed, after.enters - before.enters), (0, 1));
        assert_eq!(rig.reactor.operations_live(), 0);
        let mut back = [0; 5];
        far.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"quiet");
    });
}

/// The turn sleeps until its time: the send that it submits does not end it.
#[test]
fn success_ends_no_sleep() {
    scene(|| {
        let mut rig = Rig::new(&small());
        let (near, mut far) = connection();
        rig.submit(1, quietly(&near, b"quiet".to_vec()));
        let until_ns = vilya_reactor::Reactor::now_ns() + 50_000_000;
        rig.turn(Wait::Until(until_ns));
        assert!(vilya_reactor::Reactor::now_ns() >= until_ns, "woken by a send");
        assert!(matches!(rig.next().outcome, Outcome::Sent(_)));
        far.read_exact(&mut [0; 5]).unwrap();
    });
}

#[test]
fn what_does_not_fit_at_once_goes_on_and_arrives_whole() {
    scene(|| {
        let mut rig = Rig::new(&small());
        let (near, far) = connection();
        let bytes = pattern(3, 48 << 20);
        rig.submit(1, quietly(&near, bytes.clone()));
        rig.submit(2, quietly(&near, Vec::new()));
        let reader = std::thread::spawn(move || read_all(far));
        let mut told = [rig.next().owner, rig.next().owner];
        told.sort_unstable();
        assert_eq!(told, [1, 2]);
        near.shutdown(Shutdown::Write).unwrap();
        assert!(reader.join().unwrap() == bytes);
    });
}

#[test]
fn a_full_socket_is_waited_for() {
    scene(|| {
        let mut rig = Rig::new(&small());
        let (near, far) = connection();
        // As much as the socket takes, and a little that waits behind it.
        let first = rig.submit(1, Op::Send { socket: near.as_raw_fd(), data: SendData::Owned(pattern(1, 64 << 20)) });
        assert!(rig.poll().is_none());
        rig.reactor.interrupt(first);
        assert!(matches!(rig.next().outcome, Outcome::Failed { errno: libc::ECANCELED, .. }));
        rig.submit(2, quietly(&near, b"behind".to_vec()));
        assert!(rig.poll().is_none(), "there is no room");
        let reader = std::thread::spawn(move || read_all(far));
        assert!(matches!(rig.next().outcome, Outcome::Sent(_)));
        near.shutdown(Shutdown::Write).unwrap();
        assert!(reader.join().unwrap().ends_with(b"behind"));
    });
}

#[test]
fn failure_is_told() {
    scene(|| {
        let mut rig = Rig::new(&small());
        let (near, _far) = connection();
        near.shutdown(Shutdown::Write).unwrap();
        rig.submit(1, quietly(&near, b"nobody".to_vec()));
        let outcome = rig.next().outcome;
        assert!(matches!(outcome, Outcome::Failed { errno: libc::EPIPE, data: Some(_), .. }), "{outcome:?}");
        assert_eq!(rig.reactor.operations_live(), 0);
    });
}

#[test]
fn an_abandoned_one_is_not_told_of_and_frees_its_slot() {
    scene(|| {
        let mut rig = Rig::new(&small());
        let (near, _far) = connection();
        let send = rig.submit(1, quietly(&near, b"abandoned".to_vec()));
        rig.reactor.abandon(send);
        rig.turn_until(|rig| rig.reactor.operations_live() == 0);
        assert!(rig.poll().is_none());
    });
}

/// More than the queues hold, to a peer that reads: each is told of once.
#[test]
fn many_are_each_told_of_once() {
    scene(|| {
        let mut rig = Rig::new(&small());
        let (near, far) = connection();
        let reader = std::thread::spawn(move || read_all(far).len());
        let mut told = Vec::new();
        for owner in 1..=2000_u64 {
            rig.submit(owner, quietly(&near, vec![7; 100]));
            while owner.is_multiple_of(50) && told.len() < owner as usize {
                // A turn that slept would sleep until its time: nothing here wakes it.
                told.extend(rig.poll().map(|completion| completion.owner));
            }
        }
        told.sort_unstable();
        assert!(told.iter().copied().eq(1..=2000));
        near.shutdown(Shutdown::Write).unwrap();
        assert_eq!(reader.join().unwrap(), 200_000);
    });
}
