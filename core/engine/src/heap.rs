//! A binary heap over slot numbers whose entries can be moved and removed: the smallest key is first.
//!
//! Invariant: a slot is in it at most once, and where it is, is known; all memory is allocated when it is made. Used
//! for deadlines, for the order of eviction, and for whose turn it is. Does not know which.

use alloc::vec;
use alloc::vec::Vec;

use crate::list::NONE;

/// What orders the entries; the second part breaks ties and makes the order total.
pub(crate) type Key = (u64, u64);

/// Logarithmic `set` and `remove` by slot, constant `first`.
#[derive(Debug)]
pub(crate) struct Heap {
    entries: Vec<(Key, u32)>,
    /// By slot: its place in `entries`, or `NONE`.
    places: Vec<u32>,
}

impl Heap {
    pub(crate) fn new(slots: u32) -> Heap {
        Heap { entries: Vec::with_capacity(slots as usize), places: vec![NONE; slots as usize] }
    }

    pub(crate) fn len(&self) -> u32 {
        self.entries.len() as u32
    }

    /// The smallest key and its slot.
    pub(crate) fn first(&self) -> Option<(Key, u32)> {
        self.entries.first().copied()
    }

    pub(crate) fn contains(&self, slot: u32) -> bool {
        self.places[slot as usize] != NONE
    }

    pub(crate) fn key(&self, slot: u32) -> Option<Key> {
        let place = self.places[slot as usize];
        (place != NONE).then(|| self.entries[place as usize].0)
    }

    /// Adds the slot, or changes its key.
    pub(crate) fn set(&mut self, slot: u32, key: Key) {
        let place = self.places[slot as usize];
        if place == NONE {
            self.entries.push((key, slot));
            self.places[slot as usize] = self.entries.len() as u32 - 1;
            self.rise(self.entries.len() - 1);
            return;
        }
        let place = place as usize;
        let before = core::mem::replace(&mut self.entries[place].0, key);
        if key < before {
            self.rise(place);
        } else {
            self.sink(place);
        }
    }

    /// Has the slot in with this key, or not in.
    pub(crate) fn put(&mut self, slot: u32, key: Option<Key>) {
        match key {
            Some(key) => self.set(slot, key),
            None => self.remove(slot),
        }
    }

    /// Takes the slot out, if it is in.
    pub(crate) fn remove(&mut self, slot: u32) {
        // Most heaps are empty most of the time, and `places` is not in the cache.
        if self.entries.is_empty() {
            return;
        }
        let place = self.places[slot as usize];
        if place == NONE {
            return;
        }
        let place = place as usize;
        self.places[slot as usize] = NONE;
        let (key, _) = self.entries.swap_remove(place);
        if let Some(&(moved, other)) = self.entries.get(place) {
            self.places[other as usize] = place as u32;
            if moved < key {
                self.rise(place);
            } else {
                self.sink(place);
            }
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.entries.swap(a, b);
        self.places[self.entries[a].1 as usize] = a as u32;
        self.places[self.entries[b].1 as usize] = b as u32;
    }

    fn rise(&mut self, mut place: usize) {
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.entries[parent].0 <= self.entries[place].0 {
                return;
            }
            self.swap(parent, place);
            place = parent;
        }
    }

    fn sink(&mut self, mut place: usize) {
        loop {
            let left = 2 * place + 1;
            let Some(&(left_key, _)) = self.entries.get(left) else {
                return;
            };
            let right_is_less = self.entries.get(left + 1).is_some_and(|&(right_key, _)| right_key < left_key);
            let child = if right_is_less { left + 1 } else { left };
            if self.entries[place].0 <= self.entries[child].0 {
                return;
            }
            self.swap(place, child);
            place = child;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Against a map scanned for its minimum.
        #[test]
        fn agrees_with_a_sorted_map(changes in prop::collection::vec((0u32..24, prop::option::of(0u64..40)), 1..200)) {
            let mut heap = Heap::new(24);
            let mut model = BTreeMap::new();
            for (slot, key) in changes {
                match key {
                    Some(key) => {
                        heap.set(slot, (key, slot as u64));
                        model.insert(slot, (key, slot as u64));
                    }
                    None => {
                        heap.remove(slot);
                        model.remove(&slot);
                    }
                }
                let smallest = model.iter().map(|(&slot, &key)| (key, slot)).min();
                prop_assert_eq!(heap.first(), smallest);
                prop_assert_eq!(heap.len() as usize, model.len());
                for slot in 0..24 {
                    prop_assert_eq!(heap.key(slot), model.get(&slot).copied());
                    prop_assert_eq!(heap.contains(slot), model.contains_key(&slot));
                }
            }
        }
    }
}
