//! Greedy-Dual-Size-Frequency, as FaasCache (ASPLOS'21) keeps sandboxes: what saves the most start time for its memory stays.
//!
//! priority = clock + uses · cost / memory. The clock is the largest priority that was evicted, so what is not used grows
//! old beside what is. A sandbox whose function has a layer costs the start of a copy and no more; the layer costs what it
//! spares a start. Both are weighed by one formula, so a large sandbox of a function with a small layer goes long before the
//! layer does.

use super::{Idle, Retention};

/// The unit of memory: 1 MiB, so that priorities are nanoseconds for a MiB.
const UNIT_BYTES: u128 = 1 << 20;

pub(super) fn retain(idle: &Idle) -> Retention {
    let bytes = u128::from(idle.memory.as_bytes()).max(1);
    let worth = u128::from(idle.uses) * u128::from(idle.cost.as_nanos());
    // Of what would overflow, all is worth as much as there can be.
    let rate = worth.saturating_mul(UNIT_BYTES) / bytes;
    let priority = idle.clock.saturating_add(u64::try_from(rate).unwrap_or(u64::MAX));
    Retention { priority, until: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{Bytes, Nanos};

    fn priority(uses: u64, cost_millis: u64, mebibytes: u64) -> u64 {
        let (cost, memory) = (Nanos::from_millis(cost_millis), Bytes::from_mebibytes(mebibytes));
        retain(&Idle { uses, cost, memory, ..Idle::default() }).priority
    }

    #[test]
    fn dear_small_and_frequent_stays() {
        assert_eq!(priority(3, 64, 128), 3 * 64_000_000 / 128);
        assert!(priority(1, 200, 128) > priority(1, 20, 128));
        assert!(priority(1, 20, 64) > priority(1, 20, 128));
        assert!(priority(2, 20, 128) > priority(1, 20, 128));
    }

    #[test]
    fn a_layer_outweighs_the_sandbox_that_it_makes_cheap() {
        // Started whole in 60 ms, from its layer in 2.
        let (with, without, layer) = (priority(5, 2, 128), priority(5, 60, 128), priority(5, 58, 8));
        assert!(with < without && without < layer);
    }

    #[test]
    fn the_clock_makes_what_is_used_now_outlive_what_was_used_often_long_ago() {
        let (cost, memory) = (Nanos::from_millis(10), Bytes::from_mebibytes(64));
        let at = |clock, uses| retain(&Idle { clock, uses, cost, memory, ..Idle::default() }).priority;
        assert!(at(10_000_000, 1) > at(0, 20));
    }

    #[test]
    fn nothing_overflows() {
        let most = Idle { uses: u64::MAX, cost: Nanos::MAX, clock: u64::MAX, ..Idle::default() };
        assert_eq!(retain(&most).priority, u64::MAX);
    }
}
