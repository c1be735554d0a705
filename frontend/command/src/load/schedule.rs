//! When requests are due, which function each is for and how large it is: pure functions of a seed, whatever the number of
//! threads.
//!
//! Invariant: the sequence of `(due, choice)` depends on seed, rate, kind of arrivals and weights alone. Threads share it
//! by each taking every n-th.

use super::arguments::Arrivals;

/// A generator of 64-bit numbers: SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// Generators of one seed and different streams have nothing to do with each other.
    pub(super) fn new(seed: u64, stream: u64) -> Random {
        let mut random = Random(seed);
        Random(random.next() ^ Random(stream).next())
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in (0, 1]: never zero, so that its logarithm is finite.
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform in `0..bound`, by the high half of the product; `bound` is far below 2^64, so that the bias is nothing.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

/// Things by number, each as often as its weight says.
#[derive(Clone, Debug)]
struct Weights {
    /// The sums of the weights up to and with each thing.
    sums: Vec<u64>,
}

impl Weights {
    fn new(weights: impl IntoIterator<Item = u32>) -> Weights {
        let sums = weights.into_iter().scan(0, |sum, weight| {
            *sum += u64::from(weight);
            Some(*sum)
        });
        Weights { sums: sums.collect() }
    }

    fn choose(&self, random: &mut Random) -> usize {
        let total = self.sums.last().copied().unwrap_or(0);
        let drawn = random.below(total);
        self.sums.partition_point(|sum| *sum <= drawn)
    }
}

/// What a request asks: the function and the payload, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) function: usize,
    pub(super) payload: usize,
}

/// Functions and payloads, each chosen as often as its weight says, whatever the other is.
#[derive(Clone, Debug)]
pub(super) struct Mix {
    functions: Weights,
    payloads: Weights,
}

impl Mix {
    /// Both are weights: not empty, and at least one each.
    pub(super) fn new(functions: impl IntoIterator<Item = u32>, payloads: impl IntoIterator<Item = u32>) -> Mix {
        Mix { functions: Weights::new(functions), payloads: Weights::new(payloads) }
    }

    pub(super) fn choose(&self, random: &mut Random) -> Choice {
        let function = self.functions.choose(random);
        // One payload draws nothing: how large it is changes neither times nor functions.
        let payload = if self.payloads.sums.len() > 1 { self.payloads.choose(random) } else { 0 };
        Choice { function, payload }
    }
}

/// A request of the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// Its place in the whole sequence.
    pub(super) index: u64,
    /// Since the schedule began.
    pub(super) at_ns: u64,
    pub(super) choice: Choice,
}

/// The requests of an open loop that fall to one of `threads` threads, in the order in which they are due; without end.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    arrivals: Arrivals,
    rate_per_s: f64,
    mix: Mix,
    random: Random,
    index: u64,
    /// The exact time of the last arrival; a float, so that gaps below a nanosecond add up.
    at_ns: f64,
    thread: u64,
    threads: u64,
}

/// Which part of a schedule is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) thread: usize,
    pub(super) threads: usize,
}

impl Schedule {
    pub(super) fn new(arrivals: Arrivals, rate_per_s: f64, mix: Mix, random: Random, part: Part) -> Schedule {
        let Part { thread, threads } = part;
        let (thread, threads) = (thread as u64, threads as u64);
        Schedule { arrivals, rate_per_s, mix, random, index: 0, at_ns: 0.0, thread, threads }
    }

    fn advance(&mut self) -> Due {
        let index = self.index;
        self.index += 1;
        match self.arrivals {
            Arrivals::Poisson => self.at_ns += -self.random.unit().ln() * 1e9 / self.rate_per_s,
            // From the index, so that no error adds up.
            Arrivals::Constant => self.at_ns = index as f64 * 1e9 / self.rate_per_s,
        }
        let choice = self.mix.choose(&mut self.random);
        Due { index, at_ns: self.at_ns as u64, choice }
    }
}

impl Iterator for Schedule {
    type Item = Due;

    fn next(&mut self) -> Option<Due> {
        loop {
            let due = self.advance();
            if due.index % self.threads == self.thread {
                return Some(due);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: Part = Part { thread: 0, threads: 1 };

    fn schedule(arrivals: Arrivals, rate_per_s: f64, part: Part) -> Schedule {
        Schedule::new(arrivals, rate_per_s, Mix::new([3, 1], [1]), Random::new(7, 0), part)
    }

    #[test]
    fn the_generator_is_splitmix() {
        // The first outputs for the seed 1234567, as the reference implementation by Vigna gives them.
        let mut random = Random(1_234_567);
        assert_eq!(
            [random.next(), random.next(), random.next()],
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn constant_arrivals_are_on_the_beat_and_do_not_drift() {
        let mut times = schedule(Arrivals::Constant, 3_000.0, WHOLE).map(|due| due.at_ns);
        assert_eq!(times.by_ref().take(4).collect::<Vec<_>>(), [0, 333_333, 666_666, 1_000_000]);
        assert_eq!(times.nth(3_000_000 - 5), Some(999_999_666_666));
        assert_eq!(times.next(), Some(1_000_000_000_000));
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_the_spread_of_an_exponential() {
        let times: Vec<u64> = schedule(Arrivals::Poisson, 1_000.0, WHOLE).take(100_000).map(|due| due.at_ns).collect();
        let gaps: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]) as f64 / 1e6).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        let over_two = gaps.iter().filter(|gap| **gap > 2.0).count() as f64 / gaps.len() as f64;
        // In milliseconds: mean 1, variance 1, and exp(-2) of the gaps over 2.
        assert!((mean - 1.0).abs() < 0.02, "{mean}");
        assert!((variance - 1.0).abs() < 0.05, "{variance}");
        assert!((over_two - (-2.0_f64).exp()).abs() < 0.005, "{over_two}");
    }

    #[test]
    fn a_seed_is_one_sequence_however_many_threads_share_it() {
        let whole: Vec<Due> = schedule(Arrivals::Poisson, 5_000.0, WHOLE).take(12).collect();
        let mut shared: Vec<Due> = (0..3)
            .flat_map(|thread| schedule(Arrivals::Poisson, 5_000.0, Part { thread, threads: 3 }).take(4))
            .collect();
        shared.sort_by_key(|due| due.at_ns);
        assert_eq!(shared, whole);
    }

    #[test]
    fn the_sequence_of_a_seed_is_this_one() {
        let drawn: Vec<(u64, usize)> =
            schedule(Arrivals::Poisson, 1_000.0, WHOLE).take(6).map(|due| (due.at_ns, due.choice.function)).collect();
        // Worked out apart from this code, from the definition of the generator and of the exponential distribution.
        let expected = [(1_156_653, 0), (1_240_680, 1), (1_791_174, 0), (3_854_515, 1), (5_435_281, 0), (5_800_788, 0)];
        assert_eq!(drawn, expected);
    }

    #[test]
    fn functions_and_payloads_come_as_often_as_their_weights_say() {
        let mix = Mix::new([1, 5, 2], [3, 1]);
        let mut random = Random::new(11, 3);
        let mut counts = [[0_u32; 2]; 3];
        for _ in 0..80_000 {
            let Choice { function, payload } = mix.choose(&mut random);
            counts[function][payload] += 1;
        }
        let expected = [[7_500_u32, 2_500], [37_500, 12_500], [15_000, 5_000]];
        for (count, expected) in counts.iter().flatten().zip(expected.iter().flatten()) {
            assert!(count.abs_diff(*expected) < 500, "{counts:?}");
        }
    }

    #[test]
    fn a_mix_of_payloads_is_one_sequence_however_many_threads_share_it() {
        let mixed =
            |part| Schedule::new(Arrivals::Poisson, 5_000.0, Mix::new([3, 1], [2, 1, 1]), Random::new(7, 0), part);
        let whole: Vec<Due> = mixed(WHOLE).take(30).collect();
        let mut shared: Vec<Due> = (0..3).flat_map(|thread| mixed(Part { thread, threads: 3 }).take(10)).collect();
        shared.sort_by_key(|due| due.at_ns);
        assert_eq!(shared, whole);
        assert!((0..3).all(|payload| whole.iter().any(|due| due.choice.payload == payload)), "{whole:?}");
    }

    #[test]
    fn streams_of_one_seed_differ() {
        let first: Vec<u64> = (0..4).map(|stream| Random::new(1, stream).next()).collect();
        let distinct: std::collections::HashSet<&u64> = first.iter().collect();
        assert_eq!(distinct.len(), 4);
    }
}
