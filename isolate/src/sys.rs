//! System calls without a wrapper in Rust's std, and nothing else.
//!
//! Owns: every raw call of this package but the ones that make and become a process. Invariant: [`call`] and [`in_child`] neither allocate nor
//! lock; they may be used between `clone3` and `exec`. Does not know: what the calls are for.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use crate::limits::DESCRIPTORS_KEPT_FROM;

/// An error number.
pub(crate) type Errno = i32;

/// A register argument of a system call.
pub(crate) type Word = libc::c_long;

/// Performs a system call; missing arguments are 0.
///
/// # Safety
/// The arguments must be what this call demands: pointers valid for what the kernel reads or writes through them.
pub(crate) unsafe fn call<const N: usize>(number: libc::c_long, arguments: [Word; N]) -> Result<Word, Errno> {
    const { assert!(N <= 6, "a system call has six arguments at most") };
    let mut all: [Word; 6] = [0; 6];
    all[..N].copy_from_slice(&arguments);
    // SAFETY: the caller answers for the arguments; `syscall` itself only moves registers and stores errno.
    let result = unsafe { libc::syscall(number, all[0], all[1], all[2], all[3], all[4], all[5]) };
    if result == -1 {
        // SAFETY: the location of this thread's errno is always valid to read.
        Err(unsafe { *libc::__errno_location() })
    } else {
        Ok(result)
    }
}

/// The same for the parent, as an [`io::Error`].
///
/// # Safety
/// As for [`call`].
unsafe fn checked<const N: usize>(number: libc::c_long, arguments: [Word; N]) -> io::Result<Word> {
    // SAFETY: passed on to the caller.
    unsafe { call(number, arguments) }.map_err(io::Error::from_raw_os_error)
}

/// A descriptor that the kernel just made for us.
fn fresh(result: Word) -> OwnedFd {
    // SAFETY: the call that returned this number made the descriptor, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(result as RawFd) }
}

/// A pidfd of a process.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    unsafe { checked(libc::SYS_pidfd_open, [pid.into()]) }.map(fresh)
}

/// Sends a signal to exactly this process.
pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: a null siginfo means an ordinary kill.
    unsafe { checked(libc::SYS_pidfd_send_signal, [pidfd.as_raw_fd().into(), signal.into()]) }.map(drop)
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Exited(i32),
    Killed(i32),
}

/// Waits until this child has ended, and reaps it.
pub(crate) fn wait(pidfd: BorrowedFd<'_>) -> io::Result<Status> {
    loop {
        // SAFETY: all zeroes is a valid siginfo_t.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: `info` outlives the call, which fills it.
        let result =
            unsafe { libc::waitid(libc::P_PIDFD, pidfd.as_raw_fd() as libc::id_t, &raw mut info, libc::WEXITED) };
        if result == 0 {
            // SAFETY: a successful waitid fills the fields of SIGCHLD.
            let status = unsafe { info.si_status() };
            return Ok(if info.si_code == libc::CLD_EXITED { Status::Exited(status) } else { Status::Killed(status) });
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Waits until a descriptor is readable or its other end is gone; `false` when the time has passed.
pub(crate) fn poll_readable(fd: BorrowedFd<'_>, patience: Duration) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let milliseconds = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
    loop {
        // SAFETY: one pollfd, which outlives the call.
        match unsafe { libc::poll(&raw mut poll, 1, milliseconds) } {
            0 => return Ok(false),
            1.. => return Ok(true),
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// Moves a descriptor above those that a sandbox is given, so that placing one never overwrites another.
pub(crate) fn lift(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() >= DESCRIPTORS_KEPT_FROM { Ok(fd) } else { duplicate_above(fd.as_fd()) }
}

fn duplicate_above(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let arguments = [fd.as_raw_fd().into(), libc::F_DUPFD_CLOEXEC.into(), DESCRIPTORS_KEPT_FROM.into()];
    // SAFETY: no pointers.
    unsafe { checked(libc::SYS_fcntl, arguments) }.map(fresh)
}

/// A directory below `parent`, mode 0755.
pub(crate) fn make_directory_at(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    let arguments = [parent.as_raw_fd().into(), name.as_ptr() as Word, 0o755];
    // SAFETY: the name is null-terminated and outlives the call.
    unsafe { checked(libc::SYS_mkdirat, arguments) }.map(drop)
}

/// Removes an empty directory below `parent`.
pub(crate) fn remove_directory_at(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    let arguments = [parent.as_raw_fd().into(), name.as_ptr() as Word, libc::AT_REMOVEDIR.into()];
    // SAFETY: the name is null-terminated and outlives the call.
    unsafe { checked(libc::SYS_unlinkat, arguments) }.map(drop)
}

/// Opens a path below `parent`; close-on-exec is added.
pub(crate) fn open_at(parent: BorrowedFd<'_>, name: &CStr, flags: i32) -> io::Result<OwnedFd> {
    let arguments = [parent.as_raw_fd().into(), name.as_ptr() as Word, (flags | libc::O_CLOEXEC).into(), 0];
    // SAFETY: the name is null-terminated and outlives the call.
    unsafe { checked(libc::SYS_openat, arguments) }.map(fresh)
}

/// Every signal blocked on the calling thread until dropped: no handler of the worker runs in a child that is being made.
pub(crate) struct SignalsBlocked {
    before: libc::sigset_t,
}

impl SignalsBlocked {
    pub(crate) fn new() -> SignalsBlocked {
        // SAFETY: both sets are filled before they are read, and both outlive the calls.
        let before = unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            let mut before: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            before
        };
        SignalsBlocked { before }
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: the set was filled by the call that blocked.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
    }
}

/// The effective user.
pub(crate) fn effective_user() -> u32 {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::geteuid() }
}

/// Whether the effective user is 0.
pub(crate) fn is_root() -> bool {
    effective_user() == 0
}

/// Whether the effective user may write this path.
pub(crate) fn may_write(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else {
        return false;
    };
    // SAFETY: the path is null-terminated and outlives the call.
    unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::W_OK, libc::AT_EACCESS) == 0 }
}

/// Whether an extended attribute has exactly this value.
pub(crate) fn extended_attribute_is(path: &Path, name: &str, value: &[u8]) -> bool {
    let (Ok(path), Ok(name)) = (CString::new(path.as_os_str().as_bytes()), CString::new(name)) else {
        return false;
    };
    let mut found = [0_u8; 16];
    // SAFETY: both strings are null-terminated, the buffer is as long as said, and all outlive the call.
    let length = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), found.as_mut_ptr().cast(), found.len()) };
    usize::try_from(length).ok().and_then(|length| found.get(..length)) == Some(value)
}

/// CLOCK_MONOTONIC in ns: the clock of the child's report.
pub(crate) fn now_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time outlives the call, which cannot fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// Waits until the child with this id has ended, and reaps it.
pub(crate) fn wait_for_pid(pid: i32) -> io::Result<()> {
    loop {
        // SAFETY: the status is not asked for.
        if unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) } == pid {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// The id, as this process sees it, of the process that a pidfd names.
pub(crate) fn pid_of(pidfd: BorrowedFd<'_>) -> io::Result<i32> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")).and_then(|pid| pid.trim().parse().ok());
    pid.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// A small stack for a process that shares this memory, with a guard below it.
#[derive(Debug)]
pub(crate) struct Stack {
    base: *mut libc::c_void,
}

// SAFETY: the mapping belongs to no thread.
unsafe impl Send for Stack {}
// SAFETY: a shared stack only gives its address away.
unsafe impl Sync for Stack {}

impl Stack {
    /// Usable bytes. What runs there calls little more than `syscall`, in builds without optimisation too.
    const BYTES: usize = 128 << 10;
    /// A multiple of every page size in use.
    const GUARD_BYTES: usize = 64 << 10;

    pub(crate) fn new() -> io::Result<Stack> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
        // SAFETY: a new anonymous mapping at a place of the kernel's choice.
        let base =
            unsafe { libc::mmap(std::ptr::null_mut(), Stack::GUARD_BYTES + Stack::BYTES, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = Stack { base };
        // SAFETY: the lowest part of the mapping just made, which nothing uses.
        if unsafe { libc::mprotect(base, Stack::GUARD_BYTES, libc::PROT_NONE) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(stack)
    }

    /// Where it begins, growing down.
    pub(crate) fn top(&self) -> *mut libc::c_void {
        self.base.wrapping_byte_add(Stack::GUARD_BYTES + Stack::BYTES)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: this mapping is ours, and who ran on it has ended.
        unsafe { libc::munmap(self.base, Stack::GUARD_BYTES + Stack::BYTES) };
    }
}
