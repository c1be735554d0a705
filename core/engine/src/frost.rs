//! What is done with idle sandboxes: they are advised to give memory back, frozen, and thawed for those who wait.
//!
//! Invariant: only a sandbox with every lane free is frozen, and nothing is dispatched to it before the driver has said that
//! it is thawed. A frozen one stays idle in the keep-alive policy's eyes: it expires, is evicted and is within a warm target
//! as if it were awake. A lane that is free is taken before a frozen sandbox is thawed, and a frozen one is thawed before
//! another is started. Does not know what freezing is, nor what a frozen sandbox costs.
//!
//! The time for either is looked at when it comes, not moved at every use: a warm invocation pays nothing.

use crate::effect::{Effect, Effects};
use crate::engine::Engine;
use crate::ids::SandboxId;
use crate::sandboxes::State;
use crate::units::Nanos;

/// What becomes of a sandbox that stays idle, in this order if both are due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum IdleStep {
    Trim,
    Freeze,
}

/// A step, and when it is due.
pub(crate) struct Due {
    pub(crate) at: Nanos,
    step: IdleStep,
}

impl Engine {
    /// Has an idle sandbox looked at when something may be done with it, unless it is before.
    pub(crate) fn watch_idle(&mut self, index: u32) {
        let Some(due) = self.idle_step(index) else {
            return;
        };
        let at = due.at.as_nanos();
        // An earlier look finds out that it is too early; a later one, for what comes after what was done before, would be late.
        if self.idle_looks.key(index).is_none_or(|(look, _)| look > at) {
            self.idle_looks.set(index, (at, u64::from(index)));
        }
    }

    /// What is to be done next with a sandbox if it stays idle.
    pub(crate) fn idle_step(&self, index: u32) -> Option<Due> {
        let sandbox = &self.sandboxes[index];
        let spec = &self.functions[sandbox.function].spec;
        let trim = spec.trim_after.filter(|_| !sandbox.is_trimmed).map(|after| (after, IdleStep::Trim));
        let freeze = spec.freeze_after.filter(|_| sandbox.may_freeze).map(|after| (after, IdleStep::Freeze));
        let (after, step) = [trim, freeze].into_iter().flatten().min_by_key(|(after, _)| *after)?;
        Some(Due { at: sandbox.idle_since.saturating_add(after), step })
    }

    /// Looks at one sandbox that may have been idle for long enough. Whether there was one.
    pub(crate) fn look_at_one_idle(&mut self, effects: &mut Effects) -> bool {
        let Some((_, index)) = self.idle_looks.first().filter(|((at, _), _)| *at <= self.now.as_nanos()) else {
            return false;
        };
        self.idle_looks.remove(index);
        let sandbox = &self.sandboxes[index];
        if sandbox.state != State::Ready || sandbox.lanes.in_use > 0 {
            // Watched again when it is idle again.
            return true;
        }
        match self.idle_step(index).filter(|due| due.at <= self.now) {
            None => self.watch_idle(index),
            Some(Due { step: IdleStep::Trim, .. }) => {
                self.sandboxes[index].is_trimmed = true;
                self.stats.trimmed += 1;
                effects.push(Effect::Trim { sandbox: self.sandbox_id(index) });
                self.watch_idle(index);
            }
            Some(Due { step: IdleStep::Freeze, .. }) => {
                self.become_state(index, State::Frozen);
                self.stats.froze += 1;
                effects.push(Effect::Freeze { sandbox: self.sandbox_id(index) });
            }
        }
        true
    }

    /// Thaws a sandbox for the first function that is short of lanes and has a frozen one. Whether anything was done.
    pub(crate) fn thaw_one(&mut self, effects: &mut Effects) -> bool {
        let Some((_, slot)) = self.frosted.first() else {
            return false;
        };
        if !self.has_place_for_another() {
            return self.recall_for_place(effects);
        }
        let index = self.functions[slot].frozen.front().expect("a frosted function has a frozen sandbox");
        self.become_state(index, State::Thawing);
        self.stats.thawed += 1;
        let order = self.next_order();
        let deadline = self.now.saturating_add(self.limits.start_timeout);
        self.sandbox_deadlines.set(index, (deadline.as_nanos(), order));
        effects.push(Effect::Thaw { sandbox: self.sandbox_id(index) });
        true
    }

    pub(crate) fn thawed(&mut self, id: SandboxId) {
        let Some(index) = self.resolve_sandbox(id) else {
            return;
        };
        if self.sandboxes[index].state != State::Thawing {
            self.stats.stale_events += 1;
            return;
        }
        self.sandboxes[index].rest(self.now, self.clock);
        self.become_state(index, State::Ready);
    }

    /// A sandbox could not be frozen: it is awake, and stays so.
    pub(crate) fn not_frozen(&mut self, id: SandboxId) {
        let Some(index) = self.resolve_sandbox(id) else {
            return;
        };
        self.sandboxes[index].may_freeze = false;
        match self.sandboxes[index].state {
            State::Frozen => {
                self.stats.not_frozen += 1;
                self.become_state(index, State::Ready);
            }
            // It was asked for meanwhile, and its thaw is answered.
            State::Thawing => self.stats.not_frozen += 1,
            _ => self.stats.stale_events += 1,
        }
    }
}
