//! Concurrency policies: how many invocations run at once on a shard.
//!
//! Invariant: the limit is at least 1, so work always goes on. Does not know which invocation gets a free place: that
//! is the queue policy's.

mod fixed;

use crate::limits::LimitError;

/// How many invocations run at once.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ConcurrencyPolicy {
    /// Always the same number.
    Fixed {
        /// Lanes in use at once over all sandboxes; `u32::MAX` leaves the bound to the sandboxes' lanes.
        running: u32,
    },
}

impl Default for ConcurrencyPolicy {
    fn default() -> ConcurrencyPolicy {
        ConcurrencyPolicy::Fixed { running: u32::MAX }
    }
}

impl ConcurrencyPolicy {
    pub(crate) fn check(self) -> Result<(), LimitError> {
        match self {
            ConcurrencyPolicy::Fixed { running } => fixed::check(running),
        }
    }

    pub(crate) fn limit(self) -> u32 {
        match self {
            ConcurrencyPolicy::Fixed { running } => fixed::limit(running),
        }
    }
}
