//! The run's clock, and what the kernel says a thread did with its time.

use std::fs;
use std::time::Instant;

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds since the run began, the same for all threads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Clock {
        Clock(Instant::now())
    }

    pub(super) fn now_ns(self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// What the calling thread has done so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    at_ns: u64,
    running_ns: u64,
    /// Absent where the kernel does not keep it.
    waiting_ns: Option<u64>,
}

/// How a thread spent a span of time: shares of it, 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ThreadLoad {
    pub(super) running_share: f64,
    /// Ready to run, and no core for it.
    pub(super) waiting_share: f64,
}

impl ThreadLoad {
    pub(super) fn total(self) -> f64 {
        self.running_share + self.waiting_share
    }
}

impl Usage {
    pub(super) fn read(clock: Clock) -> nix::Result<Usage> {
        let running = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
        let running_ns =
            (running.tv_sec() as u64).saturating_mul(1_000_000_000).saturating_add(running.tv_nsec() as u64);
        let waiting_ns = fs::read_to_string("/proc/thread-self/schedstat").ok().as_deref().and_then(waiting_ns);
        Ok(Usage { at_ns: clock.now_ns(), running_ns, waiting_ns })
    }

    /// What was done between `self` and `later`.
    pub(super) fn until(&self, later: &Usage) -> ThreadLoad {
        let span_ns = later.at_ns.saturating_sub(self.at_ns).max(1) as f64;
        let waited = self.waiting_ns.zip(later.waiting_ns).map_or(0, |(from, to)| to.saturating_sub(from));
        ThreadLoad {
            running_share: later.running_ns.saturating_sub(self.running_ns) as f64 / span_ns,
            waiting_share: waited as f64 / span_ns,
        }
    }
}

/// The second number of schedstat: time on a run queue. Source: the kernel's Documentation/scheduler/sched-stats.rst.
fn waiting_ns(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_time_that_passed() {
        let from = Usage { at_ns: 1_000, running_ns: 500, waiting_ns: Some(100) };
        let to = Usage { at_ns: 2_000, running_ns: 750, waiting_ns: Some(600) };
        let load = from.until(&to);
        assert_eq!(load, ThreadLoad { running_share: 0.25, waiting_share: 0.5 });
        assert!((load.total() - 0.75).abs() < 1e-9);
        assert!(from.until(&Usage { waiting_ns: None, ..to }).waiting_share.abs() < 1e-9);
    }

    #[test]
    fn a_thread_that_worked_has_run() {
        let clock = Clock::start();
        let from = Usage::read(clock).unwrap();
        let mut sum = 0_u64;
        while Usage::read(clock).unwrap().running_ns == from.running_ns {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(from.until(&Usage::read(clock).unwrap()).running_share > 0.0);
        assert_eq!(waiting_ns("51 17 3\n"), Some(17));
        assert_eq!(waiting_ns(""), None);
    }
}
