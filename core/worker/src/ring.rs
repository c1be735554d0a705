//! What a sandbox talks through: its shared regions and the pipes of its output, made with it or before it.
//!
//! Invariant: a ring is used for one sandbox. Those that wait are all of one lane, which nearly all functions have. It does not know who
//! gets one.

use std::io;
use std::os::fd::OwnedFd;

use vilya_ipc::host::{Host, ReadOnlyBy};
use vilya_ipc::layout::RegionSpec;
use vilya_isolate::Descriptors;

/// Both ends of everything.
pub(crate) struct Ring {
    pub(crate) host: Host,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    /// What the sandbox is given.
    pub(crate) descriptors: Descriptors,
}

impl Ring {
    pub(crate) fn new(lanes: u16, payload_limit_bytes: u64, read_only_by: ReadOnlyBy) -> Result<Ring, String> {
        let region = RegionSpec { lanes, payload_limit_bytes };
        let (host, guest) = Host::create(&region, read_only_by).map_err(|error| error.to_string())?;
        let (stdout, stdout_end) = pipe().map_err(|error| format!("no pipe for standard output: {error}"))?;
        let (stderr, stderr_end) = pipe().map_err(|error| format!("no pipe for standard error: {error}"))?;
        let descriptors =
            Descriptors { ring: [guest.down, guest.up, guest.doorbell], stdout: stdout_end, stderr: stderr_end };
        Ok(Ring { host, stdout, stderr, descriptors })
    }
}

/// Rings of one lane that were made before they are needed.
#[derive(Default)]
pub(crate) struct Rings(Vec<Ring>);

impl Rings {
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn keep(&mut self, ring: Ring) {
        self.0.push(ring);
    }

    pub(crate) fn take(&mut self) -> Option<Ring> {
        self.0.pop()
    }
}

/// A pipe for a function's output. Its reading end blocks: io_uring polls such a descriptor and answers EAGAIN at once
/// on one that does not block.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?)
}
