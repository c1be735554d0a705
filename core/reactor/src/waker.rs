//! Waking a reactor from another thread: a [`Gate`] that says whether to ring, and an eventfd that is the bell.
//!
//! Invariant: the eventfd is never read. The reactor polls it with a multishot poll, for which every write is one
//! event, and its counter cannot fill up in a lifetime. So a ring costs one `write` and no `read`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::gate::Gate;

#[derive(Debug)]
struct Shared {
    gate: Gate,
    bell: EventFd,
    rings: AtomicU64,
}

/// Wakes one reactor. Cheap to clone; any thread may hold one, also after the reactor is gone.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Shared>);

impl Waker {
    pub(crate) fn new() -> io::Result<Waker> {
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Waker(Arc::new(Shared { gate: Gate::new(), bell, rings: AtomicU64::new(0) })))
    }

    /// Makes the reactor's current or next turn report [`Outcome::Woken`](crate::Outcome::Woken). What this thread
    /// wrote before is visible to the reactor's thread then. Several wakes before that turn are reported as one.
    ///
    /// A system call only if the reactor sleeps or is about to, and only by the first of several wakers.
    pub fn wake(&self) {
        if self.request() {
            self.ring();
        }
    }

    /// The first half of [`Waker::wake`]: records the wake. True: the reactor sleeps, and the caller must see to it that
    /// it stops, with [`Waker::ring`] or with an [`Op::Message`](crate::Op::Message) of its own ring.
    #[must_use]
    pub fn request(&self) -> bool {
        self.0.gate.wake()
    }

    /// The second half of [`Waker::wake`]: one system call.
    pub fn ring(&self) {
        // A statistic: orders nothing, so Relaxed pairs with nothing.
        self.0.rings.fetch_add(1, Ordering::Relaxed);
        // EAGAIN would mean that the counter is full: then the bell has been rung more often than was heard, and
        // every arming of the poll reports it at once. Any other error is impossible for an eventfd that we own.
        match nix::unistd::write(self.0.bell.as_fd(), &1u64.to_ne_bytes()) {
            Ok(_) | Err(nix::errno::Errno::EAGAIN) => {}
            Err(errno) => unreachable!("writing 8 bytes to an eventfd failed: {errno}"),
        }
    }

    /// System calls made by all clones of this waker.
    pub fn system_calls(&self) -> u64 {
        self.0.rings.load(Ordering::Relaxed)
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.0.gate
    }

    pub(crate) fn bell_fd(&self) -> RawFd {
        self.0.bell.as_fd().as_raw_fd()
    }
}
