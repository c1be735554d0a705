//! The provided buffers: memory that the kernel picks a buffer from when a receive has data, and not before.
//!
//! Invariant: a buffer is at each moment either the kernel's (its id is in the ring, or an operation took it) or a
//! [`Chunk`]'s, and there is one chunk for it at most. Chunks cannot be made or copied outside of this file. The memory
//! is not inherited by a forked child (`MADV_DONTFORK`): a copy-on-write in the parent would part us from the pages that
//! the kernel holds.
//!
//! Does not know sockets.
#![allow(unsafe_code)]

use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use io_uring::types::BufRingEntry;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

/// The one buffer group of a ring.
pub(crate) const GROUP: u16 = 0;

const PAGE_BYTES_MAX: usize = 64 * 1024;

/// Received bytes in a provided buffer. Give it back with [`Reactor::recycle`](crate::Reactor::recycle); a chunk that is
/// dropped instead takes its buffer with it until the reactor is dropped.
#[derive(Debug)]
#[must_use = "a buffer comes back only through Reactor::recycle"]
pub struct Chunk {
    pool: u32,
    bytes: u32,
    buffer: u16,
}

impl Chunk {
    /// Bytes received; at least one.
    #[expect(clippy::len_without_is_empty, reason = "never empty: the end of a stream is Outcome::Ended")]
    pub fn len(&self) -> usize {
        self.bytes as usize
    }
}

/// Where the buffers are registered: what the kernel needs to know.
pub(crate) struct Registration {
    pub(crate) ring_address: u64,
    pub(crate) entries: u16,
}

pub(crate) struct Buffers {
    /// One mapping: the ring of entries, padded to whole pages, then the buffers.
    base: NonNull<u8>,
    ring_bytes: usize,
    buffer_bytes: u32,
    count: u16,
    /// Next free place in the ring; the kernel sees it through the shared tail.
    tail: u16,
    /// Buffers that chunks hold.
    held: u16,
    /// Tells this pool's chunks from another's.
    pool: u32,
    leaked: bool,
}

impl Buffers {
    /// Maps the memory and fills the ring. `count` is a power of two.
    pub(crate) fn new(count: u16, buffer_bytes: u32) -> io::Result<Buffers> {
        // Only has to be unique: Relaxed pairs with nothing.
        static POOLS: AtomicU32 = AtomicU32::new(0);
        assert!(count.is_power_of_two());
        let ring_bytes = (usize::from(count) * size_of::<BufRingEntry>()).next_multiple_of(PAGE_BYTES_MAX);
        let bytes = NonZeroUsize::new(ring_bytes + usize::from(count) * buffer_bytes as usize)
            .expect("count is a power of two, so the ring has at least a page");
        // SAFETY: a new private anonymous mapping at an address of the kernel's choice overlaps nothing of ours.
        let base = unsafe {
            mmap_anonymous(None, bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE)?
        };
        let pool = POOLS.fetch_add(1, Ordering::Relaxed);
        let mut buffers =
            Buffers { base: base.cast(), ring_bytes, buffer_bytes, count, tail: 0, held: 0, pool, leaked: false };
        // SAFETY: exactly the mapping made above; the advice changes only what a fork does.
        unsafe { madvise(base, buffers.mapped_bytes(), MmapAdvise::MADV_DONTFORK)? };
        for buffer in 0..count {
            buffers.provide(buffer);
        }
        Ok(buffers)
    }

    pub(crate) fn registration(&self) -> Registration {
        Registration { ring_address: self.base.as_ptr() as u64, entries: self.count }
    }

    pub(crate) fn buffer_bytes(&self) -> u32 {
        self.buffer_bytes
    }

    pub(crate) fn held(&self) -> u16 {
        self.held
    }

    /// The kernel said that it filled `buffer` with `bytes` bytes: it is ours until recycled.
    pub(crate) fn claim(&mut self, buffer: u16, bytes: u32) -> Chunk {
        assert!(buffer < self.count && bytes <= self.buffer_bytes, "the kernel names only buffers that it was given");
        self.held += 1;
        Chunk { pool: self.pool, bytes, buffer }
    }

    pub(crate) fn bytes(&self, chunk: &Chunk) -> &[u8] {
        assert_eq!(chunk.pool, self.pool, "a chunk of another reactor");
        // SAFETY: `buffer < count` and `bytes <= buffer_bytes` since `claim`, so the range is inside the mapping. The
        // chunk is the only one for this buffer and the kernel does not have it, so nothing writes while `self` and the
        // chunk are borrowed: giving it back needs the chunk by value. The kernel wrote the bytes.
        unsafe { std::slice::from_raw_parts(self.buffer(chunk.buffer).as_ptr(), chunk.len()) }
    }

    /// Gives a chunk's buffer back to the kernel.
    pub(crate) fn recycle(&mut self, chunk: Chunk) {
        assert_eq!(chunk.pool, self.pool, "a chunk of another reactor");
        self.held -= 1;
        self.provide(chunk.buffer);
    }

    /// Gives back a buffer that came with a completion which nobody gets.
    pub(crate) fn recycle_unseen(&mut self, buffer: u16) {
        assert!(buffer < self.count, "the kernel names only buffers that it was given");
        self.provide(buffer);
    }

    /// Never unmap: the kernel may still write.
    pub(crate) fn leak(&mut self) {
        self.leaked = true;
    }

    #[cfg(test)]
    pub(crate) fn is_leaked(&self) -> bool {
        self.leaked
    }

    fn provide(&mut self, buffer: u16) {
        let address = self.buffer(buffer).as_ptr() as u64;
        let place = usize::from(self.tail & (self.count - 1));
        let ring = self.base.cast::<BufRingEntry>();
        // SAFETY: `place < count`, so the entry is in the ring part of the mapping, which is zeroed or written by us and
        // page aligned. There are at most `count` buffers outside of chunks, so the kernel has consumed this place. The
        // three setters leave the last two bytes alone, which in entry 0 are the tail.
        let entry = unsafe { ring.add(place).as_mut() };
        entry.set_addr(address);
        entry.set_len(self.buffer_bytes);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `tail` of the first entry of the ring: two aligned bytes inside the mapping that only this thread
        // writes and the kernel reads, so an atomic view of them is sound.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(ring.as_ptr()).cast_mut()) };
        // Release pairs with the kernel's acquire load of the tail: it sees the entry before the place.
        tail.store(self.tail, Ordering::Release);
    }

    fn buffer(&self, buffer: u16) -> NonNull<u8> {
        let offset = self.ring_bytes + usize::from(buffer) * self.buffer_bytes as usize;
        // SAFETY: callers checked `buffer < count`, so the offset is inside the mapping.
        unsafe { self.base.add(offset) }
    }

    fn mapped_bytes(&self) -> usize {
        self.ring_bytes + usize::from(self.count) * self.buffer_bytes as usize
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        if self.leaked {
            return;
        }
        // SAFETY: the mapping made in `new`, unmapped once. The reactor closed its ring before and got every operation
        // back from the kernel, or else leaked us; slices of it borrow from us.
        let unmapped = unsafe { munmap(self.base.cast(), self.mapped_bytes()) };
        debug_assert!(unmapped.is_ok(), "unmapping our own mapping failed: {unmapped:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_buffer_is_held_until_recycled() {
        let mut buffers = Buffers::new(4, 128).unwrap();
        let chunk = buffers.claim(3, 5);
        assert_eq!((buffers.held(), chunk.len()), (1, 5));
        assert_eq!(buffers.bytes(&chunk), [0; 5]);
        let tail = buffers.tail;
        buffers.recycle(chunk);
        assert_eq!((buffers.held(), buffers.tail), (0, tail + 1));
    }

    #[test]
    #[should_panic(expected = "another reactor")]
    fn a_chunk_of_another_pool_is_not_taken() {
        let mut one = Buffers::new(2, 64).unwrap();
        let mut other = Buffers::new(2, 64).unwrap();
        let chunk = one.claim(0, 1);
        other.recycle(chunk);
    }
}
