//! The queue of each function: invocations admitted and not yet given to a sandbox.
//!
//! Invariant: oldest first, at most `queue_per_function` long; every entry has a deadline by which it is given up.
//! Does not know which function's queue is served next: that is the queue policy's, through `Engine::refresh`.

use crate::effect::{Effects, Outcome};
use crate::engine::Engine;
use crate::ids::Origin;
use crate::invocation::{Invocation, Phase};
use crate::list::Links;

impl Engine {
    /// Puts an arrival at the end of its function's queue; there is room for it.
    pub(crate) fn enqueue(&mut self, origin: Origin, function: u32) -> u32 {
        let order = self.next_order();
        let index = self.invocations.insert(Invocation {
            origin,
            function,
            order,
            arrived: self.now,
            answered: false,
            phase: Phase::Queued,
            links: Links::ALONE,
        });
        let timeout = self.functions[function].spec.timeout;
        let patience = timeout.max(self.limits.start_timeout);
        self.invocation_deadlines.set(index, (self.now.saturating_add(patience).as_nanos(), order));
        self.functions[function].waiting.push_back(&mut self.invocations, index);
        self.stats.queued += 1;
        self.refresh(function);
        index
    }

    /// Takes an invocation out of its queue, wherever it stands in it.
    pub(crate) fn dequeue(&mut self, index: u32) {
        let function = self.invocations[index].function;
        self.functions[function].waiting.remove(&mut self.invocations, index);
        self.stats.queued -= 1;
        self.refresh(function);
    }

    /// Ends a waiting invocation.
    pub(crate) fn give_up(&mut self, index: u32, outcome: Outcome, effects: &mut Effects) {
        self.dequeue(index);
        self.answer(index, outcome, effects);
        self.forget(index);
    }
}
