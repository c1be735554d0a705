//! Durations, and what is said of them.

/// Durations of one thing, in nanoseconds.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    ns: Vec<u64>,
}

impl Samples {
    /// Adds one.
    pub fn push(&mut self, ns: u64) {
        self.ns.push(ns);
    }

    /// The value below which a share of the samples lies, in microseconds (nearest rank). Zero without samples.
    pub fn percentile_us(&mut self, share: f64) -> f64 {
        self.ns.sort_unstable();
        let rank = (share * self.ns.len() as f64).ceil() as usize;
        self.ns.get(rank.clamp(1, self.ns.len().max(1)) - 1).map_or(0.0, |&ns| ns as f64 / 1000.0)
    }
}

/// A figure measured in several rounds.
#[derive(Clone, Debug, Default)]
pub struct Rounds {
    values: Vec<f64>,
}

impl Rounds {
    /// Adds the figure of one round.
    pub fn push(&mut self, value: f64) {
        self.values.push(value);
    }

    /// The rounds, in the order they were run.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// The middle one. Zero without rounds.
    pub fn median(&self) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => 0.0,
            length if length % 2 == 1 => sorted[middle],
            _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
        }
    }

    /// The smallest and the largest.
    pub fn spread(&self) -> (f64, f64) {
        let smallest = self.values.iter().copied().fold(f64::INFINITY, f64::min);
        let largest = self.values.iter().copied().fold(0.0, f64::max);
        (if smallest.is_finite() { smallest } else { 0.0 }, largest)
    }

    /// This figure over another, round by round: drift of the machine falls out.
    #[must_use]
    pub fn over(&self, other: &Rounds) -> Rounds {
        self.with(other, |a, b| a / b)
    }

    /// What becomes of this figure and another, round by round.
    #[must_use]
    pub fn with(&self, other: &Rounds, both: impl Fn(f64, f64) -> f64) -> Rounds {
        Rounds { values: self.values.iter().zip(&other.values).map(|(&a, &b)| both(a, b)).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let mut samples = Samples::default();
        for us in (1..=100).rev() {
            samples.push(us * 1000);
        }
        assert_eq!(samples.percentile_us(0.5), 50.0);
        assert_eq!(samples.percentile_us(0.99), 99.0);
        assert_eq!(samples.percentile_us(1.0), 100.0);
        assert_eq!(Samples::default().percentile_us(0.5), 0.0);
    }

    #[test]
    fn ratios_are_paired() {
        let mut fast = Rounds::default();
        let mut slow = Rounds::default();
        for drift in [1.0, 10.0, 100.0] {
            fast.push(drift);
            slow.push(2.0 * drift);
        }
        assert_eq!(slow.over(&fast).values(), [2.0, 2.0, 2.0]);
        assert_eq!(slow.median(), 20.0);
        assert_eq!(slow.spread(), (2.0, 200.0));
    }
}
