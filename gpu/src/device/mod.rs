//! What the GPU core needs of a device.
//!
//! Invariant: no call waits for the device; what was started ends in exactly one completion, unless its function is
//! discarded first. A device holds its own memory to its own size: a mistake of the scheduler is an error here, not a
//! crash there. Does not know queues, policies or who asked.

pub mod simulated;

use std::fmt;

use vilya_engine::{Bytes, FunctionId, RunResult};

use crate::event::Event;
use crate::ids::{RunId, SwapId};

/// Which way memory moves.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// Onto the device.
    In,
    /// Off it.
    Out,
}

/// A move of all of a function's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Swap {
    /// Named in the completion.
    pub id: SwapId,
    /// Whose memory.
    pub function: FunctionId,
    /// How much.
    pub memory: Bytes,
    /// Which way.
    pub direction: Direction,
}

/// One device, polled by the thread that owns it.
pub trait Device {
    /// Memory that functions may use.
    fn memory(&self) -> Bytes;

    /// Starts a run of a function whose memory is on the device.
    ///
    /// # Errors
    /// Nothing was started: the memory is not there, the run's id is in use, or the device failed.
    fn start_run(&mut self, run: RunId, function: FunctionId) -> Result<(), DeviceError>;

    /// Starts to move a function's memory.
    ///
    /// # Errors
    /// Nothing was started: there is no room, the memory is not where it should move from, a run uses it, or the
    /// device failed.
    fn start_swap(&mut self, swap: Swap) -> Result<(), DeviceError>;

    /// Gives up whatever of a function is on the device, its runs and swaps included: its process has ended. What had
    /// not ended by then never completes.
    fn discard(&mut self, function: FunctionId);

    /// The next thing that has ended, oldest first; `None` when nothing more has by now.
    fn poll(&mut self) -> Option<Completion>;
}

/// Something that was started and has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Completion {
    /// A run.
    Run {
        /// Which.
        run: RunId,
        /// How.
        result: RunResult,
    },
    /// A swap.
    Swap {
        /// Which.
        swap: SwapId,
    },
}

impl From<Completion> for Event {
    fn from(completion: Completion) -> Event {
        match completion {
            Completion::Run { run, result } => Event::RunDone { run, result },
            Completion::Swap { swap } => Event::SwapDone { swap },
        }
    }
}

/// Why a device did not start something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceError {
    /// There is not so much free memory.
    OutOfMemory {
        /// Asked for.
        wanted: Bytes,
        /// Free.
        free: Bytes,
    },
    /// The function's memory is not where this needs it.
    Misplaced {
        /// Whose.
        function: FunctionId,
    },
    /// A run uses the memory that was to move.
    InUse {
        /// Whose.
        function: FunctionId,
    },
    /// A run under this index has not ended.
    DuplicateRun {
        /// Which.
        run: RunId,
    },
    /// The device does not know the function.
    UnknownFunction {
        /// Which.
        function: FunctionId,
    },
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceError::OutOfMemory { wanted, free } => write!(
                f,
                "the device has {} bytes free and {} were wanted: reserve room before a swap",
                free.as_bytes(),
                wanted.as_bytes()
            ),
            DeviceError::Misplaced { function } => {
                write!(f, "the memory of {function:?} is elsewhere: finish its swap before this")
            }
            DeviceError::InUse { function } => {
                write!(f, "a run uses the memory of {function:?}: wait for its end before the swap")
            }
            DeviceError::DuplicateRun { run } => write!(f, "{run:?} has not ended: use another index"),
            DeviceError::UnknownFunction { function } => {
                write!(f, "the device does not know {function:?}: describe it first")
            }
        }
    }
}

impl std::error::Error for DeviceError {}
