//! Two threads that wake each other through a futex: the floor of a parked round trip whose sleeper waits in `futex(2)`.
//!
//! The futex is the standard library's: `park` and `unpark` are one swap of a word and, when the other side sleeps or
//! must sleep, one system call (`FUTEX_WAIT`, `FUTEX_WAKE`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{JoinHandle, Thread};

use crate::peer::pin;

const STOP: u32 = u32::MAX;

/// A thread that answers, and this one.
pub struct FutexPair {
    turn: Arc<AtomicU32>,
    peer: Option<JoinHandle<()>>,
    next: u32,
}

impl FutexPair {
    /// Starts the other thread on `core`.
    #[must_use]
    pub fn start(core: Option<usize>) -> FutexPair {
        let turn = Arc::new(AtomicU32::new(0));
        let theirs = Arc::clone(&turn);
        let this = std::thread::current();
        let peer = std::thread::spawn(move || {
            pin(core);
            answer(&theirs, &this);
        });
        FutexPair { turn, peer: Some(peer), next: 0 }
    }

    /// To and fro once; both sides sleep in between. Call it from the thread that started the pair.
    pub fn round_trip(&mut self) {
        // Kept even and below the word that means stop.
        self.next = (self.next + 2) % 1_000_000;
        // Release pairs with the peer's Acquire.
        self.turn.store(self.next + 1, Ordering::Release);
        self.unpark();
        // Acquire pairs with the peer's Release.
        while self.turn.load(Ordering::Acquire) != self.next + 2 {
            std::thread::park();
        }
    }

    fn unpark(&self) {
        if let Some(peer) = &self.peer {
            peer.thread().unpark();
        }
    }
}

fn answer(turn: &AtomicU32, other: &Thread) {
    loop {
        // Acquire and Release pair with those of `round_trip`.
        match turn.load(Ordering::Acquire) {
            STOP => return,
            odd if odd % 2 == 1 => {
                turn.store(odd + 1, Ordering::Release);
                other.unpark();
            }
            _ => std::thread::park(),
        }
    }
}

impl Drop for FutexPair {
    fn drop(&mut self) {
        // Release pairs with the peer's Acquire.
        self.turn.store(STOP, Ordering::Release);
        self.unpark();
        if let Some(peer) = self.peer.take() {
            let _ = peer.join();
        }
    }
}
