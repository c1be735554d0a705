//! Ending the shard: first politely, then by force, and saying when nothing is left.
//!
//! Invariant: once draining, nothing is admitted; after the drain timeout nothing is begun; `Drained` is said once,
//! when no invocation and no sandbox is left. Does not know why the shard ends.

use crate::effect::{Effect, Effects, KillReason, Outcome};
use crate::engine::Engine;
use crate::sandboxes::State;
use crate::units::Nanos;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DrainPhase {
    Off,
    /// Finishing what was admitted, until then.
    Finishing(Nanos),
    /// Ending everything: functions below `functions` have an empty queue, sandboxes below `sandboxes` are dying.
    Forced {
        functions: u32,
        sandboxes: u32,
    },
    Done,
}

impl DrainPhase {
    pub(crate) fn is_on(self) -> bool {
        self != DrainPhase::Off
    }

    pub(crate) fn deadline(self) -> Option<Nanos> {
        match self {
            DrainPhase::Finishing(until) => Some(until),
            _ => None,
        }
    }
}

impl Engine {
    pub(crate) fn start_draining(&mut self) {
        if self.drain.is_on() {
            self.stats.stale_events += 1;
            return;
        }
        self.drain = DrainPhase::Finishing(self.now.saturating_add(self.limits.drain_timeout));
        // Once in the life of a shard: the one look at every function.
        for slot in 0..self.functions.capacity() {
            if self.functions.get(slot).is_some() {
                self.drop_target(slot);
                self.note_chore(slot);
            }
        }
    }

    /// Whether the polite phase has just ended.
    pub(crate) fn force_drain_if_due(&mut self) -> bool {
        if self.drain.deadline().is_none_or(|until| self.now < until) {
            return false;
        }
        self.drain = DrainPhase::Forced { functions: 0, sandboxes: 0 };
        true
    }

    /// Ends one waiting invocation or one sandbox, when by force. Whether there was one.
    pub(crate) fn sweep_one(&mut self, effects: &mut Effects) -> bool {
        let DrainPhase::Forced { mut functions, mut sandboxes } = self.drain else {
            return false;
        };
        let mut has_worked = false;
        while !has_worked && functions < self.functions.capacity() {
            match self.functions.get(functions).and_then(|function| function.waiting.front()) {
                Some(waiting) => {
                    self.give_up(waiting, Outcome::Draining, effects);
                    has_worked = true;
                }
                None => functions += 1,
            }
        }
        while !has_worked && sandboxes < self.sandboxes.end() {
            let lives = |state| !matches!(state, State::Dying { .. });
            if self.sandboxes.get(sandboxes).is_some_and(|sandbox| lives(sandbox.state)) {
                self.kill(sandboxes, KillReason::Drained, Outcome::Draining, effects);
                has_worked = true;
            }
            sandboxes += 1;
        }
        self.drain = DrainPhase::Forced { functions, sandboxes };
        has_worked
    }

    /// Says once that nothing is left.
    pub(crate) fn finish_draining(&mut self, effects: &mut Effects) {
        let is_over = matches!(self.drain, DrainPhase::Finishing(_) | DrainPhase::Forced { .. });
        if is_over && self.invocations.len() == 0 && self.sandboxes.len() == 0 {
            self.drain = DrainPhase::Done;
            effects.push(Effect::Drained);
        }
    }
}
