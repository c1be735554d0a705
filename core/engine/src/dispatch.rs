//! Giving waiting invocations to sandboxes that can run them.
//!
//! Invariant: an invocation goes only to a ready sandbox of its own function with a free lane, the oldest of its
//! function first, and never while as many run as the concurrency policy allows. Among sandboxes the partly used ones
//! go first and the most recently used before others, so that unneeded ones grow old. Does not know how sandboxes come
//! to be.

use crate::effect::{Effect, Effects, StartKind};
use crate::engine::Engine;
use crate::invocation::{Phase, Run};
use crate::sandboxes::Sandbox;
use crate::units::Nanos;

impl Engine {
    /// Dispatches the next invocation that can run. Whether there was one.
    pub(crate) fn dispatch_one(&mut self, effects: &mut Effects) -> bool {
        let Some((_, slot)) = self.runnable.first() else {
            return false;
        };
        if !self.has_place() {
            return self.recall_for_place(effects);
        }
        let function = &self.functions[slot];
        let invocation = function.waiting.front().expect("a runnable function has an invocation waiting");
        let sandbox = function.next_sandbox().expect("a runnable function has a sandbox with a free lane");
        self.dispatch(invocation, sandbox, effects);
        true
    }

    /// Whether the concurrency policy allows one more. A reserved lane will run what it was lent for.
    pub(crate) fn has_place(&self) -> bool {
        self.stats.running + self.stats.reserved < self.policies.concurrency.limit()
    }

    fn dispatch(&mut self, index: u32, sandbox_index: u32, effects: &mut Effects) {
        self.delist(sandbox_index);
        let sandbox = &mut self.sandboxes[sandbox_index];
        let lane = sandbox.lanes.take(index);
        let wait = Wait::of(self.invocations[index].arrived, self.invocations[index].order, sandbox, self.now);
        sandbox.has_served = true;
        self.enlist(sandbox_index);

        // Leaves the list of its function before it enters another.
        self.dequeue(index);
        let turn = self.begin_turn(index, sandbox_index, effects);
        let invocation = &mut self.invocations[index];
        let run = Run { sandbox: sandbox_index, lane, dispatched: self.now, start: wait.start, overdue: false, turn };
        invocation.phase = Phase::Running(run);
        let (origin, order, slot) = (invocation.origin, invocation.order, invocation.function);
        let function = &mut self.functions[slot];
        function.uses = function.uses.saturating_add(1);
        let deadline = self.now.saturating_add(function.spec.timeout);
        self.invocation_deadlines.set(index, (deadline.as_nanos(), order));
        self.stats.running += 1;
        match wait.start {
            StartKind::Cold => self.stats.dispatched_cold += 1,
            StartKind::Warm => self.stats.dispatched_warm += 1,
        }
        effects.push(Effect::Dispatch {
            invocation: self.invocation_id(index),
            origin,
            sandbox: self.sandbox_id(sandbox_index),
            lane,
            start: wait.start,
            queued: wait.queued,
            starting: wait.starting,
            deadline,
        });
    }
}

/// What an invocation waited for.
struct Wait {
    start: StartKind,
    queued: Nanos,
    starting: Nanos,
}

impl Wait {
    fn of(arrived: Nanos, order: u64, sandbox: &Sandbox, now: Nanos) -> Wait {
        // Admitted before the sandbox was ready: by order, because the times may be equal.
        let awaited_its_start = order < sandbox.ready_order;
        let start = if awaited_its_start && !sandbox.has_served { StartKind::Cold } else { StartKind::Warm };
        let starting = sandbox.ready.saturating_sub(arrived.max(sandbox.started));
        Wait { start, queued: now.saturating_sub(arrived).saturating_sub(starting), starting }
    }
}
