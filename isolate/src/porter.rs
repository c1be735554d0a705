//! Porters: small processes that attach folders of the host in sandboxes, where the worker itself may not.
//!
//! Owns: the porter's loop and the worker's end of it. Invariant: a porter has the host's mounts, as they were when it began, in a mount
//! namespace of its own that belongs to the keeper's user namespace, and does nothing but copy one of them into a sandbox in which only our
//! code has run; it comes back from there, or ends. Does not know: why, or what is shown.
//!
//! Why: a process with threads, as the worker is, may not enter a user namespace, and without it none of the mount namespaces below.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::apply::{self, Allotment};
use crate::keeper::Keeper;
use crate::maker::{Given, TOLD_AT, close_from};
use crate::plan::Plan;
use crate::sys::{self, DESCRIPTORS_SENT, Errno};

/// Longest message: attributes, and two paths with a NUL each.
const MESSAGE_BYTES: usize = 8 + 4096 + 512;
const ATTRIBUTES_BYTES: usize = 8;
/// What a porter keeps: its mount namespace, its root, and its working directory.
const HOME: [(&CStr, i32); 3] = [
    (c"/proc/thread-self/ns/mnt", libc::O_RDONLY),
    (c"/", libc::O_PATH | libc::O_DIRECTORY),
    (c".", libc::O_PATH | libc::O_DIRECTORY),
];
const FIRST_HOME: RawFd = 6;
/// Descriptors that come with a message have the numbers from here on.
const FIRST_FREE: RawFd = FIRST_HOME + HOME.len() as RawFd;

/// The worker's end of a porter.
#[derive(Debug)]
pub(crate) struct Porter {
    socket: Mutex<OwnedFd>,
    pidfd: OwnedFd,
}

impl Porter {
    /// Starts one below a keeper, on the keeper's thread. It reports when it is ready.
    pub(crate) fn start(keeper: &Keeper, plan: &Plan, given: &Given<'_>) -> io::Result<Porter> {
        let (socket, theirs) = sys::packet_pair()?;
        let pidfd = keeper.make(plan, &Allotment::of_servant(given, theirs.as_raw_fd()), None)?;
        Ok(Porter { socket: Mutex::new(socket), pidfd })
    }

    /// Whether it still runs.
    pub(crate) fn serves(&self) -> bool {
        !sys::poll_readable(self.pidfd.as_fd(), Duration::ZERO).unwrap_or(true)
    }

    /// Shows a directory of the host, whose path has no links, at a place in the mount namespace of a process.
    pub(crate) fn attach(
        &self,
        process: BorrowedFd<'_>,
        source: &CStr,
        target: &CStr,
        attributes: u64,
    ) -> io::Result<()> {
        let message = [&attributes.to_ne_bytes(), source.to_bytes_with_nul(), target.to_bytes_with_nul()].concat();
        if message.len() > MESSAGE_BYTES {
            return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
        }
        // Held until the answer is there, so that it is the answer to this. Nothing that holds it leaves it half said.
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        sys::send_with(socket.as_raw_fd(), &message, &[process.as_raw_fd()]).map_err(io::Error::from_raw_os_error)?;
        let mut answer = [0; size_of::<Errno>()];
        match sys::receive_owned(socket.as_fd(), &mut answer)? {
            (0, _) => Err(io::Error::from(io::ErrorKind::BrokenPipe)),
            _ if answer == [0; size_of::<Errno>()] => Ok(()),
            _ => Err(io::Error::from_raw_os_error(Errno::from_ne_bytes(answer))),
        }
    }
}

impl Drop for Porter {
    fn drop(&mut self) {
        let _ = sys::pidfd_send_signal(self.pidfd.as_fd(), libc::SIGKILL);
        let _ = sys::wait(self.pidfd.as_fd());
    }
}

/// The porter's loop. Ends the process when the worker closes its end; returns only with the reason why it cannot begin.
pub(crate) fn serve(tell: &dyn Fn() -> Result<(), Errno>) -> Result<(), Errno> {
    apply::name(c"vilya-porter")?;
    tell()?;
    close_from(FIRST_HOME)?;
    for (place, (path, flags)) in (FIRST_HOME..).zip(HOME) {
        if apply::open(libc::AT_FDCWD, path, flags, 0)? != place {
            return Err(libc::EBADF);
        }
    }
    let mut bytes = [0; MESSAGE_BYTES];
    loop {
        let mut descriptors = [-1; DESCRIPTORS_SENT];
        let attached = match sys::receive_with(TOLD_AT, &mut bytes, &mut descriptors, 0) {
            Ok((0, _)) | Err(_) => apply::exit(0),
            Ok((length, 1)) => carry(&bytes[..length], descriptors[0]),
            Ok(_) => Err(libc::EBADMSG),
        };
        close_from(FIRST_FREE)?;
        let answer = attached.err().unwrap_or(0);
        if sys::send_with(TOLD_AT, &answer.to_ne_bytes(), &[]).is_err() {
            apply::exit(1);
        }
    }
}

fn carry(message: &[u8], process: RawFd) -> Result<(), Errno> {
    let (attributes, paths) = message.split_first_chunk::<ATTRIBUTES_BYTES>().ok_or(libc::EBADMSG)?;
    let source = CStr::from_bytes_until_nul(paths).map_err(|_| libc::EBADMSG)?;
    let target = CStr::from_bytes_with_nul(&paths[source.count_bytes() + 1..]).map_err(|_| libc::EBADMSG)?;
    let tree = sys::detached_copy(source, u64::from_ne_bytes(*attributes))?;
    if apply::kind(tree)? != libc::S_IFDIR {
        return Err(libc::ENOTDIR);
    }
    sys::enter(process, libc::CLONE_NEWNS)?;
    let attached = sys::attach_copy_without_links(tree, target);
    if go_home().is_err() {
        // It would take the sandbox's files for the host's.
        apply::exit(1);
    }
    attached
}

fn go_home() -> Result<(), Errno> {
    sys::enter(FIRST_HOME, libc::CLONE_NEWNS)?;
    sys::stand_at(FIRST_HOME + 1, FIRST_HOME + 2)
}
