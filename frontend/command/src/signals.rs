//! The signals that ask us to stop, taken by a thread that waits for them instead of by a handler.
//!
//! Invariant: [`StopSignals::block`] runs before any other thread is started, so that no thread takes them the default
//! way, which is to die on the spot.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::{SigSet, Signal};

use crate::failure::Failure;
use crate::output::note;

/// SIGINT and SIGTERM, blocked in this thread and in all that it starts from now on.
#[derive(Clone, Copy)]
pub(crate) struct StopSignals {
    set: SigSet,
}

impl StopSignals {
    pub(crate) fn block() -> Result<StopSignals, Failure> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGINT);
        set.add(Signal::SIGTERM);
        set.thread_block().map_err(|error| Failure::local(format_args!("cannot block SIGINT and SIGTERM: {error}")))?;
        Ok(StopSignals { set })
    }

    /// A flag that the first signal sets; the second ends the process on the spot, and sandboxes of its own with it.
    pub(crate) fn flag() -> Result<Arc<AtomicBool>, Failure> {
        let signals = StopSignals::block()?;
        let interrupted = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&interrupted);
        thread::spawn(move || {
            if signals.wait().is_ok() {
                // Relaxed: a flag that stands alone.
                flag.store(true, Ordering::Relaxed);
                note("stopping; once more to stop at once");
            }
            if let Ok(signal) = signals.wait() {
                process::exit(StopSignals::exit_status(signal));
            }
        });
        Ok(interrupted)
    }

    /// Sleeps until one of them arrives.
    pub(crate) fn wait(&self) -> Result<Signal, Failure> {
        self.set.wait().map_err(|error| Failure::local(format_args!("cannot wait for signals: {error}")))
    }

    /// The exit status that a shell reports for a process ended by `signal`.
    pub(crate) fn exit_status(signal: Signal) -> i32 {
        128 + signal as i32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_signal_is_waited_for_and_does_not_kill() {
        // In a thread of its own: the mask is the thread's.
        let taken = std::thread::spawn(|| {
            let signals = StopSignals::block().unwrap();
            nix::sys::signal::raise(Signal::SIGTERM).unwrap();
            signals.wait().unwrap()
        });
        assert_eq!(taken.join().unwrap(), Signal::SIGTERM);
        assert_eq!(StopSignals::exit_status(Signal::SIGINT), 130);
    }
}
