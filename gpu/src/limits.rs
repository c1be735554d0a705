//! The bounds of one device's scheduler, in one place.
//!
//! Invariant: a checked [`Limits`] has no zero that would stop all work and no value above what a step can handle.
//! What is full refuses; nothing grows past these. Does not know where the values came from.

use vilya_engine::{Bytes, LimitError};

use crate::effect::Effects;

/// How much the scheduler of one device may hold at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Functions known, the ones being retired included.
    pub functions: u32,
    /// Invocations waiting, over all functions.
    pub queued: u32,
    /// Invocations of one function waiting.
    pub queue_per_function: u32,
    /// Invocations that hold a place on the device at once, the ones whose memory is on its way included: the `D` of
    /// the queueing literature.
    pub running: u32,
    /// Memory of the device that functions may use. What contexts and modules take is not in it: it cannot be swapped.
    pub memory: Bytes,
}

impl Limits {
    /// The most functions that can be numbered.
    pub const MOST_FUNCTIONS: u32 = 1 << 20;
    /// The most places to run: all of them may be answered in one step.
    pub const MOST_RUNNING: u32 = 16;

    /// Whether a scheduler can be made with these.
    ///
    /// # Errors
    /// The first limit that is zero, or above what a step can handle.
    pub fn check(&self) -> Result<(), LimitError> {
        let counts = [
            ("functions", self.functions, Limits::MOST_FUNCTIONS),
            ("queued", self.queued, u32::MAX),
            ("queue_per_function", self.queue_per_function, u32::MAX),
            ("running", self.running, Limits::MOST_RUNNING),
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
        Ok(())
    }
}

/// The most effects of an event's own function, or of one unit of following work: every run of a function and one more.
pub(crate) const UNIT_EFFECTS: usize = Limits::MOST_RUNNING as usize + 1;

const _: () = assert!(Effects::CAPACITY >= 2 * UNIT_EFFECTS, "an event and one unit of work must fit in a step");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_would_stop_all_work_is_named() {
        let good = Limits { functions: 1, queued: 1, queue_per_function: 1, running: 1, memory: Bytes::from_bytes(1) };
        assert_eq!(good.check(), Ok(()));
        let zero = |name| Err(LimitError::Zero { name });
        assert_eq!(Limits { functions: 0, ..good }.check(), zero("functions"));
        assert_eq!(Limits { queued: 0, ..good }.check(), zero("queued"));
        assert_eq!(Limits { queue_per_function: 0, ..good }.check(), zero("queue_per_function"));
        assert_eq!(Limits { running: 0, ..good }.check(), zero("running"));
        assert_eq!(Limits { memory: Bytes::ZERO, ..good }.check(), zero("memory"));
        let many = Limits { running: Limits::MOST_RUNNING + 1, ..good }.check();
        assert!(matches!(many, Err(LimitError::TooLarge { name: "running", .. })));
    }
}
