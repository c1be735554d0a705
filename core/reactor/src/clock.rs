//! The monotonic clock, in nanoseconds. Knows nothing else.

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds in a second.
pub(crate) const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// `CLOCK_MONOTONIC`, in nanoseconds.
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux kernel has CLOCK_MONOTONIC");
    now.tv_sec().unsigned_abs() * NANOS_PER_SECOND + now.tv_nsec().unsigned_abs()
}
