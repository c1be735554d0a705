//! Freezing idle sandboxes, and thawing them for those who wait.
//!
//! Invariant: only a sandbox with every lane free is frozen, and nothing is dispatched to it before the driver has said that
//! it is thawed. A frozen one stays idle in the keep-alive policy's eyes: it expires, is evicted and is within a warm target
//! as if it were awake. A lane that is free is taken before a frozen sandbox is thawed, and a frozen one is thawed before
//! another is started. Does not know what freezing is, nor what a frozen sandbox costs.
//!
//! The time of a sandbox's freezing is looked at when it comes, not moved at every use: a warm invocation pays nothing.

use crate::effect::{Effect, Effects};
use crate::engine::Engine;
use crate::ids::SandboxId;
use crate::sandboxes::State;

impl Engine {
    /// Has an idle sandbox looked at when it may be frozen, unless it is going to be.
    pub(crate) fn watch_for_frost(&mut self, index: u32) {
        if self.frost_deadlines.contains(index) {
            return;
        }
        let sandbox = &self.sandboxes[index];
        if let Some(after) = self.functions[sandbox.function].spec.freeze_after.filter(|_| sandbox.may_freeze) {
            let at = sandbox.idle_since.saturating_add(after);
            self.frost_deadlines.set(index, (at.as_nanos(), u64::from(index)));
        }
    }

    /// Looks at one sandbox that may have been idle for long enough. Whether there was one.
    pub(crate) fn freeze_one(&mut self, effects: &mut Effects) -> bool {
        let Some((_, index)) = self.frost_deadlines.first().filter(|((at, _), _)| *at <= self.now.as_nanos()) else {
            return false;
        };
        self.frost_deadlines.remove(index);
        let sandbox = &self.sandboxes[index];
        if sandbox.state != State::Ready || sandbox.lanes.in_use > 0 {
            // Watched again when it is idle again.
            return true;
        }
        let after = self.functions[sandbox.function].spec.freeze_after;
        if after.is_none_or(|after| sandbox.idle_since.saturating_add(after) > self.now) {
            self.watch_for_frost(index);
            return true;
        }
        self.become_state(index, State::Frozen);
        self.stats.froze += 1;
        effects.push(Effect::Freeze { sandbox: self.sandbox_id(index) });
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
        self.sandboxes[index].idle_since = self.now;
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
