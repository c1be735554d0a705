//! What was measured of a function, for policies to weigh.
//!
//! Does not know which policy reads it.

use crate::average::MovingAverage;
use crate::units::Nanos;

/// Moving averages of one function.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Profile {
    warm_run: MovingAverage,
}

impl Profile {
    /// From dispatch to completion of runs in a sandbox that was already started; `None` before the first.
    pub(crate) fn warm_run(&self) -> Option<Nanos> {
        self.warm_run.value()
    }

    pub(crate) fn record_warm_run(&mut self, took: Nanos) {
        self.warm_run.record(took);
    }
}
