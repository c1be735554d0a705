//! The index arithmetic of a ring with one producer and one consumer that do not trust each other.
//!
//! Indices run freely over `u32` and wrap; a slot is an index modulo the (power of two) number of entries. Invariant:
//! `head <= tail <= head + entries` in wrapping arithmetic. An index from the peer that would break it, or that moves
//! backwards, is an [`IndexError`] and changes nothing here. This module knows no slots' contents and no memory.
//!
//! A message is published twice: by the tail, and then by a [`sequence`] in its own slot. A consumer that is awake looks
//! at the sequence of the slot it waits for, so that a small message takes no cache line but its own; before it sleeps it
//! looks at the tail. Either is proof that the slot is filled. The tail is stored first: who saw the sequence never
//! sees a tail behind it.

use crate::sync::{Ordering, OwnSequence, OwnWord, PeerSequence, PeerWord};
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

/// What the sequence word of a slot says once the message of free-running index `index` is in it. Never zero, which is
/// what a slot says before its first message; never what it says one lap of the ring earlier.
#[must_use]
pub fn sequence(index: u32) -> u64 {
    u64::from(index) + 1
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
    released: u32,
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

    /// Whether the consumer is done with everything that was published.
    ///
    /// # Errors
    /// The consumer's head is impossible.
    pub fn is_drained(&mut self, head: PeerWord<'_>) -> Result<bool, IndexError> {
        self.see(head)?;
        Ok(self.head_seen == self.tail)
    }

    /// Gives the slot last reserved, now filled, to the consumer. `slot` is the slot's sequence word.
    pub fn publish(&mut self, tail: OwnWord<'_>, slot: OwnSequence<'_>) {
        let sequence = sequence(self.tail);
        self.tail = self.tail.wrapping_add(1);
        // Release: pairs with the acquire in `Consumer::look`; the slot's contents come first.
        tail.store(self.tail, Ordering::Release);
        // Release: pairs with the acquire in `Consumer::poll`; the slot's contents and the tail come first.
        slot.store(sequence, Ordering::Release);
    }

    /// The free-running index of the next slot.
    #[must_use]
    pub fn tail(&self) -> u32 {
        self.tail
    }

    /// Learns from something other than its head that the consumer is done with every slot before `index`, so that the
    /// head, on a cache line that the consumer writes, need not be looked at. What was never published is left out.
    pub fn infer(&mut self, index: u32) {
        if index.wrapping_sub(self.head_seen) <= self.tail.wrapping_sub(self.head_seen) {
            self.head_seen = index;
        }
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
        Consumer { head: start, released: start, tail_seen: start, entries }
    }

    /// The slot of the next message, filled or not.
    #[must_use]
    pub fn slot(&self) -> u32 {
        self.head & (self.entries - 1)
    }

    /// Whether the next message is known to be there, by the tail last looked at or by its sequence. `slot` is the
    /// sequence word of [`Consumer::slot`].
    #[must_use]
    pub fn is_filled(&self, slot: PeerSequence<'_>) -> bool {
        self.head != self.tail_seen || slot.is(sequence(self.head))
    }

    /// The oldest filled slot, or `None` when none is known to be. It stays the oldest until [`Consumer::advance`].
    pub fn poll(&mut self, slot: PeerSequence<'_>) -> Option<u32> {
        if !self.is_filled(slot) {
            return None;
        }
        if self.head == self.tail_seen {
            // What the sequence proves of the tail.
            self.tail_seen = self.head.wrapping_add(1);
        }
        Some(self.slot())
    }

    /// Looks at the tail; whether the ring is empty. What it finds is known to [`Consumer::poll`] from then on.
    ///
    /// # Errors
    /// The producer's tail is impossible.
    pub fn look(&mut self, tail: PeerWord<'_>) -> Result<bool, IndexError> {
        // Acquire: pairs with the release in `Producer::publish`; the slots' contents are there.
        let seen = tail.load_acquire();
        let known = self.tail_seen.wrapping_sub(self.head);
        let ahead = seen.wrapping_sub(self.head);
        if ahead > self.entries || ahead < known {
            return Err(if ahead < known || (ahead as i32) < 0 {
                IndexError::MovedBack { from: self.tail_seen, to: seen }
            } else {
                IndexError::Jumped { ahead, entries: self.entries }
            });
        }
        self.tail_seen = seen;
        Ok(ahead == 0)
    }

    /// Steps over the oldest slot. The producer learns of it only by [`Consumer::release`].
    pub fn advance(&mut self) {
        debug_assert!(self.head != self.tail_seen, "only a polled slot is stepped over");
        self.head = self.head.wrapping_add(1);
    }

    /// Gives every slot stepped over back to the producer; touches nothing when there is none.
    pub fn release(&mut self, head: OwnWord<'_>) {
        if self.released != self.head {
            self.released = self.head;
            // Release: pairs with the acquire in `Producer::reserve`; this side's reads of the slots come first.
            head.store(self.head, Ordering::Release);
        }
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
    use crate::sync::{AtomicU32, AtomicU64};
    use proptest::prelude::*;
    use std::collections::VecDeque;

    /// Looks at a tail, then polls a slot that says nothing.
    fn poll_with(consumer: &mut Consumer, tail: u32) -> Result<Option<u32>, IndexError> {
        consumer.look(PeerWord::new(&AtomicU32::new(tail)))?;
        Ok(poll_sequence(consumer, 0))
    }

    fn poll_sequence(consumer: &mut Consumer, found: u64) -> Option<u32> {
        consumer.poll(PeerSequence::new(&AtomicU64::new(found)))
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
                producer.publish(OwnWord::new(&tail), OwnSequence::new(&AtomicU64::new(0)));
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

    #[test]
    fn what_is_inferred_of_a_head_is_between_what_was_seen_and_what_was_published() {
        for start in [0, u32::MAX - 1, 1 << 31] {
            let (tail, sequence) = (AtomicU32::new(start), AtomicU64::new(0));
            let nothing_read = AtomicU32::new(start);
            let mut producer = Producer::new(2, start);
            let fill = |producer: &mut Producer| {
                let slot = producer.reserve(PeerWord::new(&nothing_read)).unwrap();
                slot.inspect(|_| producer.publish(OwnWord::new(&tail), OwnSequence::new(&sequence)))
            };
            assert!(fill(&mut producer).is_some() && fill(&mut producer).is_some() && fill(&mut producer).is_none());
            for impossible in [start.wrapping_add(3), start.wrapping_sub(1), start.wrapping_add(1 << 31)] {
                producer.infer(impossible);
            }
            assert!(fill(&mut producer).is_none());
            producer.infer(start.wrapping_add(1));
            producer.infer(start);
            assert_eq!(fill(&mut producer), Some(start & 1));
            // A head that denies what was inferred is one that moved back.
            let denied = IndexError::MovedBack { from: start.wrapping_add(1), to: start };
            assert_eq!(producer.reserve(PeerWord::new(&nothing_read)), Err(denied));
        }
    }

    #[test]
    fn a_sequence_proves_its_own_message_and_no_other() {
        for start in [0, u32::MAX - 1, u32::MAX, 1 << 31] {
            let mut consumer = Consumer::new(4, start);
            let stale = [0, sequence(start.wrapping_sub(4)), sequence(start.wrapping_sub(1))];
            for found in stale.into_iter().chain([sequence(start.wrapping_add(1)), sequence(start.wrapping_add(4))]) {
                assert_eq!(poll_sequence(&mut consumer, found), None, "{start} {found}");
            }
            assert_eq!(poll_sequence(&mut consumer, sequence(start)), Some(start & 3));
            // A tail that denies what the sequence proved.
            let denied = IndexError::MovedBack { from: start.wrapping_add(1), to: start };
            assert_eq!(poll_with(&mut consumer, start), Err(denied));
            consumer.advance();
            assert_eq!(poll_with(&mut consumer, start), Err(denied));
            assert_eq!(poll_with(&mut consumer, start.wrapping_add(1)), Ok(None));
            assert_eq!(poll_with(&mut consumer, start.wrapping_add(2)), Ok(Some(start.wrapping_add(1) & 3)));
        }
    }

    proptest! {
        /// Against a queue: any interleaving of pushes, pops and looks at the tail, across the wrap of the indices.
        #[test]
        fn a_ring_is_a_bounded_queue(start in prop_oneof![Just(0u32), (u32::MAX - 64)..=u32::MAX], steps in prop::collection::vec(0u8..5, 0..300)) {
            const ENTRIES: u32 = 8;
            let (tail, head) = (AtomicU32::new(start), AtomicU32::new(start));
            let mut producer = Producer::new(ENTRIES, start);
            let mut consumer = Consumer::new(ENTRIES, start);
            let mut slots = [0u32; ENTRIES as usize];
            let sequences: [AtomicU64; ENTRIES as usize] = std::array::from_fn(|_| AtomicU64::new(0));
            let mut model = VecDeque::new();
            for (value, step) in steps.into_iter().enumerate() {
                let next = PeerSequence::new(&sequences[consumer.slot() as usize]);
                match step {
                    0 | 1 => {
                        let slot = producer.reserve(PeerWord::new(&head)).unwrap();
                        prop_assert_eq!(slot.is_some(), model.len() < ENTRIES as usize);
                        if let Some(slot) = slot {
                            slots[slot as usize] = value as u32;
                            producer.publish(OwnWord::new(&tail), OwnSequence::new(&sequences[slot as usize]));
                            model.push_back(value as u32);
                        }
                    }
                    2 => prop_assert_eq!(consumer.look(PeerWord::new(&tail)), Ok(model.is_empty())),
                    _ => {
                        prop_assert_eq!(consumer.is_filled(next), !model.is_empty());
                        let slot = consumer.poll(next);
                        prop_assert_eq!(slot.map(|slot| slots[slot as usize]), model.pop_front());
                        if slot.is_some() {
                            consumer.advance();
                            consumer.release(OwnWord::new(&head));
                        }
                    }
                }
            }
        }

        /// Whatever tails a peer writes, what is handed out is a slot of the ring and never more than it holds at once.
        #[test]
        fn a_hostile_tail_or_sequence_yields_a_slot_or_an_error(
            start in prop_oneof![Just(0u32), (u32::MAX - 8)..=u32::MAX],
            lies in prop::collection::vec((any::<bool>(), prop_oneof![0u32..12, any::<u32>()]), 1..100),
        ) {
            let mut consumer = Consumer::new(4, start);
            for (by_tail, near) in lies {
                let lie = consumer.head.wrapping_add(near).wrapping_sub(4);
                let polled = if by_tail {
                    poll_with(&mut consumer, lie).unwrap_or(None)
                } else {
                    poll_sequence(&mut consumer, sequence(lie))
                };
                prop_assert!(consumer.tail_seen.wrapping_sub(consumer.head) <= 4);
                if let Some(slot) = polled {
                    prop_assert!(slot < 4);
                    consumer.advance();
                }
            }
        }
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use crate::sync::{AtomicU32, AtomicU64};
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;

    struct Shared {
        tail: AtomicU32,
        head: AtomicU32,
        slots: [UnsafeCell<u32>; 2],
        sequences: [AtomicU64; 2],
    }

    /// Three messages through two slots, over the wrap of the indices: each is seen whole, once and in order, no slot is
    /// touched from both sides at once (loom's cells fail on any such access), and no tail is behind a sequence.
    #[allow(unsafe_code)]
    fn hands_over(looks: fn(u32) -> bool) {
        loom::model(move || {
            let start = u32::MAX;
            let shared = Arc::new(Shared {
                tail: AtomicU32::new(start),
                head: AtomicU32::new(start),
                slots: [UnsafeCell::new(0), UnsafeCell::new(0)],
                sequences: [AtomicU64::new(0), AtomicU64::new(0)],
            });
            let theirs = Arc::clone(&shared);
            let sender = loom::thread::spawn(move || {
                let mut producer = Producer::new(2, start);
                for message in 1..=3 {
                    let slot = loop {
                        match producer.reserve(PeerWord::new(&theirs.head)).unwrap() {
                            Some(slot) => break slot as usize,
                            None => loom::thread::yield_now(),
                        }
                    };
                    // SAFETY: the protocol under test gives the producer this slot; loom checks that it does.
                    theirs.slots[slot].with_mut(|cell| unsafe { *cell = message });
                    producer.publish(OwnWord::new(&theirs.tail), OwnSequence::new(&theirs.sequences[slot]));
                }
            });
            let mut consumer = Consumer::new(2, start);
            for message in 1..=3 {
                let slot = loop {
                    if looks(message) {
                        consumer.look(PeerWord::new(&shared.tail)).unwrap();
                    }
                    match consumer.poll(PeerSequence::new(&shared.sequences[consumer.slot() as usize])) {
                        Some(slot) => break slot as usize,
                        None => loom::thread::yield_now(),
                    }
                };
                // SAFETY: the protocol under test gives the consumer this slot; loom checks that it does.
                let found = shared.slots[slot].with(|cell| unsafe { *cell });
                assert_eq!(found, message);
                consumer.advance();
                consumer.release(OwnWord::new(&shared.head));
            }
            sender.join().unwrap();
        });
    }

    #[test]
    fn loom_ring_hands_over_by_sequence() {
        hands_over(|_| false);
    }

    #[test]
    fn loom_ring_hands_over_by_tail_and_by_sequence() {
        hands_over(|message| message != 1);
    }
}
