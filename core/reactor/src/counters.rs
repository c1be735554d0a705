//! What a reactor counts. Plain numbers: one thread writes and reads them.

/// Totals since the reactor was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// `io_uring_enter` calls.
    pub enters: u64,
    /// Times it announced to wakers that it would sleep. A [`Waker`](crate::Waker) makes at most one system call for each.
    pub parks: u64,
    /// Submission entries the kernel took.
    pub submitted: u64,
    /// Completion entries harvested.
    pub completed: u64,
    /// [`Completion`](crate::Completion)s delivered for operations (not timers, messages or wake-ups).
    pub delivered: u64,
    /// Completion entries of abandoned operations, kept from their owner.
    pub swallowed: u64,
    /// Completion entries for a slot that had already been given away.
    pub late: u64,
    /// Multishot operations that the kernel ended without an error and that were armed again.
    pub rearmed: u64,
    /// Sends that were cut short and continued.
    pub continued: u64,
    /// Turns that found completions waiting in the kernel because the queue had been full.
    pub overflowed: u64,
    /// Times the kernel refused to take submissions for now (`EAGAIN`, `EBUSY`).
    pub busy: u64,
    /// Waits cut short by a signal.
    pub interrupted: u64,
    /// Operations refused.
    pub refused: u64,
    /// Messages posted to other rings.
    pub messages_posted: u64,
    /// Messages received from other rings.
    pub messages_received: u64,
    /// Wake-ups reported.
    pub woken: u64,
    /// Timers fired.
    pub timers_fired: u64,
}
