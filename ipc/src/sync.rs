//! The atomics of the rings and doorbells: the standard library's, or loom's in its models.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, Ordering, fence};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU32, Ordering, fence};

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
