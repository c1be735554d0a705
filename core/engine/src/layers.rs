//! The layers of functions: what starts are quicker from, and what stays of a function when its sandboxes are gone.
//!
//! Invariant: a layer is charged from the moment that it is given a place until the driver has said that it is gone, and
//! only while there is room for it beside everything else. One is in use while a sandbox of its function is alive, whose
//! memory may be the layer's; then dropping it would free nothing, and it is not dropped. Each that is made is kept or
//! dropped once. Does not know what a layer is made of, nor which starts the driver makes from it.

use crate::effect::{Effect, Effects};
use crate::engine::Engine;
use crate::evict::Victim;
use crate::ids::FunctionId;
use crate::list::List;
use crate::policy::keepalive::{Idle, Kind, Retention};
use crate::provision::{Room, Wanted};
use crate::route::Function;
use crate::units::{Bytes, Nanos};

/// What is in the way of dropping a layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Grip {
    /// Something busy, or starting.
    InUse,
    /// Idle sandboxes, of which some are within a warm target, and dying ones.
    Kept,
    /// Idle and dying sandboxes.
    Loose,
    /// Nothing. In the orders of idle layers.
    None,
}

/// How far a layer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// Not charged. In the order of those offered.
    Offered,
    /// Charged.
    Held(Grip),
    /// The driver was told to drop it. Charged, unless it never was.
    Dropping { is_charged: bool },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Layer {
    pub(crate) memory: Bytes,
    pub(crate) standing: Standing,
    /// Since nothing is in the way of dropping it, and the keep-alive policy's clock then.
    pub(crate) since: Nanos,
    pub(crate) clock: u64,
}

impl Function {
    /// Whether this shard is charged for a layer that starts can be made from, or asked to be.
    pub(crate) fn has_layer(&self) -> bool {
        self.layer.is_some_and(|layer| !matches!(layer.standing, Standing::Dropping { .. }))
    }

    /// Whether its layer is being dropped.
    pub(crate) fn waits_for_layer(&self) -> bool {
        self.layer.is_some() && !self.has_layer()
    }

    /// What is in the way of dropping its layer now.
    pub(crate) fn grip(&self) -> Grip {
        match (self.sandboxes, self.sandboxes - self.settled, self.kept) {
            (0, ..) => Grip::None,
            (_, 0, 0) => Grip::Loose,
            (_, 0, _) => Grip::Kept,
            _ => Grip::InUse,
        }
    }

    /// How often it was used does not count any more when nothing is left that it was used with.
    pub(crate) fn forget_uses(&mut self) {
        if self.sandboxes == 0 && self.layer.is_none() {
            self.uses = 0;
        }
    }
}

impl Engine {
    pub(crate) fn layer_made(&mut self, id: FunctionId, memory: Bytes, effects: &mut Effects) {
        let Some(slot) = self.functions.resolve(id) else {
            self.stats.stale_events += 1;
            effects.push(Effect::DropLayer { function: id });
            return;
        };
        if self.functions[slot].layer.is_some() {
            self.stats.stale_events += 1;
            return;
        }
        let standing = Standing::Offered;
        self.functions[slot].layer = Some(Layer { memory, standing, since: self.now, clock: self.clock });
        let order = self.next_order();
        let until = self.now.saturating_add(self.limits.start_timeout);
        self.offered.set(slot, (until.as_nanos(), order));
        self.expect_layer(slot, true);
        self.refresh(slot);
    }

    /// Another shard has started a sandbox from it: it is as if one had ended here.
    pub(crate) fn layer_used(&mut self, id: FunctionId) {
        let Some(slot) = self.functions.resolve(id).filter(|&slot| self.functions[slot].has_layer()) else {
            self.stats.stale_events += 1;
            return;
        };
        let function = &mut self.functions[slot];
        function.uses = function.uses.saturating_add(1);
        if let Some(Layer { memory, standing: Standing::Held(Grip::None), .. }) = function.layer {
            self.release_grip(slot, Grip::None, memory);
            self.take_grip(slot, Grip::None, memory);
        }
    }

    pub(crate) fn layer_gone(&mut self, id: FunctionId) {
        let Some(slot) = self.functions.resolve(id).filter(|&slot| self.functions[slot].layer.is_some()) else {
            self.stats.stale_events += 1;
            return;
        };
        let function = &mut self.functions[slot];
        let Some(Layer { memory, standing, .. }) = function.layer.take() else { unreachable!("looked at above") };
        function.forget_uses();
        match standing {
            Standing::Offered => self.offered.remove(slot),
            Standing::Held(grip) => {
                self.release_grip(slot, grip, memory);
                self.uncharge_layer(memory);
            }
            Standing::Dropping { is_charged: true } => {
                self.stats.dropping_memory = self.stats.dropping_memory.saturating_sub(memory);
                self.uncharge_layer(memory);
            }
            Standing::Dropping { is_charged: false } => {}
        }
        self.expect_layer(slot, false);
        self.refresh(slot);
    }

    fn uncharge_layer(&mut self, memory: Bytes) {
        self.stats.layers -= 1;
        self.stats.layer_memory = self.stats.layer_memory.saturating_sub(memory);
    }

    /// Brings the books of a function's layer up to date. Called after every change of its sandboxes.
    pub(crate) fn note_layer(&mut self, slot: u32) {
        let function = &mut self.functions[slot];
        let grip = function.grip();
        let Some(layer) = &mut function.layer else {
            return;
        };
        let Standing::Held(before) = layer.standing else {
            return;
        };
        if before == grip {
            return;
        }
        layer.standing = Standing::Held(grip);
        let memory = layer.memory;
        self.release_grip(slot, before, memory);
        self.take_grip(slot, grip, memory);
    }

    fn take_grip(&mut self, slot: u32, grip: Grip, memory: Bytes) {
        match grip {
            Grip::InUse => return,
            Grip::Kept => {
                self.stats.kept_layer_memory = self.stats.kept_layer_memory.saturating_add(memory);
                return;
            }
            Grip::Loose | Grip::None => {
                self.stats.loose_layer_memory = self.stats.loose_layer_memory.saturating_add(memory);
            }
        }
        if grip == Grip::None {
            if let Some(layer) = &mut self.functions[slot].layer {
                (layer.since, layer.clock) = (self.now, self.clock);
            }
            let retention = self.weigh_layer(slot);
            let order = self.next_order();
            self.layer_order.set(slot, (retention.priority, order));
            self.layer_deadlines.put(slot, retention.until.map(|until| (until.as_nanos(), order)));
        }
    }

    /// The inverse.
    fn release_grip(&mut self, slot: u32, grip: Grip, memory: Bytes) {
        match grip {
            Grip::InUse => {}
            Grip::Kept => self.stats.kept_layer_memory = self.stats.kept_layer_memory.saturating_sub(memory),
            Grip::Loose | Grip::None => {
                self.stats.loose_layer_memory = self.stats.loose_layer_memory.saturating_sub(memory);
            }
        }
        self.layer_order.remove(slot);
        self.layer_deadlines.remove(slot);
    }

    /// What the keep-alive policy thinks of a layer: losing it costs what a start takes more without it.
    pub(crate) fn weigh_layer(&self, slot: u32) -> Retention {
        let function = &self.functions[slot];
        let Some(Layer { memory, since, clock, .. }) = function.layer else {
            unreachable!("only functions with a layer are asked about")
        };
        let (uses, cost) = (function.uses, function.profile.spared_by_layer());
        self.policies.keepalive.retain(&Idle { kind: Kind::Layer, since, clock, uses, cost, memory })
    }

    /// Starts are from a layer from now on, or are not: losing an idle sandbox costs less then, or more. Linear in the idle
    /// sandboxes of the function, and rare: when a layer comes or goes.
    pub(crate) fn expect_layer(&mut self, slot: u32, is_layered: bool) {
        let function = &mut self.functions[slot];
        if core::mem::replace(&mut function.is_layered, is_layered) == is_layered {
            return;
        }
        for list in [function.idle, function.frozen] {
            let mut next = list.front();
            while let Some(index) = next {
                // Those that are kept are in no order of the policy's.
                if let Some((_, order)) = self.idle_order.key(index) {
                    self.idle_order.set(index, (self.weigh_sandbox(index).priority, order));
                }
                next = List::after(&self.sandboxes, index);
            }
        }
    }

    /// Tells the driver to drop a layer that nothing is in the way of dropping, or that has no place.
    pub(crate) fn drop_layer(&mut self, slot: u32, effects: &mut Effects) {
        let function = &mut self.functions[slot];
        let Some(layer) = &mut function.layer else { unreachable!("only functions with a layer lose one") };
        let (memory, standing) = (layer.memory, layer.standing);
        layer.standing = Standing::Dropping { is_charged: matches!(standing, Standing::Held(_)) };
        let id = function.id;
        match standing {
            Standing::Offered => self.offered.remove(slot),
            Standing::Held(grip) => {
                self.release_grip(slot, grip, memory);
                self.stats.dropping_memory = self.stats.dropping_memory.saturating_add(memory);
            }
            Standing::Dropping { .. } => unreachable!("a layer is dropped once"),
        }
        effects.push(Effect::DropLayer { function: id });
        self.expect_layer(slot, false);
    }

    /// Gives the first layer that has no place one, makes room for it, or drops it. Whether anything was done.
    ///
    /// It takes nothing from an invocation that waits for room, and nothing that the keep-alive policy holds dearer; and no
    /// sandbox of its own function, which would rather have that than be started again. It does not wait for longer than a
    /// start may take: what has no place is charged to nobody.
    pub(crate) fn place_one_layer(&mut self, effects: &mut Effects) -> bool {
        let Some((_, slot)) = self.offered.first() else {
            return false;
        };
        let function = &mut self.functions[slot];
        let Some(layer) = &mut function.layer else { unreachable!("an offered layer is there") };
        // It is as good as used: it was made because starts are wanted.
        (layer.since, layer.clock) = (self.now, self.clock);
        let wanted = Wanted::Layer(layer.memory);
        if function.retired || self.drain.is_on() {
            self.drop_layer(slot, effects);
            return true;
        }
        if self.somebody_lacks_room() {
            return false;
        }
        match self.room_for(wanted) {
            Room::Free => self.hold_layer(slot, wanted.memory(), effects),
            Room::Coming => return false,
            Room::Evictable => match self.first_victim(slot, wanted) {
                None => return false,
                Some((key, victim)) => {
                    let is_own = matches!(victim, Victim::Sandbox(index) if self.sandboxes[index].function == slot);
                    if is_own || key.0 > self.weigh_layer(slot).priority {
                        self.refuse_layer(slot, effects);
                    } else {
                        return self.evict_one(slot, wanted, effects);
                    }
                }
            },
            Room::Kept | Room::None => self.refuse_layer(slot, effects),
        }
        true
    }

    /// Whether an invocation waits for room, and not just for its turn.
    pub(crate) fn somebody_lacks_room(&self) -> bool {
        self.starved
            .first()
            .is_some_and(|(_, slot)| self.room_for(Wanted::Sandbox(self.functions[slot].spec.memory)) != Room::Free)
    }

    pub(crate) fn refuse_layer(&mut self, slot: u32, effects: &mut Effects) {
        self.stats.layers_evicted += 1;
        self.drop_layer(slot, effects);
    }

    fn hold_layer(&mut self, slot: u32, memory: Bytes, effects: &mut Effects) {
        self.offered.remove(slot);
        let function = &mut self.functions[slot];
        let (id, grip) = (function.id, function.grip());
        if let Some(layer) = &mut function.layer {
            layer.standing = Standing::Held(grip);
        }
        self.stats.layers += 1;
        self.stats.layers_kept += 1;
        self.stats.layer_memory = self.stats.layer_memory.saturating_add(memory);
        self.take_grip(slot, grip, memory);
        effects.push(Effect::KeepLayer { function: id });
    }
}
