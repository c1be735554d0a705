//! Queue policies: which function's oldest waiting invocation goes next, when not all can.
//!
//! Invariant: smaller key first, equal keys by arrival; within one function invocations never overtake each other.
//! A key depends only on the function's own facts, so one function's change never reorders the others.

mod fcfs;
mod sjf;

use crate::policy::Profile;
use crate::units::Nanos;

/// Who goes next: for a place to run, and for room to start a sandbox.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum QueuePolicy {
    /// First come, first served.
    #[default]
    Fcfs,
    /// Shortest job first: by the function's average warm run. A function not yet measured goes first.
    Sjf,
}

/// What is known of the oldest waiting invocation of a function.
pub(crate) struct Waiting<'a> {
    pub(crate) arrived: Nanos,
    pub(crate) profile: &'a Profile,
}

impl QueuePolicy {
    pub(crate) fn key(self, waiting: &Waiting<'_>) -> u64 {
        match self {
            QueuePolicy::Fcfs => fcfs::key(waiting),
            QueuePolicy::Sjf => sjf::key(waiting),
        }
    }
}
