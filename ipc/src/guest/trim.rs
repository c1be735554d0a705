//! Giving memory back that a guest's process has freed and its allocator has kept.
//!
//! Invariant: changes nothing that anybody can read. Does not know: allocators but that of glibc; under any other it does nothing.
#![allow(unsafe_code)]

/// Gives back every free page of the C library's heap.
pub(super) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it may be called at any time, from any thread.
    let _ = unsafe { libc::malloc_trim(0) };
}
