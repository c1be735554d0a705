//! Loads from a seed: numbers, and functions with the service times of a published table.

use vilya_engine::Nanos;
use vilya_gpu::device::simulated::Workload;

/// A small generator of well-mixed numbers (splitmix64): the same seed gives the same numbers.
pub(crate) struct Random(pub u64);

impl Random {
    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }

    /// A draw of exponential inter-arrival time.
    pub(crate) fn exponential(&mut self, mean: Nanos) -> Nanos {
        // In (0, 1]: 53 bits, as many as fit a float.
        let unit = ((self.number() >> 11) + 1) as f64 / (1u64 << 53) as f64;
        Nanos::from_nanos((-unit.ln() * mean.as_nanos() as f64) as u64)
    }
}

/// A warm run on a GPU and a cold one, in milliseconds: the functions of the MQFQ-Sticky paper (arXiv 2507.08954).
pub(crate) const TABLE: [(&str, u64, u64); 9] = [
    ("imagenet", 2_250, 8_580),
    ("roberta", 268, 16_400),
    ("ffmpeg", 4_480, 12_000),
    ("fft", 897, 2_650),
    ("isoneural", 26, 2_590),
    ("lud", 2_050, 2_130),
    ("myocyte", 2_780, 2_150),
    ("needle", 1_980, 2_290),
    ("pathfinder", 1_470, 2_000),
];

/// Who calls what, when.
pub(crate) struct Load {
    pub(crate) workloads: Vec<Workload>,
    pub(crate) memory_mib: Vec<u64>,
    /// Times and function numbers, in order of time.
    pub(crate) arrivals: Vec<(Nanos, usize)>,
}

/// 24 functions of the table, unequally popular and called in bursts, for `length`; together they ask for
/// `busy_percent` of a device that runs one at a time and never swaps. With `keeps_processes` a swap-in is only its
/// transfer; without, it starts the function's process anew, which takes what a cold run takes beyond a warm one.
pub(crate) fn mixed(seed: u64, length: Nanos, busy_percent: u64, keeps_processes: bool) -> Load {
    const FUNCTIONS: usize = 24;
    const BURST: u64 = 4;
    const WITHIN_BURST: Nanos = Nanos::from_secs(2);
    let mut random = Random(seed);
    let workload = |number: usize| {
        let (_, warm, cold) = TABLE[number % TABLE.len()];
        let setup = if keeps_processes { 0 } else { cold.saturating_sub(warm) };
        Workload { service: Nanos::from_millis(warm), setup: Nanos::from_millis(setup) }
    };
    let workloads: Vec<Workload> = (0..FUNCTIONS).map(workload).collect();
    let memory_mib = (0..FUNCTIONS).map(|_| 1_000 + random.below(2_000)).collect();
    // Popularity falls with the square root of a rank that has nothing to do with the service time.
    let mut ranks: Vec<usize> = (1..=FUNCTIONS).collect();
    for last in (1..FUNCTIONS).rev() {
        ranks.swap(last, random.below(last as u64 + 1) as usize);
    }
    let share: Vec<f64> = ranks.iter().map(|&rank| 1.0 / (rank as f64).sqrt()).collect();
    let cost: f64 = share.iter().zip(&workloads).map(|(share, work)| share * work.service.as_nanos() as f64).sum();
    let mut arrivals = Vec::new();
    for (number, share) in share.iter().enumerate() {
        let mean = Nanos::from_nanos((cost / share * 100.0 / busy_percent as f64) as u64);
        let between_bursts = Nanos::from_nanos(mean.as_nanos() * BURST);
        let mut at = random.exponential(between_bursts);
        while at < length {
            let mut call = at;
            // Uniform from 1 to 2 · BURST - 1: BURST on average.
            for _ in 0..1 + random.below(2 * BURST - 1) {
                arrivals.push((call, number));
                call = call.saturating_add(random.exponential(WITHIN_BURST));
            }
            at = at.saturating_add(random.exponential(between_bursts));
        }
    }
    arrivals.sort_unstable();
    Load { workloads, memory_mib, arrivals }
}
