//! Processes that a runtime leaves to the worker, besides the container's own.
//!
//! Owns: finding and reaping them. Invariant: no process is reaped that somebody else waits for. A child that the worker made is in the
//! worker's session or begins one of its own, as the first process of every sandbox does; so one that is in a session of others was left by
//! a program that has ended, and nobody knows it. Does not know: containers.

use std::fs;

use crate::sys;

/// Where to look: process ids are given out in order, and start again from the lowest.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    /// The runtime's own id.
    pub(super) after: u32,
    /// The container's, which the runtime makes last.
    pub(super) before: Option<u32>,
}

impl Orphans {
    /// Reaps those that are dead. The last of them may still be ending when the runtime has.
    pub(super) fn reap(&self) {
        let Some(own) = Standing::of("self") else { return };
        let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
        let children = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
        let children: String = children.collect();
        for pid in children.split_whitespace().filter(|pid| pid.parse().is_ok_and(|pid| self.covers(pid))) {
            let adopted = Standing::of(pid).filter(|found| found.session != own.session && found.session != found.pid);
            if let Some(Standing { pid, .. }) = adopted {
                sys::reap_if_dead(pid);
            }
        }
    }

    fn covers(&self, pid: u32) -> bool {
        match self.before {
            Some(before) if before < self.after => pid > self.after || pid < before,
            Some(before) => pid > self.after && pid < before,
            None => true,
        }
    }
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
    use super::{Orphans, Standing};

    #[test]
    fn ids_are_looked_for_between_two_also_when_they_start_again() {
        let between = |after, before| Orphans { after, before: Some(before) };
        let covered = |orphans: &Orphans| [5, 50, 500, 5000].map(|pid| orphans.covers(pid));
        assert_eq!(covered(&between(10, 100)), [false, true, false, false]);
        assert_eq!(covered(&between(1000, 20)), [true, false, false, true]);
        assert_eq!(covered(&Orphans { after: 10, before: None }), [true; 4], "unknown when the start failed");
    }

    #[test]
    fn a_name_does_not_confuse() {
        let found = Standing::parse("13879 (c ) Z 1) Z 13673 13878 13877 0 -1\n");
        assert_eq!(found, Some(Standing { pid: 13879, session: 13877 }));
        assert_eq!(Standing::of("self").map(|own| own.pid), Some(std::process::id() as i32));
    }
}
