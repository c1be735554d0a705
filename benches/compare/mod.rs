//! The same request path on two reactors: this project's own, and glommio's.
//!
//! A server on one core parses an HTTP request, hands its body through the rings to a process that sleeps on the same
//! core, and answers with what comes back. Decoder, rings, sandbox process and writer of heads are the same
//! (`desk`); what differs is how sockets and the doorbell are waited for. Neither server has routes, an engine or
//! confinement: ratios are of reactors.
//!
//! glommio 0.9 has no way to wait for a descriptor that it did not open: its sockets take sockets, its files are opened by
//! path. So its doorbell is a named pipe, which it opens and reads with its own operations; the process on the other side
//! writes the same eight bytes into it. And it has no place to act before it sleeps, so that its worker counts as parked
//! from one look at the rings to the next.

mod desk;
mod glommio;
mod reactor;

use std::io;
use std::net::SocketAddr;

/// A server that runs until the program ends.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
}

/// Starts a server on this project's reactor.
///
/// # Errors
/// The machine has no sockets, rings, memory or processes left.
pub fn on_reactor() -> io::Result<Server> {
    reactor::start()
}

/// Starts a server on glommio.
///
/// # Errors
/// As for [`on_reactor`]; glommio also wants half a MiB of memory that it may lock.
pub fn on_glommio() -> io::Result<Server> {
    glommio::start()
}
