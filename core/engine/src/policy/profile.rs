//! What was measured of a function, for policies to weigh.
//!
//! Does not know which policy reads it.

use crate::average::MovingAverage;
use crate::units::Nanos;

/// Moving averages of one function.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Profile {
    warm_run: MovingAverage,
    whole_start: MovingAverage,
    layer_start: MovingAverage,
}

impl Profile {
    /// From dispatch to completion of runs in a sandbox that was already started; `None` before the first.
    pub(crate) fn warm_run(&self) -> Option<Nanos> {
        self.warm_run.value()
    }

    pub(crate) fn record_warm_run(&mut self, took: Nanos) {
        self.warm_run.record(took);
    }

    /// From the decision to start a sandbox until it was ready, from the function's layer or without it.
    pub(crate) fn record_start(&mut self, took: Nanos, from_layer: bool) {
        if from_layer { self.layer_start.record(took) } else { self.whole_start.record(took) }
    }

    /// What the next start is expected to take; the other kind's time before the first of its own.
    pub(crate) fn start(&self, from_layer: bool) -> Nanos {
        let (whole, layer) = (self.whole_start.value(), self.layer_start.value());
        let expected = if from_layer { layer.or(whole) } else { whole.or(layer) };
        expected.unwrap_or(Nanos::ZERO)
    }

    /// What a layer spares a start. One that none was started from is taken to spare all of it.
    pub(crate) fn spared_by_layer(&self) -> Nanos {
        let from_layer = self.layer_start.value().unwrap_or(Nanos::ZERO);
        self.start(false).saturating_sub(from_layer)
    }
}
