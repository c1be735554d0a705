//! The bounds of a shard, in one place.
//!
//! Invariant: a checked [`Limits`] has no zero that would stop all work and no value above what the tables can
//! number. Everything sized by a limit is allocated when the engine is made. Does not know where the values came from.

use core::fmt;

use crate::list::NONE;
use crate::units::{Bytes, Nanos};

/// How much a shard may hold at once. What is full refuses; nothing grows past these.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Functions known, the ones being retired included.
    pub functions: u32,
    /// Invocations admitted and unfinished, the reserved included. One whose client left, that ran out of time or whose
    /// answer is being sent counts until its lane is free again.
    pub invocations: u32,
    /// Invocations of one function waiting.
    pub queue_per_function: u32,
    /// Sandboxes alive, from the decision to start until death.
    pub sandboxes: u32,
    /// Sandboxes of one function alive.
    pub sandboxes_per_function: u32,
    /// Starts under way at once.
    pub starting: u32,
    /// Sum of the memory of the sandboxes alive and of the layers that have a place.
    pub memory: Bytes,
    /// From the decision to start a sandbox until it must be ready.
    pub start_timeout: Nanos,
    /// From [`Event::Drain`](crate::Event::Drain) until what still runs is killed.
    pub drain_timeout: Nanos,
}

impl Limits {
    /// The most functions a shard can number.
    pub const MOST_FUNCTIONS: u32 = 1 << 20;
    /// The most invocations a shard can number.
    pub const MOST_INVOCATIONS: u32 = 1 << 22;
    /// The most sandboxes a shard can number.
    pub const MOST_SANDBOXES: u32 = 1 << 20;

    /// The starts under way beyond which none begins that nobody waits for.
    pub(crate) fn warm_starting(&self) -> u32 {
        (self.starting / 2).max(1)
    }

    /// Whether an engine can be made with these.
    ///
    /// # Errors
    /// The first limit that is zero, or above what the engine can number.
    pub fn check(&self) -> Result<(), LimitError> {
        let counts = [
            ("functions", self.functions, Limits::MOST_FUNCTIONS),
            ("invocations", self.invocations, Limits::MOST_INVOCATIONS),
            ("queue_per_function", self.queue_per_function, u32::MAX),
            ("sandboxes", self.sandboxes, Limits::MOST_SANDBOXES),
            ("sandboxes_per_function", self.sandboxes_per_function, u32::MAX),
            ("starting", self.starting, u32::MAX),
        ];
        for (name, value, most) in counts {
            if value == 0 {
                return Err(LimitError::Zero { name });
            }
            if value > most {
                return Err(LimitError::TooLarge { name, value, most });
            }
        }
        if self.memory == Bytes::ZERO {
            return Err(LimitError::Zero { name: "memory" });
        }
        if self.start_timeout == Nanos::ZERO {
            return Err(LimitError::Zero { name: "start_timeout" });
        }
        Ok(())
    }
}

const _: () = assert!(Limits::MOST_FUNCTIONS < NONE);
const _: () = assert!(Limits::MOST_INVOCATIONS < NONE);
const _: () = assert!(Limits::MOST_SANDBOXES < NONE);

/// Why an engine cannot be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LimitError {
    /// This limit would stop all work.
    Zero {
        /// The field.
        name: &'static str,
    },
    /// This limit is above what the engine can number.
    TooLarge {
        /// The field.
        name: &'static str,
        /// What was asked.
        value: u32,
        /// The most that can be asked.
        most: u32,
    },
}

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LimitError::Zero { name } => write!(f, "the limit `{name}` is 0: set it to at least 1"),
            LimitError::TooLarge { name, value, most } => {
                write!(f, "the limit `{name}` is {value}: set it to at most {most}")
            }
        }
    }
}

impl core::error::Error for LimitError {}
