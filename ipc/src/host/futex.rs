//! The wake half of the down doorbell.
#![allow(unsafe_code)]

/// Wakes one waiter on a word in shared memory. One, because a runtime parks in one thread; a sandbox that parks in a
/// thousand cannot make the worker pay for them.
pub(super) fn wake_one(word: *const u32) {
    // Not FUTEX_PRIVATE: the waiter is another process, whose mapping is at another address.
    // SAFETY: the word lies in a mapping that outlives the call; FUTEX_WAKE reads no memory through it.
    let woken = unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAKE, 1) };
    debug_assert!(woken >= 0, "waking an aligned, mapped word cannot fail");
}
