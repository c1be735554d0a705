//! Dropping a reactor with everything in flight.

use std::io::{Write, pipe};
use std::os::fd::AsRawFd;

use nix::sys::eventfd::{EfdFlags, EventFd};
use vilya_reactor::{Op, Reactor, SendData, Wait};

use crate::support::{Rig, connection, listener, pattern, read_all, scene, small};

/// `scene` checks the descriptors; the peer checks the bytes.
#[test]
fn a_dropped_reactor_gets_everything_back() {
    scene(|| {
        for turns in 0..3 {
            let mut rig = Rig::new(&small());
            let (listener, address) = listener();
            let (near, far) = connection();
            let (quiet, mut talker) = connection();
            let (reader, _writer) = pipe().unwrap();
            let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC).unwrap();
            let sent = pattern(6, 64 << 20);
            rig.submit(1, Op::Accept { listener: listener.as_raw_fd() });
            rig.submit(2, Op::Receive { socket: quiet.as_raw_fd() });
            rig.submit(3, Op::Send { socket: near.as_raw_fd(), data: SendData::Owned(sent.clone()) });
            rig.submit(4, Op::Read { fd: reader.as_raw_fd() });
            rig.submit(5, Op::Poll { fd: bell.as_raw_fd() });
            rig.submit(6, Op::PollOnce { fd: bell.as_raw_fd() });
            for _ in 0..turns {
                rig.turn(Wait::No);
            }
            let _client = std::net::TcpStream::connect(address).unwrap();
            talker.write_all(b"unheard").unwrap();
            bell.write(1).unwrap();
            drop(rig);
            drop(near);
            let received = read_all(far);
            assert!(received == sent[..received.len()]);
        }
    });
}

#[test]
fn a_close_and_a_message_taken_last_still_happen() {
    scene(|| {
        let mut target = Rig::new(&small());
        let (near, far) = connection();
        let mut reactor = Reactor::new(&small()).unwrap();
        reactor.submit(1, Op::Close { fd: near.into() }).unwrap();
        reactor.submit(2, Op::Message { ring_fd: target.reactor.ring_fd(), value: 42 }).unwrap();
        drop(reactor);
        assert_eq!(read_all(far), []);
        assert!(matches!(target.next().outcome, vilya_reactor::Outcome::Message(42)));
    });
}

#[test]
fn a_waker_may_outlive_its_reactor() {
    scene(|| {
        let reactor = Reactor::new(&small()).unwrap();
        let waker = reactor.waker();
        drop(reactor);
        waker.wake();
        assert_eq!(waker.system_calls(), 0);
    });
}

/// Made and dropped many times: neither descriptors nor locked memory run out.
#[test]
fn reactors_come_and_go() {
    scene(|| {
        for _ in 0..200 {
            let mut rig = Rig::new(&small());
            rig.turn(Wait::No);
        }
    });
}
