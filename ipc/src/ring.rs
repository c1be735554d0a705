//! The index arithmetic of a ring with one producer and one consumer that do not trust each other.
//!
//! Indices run freely over `u32` and wrap; a slot is an index modulo the (power of two) number of entries. Invariant:
//! `head <= tail <= head + entries` in wrapping arithmetic. An index from the peer that would break it, or that moves
//! backwards, is an [`IndexError`] and changes nothing here. This module knows no slots' contents and no memory.

use crate::sync::{Ordering, OwnWord, PeerWord};
use thiserror::Error;

/// An index from the peer that no correct peer writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IndexError {
    /// The peer's tail is further ahead than the ring is long.
    #[error("its tail is {ahead} slots ahead in a ring of {entries}")]
    Jumped {
        /// The slots it claims to have filled.
        ahead: u32,
        /// The slots there are.
        entries: u32,
    },
    /// The peer's index is behind one that it published before.
    #[error("its index moved back from {from} to {to}")]
    MovedBack {
        /// What it was.
        from: u32,
        /// What it is now.
        to: u32,
    },
    /// The peer's head is ahead of what was ever published to it.
    #[error("its head {head} is ahead of the tail {tail}")]
    AheadOfTail {
        /// What it claims to have consumed.
        head: u32,
        /// What was published.
        tail: u32,
    },
}

/// The producing side of a ring: owns the tail.
#[derive(Debug)]
pub struct Producer {
    tail: u32,
    head_seen: u32,
    entries: u32,
}

/// The consuming side of a ring: owns the head.
#[derive(Debug)]
pub struct Consumer {
    head: u32,
    tail_seen: u32,
    entries: u32,
}

impl Producer {
    /// The producer of an empty ring whose indices start at `start` (zero, but for tests of the wrap).
    #[must_use]
    pub fn new(entries: u32, start: u32) -> Producer {
        assert!(entries.is_power_of_two(), "ring sizes come from a checked geometry");
        Producer { tail: start, head_seen: start, entries }
    }

    /// The slot to fill next, or `None` when the ring is full.
    ///
    /// # Errors
    /// The consumer's head is impossible.
    pub fn reserve(&mut self, head: PeerWord<'_>) -> Result<Option<u32>, IndexError> {
        if self.tail.wrapping_sub(self.head_seen) == self.entries {
            self.see(head)?;
        }
        let full = self.tail.wrapping_sub(self.head_seen) == self.entries;
        Ok((!full).then_some(self.tail & (self.entries - 1)))
    }

    /// Gives the slot last reserved, now filled, to the consumer.
    pub fn publish(&mut self, tail: OwnWord<'_>) {
        self.tail = self.tail.wrapping_add(1);
        // Release: pairs with the acquire in `Consumer::poll`; the slot's contents come first.
        tail.store(self.tail, Ordering::Release);
    }

    /// The free-running index of the next slot.
    #[must_use]
    pub fn tail(&self) -> u32 {
        self.tail
    }

    fn see(&mut self, head: PeerWord<'_>) -> Result<(), IndexError> {
        // Acquire: pairs with the release in `Consumer::release`; the consumer's reads of the slot are over.
        let seen = head.load_acquire();
        let published = self.tail.wrapping_sub(self.head_seen);
        let consumed = seen.wrapping_sub(self.head_seen);
        if consumed > published {
            return Err(if (consumed as i32) < 0 {
                IndexError::MovedBack { from: self.head_seen, to: seen }
            } else {
                IndexError::AheadOfTail { head: seen, tail: self.tail }
            });
        }
        self.head_seen = seen;
        Ok(())
    }
}

impl Consumer {
    /// The consumer of an empty ring whose indices start at `start` (zero, but for tests of the wrap).
    #[must_use]
    pub fn new(entries: u32, start: u32) -> Consumer {
        assert!(entries.is_power_of_two(), "ring sizes come from a checked geometry");
        Consumer { head: start, tail_seen: start, entries }
    }

    /// The oldest filled slot, or `None` when the ring is empty. It stays the oldest until [`Consumer::advance`].
    ///
    /// # Errors
    /// The producer's tail is impossible.
    pub fn poll(&mut self, tail: PeerWord<'_>) -> Result<Option<u32>, IndexError> {
        if self.head == self.tail_seen {
            // Acquire: pairs with the release in `Producer::publish`; the slot's contents are there.
            let seen = tail.load_acquire();
            let ahead = seen.wrapping_sub(self.head);
            if ahead > self.entries {
                return Err(if (ahead as i32) < 0 {
                    IndexError::MovedBack { from: self.tail_seen, to: seen }
                } else {
                    IndexError::Jumped { ahead, entries: self.entries }
                });
            }
            self.tail_seen = seen;
        }
        Ok((self.head != self.tail_seen).then_some(self.head & (self.entries - 1)))
    }

    /// Whether the ring looks empty, without reading any slot. An impossible tail does not look empty.
    #[must_use]
    pub fn is_empty(&self, tail: PeerWord<'_>) -> bool {
        self.head == self.tail_seen && tail.load_acquire() == self.head
    }

    /// Steps over the oldest slot. The producer learns of it only by [`Consumer::release`].
    pub fn advance(&mut self) {
        debug_assert!(self.head != self.tail_seen, "only a polled slot is stepped over");
        self.head = self.head.wrapping_add(1);
    }

    /// Gives every slot stepped over back to the producer.
    pub fn release(&self, head: OwnWord<'_>) {
        // Release: pairs with the acquire in `Producer::reserve`; this side's reads of the slots come first.
        head.store(self.head, Ordering::Release);
    }

    /// The free-running index of the next slot.
    #[must_use]
    pub fn head(&self) -> u32 {
        self.head
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sync::AtomicU32;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    fn poll_with(consumer: &mut Consumer, tail: u32) -> Result<Option<u32>, IndexError> {
        consumer.poll(PeerWord::new(&AtomicU32::new(tail)))
    }

    #[test]
    fn a_tail_beyond_the_ring_or_behind_itself_is_refused_and_changes_nothing() {
        for start in [0, u32::MAX - 1, 1 << 31] {
            let mut consumer = Consumer::new(4, start);
            let far = start.wrapping_add(5);
            assert_eq!(poll_with(&mut consumer, far), Err(IndexError::Jumped { ahead: 5, entries: 4 }));
            let back = start.wrapping_sub(1);
            assert_eq!(poll_with(&mut consumer, back), Err(IndexError::MovedBack { from: start, to: back }));
            assert_eq!(poll_with(&mut consumer, start.wrapping_add(4)), Ok(Some(start & 3)));
        }
    }

    #[test]
    fn a_head_ahead_of_the_tail_or_behind_itself_is_refused() {
        for start in [0, u32::MAX - 1, 1 << 31] {
            let tail = AtomicU32::new(start);
            let mut producer = Producer::new(2, start);
            for _ in 0..2 {
                producer.reserve(PeerWord::new(&AtomicU32::new(start))).unwrap().unwrap();
                producer.publish(OwnWord::new(&tail));
            }
            let ahead = AtomicU32::new(start.wrapping_add(3));
            let error = IndexError::AheadOfTail { head: start.wrapping_add(3), tail: start.wrapping_add(2) };
            assert_eq!(producer.reserve(PeerWord::new(&ahead)), Err(error));
            let back = AtomicU32::new(start.wrapping_sub(1));
            let error = IndexError::MovedBack { from: start, to: start.wrapping_sub(1) };
            assert_eq!(producer.reserve(PeerWord::new(&back)), Err(error));
            assert_eq!(producer.reserve(PeerWord::new(&AtomicU32::new(start))), Ok(None));
        }
    }

    proptest! {
        /// Against a queue: any interleaving of pushes and pops, across the wrap of the indices.
        #[test]
        fn a_ring_is_a_bounded_queue(start in prop_oneof![Just(0u32), (u32::MAX - 64)..=u32::MAX], pushes in prop::collection::vec(any::<bool>(), 0..300)) {
            const ENTRIES: u32 = 8;
            let (tail, head) = (AtomicU32::new(start), AtomicU32::new(start));
            let mut producer = Producer::new(ENTRIES, start);
            let mut consumer = Consumer::new(ENTRIES, start);
            let mut slots = [0u32; ENTRIES as usize];
            let mut model = VecDeque::new();
            for (value, push) in pushes.into_iter().enumerate() {
                if push {
                    let slot = producer.reserve(PeerWord::new(&head)).unwrap();
                    prop_assert_eq!(slot.is_some(), model.len() < ENTRIES as usize);
                    if let Some(slot) = slot {
                        slots[slot as usize] = value as u32;
                        producer.publish(OwnWord::new(&tail));
                        model.push_back(value as u32);
                    }
                } else {
                    prop_assert_eq!(consumer.is_empty(PeerWord::new(&tail)), model.is_empty());
                    let slot = consumer.poll(PeerWord::new(&tail)).unwrap();
                    prop_assert_eq!(slot.map(|slot| slots[slot as usize]), model.pop_front());
                    if slot.is_some() {
                        consumer.advance();
                        consumer.release(OwnWord::new(&head));
                    }
                }
            }
        }

        /// Whatever tails a peer writes, what is handed out is a slot of the ring and never more than it holds at once.
        #[test]
        fn a_hostile_tail_yields_a_slot_or_an_error(tails in prop::collection::vec(any::<u32>(), 1..100)) {
            let mut consumer = Consumer::new(4, 0);
            for tail in tails {
                if let Ok(Some(slot)) = poll_with(&mut consumer, tail) {
                    prop_assert!(slot < 4);
                    prop_assert!(consumer.tail_seen.wrapping_sub(consumer.head) <= 4);
                    consumer.advance();
                }
            }
        }
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use crate::sync::AtomicU32;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;

    struct Shared {
        tail: AtomicU32,
        head: AtomicU32,
        slots: [UnsafeCell<u32>; 2],
    }

    /// Three messages through two slots, over the wrap of the indices: each is seen whole, once and in order, and no
    /// slot is touched from both sides at once (loom's cells fail on any such access).
    #[test]
    #[allow(unsafe_code)]
    fn loom_ring_hands_over_each_message_once_in_order() {
        loom::model(|| {
            let start = u32::MAX;
            let shared = Arc::new(Shared {
                tail: AtomicU32::new(start),
                head: AtomicU32::new(start),
                slots: [UnsafeCell::new(0), UnsafeCell::new(0)],
            });
            let theirs = Arc::clone(&shared);
            let sender = loom::thread::spawn(move || {
                let mut producer = Producer::new(2, start);
                for message in 1..=3 {
                    let slot = loop {
                        match producer.reserve(PeerWord::new(&theirs.head)).unwrap() {
                            Some(slot) => break slot,
                            None => loom::thread::yield_now(),
                        }
                    };
                    // SAFETY: the protocol under test gives the producer this slot; loom checks that it does.
                    theirs.slots[slot as usize].with_mut(|cell| unsafe { *cell = message });
                    producer.publish(OwnWord::new(&theirs.tail));
                }
            });
            let mut consumer = Consumer::new(2, start);
            for message in 1..=3 {
                let slot = loop {
                    match consumer.poll(PeerWord::new(&shared.tail)).unwrap() {
                        Some(slot) => break slot,
                        None => loom::thread::yield_now(),
                    }
                };
                // SAFETY: the protocol under test gives the consumer this slot; loom checks that it does.
                let found = shared.slots[slot as usize].with(|cell| unsafe { *cell });
                assert_eq!(found, message);
                consumer.advance();
                consumer.release(OwnWord::new(&shared.head));
            }
            sender.join().unwrap();
        });
    }
}
