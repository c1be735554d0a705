//! Keep-alive policies: which idle sandbox goes when room is wanted, and for how long one is kept when it is not.
//!
//! Invariant: decided once, when a sandbox becomes idle; the engine keeps the order and the time. Does not know who
//! wants the room.

mod lru;
mod ttl;

use crate::units::Nanos;

/// What becomes of idle sandboxes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum KeepAlivePolicy {
    /// Kept without limit; the least recently used one goes when room is wanted.
    #[default]
    Lru,
    /// Kept for a fixed time; earlier, as with `Lru`, when room is wanted.
    Ttl {
        /// From becoming idle until killed.
        idle: Nanos,
    },
}

/// What is known of a sandbox that becomes idle.
pub(crate) struct Idle {
    pub(crate) since: Nanos,
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
        }
    }
}
