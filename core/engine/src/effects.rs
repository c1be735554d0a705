//! What a step leaves for its driver to do, bounded.
//!
//! Invariant: never more than its capacity, and never grown. Does not know what an effect is, so that every scheduler
//! written as a `step` shares it.

use alloc::vec::Vec;

/// What one step asks for, in order.
#[derive(Debug)]
pub struct EffectBuffer<T> {
    list: Vec<T>,
}

impl<T> EffectBuffer<T> {
    /// The most that one step emits. Work beyond it is continued by the next step.
    pub const CAPACITY: usize = 64;

    /// An empty buffer; allocates once, here.
    pub fn new() -> EffectBuffer<T> {
        EffectBuffer { list: Vec::with_capacity(Self::CAPACITY) }
    }

    /// The effects, oldest first.
    pub fn iter(&self) -> core::slice::Iter<'_, T> {
        self.list.iter()
    }

    /// Takes the effects out, oldest first; the buffer is empty afterwards.
    pub fn drain(&mut self) -> impl Iterator<Item = T> + '_ {
        self.list.drain(..)
    }

    /// Forgets the effects.
    pub fn clear(&mut self) {
        self.list.clear();
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// How many more fit.
    pub fn room(&self) -> usize {
        Self::CAPACITY - self.list.len()
    }

    /// Adds one; for the scheduler whose step it is.
    ///
    /// # Panics
    /// If it is full: the scheduler counts the room before it acts.
    pub fn push(&mut self, effect: T) {
        assert!(self.list.len() < Self::CAPACITY, "a step emitted more effects than its bound");
        self.list.push(effect);
    }
}

impl<T> Default for EffectBuffer<T> {
    fn default() -> EffectBuffer<T> {
        EffectBuffer::new()
    }
}

impl<'a, T> IntoIterator for &'a EffectBuffer<T> {
    type Item = &'a T;
    type IntoIter = core::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
