//! Wardens: a small process that stops every thread of a sandbox, where no control group freezes.
//!
//! Owns: the worker's end of it, and which sandbox is meant. Invariant: a sandbox is named by its first process only until somebody may wait for
//! that, so a number that was given to another process is never stopped. Does not know: how threads are stopped (`service`), or why.
//!
//! The threads are traced, not sent SIGSTOP: any process of a sandbox may send SIGCONT to the others, and has timers, descriptors and dying
//! parents do it while everything in it is stopped. What is traced goes on only when its tracer says so, what it makes is traced from its
//! first instruction, and no handler in it learns of any of it. A killed one dies. The tracer is a process of its own with one thread, because
//! a thread that dies while it is traced is not dead for its process before its tracer has waited for it.
//!
//! When the warden ends, what it has stopped goes on. It ends with the worker, and with that so do the sandboxes.

mod service;

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::sys::{self, Errno};

/// What it is told: what to do, and the first process of the sandbox.
const MESSAGE_BYTES: usize = 8;
/// How long it may take to answer: ten times what it takes at the most.
const PATIENCE: Duration = Duration::from_secs(5);
const STOP: u32 = 1;
const RELEASE: u32 = 0;

/// The worker's end of a warden.
#[derive(Debug)]
pub(crate) struct Warden {
    socket: Mutex<OwnedFd>,
    pidfd: OwnedFd,
}

impl Warden {
    pub(crate) fn start() -> io::Result<Warden> {
        let (socket, pidfd) = service::start()?;
        Ok(Warden { socket: Mutex::new(socket), pidfd })
    }

    /// Stops everything in a sandbox, or lets it go on.
    fn ask(&self, what: u32, leader: i32) -> io::Result<()> {
        // Held until the answer is there, so that it is the answer to this. Nothing that holds it leaves it half said.
        let socket = held(&self.socket);
        sys::send_with(socket.as_raw_fd(), &message(what, leader), &[]).map_err(io::Error::from_raw_os_error)?;
        if !sys::poll_readable(socket.as_fd(), PATIENCE)? {
            // What it would answer later must not be taken for the answer to something else. What it has stopped goes on.
            let _ = sys::pidfd_send_signal(self.pidfd.as_fd(), libc::SIGKILL);
            return Err(io::Error::from(io::ErrorKind::BrokenPipe));
        }
        let mut answer = [0; size_of::<Errno>()];
        match sys::receive_owned(socket.as_fd(), &mut answer)? {
            (0, _) => Err(io::Error::from(io::ErrorKind::BrokenPipe)),
            _ if answer == [0; size_of::<Errno>()] => Ok(()),
            _ => Err(io::Error::from_raw_os_error(Errno::from_ne_bytes(answer))),
        }
    }
}

impl Drop for Warden {
    fn drop(&mut self) {
        let _ = sys::pidfd_send_signal(self.pidfd.as_fd(), libc::SIGKILL);
        let _ = sys::wait(self.pidfd.as_fd());
    }
}

fn message(what: u32, leader: i32) -> [u8; MESSAGE_BYTES] {
    (u64::from(what) << 32 | u64::from(leader.cast_unsigned())).to_ne_bytes()
}

fn parse(message: [u8; MESSAGE_BYTES]) -> (u32, i32) {
    let word = u64::from_ne_bytes(message);
    ((word >> 32) as u32, (word as u32).cast_signed())
}

/// A sandbox that a warden stops.
#[derive(Debug)]
pub(crate) struct Ward {
    warden: Arc<Warden>,
    /// Its first process, until that is waited for.
    leader: Mutex<Option<i32>>,
}

impl Ward {
    /// `leader` is a child of this process.
    pub(crate) fn new(warden: &Arc<Warden>, leader: i32) -> Arc<Ward> {
        Arc::new(Ward { warden: Arc::clone(warden), leader: Mutex::new(Some(leader)) })
    }

    pub(crate) fn set_stopped(&self, stopped: bool) -> io::Result<()> {
        // Held meanwhile, so that its number stays its own.
        let leader = held(&self.leader);
        let pid = leader.ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
        match self.warden.ask(if stopped { STOP } else { RELEASE }, pid) {
            // What it had stopped goes on when it ends.
            Err(error) if !stopped && is_gone(&error) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::ETIMEDOUT) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "it makes threads and processes faster than they are stopped",
            )),
            Err(error) if error.raw_os_error() == Some(libc::E2BIG) => {
                Err(io::Error::new(io::ErrorKind::QuotaExceeded, "it has more threads than are stopped"))
            }
            result => result,
        }
    }

    /// Whoever calls this may wait for its first process from then on.
    pub(crate) fn forget(&self) {
        *held(&self.leader) = None;
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

fn held<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{RELEASE, STOP, message, parse};

    #[test]
    fn what_it_is_told_is_what_it_reads() {
        for told in [(STOP, 1), (RELEASE, i32::MAX)] {
            assert_eq!(parse(message(told.0, told.1)), told);
        }
    }
}
