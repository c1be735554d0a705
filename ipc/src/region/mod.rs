//! The memory of the two regions, as each side may touch it.
//!
//! Invariant: a [`PeerRegion`] is only ever read, by atomics and by copies; an [`OwnRegion`] is written by this side
//! alone. Every access is checked against the region's size. This module knows no layout.
#![allow(unsafe_code)]

mod copy;
pub(crate) mod memory;

use crate::sync::{AtomicU32, AtomicU64, OwnSequence, OwnWord, PeerSequence, PeerWord};
use memmap2::{Advice, MmapOptions, MmapRaw};
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A region that the peer writes and this side reads.
pub(crate) struct PeerRegion(Mapping);

/// A region that this side writes. Its methods take `&self`: several parts of one side write disjoint ranges.
pub(crate) struct OwnRegion(Mapping);

/// A region's memory, which stays mapped as long as any clone of this lives: for system calls that may still be under
/// way when the side that asked for them is gone.
#[derive(Clone)]
pub struct Mapping {
    base: NonNull<u8>,
    bytes: u64,
    backing: Backing,
}

#[derive(Clone)]
enum Backing {
    Mapped {
        _map: Arc<MmapRaw>,
    },
    /// For tests and fuzzing, where thousands of regions are made, and where system calls are unwelcome.
    #[cfg(any(test, fuzzing, feature = "fuzzing"))]
    Heap {
        _heap: Arc<heap::HeapPages>,
    },
}

// SAFETY: the memory is not bound to a thread, lives as long as its backing, and every shared access to it is atomic
// or promised exclusive by the caller of an unsafe method.
unsafe impl Send for Mapping {}
// SAFETY: as for Send.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Where the region starts in this process. Only a side's own region may be written through it, and neither may be
    /// borrowed from it: the peer reads the one and writes the other.
    #[must_use]
    pub fn address(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// The size of the region.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes as usize
    }

    /// Appends the bytes of `range` to `out`, each as it was at some moment: the peer may be writing them.
    ///
    /// # Panics
    /// The range does not lie in the region.
    pub fn append_to(&self, range: &Range<u64>, out: &mut Vec<u8>) {
        let len = (range.end - range.start) as usize;
        let from = self.at(range.start, len as u64);
        out.reserve(len);
        // SAFETY: `from` lies in the region for `len` bytes; `out` has room for them, and holds them afterwards.
        unsafe {
            copy::copy_racy(from, out.as_mut_ptr().add(out.len()), len);
            out.set_len(out.len() + len);
        }
    }

    fn mapped(map: MmapRaw) -> io::Result<Mapping> {
        // A forked child must not reach the rings: two writers on one side would break them.
        map.advise(Advice::DontFork)?;
        let base = NonNull::new(map.as_mut_ptr()).expect("a mapping is never at address zero");
        Ok(Mapping { base, bytes: map.len() as u64, backing: Backing::Mapped { _map: Arc::new(map) } })
    }

    /// The address of `bytes` bytes at `offset`, which lie in the region.
    fn at(&self, offset: u64, bytes: u64) -> *mut u8 {
        let end = offset.checked_add(bytes).expect("offsets were checked against the region");
        assert!(end <= self.bytes, "offsets were checked against the region");
        // SAFETY: `offset` is at most the region's size, so the address stays in (or one past) the same allocation.
        unsafe { self.base.as_ptr().add(offset as usize) }
    }

    /// Makes the first `bytes` present, so that using them takes no page fault.
    fn populate(&self, bytes: u64, advice: libc::c_int) -> io::Result<()> {
        let at = self.at(0, bytes);
        // SAFETY: the range lies in the mapping; populating changes no contents.
        match unsafe { libc::madvise(at.cast(), bytes as usize, advice) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Gives the pages of `range` back.
    fn remove(&self, range: &Range<u64>) -> io::Result<()> {
        let bytes = range.end - range.start;
        let at = self.at(range.start, bytes);
        // SAFETY: the range lies in the mapping, whose bytes are plain integers: zeros are as good as any.
        match unsafe { libc::madvise(at.cast(), bytes as usize, libc::MADV_REMOVE) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// What this process may do with the pages of `range`; it can always read them.
    fn protect(&self, range: &Range<u64>, protection: libc::c_int) -> io::Result<()> {
        let bytes = range.end - range.start;
        let at = self.at(range.start, bytes);
        // SAFETY: the range lies in a mapping that is ours, and reading it stays allowed.
        match unsafe { libc::mprotect(at.cast(), bytes as usize, protection) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Whether it is a mapping of a file, as it is but in tests.
    fn is_mapped(&self) -> bool {
        matches!(self.backing, Backing::Mapped { .. })
    }

    fn word(&self, offset: u64) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4), "words of a header are aligned");
        // SAFETY: the four bytes lie in the region, are aligned (it starts on a page), live as long as `self`, and
        // both sides access header words atomically only.
        unsafe { AtomicU32::from_ptr(self.at(offset, 4).cast()) }
    }
}

impl Mapping {
    fn sequence(&self, offset: u64) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8), "descriptors are aligned");
        // SAFETY: as for `word`, of eight bytes; both sides access sequences atomically only.
        unsafe { AtomicU64::from_ptr(self.at(offset, 8).cast()) }
    }
}

impl PeerRegion {
    /// Maps `bytes` of a region read-only.
    pub(crate) fn map(fd: BorrowedFd<'_>, bytes: u64) -> io::Result<PeerRegion> {
        let map = MmapOptions::new().len(bytes as usize).map_raw_read_only(fd.as_raw_fd())?;
        Mapping::mapped(map).map(PeerRegion)
    }

    /// The memory itself.
    pub(crate) fn mapping(&self) -> &Mapping {
        &self.0
    }

    /// Gives the pages of `range` back to the system; whoever reads them finds zeros. It takes no descriptor, of which there is a limit, but
    /// a moment in which this process could write them: the kernel takes pages away only where it could.
    pub(crate) fn discard(&self, range: &Range<u64>) -> io::Result<()> {
        if !self.0.is_mapped() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.0.protect(range, libc::PROT_READ | libc::PROT_WRITE)?;
        let removed = self.0.remove(range);
        self.0.protect(range, libc::PROT_READ)?;
        removed
    }

    /// Makes the first `bytes` present for reading.
    pub(crate) fn populate(&self, bytes: u64) -> io::Result<()> {
        self.0.populate(bytes, libc::MADV_POPULATE_READ)
    }

    pub(crate) fn word(&self, offset: u64) -> PeerWord<'_> {
        PeerWord::new(self.0.word(offset))
    }

    pub(crate) fn sequence(&self, offset: u64) -> PeerSequence<'_> {
        PeerSequence::new(self.0.sequence(offset))
    }

    /// Where the word lies in this process, for the futex.
    pub(crate) fn word_address(&self, offset: u64) -> *const u32 {
        self.0.word(offset).as_ptr()
    }

    /// Asks for `lines` cache lines from `offset` on, which are read soon; those beyond the region are left out.
    pub(crate) fn prefetch(&self, offset: u64, lines: u64) {
        const LINE_BYTES: u64 = 64;
        for line in (offset..self.0.bytes).step_by(LINE_BYTES as usize).take(lines as usize) {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a hint, which reads nothing; the address lies in the region.
            unsafe {
                use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
                _mm_prefetch::<_MM_HINT_T0>(self.0.at(line, 0).cast_const().cast());
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _no_hint = line;
        }
    }

    /// Copies `N` words (of eight bytes) out, each read once.
    pub(crate) fn read_words<const N: usize>(&self, offset: u64) -> [u64; N] {
        assert!(offset.is_multiple_of(8), "descriptors are aligned");
        let from = self.0.at(offset, 8 * N as u64).cast::<u64>();
        std::array::from_fn(|index| {
            // SAFETY: the word lies in the region and is aligned. Relaxed: the ring's acquire ordered it behind the
            // peer's release; a peer that goes on writing gets its own words mixed.
            unsafe { AtomicU64::from_ptr(from.add(index)).load(Ordering::Relaxed) }
        })
    }

    /// Copies bytes out.
    pub(crate) fn copy_out(&self, offset: u64, out: &mut [u8]) {
        let from = self.0.at(offset, out.len() as u64);
        // SAFETY: `from` lies in the region for that many bytes; `out` is private.
        unsafe { copy::copy_racy(from, out.as_mut_ptr(), out.len()) }
    }

    /// Appends the bytes of `range` to `out`.
    pub(crate) fn append_to(&self, range: &Range<u64>, out: &mut Vec<u8>) {
        self.0.append_to(range, out);
    }

    /// The address of `range`, for system calls that read it.
    pub(crate) fn address(&self, range: &Range<u64>) -> (*const u8, usize) {
        let len = range.end - range.start;
        (self.0.at(range.start, len), len as usize)
    }

    /// The bytes of `range`, in place.
    ///
    /// # Safety
    /// The peer is trusted not to write them while they are borrowed.
    pub(crate) unsafe fn slice(&self, range: &Range<u64>) -> &[u8] {
        let (from, len) = self.address(range);
        // SAFETY: the range lies in the region, which lives as long as `self`; the caller vouches for the peer.
        unsafe { std::slice::from_raw_parts(from, len) }
    }
}

impl OwnRegion {
    /// Maps `bytes` of a region for reading and writing.
    pub(crate) fn map(fd: BorrowedFd<'_>, bytes: u64) -> io::Result<OwnRegion> {
        let map = MmapOptions::new().len(bytes as usize).map_raw(fd.as_raw_fd())?;
        Mapping::mapped(map).map(OwnRegion)
    }

    /// The memory itself.
    pub(crate) fn mapping(&self) -> &Mapping {
        &self.0
    }

    /// Makes the first `bytes` present for writing.
    pub(crate) fn populate(&self, bytes: u64) -> io::Result<()> {
        self.0.populate(bytes, libc::MADV_POPULATE_WRITE)
    }

    pub(crate) fn word(&self, offset: u64) -> OwnWord<'_> {
        OwnWord::new(self.0.word(offset))
    }

    pub(crate) fn sequence(&self, offset: u64) -> OwnSequence<'_> {
        OwnSequence::new(self.0.sequence(offset))
    }

    /// Where the word lies in this process, for the futex.
    pub(crate) fn word_address(&self, offset: u64) -> *const u32 {
        self.0.word(offset).as_ptr()
    }

    /// Writes bytes while the other side may be reading them; leaves out what lies beyond the region.
    #[cfg(any(test, fuzzing, feature = "fuzzing"))]
    pub(crate) fn scribble(&self, offset: u64, bytes: &[u8]) {
        for (at, byte) in (offset..self.0.bytes).zip(bytes) {
            // SAFETY: `at` lies in the region. Relaxed: this writer keeps no order on purpose.
            unsafe { std::sync::atomic::AtomicU8::from_ptr(self.0.at(at, 1)).store(*byte, Ordering::Relaxed) }
        }
    }

    /// Gives the pages of `range` back to the system; whoever reads them finds zeros.
    pub(crate) fn discard(&self, range: &Range<u64>) -> io::Result<()> {
        self.0.remove(range)
    }

    /// Writes bytes.
    ///
    /// # Safety
    /// Nothing else on this side accesses them meanwhile, and the peer was not yet given them (or is hostile, and
    /// harms only itself).
    pub(crate) unsafe fn write(&self, offset: u64, bytes: &[u8]) {
        let to = self.0.at(offset, bytes.len() as u64);
        // SAFETY: `to` lies in the region for that many bytes; the caller owns them, so `bytes` is elsewhere.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) }
    }

    /// Writes words (of eight bytes).
    ///
    /// # Safety
    /// As for [`OwnRegion::write`].
    pub(crate) unsafe fn write_words<const N: usize>(&self, offset: u64, words: [u64; N]) {
        assert!(offset.is_multiple_of(8), "descriptors are aligned");
        let to = self.0.at(offset, 8 * N as u64).cast::<[u64; N]>();
        // SAFETY: `to` lies in the region, aligned; the caller owns it.
        unsafe { to.write(words) }
    }

    /// The bytes of `range`, in place.
    ///
    /// # Safety
    /// Nothing else on this side accesses them while they are borrowed, and the peer does not write here.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn slice_mut(&self, range: &Range<u64>) -> &mut [u8] {
        let len = range.end - range.start;
        let at = self.0.at(range.start, len);
        // SAFETY: the range lies in the region, which lives as long as `self`; the caller owns it.
        unsafe { std::slice::from_raw_parts_mut(at, len as usize) }
    }
}

#[cfg(any(test, fuzzing, feature = "fuzzing"))]
mod heap {
    use super::{Backing, Mapping, OwnRegion, PeerRegion};
    use std::alloc::Layout;
    use std::ptr::NonNull;
    use std::sync::Arc;

    /// Zeroed, page-aligned heap memory in place of a mapping.
    pub(crate) struct HeapPages {
        base: NonNull<u8>,
        layout: Layout,
    }

    // SAFETY: plain memory, accessed through `Mapping` under its rules.
    unsafe impl Send for HeapPages {}
    // SAFETY: as for Send.
    unsafe impl Sync for HeapPages {}

    impl HeapPages {
        fn new(bytes: u64) -> Arc<HeapPages> {
            let layout = Layout::from_size_align(bytes as usize, 4096).expect("regions are small multiples of a page");
            // SAFETY: the size of a region is never zero.
            let base = unsafe { std::alloc::alloc_zeroed(layout) };
            let base = NonNull::new(base).unwrap_or_else(|| std::alloc::handle_alloc_error(layout));
            Arc::new(HeapPages { base, layout })
        }
    }

    impl Drop for HeapPages {
        fn drop(&mut self) {
            // SAFETY: allocated in `new` with this layout, freed once.
            unsafe { std::alloc::dealloc(self.base.as_ptr(), self.layout) }
        }
    }

    /// The two views of one region: its writer's and its reader's.
    pub(crate) fn pair(bytes: u64) -> (OwnRegion, PeerRegion) {
        let heap = HeapPages::new(bytes);
        let memory = || Mapping { base: heap.base, bytes, backing: Backing::Heap { _heap: Arc::clone(&heap) } };
        (OwnRegion(memory()), PeerRegion(memory()))
    }
}

#[cfg(any(test, fuzzing, feature = "fuzzing"))]
pub(crate) use heap::pair as heap_pair;
