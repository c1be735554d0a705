//! A moving average of durations.
//!
//! Invariant: it is its first sample, then nine tenths of what it was and one tenth of what came; it always lies
//! between the smallest sample and the largest. Does not know what is measured.

use crate::units::Nanos;

/// Nothing yet, or an average.
#[derive(Clone, Copy, Debug, Default)]
pub struct MovingAverage {
    value: Option<Nanos>,
}

impl MovingAverage {
    /// The average; `None` before the first sample.
    #[must_use]
    pub fn value(self) -> Option<Nanos> {
        self.value
    }

    /// Takes a sample in.
    pub fn record(&mut self, sample: Nanos) {
        self.value = Some(match self.value {
            None => sample,
            Some(average) => {
                let (old, new) = (u128::from(average.as_nanos()), u128::from(sample.as_nanos()));
                let mean = (9 * old + new) / 10;
                Nanos::from_nanos(u64::try_from(mean).expect("a mean lies between its samples"))
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_sample_is_taken_whole_and_later_ones_a_tenth() {
        let mut average = MovingAverage::default();
        assert_eq!(average.value(), None);
        average.record(Nanos::from_nanos(100));
        assert_eq!(average.value(), Some(Nanos::from_nanos(100)));
        average.record(Nanos::from_nanos(200));
        assert_eq!(average.value(), Some(Nanos::from_nanos(110)));
    }

    proptest! {
        /// A mean that weighs the old value without dividing both terms grows past every sample.
        #[test]
        fn it_stays_among_its_samples(samples in proptest::collection::vec(any::<u64>(), 1..50)) {
            let mut average = MovingAverage::default();
            for sample in &samples {
                average.record(Nanos::from_nanos(*sample));
            }
            let value = average.value().unwrap().as_nanos();
            // Integer division rounds down once a sample.
            let least = *samples.iter().min().unwrap();
            prop_assert!(least.saturating_sub(samples.len() as u64) <= value && value <= *samples.iter().max().unwrap());
        }
    }
}
