//! System calls without a wrapper in Rust's std, and nothing else.
//!
//! Owns: every raw call of this package but the ones that make and become a process. Invariant: [`call`] and [`in_child`] neither allocate nor
//! lock; they may be used between `clone3` and `exec`. Does not know: what the calls are for.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::limits::DESCRIPTORS_KEPT_FROM;
use crate::resolve;

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

/// Makes this process the parent of what its children leave behind, from now on.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    // SAFETY: this option takes a number.
    unsafe { checked(libc::SYS_prctl, [libc::PR_SET_CHILD_SUBREAPER.into(), 1]) }.map(drop)
}

/// Reaps a child of this process if it is dead.
pub(crate) fn reap_if_dead(pid: i32) {
    // SAFETY: the status is not asked for.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG) };
}

/// Has a command run in a mount namespace of its own, in which nothing is mounted at this place.
pub(crate) fn without_mount(command: &mut Command, point: &Path) -> io::Result<()> {
    let point = CString::new(point.as_os_str().as_bytes())?;
    let hide = move || {
        let (root, point) = (c"/".as_ptr() as Word, point.as_ptr() as Word);
        let private: Word = (libc::MS_REC | libc::MS_PRIVATE) as Word;
        // SAFETY: the paths are null-terminated and outlive the calls.
        unsafe {
            checked(libc::SYS_unshare, [libc::CLONE_NEWNS.into()])?;
            checked(libc::SYS_mount, [0, root, 0, private, 0])?;
            checked(libc::SYS_umount2, [point, libc::MNT_DETACH.into()]).map(drop)
        }
    };
    // SAFETY: between fork and exec it makes system calls and nothing else; an error is a number, which needs no memory.
    unsafe { command.pre_exec(hide) };
    Ok(())
}

/// Has a command begin in a control group, whose `cgroup.procs` this is.
pub(crate) fn begins_in(command: &mut Command, entrance: OwnedFd) {
    let enter = move || {
        // SAFETY: one byte that is static.
        unsafe { checked(libc::SYS_write, [entrance.as_raw_fd().into(), c"0".as_ptr() as Word, 1]) }.map(drop)
    };
    // SAFETY: between fork and exec it makes a system call and nothing else; an error is a number, which needs no memory.
    unsafe { command.pre_exec(enter) };
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Exited(i32),
    Killed(i32),
}

/// Waits until this child has ended, and reaps it.
pub(crate) fn wait(pidfd: BorrowedFd<'_>) -> io::Result<Status> {
    wait_for(libc::P_PIDFD, pidfd.as_raw_fd() as libc::id_t)
}

/// Waits until the child with this number has ended, and reaps it.
pub(crate) fn wait_for_child(pid: i32) -> io::Result<Status> {
    wait_for(libc::P_PID, pid.cast_unsigned())
}

/// Whether this is the number of a child of this process that was not reaped.
pub(crate) fn is_child(pid: i32) -> bool {
    // SAFETY: nothing is reaped, and what is found is not asked for.
    let look = |pid| unsafe {
        libc::waitid(libc::P_PID, pid, std::ptr::null_mut(), libc::WEXITED | libc::WNOHANG | libc::WNOWAIT)
    };
    pid > 0 && look(pid.cast_unsigned()) == 0
}

/// Kills a child of this process; one that was reaped is not found, whoever has its number by then. The caller sees to it that nobody
/// reaps it meanwhile.
pub(crate) fn kill_child(pid: i32) -> io::Result<()> {
    if !is_child(pid) {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: no pointers.
    unsafe { checked(libc::SYS_kill, [pid.into(), libc::SIGKILL.into()]) }.map(drop)
}

/// Has the kernel keep dead children of this process until they are waited for, whatever this process was started with: their numbers
/// are nobody else's until then.
pub(crate) fn keep_dead_children() {
    // SAFETY: the default action is no function. It cannot fail for this signal.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

fn wait_for(kind: libc::idtype_t, id: libc::id_t) -> io::Result<Status> {
    loop {
        // SAFETY: all zeroes is a valid siginfo_t.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: `info` outlives the call, which fills it.
        let result = unsafe { libc::waitid(kind, id, &raw mut info, libc::WEXITED) };
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

/// Most descriptors in one message.
pub(crate) const DESCRIPTORS_SENT: usize = 8;
/// Control bytes for that many, in words so that they are aligned.
const CONTROL_WORDS: usize = 8;

// SAFETY: CMSG_SPACE only computes.
const _: () =
    assert!(unsafe { libc::CMSG_SPACE((DESCRIPTORS_SENT * size_of::<RawFd>()) as u32) } as usize <= CONTROL_WORDS * 8);

fn message(bytes: &mut libc::iovec, control: &mut [u64; CONTROL_WORDS], control_bytes: usize) -> libc::msghdr {
    // SAFETY: all zeroes is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = bytes;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = control_bytes;
    message
}

/// Sends bytes and descriptors as one message of a packet socket. Neither allocates nor locks.
pub(crate) fn send_with(socket: RawFd, bytes: &[u8], descriptors: &[RawFd]) -> Result<(), Errno> {
    let mut iovec = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = [0_u64; CONTROL_WORDS];
    let length = size_of_val(descriptors) as u32;
    // SAFETY: CMSG_SPACE and CMSG_LEN only compute.
    let (space, whole) = unsafe { (libc::CMSG_SPACE(length) as usize, libc::CMSG_LEN(length) as usize) };
    if descriptors.len() > DESCRIPTORS_SENT {
        return Err(libc::EINVAL);
    }
    let mut header = message(&mut iovec, &mut control, if descriptors.is_empty() { 0 } else { space });
    if !descriptors.is_empty() {
        // SAFETY: the control buffer has room for this many (asserted), so the header and its data lie in it.
        unsafe {
            let first = libc::CMSG_FIRSTHDR(&raw const header);
            (*first).cmsg_level = libc::SOL_SOCKET;
            (*first).cmsg_type = libc::SCM_RIGHTS;
            (*first).cmsg_len = whole;
            let data = libc::CMSG_DATA(first).cast::<RawFd>();
            std::ptr::copy_nonoverlapping(descriptors.as_ptr(), data, descriptors.len());
        }
    }
    let arguments = [socket.into(), (&raw mut header) as Word, libc::MSG_NOSIGNAL.into()];
    // SAFETY: the message, its bytes and its control data outlive the call.
    let sent = unsafe { call(libc::SYS_sendmsg, arguments) }?;
    if sent == bytes.len() as Word { Ok(()) } else { Err(libc::EMSGSIZE) }
}

/// Receives one message of a packet socket: how many bytes, and how many descriptors. 0 bytes: the other end is closed. Neither allocates
/// nor locks.
pub(crate) fn receive_with(
    socket: RawFd,
    bytes: &mut [u8],
    descriptors: &mut [RawFd; DESCRIPTORS_SENT],
    flags: i32,
) -> Result<(usize, usize), Errno> {
    let mut iovec = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut control = [0_u64; CONTROL_WORDS];
    let mut header = message(&mut iovec, &mut control, CONTROL_WORDS * 8);
    let received = loop {
        let arguments = [socket.into(), (&raw mut header) as Word, (flags | libc::MSG_CMSG_CLOEXEC).into()];
        // SAFETY: the message, its bytes and its control data outlive the call, and the lengths are theirs.
        match unsafe { call(libc::SYS_recvmsg, arguments) } {
            Err(libc::EINTR) => {}
            result => break result? as usize,
        }
    };
    let mut count = 0;
    // SAFETY: the kernel wrote the control data; the first header lies within it, or there is none.
    unsafe {
        let first = libc::CMSG_FIRSTHDR(&raw const header);
        if !first.is_null() && (*first).cmsg_level == libc::SOL_SOCKET && (*first).cmsg_type == libc::SCM_RIGHTS {
            let data_bytes = (*first).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
            count = (data_bytes / size_of::<RawFd>()).min(DESCRIPTORS_SENT);
            std::ptr::copy_nonoverlapping(libc::CMSG_DATA(first).cast::<RawFd>(), descriptors.as_mut_ptr(), count);
        }
    }
    if header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
        return Err(libc::EMSGSIZE);
    }
    Ok((received, count))
}

/// Receives a message and takes over its descriptors.
pub(crate) fn receive_owned(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut numbers = [-1; DESCRIPTORS_SENT];
    let (length, count) =
        receive_with(socket.as_raw_fd(), bytes, &mut numbers, 0).map_err(io::Error::from_raw_os_error)?;
    // SAFETY: the kernel just made these descriptors for this message, and nobody else knows them.
    let owned = numbers[..count].iter().map(|number| unsafe { OwnedFd::from_raw_fd(*number) });
    Ok((length, owned.collect()))
}

/// Two connected packet sockets, lifted above a sandbox's own descriptors.
pub(crate) fn packet_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut pair = [-1_i32; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    let arguments = [libc::AF_UNIX.into(), kind.into(), 0, pair.as_mut_ptr() as Word];
    // SAFETY: room for two descriptors, which outlives the call.
    unsafe { checked(libc::SYS_socketpair, arguments) }?;
    // SAFETY: the call made both, and nobody else knows them.
    let (one, other) = unsafe { (OwnedFd::from_raw_fd(pair[0]), OwnedFd::from_raw_fd(pair[1])) };
    Ok((lift(one)?, lift(other)?))
}

/// Moves the calling thread into a namespace.
pub(crate) fn enter_namespace(namespace: BorrowedFd<'_>, kinds: i32) -> io::Result<()> {
    enter(namespace.as_raw_fd(), kinds).map_err(io::Error::from_raw_os_error)
}

/// The same between `clone3` and `exec`.
pub(crate) fn enter(namespace: RawFd, kinds: i32) -> Result<(), Errno> {
    // SAFETY: no pointers.
    unsafe { call(libc::SYS_setns, [namespace.into(), kinds.into()]) }.map(drop)
}

/// Takes the calling thread out of what it shares.
pub(crate) fn unshare(kinds: i32) -> io::Result<()> {
    // SAFETY: no pointers.
    unsafe { checked(libc::SYS_unshare, [kinds.into()]) }.map(drop)
}

/// The kernel's `struct mount_attr`.
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// From `linux/mount.h`; libc has none of them.
const OPEN_TREE_CLONE: Word = 1;
pub(crate) const AT_RECURSIVE: Word = 0x8000;
const MOVE_MOUNT_F_EMPTY_PATH: Word = 4;
const MOVE_MOUNT_T_EMPTY_PATH: Word = 0x40;

/// Sets `MOUNT_ATTR_*` on a mount, also between `clone3` and `exec`.
pub(crate) fn set_mount_attributes(at: RawFd, path: &CStr, flags: Word, set: u64) -> Result<(), Errno> {
    let attributes = MountAttributes { set, clear: 0, propagation: 0, user_namespace: 0 };
    let arguments = [
        at.into(),
        path.as_ptr() as Word,
        flags,
        (&raw const attributes) as Word,
        size_of::<MountAttributes>() as Word,
    ];
    // SAFETY: path and attributes outlive the call, and the size is theirs.
    unsafe { call(libc::SYS_mount_setattr, arguments) }.map(drop)
}

/// A copy of the mount at a path that is not attached anywhere yet, also between `clone3` and `exec`. Without `follow`, no part of the
/// path may be a link.
pub(crate) fn detach_copy(source: &CStr, follow: bool) -> Result<RawFd, Errno> {
    if follow {
        return open_tree(libc::AT_FDCWD, source, 0);
    }
    let place = resolve::without_links(source)?;
    let tree = open_tree(place, c"", libc::AT_EMPTY_PATH);
    // SAFETY: opened here, and known to nobody else.
    unsafe { call(libc::SYS_close, [place.into()]) }?;
    tree
}

fn open_tree(at: RawFd, path: &CStr, flags: i32) -> Result<RawFd, Errno> {
    let flags = OPEN_TREE_CLONE | Word::from(libc::O_CLOEXEC) | AT_RECURSIVE | Word::from(flags);
    // SAFETY: the path is null-terminated and outlives the call.
    unsafe { call(libc::SYS_open_tree, [at.into(), path.as_ptr() as Word, flags]) }.map(|fd| fd as RawFd)
}

/// Attaches such a copy in the mount namespace of the caller, also between `clone3` and `exec`.
pub(crate) fn attach_copy(tree: RawFd, target: &CStr) -> Result<(), Errno> {
    move_mount(tree, libc::AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH)
}

/// The same at an open place.
pub(crate) fn attach_copy_at(tree: RawFd, place: RawFd) -> Result<(), Errno> {
    move_mount(tree, place, c"", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)
}

fn move_mount(tree: RawFd, at: RawFd, target: &CStr, flags: Word) -> Result<(), Errno> {
    let arguments = [tree.into(), c"".as_ptr() as Word, at.into(), target.as_ptr() as Word, flags];
    // SAFETY: both paths are null-terminated and outlive the call.
    unsafe { call(libc::SYS_move_mount, arguments) }.map(drop)
}

/// A copy of the mount at a path without links, with these attributes on everything below, attached nowhere yet.
pub(crate) fn detached_tree(source: &CStr, attributes: u64) -> io::Result<OwnedFd> {
    detached_copy(source, attributes).map(|tree| fresh(tree.into())).map_err(io::Error::from_raw_os_error)
}

/// The same between `clone3` and `exec`.
pub(crate) fn detached_copy(source: &CStr, attributes: u64) -> Result<RawFd, Errno> {
    let tree = detach_copy(source, false)?;
    let below = Word::from(libc::AT_EMPTY_PATH) | AT_RECURSIVE;
    let set = set_mount_attributes(tree, c"", below, attributes);
    if set.is_err() {
        // SAFETY: opened here, and known to nobody else.
        let _ = unsafe { call(libc::SYS_close, [tree.into()]) };
    }
    set.map(|()| tree)
}

/// Attaches a detached tree in the mount namespace of the calling thread, at a path without links.
pub(crate) fn attach_tree(tree: BorrowedFd<'_>, target: &CStr) -> io::Result<()> {
    attach_copy_without_links(tree.as_raw_fd(), target).map_err(io::Error::from_raw_os_error)
}

/// The same between `clone3` and `exec`.
pub(crate) fn attach_copy_without_links(tree: RawFd, target: &CStr) -> Result<(), Errno> {
    let place = resolve::without_links(target)?;
    let moved = attach_copy_at(tree, place);
    // SAFETY: opened here, and known to nobody else.
    unsafe { call(libc::SYS_close, [place.into()]) }?;
    moved
}

/// Makes an open directory the root and another the working directory of the calling thread, which shares neither with others.
pub(crate) fn stand_in(root: BorrowedFd<'_>, directory: BorrowedFd<'_>) -> io::Result<()> {
    stand_at(root.as_raw_fd(), directory.as_raw_fd()).map_err(io::Error::from_raw_os_error)
}

/// The same between `clone3` and `exec`.
pub(crate) fn stand_at(root: RawFd, directory: RawFd) -> Result<(), Errno> {
    // SAFETY: descriptors and a static path.
    unsafe {
        call(libc::SYS_fchdir, [root.into()])?;
        call(libc::SYS_chroot, [c".".as_ptr() as Word])?;
        call(libc::SYS_fchdir, [directory.into()]).map(drop)
    }
}

/// Limits the data of a process, which may have had more, and which belongs to this user if not to ours. Another's is limited with
/// CAP_SYS_RESOURCE, which a root may lack, or by that user.
pub(crate) fn limit_data(pid: i32, user: Option<u32>, bytes: u64) -> io::Result<()> {
    let both = [bytes, bytes];
    let limit = || {
        // SAFETY: a struct rlimit64 is two u64, which outlive the call; the old limit is not asked for.
        unsafe { call(libc::SYS_prlimit64, [pid.into(), libc::RLIMIT_DATA.into(), both.as_ptr() as Word]) }.map(drop)
    };
    let limited = match (limit(), user) {
        (Err(libc::EPERM), Some(user)) => with_real_ids(user, limit),
        (limited, _) => limited,
    };
    limited.map_err(io::Error::from_raw_os_error)
}

/// Does something with the real ids of a user, who has a group of the same number. What this thread may do, it may all the while: that
/// goes by the effective ids.
///
/// # Panics
/// When the thread cannot have its own back.
fn with_real_ids(user: u32, act: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    const KEPT: Word = -1;
    let real = |uid: Word, gid: Word| {
        // SAFETY: these calls take numbers, and change the calling thread alone.
        unsafe {
            call(libc::SYS_setresgid, [gid, KEPT, KEPT]).and_then(|_| call(libc::SYS_setresuid, [uid, KEPT, KEPT]))
        }
    };
    // SAFETY: no arguments, cannot fail.
    let (uid, gid) = unsafe { (libc::getuid(), libc::getgid()) };
    let acted = real(user.into(), user.into()).and_then(|_| act());
    real(uid.into(), gid.into()).expect("who has changed an id may change it back");
    acted
}

/// Gives a process these cores.
pub(crate) fn set_cores(pid: i32, mask: &[u64]) -> io::Result<()> {
    let arguments = [pid.into(), size_of_val(mask) as Word, mask.as_ptr() as Word];
    // SAFETY: the mask outlives the call and the size is its own.
    unsafe { checked(libc::SYS_sched_setaffinity, arguments) }.map(drop)
}

/// Brings the loopback interface of the calling thread's network namespace up.
pub(crate) fn loopback_up() -> io::Result<()> {
    bring_loopback_up().map_err(io::Error::from_raw_os_error)
}

/// The same between `clone3` and `exec`.
pub(crate) fn bring_loopback_up() -> Result<(), Errno> {
    let mut name = [0; libc::IFNAMSIZ];
    name[0] = b'l' as libc::c_char;
    name[1] = b'o' as libc::c_char;
    let request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: libc::IFF_UP as libc::c_short },
    };
    // SAFETY: the request outlives its call; the socket was made here.
    unsafe {
        let socket = call(libc::SYS_socket, [libc::AF_INET.into(), libc::SOCK_DGRAM.into(), 0])?;
        let result = call(libc::SYS_ioctl, [socket, libc::SIOCSIFFLAGS as Word, (&raw const request) as Word]);
        call(libc::SYS_close, [socket])?;
        result.map(drop)
    }
}

/// A socket that listens at a port of 127.0.0.1, in the network namespace of the caller. Neither allocates nor locks.
pub(crate) fn listen_on_loopback(port: u16, waiting: i32) -> Result<RawFd, Errno> {
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: std::net::Ipv4Addr::LOCALHOST.to_bits().to_be() },
        sin_zero: [0; 8],
    };
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    // SAFETY: the address outlives its call and the length is its own; the socket was made here.
    unsafe {
        let socket = call(libc::SYS_socket, [libc::AF_INET.into(), kind.into(), 0])?;
        call(libc::SYS_bind, [socket, (&raw const address) as Word, size_of_val(&address) as Word])?;
        call(libc::SYS_listen, [socket, waiting.into()])?;
        Ok(socket as RawFd)
    }
}

/// An anonymous file in memory.
pub(crate) fn memory_file(name: &CStr) -> io::Result<OwnedFd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name outlives the call.
    unsafe { checked(libc::SYS_memfd_create, [name.as_ptr() as Word, flags.into()]) }.map(fresh)
}

/// Makes a file in memory unchangeable for everyone.
pub(crate) fn seal_contents(fd: RawFd) -> io::Result<()> {
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE | libc::F_SEAL_SEAL;
    // SAFETY: no pointers.
    unsafe { checked(libc::SYS_fcntl, [fd.into(), libc::F_ADD_SEALS.into(), seals.into()]) }.map(drop)
}
