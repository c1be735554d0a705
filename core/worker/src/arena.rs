//! The memory of a sandbox's regions, as the ring receives into it and sends from it, and lanes lent out for that.
//!
//! Invariant: a [`Slice`] keeps its memory mapped, and a [`Lent`] its lane taken, so that neither is used for something
//! else while a send reads it. No reference to the bytes is made: the sandbox may write the one region
//! and reads the other. It knows no sockets.
#![allow(unsafe_code)]

use std::ops::Range;
use std::sync::Arc;

use vilya_engine::{InvocationId, SandboxId};
use vilya_ipc::host::Mapping;
use vilya_reactor::{Pinned, Window};

use crate::mesh::{Message, Post};

/// A region.
pub(crate) struct Arena(Mapping);

// SAFETY: a mapping stays at its address for as long as any clone of it lives. The down region's is writable; of the up
// region's nothing is ever received into.
unsafe impl Pinned for Arena {
    fn base(&self) -> *mut u8 {
        self.0.address()
    }

    fn bytes(&self) -> usize {
        self.0.bytes()
    }
}

impl Arena {
    pub(crate) fn new(mapping: Mapping) -> Arc<Arena> {
        Arc::new(Arena(mapping))
    }
}

/// A part of a region.
#[derive(Clone)]
pub(crate) struct Slice {
    arena: Arc<Arena>,
    start: usize,
    bytes: usize,
}

impl Slice {
    /// # Panics
    /// The range does not lie in the region.
    pub(crate) fn new(arena: Arc<Arena>, range: &Range<u64>) -> Slice {
        let (start, end) = (range.start as usize, range.end as usize);
        assert!(start <= end && end <= arena.0.bytes(), "a slice lies in its region");
        Slice { arena, start, bytes: end - start }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// The bytes from `from` up to `to`.
    ///
    /// # Panics
    /// It has fewer.
    pub(crate) fn part(&self, from: usize, to: usize) -> Slice {
        assert!(from <= to && to <= self.bytes, "a slice lies in its region");
        Slice { arena: Arc::clone(&self.arena), start: self.start + from, bytes: to - from }
    }

    pub(crate) fn window(&self) -> Window {
        Window::new(self.arena.clone(), self.start, self.bytes)
    }

    /// Appends its bytes to `out`, each as it was at some moment.
    pub(crate) fn append_to(&self, out: &mut Vec<u8>) {
        self.arena.0.append_to(&(self.start as u64..(self.start + self.bytes) as u64), out);
    }

    /// Writes `bytes` at `at`.
    ///
    /// # Safety
    /// It is a part of a down region, in a lane that is lent to the caller; nothing is being received there.
    ///
    /// # Panics
    /// They would end beyond it.
    pub(crate) unsafe fn write(&self, at: usize, bytes: &[u8]) {
        assert!(at.checked_add(bytes.len()).is_some_and(|end| end <= self.bytes), "a slice lies in its region");
        let to = self.arena.0.address().wrapping_add(self.start + at);
        // SAFETY: `to` lies in a writable mapping for that many bytes, and the caller vouches that nobody else uses them.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) }
    }
}

impl std::fmt::Debug for Slice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slice").field("start", &self.start).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// Which lane is taken, by what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) sandbox: SandboxId,
    pub(crate) lane: u16,
    pub(crate) invocation: InvocationId,
}

/// A lane that stays taken while an answer is sent from it: its shard is told when the last clone goes.
pub(crate) struct Lent {
    pub(crate) hold: Hold,
    owner: Post,
}

impl Lent {
    pub(crate) fn new(hold: Hold, owner: Post) -> Arc<Lent> {
        Arc::new(Lent { hold, owner })
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // A shard that has stopped has no lanes any more.
        self.owner.send(Message::Released(self.hold));
    }
}

/// An answer, or a part of one, in the lane that it was written in.
#[derive(Clone)]
pub(crate) struct LaneBytes {
    pub(crate) slice: Slice,
    pub(crate) lent: Arc<Lent>,
}

impl LaneBytes {
    /// The bytes from `from` up to `to`.
    ///
    /// # Panics
    /// It has fewer.
    pub(crate) fn part(&self, from: usize, to: usize) -> LaneBytes {
        LaneBytes { slice: self.slice.part(from, to), lent: Arc::clone(&self.lent) }
    }

    /// A copy of the bytes, after which the lane is not needed for them.
    pub(crate) fn copy(&self) -> Vec<u8> {
        let mut copy = Vec::new();
        self.slice.append_to(&mut copy);
        copy
    }
}

impl std::fmt::Debug for LaneBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaneBytes").field("slice", &self.slice).field("hold", &self.lent.hold).finish()
    }
}
