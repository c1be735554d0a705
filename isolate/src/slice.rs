//! How long a turn on the processor a thread asks for.
//!
//! Owns: the slice (`sched_setattr(2)`, `sched_runtime` of an ordinary thread). Invariant: class, niceness and share of the processor stay as
//! they are. Does not know whose thread it is.
//!
//! Why: a thread that wakes waits until the turn of one that runs is over, some milliseconds, unless the one that wakes asked for a shorter
//! turn (Linux 6.12; an older kernel takes the number and does nothing). What shards and functions do between two sleeps takes microseconds,
//! and what they would wait for, threads of the kernel that clean up after a neighbour above all, never asks.
#![allow(unsafe_code)]

use std::io;

use crate::sys::{Errno, Word, call};

/// The shortest that the kernel takes.
const SLICE_NS: u64 = 100_000;
const ITSELF: Word = 0;

/// Has the calling thread, and what it makes from then on, ask for short turns.
///
/// # Errors
/// The kernel does not know the call.
pub fn ask_for_short_turns() -> io::Result<()> {
    shorten().map_err(io::Error::from_raw_os_error)
}

/// The same between `clone3` and `exec`. One of a class that has no slice, or the class of batches, keeps what it has.
pub(crate) fn shorten() -> Result<(), Errno> {
    let mut attributes = attributes()?;
    if attributes.sched_policy != libc::SCHED_OTHER as u32 {
        return Ok(());
    }
    attributes.sched_runtime = SLICE_NS;
    // SAFETY: the kernel reads as many bytes as the struct says that it has, and it outlives the call.
    unsafe { call(libc::SYS_sched_setattr, [ITSELF, (&raw const attributes) as Word, 0]) }.map(drop)
}

fn attributes() -> Result<libc::sched_attr, Errno> {
    let mut attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    let arguments = [ITSELF, (&raw mut attributes) as Word, attributes.size as Word, 0];
    // SAFETY: the kernel writes as many bytes as it is told, and the struct outlives the call.
    unsafe { call(libc::SYS_sched_getattr, arguments) }?;
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_asks_has_short_turns_and_all_else_as_before() {
        // In a thread of its own: the others keep theirs.
        let asked = std::thread::spawn(|| {
            let before = attributes().expect("the kernel tells");
            ask_for_short_turns().expect("any thread may ask");
            (before, attributes().expect("the kernel tells"))
        });
        let (before, after) = asked.join().expect("it does not panic");
        assert_eq!((after.sched_policy, after.sched_nice), (before.sched_policy, before.sched_nice));
        // A kernel that knows no slices of threads tells none.
        assert!(after.sched_runtime == SLICE_NS || before.sched_runtime == 0, "{}", after.sched_runtime);
    }
}
