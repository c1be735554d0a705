//! How descriptors get into a container: through a socket that is shown in it, to the launcher that runs there first.
//!
//! Owns: the host's side of that socket. Invariant: descriptors are given to one peer, once; nobody else on the host can reach the socket,
//! and when this is done nobody in the container can. Does not know: the engine.

use std::fs::{self, File, Permissions};
use std::io::{self, IoSlice, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::{ControlMessage, MsgFlags, getsockopt, sendmsg, sockopt::PeerCredentials};

use crate::limits::START_PATIENCE;
use crate::mechanism::Descriptors;
use crate::sys;

/// The launcher, compiled by `build.rs`; empty on an architecture without one.
const LAUNCHER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/launcher"));
/// Where the directory of the socket and the launcher is, inside.
pub(super) const INSIDE: &str = "/.vilya";
const SOCKET: &str = "socket";
const PROGRAM: &str = "launcher";

/// The first program of every container, inside.
pub(super) fn program() -> String {
    format!("{INSIDE}/{PROGRAM}")
}

/// Lays the launcher out.
pub(super) fn install(directory: &Path) -> io::Result<PathBuf> {
    if LAUNCHER.is_empty() {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "there is no launcher for this architecture"));
    }
    let (path, draft) = (directory.join(PROGRAM), directory.join("launcher.draft"));
    fs::write(&draft, LAUNCHER)?;
    fs::set_permissions(&draft, Permissions::from_mode(0o555))?;
    // One that runs cannot be written to, but replaced.
    fs::rename(&draft, &path)?;
    Ok(path)
}

/// A socket that waits for a launcher.
pub(super) struct Handover {
    directory: PathBuf,
    listener: UnixListener,
}

/// A launcher that waits for its descriptors, and that nobody else is.
pub(super) struct Caller {
    stream: UnixStream,
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
}

impl Handover {
    /// Makes the directory that is to be shown at [`INSIDE`].
    pub(super) fn prepare(directory: &Path, launcher: &Path) -> io::Result<Handover> {
        fs::create_dir(directory)?;
        fs::hard_link(launcher, directory.join(PROGRAM))?;
        // A socket's path may be no longer than 107 bytes; this way it is short wherever the directory is.
        let opened = File::open(directory)?;
        let listener = UnixListener::bind(format!("/proc/self/fd/{}/{SOCKET}", opened.as_raw_fd()))?;
        fs::set_permissions(directory.join(SOCKET), Permissions::from_mode(0o666))?;
        Ok(Handover { directory: directory.to_owned(), listener })
    }

    /// Waits for the launcher. It is blocked until it is served, so its process is still what its id names.
    pub(super) fn await_launcher(self) -> io::Result<Caller> {
        if !sys::poll_readable(self.listener.as_fd(), START_PATIENCE)? {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the launcher did not call in time"));
        }
        let (stream, _) = self.listener.accept()?;
        // Nobody else gets in, and nothing is left to be seen inside.
        drop(self.listener);
        fs::remove_file(self.directory.join(SOCKET))?;
        fs::remove_file(self.directory.join(PROGRAM))?;
        let pid = getsockopt(&stream, PeerCredentials)?.pid();
        if pid <= 0 {
            let reason =
                "the engine's processes cannot be seen from here; it must run on this host, in this pid namespace";
            return Err(io::Error::other(reason));
        }
        stream.set_read_timeout(Some(START_PATIENCE))?;
        Ok(Caller { pidfd: sys::pidfd_open(pid)?, pid, stream })
    }
}

impl Caller {
    /// Gives the descriptors, and waits until the launcher has become its program. An error number if it could not.
    pub(super) fn serve(mut self, descriptors: Descriptors) -> io::Result<(i32, OwnedFd)> {
        let Descriptors { ring: [down, up, doorbell], stdout, stderr } = descriptors;
        let given = [&stdout, &stderr, &down, &up, &doorbell].map(AsRawFd::as_raw_fd);
        let message = [ControlMessage::ScmRights(&given)];
        sendmsg::<()>(self.stream.as_raw_fd(), &[IoSlice::new(b"!")], &message, MsgFlags::MSG_NOSIGNAL, None)?;
        drop((stdout, stderr, down, up, doorbell));
        let mut answer = Vec::new();
        (&mut self.stream).take(4).read_to_end(&mut answer)?;
        match <[u8; 4]>::try_from(answer.as_slice()) {
            // The connection ends when it has become another program.
            Err(_) => Ok((self.pid, self.pidfd)),
            Ok(errno) => Err(io::Error::from_raw_os_error(i32::from_ne_bytes(errno))),
        }
    }
}
