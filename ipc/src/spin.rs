//! How long a side waits awake before it sleeps: KVM's halt-polling rule, the same for a runtime and for a worker.
//!
//! A wait that ended soon after the budget ran out doubles it; one that lasted beyond any budget was spun for nothing
//! and halves it. This module decides; it does not wait, and has no clock of its own.

use std::time::Duration;

/// The budget to start from.
const START: Duration = Duration::from_micros(50);
/// A budget below this is none.
const FLOOR: Duration = Duration::from_micros(1);

/// The cap where there are cores to spare.
pub const SPIN_CAP: Duration = Duration::from_micros(200);

/// The time to spin before sleeping, adapted to what waits turned out to be. A wait that ends within the budget
/// changes nothing; one that does not ends in sleep, and is told when it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpinBudget {
    budget: Duration,
    cap: Duration,
}

impl SpinBudget {
    /// A budget that never exceeds `cap`; with a cap of zero it never spins.
    #[must_use]
    pub fn new(cap: Duration) -> SpinBudget {
        SpinBudget { budget: START.min(cap), cap }
    }

    /// The cap where this many cores may be used: none where spinning would take a core from what is waited for.
    #[must_use]
    pub fn cap_for(cores: usize) -> Duration {
        if cores <= 2 { Duration::ZERO } else { SPIN_CAP }
    }

    /// How long to spin now.
    #[must_use]
    pub fn get(self) -> Duration {
        self.budget
    }

    /// Whether the budget is zero whatever waits turn out to be, so that nobody need measure them.
    #[must_use]
    pub fn never_spins(self) -> bool {
        self.cap.is_zero()
    }

    /// Learns from a wait that went beyond the budget, so that the side slept; `waited` counts from its start, the
    /// spinning included.
    pub fn slept_after(&mut self, waited: Duration) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn near_misses_double_up_to_the_cap_and_long_waits_halve_down_to_nothing() {
        let mut spin = SpinBudget::new(SPIN_CAP);
        let micros = |spin: SpinBudget| spin.get().as_micros();
        assert_eq!(micros(spin), 50);
        let mut seen = Vec::new();
        for _ in 0..3 {
            spin.slept_after(Duration::from_micros(120));
            seen.push(micros(spin));
        }
        assert_eq!(seen, [100, 200, 200]);
        for _ in 0..12 {
            spin.slept_after(Duration::from_millis(5));
        }
        assert_eq!(spin.get(), Duration::ZERO);
        spin.slept_after(Duration::from_micros(120));
        assert_eq!(micros(spin), 50);
    }

    #[test]
    fn a_cap_of_zero_never_spins() {
        let mut spin = SpinBudget::new(SpinBudget::cap_for(2));
        assert!(spin.never_spins());
        assert_eq!(spin.get(), Duration::ZERO);
        spin.slept_after(Duration::ZERO);
        assert_eq!(spin.get(), Duration::ZERO);
        assert!(!SpinBudget::new(SpinBudget::cap_for(3)).never_spins());
    }

    proptest! {
        /// A wait beyond the cap never makes the next spin longer, one within it never shorter, and the cap holds.
        #[test]
        fn budgets_follow_waits(cap_us in 0u64..1000, waits in prop::collection::vec(0u64..2000, 0..100)) {
            let cap = Duration::from_micros(cap_us);
            let mut spin = SpinBudget::new(cap);
            for wait_us in waits {
                let (before, waited) = (spin.get(), Duration::from_micros(wait_us));
                spin.slept_after(waited);
                prop_assert!(spin.get() <= cap);
                let held = if waited > cap { spin.get() <= before } else { spin.get() >= before };
                prop_assert!(held, "{before:?} after {waited:?}");
            }
        }
    }
}
