//! Making and sealing the memory of a region.
//!
//! Invariant: a region handed to a sandbox can be neither shrunk nor grown by anyone, so no access to it ever faults
//! beyond its end; and the down region can be written by nobody but the worker, by a seal or by its owner and mode.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Both regions: the size is fixed, and so are the seals.
const FIXED: SealFlag = SealFlag::F_SEAL_SHRINK.union(SealFlag::F_SEAL_GROW).union(SealFlag::F_SEAL_SEAL);

/// A memory file of `bytes` zeros, unsealed.
pub(crate) fn create(name: &CStr, bytes: u64) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    // The kernel has the flag since 6.3, and refuses flags that it does not know.
    let no_exec = MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL);
    let fd = match memfd_create(name, flags | no_exec) {
        Err(Errno::EINVAL) => memfd_create(name, flags)?,
        made => made?,
    };
    let length = libc::off_t::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    nix::unistd::ftruncate(&fd, length)?;
    Ok(fd)
}

/// Seals a region's size.
pub(crate) fn seal_size(fd: BorrowedFd<'_>) -> io::Result<()> {
    add_seals(fd, FIXED)
}

/// Seals the size of a region that the worker has mapped, and every way to write it but that mapping.
pub(crate) fn seal_writes(fd: BorrowedFd<'_>) -> io::Result<()> {
    add_seals(fd, FIXED | SealFlag::from_bits_retain(libc::F_SEAL_FUTURE_WRITE))
}

/// Takes a region from every user but its owner, and from that one the right to open it for writing.
pub(crate) fn restrict(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(nix::sys::stat::fchmod(fd, Mode::S_IRUSR)?)
}

/// Whether the region's size is sealed.
pub(crate) fn is_fixed(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let seals = fcntl(fd, FcntlArg::F_GET_SEALS)?;
    Ok(SealFlag::from_bits_retain(seals).contains(FIXED))
}

/// A read-only description of the same memory; `/proc` must be at hand.
pub(crate) fn read_only(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(File::open(format!("/proc/self/fd/{}", fd.as_raw_fd()))?.into())
}

/// The size of a memory file.
pub(crate) fn size(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let stat = nix::sys::stat::fstat(fd.as_fd())?;
    u64::try_from(stat.st_size).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

fn add_seals(fd: BorrowedFd<'_>, seals: SealFlag) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(())
}
