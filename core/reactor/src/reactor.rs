//! The reactor: takes operations, runs turns. Composes the other files and owns the order in which they act.
//!
//! A turn: arm what could not be armed before, enter the kernel if there is a reason to, harvest, report a wake-up, fire
//! timers.
//!
//! Invariant: every live slot is armed (the kernel or the submission queue has it) or waits in `unarmed`; a slot is
//! freed by the kernel's last completion for it, or directly if it was never armed.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::os::fd::RawFd;

use io_uring::squeue;

use crate::buffers::{Buffers, Chunk};
use crate::clock;
use crate::config::{Config, HARVEST_BATCH};
use crate::counters::Counters;
use crate::error::{Refused, RefusedReason, SetupError};
use crate::kept::Table;
use crate::ops::{self, Completion, Held, Op, Outcome, cancel, message};
use crate::postbox::Postbox;
use crate::ring::{Entered, Ring, Sleep};
use crate::slots::Slots;
use crate::timers::{TimerId, Timers};
use crate::token::{Kind, OpId, Token};
use crate::waker::Waker;

/// How long a turn may wait for something to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    No,
    /// Until this time of [`Reactor::now_ns`], in nanoseconds.
    Until(u64),
    /// Until there is something.
    Forever,
}

/// A submission that found the queue full, and the kernel unwilling, and that must not be refused.
#[derive(Clone, Copy, Debug)]
enum Unarmed {
    Operation(Token),
    Cancel(Token),
    Waker,
}

/// One thread's io_uring with everything in flight on it. See the crate's description.
///
/// Bound to the thread that made it: the kernel accepts no other.
pub struct Reactor {
    // Declared first: dropped, and so closed, before the buffers are unmapped.
    pub(crate) ring: Ring,
    pub(crate) buffers: Buffers,
    pub(crate) slots: Slots,
    pub(crate) kept: Table,
    pub(crate) postbox: Postbox,
    pub(crate) counters: Counters,
    pub(crate) closing: bool,
    /// Batches that cover a full completion queue.
    pub(crate) harvest_rounds: u32,
    timers: Timers,
    waker: Waker,
    /// Quiet sends that were armed and not told of yet.
    pub(crate) quiet: Vec<Token>,
    /// At most one arming and one cancel for each slot, and the waker's.
    unarmed: VecDeque<Unarmed>,
    thread_bound: PhantomData<*const ()>,
}

impl Reactor {
    /// Makes the ring and its buffers for the calling thread.
    ///
    /// # Errors
    /// [`SetupError`] says what the host must change.
    pub fn new(config: &Config) -> Result<Reactor, SetupError> {
        config.check()?;
        let ring = Ring::new(config)?;
        let buffers = Buffers::new(config.buffer_count, config.buffer_bytes)
            .map_err(|source| SetupError::explain("mmap", source, crate::error::Host::read()))?;
        // SAFETY: `Buffers` unmaps when it is dropped; shutdown gets every operation back and unregisters before that,
        // or leaks it. Field order closes the ring first.
        unsafe { ring.register_buffers(&buffers.registration())? };
        if config.files > 0 {
            ring.register_files(config.files)?;
        }
        let waker =
            Waker::new().map_err(|source| SetupError::explain("eventfd", source, crate::error::Host::read()))?;
        let mut reactor = Reactor {
            ring,
            buffers,
            slots: Slots::new(config.operations),
            kept: Table::new(config.files),
            postbox: Postbox::new(config.entries),
            counters: Counters::default(),
            closing: false,
            harvest_rounds: config.completion_entries.div_ceil(HARVEST_BATCH as u32),
            timers: Timers::default(),
            waker,
            quiet: Vec::new(),
            unarmed: VecDeque::new(),
            thread_bound: PhantomData,
        };
        reactor.arm_waker();
        Ok(reactor)
    }

    /// `CLOCK_MONOTONIC`, in nanoseconds: the clock of timers and waits.
    pub fn now_ns() -> u64 {
        clock::now_ns()
    }

    /// Something that wakes this reactor from any thread.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// The target for another reactor's [`Op::Message`]. Open as long as this reactor lives.
    pub fn ring_fd(&self) -> RawFd {
        self.ring.fd()
    }

    /// Takes an operation. The kernel learns of it in the next turn (or earlier, when the queue is full).
    ///
    /// # Errors
    /// [`Refused`] gives the operation back.
    pub fn submit(&mut self, owner: u64, op: Op) -> Result<OpId, Refused> {
        let is_message = matches!(op, Op::Message { .. });
        let reason = if is_message && self.postbox.is_full() {
            RefusedReason::Messages
        } else if !is_message && self.slots.is_full() {
            RefusedReason::Operations
        } else if !self.make_room() {
            RefusedReason::Submissions
        } else {
            return Ok(self.start(owner, op));
        };
        self.counters.refused += 1;
        Err(Refused { op, reason })
    }

    /// Ends an operation early: no completion of it is delivered any more. What the kernel has of it, it keeps until it
    /// is done: a send's buffer is dropped then, an accepted connection closed, a received chunk recycled. A close goes
    /// on. Does nothing for an operation that is over.
    pub fn abandon(&mut self, op: OpId) {
        if op.0.kind() == Some(Kind::Posted) {
            self.postbox.take(op.0);
            return;
        }
        let Some(slot) = self.slots.get_mut(op.0) else {
            return;
        };
        if slot.abandoned {
            return;
        }
        slot.abandoned = true;
        if !slot.armed {
            // Waits in `unarmed`, where its token is dead from now on.
            self.retire(op.0);
        } else if slot.held.can_cancel() {
            self.cancel(op.0);
        }
    }

    /// Ends an operation early, and goes on delivering its completions: what had happened, then [`Outcome::Failed`] with
    /// `ECANCELED` unless it ended by itself. Unlike after [`Reactor::abandon`], nothing that was received is lost, and
    /// one hears when the kernel is done with a send's or window's memory. A close goes on. Does nothing for an operation
    /// that is over.
    pub fn interrupt(&mut self, op: OpId) {
        let Some(slot) = self.slots.get_mut(op.0) else { return };
        if slot.abandoned || slot.interrupted || !slot.held.can_cancel() {
            return;
        }
        slot.interrupted = true;
        // One that waits to be armed is cancelled right after.
        if slot.armed {
            self.cancel(op.0);
        }
    }

    /// The bytes of a chunk.
    ///
    /// # Panics
    /// If the chunk is another reactor's.
    pub fn chunk(&self, chunk: &Chunk) -> &[u8] {
        self.buffers.bytes(chunk)
    }

    /// Gives a chunk's buffer back to the kernel.
    ///
    /// # Panics
    /// If the chunk is another reactor's.
    pub fn recycle(&mut self, chunk: Chunk) {
        self.buffers.recycle(chunk);
    }

    /// Sets a timer for `at_ns` of [`Reactor::now_ns`]: [`Outcome::Timer`] in the first turn at or after it. Timers fire
    /// in the order of their times, then of being set.
    pub fn set_timer(&mut self, owner: u64, at_ns: u64) -> TimerId {
        self.timers.set(owner, at_ns)
    }

    /// Clears a timer: it does not fire any more. Does nothing if it has fired.
    pub fn clear_timer(&mut self, timer: TimerId) {
        self.timers.clear(timer);
    }

    /// Submits what was taken, waits as told for something to happen, and appends all that happened to `out`. One
    /// `io_uring_enter` at most, unless the submission queue overflows. May return early with nothing (a signal, an
    /// abandoned operation's end).
    ///
    /// # Errors
    /// The kernel's, after which the reactor should be dropped: `EBADR` means that completions were lost for want of
    /// kernel memory. What was harvested is in `out` nevertheless.
    pub fn turn(&mut self, wait: Wait, out: &mut Vec<Completion>) -> io::Result<()> {
        self.arm_unarmed();
        // A full queue may have been submitted since the last turn: what succeeded then is told before any sleep.
        let told = out.len();
        if self.ring.unsubmitted() == 0 {
            self.settle_quiet(out);
        }
        let wait = if out.len() > told { Wait::No } else { wait };
        let entered = self.enter_if_needed(wait);
        self.harvest(out);
        if self.ring.unsubmitted() == 0 {
            self.postbox.settle();
            self.settle_quiet(out);
        }
        if self.waker.gate().take() {
            self.counters.woken += 1;
            out.push(Completion { owner: 0, op: OpId::NONE, more: true, outcome: Outcome::Woken });
        }
        self.fire_timers(out);
        entered
    }

    /// Whether a turn would find something without sleeping: a completion, work in the kernel, a wake-up. Timers and
    /// unsubmitted operations do not count. No system call.
    pub fn work_pending(&self) -> bool {
        self.ring.has_completions() || self.ring.kernel_waits() || self.waker.gate().pending()
    }

    /// Totals since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Operations in flight, abandoned ones that the kernel still has included.
    pub fn operations_live(&self) -> u32 {
        self.slots.live()
    }

    /// Provided buffers that chunks hold.
    pub fn chunks_held(&self) -> u16 {
        self.buffers.held()
    }

    /// Files in the ring's own table.
    pub fn files_kept(&self) -> u32 {
        self.kept.held()
    }

    /// Timers set and neither fired nor cleared.
    pub fn timers_live(&self) -> usize {
        self.timers.live()
    }

    /// There is room for one entry in the submission queue, and for one slot or message.
    fn start(&mut self, owner: u64, op: Op) -> OpId {
        if let Op::Message { ring_fd, value } = op {
            let id = self.postbox.post(owner);
            let pushed = self.push(&message::entry(ring_fd, value, id.0));
            debug_assert!(pushed, "room was made");
            self.counters.messages_posted += 1;
            return id;
        }
        let held = Held::from_op(op, |file| self.kept.keep(&self.ring, file));
        let token = self.slots.insert(owner, held);
        self.arm(token);
        OpId(token)
    }

    /// Ends a slot, and what its operation owns.
    pub(crate) fn retire(&mut self, token: Token) {
        if let Some(Held::Watch { file, .. }) = self.slots.remove(token).map(|slot| slot.held) {
            self.kept.release(&self.ring, &file);
        }
    }

    /// Hands a slot's operation to the submission queue, or remembers to.
    pub(crate) fn arm(&mut self, token: Token) {
        let Some(slot) = self.slots.get_mut(token) else {
            return;
        };
        let entry = slot.held.entry(token, &self.buffers);
        let is_quiet = slot.held.is_quiet();
        let armed = self.push(&entry);
        if armed && is_quiet {
            self.quiet.push(token);
        }
        if let Some(slot) = self.slots.get_mut(token) {
            slot.armed = armed;
        }
        if !armed {
            self.unarmed.push_back(Unarmed::Operation(token));
        }
    }

    pub(crate) fn cancel(&mut self, token: Token) {
        if !self.push(&cancel::entry(token)) {
            self.unarmed.push_back(Unarmed::Cancel(token));
        }
    }

    pub(crate) fn cancel_all(&mut self) -> bool {
        self.push(&cancel::entry_all())
    }

    pub(crate) fn arm_waker(&mut self) {
        if !self.push(&ops::waker_entry(self.waker.bell_fd())) {
            self.unarmed.push_back(Unarmed::Waker);
        }
    }

    /// Puts an entry into the submission queue, submitting first if it is full. False: full, and the kernel takes none.
    fn push(&mut self, entry: &squeue::Entry) -> bool {
        if self.ring.is_full() {
            self.submit_now();
        }
        // SAFETY: of all entries only those of sends and receives into a window point to memory of ours: to their slot's
        // data, which lives on the heap, in a window that keeps it mapped, or for ever, is not touched while armed, and
        // is dropped when the slot is removed: after the last completion (`settle`), before the first arming, or never
        // (`shutdown` leaks it).
        unsafe { self.ring.push(entry) }
    }

    /// Submits without harvesting. An error shows again in the next turn, which reports it.
    fn submit_now(&mut self) {
        let _shown_in_the_next_turn = self.enter(Sleep::No);
    }

    /// Room for one new submission that does not overtake an older one.
    fn make_room(&mut self) -> bool {
        self.arm_unarmed();
        if self.unarmed.is_empty() && self.ring.is_full() {
            self.submit_now();
        }
        self.unarmed.is_empty() && !self.ring.is_full()
    }

    /// Arms what found the queue full before, in order, as far as there is room.
    fn arm_unarmed(&mut self) {
        for _ in 0..self.unarmed.len() {
            let Some(next) = self.unarmed.pop_front() else {
                return;
            };
            let before = self.unarmed.len();
            match next {
                Unarmed::Operation(token) => {
                    self.arm(token);
                    if self.slots.get_mut(token).is_some_and(|slot| slot.interrupted && slot.armed) {
                        self.cancel(token);
                    }
                }
                Unarmed::Cancel(token) if self.slots.get_mut(token).is_some() => self.cancel(token),
                Unarmed::Cancel(_) => {}
                Unarmed::Waker => self.arm_waker(),
            }
            if self.unarmed.len() > before {
                // Still no room, and it is now the last: bring it to the front again.
                self.unarmed.rotate_right(1);
                return;
            }
        }
    }

    fn enter_if_needed(&mut self, wait: Wait) -> io::Result<()> {
        let sleep = self.sleep_allowed(wait);
        let announced = sleep != Sleep::No;
        self.counters.parks += u64::from(announced);
        // The last look at wake-ups comes after the announcement: see `Gate`.
        let sleep = if announced && self.waker.gate().park() { sleep } else { Sleep::No };
        let needed = sleep != Sleep::No || self.ring.unsubmitted() > 0 || self.ring.kernel_waits();
        let entered = if needed { self.enter(sleep) } else { Ok(()) };
        if sleep != Sleep::No {
            self.waker.gate().unpark();
        }
        entered
    }

    /// The wait, shortened to the next timer; none if there is something to do already.
    fn sleep_allowed(&mut self, wait: Wait) -> Sleep {
        if wait == Wait::No || !self.unarmed.is_empty() || self.ring.has_completions() || self.ring.overflowed() {
            return Sleep::No;
        }
        let until_ns = match (wait, self.timers.next_ns()) {
            (Wait::Until(until_ns), Some(timer_ns)) => until_ns.min(timer_ns),
            (Wait::Until(until_ns), None) => until_ns,
            (_, Some(timer_ns)) => timer_ns,
            (_, None) => return Sleep::Forever,
        };
        match until_ns.saturating_sub(clock::now_ns()) {
            0 => Sleep::No,
            ns => Sleep::For { ns },
        }
    }

    pub(crate) fn enter(&mut self, sleep: Sleep) -> io::Result<()> {
        let before = self.ring.unsubmitted();
        let entered = self.ring.enter(sleep);
        self.counters.enters += 1;
        self.counters.submitted += u64::from(before - self.ring.unsubmitted());
        match entered? {
            Entered::Done => {}
            Entered::Interrupted => self.counters.interrupted += 1,
            Entered::Busy => self.counters.busy += 1,
        }
        Ok(())
    }

    fn fire_timers(&mut self, out: &mut Vec<Completion>) {
        if self.timers.next_ns().is_none() {
            return;
        }
        let now_ns = clock::now_ns();
        while let Some((timer, owner)) = self.timers.pop_due(now_ns) {
            self.counters.timers_fired += 1;
            out.push(Completion { owner, op: OpId::NONE, more: false, outcome: Outcome::Timer(timer) });
        }
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        self.shut_down();
    }
}
