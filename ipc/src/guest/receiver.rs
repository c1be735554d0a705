//! The receiving half of a guest: takes submissions, waits for them.
//!
//! Invariant: a slot is given back as soon as it was read; what rode in it lives on in the lane's private memory.
#![allow(unsafe_code)]

use super::clock::default_spin_cap;
use super::invocation::{Invocation, Part};
use super::shared::{Lane, Lanes, Regions};
use super::trim;
use crate::doorbell;
use crate::layout::{
    DESCRIPTOR_BYTES, SANDBOX_PARKED_OFFSET, SEQUENCE_OFFSET, SLOT_STRIDE_BYTES, SUBMISSION_HEAD_OFFSET,
    SUBMISSION_TAIL_OFFSET, SubmissionDescriptor, inline_lines, submission_kind,
};
use crate::ring::Consumer;
use crate::spin::SpinBudget;
use nix::errno::Errno;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
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
    regions: Arc<Regions>,
    /// Taken from by this receiver alone.
    private: Arc<Lanes>,
    ring: Consumer,
    /// The lines behind the descriptor that the last invocation took, up to a few: the next will likely take as many.
    lines: u64,
    spin: SpinBudget,
}

impl Receiver {
    pub(super) fn new(regions: Arc<Regions>, private: Arc<Lanes>, start: u32) -> Receiver {
        let ring = Consumer::new(regions.geometry.submission_entries(), start);
        // Relaxed: the worker learns of this sandbox by the completion that says Ready.
        regions.up.word(SUBMISSION_HEAD_OFFSET).store(start, Ordering::Relaxed);
        Receiver { regions, private, ring, lines: 0, spin: SpinBudget::new(default_spin_cap()) }
    }

    /// The invocations that may run at once.
    #[must_use]
    pub fn lanes(&self) -> u32 {
        self.regions.geometry.lanes()
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
        loop {
            let (slot, descriptor) = self.peek()?;
            if descriptor.kind != submission_kind::TRIM {
                return Some(self.take(slot, &descriptor));
            }
            self.trim();
        }
    }

    /// The next submission if there is one and it starts nothing: for a runtime that is busy but wants its advice.
    pub fn poll_advice(&mut self) -> Option<Next> {
        let (slot, descriptor) = loop {
            let (slot, descriptor) = self.peek()?;
            if descriptor.kind != submission_kind::TRIM {
                break (slot, descriptor);
            }
            self.trim();
        };
        (descriptor.kind != submission_kind::INVOKE).then(|| self.take(slot, &descriptor))
    }

    /// The oldest submission, left where it is.
    fn peek(&mut self) -> Option<(u32, SubmissionDescriptor)> {
        let start = self.regions.geometry.submission_slot(self.ring.slot());
        let slot = self.ring.poll(self.regions.down.sequence(start + SEQUENCE_OFFSET))?;
        let words = self.regions.down.read_words(start);
        Some((slot, SubmissionDescriptor::from_words(words)))
    }

    /// Follows advice that is no business of the runtime's.
    fn trim(&mut self) {
        self.release();
        trim::give_back();
    }

    fn release(&mut self) {
        self.ring.advance();
        self.ring.release(self.regions.up.word(SUBMISSION_HEAD_OFFSET));
    }

    fn take(&mut self, slot: u32, descriptor: &SubmissionDescriptor) -> Next {
        let next = match descriptor.kind {
            submission_kind::INVOKE => Next::Invoke(self.open(slot, descriptor)),
            submission_kind::CANCEL => Next::Cancel { invocation: descriptor.invocation, lane: descriptor.lane },
            submission_kind::STOP => Next::Stop,
            unknown => panic!("the worker sent a submission of the unknown kind {unknown}; use its release's runtime"),
        };
        self.release();
        next
    }

    fn open(&mut self, slot: u32, descriptor: &SubmissionDescriptor) -> Invocation {
        let start = self.regions.geometry.submission_slot(slot);
        let metadata_end = descriptor.metadata_offset + u64::from(descriptor.metadata_bytes);
        let metadata = descriptor.metadata_offset..metadata_end;
        let payload = descriptor.payload_offset..descriptor.payload_offset + descriptor.payload_bytes;
        self.lines = inline_lines(start, [&metadata, &payload]);
        // SAFETY: there is one receiver, borrowed mutably.
        let mut lane = unsafe { self.private.take(descriptor.lane) };
        lane.id = descriptor.invocation;
        lane.deadline_ns = descriptor.deadline_ns;
        lane.archive = self.locate(&mut lane, start, metadata);
        lane.payload = self.locate(&mut lane, start, payload);
        Invocation::new(lane)
    }

    /// Copies a part that rides in the slot; leaves one that lies in the lane.
    fn locate(&self, lane: &mut Lane, start: u64, part: Range<u64>) -> Part {
        let in_slot = start + DESCRIPTOR_BYTES;
        if !(in_slot..start + SLOT_STRIDE_BYTES).contains(&part.start) {
            return Part::Lane(part);
        }
        let range = (part.start - in_slot) as usize..(part.end - in_slot) as usize;
        self.regions.down.copy_out(part.start, &mut lane.request.0[range.clone()]);
        Part::Slot(range)
    }

    fn is_filled(&self) -> bool {
        let start = self.regions.geometry.submission_slot(self.ring.slot());
        // Before the look, so that the message's lines are fetched together.
        self.regions.down.prefetch(start + DESCRIPTOR_BYTES, self.lines);
        self.ring.is_filled(self.regions.down.sequence(start + SEQUENCE_OFFSET))
    }

    /// Returns when there may be something: spins for the budget, then parks.
    fn wait(&mut self) {
        if self.spin.never_spins() {
            return self.park();
        }
        let budget = self.spin.get();
        // The first looks come before the clock, whose reading costs as much as several of them.
        if !budget.is_zero() && self.look_often() {
            return;
        }
        let started = Instant::now();
        while started.elapsed() < budget {
            if self.look_often() {
                return;
            }
        }
        self.park();
        self.spin.slept_after(started.elapsed());
    }

    /// Whether something came within a few looks.
    fn look_often(&self) -> bool {
        const LOOKS: u32 = 32;
        for _ in 0..LOOKS {
            if self.is_filled() {
                return true;
            }
            std::hint::spin_loop();
        }
        false
    }

    /// Sleeps until there may be something.
    fn park(&mut self) {
        doorbell::announce(self.regions.up.word(SANDBOX_PARKED_OFFSET), 1);
        let empty = self.ring.look(self.regions.down.word(SUBMISSION_TAIL_OFFSET));
        if empty.expect("the worker's tail is one that a worker writes") {
            self.sleep();
        }
        doorbell::retract(self.regions.up.word(SANDBOX_PARKED_OFFSET));
    }

    /// Sleeps until woken, unless the tail is not the head any more: the kernel compares under its own lock.
    fn sleep(&self) {
        let word = self.regions.down.word_address(SUBMISSION_TAIL_OFFSET);
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
