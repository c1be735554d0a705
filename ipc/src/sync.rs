//! The atomics of the rings and doorbells: the standard library's, or loom's in its models.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// A word that only the peer writes. It may lie in memory mapped read-only, where nothing but relaxed loads is
/// defined; an acquire load is therefore a relaxed one and a fence.
#[derive(Clone, Copy)]
pub struct PeerWord<'a>(&'a AtomicU32);

impl<'a> PeerWord<'a> {
    pub(crate) fn new(word: &'a AtomicU32) -> PeerWord<'a> {
        PeerWord(word)
    }

    /// Reads the word, ordering nothing.
    pub(crate) fn load_relaxed(self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Reads the word; what the peer did before its release store of this value is visible afterwards.
    pub(crate) fn load_acquire(self) -> u32 {
        let value = self.0.load(Ordering::Relaxed);
        // Acquire: pairs with the peer's release store of the word just read.
        fence(Ordering::Acquire);
        value
    }
}

/// A word that only this side writes.
#[derive(Clone, Copy)]
pub struct OwnWord<'a>(&'a AtomicU32);

impl<'a> OwnWord<'a> {
    pub(crate) fn new(word: &'a AtomicU32) -> OwnWord<'a> {
        OwnWord(word)
    }

    pub(crate) fn store(self, value: u32, ordering: Ordering) {
        self.0.store(value, ordering);
    }
}

/// The word of a slot by which the peer says that the slot is filled; as for [`PeerWord`].
#[derive(Clone, Copy)]
pub struct PeerSequence<'a>(&'a AtomicU64);

impl<'a> PeerSequence<'a> {
    pub(crate) fn new(word: &'a AtomicU64) -> PeerSequence<'a> {
        PeerSequence(word)
    }

    /// Whether the word is `expected`; if so, what the peer did before its release store of it is visible afterwards.
    pub(crate) fn is(self, expected: u64) -> bool {
        let found = self.0.load(Ordering::Relaxed) == expected;
        if found {
            // Acquire: pairs with the peer's release store of the word just read.
            fence(Ordering::Acquire);
        }
        found
    }
}

/// The word of a slot by which this side says that the slot is filled.
#[derive(Clone, Copy)]
pub struct OwnSequence<'a>(&'a AtomicU64);

impl<'a> OwnSequence<'a> {
    pub(crate) fn new(word: &'a AtomicU64) -> OwnSequence<'a> {
        OwnSequence(word)
    }

    pub(crate) fn store(self, value: u64, ordering: Ordering) {
        self.0.store(value, ordering);
    }
}
