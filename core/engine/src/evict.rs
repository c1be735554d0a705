//! Making room: which idle sandbox or layer goes next.
//!
//! Invariant: called when there will be room once enough of it has gone, and ends one at a time. Sandboxes and layers are in
//! one order, the keep-alive policy's. The layer of the function that the room is for goes last: its start is to be made
//! from it. Does not know why the room is wanted.

use crate::effect::{Effects, KillReason, Outcome};
use crate::engine::Engine;
use crate::heap::Key;
use crate::provision::Wanted;

/// What may be evicted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Victim {
    /// An idle sandbox.
    Sandbox(u32),
    /// The layer of the function in this slot.
    Layer(u32),
}

impl Engine {
    /// What goes first for a function that wants room; nothing while all that could go waits for dying sandboxes to be dead.
    pub(crate) fn first_victim(&mut self, slot: u32, wanted: Wanted) -> Option<(Key, Victim)> {
        let own = self.layer_order.key(slot);
        self.layer_order.remove(slot);
        let sandbox = self.idle_order.first().map(|(key, index)| (key, Victim::Sandbox(index)));
        // A layer is no sandbox: it makes no room for another where their number is in the way.
        let is_short = self.is_short_of_memory(wanted);
        let layer = self.layer_order.first().map(|(key, of)| (key, Victim::Layer(of))).filter(|_| is_short);
        self.layer_order.put(slot, own);
        let others = [sandbox, layer].into_iter().flatten().min_by_key(|(key, _)| *key);
        others.or_else(|| own.filter(|_| is_short).map(|key| (key, Victim::Layer(slot))))
    }

    /// Evicts the first sandbox or layer, or finds that a sandbox is within a target and keeps it. Whether anything was done.
    pub(crate) fn evict_one(&mut self, slot: u32, wanted: Wanted, effects: &mut Effects) -> bool {
        let Some((key, victim)) = self.first_victim(slot, wanted) else {
            return false;
        };
        match victim {
            Victim::Sandbox(index) if self.functions[self.sandboxes[index].function].warm.needs_all() => {
                self.keep(index);
            }
            _ => self.evict(key, victim, effects),
        }
        true
    }

    /// Evicts a sandbox though it may be within a target, after everything that is in none. Whether anything was done.
    pub(crate) fn evict_kept(&mut self, slot: u32, wanted: Wanted, effects: &mut Effects) -> bool {
        let kept = self.kept_order.first().map(|(key, index)| (key, Victim::Sandbox(index)));
        let Some((key, victim)) = self.first_victim(slot, wanted).or(kept) else {
            return false;
        };
        self.evict(key, victim, effects);
        true
    }

    /// Evicts, unless what was put in order long ago has been used since: then it is put where it belongs, and looked at again.
    fn evict(&mut self, (priority, order): Key, victim: Victim, effects: &mut Effects) {
        let now = match victim {
            Victim::Sandbox(index) => self.weigh_sandbox(index).priority,
            Victim::Layer(slot) => self.weigh_layer(slot).priority,
        };
        match victim {
            // In one order or the other.
            Victim::Sandbox(index) if now > priority && self.idle_order.contains(index) => {
                self.idle_order.set(index, (now, order));
            }
            Victim::Layer(slot) if now > priority => self.layer_order.set(slot, (now, order)),
            Victim::Sandbox(index) => {
                self.clock = self.clock.max(priority);
                self.kill(index, KillReason::Evicted, Outcome::SandboxDied, effects);
            }
            Victim::Layer(slot) => {
                self.clock = self.clock.max(priority);
                self.stats.layers_evicted += 1;
                self.drop_layer(slot, effects);
            }
        }
    }
}
