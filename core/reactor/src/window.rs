//! Memory of somebody else's that the kernel receives into or sends from where it lies.
//!
//! Invariant: a [`Window`] keeps its memory mapped, so an operation that holds one points to valid memory until its last
//! completion, whatever became of the owner. No reference to the bytes is ever made here: another process may write
//! them at any time.

use std::fmt;
use std::sync::Arc;

/// Memory at one address for as long as it is held.
///
/// # Safety
/// The `bytes()` bytes from `base()` stay mapped, readable and at the same address until the value is dropped; they are
/// writable if a window of it is received into.
#[allow(unsafe_code)]
pub unsafe trait Pinned: Send + Sync {
    /// Where it starts.
    fn base(&self) -> *mut u8;
    /// How long it is.
    fn bytes(&self) -> usize;
}

/// A range of [`Pinned`] memory.
#[derive(Clone)]
pub struct Window {
    memory: Arc<dyn Pinned>,
    offset: usize,
    bytes: usize,
}

impl Window {
    /// The `bytes` bytes at `offset`.
    ///
    /// # Panics
    /// The range does not lie in the memory.
    pub fn new(memory: Arc<dyn Pinned>, offset: usize, bytes: usize) -> Window {
        let end = offset.checked_add(bytes);
        assert!(end.is_some_and(|end| end <= memory.bytes()), "a window lies in its memory");
        Window { memory, offset, bytes }
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The same without its first `bytes` bytes.
    ///
    /// # Panics
    /// It has fewer.
    #[must_use]
    pub fn skip(&self, bytes: usize) -> Window {
        assert!(bytes <= self.bytes, "a window lies in its memory");
        Window { memory: Arc::clone(&self.memory), offset: self.offset + bytes, bytes: self.bytes - bytes }
    }

    /// Where it starts. `wrapping_add`: in bounds by the invariant, and nothing is read here.
    pub(crate) fn address(&self) -> *mut u8 {
        self.memory.base().wrapping_add(self.offset)
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Window").field("offset", &self.offset).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}
