//! What comes from outside: functions added and retired, arrivals, and clients that leave.
//!
//! Invariant: an arrival is refused with its reason or admitted, at once. Does not know what follows from an
//! admission.

use crate::effect::{Effect, Effects, KillReason, Outcome, Refusal};
use crate::engine::Engine;
use crate::event::FunctionSpec;
use crate::ids::{FunctionId, InvocationId, Origin};
use crate::invocation::{Phase, Run};
use crate::route::Function;
use crate::sandboxes::State;

impl Engine {
    pub(crate) fn function_added(&mut self, id: FunctionId, spec: FunctionSpec, effects: &mut Effects) {
        if self.functions.resolve(id).is_some() {
            self.stats.stale_events += 1;
        } else if self.functions.is_vacant(id.index) {
            self.functions.put(Function::new(id, spec));
            self.stats.functions += 1;
            if self.drain.is_on() {
                self.drop_target(id.index);
            }
            self.refresh(id.index);
        } else {
            effects.push(Effect::FunctionGone { function: id });
        }
    }

    pub(crate) fn function_retired(&mut self, id: FunctionId) {
        match self.functions.resolve(id) {
            Some(slot) if !self.functions[slot].retired => {
                self.functions[slot].retired = true;
                self.drop_target(slot);
                self.refresh(slot);
            }
            _ => self.stats.stale_events += 1,
        }
    }

    pub(crate) fn arrive(&mut self, origin: Origin, id: FunctionId, effects: &mut Effects) {
        self.stats.arrived += 1;
        match self.admit(id) {
            Ok(function) => {
                let index = self.enqueue(origin, function);
                self.stats.admitted += 1;
                effects.push(Effect::Enqueued { invocation: self.invocation_id(index), origin });
            }
            Err(reason) => self.refuse(origin, reason, effects),
        }
    }

    pub(crate) fn refuse(&mut self, origin: Origin, reason: Refusal, effects: &mut Effects) {
        self.stats.count_refused(reason);
        effects.push(Effect::Refuse { origin, reason });
    }

    /// The slot of a function that may be invoked once more.
    pub(crate) fn admit(&self, id: FunctionId) -> Result<u32, Refusal> {
        if self.drain.is_on() {
            return Err(Refusal::Draining);
        }
        let slot = self.functions.resolve(id).ok_or(Refusal::NoSuchFunction)?;
        let function = &self.functions[slot];
        if function.retired {
            return Err(Refusal::NoSuchFunction);
        }
        if function.spec.memory > self.limits.memory {
            return Err(Refusal::TooLarge);
        }
        if function.waiting.len() >= self.limits.queue_per_function {
            return Err(Refusal::QueueFull);
        }
        if self.invocations.is_full() {
            return Err(Refusal::InvocationsFull);
        }
        Ok(slot)
    }

    pub(crate) fn cancel(&mut self, id: InvocationId, effects: &mut Effects) {
        if !self.invocations.holds(id.index, id.generation) || self.invocations[id.index].answered {
            self.stats.stale_events += 1;
            return;
        }
        match self.invocations[id.index].phase {
            Phase::Queued => self.give_up(id.index, Outcome::Cancelled, effects),
            Phase::Reserved(loan) => self.cancel_reserved(id.index, loan, effects),
            Phase::Held(_) => unreachable!("a held invocation is answered"),
            Phase::Running(Run { sandbox, lane, .. }) => {
                self.answer(id.index, Outcome::Cancelled, effects);
                if !matches!(self.sandboxes[sandbox].state, State::Dying { .. }) {
                    let sandbox = self.sandbox_id(sandbox);
                    effects.push(Effect::CancelRun { sandbox, lane, invocation: id });
                }
            }
        }
    }

    /// Puts a function in the list of chores when `do_one_chore` would find something to do for it.
    pub(crate) fn note_chore(&mut self, slot: u32) {
        let is_draining = self.drain.is_on();
        let function = &mut self.functions[slot];
        let is_leaving = function.retired || is_draining;
        let has_nothing_waiting = function.waiting.is_empty();
        let has_unneeded = function.first_unneeded().is_some();
        let has_chore = function.failing > 0
            || is_leaving && has_nothing_waiting && has_unneeded
            || function.retired && has_nothing_waiting && function.sandboxes == 0 && !function.waits_for_layer();
        if has_chore && !function.has_chore {
            function.has_chore = true;
            self.chores.push_back(slot);
        }
    }

    /// Does one thing for the first function in the list of chores. Whether there was one.
    pub(crate) fn do_one_chore(&mut self, effects: &mut Effects) -> bool {
        let Some(slot) = self.chores.pop_front() else {
            return false;
        };
        let is_draining = self.drain.is_on();
        let function = &mut self.functions[slot];
        function.has_chore = false;
        if function.failing > 0 {
            self.fail_one_waiting(slot, effects);
            self.note_chore(slot);
        } else if (function.retired || is_draining) && function.waiting.is_empty() {
            if let Some(sandbox) = function.first_unneeded() {
                let reason = if is_draining { KillReason::Drained } else { KillReason::Retired };
                self.kill(sandbox, reason, Outcome::SandboxDied, effects);
            } else if function.retired && function.sandboxes == 0 && function.has_layer() {
                self.drop_layer(slot, effects);
            } else if function.retired && function.sandboxes == 0 && function.layer.is_none() {
                effects.push(Effect::FunctionGone { function: function.id });
                self.functions.take(slot);
                self.stats.functions -= 1;
            }
        }
        true
    }
}
