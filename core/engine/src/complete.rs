//! What sandboxes and those who watch them report: ready, completed, broken, gone.
//!
//! Invariant: a sandbox's claim is checked against the engine's own table before it changes anything; one that
//! cannot be true costs the sandbox its life and nobody else anything. Reports on a sandbox already told to die only
//! count for its death. Does not know how claims arrive.

use crate::effect::{Effects, KillReason, Outcome, StartKind};
use crate::engine::Engine;
use crate::event::{Lane, RunResult};
use crate::ids::{InvocationId, SandboxId};
use crate::invocation::{Phase, Run};
use crate::sandboxes::{Sandbox, State};
use crate::units::Nanos;

/// A claim to have finished an invocation.
pub(crate) struct Completion {
    pub(crate) place: Lane,
    pub(crate) result: RunResult,
    /// The driver keeps the lane.
    pub(crate) held: bool,
}

impl Engine {
    pub(crate) fn sandbox_started(&mut self, id: SandboxId, from_layer: bool) {
        let Some(index) = self.resolve_sandbox(id) else {
            return;
        };
        let sandbox = &mut self.sandboxes[index];
        if sandbox.from_layer.replace(from_layer).is_some() {
            return;
        }
        // The process says nothing yet: only `SandboxReady` makes it useful, and it may have come first.
        let slot = sandbox.function;
        self.stats.started_from_layer += u64::from(from_layer);
        self.record_start(index);
        self.expect_layer(slot, from_layer || self.functions[slot].has_layer());
    }

    /// Takes the time of a start that has come to its end for the function's profile, once both its reports are there.
    fn record_start(&mut self, index: u32) {
        let sandbox = &self.sandboxes[index];
        if let Some(from_layer) = sandbox.from_layer
            && sandbox.ready > Nanos::ZERO
        {
            let took = sandbox.ready.saturating_sub(sandbox.started);
            self.functions[sandbox.function].profile.record_start(took, from_layer);
        }
    }

    pub(crate) fn sandbox_ready(&mut self, id: SandboxId, effects: &mut Effects) {
        let Some(index) = self.resolve_sandbox(id) else {
            return;
        };
        match self.sandboxes[index].state {
            State::Starting => {
                let order = self.next_order();
                let sandbox = &mut self.sandboxes[index];
                sandbox.ready = self.now;
                sandbox.ready_order = order;
                sandbox.rest(self.now, self.clock);
                self.stats.ready += 1;
                self.record_start(index);
                self.become_state(index, State::Ready);
            }
            // A runtime says so once.
            State::Ready | State::Frozen | State::Thawing | State::Closing => self.break_off(index, effects),
            State::Dying { .. } => self.stats.stale_events += 1,
        }
    }

    pub(crate) fn completed(&mut self, completion: Completion, effects: &mut Effects) {
        let Completion { place, result, held } = completion;
        let Some(index) = self.resolve_sandbox(place.sandbox) else {
            return;
        };
        if matches!(self.sandboxes[index].state, State::Dying { .. }) {
            self.stats.stale_events += 1;
            return;
        }
        let InvocationId { index: invocation, generation } = place.invocation;
        let is_there = self.sandboxes[index].lanes.invocation(place.lane) == Some(invocation);
        if !is_there || self.invocations.generation(invocation) != generation {
            return self.break_off(index, effects);
        }
        // In a lent lane nothing was dispatched, or it has completed.
        let Phase::Running(run) = self.invocations[invocation].phase else {
            return self.break_off(index, effects);
        };
        self.end_turn(invocation, run);
        self.run_ended(invocation, run, result, effects);
        if held {
            self.hold(invocation, run, effects);
        } else {
            self.forget(invocation);
            self.free_lane(run, effects);
        }
        self.refresh(self.sandboxes[index].function);
    }

    /// Answers a run that ended, and takes its time for the function's profile.
    fn run_ended(&mut self, index: u32, run: Run, result: RunResult, effects: &mut Effects) {
        let invocation = &self.invocations[index];
        let slot = invocation.function;
        self.functions[slot].warm.succeeded();
        // One answered before was cancelled or overdue: how long it took says nothing about the function.
        if !invocation.answered {
            let outcome = match result {
                RunResult::Returned => Outcome::Returned,
                RunResult::Raised => Outcome::Raised,
            };
            self.answer(index, outcome, effects);
            if run.start == StartKind::Warm {
                let took = self.now.saturating_sub(run.dispatched);
                self.functions[slot].profile.record_warm_run(took);
            }
        }
    }

    /// Frees the lane of a run that ended, in a sandbox that lives.
    fn free_lane(&mut self, run: Run, effects: &mut Effects) {
        self.delist(run.sandbox);
        let sandbox = &mut self.sandboxes[run.sandbox];
        sandbox.lanes.release(run.lane);
        sandbox.overdue -= u16::from(run.overdue);
        sandbox.rest(self.now, self.clock);
        self.stats.running -= 1;
        self.enlist(run.sandbox);
        self.kill_if_only_overdue(run.sandbox, effects);
    }

    /// Kills a closing sandbox once no run in it is in time any more. Lent lanes do not keep it: nothing runs in them.
    pub(crate) fn kill_if_only_overdue(&mut self, index: u32, effects: &mut Effects) {
        let sandbox = &self.sandboxes[index];
        if sandbox.state == State::Closing && sandbox.lanes.in_use == sandbox.overdue + sandbox.lent {
            self.kill(index, KillReason::TimedOut, Outcome::TimedOut, effects);
        }
    }

    pub(crate) fn sandbox_broken(&mut self, id: SandboxId, effects: &mut Effects) {
        let Some(index) = self.resolve_sandbox(id) else {
            return;
        };
        if matches!(self.sandboxes[index].state, State::Dying { .. }) {
            self.stats.stale_events += 1;
            return;
        }
        self.break_off(index, effects);
    }

    /// Kills a living sandbox that lied.
    fn break_off(&mut self, index: u32, effects: &mut Effects) {
        let Sandbox { state, function: slot, has_served, .. } = self.sandboxes[index];
        self.kill(index, KillReason::Broken, Outcome::SandboxDied, effects);
        if state == State::Starting {
            self.start_failed(slot);
        } else if !has_served {
            self.warm_failed(slot);
        }
    }

    /// A sandbox is dead, or its start came to nothing: the same to everybody who waited for it.
    pub(crate) fn sandbox_gone(&mut self, id: SandboxId) {
        let Some(index) = self.resolve_sandbox(id) else {
            return;
        };
        let Sandbox { state, function: slot, has_served, .. } = self.sandboxes[index];
        match state {
            State::Dying { dead: true, .. } => {
                self.stats.stale_events += 1;
                return;
            }
            // Already in the list its lanes call for, and counted.
            State::Dying { dead: false, outcome } => {
                self.sandboxes[index].state = State::Dying { dead: true, outcome };
            }
            State::Starting | State::Ready | State::Frozen | State::Thawing | State::Closing => {
                self.become_state(index, State::Dying { dead: true, outcome: Outcome::SandboxDied });
            }
        }
        match state {
            State::Starting => self.start_failed(slot),
            State::Ready | State::Frozen | State::Thawing if !has_served => self.warm_failed(slot),
            _ => {}
        }
        if self.sandboxes[index].lanes.in_use == 0 {
            self.bury(index);
        }
    }
}
