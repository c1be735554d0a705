//! What happens because time has passed.
//!
//! Invariant: every unanswered invocation but a reserved one, whose time is its client's, and every start and thaw
//! under way has a deadline, so nothing waits for ever on a sandbox that says nothing. Does not read a clock: `now` came with the event.

use crate::effect::{Effects, KillReason, Outcome};
use crate::engine::Engine;
use crate::invocation::{Phase, Run};
use crate::sandboxes::State;

impl Engine {
    /// Does one thing whose time has come. Whether there was one.
    pub(crate) fn expire_one(&mut self, effects: &mut Effects) -> bool {
        let now = self.now.as_nanos();
        if let Some(((at, _), invocation)) = self.invocation_deadlines.first()
            && at <= now
        {
            self.expire_invocation(invocation, effects);
            return true;
        }
        if let Some(((at, _), sandbox)) = self.sandbox_deadlines.first()
            && at <= now
        {
            self.expire_sandbox(sandbox, effects);
            return true;
        }
        if let Some(((at, _), slot)) = self.layer_deadlines.first()
            && at <= now
        {
            self.stats.layers_expired += 1;
            self.drop_layer(slot, effects);
            return true;
        }
        if let Some(((at, _), slot)) = self.offered.first()
            && at <= now
        {
            self.refuse_layer(slot, effects);
            return true;
        }
        self.end_one_turn(effects)
            || self.look_at_one_idle(effects)
            || self.end_one_pause()
            || self.force_drain_if_due()
    }

    fn expire_invocation(&mut self, index: u32, effects: &mut Effects) {
        match self.invocations[index].phase {
            Phase::Queued => self.give_up(index, Outcome::TimedOut, effects),
            Phase::Running(run) => self.expire_run(index, run, effects),
            Phase::Reserved(_) | Phase::Held(_) => unreachable!("a lent lane has no deadline"),
        }
    }

    fn expire_run(&mut self, index: u32, run: Run, effects: &mut Effects) {
        self.invocation_deadlines.remove(index);
        if !self.invocations[index].answered {
            self.answer(index, Outcome::TimedOut, effects);
        }
        self.invocations[index].phase = Phase::Running(Run { overdue: true, ..run });
        let state = self.sandboxes[run.sandbox].state;
        if matches!(state, State::Dying { .. }) {
            return;
        }
        self.sandboxes[run.sandbox].overdue += 1;
        if state == State::Ready {
            self.become_state(run.sandbox, State::Closing);
        }
        self.kill_if_only_overdue(run.sandbox, effects);
    }

    fn expire_sandbox(&mut self, index: u32, effects: &mut Effects) {
        let (state, slot) = (self.sandboxes[index].state, self.sandboxes[index].function);
        if matches!(state, State::Starting | State::Thawing) {
            self.kill(index, KillReason::StartTimedOut, Outcome::SandboxDied, effects);
            if state == State::Starting {
                self.start_failed(slot);
            }
        } else if self.functions[slot].warm.needs_all() {
            self.keep(index);
        } else {
            self.kill(index, KillReason::Idle, Outcome::SandboxDied, effects);
        }
    }
}
