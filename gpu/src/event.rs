//! What can happen to the scheduler of one device.
//!
//! Invariant: an event is a fact about the past; one that names something the scheduler does not hold (a late report)
//! changes nothing. Does not know who found out, or how.

use vilya_engine::{Bytes, FunctionId, Origin, RunResult};

use crate::ids::{RunId, SwapId};

/// What a function needs of the device.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FlowSpec {
    /// Memory that must be on the device while it runs.
    pub memory: Bytes,
    /// Its share of the device beside the others' while all have work. 0 is taken as 1.
    pub weight: u32,
}

/// Something that happened.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// A function may be invoked from now on. One that cannot be taken (its index is beyond the limit, or still in
    /// use) is answered with [`Effect::FunctionGone`](crate::Effect::FunctionGone).
    FunctionAdded {
        /// The driver's number for it.
        function: FunctionId,
        /// What it needs.
        spec: FlowSpec,
    },
    /// Removed or replaced: no new arrivals; queued and running ones finish; then its sandbox is discarded and
    /// [`Effect::FunctionGone`](crate::Effect::FunctionGone) follows, after which the index may be used again.
    FunctionRetired {
        /// Which.
        function: FunctionId,
    },
    /// Somebody wants a function invoked on the device.
    Arrive {
        /// Handed back with whatever comes of it.
        origin: Origin,
        /// Which.
        function: FunctionId,
    },
    /// A run ended.
    RunDone {
        /// Which.
        run: RunId,
        /// How.
        result: RunResult,
    },
    /// A swap ended, and all of the function's memory is where it was to go. One that fails is reported as
    /// [`Event::SandboxDied`] instead, after its sandbox has been ended: half-moved memory is good for nothing.
    SwapDone {
        /// Which.
        swap: SwapId,
    },
    /// The process of a function is gone, and nothing of it is left on the device.
    SandboxDied {
        /// Whose.
        function: FunctionId,
    },
    /// Time has passed, or work was left over.
    Tick,
}
