//! A slab with generations: values under 56-bit keys, so that a key and a kind fit one 64-bit token.
//!
//! Invariant: a key handed out by `insert` finds its value until `remove`, and nothing after, because the slot's
//! generation moves on (it wraps after 2^24 tenants of one slot). Capacity is fixed; a full slab refuses. It knows
//! nothing of what it holds.

const GENERATIONS: u32 = (1 << 24) - 1;

/// The key of a value: slot in bits 0 to 31, generation in bits 32 to 55.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key(pub(crate) u64);

impl Key {
    pub(crate) const fn index(self) -> u32 {
        self.0 as u32
    }

    const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// Values under generational keys.
pub(crate) struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    capacity: usize,
}

impl<T> Slots<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        Slots { slots: Vec::new(), free: Vec::new(), capacity }
    }

    /// Stores `value`, or gives it back when the slab is full.
    pub(crate) fn insert(&mut self, value: T) -> Result<Key, T> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.slots.len() < self.capacity => {
                self.slots.push(Slot { generation: 1, value: None });
                (self.slots.len() - 1) as u32
            }
            None => return Err(value),
        };
        let slot = &mut self.slots[index as usize];
        slot.value = Some(value);
        Ok(Key(u64::from(slot.generation) << 32 | u64::from(index)))
    }

    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        let slot = self.slots.get(key.index() as usize)?;
        if slot.generation == key.generation() { slot.value.as_ref() } else { None }
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.index() as usize)?;
        if slot.generation == key.generation() { slot.value.as_mut() } else { None }
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut(key.index() as usize)?;
        if slot.generation != key.generation() {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = slot.generation % GENERATIONS + 1;
        self.free.push(key.index());
        Some(value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let key = Key(u64::from(slot.generation) << 32 | index as u64);
            slot.value.as_ref().map(|value| (key, value))
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_key_never_finds_the_next_tenant() {
        let mut slots = Slots::new(1);
        let first = slots.insert("first").expect("room");
        assert_eq!(slots.insert("too many"), Err("too many"));
        assert_eq!(slots.remove(first), Some("first"));
        let second = slots.insert("second").expect("room again");
        assert_eq!(first.index(), second.index());
        assert_eq!(slots.get(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get(second), Some(&"second"));
        assert_eq!(slots.len(), 1);
    }
}
