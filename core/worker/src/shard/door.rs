//! The sockets that a shard listens on: who knocks is handed to the protocol spoken there.
//!
//! Invariant: a connection for which there is no room is closed at once, so that its client sees a refusal and not a
//! hang. It knows no protocol.

use std::os::fd::{AsRawFd, OwnedFd};

use vilya_reactor::{Op, OpId, Outcome};

use super::token::Owner;
use super::{Listeners, Shard};

/// After an accept that failed, mostly for want of descriptors: those who knock wait in the kernel's queue.
const ACCEPT_RETRY_NS: u64 = 100_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http,
    Wire,
}

/// One listening socket.
pub(super) struct Door {
    protocol: Protocol,
    socket: OwnedFd,
    accept: Option<OpId>,
    /// The last accept failed, and the log says so.
    deaf: bool,
}

impl Door {
    pub(super) fn of(listeners: Listeners) -> Vec<Door> {
        let door = |protocol| move |socket| Door { protocol, socket, accept: None, deaf: false };
        let wire = listeners.wire.into_iter().flatten().map(door(Protocol::Wire));
        std::iter::once(listeners.http).map(door(Protocol::Http)).chain(wire).collect()
    }
}

impl Shard {
    pub(super) fn listen(&mut self, door: usize) {
        let Some(open) = self.doors.get_mut(door) else { return };
        let accept = Op::Accept { listener: open.socket.as_raw_fd() };
        match self.reactor.submit(Owner::Door(door).token(), accept) {
            Ok(accept) => open.accept = Some(accept),
            Err(refused) => {
                tracing::warn!("this shard accepts no connections for now: {refused}");
                self.listen_later(door);
            }
        }
    }

    fn listen_later(&mut self, door: usize) {
        self.reactor.set_timer(Owner::Door(door).token(), self.now_ns.saturating_add(ACCEPT_RETRY_NS));
    }

    /// An accept completed, or the time to try again has come.
    pub(super) fn knocked(&mut self, door: usize, more: bool, outcome: Outcome) {
        let Some(open) = self.doors.get_mut(door) else { return self.discard(outcome) };
        if !more {
            open.accept = None;
        }
        let mut failed = false;
        match outcome {
            Outcome::Accepted(socket) => {
                open.deaf = false;
                let has_room = match open.protocol {
                    Protocol::Http => self.welcome_http(socket),
                    Protocol::Wire => self.welcome_wire(socket),
                };
                if has_room {
                    self.counters.connections_accepted += 1;
                } else {
                    self.counters.connections_refused += 1;
                }
            }
            Outcome::Failed { errno, .. } => {
                failed = true;
                // Said once, not at each retry.
                if !std::mem::replace(&mut open.deaf, true) {
                    let error = std::io::Error::from_raw_os_error(errno);
                    tracing::warn!("no connection can be accepted for now, they wait: {error}");
                }
            }
            // The retry's timer among them.
            other => self.discard(other),
        }
        if self.doors.get(door).is_some_and(|open| open.accept.is_none()) {
            if failed { self.listen_later(door) } else { self.listen(door) }
        }
    }

    /// Accepts nobody any more.
    pub(super) fn shut_doors(&mut self) {
        for door in self.doors.drain(..) {
            if let Some(accept) = door.accept {
                self.reactor.abandon(accept);
            }
            self.closing.push(door.socket);
        }
    }
}
