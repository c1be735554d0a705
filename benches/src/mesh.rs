//! A message from one shard to another and back, by itself: a channel, and a ring message that wakes a sleeper.
//!
//! The worker's own types are private to it; this is the same path over the same two crates (`core/worker/src/mesh.rs`,
//! and `wake_shard` of `core/worker/src/shard/mod.rs`): leave the message in the channel, ask the waker whether the other
//! side sleeps, and if so wake it through the own ring, with the turn's system call.

use std::os::fd::RawFd;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use vilya_reactor::{Completion, Config, Op, Outcome, Reactor, Wait, Waker};

use crate::peer::pin;

const STOP: u64 = u64::MAX;

/// The sending side of a station's inbox.
struct Post {
    sender: Sender<u64>,
    waker: Waker,
    ring_fd: RawFd,
}

/// A reactor and its inbox.
struct Station {
    reactor: Reactor,
    inbox: Receiver<u64>,
    completions: Vec<Completion>,
}

/// A station on this thread, and one on another that sends back what it gets.
pub struct MeshPair {
    station: Station,
    to_peer: Post,
    peer: Option<JoinHandle<()>>,
    next: u64,
}

impl Station {
    fn new() -> (Station, Post) {
        let config = Config {
            entries: 64,
            completion_entries: 256,
            buffer_count: 16,
            buffer_bytes: 4096,
            operations: 64,
            files: 0,
        };
        let reactor = Reactor::new(&config).expect("this host has io_uring");
        let (sender, inbox) = unbounded();
        let post = Post { sender, waker: reactor.waker(), ring_fd: reactor.ring_fd() };
        (Station { reactor, inbox, completions: Vec::new() }, post)
    }

    fn send(&mut self, post: &Post, word: u64) {
        // A peer that has stopped takes no more.
        let _ = post.sender.send(word);
        if !post.waker.request() {
            return;
        }
        let message = Op::Message { ring_fd: post.ring_fd, value: 0 };
        if self.reactor.submit(0, message).is_err() {
            post.waker.ring();
        }
    }

    fn receive(&mut self) -> u64 {
        loop {
            if let Ok(word) = self.inbox.try_recv() {
                return word;
            }
            self.reactor.turn(Wait::Forever, &mut self.completions).expect("the ring works");
            for completion in self.completions.drain(..) {
                assert!(!matches!(completion.outcome, Outcome::Failed { .. }), "a ring message was refused");
            }
        }
    }
}

impl MeshPair {
    /// Starts the other station on `core`.
    ///
    /// # Panics
    /// If the machine has no ring or thread left.
    #[must_use]
    pub fn start(core: Option<usize>) -> MeshPair {
        let (station, to_this) = Station::new();
        let (born, birth) = bounded(1);
        let peer = std::thread::spawn(move || {
            pin(core);
            let (mut station, post) = Station::new();
            born.send(post).expect("the other station waits for it");
            loop {
                match station.receive() {
                    STOP => return,
                    word => station.send(&to_this, word),
                }
            }
        });
        let to_peer = birth.recv().expect("the peer has a ring");
        MeshPair { station, to_peer, peer: Some(peer), next: 0 }
    }

    /// To and fro once; each side sleeps in its ring until it is woken.
    ///
    /// # Panics
    /// If a message is lost on the way.
    pub fn round_trip(&mut self) {
        self.next += 1;
        self.station.send(&self.to_peer, self.next);
        assert_eq!(self.station.receive(), self.next);
    }
}

impl Drop for MeshPair {
    fn drop(&mut self) {
        let _ = self.to_peer.sender.send(STOP);
        self.to_peer.waker.wake();
        if let Some(peer) = self.peer.take() {
            let _ = peer.join();
        }
    }
}
