//! The sandbox's side of its regions, for runtimes written in Rust.
//!
//! Invariant: the worker is trusted to follow the protocol (it made this sandbox); the sandbox's own code is not
//! relied on for anything but its own good. One [`Receiver`] takes submissions, one [`Sender`] publishes completions,
//! and an [`Invocation`] owns its lane in between. This module knows no handlers and no threads.

mod clock;
mod handshake;
mod invocation;
mod receiver;
mod sender;
mod shared;
mod trim;

pub use clock::{default_spin_cap, monotonic_ns};
pub use handshake::{HandshakeError, become_copy};
pub use invocation::{Invocation, NotTaken, Outlet, Piece, Request, Response, TooLarge};
pub use receiver::{Next, Receiver};
pub use sender::{PartWait, Sender};

use shared::{Lanes, Regions};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// Both halves of a sandbox's side.
pub struct Guest {
    receiver: Receiver,
    sender: Sender,
}

impl Guest {
    fn assemble(regions: Regions, doorbell: OwnedFd, start: u32) -> Guest {
        let regions = Arc::new(regions);
        let lanes = Arc::new(Lanes::new(&regions));
        let receiver = Receiver::new(Arc::clone(&regions), Arc::clone(&lanes), start);
        Guest { receiver, sender: Sender::new(regions, lanes, doorbell, start) }
    }

    /// The invocations that may run at once.
    #[must_use]
    pub fn lanes(&self) -> u32 {
        self.receiver.lanes()
    }

    /// How long [`Guest::next`] may spin before it parks, at most; zero never spins. Starts at [`default_spin_cap`].
    pub fn set_spin_cap(&mut self, cap: Duration) {
        self.receiver.set_spin_cap(cap);
    }

    /// Completes the handshake: tells the worker that invocations may come.
    pub fn ready(&mut self) {
        self.sender.ready();
    }

    /// Tells the worker that the handler cannot be loaded: `json` is `{"errorType", "errorMessage", "stackTrace"}`.
    ///
    /// # Panics
    /// The text is longer than [`Sender::failure_limit_bytes`].
    pub fn init_failed(&mut self, json: &[u8]) {
        self.sender.init_failed(json);
    }

    /// The next submission, spinning and then sleeping until there is one.
    // Not an iterator: it never ends, and it sleeps.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Next {
        self.receiver.next()
    }

    /// The next submission if there is one.
    pub fn poll(&mut self) -> Option<Next> {
        self.receiver.poll()
    }

    /// Answers an invocation with the response it holds.
    pub fn returned(&mut self, invocation: Invocation) {
        self.sender.returned(invocation);
    }

    /// Answers an invocation with an account of its failure: JSON `{"errorType", "errorMessage", "stackTrace"}`.
    ///
    /// # Panics
    /// The text is longer than [`Sender::failure_limit_bytes`].
    pub fn raised(&mut self, invocation: Invocation, json: &[u8]) {
        self.sender.raised(invocation, json);
    }

    /// The two halves, to be used from different threads.
    #[must_use]
    pub fn split(self) -> (Receiver, Sender) {
        (self.receiver, self.sender)
    }
}
