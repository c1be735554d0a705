//! Copying memory that another process may write at the same time.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Copies `len` bytes out of memory that a peer may be writing. Each byte is one that was there at some moment.
///
/// # Safety
/// `from` is valid for reads and `to` for writes of `len` bytes, and `to` is private to the caller. The memory at
/// `from` is written, if at all, from another process or by atomics.
pub(super) unsafe fn copy_racy(mut from: *const u8, mut to: *mut u8, mut len: usize) {
    const WORD: usize = size_of::<u64>();
    while len > 0 && !from.cast::<u64>().is_aligned() {
        // SAFETY: at least one byte is left of both; see the function's contract.
        unsafe {
            *to = load_byte(from);
            (from, to) = (from.add(1), to.add(1));
        }
        len -= 1;
    }
    while len >= WORD {
        // SAFETY: at least one word is left of both, and `from` is aligned. Relaxed: the ring's acquire ordered this
        // copy behind the peer's writes; a peer that goes on writing gets its own bytes mixed.
        unsafe {
            let word = AtomicU64::from_ptr(from.cast_mut().cast()).load(Ordering::Relaxed);
            to.cast::<u64>().write_unaligned(word);
            (from, to) = (from.add(WORD), to.add(WORD));
        }
        len -= WORD;
    }
    while len > 0 {
        // SAFETY: as above.
        unsafe {
            *to = load_byte(from);
            (from, to) = (from.add(1), to.add(1));
        }
        len -= 1;
    }
}

/// # Safety
/// `from` is valid for reads of one byte.
unsafe fn load_byte(from: *const u8) -> u8 {
    // SAFETY: the caller's promise; bytes are always aligned. Relaxed: as for the words.
    unsafe { AtomicU8::from_ptr(from.cast_mut()).load(Ordering::Relaxed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alignment_and_length_is_copied_exactly() {
        let from: Vec<u8> = (0..100).collect();
        for start in 0..16 {
            for len in 0..64 {
                let mut to = [0xEE; 80];
                // SAFETY: both ranges lie in their arrays; nobody else knows them.
                unsafe { copy_racy(from.as_ptr().add(start), to.as_mut_ptr().add(start % 3), len) };
                assert_eq!(to[start % 3..][..len], from[start..][..len]);
                assert!(to[start % 3 + len..].iter().all(|byte| *byte == 0xEE));
            }
        }
    }
}
