//! Spread policies: how many shards own a function that one shard cannot serve, and which.
//!
//! Invariant: the home shard is always among the owners, so there is always one; a function of the facts of one
//! interval and of what was decided in the one before. Does not know how the facts are measured, nor how a function is
//! given to a shard and taken back.

mod auto;
mod owners;

pub use owners::Owners;

/// Which shards own a function.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum SpreadPolicy {
    /// The home shard, always.
    Off,
    /// More while the owners are saturated and others are not, fewer again when fewer would do.
    #[default]
    Auto,
    /// Every shard, always: whoever accepts a connection runs what it asks for, in sandboxes of its own.
    Everywhere,
}

/// What is decided about one function, and what the next decision must know of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spreading {
    /// The shard that owns it when nothing else is decided.
    pub home: u32,
    /// The shards that own it.
    pub owners: Owners,
    /// Intervals in a row in which it could do with more owners.
    hot: u32,
    /// Intervals in a row in which it could do with fewer.
    cool: u32,
}

impl Spreading {
    /// A function that its home shard owns alone.
    ///
    /// # Panics
    /// If `home` is [`Owners::MOST`] or above.
    #[must_use]
    pub fn at(home: u32) -> Spreading {
        Spreading { home, owners: Owners::only(home), hot: 0, cool: 0 }
    }
}

/// What was measured in one interval. Slices are by shard; a shard beyond their end did nothing.
#[derive(Clone, Copy, Debug)]
pub struct Demand<'a> {
    /// Thousandths of the interval in which the shard was busy, with whatever it was.
    pub busy: &'a [u32],
    /// Thousandths of the interval that the shard spent on this function: running it, or passing it on to an owner.
    pub work: &'a [u32],
    /// Shards that cannot become owners: they have not finished what they had as one before.
    pub barred: Owners,
}

impl SpreadPolicy {
    /// Who owns a function from its deployment on, among `shards` shards.
    ///
    /// # Panics
    /// If `home` is [`Owners::MOST`] or above.
    #[must_use]
    pub fn first(self, home: u32, shards: u32) -> Spreading {
        let mut spreading = Spreading::at(home);
        if self == SpreadPolicy::Everywhere {
            (0..shards.min(Owners::MOST)).for_each(|shard| spreading.owners.insert(shard));
        }
        spreading
    }

    /// The decision for the next interval.
    #[must_use]
    pub fn next(self, spreading: &Spreading, demand: &Demand<'_>) -> Spreading {
        match self {
            SpreadPolicy::Off => Spreading::at(spreading.home),
            SpreadPolicy::Auto => auto::next(spreading, demand),
            SpreadPolicy::Everywhere => *spreading,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_differ_in_who_owns_a_function_at_first_and_in_what_moves() {
        let demand = Demand { busy: &[1000, 0, 0], work: &[1000, 0, 0], barred: Owners::NONE };
        for (policy, first, moves) in
            [(SpreadPolicy::Off, 1, false), (SpreadPolicy::Auto, 1, true), (SpreadPolicy::Everywhere, 3, false)]
        {
            let mut spreading = policy.first(0, 3);
            assert_eq!(spreading.owners.len(), first, "{policy:?}");
            assert!(spreading.owners.contains(0));
            for _ in 0..10 {
                spreading = policy.next(&spreading, &demand);
            }
            assert_eq!(spreading.owners.len() != first, moves, "{policy:?}");
        }
    }
}
