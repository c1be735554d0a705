//! The system calls of the child that unpacks hostile archives: reviewed data, one row a call, with its reason.
//!
//! Owns: the list. Invariant: it makes directories, plain files and links, and memory for data; no call of it makes a process, a socket or a
//! device, executes anything, changes an owner or sets a set-user-id bit. Does not know: how a filter is compiled or installed, and which
//! files can be reached, which mounts and Landlock decide.

use super::policy::{Row, numbers, rows};
use super::rules::Rule::Always;
use super::rules::{CHMOD, DATA_PAGES, FCHMODAT, FCNTL_PLAIN, FUTEX, MKDIR, MKDIRAT, OPEN, OPENAT};

pub(super) const ROWS: &[&[Row]] = &[
    rows! {
        SYS_read Always, "the archive";
        SYS_pread64 Always, "the archive, whose place nobody else moves then";
        SYS_lseek Always, "the archive";
        SYS_write Always, "files, and the answer";
        SYS_close Always, "files";
        SYS_openat OPENAT, "files, never without rights of their owner";
        SYS_fstat Always, "sizes";
        SYS_newfstatat Always, "kinds of entries";
        SYS_statx Always, "kinds of entries";
        SYS_getdents64 Always, "removing a directory that a later layer hides";
        SYS_mkdirat MKDIRAT, "directories, never without rights of their owner, who could not remove them";
        SYS_symlinkat Always, "symbolic links";
        SYS_linkat Always, "hard links";
        SYS_unlinkat Always, "what a later layer hides";
        SYS_fchmod CHMOD, "the two modes of unpacked files";
        SYS_fchmodat FCHMODAT, "the two modes of unpacked files";
        SYS_fcntl FCNTL_PLAIN, "flags of descriptors";
    },
    // The calls that newer architectures leave out.
    rows! {
        #[cfg(target_arch = "x86_64")] SYS_open OPEN, "older form of openat";
        #[cfg(target_arch = "x86_64")] SYS_stat Always, "older form of newfstatat";
        #[cfg(target_arch = "x86_64")] SYS_lstat Always, "older form of newfstatat";
        #[cfg(target_arch = "x86_64")] SYS_mkdir MKDIR, "older form of mkdirat";
        #[cfg(target_arch = "x86_64")] SYS_symlink Always, "older form of symlinkat";
        #[cfg(target_arch = "x86_64")] SYS_unlink Always, "older form of unlinkat";
        #[cfg(target_arch = "x86_64")] SYS_rmdir Always, "older form of unlinkat";
        #[cfg(target_arch = "x86_64")] SYS_chmod CHMOD, "older form of fchmodat";
    },
    rows! {
        SYS_brk Always, "memory, within RLIMIT_DATA";
        SYS_mmap DATA_PAGES, "memory, within RLIMIT_DATA";
        SYS_mprotect DATA_PAGES, "memory of the allocator";
        SYS_munmap Always, "memory";
        SYS_mremap Always, "memory";
        SYS_madvise Always, "memory of the allocator";
        SYS_futex FUTEX, "locks of std";
        SYS_getrandom Always, "seeds of hash tables";
        SYS_clock_gettime Always, "clocks, where the vDSO does not answer";
        SYS_sigaltstack Always, "ending a thread of std";
        SYS_rt_sigprocmask Always, "abort";
        SYS_rt_sigaction Always, "abort";
        SYS_rt_sigreturn Always, "signals";
        SYS_getpid Always, "abort";
        SYS_gettid Always, "abort";
        SYS_tgkill Always, "abort; it sees no process but itself";
        SYS_exit Always, "ending";
        SYS_exit_group Always, "ending";
    },
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::ROWS;

    #[test]
    fn every_call_has_one_row_and_what_must_have_none_has_none() {
        let mut seen = HashSet::new();
        for row in ROWS.iter().copied().flatten() {
            assert!(seen.insert(row.number), "{} appears twice", row.name);
            assert!(row.reason.len() > 2, "{} has no reason", row.name);
        }
        for number in [
            libc::SYS_clone,
            libc::SYS_execve,
            libc::SYS_socket,
            libc::SYS_socketpair,
            libc::SYS_connect,
            libc::SYS_sendmsg,
            libc::SYS_recvmsg,
            libc::SYS_mknodat,
            libc::SYS_fchown,
            libc::SYS_fchownat,
            libc::SYS_fsetxattr,
            libc::SYS_umask,
            libc::SYS_kill,
            libc::SYS_ptrace,
            libc::SYS_prctl,
            libc::SYS_ioctl,
            libc::SYS_mount,
            libc::SYS_setns,
            libc::SYS_unshare,
            libc::SYS_prlimit64,
        ] {
            assert!(!seen.contains(&number), "call {number} must not be allowed");
        }
    }
}
