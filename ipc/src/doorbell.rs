//! Sleeping and waking: who must ring when, the same in both directions.
//!
//! One side publishes and then asks whether the other parked; the other says that it parks and then looks once more.
//! Invariant: with a sequentially consistent fence between the two steps on both sides, at least one of them sees the
//! other, so no message waits beside a sleeper. The park flag only suppresses wake-ups: a side that lies in it harms
//! nobody but itself. A side that is slow to wake numbers its sleeps, so that it is rung once in each however much is
//! published meanwhile. This module knows neither futexes nor eventfds.

use crate::sync::{Ordering, OwnWord, PeerWord, fence};

/// Whether the peer must be woken for what this side just published.
#[must_use]
pub fn must_ring(peer_parked: PeerWord<'_>) -> bool {
    sleep_of(peer_parked) != 0
}

/// Which of its sleeps the peer is in, as it said; zero while it is awake. One ring a sleep is enough: what is published
/// after it is seen when the peer looks, which it does before it sleeps again or begins another sleep.
#[must_use]
pub fn sleep_of(peer_parked: PeerWord<'_>) -> u32 {
    // SeqCst: pairs with the fence in `announce`; our publication before it, or the peer's word after it, is seen.
    fence(Ordering::SeqCst);
    peer_parked.load_relaxed()
}

/// Says that this side is about to sleep, or begins another sleep: `sleep` is not zero, and not what it said last. It
/// must look at its ring once more afterwards, and only then sleep.
pub fn announce(own_parked: OwnWord<'_>, sleep: u32) {
    own_parked.store(sleep, Ordering::Relaxed);
    // SeqCst: pairs with the fence in `sleep_of`; our word before it, or the peer's publication after it, is seen.
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

    /// Publishes each message and then calls `ring`.
    fn send(shared: &Shared, mut ring: impl FnMut(&Shared)) {
        let mut producer = Producer::new(4, 0);
        for _ in 0..MESSAGES {
            let slot = producer.reserve(PeerWord::new(&shared.head)).unwrap().expect("four slots for two messages");
            producer.publish(OwnWord::new(&shared.tail), OwnSequence::new(&shared.sequences[slot as usize]));
            ring(shared);
        }
    }

    /// Takes the next message if it is there.
    fn take(shared: &Shared, consumer: &mut Consumer) -> bool {
        let taken = consumer.poll(PeerSequence::new(&shared.sequences[consumer.slot() as usize])).is_some();
        if taken {
            consumer.advance();
            consumer.release(OwnWord::new(&shared.head));
        }
        taken
    }

    fn model(send: fn(&Shared), receive: fn(&Shared)) {
        // Unbounded, the words and the kernel's lock together take hours; three preemptions suffice to lose a wake-up where
        // either fence is left out.
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(move || {
            let shared = Arc::new(Shared::default());
            let theirs = Arc::clone(&shared);
            let sender = loom::thread::spawn(move || send(&theirs));
            receive(&shared);
            sender.join().unwrap();
        });
    }

    /// Down: the futex compares the tail under its own lock and keeps no memory of earlier wakes. A lost wake-up is
    /// a thread that sleeps for ever, which loom reports as a deadlock.
    #[test]
    fn loom_doorbell_down_loses_no_wake() {
        model(
            |shared| {
                send(shared, |shared| {
                    if must_ring(PeerWord::new(&shared.parked)) {
                        let _queue = shared.kernel.lock().unwrap();
                        shared.bell.notify_one();
                    }
                });
            },
            |shared| {
                let mut consumer = Consumer::new(4, 0);
                while consumer.head() < MESSAGES {
                    if take(shared, &mut consumer) {
                        continue;
                    }
                    announce(OwnWord::new(&shared.parked), 1);
                    if consumer.look(PeerWord::new(&shared.tail)).unwrap() {
                        let queue = shared.kernel.lock().unwrap();
                        if PeerWord::new(&shared.tail).load_relaxed() == consumer.head() {
                            drop(shared.bell.wait(queue).unwrap());
                        }
                    }
                    retract(OwnWord::new(&shared.parked));
                }
            },
        );
    }

    /// Up: the eventfd compares nothing but counts; the worker's poll returns when the count moved. The sandbox rings
    /// once a sleep, and the worker begins another whenever it has looked at everything.
    #[test]
    fn loom_doorbell_up_loses_no_wake() {
        model(
            |shared| {
                let mut rung = 0;
                send(shared, |shared| {
                    let sleep = sleep_of(PeerWord::new(&shared.parked));
                    if sleep != 0 && sleep != rung {
                        rung = sleep;
                        *shared.kernel.lock().unwrap() += 1;
                        shared.bell.notify_one();
                    }
                });
            },
            |shared| {
                let mut consumer = Consumer::new(4, 0);
                let mut sleep = 0;
                while consumer.head() < MESSAGES {
                    if take(shared, &mut consumer) {
                        continue;
                    }
                    sleep += 1;
                    announce(OwnWord::new(&shared.parked), sleep);
                    if consumer.look(PeerWord::new(&shared.tail)).unwrap() {
                        let mut count = shared.kernel.lock().unwrap();
                        while *count == 0 {
                            count = shared.bell.wait(count).unwrap();
                        }
                        *count = 0;
                    }
                }
            },
        );
    }
}
