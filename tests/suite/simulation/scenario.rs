//! What a seed stands for: limits, policies, functions, load and faults.
//!
//! Invariant: drawn before the run begins; the run itself draws only moments and victims.

use vilya_engine::{Bytes, ConcurrencyPolicy, FunctionSpec, KeepAlivePolicy, Limits, Nanos, Policies, QueuePolicy};

use super::random::Random;

/// How often things go wrong, each so many times in a thousand.
#[derive(Clone, Copy, Default)]
pub(super) struct Faults {
    pub(super) start_fails: u32,
    pub(super) start_dies: u32,
    pub(super) start_hangs: u32,
    pub(super) start_is_late: u32,
    pub(super) start_lies: u32,
    pub(super) dies_when_ready: u32,
    pub(super) freeze_fails: u32,
    pub(super) thaw_fails: u32,
    pub(super) thaw_is_late: u32,
    pub(super) run_kills: u32,
    pub(super) run_is_late: u32,
    pub(super) run_hangs: u32,
    pub(super) answers_twice: u32,
    pub(super) answers_wrongly: u32,
    pub(super) breaks_ring: u32,
    pub(super) dies_slowly: u32,
    pub(super) client_leaves: u32,
    /// The driver wants the memory of a reservation for something else.
    pub(super) driver_yields: u32,
    /// The driver does not give a lane back in the turn in which it is asked.
    pub(super) returns_late: u32,
    pub(super) report_repeats: u32,
    /// An image is lost though nobody asked for it.
    pub(super) layer_is_lost: u32,
}

/// How the run ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Load and faults stop, everything must come to rest, then the shard is drained.
    Quiet,
    /// The shard is drained while load and faults go on.
    UnderLoad,
}

/// One run.
pub(super) struct Scenario {
    pub(super) limits: Limits,
    pub(super) policies: Policies,
    /// Mean time between arrivals.
    pub(super) gap: Nanos,
    /// So many arrivals in a thousand come as a burst.
    pub(super) bursts: u32,
    pub(super) largest_burst: u32,
    pub(super) longest_run: Nanos,
    /// So many arrivals in a thousand are payloads worth a reservation, and so many answers are sent from their lane.
    pub(super) large: u32,
    /// The longest that a payload takes in or out; at most `LONGEST_TRANSFER`.
    pub(super) longest_transfer: Nanos,
    /// Starts of a function after which a layer of it is made; `None`: never.
    pub(super) layer_after: Option<u32>,
    /// Mean time between functions being retired or added.
    pub(super) churn: Nanos,
    pub(super) faults: Faults,
    pub(super) ending: Ending,
    pub(super) ends_at: Nanos,
}

/// The longest timeout of any function.
pub(super) const LONGEST_TIMEOUT: Nanos = Nanos::from_millis(800);
/// The longest time that a payload takes in or out.
pub(super) const LONGEST_TRANSFER: Nanos = Nanos::from_millis(300);
/// The longest time that a killed sandbox takes to die.
pub(super) const SLOWEST_DEATH: Nanos = Nanos::from_millis(300);

impl Scenario {
    pub(super) fn draw(random: &mut Random) -> Scenario {
        let limits = Limits {
            functions: random.count(2, 12),
            invocations: random.pick(&[8, 60, 500]),
            queue_per_function: random.pick(&[2, 20, 300]),
            sandboxes: random.count(1, 16),
            sandboxes_per_function: random.count(1, 8),
            starting: random.count(1, 6),
            memory: Bytes::from_mebibytes(random.between(64, 1024)),
            start_timeout: Nanos::from_millis(random.between(50, 1000)),
            drain_timeout: Nanos::from_millis(random.between(0, 1500)),
        };
        let running = if random.chance(500) { u32::MAX } else { random.count(1, 12) };
        let idle = Nanos::from_millis(random.between(1, 400));
        let policies = Policies {
            queue: random.pick(&[QueuePolicy::Fcfs, QueuePolicy::Sjf]),
            keepalive: random.pick(&[KeepAlivePolicy::Lru, KeepAlivePolicy::Ttl { idle }, KeepAlivePolicy::GreedyDual]),
            concurrency: ConcurrencyPolicy::Fixed { running },
            quantum: None,
        };
        let gap = Nanos::from_micros(random.between(500, 20_000));
        let quantum =
            [None, Some(Nanos::from_millis(2)), Some(Nanos::from_millis(20))][gap.as_nanos() as usize / 1000 % 3];
        Scenario {
            limits,
            policies: Policies { quantum, ..policies },
            gap,
            bursts: random.pick(&[0, 30]),
            largest_burst: random.count(2, 300),
            longest_run: Nanos::from_micros(random.between(100, 60_000)),
            large: random.pick(&[0, 100, 600]),
            longest_transfer: Nanos::from_micros(random.between(100, LONGEST_TRANSFER.as_nanos() / 1000)),
            layer_after: random.pick(&[None, Some(1), Some(2)]),
            churn: Nanos::from_millis(random.between(100, 2000)),
            faults: Faults::draw(random),
            ending: random.pick(&[Ending::Quiet, Ending::UnderLoad]),
            ends_at: Nanos::from_millis(random.between(500, 3000)),
        }
    }

    /// A function that may be added at any time.
    pub(super) fn function(&self, random: &mut Random) -> FunctionSpec {
        // Now and then one that can never fit.
        let most = self.limits.memory.as_bytes() * if random.chance(50) { 2 } else { 1 };
        FunctionSpec {
            memory: Bytes::from_bytes(random.between(0, most + 1) / random.between(1, 9)),
            timeout: Nanos::from_nanos(random.between(0, LONGEST_TIMEOUT.as_nanos())),
            concurrency: random.pick(&[1, 1, 1, 2, 5, 300]),
            min_warm: random.pick(&[0, 0, 0, 1, 2, 5]),
            trim_after: random.chance(500).then(|| Nanos::from_micros(random.between(0, 60_000))),
            freeze_after: random.chance(600).then(|| Nanos::from_micros(random.between(0, 60_000))),
        }
    }
}

impl Faults {
    fn draw(random: &mut Random) -> Faults {
        // Some runs without fault, some with few, some where most things fail.
        let most = random.pick(&[1, 20, 150]);
        let mut often = || random.count(0, most);
        Faults {
            start_fails: often(),
            start_dies: often(),
            start_hangs: often(),
            start_is_late: often(),
            start_lies: often(),
            dies_when_ready: often(),
            freeze_fails: often(),
            thaw_fails: often(),
            thaw_is_late: often(),
            run_kills: often(),
            run_is_late: often(),
            run_hangs: often(),
            answers_twice: often(),
            answers_wrongly: often(),
            breaks_ring: often(),
            dies_slowly: often(),
            client_leaves: often(),
            driver_yields: often(),
            returns_late: often(),
            report_repeats: often(),
            layer_is_lost: often(),
        }
    }
}
