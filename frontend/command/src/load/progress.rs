//! A bar on a terminal's standard error, and beside it where the run is, rewritten while it goes on; nothing anywhere else.
//!
//! Invariant: one row of the terminal, however narrow that is, and gone once the step is over.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::driver::{Meter, Window};

/// How often the line is rewritten.
pub(super) const EVERY: Duration = Duration::from_millis(250);
/// Characters between the ends of the bar.
const BAR: usize = 16;

pub(super) struct Progress {
    wanted: bool,
    /// Requests that a step counts, where that is what ends it.
    count: Option<u64>,
    last: (u64, u64),
}

impl Progress {
    pub(super) fn new(count: Option<u64>) -> Progress {
        Progress { wanted: io::stderr().is_terminal(), count, last: (0, 0) }
    }

    pub(super) fn wanted(&self) -> bool {
        self.wanted
    }

    /// Rewrites the line. `step` says which of the steps it is, where there are several.
    pub(super) fn show(&mut self, step: &str, window: Window, now_ns: u64, meters: &[Meter]) {
        // Relaxed: for the eye.
        let sum = |of: fn(&Meter) -> u64| meters.iter().map(of).sum::<u64>();
        let warm_up = sum(|meter| meter.warm_up.load(Ordering::Relaxed));
        let done = sum(|meter| meter.done.load(Ordering::Relaxed));
        let failed = sum(|meter| meter.failed.load(Ordering::Relaxed));
        let (last_ns, last_done) = std::mem::replace(&mut self.last, (now_ns, done));
        let per_s = done.saturating_sub(last_done) as f64 * 1e9 / now_ns.saturating_sub(last_ns).max(1) as f64;
        let line = Moment { step, window, now_ns, count: self.count, warm_up, done, failed, per_s }.line();
        // Without wrapping, since a second row would stay. A terminal that does not take the line is none of the run's
        // business.
        let _ = write!(io::stderr(), "\r\x1b[?7l{line}\x1b[K\x1b[?7h").and_then(|()| io::stderr().flush());
    }

    /// Takes the line away.
    pub(super) fn clear(&mut self) {
        if self.wanted {
            let _ = write!(io::stderr(), "\r\x1b[K").and_then(|()| io::stderr().flush());
        }
        self.last = (0, 0);
    }
}

/// What there is to show.
#[derive(Clone, Copy)]
struct Moment<'a> {
    step: &'a str,
    window: Window,
    now_ns: u64,
    count: Option<u64>,
    warm_up: u64,
    /// The warm-up's among them, as among those that failed.
    done: u64,
    failed: u64,
    per_s: f64,
}

impl Moment<'_> {
    fn line(&self) -> String {
        let Moment { step, window, now_ns, done, failed, per_s, .. } = *self;
        let seconds = |from_ns: u64, to_ns: u64| to_ns.saturating_sub(from_ns) as f64 / 1e9;
        let phase = if now_ns < window.counted_from_ns {
            format!("warming up, {:.0} s left", seconds(now_ns, window.counted_from_ns).ceil())
        } else if self.count.is_some() {
            format!("{:.0} s", seconds(window.counted_from_ns, now_ns))
        } else if now_ns < window.end_ns {
            format!("{:.0} s left", seconds(now_ns, window.end_ns).ceil())
        } else {
            "waiting for the last answers".to_owned()
        };
        let share = self.share();
        let full = (share * BAR as f64) as usize;
        let bar = format!("{}{}", "#".repeat(full), "-".repeat(BAR - full));
        format!("[{bar}] {:3.0}% {step}{phase}: {done} done, {failed} failed, {per_s:.0}/s", (100.0 * share).floor())
    }

    /// How much is done of what counts, 0 to 1: requests where they are counted, else time.
    fn share(&self) -> f64 {
        let (part, whole) = match self.count {
            Some(count) => (self.done.saturating_sub(self.warm_up), count),
            None => {
                let Window { counted_from_ns, end_ns, .. } = self.window;
                (self.now_ns.saturating_sub(counted_from_ns), end_ns.saturating_sub(counted_from_ns))
            }
        };
        (part as f64 / whole.max(1) as f64).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Moment<'_> = Moment {
        step: "",
        window: Window { start_ns: 0, counted_from_ns: 1_000_000_000, end_ns: 3_000_000_000 },
        now_ns: 0,
        count: None,
        warm_up: 3,
        done: 5,
        failed: 1,
        per_s: 2.4,
    };

    #[test]
    fn the_line_says_where_the_run_is() {
        let at = |now_ns| Moment { now_ns, ..MOMENT }.line();
        assert_eq!(at(0), "[----------------]   0% warming up, 1 s left: 5 done, 1 failed, 2/s");
        assert_eq!(at(1_000_000_001), "[----------------]   0% 2 s left: 5 done, 1 failed, 2/s");
        assert_eq!(at(2_500_000_000), "[############----]  75% 1 s left: 5 done, 1 failed, 2/s");
        assert_eq!(at(9_000_000_000), "[################] 100% waiting for the last answers: 5 done, 1 failed, 2/s");
    }

    #[test]
    fn a_count_is_filled_by_requests_that_count() {
        let window = Window { end_ns: u64::MAX, ..MOMENT.window };
        let of = |count, done| Moment { step: "step 1 of 2, ", window, now_ns: 4_000_000_000, count, done, ..MOMENT };
        let line = of(Some(8), 5).line();
        assert_eq!(line, "[####------------]  25% step 1 of 2, 3 s: 5 done, 1 failed, 2/s");
        assert!(of(Some(3), 5).line().contains("]  66% "), "100 only when all are done");
        assert!(of(Some(2), 5).line().starts_with("[################] 100% "));
        // The counters are read one after the other.
        assert!(of(Some(2), 2).line().starts_with("[----------------]   0% "));
    }
}
