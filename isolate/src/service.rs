//! Small processes of the worker's own, each with one thread, that do one thing for it.
//!
//! Owns: forking one, and what it keeps of the worker. Invariant: it has no descriptor of the worker's but the two it is given, every signal is
//! blocked, and one that does not come to serve in time is an error. Does not know: what it serves.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::panic::{self, AssertUnwindSafe};

use crate::apply;
use crate::limits::START_PATIENCE;
use crate::sys::{self, Errno, SignalsBlocked, Word, call};

/// Its descriptors: where it is told, and a pidfd of the worker.
pub(crate) const CONTROL: RawFd = 10;
pub(crate) const WORKER: RawFd = 11;

/// Forks the process: where it is told, and its pidfd. `serve` says that it serves by [`say_ready`], ends when the worker closes its end or dies,
/// and may use of the C library what is usable after `fork`, which is memory.
pub(crate) fn start(name: &CStr, serve: impl FnOnce() -> io::Result<()>) -> io::Result<(OwnedFd, OwnedFd)> {
    let (socket, theirs) = sys::packet_pair()?;
    let worker = sys::lift(sys::pidfd_open(std::process::id().cast_signed())?)?;
    let null = File::open("/dev/null")?;
    let _blocked = SignalsBlocked::new();
    // SAFETY: the child runs `serve` and nothing else of ours, which keeps to what is usable.
    match unsafe { libc::fork() } {
        0 => {
            let served = panic::catch_unwind(AssertUnwindSafe(|| {
                settle(name, null.as_raw_fd(), theirs.as_raw_fd(), worker.as_raw_fd())
                    .map_err(io::Error::from_raw_os_error)
                    .and_then(|()| serve())
            }));
            apply::exit(Word::from(!matches!(served, Ok(Ok(())))))
        }
        pid if pid > 0 => {
            let pidfd = sys::pidfd_open(pid)?;
            // Its end of the socket must be its own for its end to be noticed.
            drop(theirs);
            await_readiness(&socket).map(|()| (socket, pidfd))
        }
        _ => Err(io::Error::last_os_error()),
    }
}

fn await_readiness(socket: &OwnedFd) -> io::Result<()> {
    if !sys::poll_readable(socket.as_fd(), START_PATIENCE)? {
        return Err(io::ErrorKind::TimedOut.into());
    }
    match sys::receive_owned(socket.as_fd(), &mut [0])? {
        (1, _) => Ok(()),
        _ => Err(io::Error::other("it ended at once")),
    }
}

/// Said by the process once it serves.
pub(crate) fn say_ready() -> io::Result<()> {
    sys::send_with(CONTROL, &[0], &[]).map_err(io::Error::from_raw_os_error)
}

/// Keeps what it needs and gives up everything else of the worker's.
fn settle(name: &CStr, null: RawFd, control: RawFd, worker: RawFd) -> Result<(), Errno> {
    /// Out of the way of each other first.
    const AWAY: Word = 64;
    apply::default_signals()?;
    apply::name(name)?;
    // SAFETY: numbers alone.
    unsafe {
        let away = |fd: RawFd| call(libc::SYS_fcntl, [fd.into(), libc::F_DUPFD_CLOEXEC.into(), AWAY]);
        let (null, control, worker) = (away(null)?, away(control)?, away(worker)?);
        for (fd, place) in [(null, 0), (null, 1), (null, 2), (control, CONTROL), (worker, WORKER)] {
            call(libc::SYS_dup3, [fd, place.into(), libc::O_CLOEXEC.into()])?;
        }
        call(libc::SYS_close_range, [3, (CONTROL - 1).into(), 0])?;
        call(libc::SYS_close_range, [(WORKER + 1).into(), Word::from(u32::MAX), 0])
    }
    .map(drop)
}
