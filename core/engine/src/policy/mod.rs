//! The decisions that can be made in more than one way, each behind an enum with one file a variant.
//!
//! Invariant: a policy is a function of the facts it is given; it starts nothing, holds no engine state and never
//! reads a clock. A new policy is one file, one enum variant and one line in the conformance suite. Does not know how
//! the engine stores what it orders.

pub mod balance;
pub mod concurrency;
#[cfg(test)]
mod conformance;
pub mod keepalive;
mod profile;
pub mod queue;
pub mod spread;

pub(crate) use profile::Profile;

use concurrency::ConcurrencyPolicy;
use keepalive::KeepAlivePolicy;
use queue::QueuePolicy;

use crate::units::Nanos;

/// The policies of one shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Policies {
    /// Whose turn it is.
    pub queue: QueuePolicy,
    /// Which idle sandbox goes, and when.
    pub keepalive: KeepAlivePolicy,
    /// How many invocations run at once.
    pub concurrency: ConcurrencyPolicy,
    /// How long a run takes before its sandbox gives way to others; none: it never does.
    pub quantum: Option<Nanos>,
}
