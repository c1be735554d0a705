//! Keep-alive policies: what idle goes when room is wanted, a sandbox or the layer of a function, and for how long one is
//! kept when it is not.
//!
//! Invariant: sandboxes and layers are weighed by one measure, from the same facts. Decided when something becomes idle,
//! and again when room is wanted or a layer came; the engine keeps the order and the time. Does not know who wants the room.

mod greedy_dual;
mod lru;
mod ttl;

use crate::units::{Bytes, Nanos};

/// What becomes of idle sandboxes and layers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum KeepAlivePolicy {
    /// Kept without limit; the least recently used one goes when room is wanted, sandboxes before layers.
    #[default]
    Lru,
    /// Kept for a fixed time; earlier, as with `Lru`, when room is wanted.
    Ttl {
        /// From becoming idle until killed.
        idle: Nanos,
    },
    /// Kept without limit; what spares the least start time for its memory goes when room is wanted.
    GreedyDual,
}

/// What is idle.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Kind {
    #[default]
    Sandbox,
    Layer,
}

/// What is known of a sandbox in which nothing runs, or of a layer that no sandbox was started from.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Idle {
    pub(crate) kind: Kind,
    pub(crate) since: Nanos,
    /// The largest priority that had been evicted then.
    pub(crate) clock: u64,
    /// Invocations of its function since the shard had neither sandbox nor layer of it.
    pub(crate) uses: u64,
    /// What the function's next start takes more without it.
    pub(crate) cost: Nanos,
    pub(crate) memory: Bytes,
}

/// What a policy decides about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Retention {
    /// When room is wanted the smallest goes first; equal ones in the order in which they became idle.
    pub(crate) priority: u64,
    /// When it goes even if nobody wants room; `None`: never.
    pub(crate) until: Option<Nanos>,
}

impl KeepAlivePolicy {
    pub(crate) fn retain(self, idle: &Idle) -> Retention {
        match self {
            KeepAlivePolicy::Lru => lru::retain(idle),
            KeepAlivePolicy::Ttl { idle: keep } => ttl::retain(idle, keep),
            KeepAlivePolicy::GreedyDual => greedy_dual::retain(idle),
        }
    }
}
