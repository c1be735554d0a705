//! Abandoned operations: nothing more is heard of them, and what the kernel has of them is safe until it is done.

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};
use vilya_reactor::{Op, Outcome, SendData};

use crate::support::{PATIENCE_NS, Rig, connection, listener, pattern, read_all, scene, small};

/// A send that the peer does not read, abandoned while the kernel has its buffer. New buffers of the same size, which
/// the allocator would place there if the old one were free, must not show up at the peer.
#[test]
fn an_abandoned_send_keeps_its_buffer_until_the_kernel_is_done() {
    scene(|| {
        let mut rig = Rig::new(&small());
        let (near, far) = connection();
        let bytes = 64 << 20;
        let sent = pattern(5, bytes);
        let send = rig.submit(1, Op::Send { socket: near.as_raw_fd(), data: SendData::Owned(sent.clone()) });
        assert!(rig.poll().is_none(), "more than the socket holds");
        assert_eq!(rig.reactor.counters().submitted, 2, "the waker's poll and the send");
        rig.reactor.abandon(send);
        rig.reactor.abandon(send);
        assert_eq!(rig.reactor.operations_live(), 1, "the kernel still has it");
        let other: Vec<Vec<u8>> = (0..2).map(|_| vec![0xEE; bytes]).collect();
        rig.turn_until(|rig| rig.reactor.operations_live() == 0);
        assert!(rig.poll().is_none(), "nothing is delivered");
        assert_eq!((rig.reactor.counters().swallowed, rig.reactor.counters().late), (1, 0));
        drop(other);
        near.shutdown(Shutdown::Write).unwrap();
        let received = read_all(far);
        assert!(!received.is_empty() && received.len() < bytes, "{}", received.len());
        assert!(received == sent[..received.len()]);
    });
}

#[test]
fn an_abandoned_accept_closes_what_it_still_accepts() {
    scene(|| {
        for round in 0..200 {
            let mut rig = Rig::new(&small());
            let (listener, address) = listener();
            let accept = rig.submit(1, Op::Accept { listener: listener.as_raw_fd() });
            if round % 2 == 0 {
                rig.turn(vilya_reactor::Wait::No);
            }
            // The kernel accepts these in the turn that learns of the abandon.
            let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
            rig.reactor.abandon(accept);
            rig.turn_until(|rig| rig.reactor.operations_live() == 0);
            assert!(rig.poll().is_none());
            drop(listener);
            // Accepted and closed, or never accepted and reset: either way nobody holds the other end.
            for mut client in clients {
                // Only so that a connection left open fails the test instead of stopping it.
                client.set_read_timeout(Some(Duration::from_nanos(PATIENCE_NS))).unwrap();
                match client.read(&mut [0]) {
                    Ok(bytes) => assert_eq!(bytes, 0),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
                }
            }
        }
    });
}

#[test]
fn an_abandoned_receive_recycles_what_it_still_receives() {
    scene(|| {
        let mut rig = Rig::new(&small());
        for round in 0..500 {
            let (near, mut far) = connection();
            let receive = rig.submit(round, Op::Receive { socket: near.as_raw_fd() });
            if round % 2 == 0 {
                rig.turn(vilya_reactor::Wait::No);
            }
            far.write_all(b"too late").unwrap();
            rig.reactor.abandon(receive);
            rig.turn_until(|rig| rig.reactor.operations_live() == 0);
            assert!(rig.poll().is_none());
        }
        assert!(rig.reactor.counters().swallowed >= 500);
        assert_eq!(rig.reactor.counters().late, 0);
        // All 16 buffers are still the kernel's to give: 16 messages fit without one being recycled.
        let (near, mut far) = connection();
        rig.submit(9, Op::Receive { socket: near.as_raw_fd() });
        let mut held = Vec::new();
        for count in 1..=16 {
            far.write_all(&[count]).unwrap();
            match rig.next().outcome {
                Outcome::Received(chunk) => {
                    assert_eq!(rig.reactor.chunk(&chunk), [count]);
                    held.push(chunk);
                }
                other => panic!("{other:?} with {} held", held.len()),
            }
        }
        held.into_iter().for_each(|chunk| rig.reactor.recycle(chunk));
    });
}

/// Cancels race with events, and slots are used again as soon as they are free: an owner hears of its own operation
/// only, and of an abandoned one never.
#[test]
fn slots_used_again_never_deliver_to_the_wrong_owner() {
    scene(|| {
        let mut rig = Rig::new(&small());
        let bells: Vec<_> = (0..8).map(|_| EventFd::from_flags(EfdFlags::EFD_CLOEXEC).unwrap()).collect();
        let mut live: Vec<(u64, vilya_reactor::OpId)> = Vec::new();
        let mut dead = HashSet::new();
        let mut heard = 0;
        for round in 0..20_000_u64 {
            let bell = &bells[round as usize % bells.len()];
            let owner = round + 1;
            match rig.reactor.submit(owner, Op::Poll { fd: bell.as_raw_fd() }) {
                Ok(op) => live.push((owner, op)),
                Err(refused) => assert!(matches!(refused.op, Op::Poll { .. })),
            }
            bell.write(1).unwrap();
            if live.len() > 3 {
                let (owner, op) = live.remove((round % 3) as usize);
                rig.reactor.abandon(op);
                dead.insert(owner);
            }
            while let Some(completion) = rig.poll() {
                assert!(!dead.contains(&completion.owner), "abandoned, and heard of");
                assert!(live.contains(&(completion.owner, completion.op)), "an operation that never was");
                assert!(matches!(completion.outcome, Outcome::Readable));
                heard += 1;
            }
        }
        assert!(heard > 0 && dead.len() > 10_000);
        live.iter().for_each(|&(_, op)| rig.reactor.abandon(op));
        rig.turn_until(|rig| rig.reactor.operations_live() == 0);
        assert_eq!(rig.reactor.counters().late, 0);
    });
}

#[test]
fn an_abandoned_close_still_closes() {
    scene(|| {
        let mut rig = Rig::new(&small());
        let (near, far) = connection();
        let close = rig.submit(1, Op::Close { fd: near.into() });
        rig.reactor.abandon(close);
        rig.turn_until(|rig| rig.reactor.operations_live() == 0);
        assert!(rig.poll().is_none());
        assert_eq!(read_all(far), []);
    });
}

#[test]
fn abandoning_what_is_over_does_nothing() {
    scene(|| {
        let mut rig = Rig::new(&small());
        let bell = EventFd::from_value_and_flags(1, EfdFlags::EFD_CLOEXEC).unwrap();
        let first = rig.submit(1, Op::PollOnce { fd: bell.as_raw_fd() });
        assert!(matches!(rig.next().outcome, Outcome::Readable));
        let second = rig.submit(2, Op::PollOnce { fd: bell.as_raw_fd() });
        assert_ne!(first, second);
        rig.reactor.abandon(first);
        let completion = rig.next();
        assert_eq!((completion.owner, completion.op), (2, second), "the slot's next user is not disturbed");
    });
}

/// A receive that is interrupted while bytes arrive: what had arrived is delivered, then the end, and a new receive goes on
/// where it stopped.
#[test]
fn an_interrupted_receive_loses_no_byte() {
    scene(|| {
        for round in 0..50_u64 {
            let mut rig = Rig::new(&small());
            let (near, far) = connection();
            let sent = pattern(round, 20_000);
            let expected = sent.clone();
            let writer = std::thread::spawn(move || {
                let mut far = far;
                for piece in sent.chunks(100) {
                    far.write_all(piece).unwrap();
                }
            });
            let mut received = Vec::new();
            let mut interruptions = 0;
            let mut receive = rig.submit(1, Op::Receive { socket: near.as_raw_fd() });
            loop {
                let completion = rig.next();
                match completion.outcome {
                    Outcome::Received(chunk) => {
                        assert_eq!(completion.op, receive);
                        received.extend_from_slice(rig.reactor.chunk(&chunk));
                        rig.reactor.recycle(chunk);
                        rig.reactor.interrupt(receive);
                        rig.reactor.interrupt(receive);
                    }
                    Outcome::Failed { errno: libc::ECANCELED | libc::ENOBUFS, .. } => {
                        assert!(!completion.more);
                        interruptions += 1;
                        receive = rig.submit(1, Op::Receive { socket: near.as_raw_fd() });
                    }
                    Outcome::Ended => break,
                    other => panic!("{other:?}"),
                }
            }
            writer.join().unwrap();
            assert!(received == expected, "{} of {} bytes", received.len(), expected.len());
            assert!(interruptions > 0);
            assert_eq!(rig.reactor.operations_live(), 0);
        }
    });
}
