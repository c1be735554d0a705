//! What the scheduler asks of its driver, and the bounded buffer it is asked through.
//!
//! Invariant: a buffer holds at most [`Effects::CAPACITY`] effects and never grows. Does not know how an effect is
//! performed, nor how long that takes.

use vilya_engine::{Bytes, EffectBuffer, FunctionId, Origin, Outcome, Refusal};

use crate::ids::{RunId, SwapId};

/// Something for the driver to do. None of it may wait for the device.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Effect {
    /// An arrival was not admitted; nothing more comes of it.
    Refuse {
        /// Who asked.
        origin: Origin,
        /// Why not.
        reason: Refusal,
    },
    /// Hand an invocation to its function, whose memory is on the device. Ends in `RunDone` or `SandboxDied`.
    StartRun {
        /// Its id from now on.
        run: RunId,
        /// Who asked.
        origin: Origin,
        /// Whose code it runs.
        function: FunctionId,
    },
    /// Move a function's memory onto the device, and start its sandbox if it has none. The room is reserved. Ends in
    /// `SwapDone` or `SandboxDied`.
    StartSwapIn {
        /// Its id.
        swap: SwapId,
        /// Whose memory.
        function: FunctionId,
        /// How much.
        memory: Bytes,
    },
    /// Move a function's memory off the device; nothing of it runs. Its room stays reserved until `SwapDone` or
    /// `SandboxDied`, one of which must follow.
    StartSwapOut {
        /// Its id.
        swap: SwapId,
        /// Whose memory.
        function: FunctionId,
        /// How much.
        memory: Bytes,
    },
    /// End a function's sandbox without saving its memory. `SandboxDied` must follow.
    Discard {
        /// Whose.
        function: FunctionId,
    },
    /// Tell the one who asked. Exactly one for each admitted invocation.
    Answer {
        /// Who asked.
        origin: Origin,
        /// How it ended.
        outcome: Outcome,
    },
    /// The scheduler holds nothing under this id; its index may be used again.
    FunctionGone {
        /// Which.
        function: FunctionId,
    },
}

/// What one step asks for, in order.
pub type Effects = EffectBuffer<Effect>;
