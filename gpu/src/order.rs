//! Numbered entries in the order of a key that can change: the smallest key is first, equal keys by number.
//!
//! Invariant: a number is in it at most once, under the key it was last given. Every change is logarithmic. Does not
//! know what is ordered.

use std::collections::BTreeSet;

/// Logarithmic `set` and `remove` by number.
#[derive(Debug)]
pub(crate) struct Order<K> {
    entries: BTreeSet<(K, u32)>,
    /// By number: the key it is under.
    keys: Vec<Option<K>>,
}

impl<K: Ord + Copy> Order<K> {
    pub(crate) fn new(numbers: u32) -> Order<K> {
        Order { entries: BTreeSet::new(), keys: vec![None; numbers as usize] }
    }

    /// The smallest key and its number.
    pub(crate) fn first(&self) -> Option<(K, u32)> {
        self.entries.first().copied()
    }

    /// In with this key, or out.
    pub(crate) fn place(&mut self, number: u32, key: Option<K>) {
        let present = &mut self.keys[number as usize];
        if *present == key {
            return;
        }
        if let Some(old) = present.take() {
            self.entries.remove(&(old, number));
        }
        *present = key;
        if let Some(new) = key {
            self.entries.insert((new, number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn the_first_is_the_smallest_of_what_is_in_it(
            changes in proptest::collection::vec((0u32..16, proptest::option::of(0u32..8)), 0..200),
        ) {
            let mut order = Order::new(16);
            let mut model = HashMap::new();
            for (number, key) in changes {
                order.place(number, key);
                match key {
                    Some(key) => model.insert(number, key),
                    None => model.remove(&number),
                };
                prop_assert_eq!(order.first(), model.iter().map(|(&number, &key)| (key, number)).min());
            }
        }
    }
}
