//! Starting sandboxes for functions that have too few, and making room for them.
//!
//! Invariant: no start exceeds a limit, counting everything alive, dying included, and every layer. Functions are served
//! strictly in the queue policy's order, so the room that the first of them waits for is taken by none behind it. Idle
//! sandboxes and layers are evicted only when that will be enough, one at a time until it is: what is already dying counts
//! as room to come. Does not know what keeps an idle sandbox alive: that is the keep-alive policy's order.

use crate::effect::{Effect, Effects, Outcome};
use crate::engine::Engine;
use crate::sandboxes::Sandbox;
use crate::units::Bytes;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Room {
    /// There is room now.
    Free,
    /// There will be when the dying are dead and the layers being dropped are gone.
    Coming,
    /// There will be when idle sandboxes and layers are evicted as well.
    Evictable,
    /// There will be when idle ones within their functions' warm targets are evicted too, and never otherwise.
    Kept,
    /// There will be when something busy ends.
    None,
}

/// What room is wanted for.
#[derive(Clone, Copy)]
pub(crate) enum Wanted {
    /// A sandbox with this memory.
    Sandbox(Bytes),
    /// A layer.
    Layer(Bytes),
}

impl Wanted {
    pub(crate) fn memory(self) -> Bytes {
        let (Wanted::Sandbox(memory) | Wanted::Layer(memory)) = self;
        memory
    }

    fn is_sandbox(self) -> bool {
        matches!(self, Wanted::Sandbox(_))
    }
}

impl Engine {
    /// Starts a sandbox for the first starved function, or evicts one for it. Whether anything was done.
    pub(crate) fn provision_one(&mut self, effects: &mut Effects) -> bool {
        let Some((_, slot)) = self.starved.first() else {
            return false;
        };
        if self.stats.starting >= self.limits.starting {
            return false;
        }
        if !self.has_place_for_another() {
            return self.recall_for_place(effects);
        }
        let wanted = Wanted::Sandbox(self.functions[slot].spec.memory);
        match self.room_for(wanted) {
            Room::Free => self.start(slot, effects),
            // Never one of the starved function's own: with one idle it would be runnable, with one frozen that would be thawed.
            Room::Evictable => return self.evict_one(slot, wanted, effects),
            Room::Kept => return self.evict_kept(slot, wanted, effects),
            Room::Coming => return false,
            Room::None => return self.recall_for_room(effects),
        }
        true
    }

    /// Whether another sandbox would have something to run: lanes beyond what may run at once would stay empty.
    pub(crate) fn has_place_for_another(&self) -> bool {
        let taken = self.stats.running + self.stats.reserved;
        let coming = self.stats.starting + self.stats.thawing;
        taken.saturating_add(coming) < self.policies.concurrency.limit()
    }

    pub(crate) fn room_for(&self, wanted: Wanted) -> Room {
        let stats = &self.stats;
        let has_number = |others: u32| !wanted.is_sandbox() || others < self.limits.sandboxes;
        let fits_without = |memory: Bytes, sandboxes: u32| {
            self.memory_with(wanted, memory) <= self.limits.memory && has_number(stats.sandboxes - sandboxes)
        };
        let ending = stats.dying_memory.saturating_add(stats.dropping_memory);
        let idle_memory = stats.idle_memory.saturating_sub(stats.kept_memory);
        let unkept = ending.saturating_add(idle_memory).saturating_add(stats.loose_layer_memory);
        let kept_memory = stats.kept_memory.saturating_add(stats.kept_layer_memory);
        let fits_beside_kept =
            kept_memory.saturating_add(wanted.memory()) <= self.limits.memory && has_number(stats.kept);
        if fits_without(Bytes::ZERO, 0) {
            Room::Free
        } else if fits_without(ending, stats.dying) {
            Room::Coming
        } else if fits_without(unkept, stats.dying + stats.idle - stats.kept) {
            Room::Evictable
        } else if !fits_beside_kept && fits_without(unkept.saturating_add(kept_memory), stats.dying + stats.idle) {
            Room::Kept
        } else {
            Room::None
        }
    }

    /// What would be taken with this and without so much of what is.
    fn memory_with(&self, wanted: Wanted, without: Bytes) -> Bytes {
        let taken = self.stats.memory.saturating_add(self.stats.layer_memory);
        taken.saturating_sub(without).saturating_add(wanted.memory())
    }

    /// Whether there will be too little memory when what is ending has ended; if not, the number of sandboxes is in the way.
    pub(crate) fn is_short_of_memory(&self, wanted: Wanted) -> bool {
        let ending = self.stats.dying_memory.saturating_add(self.stats.dropping_memory);
        self.memory_with(wanted, ending) > self.limits.memory
    }

    pub(crate) fn start(&mut self, slot: u32, effects: &mut Effects) {
        let function = &mut self.functions[slot];
        function.sandboxes += 1;
        let (id, spec) = (function.id, function.spec);
        self.stats.memory = self.stats.memory.saturating_add(spec.memory);
        self.stats.sandboxes += 1;
        self.stats.started += 1;
        let index = self.sandboxes.insert(Sandbox::new(slot, spec.memory, spec.concurrency, self.now));
        let order = self.next_order();
        let deadline = self.now.saturating_add(self.limits.start_timeout);
        self.sandbox_deadlines.set(index, (deadline.as_nanos(), order));
        self.enlist(index);
        self.refresh(slot);
        effects.push(Effect::Start { sandbox: self.sandbox_id(index), function: id });
    }

    /// A start for this function came to nothing: as many of its oldest waiting invocations as would have run there
    /// are to be told.
    pub(crate) fn start_failed(&mut self, slot: u32) {
        self.stats.start_failures += 1;
        let before = self.next_order();
        let function = &mut self.functions[slot];
        let concurrency = u32::from(function.spec.concurrency);
        function.failing = function.failing.saturating_add(concurrency).min(function.waiting.len());
        function.failing_before = before;
        self.note_chore(slot);
        self.warm_failed(slot);
    }

    /// Tells the oldest waiting invocation of a function that a start failed.
    pub(crate) fn fail_one_waiting(&mut self, slot: u32, effects: &mut Effects) {
        let function = &mut self.functions[slot];
        let before = function.failing_before;
        let oldest = function.waiting.front().filter(|&index| self.invocations[index].order < before);
        let Some(oldest) = oldest else {
            function.failing = 0;
            return;
        };
        function.failing -= 1;
        self.give_up(oldest, Outcome::StartFailed, effects);
    }
}
