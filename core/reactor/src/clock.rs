//! The monotonic clock, in nanoseconds: read from the processor's cycle counter, and held to the kernel's clock.
//!
//! A reading is a few nanoseconds where the counter is invariant (quanta says so; elsewhere it asks the kernel each time).
//! Invariant: on one thread it never goes back, and it stays within microseconds of `CLOCK_MONOTONIC`, in which sandboxes
//! are told their deadlines, because each thread looks at that clock again every [`ANCHOR_NS`]. Knows nothing else.

use std::cell::Cell;
use std::sync::OnceLock;

use nix::time::{ClockId, clock_gettime};
use quanta::Clock;

/// Nanoseconds in a second.
pub(crate) const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// How long the counter is trusted: a counter that was calibrated wrong by one in a thousand is off by ten microseconds.
const ANCHOR_NS: u64 = 10_000_000;
/// Longer than two readings of the counter around one of the kernel's clock take, unless something came between.
const GLANCE_NS: u64 = 1_000;
/// Tries to take both readings with nothing between.
const GLANCES: u32 = 8;

/// A reading of both clocks at one moment.
#[derive(Clone, Copy)]
struct Anchor {
    raw: u64,
    ns: u64,
}

fn counter() -> &'static Clock {
    static COUNTER: OnceLock<Clock> = OnceLock::new();
    // Calibrates, for some milliseconds, the first time that a process asks.
    COUNTER.get_or_init(Clock::new)
}

/// `CLOCK_MONOTONIC`, in nanoseconds.
pub(crate) fn now_ns() -> u64 {
    thread_local! {
        static ANCHOR: Cell<Option<Anchor>> = const { Cell::new(None) };
    }
    let counter = counter();
    let raw = counter.raw();
    let anchor = ANCHOR.get();
    if let Some(anchor) = anchor {
        let since_ns = counter.delta_as_nanos(anchor.raw, raw);
        if since_ns < ANCHOR_NS {
            return anchor.ns + since_ns;
        }
    }
    let mut fresh = glance(counter);
    if let Some(anchor) = anchor {
        fresh.ns = fresh.ns.max(anchor.ns + ANCHOR_NS);
    }
    ANCHOR.set(Some(fresh));
    fresh.ns
}

/// Reads both clocks, again if the thread was interrupted between the readings.
fn glance(counter: &Clock) -> Anchor {
    let mut best = (u64::MAX, Anchor { raw: 0, ns: 0 });
    for _ in 0..GLANCES {
        let before = counter.raw();
        let ns = kernel_ns();
        let took_ns = counter.delta_as_nanos(before, counter.raw());
        if took_ns < best.0 {
            best = (took_ns, Anchor { raw: before, ns });
        }
        if took_ns < GLANCE_NS {
            break;
        }
    }
    best.1
}

fn kernel_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux kernel has CLOCK_MONOTONIC");
    now.tv_sec().unsigned_abs() * NANOS_PER_SECOND + now.tv_nsec().unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than a wrong calibration and an interrupted glance add up to.
    const DRIFT_NS: u64 = 1_000_000;

    #[test]
    fn it_follows_the_kernel_and_never_goes_back() {
        let (until_ns, mut last_ns) = (kernel_ns() + 5 * ANCHOR_NS, 0);
        while kernel_ns() < until_ns {
            let before_ns = kernel_ns();
            let ns = now_ns();
            let after_ns = kernel_ns();
            assert!(ns + DRIFT_NS >= before_ns, "{} behind", before_ns - ns);
            assert!(ns <= after_ns + DRIFT_NS, "{} ahead", ns - after_ns);
            assert!(ns >= last_ns);
            last_ns = ns;
        }
    }
}
