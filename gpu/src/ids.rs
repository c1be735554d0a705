//! Names for what the scheduler and its driver talk about.
//!
//! Invariant: an id is a slot and a generation, so a report that arrives late for a slot used again is recognised.
//! Functions are numbered by the driver, runs and swaps by the scheduler, whose generations start at 1.

/// An invocation from the moment it takes one of the device's places to run. The scheduler allots it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RunId {
    /// The place: below [`Limits::running`](crate::Limits::running).
    pub index: u32,
    /// Which use of the place.
    pub generation: u32,
}

/// A move of a function's memory onto the device or off it. The scheduler allots it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SwapId {
    /// The index of the function whose memory moves.
    pub index: u32,
    /// Which move: no two that are remembered at once have the same.
    pub generation: u32,
}
