//! Starting sandboxes for functions that have too few, and making room for them.
//!
//! Invariant: no start exceeds a limit, counting everything alive, dying included. Functions are served strictly in
//! the queue policy's order, so the room that the first of them waits for is taken by none behind it. Idle sandboxes
//! are evicted only when that will be enough, one at a time until it is: what is already dying counts as room to
//! come. Does not know what keeps an idle sandbox alive: that is the keep-alive policy's order.

use crate::effect::{Effect, Effects, Outcome};
use crate::engine::Engine;
use crate::sandboxes::Sandbox;
use crate::units::Bytes;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Room {
    /// There is room now.
    Free,
    /// There will be when the dying are dead.
    Coming,
    /// There will be when idle ones are evicted as well.
    Evictable,
    /// There will be when idle ones within their functions' warm targets are evicted too, and never otherwise.
    Kept,
    /// There will be when something busy ends.
    None,
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
        match self.room_for(self.functions[slot].spec.memory) {
            Room::Free => self.start(slot, effects),
            // Never one of the starved function's own: with one idle it would be runnable, with one frozen that would be thawed.
            Room::Evictable => self.evict_one(effects),
            Room::Kept => self.evict_kept(effects),
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

    pub(crate) fn room_for(&self, wanted: Bytes) -> Room {
        let stats = &self.stats;
        let fits_without = |memory: Bytes, sandboxes: u32| {
            stats.memory.saturating_sub(memory).saturating_add(wanted) <= self.limits.memory
                && stats.sandboxes - sandboxes < self.limits.sandboxes
        };
        let idle_memory = stats.idle_memory.saturating_sub(stats.kept_memory);
        let fits_beside_kept =
            stats.kept_memory.saturating_add(wanted) <= self.limits.memory && stats.kept < self.limits.sandboxes;
        let all_idle = (stats.dying_memory.saturating_add(stats.idle_memory), stats.dying + stats.idle);
        if fits_without(Bytes::ZERO, 0) {
            Room::Free
        } else if fits_without(stats.dying_memory, stats.dying) {
            Room::Coming
        } else if fits_without(stats.dying_memory.saturating_add(idle_memory), stats.dying + stats.idle - stats.kept) {
            Room::Evictable
        } else if !fits_beside_kept && fits_without(all_idle.0, all_idle.1) {
            Room::Kept
        } else {
            Room::None
        }
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
