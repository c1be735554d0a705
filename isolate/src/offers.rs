//! What of the kernel sandboxes rest on, each thing tried alone: for whoever has to say why no sandbox can be made, or with less.
//!
//! Invariant: nothing is left of a trial, and nothing is decided. Does not know: what a host without one of these can do about it.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use crate::{cgroup, landlock, resolve, spawn, sys};

/// A system call without which no sandbox can be made.
#[derive(Debug)]
pub struct Offer {
    /// Its name.
    pub call: &'static str,
    /// The first Linux that has it.
    pub since: &'static str,
    /// What the kernel answered.
    pub answer: io::Result<()>,
}

/// Tries each of them, as far as one can be tried without another.
#[must_use]
pub fn offers() -> Vec<Offer> {
    let openat2 = Offer { call: "openat2", since: "5.6", answer: resolve::file_without_links(c"/").map(drop) };
    let clone3 = Offer { call: "clone3", since: "5.3", answer: spawn::try_clone3() };
    let own = sys::pidfd_open(std::process::id().cast_signed());
    // The signal 0 is sent to nobody, and is refused like any other.
    let signalled = own.as_ref().ok().map(|own| sys::pidfd_send_signal(own.as_fd(), 0));
    let pidfd = Offer { call: "pidfd_open", since: "5.3", answer: own.map(drop) };
    let signal = signalled.map(|answer| Offer { call: "pidfd_send_signal", since: "5.1", answer });
    [openat2, clone3, pidfd].into_iter().chain(signal).collect()
}

/// The interface of Landlock, counted from 1; 0 where there is none.
#[must_use]
pub fn landlock_interface() -> u32 {
    landlock::version()
}

/// A hierarchy of control groups, and this process's place in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// 1 or 2.
    pub version: u8,
    /// Where it is mounted.
    pub point: PathBuf,
    /// Of memory, pids and cpu, those that a worker of this process could limit with.
    pub controllers: Vec<&'static str>,
    /// Whether this process may make groups where a worker would.
    pub divisible: bool,
}

/// Those that are mounted.
///
/// # Errors
/// When the kernel does not say.
pub fn hierarchies() -> Result<Vec<Hierarchy>, String> {
    cgroup::survey()
}

#[cfg(test)]
mod tests {
    use super::offers;

    /// The tests make sandboxes, which need all of them.
    #[test]
    fn a_host_that_runs_these_tests_offers_all() {
        assert_eq!(offers().len(), 4);
        for offer in offers() {
            assert!(offer.answer.is_ok(), "{offer:?}");
        }
    }
}
