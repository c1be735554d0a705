//! One line on a terminal's standard error that is rewritten while the run goes on; nothing anywhere else, and nothing
//! where `NO_COLOR` asks for plain output.

use std::io::{self, Write};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::driver::{Meter, Window};
use crate::output::colours;

/// How often the line is rewritten.
pub(super) const EVERY: Duration = Duration::from_millis(250);

pub(super) struct Progress {
    wanted: bool,
    last: (u64, u64),
}

impl Progress {
    pub(super) fn new() -> Progress {
        Progress { wanted: colours(&io::stderr()), last: (0, 0) }
    }

    pub(super) fn wanted(&self) -> bool {
        self.wanted
    }

    /// Rewrites the line. `step` says which of the steps it is.
    pub(super) fn show(&mut self, step: &str, window: Window, now_ns: u64, meters: &[Meter]) {
        // Relaxed: for the eye.
        let sum = |of: fn(&Meter) -> u64| meters.iter().map(of).sum::<u64>();
        let done = sum(|meter| meter.done.load(Ordering::Relaxed));
        let failed = sum(|meter| meter.failed.load(Ordering::Relaxed));
        let (last_ns, last_done) = std::mem::replace(&mut self.last, (now_ns, done));
        let per_s = done.saturating_sub(last_done) as f64 * 1e9 / now_ns.saturating_sub(last_ns).max(1) as f64;
        let line = line(step, window, now_ns, (done, failed, per_s));
        // A terminal that does not take the line is none of the run's business.
        let _ = write!(io::stderr(), "\r\x1b[K{line}").and_then(|()| io::stderr().flush());
    }

    /// Takes the line away.
    pub(super) fn clear(&mut self) {
        if self.wanted {
            let _ = write!(io::stderr(), "\r\x1b[K").and_then(|()| io::stderr().flush());
        }
        self.last = (0, 0);
    }
}

fn line(step: &str, window: Window, now_ns: u64, (done, failed, per_s): (u64, u64, f64)) -> String {
    let seconds = |from_ns: u64, to_ns: u64| to_ns.saturating_sub(from_ns) as f64 / 1e9;
    let phase = if now_ns < window.counted_from_ns {
        format!("warming up, {:.0} s left", seconds(now_ns, window.counted_from_ns).ceil())
    } else if window.end_ns == u64::MAX {
        format!("{:.0} s", seconds(window.counted_from_ns, now_ns))
    } else if now_ns < window.end_ns {
        format!("{:.0} s left", seconds(now_ns, window.end_ns).ceil())
    } else {
        "waiting for the last answers".to_owned()
    };
    format!("{step}{phase}: {done} done, {failed} failed, {per_s:.0}/s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_where_the_run_is() {
        let window = Window { start_ns: 0, counted_from_ns: 1_000_000_000, end_ns: 3_000_000_000 };
        let at = |now_ns| line("", window, now_ns, (5, 1, 2.4));
        assert_eq!(at(0), "warming up, 1 s left: 5 done, 1 failed, 2/s");
        assert_eq!(at(1_000_000_001), "2 s left: 5 done, 1 failed, 2/s");
        assert_eq!(at(3_000_000_000), "waiting for the last answers: 5 done, 1 failed, 2/s");
        let endless = Window { end_ns: u64::MAX, ..window };
        assert_eq!(line("1 of 2, ", endless, 4_000_000_000, (5, 0, 0.0)), "1 of 2, 3 s: 5 done, 0 failed, 0/s");
    }
}
