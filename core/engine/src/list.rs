//! Doubly linked lists threaded through a [`Slab`]: constant-time removal from the middle, no allocation.
//!
//! Invariant: an entry is in at most one list of its slab, and `links` of one in no list are meaningless. Does not
//! know why anything is listed.

use crate::slab::Slab;

/// No slot.
pub(crate) const NONE: u32 = u32::MAX;

/// The neighbours of an entry in the list it is in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Links {
    previous: u32,
    next: u32,
}

impl Links {
    pub(crate) const ALONE: Links = Links { previous: NONE, next: NONE };
}

/// An entry that can be in a list.
pub(crate) trait Linked {
    fn links(&self) -> &Links;
    fn links_mut(&mut self) -> &mut Links;
}

/// A list's ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List {
    front: u32,
    back: u32,
    len: u32,
}

impl List {
    pub(crate) const EMPTY: List = List { front: NONE, back: NONE, len: 0 };

    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn front(&self) -> Option<u32> {
        (self.front != NONE).then_some(self.front)
    }

    /// The entry behind this one in the list that it is in.
    pub(crate) fn after<T: Linked>(slab: &Slab<T>, index: u32) -> Option<u32> {
        let next = slab[index].links().next;
        (next != NONE).then_some(next)
    }

    pub(crate) fn push_back<T: Linked>(&mut self, slab: &mut Slab<T>, index: u32) {
        *slab[index].links_mut() = Links { previous: self.back, next: NONE };
        match self.back {
            NONE => self.front = index,
            back => slab[back].links_mut().next = index,
        }
        self.back = index;
        self.len += 1;
    }

    pub(crate) fn push_front<T: Linked>(&mut self, slab: &mut Slab<T>, index: u32) {
        *slab[index].links_mut() = Links { previous: NONE, next: self.front };
        match self.front {
            NONE => self.back = index,
            front => slab[front].links_mut().previous = index,
        }
        self.front = index;
        self.len += 1;
    }

    pub(crate) fn remove<T: Linked>(&mut self, slab: &mut Slab<T>, index: u32) {
        let Links { previous, next } = *slab[index].links();
        match previous {
            NONE => self.front = next,
            previous => slab[previous].links_mut().next = next,
        }
        match next {
            NONE => self.back = previous,
            next => slab[next].links_mut().previous = previous,
        }
        self.len -= 1;
    }

    pub(crate) fn iter<'a, T: Linked>(&self, slab: &'a Slab<T>) -> impl Iterator<Item = u32> + 'a {
        let mut at = self.front;
        core::iter::from_fn(move || {
            let index = (at != NONE).then_some(at)?;
            at = slab[index].links().next;
            Some(index)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    struct Entry(Links);

    impl Linked for Entry {
        fn links(&self) -> &Links {
            &self.0
        }
        fn links_mut(&mut self) -> &mut Links {
            &mut self.0
        }
    }

    #[test]
    fn keeps_order_through_removals_anywhere() {
        let mut slab = Slab::new(5);
        let mut list = List::EMPTY;
        let at: Vec<u32> = (0..5).map(|_| slab.insert(Entry(Links::ALONE))).collect();
        for &index in &at[..4] {
            list.push_back(&mut slab, index);
        }
        list.push_front(&mut slab, at[4]);
        let seen = |list: &List, slab: &Slab<Entry>| list.iter(slab).collect::<Vec<_>>();
        assert_eq!(seen(&list, &slab), [4, 0, 1, 2, 3]);
        list.remove(&mut slab, at[1]);
        list.remove(&mut slab, at[4]);
        list.remove(&mut slab, at[3]);
        assert_eq!(seen(&list, &slab), [0, 2]);
        list.push_back(&mut slab, at[1]);
        assert_eq!(seen(&list, &slab), [0, 2, 1]);
        for index in [0, 2, 1] {
            assert_eq!(list.front(), Some(index));
            list.remove(&mut slab, index);
        }
        assert!(list.is_empty() && list.front().is_none());
    }
}
