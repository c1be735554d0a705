//! Provided buffers: what happens when they run out, and reads of pipes.

use std::io::{Write, pipe};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::thread;

use vilya_reactor::{Chunk, Config, Op, Outcome};

use crate::support::{Rig, connection, pattern, scene, small};

/// Holds chunks until the kernel has none left, again and again: every byte arrives once and in order.
#[test]
fn exhausted_buffers_end_the_receive_and_lose_nothing() {
    scene(|| {
        let config = Config { buffer_count: 4, buffer_bytes: 64, ..small() };
        let mut rig = Rig::new(&config);
        let (near, mut far) = connection();
        let sent = pattern(3, 64 * 1024);
        let expected = sent.clone();
        let writer = thread::spawn(move || {
            far.write_all(&sent).unwrap();
            far.shutdown(Shutdown::Write).unwrap();
            far
        });
        let receive = || Op::Receive { socket: near.as_raw_fd() };
        rig.submit(1, receive());
        let mut held: Vec<Chunk> = Vec::new();
        let mut received = Vec::new();
        let mut exhausted = 0;
        loop {
            let completion = rig.next();
            match completion.outcome {
                Outcome::Received(chunk) => held.push(chunk),
                Outcome::Failed { errno: libc::ENOBUFS, .. } => {
                    assert!(!completion.more);
                    assert_eq!(held.len(), 4, "only when all are held");
                    assert_eq!(rig.reactor.chunks_held(), 4);
                    exhausted += 1;
                    for chunk in held.drain(..) {
                        received.extend_from_slice(rig.reactor.chunk(&chunk));
                        rig.reactor.recycle(chunk);
                    }
                    rig.submit(1, receive());
                }
                Outcome::Ended => break,
                other => panic!("{other:?}"),
            }
        }
        for chunk in held {
            received.extend_from_slice(rig.reactor.chunk(&chunk));
            rig.reactor.recycle(chunk);
        }
        assert!(received == expected);
        assert!(exhausted >= 64 * 1024 / (4 * 64) - 1, "{exhausted}");
        assert_eq!(rig.reactor.chunks_held(), 0);
        drop(writer.join().unwrap());
    });
}

/// More bytes than all buffers together, recycled at once: one receive carries on.
#[test]
fn recycled_buffers_are_used_again() {
    scene(|| {
        let mut rig = Rig::new(&small());
        let (near, mut far) = connection();
        let sent = pattern(4, 1 << 20);
        let expected = sent.clone();
        let writer = thread::spawn(move || far.write_all(&sent).unwrap());
        let mut received = Vec::new();
        rig.submit(1, Op::Receive { socket: near.as_raw_fd() });
        loop {
            match rig.next().outcome {
                Outcome::Received(chunk) => {
                    received.extend_from_slice(rig.reactor.chunk(&chunk));
                    rig.reactor.recycle(chunk);
                }
                // The kernel may fill all buffers within one turn.
                Outcome::Failed { errno: libc::ENOBUFS, .. } => {
                    rig.submit(1, Op::Receive { socket: near.as_raw_fd() });
                }
                Outcome::Ended => break,
                other => panic!("{other:?}"),
            }
        }
        writer.join().unwrap();
        assert!(received == expected);
    });
}

#[test]
fn a_pipe_is_read_piece_by_piece_to_its_end() {
    scene(|| {
        let mut rig = Rig::new(&small());
        let (reader, mut writer) = pipe().unwrap();
        // Before there is anything to read.
        rig.submit(1, Op::Read { fd: reader.as_raw_fd() });
        assert!(rig.poll().is_none());
        for piece in [&b"first"[..], b"second"] {
            writer.write_all(piece).unwrap();
            let completion = rig.next();
            assert!(!completion.more);
            match completion.outcome {
                Outcome::Read(chunk) => {
                    assert_eq!(rig.reactor.chunk(&chunk), piece);
                    rig.reactor.recycle(chunk);
                }
                other => panic!("{other:?}"),
            }
            rig.submit(1, Op::Read { fd: reader.as_raw_fd() });
        }
        drop(writer);
        let completion = rig.next();
        assert!(matches!(completion.outcome, Outcome::Ended) && !completion.more);
        assert_eq!(rig.reactor.operations_live(), 0);
    });
}

#[test]
fn a_read_without_a_buffer_fails_and_works_after_recycling() {
    scene(|| {
        let mut rig = Rig::new(&Config { buffer_count: 1, ..small() });
        let (reader, mut writer) = pipe().unwrap();
        writer.write_all(b"one").unwrap();
        rig.submit(1, Op::Read { fd: reader.as_raw_fd() });
        let Outcome::Read(chunk) = rig.next().outcome else { panic!() };
        writer.write_all(b"two").unwrap();
        rig.submit(1, Op::Read { fd: reader.as_raw_fd() });
        assert_eq!(crate::support::errno(&rig.next().outcome), Some(libc::ENOBUFS));
        assert_eq!(rig.reactor.chunk(&chunk), b"one", "what is held is not written over");
        rig.reactor.recycle(chunk);
        rig.submit(1, Op::Read { fd: reader.as_raw_fd() });
        let Outcome::Read(chunk) = rig.next().outcome else { panic!() };
        assert_eq!(rig.reactor.chunk(&chunk), b"two");
        rig.reactor.recycle(chunk);
    });
}
