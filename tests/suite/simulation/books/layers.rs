//! The part of the record that is about layers.
//!
//! Invariant: as for the rest of the record. A layer takes memory from when it is given a place until the driver has said
//! that it is gone.

use vilya_engine::{Bytes, FunctionId};

use super::Books;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    Offered,
    Kept,
    Dropped { is_charged: bool },
}

/// The layer of one function.
#[derive(Clone, Copy)]
pub(super) struct Layer {
    memory: Bytes,
    standing: Standing,
}

impl Books {
    /// A second one is none, and neither is one of a function that is not there.
    pub(super) fn learn_layer(&mut self, function: FunctionId, memory: Bytes) {
        if self.functions.contains_key(&function) {
            self.layers.entry(function).or_insert(Layer { memory, standing: Standing::Offered });
        }
    }

    pub(super) fn learn_layer_gone(&mut self, function: FunctionId) {
        self.layers.remove(&function);
    }

    pub(super) fn has_layer(&self, function: FunctionId) -> bool {
        self.layers.contains_key(&function)
    }

    /// What layers take.
    pub(super) fn layer_memory(&self) -> u64 {
        let takes = |layer: &&Layer| matches!(layer.standing, Standing::Kept | Standing::Dropped { is_charged: true });
        self.layers.values().filter(takes).map(|layer| layer.memory.as_bytes()).sum()
    }

    pub(super) fn check_kept_layer(&mut self, function: FunctionId) {
        let layer = self.layers.get_mut(&function).expect("a layer was kept that is not there");
        assert_eq!(layer.standing, Standing::Offered, "a layer was kept twice, or after it was dropped");
        layer.standing = Standing::Kept;
        assert!(self.memory_in_use() <= self.limits.memory.as_bytes(), "memory exceeds its limit with a layer");
        assert!(self.draining.is_none(), "a layer was kept while draining");
        self.tally.count("LayerKept".into());
    }

    pub(super) fn check_dropped_layer(&mut self, id: FunctionId) {
        // One of a function that is not there is dropped at once.
        let Some(function) = self.functions.get(&id) else { return };
        let layer = self.layers.get_mut(&id).expect("a layer was dropped that is not there");
        let is_charged = match layer.standing {
            Standing::Offered => false,
            Standing::Kept => true,
            Standing::Dropped { .. } => panic!("a layer was dropped twice"),
        };
        assert!(!is_charged || function.sandboxes == 0, "a layer was dropped that sandboxes are made of");
        layer.standing = Standing::Dropped { is_charged };
        self.tally.count(if is_charged { "LayerDropped".into() } else { "LayerRefused".into() });
    }

    /// A layer waits for its place only while others wait for room, or something is on its way out.
    pub(super) fn check_layers_at_rest(&self) {
        let is_awaited = self.functions.values().any(|function| function.waiting > 0)
            || self.sandboxes.values().any(|sandbox| sandbox.is_condemned)
            || self.layers.values().any(|layer| matches!(layer.standing, Standing::Dropped { .. }));
        let waits = |layer: &Layer| layer.standing == Standing::Offered;
        assert!(
            is_awaited || !self.layers.values().any(waits),
            "a layer waits for its place and nothing is in the way"
        );
    }
}
