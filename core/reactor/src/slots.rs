//! Operations in flight: a slab of slots with generations.
//!
//! Invariant: a slot, and the data in it, stays until the kernel's last completion for it. The slab never grows beyond
//! the operations of the config; it hands a full caller nothing.

use crate::ops::Held;
use crate::token::Token;

#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) owner: u64,
    pub(crate) held: Held,
    /// The owner wants to hear no more of it.
    pub(crate) abandoned: bool,
    /// The owner wants it to end: it is not armed again.
    pub(crate) interrupted: bool,
    /// The kernel has a submission of it, or the submission queue does. False only while it waits to be armed again.
    pub(crate) armed: bool,
}

#[derive(Debug)]
enum State {
    Free { next: Option<u32> },
    Live(Slot),
}

#[derive(Debug)]
struct Cell {
    generation: u32,
    state: State,
}

#[derive(Debug)]
pub(crate) struct Slots {
    /// Grows to its capacity, which is reserved once, and never shrinks.
    cells: Vec<Cell>,
    capacity: u32,
    free: Option<u32>,
    live: u32,
}

impl Slots {
    pub(crate) fn new(capacity: u32) -> Slots {
        Slots { cells: Vec::with_capacity(capacity as usize), capacity, free: None, live: 0 }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.live == self.capacity
    }

    pub(crate) fn live(&self) -> u32 {
        self.live
    }

    /// Only when not full.
    pub(crate) fn insert(&mut self, owner: u64, held: Held) -> Token {
        assert!(!self.is_full());
        let kind = held.kind();
        let state = State::Live(Slot { owner, held, abandoned: false, interrupted: false, armed: false });
        self.live += 1;
        let Some(index) = self.free else {
            let index = self.cells.len() as u32;
            self.cells.push(Cell { generation: 0, state });
            return Token::new(kind, index, 0);
        };
        let cell = &mut self.cells[index as usize];
        let State::Free { next } = std::mem::replace(&mut cell.state, state) else {
            unreachable!("the free list names only free slots");
        };
        self.free = next;
        Token::new(kind, index, cell.generation)
    }

    /// `None`: the slot was given away since, or never existed.
    pub(crate) fn get_mut(&mut self, token: Token) -> Option<&mut Slot> {
        let cell = self.cells.get_mut(token.index() as usize)?;
        match &mut cell.state {
            State::Live(slot) if cell.generation == token.generation() && Some(slot.held.kind()) == token.kind() => {
                Some(slot)
            }
            _ => None,
        }
    }

    /// Ends a slot: the kernel is done with what it holds.
    pub(crate) fn remove(&mut self, token: Token) -> Option<Slot> {
        self.get_mut(token)?;
        let cell = &mut self.cells[token.index() as usize];
        cell.generation = cell.generation.wrapping_add(1);
        let State::Live(slot) = std::mem::replace(&mut cell.state, State::Free { next: self.free }) else {
            unreachable!("get_mut has just seen it live");
        };
        self.free = Some(token.index());
        self.live -= 1;
        Some(slot)
    }

    /// Every live slot with its token.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (Token, &mut Slot)> {
        self.cells.iter_mut().enumerate().filter_map(|(index, cell)| match &mut cell.state {
            State::Live(slot) => Some((Token::new(slot.held.kind(), index as u32, cell.generation), slot)),
            State::Free { .. } => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(fd: i32) -> Held {
        Held::Poll { fd }
    }

    #[test]
    fn a_token_dies_with_its_slot() {
        let mut slots = Slots::new(2);
        let first = slots.insert(1, poll(5));
        let second = slots.insert(2, poll(6));
        assert!(slots.is_full());
        assert_eq!(slots.remove(first).map(|slot| slot.owner), Some(1));
        assert!(slots.remove(first).is_none());
        let third = slots.insert(3, poll(7));
        assert_eq!(third.index(), first.index());
        assert_ne!(third, first);
        assert!(slots.get_mut(first).is_none());
        assert_eq!(slots.get_mut(third).map(|slot| slot.owner), Some(3));
        assert_eq!(slots.get_mut(second).map(|slot| slot.owner), Some(2));
        assert_eq!(slots.iter_mut().count(), 2);
    }

    #[test]
    fn a_token_of_another_kind_names_nothing() {
        let mut slots = Slots::new(1);
        let token = slots.insert(1, poll(5));
        let forged = Token::new(crate::token::Kind::Accept, token.index(), token.generation());
        assert!(slots.get_mut(forged).is_none());
    }
}
