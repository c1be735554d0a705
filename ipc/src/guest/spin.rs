//! How long a runtime waits awake before it sleeps: KVM's halt-polling rule.
//!
//! A wait that ended soon after the budget ran out doubles it; one that lasted beyond any budget was spun for nothing
//! and halves it. This module decides; it does not wait.

use nix::sched::{CpuSet, sched_getaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use std::time::Duration;

/// The budget to start from.
const START: Duration = Duration::from_micros(50);
/// The cap where there are cores to spare.
const CAP: Duration = Duration::from_micros(200);
/// A budget below this is none.
const FLOOR: Duration = Duration::from_micros(1);

/// The time to spin before parking, adapted to what waits turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SpinBudget {
    budget: Duration,
    cap: Duration,
}

impl SpinBudget {
    pub(super) fn new(cap: Duration) -> SpinBudget {
        SpinBudget { budget: START.min(cap), cap }
    }

    /// Whether the budget is zero whatever waits turn out to be, so that nobody need measure them.
    pub(super) fn never_spins(self) -> bool {
        self.cap.is_zero()
    }

    pub(super) fn get(self) -> Duration {
        self.budget
    }

    /// Learns from a wait that went beyond the budget, so that the runtime parked.
    pub(super) fn parked_after(&mut self, waited: Duration) {
        self.budget = if waited <= self.cap {
            // A near miss: a longer spin would have caught it.
            (self.budget * 2).max(START).min(self.cap)
        } else if self.budget / 2 < FLOOR {
            Duration::ZERO
        } else {
            self.budget / 2
        };
    }
}

/// The spin cap for this machine: none where spinning would take a core from the worker that is to be waited for.
#[must_use]
pub fn default_spin_cap() -> Duration {
    let usable = sched_getaffinity(Pid::from_raw(0))
        .map_or(1, |cores| (0..CpuSet::count()).filter(|core| cores.is_set(*core).unwrap_or(false)).count());
    if usable <= 2 { Duration::ZERO } else { CAP }
}

/// The clock of deadlines: `CLOCK_MONOTONIC`, in nanoseconds.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has CLOCK_MONOTONIC");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_double_up_to_the_cap_and_long_waits_halve_down_to_nothing() {
        let mut spin = SpinBudget::new(CAP);
        let micros = |spin: SpinBudget| spin.get().as_micros();
        assert_eq!(micros(spin), 50);
        let mut seen = Vec::new();
        for _ in 0..3 {
            spin.parked_after(Duration::from_micros(120));
            seen.push(micros(spin));
        }
        assert_eq!(seen, [100, 200, 200]);
        for _ in 0..12 {
            spin.parked_after(Duration::from_millis(5));
        }
        assert_eq!(spin.get(), Duration::ZERO);
        spin.parked_after(Duration::from_micros(120));
        assert_eq!(micros(spin), 50);
    }

    #[test]
    fn a_cap_of_zero_never_spins() {
        let mut spin = SpinBudget::new(Duration::ZERO);
        assert_eq!(spin.get(), Duration::ZERO);
        spin.parked_after(Duration::ZERO);
        assert_eq!(spin.get(), Duration::ZERO);
    }
}
