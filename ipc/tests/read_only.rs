//! A process of another user, root of a user namespace of its own or not, cannot write the down region that the worker
//! guards by permission. Needs root; elsewhere there is no other user to be.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::os::fd::AsRawFd;
use std::ptr::null_mut;

use vilya_ipc::host::{Host, ReadOnlyBy};
use vilya_ipc::layout::{DOWN_MAGIC, RegionSpec};

/// A user of the host that is nobody's.
const OTHER: libc::uid_t = 0x6FFF_0001;

/// What the child could do that it must not, as bits of its exit status; or why it could not try.
const REOPENED: u8 = 1;
const CHANGED: u8 = 2;
const MAPPED: u8 = 4;
const RESIZED: u8 = 8;
const WRITTEN: u8 = 16;
const UNREADABLE: u8 = 32;
const UNTRIED: u8 = 64;

#[test]
fn another_user_cannot_write_the_down_region_by_any_way_it_has() {
    assert_eq!(attempts_of(false), Some(0));
}

#[test]
fn nor_can_the_root_of_a_user_namespace() {
    assert_eq!(attempts_of(true), Some(0));
}

/// What a child that became another user, and then root of its own namespace, managed; `None` if it managed nothing
/// because this is not run by root.
fn attempts_of(namespace_root: bool) -> Option<u8> {
    // SAFETY: a system call without arguments.
    if unsafe { libc::geteuid() } != 0 {
        println!("not root: there is no other user to be");
        return Some(0);
    }
    let spec = RegionSpec { lanes: 1, payload_limit_bytes: 4096 };
    let (host, fds) = Host::create(&spec, ReadOnlyBy::Permission).expect("regions can be made");
    let fd = fds.down.as_raw_fd();
    let path = CString::new(format!("/proc/self/fd/{fd}")).expect("no zero bytes");
    let map = CString::new(format!("0 {OTHER} 1")).expect("no zero bytes");
    // SAFETY: the child calls nothing but system calls and `_exit`, and allocates nothing.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: as above.
        unsafe {
            let tried = become_other() && (!namespace_root || become_namespace_root(&map));
            libc::_exit(i32::from(if tried { attempt(fd, &path) } else { UNTRIED }))
        }
    }
    let mut status = 0;
    // SAFETY: waits for the child made above.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    drop(host);
    libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status) as u8)
}

/// # Safety
/// Called in a forked child.
unsafe fn become_other() -> bool {
    // SAFETY: system calls on plain numbers. Dumpable again, so that `/proc/self` is this user's.
    unsafe {
        libc::setgroups(0, std::ptr::null()) == 0
            && libc::setresgid(OTHER, OTHER, OTHER) == 0
            && libc::setresuid(OTHER, OTHER, OTHER) == 0
            && libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) == 0
    }
}

/// # Safety
/// Called in a forked child.
unsafe fn become_namespace_root(map: &CStr) -> bool {
    // SAFETY: as for the functions called.
    unsafe {
        libc::unshare(libc::CLONE_NEWUSER) == 0
            && put(c"/proc/self/setgroups", c"deny")
            && put(c"/proc/self/uid_map", map)
            && put(c"/proc/self/gid_map", map)
            && libc::setresuid(0, 0, 0) == 0
    }
}

/// # Safety
/// Called in a forked child.
unsafe fn put(path: &CStr, text: &CStr) -> bool {
    // SAFETY: both strings live across the calls.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_WRONLY);
        fd >= 0 && libc::write(fd, text.as_ptr().cast(), text.count_bytes()) == text.count_bytes() as isize
    }
}

/// Tries every way to write through `fd`, whose name is `path`.
///
/// # Safety
/// Called in a forked child; `fd` is a region's.
unsafe fn attempt(fd: i32, path: &CStr) -> u8 {
    let writable = libc::PROT_READ | libc::PROT_WRITE;
    let mut done = 0;
    let mut note = |bit: u8, happened: bool| done |= if happened { bit } else { 0 };
    // SAFETY: system calls on a descriptor and on memory mapped here.
    unsafe {
        for mode in [libc::O_RDWR, libc::O_WRONLY, libc::O_RDWR | libc::O_TRUNC] {
            note(REOPENED, libc::open(path.as_ptr(), mode) >= 0);
        }
        note(CHANGED, libc::fchmod(fd, 0o666) == 0 || libc::chmod(path.as_ptr(), 0o666) == 0);
        note(CHANGED, libc::fchown(fd, libc::geteuid(), libc::getegid()) == 0);
        note(CHANGED, libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_WRITE) == 0);
        note(REOPENED, libc::open(path.as_ptr(), libc::O_RDWR) >= 0);
        note(RESIZED, libc::ftruncate(fd, 0) == 0 || libc::truncate(path.as_ptr(), 0) == 0);
        note(RESIZED, libc::fallocate(fd, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, 0, 4096) == 0);
        note(
            WRITTEN,
            libc::pwrite(fd, c"x".as_ptr().cast(), 1, 0) >= 0 || libc::write(fd, c"x".as_ptr().cast(), 1) >= 0,
        );
        note(MAPPED, libc::mmap(null_mut(), 4096, writable, libc::MAP_SHARED, fd, 0) != libc::MAP_FAILED);
        let at = libc::mmap(null_mut(), 4096, libc::PROT_READ, libc::MAP_SHARED, fd, 0);
        if at == libc::MAP_FAILED {
            return UNREADABLE;
        }
        note(MAPPED, libc::mprotect(at, 4096, writable) == 0);
        note(WRITTEN, libc::madvise(at, 4096, libc::MADV_REMOVE) == 0);
        let memory = libc::open(c"/proc/self/mem".as_ptr(), libc::O_RDWR);
        note(WRITTEN, memory >= 0 && libc::pwrite(memory, c"x".as_ptr().cast(), 1, at as libc::off_t) >= 0);
        note(UNREADABLE, at.cast::<u64>().read_volatile() != DOWN_MAGIC);
    }
    done
}
