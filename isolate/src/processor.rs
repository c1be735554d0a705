//! What processes share in a processor besides its time: guesses about what comes next, and the two threads of a core.
//!
//! Owns: what the kernel says of each, and the calls that turn it off for one process. Invariant: only what the kernel says can be turned
//! off is; the rest is said. Does not know: which processors are affected by what.
#![allow(unsafe_code)]

use std::fs;

use crate::sys::{Errno, Word, call};

/// A kind of speculation that the kernel may turn off for a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guess {
    /// That a load does not read what an earlier store writes.
    StoreBypass,
    /// Where an indirect branch leads.
    IndirectBranch,
}

/// What the kernel says of a kind of speculation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speculation {
    /// This processor is not affected.
    Harmless,
    /// Off, or made harmless, for every process.
    Off,
    /// A process can turn it off for itself and its children.
    Controllable,
    /// On for every process.
    On,
    /// The kernel does not say.
    Unknown,
}

/// What the kernel says of the threads of a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cores {
    /// No core runs two threads.
    Single,
    /// A process can have cores that it shares with nobody at a time.
    Controllable,
    /// Two threads of a core may belong to different processes at a time.
    Shared,
}

/// What is true of the processors of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processor {
    /// Of [`Guess::StoreBypass`].
    pub store_bypass: Speculation,
    /// Of [`Guess::IndirectBranch`].
    pub indirect_branch: Speculation,
    /// Of the threads of a core.
    pub cores: Cores,
}

// From `linux/prctl.h`.
const PR_GET_SPECULATION_CTRL: Word = 52;
const PR_SET_SPECULATION_CTRL: Word = 53;
const PR_SPEC_PRCTL: Word = 1;
const PR_SPEC_ENABLE: Word = 1 << 1;
const PR_SPEC_DISABLE: Word = 1 << 2;
const PR_SPEC_FORCE_DISABLE: Word = 1 << 3;
const PR_SCHED_CORE: Word = 62;
const GET: Word = 0;
const CREATE: Word = 1;
const OF_THREAD: Word = 0;
const OF_PROCESS: Word = 1;

impl Guess {
    const fn which(self) -> Word {
        match self {
            Guess::StoreBypass => 0,
            Guess::IndirectBranch => 1,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Guess::StoreBypass => "speculative store bypass",
            Guess::IndirectBranch => "indirect branch speculation",
        }
    }
}

impl Processor {
    pub(crate) fn probe() -> Processor {
        let asked = |guess: Guess| {
            // SAFETY: this option takes numbers.
            unsafe { call(libc::SYS_prctl, [PR_GET_SPECULATION_CTRL, guess.which(), 0, 0, 0]) }
        };
        let mut cookie = 0_u64;
        // SAFETY: the cookie outlives the call.
        let cores = unsafe { call(libc::SYS_prctl, [PR_SCHED_CORE, GET, 0, OF_THREAD, (&raw mut cookie) as Word]) };
        let threads = fs::read_to_string("/sys/devices/system/cpu/smt/active").unwrap_or_default();
        Processor {
            store_bypass: speculation(asked(Guess::StoreBypass)),
            indirect_branch: speculation(asked(Guess::IndirectBranch)),
            cores: sharing(cores.map(drop), threads.trim() == "0"),
        }
    }

    pub(crate) fn speculation(&self, guess: Guess) -> Speculation {
        match guess {
            Guess::StoreBypass => self.store_bypass,
            Guess::IndirectBranch => self.indirect_branch,
        }
    }
}

/// Reads the kernel's answer about a kind of speculation.
fn speculation(answer: Result<Word, Errno>) -> Speculation {
    match answer {
        Ok(0) => Speculation::Harmless,
        Ok(bits) if bits & PR_SPEC_PRCTL != 0 => Speculation::Controllable,
        Ok(bits) if bits & (PR_SPEC_DISABLE | PR_SPEC_FORCE_DISABLE) != 0 => Speculation::Off,
        Ok(PR_SPEC_ENABLE) => Speculation::On,
        _ => Speculation::Unknown,
    }
}

/// Reads the kernel's answer about cores; it says ENODEV itself if no core has two threads.
fn sharing(answer: Result<(), Errno>, single: bool) -> Cores {
    match answer {
        _ if single => Cores::Single,
        Ok(()) => Cores::Controllable,
        Err(libc::ENODEV) => Cores::Single,
        Err(_) => Cores::Shared,
    }
}

/// Turns a kind of speculation off, for good, for the calling thread and all that it makes and becomes.
pub(crate) fn forbid(guess: Guess) -> Result<(), Errno> {
    // SAFETY: this option takes numbers.
    unsafe { call(libc::SYS_prctl, [PR_SET_SPECULATION_CTRL, guess.which(), PR_SPEC_FORCE_DISABLE, 0, 0]) }.map(drop)
}

/// From here on the calling process, and all that it makes and becomes, has a core to itself while it runs on one.
pub(crate) fn own_cores() -> Result<(), Errno> {
    // SAFETY: these arguments are numbers.
    unsafe { call(libc::SYS_prctl, [PR_SCHED_CORE, CREATE, 0, OF_PROCESS, 0]) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::{Cores, Speculation, sharing, speculation};

    /// What kernels answer, by `Documentation/userspace-api/spec_ctrl.rst` and `Documentation/admin-guide/hw-vuln/core-scheduling.rst`.
    #[test]
    fn the_kernels_answers_are_understood() {
        let answers = [
            (Ok(0), Speculation::Harmless),
            (Ok(1 | 2), Speculation::Controllable),
            (Ok(1 | 4), Speculation::Controllable),
            (Ok(1 | 8), Speculation::Controllable),
            (Ok(2), Speculation::On),
            (Ok(4), Speculation::Off),
            (Ok(8), Speculation::Off),
            (Err(libc::ENODEV), Speculation::Unknown),
            (Err(libc::EINVAL), Speculation::Unknown),
        ];
        for (answer, meaning) in answers {
            assert_eq!(speculation(answer), meaning, "{answer:?}");
        }
        assert_eq!(sharing(Ok(()), false), Cores::Controllable);
        assert_eq!(sharing(Err(libc::ENODEV), false), Cores::Single);
        assert_eq!(sharing(Err(libc::EINVAL), true), Cores::Single);
        assert_eq!(sharing(Err(libc::EINVAL), false), Cores::Shared);
    }
}
