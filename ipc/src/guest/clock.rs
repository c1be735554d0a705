//! What a guest asks the system about time and cores.

use crate::spin::SpinBudget;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use std::time::Duration;

/// The spin cap for this machine: none where spinning would take a core from the worker that is to be waited for.
#[must_use]
pub fn default_spin_cap() -> Duration {
    let usable = sched_getaffinity(Pid::from_raw(0))
        .map_or(1, |cores| (0..CpuSet::count()).filter(|core| cores.is_set(*core).unwrap_or(false)).count());
    SpinBudget::cap_for(usable)
}

/// The clock of deadlines: `CLOCK_MONOTONIC`, in nanoseconds.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has CLOCK_MONOTONIC");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}
