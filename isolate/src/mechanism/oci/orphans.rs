//! Processes that a runtime leaves to the worker, besides the container's own.
//!
//! Owns: finding and reaping them. Invariant: no process is reaped that somebody else waits for. A child that the worker made is in the
//! worker's session or begins one of its own, as the first process of every sandbox does; so one that is in a session of others was left by
//! a program that has ended, and nobody knows it. Does not know: containers.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::limits::REMOVAL_PAUSE;
use crate::sys;

/// How long the last of them may still be ending when the runtime has.
const PATIENCE: Duration = Duration::from_millis(200);

/// Reaps them all, as far as they end in time.
pub(super) fn reap() {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let adopted = adopted();
        adopted.iter().for_each(|pid| sys::reap_if_dead(*pid));
        if adopted.is_empty() || Instant::now() >= deadline {
            return;
        }
        thread::sleep(REMOVAL_PAUSE);
    }
}

fn adopted() -> Vec<i32> {
    let Some(own) = Standing::of("self") else { return Vec::new() };
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let children: String =
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok()).collect();
    let standings = children.split_whitespace().filter_map(Standing::of);
    standings
        .filter(|found| found.session != own.session && found.session != found.pid)
        .map(|found| found.pid)
        .collect()
}

#[derive(Debug, PartialEq, Eq)]
struct Standing {
    pid: i32,
    session: i32,
}

impl Standing {
    fn of(process: &str) -> Option<Standing> {
        Standing::parse(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
    }

    /// Id, name in parentheses, which may hold anything, state, parent, group, session.
    fn parse(text: &str) -> Option<Standing> {
        let pid = text.split_once(' ')?.0.parse().ok()?;
        let session = text.rsplit_once(')')?.1.split_whitespace().nth(3)?.parse().ok()?;
        Some(Standing { pid, session })
    }
}

#[cfg(test)]
mod tests {
    use super::Standing;

    #[test]
    fn a_name_does_not_confuse() {
        let found = Standing::parse("13879 (c ) Z 1) Z 13673 13878 13877 0 -1\n");
        assert_eq!(found, Some(Standing { pid: 13879, session: 13877 }));
        assert_eq!(Standing::of("self").map(|own| own.pid), Some(std::process::id() as i32));
    }
}
