//! Balance policies: which shard owns a function.
//!
//! Invariant: a pure function of the name and the number of shards, the same on every machine and in every version,
//! so that a client that hashes the name itself reaches the owner. Does not know what a shard is doing.

mod home;

pub use home::stable_hash;

/// Which shard owns a function.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum BalancePolicy {
    /// One home shard a function, by a stable hash of its name.
    #[default]
    Home,
}

impl BalancePolicy {
    /// The owner of the function called `name` among `shards` shards: a number below `shards`, 0 when there are none.
    pub fn shard(self, name: &[u8], shards: u32) -> u32 {
        match self {
            BalancePolicy::Home => home::shard(name, shards),
        }
    }
}
