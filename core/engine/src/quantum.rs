//! Which sandboxes give way: one in which a run has taken longer than a quantum is demoted, until it is given another run.
//!
//! Invariant: while the policy has a quantum, every run is watched from its dispatch on; a sandbox with a run that is past it is demoted, and
//! one is promoted before it is given a run that finds no such run in it. Does not know what being demoted means to a sandbox.
//!
//! Runs are watched in the order in which they began, so that beginning and ending one costs the same however many there are.

use crate::effect::{Effect, Effects};
use crate::engine::Engine;
use crate::invocation::{Phase, Run};
use crate::sandboxes::State;
use crate::units::Nanos;

/// How far a run is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Turn {
    /// The policy has no quantum.
    Unwatched,
    /// Within it: in the engine's `fresh` list.
    Fresh,
    /// Past it: counted in its sandbox's `long`.
    Long,
}

impl Engine {
    /// A run begins; its place in its sandbox is taken.
    pub(crate) fn begin_turn(&mut self, index: u32, sandbox_index: u32, effects: &mut Effects) -> Turn {
        if self.policies.quantum.is_none() {
            return Turn::Unwatched;
        }
        self.fresh.push_back(&mut self.invocations, index);
        let sandbox = &mut self.sandboxes[sandbox_index];
        if sandbox.is_demoted && sandbox.long == 0 {
            sandbox.is_demoted = false;
            effects.push(Effect::Promote { sandbox: self.sandbox_id(sandbox_index) });
        }
        Turn::Fresh
    }

    /// It has ended, one way or another.
    pub(crate) fn end_turn(&mut self, index: u32, run: Run) {
        match run.turn {
            Turn::Unwatched => {}
            Turn::Fresh => self.fresh.remove(&mut self.invocations, index),
            Turn::Long => self.sandboxes[run.sandbox].long -= 1,
        }
    }

    /// When the oldest of those within their quantum is past it.
    pub(crate) fn turn_over(&self) -> Option<Nanos> {
        let Phase::Running(run) = self.invocations[self.fresh.front()?].phase else {
            unreachable!("only runs are fresh")
        };
        Some(run.dispatched.saturating_add(self.policies.quantum?))
    }

    /// Demotes the sandbox of one run that is past its quantum. Whether there was one.
    pub(crate) fn end_one_turn(&mut self, effects: &mut Effects) -> bool {
        let Some(index) = self.fresh.front().filter(|_| self.turn_over().is_some_and(|at| at <= self.now)) else {
            return false;
        };
        self.fresh.remove(&mut self.invocations, index);
        let Phase::Running(run) = &mut self.invocations[index].phase else { unreachable!("only runs are fresh") };
        run.turn = Turn::Long;
        let sandbox_index = run.sandbox;
        let sandbox = &mut self.sandboxes[sandbox_index];
        sandbox.long += 1;
        let is_dying = matches!(sandbox.state, State::Dying { .. });
        if !core::mem::replace(&mut sandbox.is_demoted, true) && !is_dying {
            self.stats.demoted += 1;
            effects.push(Effect::Demote { sandbox: self.sandbox_id(sandbox_index) });
        }
        true
    }
}
