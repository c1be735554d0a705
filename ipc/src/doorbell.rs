//! Sleeping and waking: who must ring when, the same in both directions.
//!
//! One side publishes and then asks whether the other parked; the other says that it parks and then looks once more.
//! Invariant: with a sequentially consistent fence between the two steps on both sides, at least one of them sees the
//! other, so no message waits beside a sleeper. The park flag only suppresses wake-ups: a side that lies in it harms
//! nobody but itself. This module knows neither futexes nor eventfds.

use crate::sync::{Ordering, OwnWord, PeerWord, fence};

/// Whether the peer must be woken for what this side just published.
#[must_use]
pub fn must_ring(peer_parked: PeerWord<'_>) -> bool {
    // SeqCst: pairs with the fence in `announce`; our publication before it, or the peer's flag after it, is seen.
    fence(Ordering::SeqCst);
    peer_parked.load_relaxed() != 0
}

/// Says that this side is about to sleep. It must look at its ring once more afterwards, and only then sleep.
pub fn announce(own_parked: OwnWord<'_>) {
    own_parked.store(1, Ordering::Relaxed);
    // SeqCst: pairs with the fence in `must_ring`; our flag before it, or the peer's publication after it, is seen.
    fence(Ordering::SeqCst);
}

/// Says that this side is awake. Relaxed: seen late, it costs one needless wake-up.
pub fn retract(own_parked: OwnWord<'_>) {
    own_parked.store(0, Ordering::Relaxed);
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use crate::ring::{Consumer, Producer};
    use crate::sync::{AtomicU32, AtomicU64, OwnSequence, PeerSequence};
    use loom::sync::{Arc, Condvar, Mutex};

    const MESSAGES: u32 = 2;

    #[derive(Default)]
    struct Shared {
        tail: AtomicU32,
        head: AtomicU32,
        parked: AtomicU32,
        sequences: [AtomicU64; 4],
        /// What the kernel keeps: the futex's wait queue, or the eventfd's count.
        kernel: Mutex<u64>,
        bell: Condvar,
    }

    fn send(shared: &Shared, ring: impl Fn(&Shared)) {
        let mut producer = Producer::new(4, 0);
        for _ in 0..MESSAGES {
            let slot = producer.reserve(PeerWord::new(&shared.head)).unwrap().expect("four slots for two messages");
            producer.publish(OwnWord::new(&shared.tail), OwnSequence::new(&shared.sequences[slot as usize]));
            if must_ring(PeerWord::new(&shared.parked)) {
                ring(shared);
            }
        }
    }

    fn receive(shared: &Shared, sleep: impl Fn(&Shared, u32)) {
        let mut consumer = Consumer::new(4, 0);
        let mut received = 0;
        while received < MESSAGES {
            if consumer.poll(PeerSequence::new(&shared.sequences[consumer.slot() as usize])).is_some() {
                consumer.advance();
                consumer.release(OwnWord::new(&shared.head));
                received += 1;
                continue;
            }
            announce(OwnWord::new(&shared.parked));
            if consumer.look(PeerWord::new(&shared.tail)).unwrap() {
                sleep(shared, consumer.head());
            }
            retract(OwnWord::new(&shared.parked));
        }
    }

    fn model(ring: fn(&Shared), sleep: fn(&Shared, u32)) {
        // Unbounded, the words and the kernel's lock together take hours; three preemptions suffice to lose a wake-up where
        // either fence is left out.
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(move || {
            let shared = Arc::new(Shared::default());
            let theirs = Arc::clone(&shared);
            let sender = loom::thread::spawn(move || send(&theirs, ring));
            receive(&shared, sleep);
            sender.join().unwrap();
        });
    }

    /// Down: the futex compares the tail under its own lock and keeps no memory of earlier wakes. A lost wake-up is
    /// a thread that sleeps for ever, which loom reports as a deadlock.
    #[test]
    fn loom_doorbell_down_loses_no_wake() {
        model(
            |shared| {
                let _queue = shared.kernel.lock().unwrap();
                shared.bell.notify_one();
            },
            |shared, expected| {
                let queue = shared.kernel.lock().unwrap();
                if PeerWord::new(&shared.tail).load_relaxed() == expected {
                    drop(shared.bell.wait(queue).unwrap());
                }
            },
        );
    }

    /// Up: the eventfd compares nothing but counts; the worker's poll returns when the count moved.
    #[test]
    fn loom_doorbell_up_loses_no_wake() {
        model(
            |shared| {
                *shared.kernel.lock().unwrap() += 1;
                shared.bell.notify_one();
            },
            |shared, _expected| {
                let mut count = shared.kernel.lock().unwrap();
                while *count == 0 {
                    count = shared.bell.wait(count).unwrap();
                }
                *count = 0;
            },
        );
    }
}
