//! Opening what a path of the host names, without going through a link.
//!
//! Owns: `openat2`. Invariant: what is opened lies where the path says, letter by letter: no part of it was a symbolic link, nor one of the
//! links in `/proc` that lead anywhere, whatever is renamed or replaced meanwhile. Does not know: which paths are resolved so. The
//! operator's own directories may have links above them, and whoever names them resolves those first, once.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, RawFd};

use crate::sys::{Errno, Word, call};

/// Opens a path for nothing but naming it, also between `clone3` and `exec`. A link anywhere in it is ELOOP.
pub(crate) fn without_links(path: &CStr) -> Result<RawFd, Errno> {
    // SAFETY: all zeroes is a valid `open_how`.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (libc::O_PATH | libc::O_CLOEXEC) as u64;
    how.resolve = libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;
    let arguments =
        [libc::AT_FDCWD.into(), path.as_ptr() as Word, (&raw const how) as Word, size_of::<libc::open_how>() as Word];
    // SAFETY: path and how outlive the call, and the size is its own.
    unsafe { call(libc::SYS_openat2, arguments) }.map(|fd| fd as RawFd)
}

/// The same for the parent.
pub(crate) fn file_without_links(path: &CStr) -> io::Result<File> {
    let fd = without_links(path).map_err(io::Error::from_raw_os_error)?;
    // SAFETY: the call just made this descriptor, and nobody else knows it.
    Ok(unsafe { File::from_raw_fd(fd) })
}
