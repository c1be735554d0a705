//! Visits to the network namespaces of sandboxes.
//!
//! Owns: how a thread of the worker goes there. Invariant: it comes back, or the worker ends: a thread that stayed would take the sandbox's
//! network for the host's. Does not know: links.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::socket::SockProtocol;

use super::netlink::Socket;
use crate::sys;

/// A network namespace with nobody in it, and a socket of the kernel's routing there.
#[derive(Debug)]
pub(super) struct Inside {
    pub(super) namespace: OwnedFd,
    pub(super) socket: Socket,
}

impl Inside {
    pub(super) fn make() -> io::Result<Inside> {
        away(|| {
            sys::unshare(libc::CLONE_NEWNET)?;
            Ok(Inside { namespace: current()?, socket: Socket::open(SockProtocol::NetlinkRoute)? })
        })
    }
}

/// Has the kernel give up what the processes of a namespace left behind: a connection that nobody holds any more is kept until its other side
/// has confirmed the end, which it cannot without a link, and would keep the namespace for minutes.
pub(super) fn end_connections(namespace: &OwnedFd) -> io::Result<()> {
    away(|| {
        sys::enter_namespace(namespace.as_fd(), libc::CLONE_NEWNET)?;
        fs::write("/proc/sys/net/ipv4/tcp_orphan_retries", "1")
    })
}

/// Goes to other namespaces and back.
///
/// # Panics
/// When the thread cannot come back.
pub(super) fn away<T>(visit: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let home = current()?;
    let visited = visit();
    let back = sys::enter_namespace(home.as_fd(), libc::CLONE_NEWNET);
    back.expect("a thread of the worker must be in the host's network again");
    visited
}

fn current() -> io::Result<OwnedFd> {
    File::open("/proc/thread-self/ns/net").map(OwnedFd::from).and_then(sys::lift)
}
