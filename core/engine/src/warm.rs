//! Warm targets: sandboxes that a function shall have whether or not anybody waits for one.
//!
//! Invariant: a warm start takes nothing from an invocation: none begins while a function starves, and together they take
//! at most half of the starts. An idle sandbox within its function's target does not expire, makes no room for a warm
//! start, and makes room for an invocation only if that would find none with everything else gone. Starts that come to
//! nothing are repeated ever later. Does not know why a sandbox died.

use crate::effect::Effects;
use crate::engine::Engine;
use crate::provision::{Room, Wanted};
use crate::units::Nanos;

/// From a failure to the next warm start; doubled with each, until an invocation is run.
const FIRST_PAUSE: Nanos = Nanos::from_millis(250);
/// Failures after which the pause grows no more: 64 s.
const MOST_DOUBLINGS: u32 = 8;
/// From finding no room to looking again.
const ROOM_PAUSE: Nanos = Nanos::from_secs(1);

/// A function's target, and how far it is from it.
#[derive(Debug)]
pub(crate) struct Warm {
    pub(crate) target: u32,
    /// Sandboxes starting or ready.
    pub(crate) alive: u32,
    /// What `alive` lacks of the target; the engine's gauge is the sum.
    pub(crate) missing: u32,
    /// Warm starts and unused sandboxes lost since an invocation was last run.
    failures: u32,
    /// No warm start before.
    not_before: Nanos,
}

impl Warm {
    pub(crate) fn new(target: u32) -> Warm {
        Warm { target, alive: 0, missing: 0, failures: 0, not_before: Nanos::ZERO }
    }

    /// Whether one less would be too few.
    pub(crate) fn needs_all(&self) -> bool {
        self.alive <= self.target
    }

    /// A sandbox has done what it is for.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }
}

impl Engine {
    /// Brings the books of a function's target up to date. Called after every change of its sandboxes.
    pub(crate) fn note_warm(&mut self, slot: u32) {
        let function = &mut self.functions[slot];
        let missing = function.warm.target.saturating_sub(function.warm.alive);
        self.stats.warm_missing = self.stats.warm_missing - function.warm.missing + missing;
        function.warm.missing = missing;
        let may_start = self.may_start_warm(slot);
        let not_before = self.functions[slot].warm.not_before;
        if may_start && not_before <= self.now {
            self.warm_pauses.remove(slot);
            if !self.short_of_warm.contains(slot) {
                let order = self.next_order();
                self.short_of_warm.set(slot, (0, order));
            }
        } else {
            self.short_of_warm.remove(slot);
            self.warm_pauses.put(slot, may_start.then_some((not_before.as_nanos(), u64::from(slot))));
        }
    }

    /// Whether a function lacks sandboxes and no limit of its own forbids another.
    pub(crate) fn may_start_warm(&self, slot: u32) -> bool {
        let function = &self.functions[slot];
        function.warm.missing > 0
            && function.sandboxes < self.limits.sandboxes_per_function
            && function.spec.memory <= self.limits.memory
    }

    /// A function shall have none any more: it is leaving.
    pub(crate) fn drop_target(&mut self, slot: u32) {
        self.functions[slot].warm.target = 0;
        self.note_warm(slot);
    }

    /// A start failed, or a sandbox was lost before it was of use.
    pub(crate) fn warm_failed(&mut self, slot: u32) {
        let warm = &mut self.functions[slot].warm;
        if warm.target == 0 {
            return;
        }
        let pause = FIRST_PAUSE.as_nanos() << warm.failures;
        warm.failures = (warm.failures + 1).min(MOST_DOUBLINGS);
        warm.not_before = self.now.saturating_add(Nanos::from_nanos(pause));
        self.note_warm(slot);
    }

    /// Ends one pause that is over. Whether there was one.
    pub(crate) fn end_one_pause(&mut self) -> bool {
        let over = self.warm_pauses.first().filter(|((at, _), _)| *at <= self.now.as_nanos());
        if let Some((_, slot)) = over {
            self.note_warm(slot);
        }
        over.is_some()
    }

    /// Starts a sandbox for the first function below its target, or makes room for it. Whether anything was done.
    pub(crate) fn warm_one(&mut self, effects: &mut Effects) -> bool {
        let Some((_, slot)) = self.short_of_warm.first() else {
            return false;
        };
        if self.starved.first().is_some() || self.stats.starting >= self.limits.warm_starting() {
            return false;
        }
        let wanted = Wanted::Sandbox(self.functions[slot].spec.memory);
        match self.room_for(wanted) {
            Room::Free => self.start(slot, effects),
            Room::Evictable => return self.evict_one(slot, wanted, effects),
            Room::Coming => return false,
            Room::Kept | Room::None => {
                self.functions[slot].warm.not_before = self.now.saturating_add(ROOM_PAUSE);
                self.note_warm(slot);
            }
        }
        true
    }

    /// Takes an idle sandbox out of the keep-alive policy's hands until it is used again.
    pub(crate) fn keep(&mut self, index: u32) {
        let key = self.idle_order.key(index).expect("an idle sandbox that is not kept is in the policy's order");
        self.idle_order.remove(index);
        self.sandbox_deadlines.remove(index);
        self.kept_order.set(index, key);
        self.stats.kept += 1;
        self.stats.kept_memory = self.stats.kept_memory.saturating_add(self.sandboxes[index].memory);
        let slot = self.sandboxes[index].function;
        self.functions[slot].kept += 1;
        self.note_layer(slot);
    }

    /// The inverse of `keep`, for one that is idle no more.
    pub(crate) fn unkeep(&mut self, index: u32) {
        if self.kept_order.contains(index) {
            self.kept_order.remove(index);
            self.stats.kept -= 1;
            self.stats.kept_memory = self.stats.kept_memory.saturating_sub(self.sandboxes[index].memory);
            self.functions[self.sandboxes[index].function].kept -= 1;
        }
    }
}
