//! A set of shards as four words, so that a route can be copied without an allocation.
//!
//! Invariant: no member is `Owners::MOST` or above. Does not know what the shards own.

/// A set of shards, each numbered below [`Owners::MOST`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Owners {
    words: [u64; 4],
}

impl Owners {
    /// One above the highest number that a shard can have.
    pub const MOST: u32 = 256;

    /// Nobody.
    pub const NONE: Owners = Owners { words: [0; 4] };

    /// This shard alone.
    ///
    /// # Panics
    /// If its number is [`Owners::MOST`] or above; as with `insert` and `remove`.
    #[must_use]
    pub fn only(shard: u32) -> Owners {
        let mut owners = Owners::NONE;
        owners.insert(shard);
        owners
    }

    /// Whether the shard is a member; none is whose number is too high.
    #[must_use]
    pub fn contains(&self, shard: u32) -> bool {
        shard < Owners::MOST && self.words[shard as usize / 64] >> (shard % 64) & 1 == 1
    }

    /// Adds a shard.
    pub fn insert(&mut self, shard: u32) {
        self.words[shard as usize / 64] |= 1 << (shard % 64);
    }

    /// Takes a shard out.
    pub fn remove(&mut self, shard: u32) {
        self.words[shard as usize / 64] &= !(1 << (shard % 64));
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words == [0; 4]
    }

    /// The members, in rising order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + use<> {
        let words = self.words;
        (0..4).flat_map(move |number| {
            let mut left = words[number as usize];
            core::iter::from_fn(move || {
                let lowest = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some(number * 64 + lowest)
            })
        })
    }

    /// One of the members; consecutive salts go through all of them in turn. None of none.
    #[must_use]
    pub fn pick(&self, salt: u64) -> Option<u32> {
        let number = salt.checked_rem(u64::from(self.len()))?;
        self.iter().nth(number as usize)
    }

    /// The members that `other` has not.
    #[must_use]
    pub fn without(&self, other: Owners) -> Owners {
        Owners { words: core::array::from_fn(|number| self.words[number] & !other.words[number]) }
    }

    /// The members of either.
    #[must_use]
    pub fn with(&self, other: Owners) -> Owners {
        Owners { words: core::array::from_fn(|number| self.words[number] | other.words[number]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    proptest! {
        #[test]
        fn agrees_with_a_set(changes in prop::collection::vec((0..Owners::MOST, any::<bool>()), 0..300), salt: u64) {
            let (mut owners, mut model) = (Owners::NONE, BTreeSet::new());
            for (shard, is_added) in changes {
                if is_added {
                    owners.insert(shard);
                    model.insert(shard);
                } else {
                    owners.remove(shard);
                    model.remove(&shard);
                }
            }
            prop_assert_eq!(owners.iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!((owners.len() as usize, owners.is_empty()), (model.len(), model.is_empty()));
            for shard in 0..Owners::MOST + 2 {
                prop_assert_eq!(owners.contains(shard), model.contains(&shard));
            }
            let first = salt / 2;
            let picked: BTreeSet<_> = (0..model.len() as u64).map(|turn| owners.pick(first + turn).unwrap()).collect();
            prop_assert_eq!(picked, model);
        }
    }

    #[test]
    fn nobody_can_be_picked_from_none() {
        assert_eq!(Owners::NONE.pick(7), None);
    }

    #[test]
    fn sets_are_taken_apart_and_put_together() {
        let (a, b) = (Owners::only(3).with(Owners::only(200)), Owners::only(200));
        assert_eq!(a.without(b), Owners::only(3));
        assert_eq!(a.without(b).with(b), a);
    }
}
