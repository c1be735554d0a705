//! The receiving half of a guest: takes submissions, waits for them.
//!
//! Invariant: a slot is given back as soon as it was read; what rode in it lives on in the lane's private memory.
#![allow(unsafe_code)]

use super::invocation::{Invocation, Part};
use super::shared::{Scratch, Shared};
use super::spin::{SpinBudget, default_spin_cap};
use crate::doorbell;
use crate::layout::{
    DESCRIPTOR_BYTES, SANDBOX_PARKED_OFFSET, SLOT_STRIDE_BYTES, SUBMISSION_HEAD_OFFSET, SUBMISSION_TAIL_OFFSET,
    SubmissionDescriptor, submission_kind,
};
use crate::ring::Consumer;
use nix::errno::Errno;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the worker asks next.
pub enum Next {
    /// Run this.
    Invoke(Invocation),
    /// Advice: nobody waits for this any more. It must be answered all the same.
    Cancel {
        /// Which.
        invocation: u64,
        /// Where it runs (or ran: advice may come late).
        lane: u32,
    },
    /// Finish what runs, then exit.
    Stop,
}

/// Takes submissions. One per sandbox.
pub struct Receiver {
    shared: Arc<Shared>,
    ring: Consumer,
    spin: SpinBudget,
}

impl Receiver {
    pub(super) fn new(shared: Arc<Shared>, start: u32) -> Receiver {
        let ring = Consumer::new(shared.geometry.submission_entries(), start);
        ring.release(shared.up.word(SUBMISSION_HEAD_OFFSET));
        Receiver { shared, ring, spin: SpinBudget::new(default_spin_cap()) }
    }

    /// The invocations that may run at once.
    #[must_use]
    pub fn lanes(&self) -> u32 {
        self.shared.geometry.lanes()
    }

    /// See [`super::Guest::set_spin_cap`].
    pub fn set_spin_cap(&mut self, cap: Duration) {
        self.spin = SpinBudget::new(cap);
    }

    /// The next submission, spinning and then sleeping until there is one.
    // Not an iterator: it never ends, and it sleeps.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Next {
        loop {
            if let Some(next) = self.poll() {
                return next;
            }
            self.wait();
        }
    }

    /// The next submission if there is one.
    pub fn poll(&mut self) -> Option<Next> {
        let (slot, descriptor) = self.peek()?;
        Some(self.take(slot, &descriptor))
    }

    /// The next submission if there is one and it starts nothing: for a runtime that is busy but wants its advice.
    pub fn poll_advice(&mut self) -> Option<Next> {
        let (slot, descriptor) = self.peek()?;
        (descriptor.kind != submission_kind::INVOKE).then(|| self.take(slot, &descriptor))
    }

    /// The oldest submission, left where it is.
    fn peek(&mut self) -> Option<(u32, SubmissionDescriptor)> {
        let polled = self.ring.poll(self.shared.down.word(SUBMISSION_TAIL_OFFSET));
        let slot = polled.expect("the worker's tail is one that a worker writes")?;
        let words = self.shared.down.read_words(self.shared.geometry.submission_slot(slot));
        Some((slot, SubmissionDescriptor::from_words(words)))
    }

    fn take(&mut self, slot: u32, descriptor: &SubmissionDescriptor) -> Next {
        let next = match descriptor.kind {
            submission_kind::INVOKE => Next::Invoke(self.open(slot, descriptor)),
            submission_kind::CANCEL => Next::Cancel { invocation: descriptor.invocation, lane: descriptor.lane },
            submission_kind::STOP => Next::Stop,
            unknown => panic!("the worker sent a submission of the unknown kind {unknown}; use its release's runtime"),
        };
        self.ring.advance();
        self.ring.release(self.shared.up.word(SUBMISSION_HEAD_OFFSET));
        next
    }

    fn open(&self, slot: u32, descriptor: &SubmissionDescriptor) -> Invocation {
        let mut scratch = self.shared.take(descriptor.lane);
        let metadata = self.locate(&mut scratch, slot, descriptor.metadata_offset, descriptor.metadata_bytes.into());
        let payload = self.locate(&mut scratch, slot, descriptor.payload_offset, descriptor.payload_bytes);
        Invocation::new(Arc::clone(&self.shared), descriptor, scratch, metadata, payload)
    }

    /// Copies a part that rides in the slot; leaves one that lies in the lane.
    fn locate(&self, scratch: &mut Scratch, slot: u32, offset: u64, bytes: u64) -> Part {
        let start = self.shared.geometry.submission_slot(slot) + DESCRIPTOR_BYTES;
        if !(start..start - DESCRIPTOR_BYTES + SLOT_STRIDE_BYTES).contains(&offset) {
            return Part::Lane(offset..offset + bytes);
        }
        let at = (offset - start) as usize;
        let range = at..at + bytes as usize;
        self.shared.down.copy_out(offset, &mut scratch.request.0[range.clone()]);
        Part::Slot(range)
    }

    fn is_empty(&self) -> bool {
        self.ring.is_empty(self.shared.down.word(SUBMISSION_TAIL_OFFSET))
    }

    /// Returns when there may be something: spins for the budget, then parks.
    fn wait(&mut self) {
        let started = Instant::now();
        if self.spin_for(started, self.spin.get()) {
            return;
        }
        let parked = self.shared.up.word(SANDBOX_PARKED_OFFSET);
        doorbell::announce(parked);
        if self.is_empty() {
            self.sleep();
        }
        doorbell::retract(parked);
        self.spin.parked_after(started.elapsed());
    }

    /// Whether something came within the budget.
    fn spin_for(&self, started: Instant, budget: Duration) -> bool {
        /// Looks between two readings of the clock, which cost as much as several looks.
        const LOOKS: u32 = 32;
        while started.elapsed() < budget {
            for _ in 0..LOOKS {
                if !self.is_empty() {
                    return true;
                }
                std::hint::spin_loop();
            }
        }
        false
    }

    /// Sleeps until woken, unless the tail is not the head any more: the kernel compares under its own lock.
    fn sleep(&self) {
        let word = self.shared.down.word_address(SUBMISSION_TAIL_OFFSET);
        let forever = std::ptr::null::<libc::timespec>();
        // Not FUTEX_PRIVATE: the waker is another process. The word's page is mapped read-only, which waiting allows.
        // SAFETY: the word lies in a mapping that outlives the call.
        let slept = unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAIT, self.ring.head(), forever) };
        if slept != 0 {
            let errno = Errno::last();
            assert!(matches!(errno, Errno::EAGAIN | Errno::EINTR), "waiting for the worker failed: {errno}");
        }
    }
}
