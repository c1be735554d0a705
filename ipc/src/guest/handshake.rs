//! The sandbox's half of the handshake: are these regions of a worker of this ABI, sealed and whole?
#![allow(unsafe_code)]

use super::Guest;
use super::shared::Regions;
use crate::layout::{DOORBELL_FD, DOWN_FD, DownHeader, Geometry, GeometryError, HEADER_BYTES, UP_FD};
use crate::region::{OwnRegion, PeerRegion, memory};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use thiserror::Error;

/// Why a process is not a sandbox of a worker that this runtime can serve.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// A descriptor is missing, or is not what it should be.
    #[error("descriptor {fd} is unusable ({source}); this program is started by a Vilya worker, not by hand")]
    Descriptor {
        /// Which.
        fd: RawFd,
        /// What the kernel said.
        source: io::Error,
    },
    /// The down region's header is not one of this ABI.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// A region is not as large as the header says.
    #[error(
        "descriptor {fd} holds {found} bytes where the header says {expected}; use a runtime of the worker's release"
    )]
    Size {
        /// Which.
        fd: RawFd,
        /// What it has.
        found: u64,
        /// What the header says.
        expected: u64,
    },
    /// A region's size is not sealed, so reading it could fault.
    #[error("descriptor {fd} is not sealed; this program is started by a Vilya worker, not by hand")]
    NotSealed {
        /// Which.
        fd: RawFd,
    },
    /// The process has joined its worker before.
    #[error("this process joined its worker already; call it once")]
    Taken,
}

impl Guest {
    /// Joins the worker over descriptors 3, 4 and 5.
    ///
    /// # Errors
    /// They are not those of a worker of this ABI, or were taken before.
    pub fn from_standard_fds() -> Result<Guest, HandshakeError> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        // Relaxed: the flag guards nothing but itself.
        if TAKEN.swap(true, Ordering::Relaxed) {
            return Err(HandshakeError::Taken);
        }
        let [down, up, doorbell] = [DOWN_FD, UP_FD, DOORBELL_FD].map(adopt);
        // SAFETY: by the sandbox's contract these come from a worker's `Host::create`; what can be checked is.
        unsafe { Guest::from_fds(down?, up?, doorbell?) }
    }

    /// For a process that was started before its function was known: waits on descriptor 3 until the worker tells it. Standard output
    /// and error are then the function's, and the environment comes beside the guest: `NAME=value` with a NUL each.
    ///
    /// # Errors
    /// Nobody tells it, or not as a worker of this ABI does.
    pub fn when_told() -> Result<(Guest, Vec<u8>), HandshakeError> {
        /// More than a worker sends.
        const ENVIRONMENT_BYTES: usize = 128 << 10;
        let unusable = |errno: nix::errno::Errno| HandshakeError::Descriptor { fd: DOWN_FD, source: errno.into() };
        // The other two are placeholders, which close here.
        let [socket, _up, _doorbell] = [DOWN_FD, UP_FD, DOORBELL_FD].map(adopt);
        let socket = socket?;
        let mut environment = vec![0; ENVIRONMENT_BYTES];
        let mut parts = [IoSliceMut::new(&mut environment)];
        let mut space = nix::cmsg_space!([RawFd; 5]);
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags).map_err(unusable)?;
        let bytes = message.bytes;
        let numbers = message.cmsgs().map_err(unusable)?.find_map(|part| match part {
            ControlMessageOwned::ScmRights(numbers) => <[RawFd; 5]>::try_from(numbers).ok(),
            _ => None,
        });
        let numbers = numbers.ok_or_else(|| unusable(nix::errno::Errno::EPROTO))?;
        // SAFETY: the kernel has just made them for this message, and nobody else knows them.
        let [down, up, doorbell, stdout, stderr] = numbers.map(|number| unsafe { OwnedFd::from_raw_fd(number) });
        nix::unistd::dup2_stdout(&stdout).and_then(|()| nix::unistd::dup2_stderr(&stderr)).map_err(unusable)?;
        environment.truncate(bytes);
        // SAFETY: they come from the worker that started this process, which sends those of a new host.
        Ok((unsafe { Guest::from_fds(down, up, doorbell) }?, environment))
    }

    /// Joins the worker that made these descriptors.
    ///
    /// # Errors
    /// They are not those of a worker of this ABI.
    ///
    /// # Safety
    /// They come from [`crate::host::Host::create`], its host follows the protocol, and no other guest uses them:
    /// requests are borrowed from memory that the host could write.
    pub unsafe fn from_fds(down: OwnedFd, up: OwnedFd, doorbell: OwnedFd) -> Result<Guest, HandshakeError> {
        Guest::join(down, up, doorbell, 0)
    }

    /// [`Guest::from_fds`] with the indices of both rings starting at `start`.
    pub(crate) fn join(down: OwnedFd, up: OwnedFd, doorbell: OwnedFd, start: u32) -> Result<Guest, HandshakeError> {
        let on = |fd| move |source| HandshakeError::Descriptor { fd, source };
        check_size(DOWN_FD, down.as_fd(), |found| found.max(HEADER_BYTES))?;
        let header = PeerRegion::map(down.as_fd(), HEADER_BYTES).map_err(on(DOWN_FD))?;
        let geometry = Geometry::from_header(&DownHeader::from_words(header.read_words(0)))?;
        check_size(DOWN_FD, down.as_fd(), |_| geometry.down_bytes())?;
        check_size(UP_FD, up.as_fd(), |_| geometry.up_bytes())?;
        // The mappings outlive the descriptors, which close here.
        let down = PeerRegion::map(down.as_fd(), geometry.down_bytes()).map_err(on(DOWN_FD))?;
        let up = OwnRegion::map(up.as_fd(), geometry.up_bytes()).map_err(on(UP_FD))?;
        Ok(Guest::assemble(Regions { down, up, geometry }, doorbell, start))
    }
}

/// Waits on descriptor 3 until this process is copied; returns in the copies alone, in which that descriptor and the next two are a
/// ring's. The process that is copied is ended.
///
/// # Errors
/// Nobody is there to copy it.
pub fn become_copy() -> Result<(), HandshakeError> {
    const WAITING: &[u8] = b"Z";
    let unusable = |errno: nix::errno::Errno| HandshakeError::Descriptor { fd: DOWN_FD, source: errno.into() };
    // SAFETY: only borrowed to write and read; a closed one is an error, not undefined.
    let worker = unsafe { BorrowedFd::borrow_raw(DOWN_FD) };
    nix::unistd::write(worker, WAITING).map_err(unusable)?;
    match nix::unistd::read(worker, &mut [0]) {
        // In a copy this read has returned nothing.
        Ok(0) => {
            forget_heap_end();
            Ok(())
        }
        Ok(_) => Err(unusable(nix::errno::Errno::EPROTO)),
        Err(errno) => Err(unusable(errno)),
    }
}

/// The kernel's end of the heap is another one in a copy; without one of its own, glibc asks.
fn forget_heap_end() {
    #[cfg(target_env = "gnu")]
    {
        unsafe extern "C" {
            static mut __curbrk: *mut u8;
        }
        // SAFETY: glibc's own variable, of this type; a copy has one thread, and glibc takes null for "not asked yet".
        unsafe { __curbrk = std::ptr::null_mut() };
    }
}

/// Takes ownership of an inherited descriptor, and keeps it from the function's own children.
fn adopt(fd: RawFd) -> Result<OwnedFd, HandshakeError> {
    let unusable = |errno: nix::errno::Errno| HandshakeError::Descriptor { fd, source: errno.into() };
    // SAFETY: only borrowed to ask whether it is open; a closed one is an error, not undefined.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(unusable)?;
    // SAFETY: it is open, was inherited for this purpose, and is taken once (see `TAKEN`).
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Checks that a region is sealed and has the size that `expected` makes of its own.
fn check_size(fd: RawFd, region: BorrowedFd<'_>, expected: impl Fn(u64) -> u64) -> Result<(), HandshakeError> {
    let on = |source| HandshakeError::Descriptor { fd, source };
    if !memory::is_fixed(region).map_err(on)? {
        return Err(HandshakeError::NotSealed { fd });
    }
    let found = memory::size(region).map_err(on)?;
    match expected(found) {
        expected if expected == found => Ok(()),
        expected => Err(HandshakeError::Size { fd, found, expected }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{GuestFds, Host, ReadOnlyBy};
    use crate::layout::RegionSpec;
    use nix::errno::Errno;
    use nix::fcntl::{OFlag, SealFlag};
    use std::fs::OpenOptions;
    use std::os::fd::AsRawFd;

    fn create() -> (Host, GuestFds) {
        Host::create(&RegionSpec { lanes: 2, payload_limit_bytes: 5000 }, ReadOnlyBy::Seal).unwrap()
    }

    /// What `mmap` says to a shared mapping of one page.
    fn map(fd: BorrowedFd<'_>, protection: libc::c_int) -> Result<*mut libc::c_void, Errno> {
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
        if at == libc::MAP_FAILED { Err(Errno::last()) } else { Ok(at) }
    }

    #[test]
    fn the_sandbox_cannot_write_the_down_region_by_any_way_it_has() {
        let (host, fds) = create();
        let writable = libc::PROT_READ | libc::PROT_WRITE;
        assert!(map(fds.down.as_fd(), writable).is_err());
        assert!(nix::unistd::write(&fds.down, b"x").is_err());
        let mode = OFlag::from_bits_retain(fcntl(&fds.down, FcntlArg::F_GETFL).unwrap()) & OFlag::O_ACCMODE;
        assert_eq!(mode, OFlag::O_RDONLY);
        // Reopened for writing, where the file's mode allows it, the seal still holds.
        let path = format!("/proc/self/fd/{}", fds.down.as_raw_fd());
        if let Ok(reopened) = OpenOptions::new().read(true).write(true).open(path) {
            assert_eq!(map(reopened.as_fd(), writable), Err(Errno::EPERM));
            assert_eq!(nix::unistd::write(&reopened, b"x"), Err(Errno::EPERM));
        }
        // Mapped for reading, it cannot be made writable.
        let at = map(fds.down.as_fd(), libc::PROT_READ).unwrap();
        // SAFETY: the page mapped above; a change of protection that must fail.
        assert_eq!(unsafe { libc::mprotect(at, 4096, writable) }, -1);
        assert_eq!(Errno::last(), Errno::EACCES);
        // SAFETY: the page mapped above, unused from here on.
        unsafe { libc::munmap(at, 4096) };
        drop(host);
    }

    #[test]
    fn neither_region_can_be_resized_or_sealed_further() {
        let (_host, fds) = create();
        for fd in [&fds.down, &fds.up] {
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
            let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
            for length in [0, 4096, 1 << 30] {
                assert_eq!(nix::unistd::ftruncate(&file, length), Err(Errno::EPERM));
            }
            let sealed = fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE));
            assert_eq!(sealed, Err(Errno::EPERM));
        }
    }

    #[test]
    fn a_guest_joins_only_sealed_regions_of_the_size_their_header_says() {
        let (_host, fds) = create();
        let (_other, others) =
            Host::create(&RegionSpec { lanes: 1, payload_limit_bytes: 5000 }, ReadOnlyBy::Seal).unwrap();
        let clone = |fd: &OwnedFd| fd.try_clone().unwrap();
        let join = |down: &OwnedFd, up: &OwnedFd| Guest::join(clone(down), clone(up), clone(&fds.doorbell), 0).err();

        assert!(join(&fds.down, &fds.up).is_none());
        assert!(matches!(join(&fds.down, &others.up), Some(HandshakeError::Size { fd: UP_FD, .. })));
        assert!(matches!(join(&fds.up, &fds.up), Some(HandshakeError::Geometry(GeometryError::Magic(0)))));
        let unsealed = memory::create(c"unsealed", 8192).unwrap();
        assert!(matches!(join(&unsealed, &fds.up), Some(HandshakeError::NotSealed { fd: DOWN_FD })));
        memory::seal_size(unsealed.as_fd()).unwrap();
        assert!(matches!(join(&unsealed, &fds.up), Some(HandshakeError::Geometry(GeometryError::Magic(0)))));
        let tiny = memory::create(c"tiny", 100).unwrap();
        memory::seal_size(tiny.as_fd()).unwrap();
        assert!(matches!(join(&tiny, &fds.up), Some(HandshakeError::Size { fd: DOWN_FD, .. })));
        assert!(matches!(join(&fds.doorbell, &fds.up), Some(HandshakeError::Descriptor { fd: DOWN_FD, .. })));
    }
}
