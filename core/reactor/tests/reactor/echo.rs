//! Sockets end to end: accept, receive, send, close.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;

use vilya_reactor::{Config, Op, Outcome, SendData};

use crate::support::{Rig, connection, listener, pattern, read_all, scene, small};

const LISTENER: u64 = u64::MAX;

/// Echoes until `connections` clients came and went.
fn serve(rig: &mut Rig, connections: usize) {
    let mut open: HashMap<u64, OwnedFd> = HashMap::new();
    let (mut next, mut closed) = (0, 0);
    while closed < connections {
        let completion = rig.next();
        let owner = completion.owner;
        match completion.outcome {
            Outcome::Accepted(socket) => {
                assert!(completion.more && owner == LISTENER);
                rig.submit(next, Op::Receive { socket: socket.as_raw_fd() });
                open.insert(next, socket);
                next += 1;
            }
            Outcome::Received(chunk) => {
                assert!(completion.more);
                let data = SendData::Owned(rig.reactor.chunk(&chunk).to_vec());
                rig.reactor.recycle(chunk);
                rig.submit(owner, Op::Send { socket: open[&owner].as_raw_fd(), data });
            }
            Outcome::Sent(_) => assert!(!completion.more),
            Outcome::Ended => {
                assert!(!completion.more);
                let fd = open.remove(&owner).unwrap();
                rig.submit(owner, Op::Close { fd });
            }
            Outcome::Closed => closed += 1,
            other => panic!("{other:?}"),
        }
    }
}

fn client(address: std::net::SocketAddr, seed: u64) {
    let mut stream = TcpStream::connect(address).unwrap();
    for (round, bytes) in [1, 100, 1024, 5000, 3, 20_000].into_iter().enumerate() {
        let sent = pattern(seed * 100 + round as u64, bytes);
        stream.write_all(&sent).unwrap();
        let mut received = vec![0; bytes];
        stream.read_exact(&mut received).unwrap();
        assert_eq!(received, sent);
    }
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(stream), []);
}

#[test]
fn many_clients_get_their_own_bytes_back() {
    scene(|| {
        let mut rig = Rig::new(&Config { buffer_count: 256, operations: 1024, ..small() });
        let (listener, address) = listener();
        let accept = rig.submit(LISTENER, Op::Accept { listener: listener.as_raw_fd() });
        let clients: Vec<_> = (0..16).map(|seed| thread::spawn(move || client(address, seed))).collect();
        serve(&mut rig, clients.len());
        for client in clients {
            client.join().unwrap();
        }
        rig.reactor.abandon(accept);
        rig.turn_until(|rig| rig.reactor.operations_live() == 0);
        assert_eq!(rig.reactor.chunks_held(), 0);
        assert_eq!(rig.reactor.counters().late, 0);
    });
}

/// One submission, far more than the socket's buffers hold, while the peer reads.
#[test]
fn a_large_send_arrives_whole_and_the_buffer_comes_back() {
    scene(|| {
        let mut rig = Rig::new(&small());
        let (near, far) = connection();
        let sent = pattern(1, 32 << 20);
        let reader = thread::spawn(move || read_all(far));
        rig.submit(7, Op::Send { socket: near.as_raw_fd(), data: SendData::Owned(sent.clone()) });
        let completion = rig.next();
        assert_eq!((completion.owner, completion.more), (7, false));
        match completion.outcome {
            Outcome::Sent(SendData::Owned(back)) => assert!(back == sent),
            other => panic!("{other:?}"),
        }
        drop(near);
        assert!(reader.join().unwrap() == sent);
    });
}

#[test]
fn sending_to_a_peer_that_is_gone_gives_the_data_back() {
    scene(|| {
        let mut rig = Rig::new(&small());
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        drop(far);
        rig.submit(7, Op::Send { socket: near.as_raw_fd(), data: SendData::Static(b"anyone") });
        match rig.next().outcome {
            Outcome::Failed { errno: libc::EPIPE, data: Some(SendData::Static(data)), sent_bytes: 0 } => {
                assert_eq!(data, b"anyone");
            }
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn an_empty_send_completes() {
    scene(|| {
        let mut rig = Rig::new(&small());
        let (near, _far) = connection();
        rig.submit(7, Op::Send { socket: near.as_raw_fd(), data: SendData::Owned(Vec::new()) });
        assert!(matches!(rig.next().outcome, Outcome::Sent(_)));
    });
}

#[test]
fn a_reset_connection_fails_the_receive() {
    scene(|| {
        let mut rig = Rig::new(&small());
        let (near, mut far) = connection();
        // Closing with unread bytes resets.
        far.write_all(b"x").unwrap();
        let mut near = near;
        near.write_all(b"unread").unwrap();
        let mut byte = [0];
        near.read_exact(&mut byte).unwrap();
        drop(far);
        rig.submit(7, Op::Receive { socket: near.as_raw_fd() });
        let completion = rig.next();
        assert!(!completion.more);
        assert_eq!(crate::support::errno(&completion.outcome), Some(libc::ECONNRESET));
    });
}

#[test]
fn a_bad_descriptor_fails_each_operation() {
    scene(|| {
        let mut rig = Rig::new(&small());
        // No process has a descriptor of this number.
        let bad = i32::MAX;
        rig.submit(1, Op::Accept { listener: bad });
        rig.submit(2, Op::Receive { socket: bad });
        rig.submit(3, Op::Send { socket: bad, data: SendData::Static(b"x") });
        rig.submit(4, Op::Read { fd: bad });
        rig.submit(5, Op::Poll { fd: bad });
        rig.submit(6, Op::PollOnce { fd: bad });
        let mut owners: Vec<_> = (0..6)
            .map(|_| {
                let completion = rig.next();
                assert!(!completion.more);
                assert_eq!(crate::support::errno(&completion.outcome), Some(libc::EBADF));
                completion.owner
            })
            .collect();
        owners.sort_unstable();
        assert_eq!(owners, [1, 2, 3, 4, 5, 6]);
        assert_eq!(rig.reactor.operations_live(), 0);
    });
}
