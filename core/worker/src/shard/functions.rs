//! The functions that a shard owns, by the index of their ids: no hash on an invocation's path.
//!
//! Invariant: a function is found by exactly its id, generation included. It knows no engine; the engine's own table has
//! the same indices.

use std::sync::Arc;

use vilya_engine::FunctionId;

use crate::metrics::FunctionCounters;
use crate::storage::FunctionRecord;

/// A function that this shard owns.
pub(super) struct Owned {
    pub(super) record: Arc<FunctionRecord>,
    pub(super) counters: FunctionCounters,
}

#[derive(Default)]
pub(super) struct Functions {
    slots: Vec<Option<(FunctionId, Owned)>>,
}

impl Functions {
    pub(super) fn insert(&mut self, id: FunctionId, owned: Owned) {
        let index = id.index as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, || None);
        }
        self.slots[index] = Some((id, owned));
    }

    pub(super) fn get(&self, id: FunctionId) -> Option<&Owned> {
        let (found, owned) = self.slots.get(id.index as usize)?.as_ref()?;
        (*found == id).then_some(owned)
    }

    pub(super) fn get_mut(&mut self, id: FunctionId) -> Option<&mut Owned> {
        let (found, owned) = self.slots.get_mut(id.index as usize)?.as_mut()?;
        (*found == id).then_some(owned)
    }

    pub(super) fn remove(&mut self, id: FunctionId) -> Option<Owned> {
        self.get(id)?;
        self.slots[id.index as usize].take().map(|(_, owned)| owned)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (FunctionId, &Owned)> {
        self.slots.iter().flatten().map(|(id, owned)| (*id, owned))
    }
}
