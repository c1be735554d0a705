//! Lanes lent to the driver: reserved for a payload that is still arriving, or held while an answer is being sent.
//!
//! Invariant: a lent lane is in use like one that runs, but has no deadline here; the driver is asked for each at most
//! once, and only while somebody waits for what it occupies. Reserved lanes count as running for the concurrency
//! policy, because a commit is dispatched at once; held ones do not, since nothing runs in them. Does not know what is
//! copied when a lane is given back, nor how slow the client is that it was lent for.
//!
//! Who waits for a lane is served by asking for a lent one before a sandbox is started: the driver gives a lane back
//! for the price of a copy, within the turn in which it is asked, where a start takes milliseconds and memory. A lane
//! asked for therefore counts as coming; should the driver commit instead, the shortage shows and a start follows.

use crate::effect::{Effect, Effects, Outcome, StartKind};
use crate::engine::Engine;
use crate::event::Lane;
use crate::heap::Key;
use crate::ids::{FunctionId, InvocationId, Origin};
use crate::invocation::{Invocation, Loan, Phase, Recall, Run};
use crate::list::Links;
use crate::sandboxes::State;
use crate::units::Nanos;

/// The first part of a key in `Engine::lent_order`: reserved lanes before held ones, because they alone give back a
/// place to run.
const RESERVED: u64 = 0;
const HELD: u64 = 1;

impl Engine {
    pub(crate) fn reserve(&mut self, origin: Origin, id: FunctionId, effects: &mut Effects) {
        let slot = match self.admit(id) {
            Ok(slot) => slot,
            Err(reason) => {
                self.stats.arrived += 1;
                return self.refuse(origin, reason, effects);
            }
        };
        let Some(sandbox) = self.sandbox_to_reserve(slot) else {
            return effects.push(Effect::NotReserved { origin });
        };
        self.stats.arrived += 1;
        self.stats.admitted += 1;
        let order = self.next_order();
        let loan = Loan { sandbox, lane: 0, recall: Recall::Open };
        let index = self.invocations.insert(Invocation {
            origin,
            function: slot,
            order,
            arrived: self.now,
            answered: false,
            phase: Phase::Reserved(loan),
            links: Links::ALONE,
        });
        self.delist(sandbox);
        let lane = self.sandboxes[sandbox].lanes.take(index);
        self.enlist(sandbox);
        self.lend(index, Phase::Reserved(Loan { lane, ..loan }), (RESERVED, order));
        effects.push(Effect::Reserved {
            invocation: self.invocation_id(index),
            origin,
            sandbox: self.sandbox_id(sandbox),
            lane,
        });
    }

    /// A sandbox with a lane that nobody who already waits could use.
    fn sandbox_to_reserve(&self, slot: u32) -> Option<u32> {
        let function = &self.functions[slot];
        // With work left over, others may be about to take the last place.
        let is_wanted = !function.waiting.is_empty() || self.runnable.first().is_some();
        if is_wanted || !self.has_place() { None } else { function.next_sandbox() }
    }

    pub(crate) fn commit(&mut self, id: InvocationId, effects: &mut Effects) {
        let Some((index, Loan { sandbox, lane, .. })) = self.resolve_reserved(id) else {
            return;
        };
        match self.sandboxes[sandbox].state {
            State::Ready => {}
            // It waits only for runs begun in time; this one would keep an overdue lane alive.
            State::Closing => {
                self.unreserve(index, effects);
                return self.give_back(index, effects);
            }
            // `end_one_lane` is about to say what becomes of it.
            State::Dying { .. } => {
                self.stats.stale_events += 1;
                return;
            }
            State::Starting | State::Frozen | State::Thawing => unreachable!("a lane is in use, so it is ready"),
        }
        self.unlend(index);
        self.sandboxes[sandbox].has_served = true;
        let start = StartKind::Warm;
        let turn = self.begin_turn(index, sandbox, effects);
        let run = Run { sandbox, lane, dispatched: self.now, start, overdue: false, turn };
        let invocation = &mut self.invocations[index];
        invocation.arrived = self.now;
        invocation.phase = Phase::Running(run);
        let (origin, order, slot) = (invocation.origin, invocation.order, invocation.function);
        let function = &mut self.functions[slot];
        function.uses = function.uses.saturating_add(1);
        let deadline = self.now.saturating_add(function.spec.timeout);
        self.invocation_deadlines.set(index, (deadline.as_nanos(), order));
        self.stats.running += 1;
        self.stats.dispatched_warm += 1;
        self.refresh(slot);
        let sandbox = self.sandbox_id(sandbox);
        let (queued, starting) = (Nanos::ZERO, Nanos::ZERO);
        effects.push(Effect::Dispatch { invocation: id, origin, sandbox, lane, start, queued, starting, deadline });
    }

    pub(crate) fn yielded(&mut self, id: InvocationId, effects: &mut Effects) {
        if let Some((index, loan)) = self.resolve_reserved(id) {
            self.withdraw(index);
            self.give_back_unless_dying(index, loan, effects);
        }
    }

    pub(crate) fn cancel_reserved(&mut self, index: u32, loan: Loan, effects: &mut Effects) {
        self.answer(index, Outcome::Cancelled, effects);
        self.give_back_unless_dying(index, loan, effects);
    }

    pub(crate) fn released(&mut self, lane: Lane, effects: &mut Effects) {
        let Some(sandbox) = self.resolve_sandbox(lane.sandbox) else {
            return;
        };
        let InvocationId { index, generation } = lane.invocation;
        let is_there = self.sandboxes[sandbox].lanes.invocation(lane.lane) == Some(index)
            && self.invocations.generation(index) == generation;
        match self.sandboxes[sandbox].state {
            State::Ready | State::Closing if is_there && matches!(self.invocations[index].phase, Phase::Held(_)) => {
                self.give_back(index, effects);
            }
            _ => self.stats.stale_events += 1,
        }
    }

    /// Lends the lane of a run that ended to the driver, in a sandbox that lives.
    pub(crate) fn hold(&mut self, index: u32, run: Run, effects: &mut Effects) {
        self.invocation_deadlines.remove(index);
        self.sandboxes[run.sandbox].overdue -= u16::from(run.overdue);
        self.stats.running -= 1;
        let order = self.next_order();
        let loan = Loan { sandbox: run.sandbox, lane: run.lane, recall: Recall::Open };
        self.lend(index, Phase::Held(loan), (HELD, order));
        self.kill_if_only_overdue(run.sandbox, effects);
    }

    /// Says that a reservation is over and nothing of it has run.
    pub(crate) fn unreserve(&mut self, index: u32, effects: &mut Effects) {
        let (invocation, origin) = (self.invocation_id(index), self.invocations[index].origin);
        self.withdraw(index);
        effects.push(Effect::Unreserved { invocation, origin });
    }

    fn withdraw(&mut self, index: u32) {
        let invocation = &mut self.invocations[index];
        assert!(!invocation.answered, "an answered invocation was about to be withdrawn");
        invocation.answered = true;
        self.stats.withdrawn += 1;
    }

    fn resolve_reserved(&mut self, id: InvocationId) -> Option<(u32, Loan)> {
        if self.invocations.holds(id.index, id.generation) {
            let invocation = &self.invocations[id.index];
            if let (Phase::Reserved(loan), false) = (invocation.phase, invocation.answered) {
                return Some((id.index, loan));
            }
        }
        self.stats.stale_events += 1;
        None
    }

    fn give_back_unless_dying(&mut self, index: u32, loan: Loan, effects: &mut Effects) {
        // The lanes of a dying sandbox are freed one by one, by `end_one_lane`.
        if !matches!(self.sandboxes[loan.sandbox].state, State::Dying { .. }) {
            self.give_back(index, effects);
        }
    }

    /// Frees a lent lane of a sandbox that lives, and forgets its invocation.
    fn give_back(&mut self, index: u32, effects: &mut Effects) {
        let slot = self.invocations[index].function;
        let Loan { sandbox, lane, .. } = self.unlend(index);
        self.forget(index);
        self.delist(sandbox);
        self.sandboxes[sandbox].lanes.release(lane);
        self.sandboxes[sandbox].rest(self.now, self.clock);
        self.enlist(sandbox);
        self.kill_if_only_overdue(sandbox, effects);
        self.refresh(slot);
    }

    fn lend(&mut self, index: u32, phase: Phase, key: Key) {
        let (loan, gauge) = match phase {
            Phase::Reserved(loan) => (loan, &mut self.stats.reserved),
            Phase::Held(loan) => (loan, &mut self.stats.held),
            Phase::Queued | Phase::Running(_) => unreachable!("only reserved and held lanes are lent"),
        };
        *gauge += 1;
        self.sandboxes[loan.sandbox].lent += 1;
        self.invocations[index].phase = phase;
        let slot = self.invocations[index].function;
        self.functions[slot].lent.push_back(&mut self.invocations, index);
        self.lent_order.set(index, key);
        self.refresh(slot);
    }

    /// The inverse of `lend`, without a look at what follows for its function.
    pub(crate) fn unlend(&mut self, index: u32) -> Loan {
        let (loan, gauge) = match self.invocations[index].phase {
            Phase::Reserved(loan) => (loan, &mut self.stats.reserved),
            Phase::Held(loan) => (loan, &mut self.stats.held),
            Phase::Queued | Phase::Running(_) => unreachable!("only a lent lane is given back"),
        };
        *gauge -= 1;
        self.sandboxes[loan.sandbox].lent -= 1;
        let function = &mut self.functions[self.invocations[index].function];
        match loan.recall {
            Recall::Open => {
                function.lent.remove(&mut self.invocations, index);
                self.lent_order.remove(index);
            }
            Recall::Asked => {
                function.asked -= 1;
                self.asked -= 1;
            }
            Recall::Pointless => {}
        }
        loan
    }

    /// Asks for the oldest lent lane of the first function that is short of lanes and has lent some. Whether there was
    /// one.
    pub(crate) fn recall_one(&mut self, effects: &mut Effects) -> bool {
        let Some((_, slot)) = self.wanting.first() else {
            return false;
        };
        let oldest = self.functions[slot].lent.front().expect("a function that wants lanes back has lent some");
        self.recall(oldest, effects);
        true
    }

    /// Asks for the oldest reserved lane of the shard, for the place to run that it takes. One at a time: whether the
    /// next is needed shows when the driver has answered.
    pub(crate) fn recall_for_place(&mut self, effects: &mut Effects) -> bool {
        match self.lent_order.first() {
            Some(((RESERVED, _), index)) if self.asked == 0 => {
                self.recall(index, effects);
                true
            }
            _ => false,
        }
    }

    /// Asks for a lent lane of the shard, for the room that its sandbox takes. One at a time.
    pub(crate) fn recall_for_room(&mut self, effects: &mut Effects) -> bool {
        match self.lent_order.first() {
            Some((_, index)) if self.asked == 0 => {
                self.recall(index, effects);
                true
            }
            _ => false,
        }
    }

    fn recall(&mut self, index: u32, effects: &mut Effects) {
        let slot = self.invocations[index].function;
        self.functions[slot].lent.remove(&mut self.invocations, index);
        self.lent_order.remove(index);
        let (Phase::Reserved(loan) | Phase::Held(loan)) = &mut self.invocations[index].phase else {
            unreachable!("only lent lanes are in the lists of lent ones")
        };
        // A closing sandbox takes no more, and is killed when its last run in time ends; a dying one is ending.
        let is_useful = self.sandboxes[loan.sandbox].state == State::Ready;
        loan.recall = if is_useful { Recall::Asked } else { Recall::Pointless };
        let (sandbox, lane) = (loan.sandbox, loan.lane);
        if is_useful {
            self.functions[slot].asked += 1;
            self.asked += 1;
            self.stats.reclaimed += 1;
            let (invocation, sandbox) = (self.invocation_id(index), self.sandbox_id(sandbox));
            effects.push(Effect::Reclaim { invocation, sandbox, lane });
        }
        self.refresh(slot);
    }
}
