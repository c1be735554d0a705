//! A table of fixed size whose slots are numbered and reused, each use with a new generation.
//!
//! Invariant: never more entries than the capacity given, all of it allocated at once; a generation is never 0.
//! Does not know what it holds.

use alloc::vec::Vec;
use core::ops::{Index, IndexMut};

use crate::list::NONE;

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    next_free: u32,
    value: Option<T>,
}

/// Slots reused last-in first-out, so that the warm ones stay warm.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    slots: Vec<Slot<T>>,
    capacity: u32,
    free: u32,
    len: u32,
}

impl<T> Slab<T> {
    pub(crate) fn new(capacity: u32) -> Slab<T> {
        Slab { slots: Vec::with_capacity(capacity as usize), capacity, free: NONE, len: 0 }
    }

    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len == self.capacity
    }

    /// The slot of a new entry. The caller has checked that there is room.
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        assert!(!self.is_full(), "an entry was added to a full table");
        self.len += 1;
        if self.free != NONE {
            let index = self.free;
            let slot = &mut self.slots[index as usize];
            self.free = slot.next_free;
            slot.value = Some(value);
            return index;
        }
        let index = self.slots.len() as u32;
        self.slots.push(Slot { generation: 1, next_free: NONE, value: Some(value) });
        index
    }

    pub(crate) fn remove(&mut self, index: u32) -> T {
        let slot = &mut self.slots[index as usize];
        let value = slot.value.take().expect("only an entry that is held is removed");
        slot.generation = slot.generation.checked_add(1).unwrap_or(1);
        slot.next_free = self.free;
        self.free = index;
        self.len -= 1;
        value
    }

    pub(crate) fn generation(&self, index: u32) -> u32 {
        self.slots[index as usize].generation
    }

    /// Whether this use of this slot is the present one.
    pub(crate) fn holds(&self, index: u32, generation: u32) -> bool {
        self.slots.get(index as usize).is_some_and(|slot| slot.generation == generation && slot.value.is_some())
    }

    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        self.slots.get(index as usize)?.value.as_ref()
    }

    /// One past the highest slot ever used.
    pub(crate) fn end(&self) -> u32 {
        self.slots.len() as u32
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| Some((index as u32, slot.value.as_ref()?)))
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, index: u32) -> &T {
        self.slots[index as usize].value.as_ref().expect("an index kept by the engine names an entry it holds")
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, index: u32) -> &mut T {
        self.slots[index as usize].value.as_mut().expect("an index kept by the engine names an entry it holds")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_used_again_has_another_generation() {
        let mut slab = Slab::new(2);
        let first = slab.insert('a');
        let generation = slab.generation(first);
        assert!(slab.holds(first, generation));
        assert_eq!(slab.remove(first), 'a');
        assert!(!slab.holds(first, generation));
        assert!(!slab.holds(first, slab.generation(first)), "a free slot holds nothing, whatever the generation");
        let again = slab.insert('b');
        assert_eq!(again, first);
        assert!(!slab.holds(first, generation));
        assert!(slab.holds(first, slab.generation(first)));
    }

    #[test]
    fn generations_skip_zero() {
        let mut slab = Slab::new(1);
        let index = slab.insert(());
        slab.slots[0].generation = u32::MAX;
        slab.remove(index);
        assert_eq!(slab.generation(index), 1);
    }

    #[test]
    #[should_panic(expected = "full table")]
    fn never_more_than_its_capacity() {
        let mut slab = Slab::new(1);
        slab.insert(());
        slab.insert(());
    }
}
