//! The system calls that a sandboxed program may make: reviewed data, one row a call, with its reason.
//!
//! Owns: the allow-list, and the calls that answer "not implemented". The conditions on arguments are in `rules`.
//! Invariant: a call without a row is refused with EPERM. Rows are ordered by what they are for, and no call appears twice.
//! Does not know: how a filter is compiled or installed.
//!
//! Deliberately without a row: `io_uring_*`, `bpf`, `userfaultfd`, `perf_event_open`, `keyctl` and its family, `ptrace`,
//! `process_vm_*`, `process_madvise`, `pidfd_getfd`, `cachestat` (it shows what others read), `kcmp`, `seccomp`, the mount family,
//! `pivot_root`, `chroot`, `unshare`, `setns`, `name_to_handle_at`, `open_by_handle_at`, `mknod*`, the module and kexec calls, `swapon`,
//! `reboot`, `acct`, `quotactl*`, `syslog`, `personality`, `modify_ldt`, `iopl`, `ioperm`, `vmsplice`, `mq_*`, the clock setters,
//! `set*id`, `capset`, and every call that sets a scheduling class or an affinity (cores are the worker's to give).

#[cfg(target_arch = "x86_64")]
use super::rules::ARCH_PRCTL;
use super::rules::{
    ADVICE, CLONE, FCNTL, FUTEX, IOCTL, MADVISE, MEMFD_CREATE, MMAP, PRCTL, PRLIMIT, Rule, SETRLIMIT, SETSOCKOPT,
    SHMGET, SOCKET, SOCKETPAIR,
};

/// One system call of the allow-list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// `SYS_` and the kernel's name.
    pub(super) name: &'static str,
    pub(super) number: libc::c_long,
    pub(super) rule: Rule,
    /// Why a function needs it, or why it is harmless.
    pub(super) reason: &'static str,
}

macro_rules! rows {
    ($($(#[$gate:meta])* $number:ident $rule:expr, $reason:literal;)*) => {
        &[$($(#[$gate])* Row {
            name: stringify!($number), number: numbers::$number, rule: $rule, reason: $reason,
        },)*]
    };
}

pub(super) use rows;

/// Names for numbers that libc does not carry for every architecture; from 424 on they are the same on all of them.
pub(super) mod numbers {
    pub(in crate::seccomp) use libc::*;
    pub(in crate::seccomp) const SYS_FCHMODAT2: c_long = 452;
    pub(in crate::seccomp) const SYS_MAP_SHADOW_STACK: c_long = 453;
    pub(in crate::seccomp) const SYS_MSEAL: c_long = 462;
}

use Rule::Always;

/// The allow-list.
pub(super) const ROWS: &[&[Row]] = &[
    // Files and descriptors. What can be reached is decided by the mounts, not here.
    rows! {
        SYS_read Always, "data";
        SYS_write Always, "data";
        SYS_readv Always, "data";
        SYS_writev Always, "data";
        SYS_pread64 Always, "data";
        SYS_pwrite64 Always, "data";
        SYS_preadv Always, "data";
        SYS_pwritev Always, "data";
        SYS_preadv2 Always, "data";
        SYS_pwritev2 Always, "data";
        SYS_openat Always, "opening files";
        SYS_openat2 Always, "opening files with path resolution rules";
        SYS_close Always, "closing";
        SYS_close_range Always, "subprocess closes what it does not pass on";
        SYS_lseek Always, "seeking";
        SYS_fstat Always, "file attributes";
        SYS_newfstatat Always, "file attributes";
        SYS_statx Always, "file attributes";
        SYS_statfs Always, "free space of /tmp";
        SYS_fstatfs Always, "free space of /tmp";
        SYS_readlinkat Always, "symbolic links";
        SYS_faccessat Always, "access checks";
        SYS_faccessat2 Always, "access checks";
        SYS_getdents64 Always, "listing directories";
        SYS_getcwd Always, "the working directory";
        SYS_chdir Always, "the working directory";
        SYS_fchdir Always, "the working directory";
        SYS_mkdirat Always, "directories in /tmp";
        SYS_unlinkat Always, "removing in /tmp";
        SYS_renameat Always, "renaming in /tmp";
        SYS_renameat2 Always, "renaming in /tmp";
        SYS_linkat Always, "sem_open links its file into place";
        SYS_symlinkat Always, "links in /tmp";
        SYS_fchmod Always, "modes in /tmp; set-user-id bits are inert under nosuid and no_new_privs";
        SYS_fchmodat Always, "modes in /tmp";
        SYS_FCHMODAT2 Always, "modes in /tmp, newer libc";
        SYS_fchown Always, "shutil.copystat and tar, to its own id";
        SYS_fchownat Always, "shutil.copystat and tar, to its own id";
        SYS_utimensat Always, "times of files in /tmp";
        SYS_ftruncate Always, "sizing files and shared memory; inherited rings are sealed";
        SYS_truncate Always, "sizing files";
        SYS_fallocate Always, "databases reserve space";
        SYS_fsync Always, "databases";
        SYS_fdatasync Always, "databases";
        SYS_sync_file_range Always, "databases";
        SYS_fadvise64 ADVICE, "read-ahead advice, but not dropping what others have cached";
        SYS_readahead Always, "read-ahead advice";
        SYS_copy_file_range Always, "copying";
        SYS_sendfile Always, "copying";
        SYS_splice Always, "copying through pipes (Rust's std, Go)";
        SYS_tee Always, "copying through pipes";
        SYS_dup Always, "descriptors";
        SYS_dup3 Always, "descriptors";
        SYS_fcntl FCNTL, "descriptors, but neither leases nor notices on files that others use";
        SYS_flock Always, "locks on own files";
        SYS_ioctl IOCTL, "terminals, non-blocking mode, interfaces: listed requests only";
        SYS_pipe2 Always, "pipes";
        SYS_umask Always, "modes of new files";
        SYS_getxattr Always, "copying attributes";
        SYS_lgetxattr Always, "copying attributes";
        SYS_fgetxattr Always, "copying attributes";
        SYS_listxattr Always, "copying attributes";
        SYS_llistxattr Always, "copying attributes";
        SYS_flistxattr Always, "copying attributes";
        SYS_setxattr Always, "copying attributes within /tmp";
        SYS_lsetxattr Always, "copying attributes within /tmp";
        SYS_fsetxattr Always, "copying attributes within /tmp";
        SYS_removexattr Always, "copying attributes within /tmp";
        SYS_lremovexattr Always, "copying attributes within /tmp";
        SYS_fremovexattr Always, "copying attributes within /tmp";
        SYS_memfd_create MEMFD_CREATE, "anonymous files of ordinary pages, which the memory limit counts";
        SYS_inotify_init1 Always, "file watchers (node, watchdog)";
        SYS_inotify_add_watch Always, "file watchers";
        SYS_inotify_rm_watch Always, "file watchers";
    },
    // The calls that newer architectures leave out.
    rows! {
        #[cfg(target_arch = "x86_64")] SYS_open Always, "older form of openat";
        #[cfg(target_arch = "x86_64")] SYS_creat Always, "older form of openat";
        #[cfg(target_arch = "x86_64")] SYS_stat Always, "older form of newfstatat";
        #[cfg(target_arch = "x86_64")] SYS_lstat Always, "older form of newfstatat";
        #[cfg(target_arch = "x86_64")] SYS_access Always, "older form of faccessat";
        #[cfg(target_arch = "x86_64")] SYS_readlink Always, "older form of readlinkat";
        #[cfg(target_arch = "x86_64")] SYS_getdents Always, "older form of getdents64";
        #[cfg(target_arch = "x86_64")] SYS_mkdir Always, "older form of mkdirat";
        #[cfg(target_arch = "x86_64")] SYS_rmdir Always, "older form of unlinkat";
        #[cfg(target_arch = "x86_64")] SYS_unlink Always, "older form of unlinkat";
        #[cfg(target_arch = "x86_64")] SYS_rename Always, "older form of renameat";
        #[cfg(target_arch = "x86_64")] SYS_link Always, "older form of linkat";
        #[cfg(target_arch = "x86_64")] SYS_symlink Always, "older form of symlinkat";
        #[cfg(target_arch = "x86_64")] SYS_chmod Always, "older form of fchmodat";
        #[cfg(target_arch = "x86_64")] SYS_chown Always, "older form of fchownat";
        #[cfg(target_arch = "x86_64")] SYS_lchown Always, "older form of fchownat";
        #[cfg(target_arch = "x86_64")] SYS_utime Always, "older form of utimensat";
        #[cfg(target_arch = "x86_64")] SYS_utimes Always, "older form of utimensat";
        #[cfg(target_arch = "x86_64")] SYS_futimesat Always, "older form of utimensat";
        #[cfg(target_arch = "x86_64")] SYS_dup2 Always, "older form of dup3";
        #[cfg(target_arch = "x86_64")] SYS_pipe Always, "older form of pipe2";
        #[cfg(target_arch = "x86_64")] SYS_poll Always, "older form of ppoll";
        #[cfg(target_arch = "x86_64")] SYS_select Always, "older form of pselect6";
        #[cfg(target_arch = "x86_64")] SYS_epoll_create Always, "older form of epoll_create1";
        #[cfg(target_arch = "x86_64")] SYS_epoll_wait Always, "older form of epoll_pwait";
        #[cfg(target_arch = "x86_64")] SYS_eventfd Always, "older form of eventfd2";
        #[cfg(target_arch = "x86_64")] SYS_signalfd Always, "older form of signalfd4";
        #[cfg(target_arch = "x86_64")] SYS_inotify_init Always, "older form of inotify_init1";
        #[cfg(target_arch = "x86_64")] SYS_fork Always, "processes; counted against the limit";
        #[cfg(target_arch = "x86_64")] SYS_vfork Always, "subprocess and posix_spawn";
        #[cfg(target_arch = "x86_64")] SYS_getpgrp Always, "older form of getpgid";
        #[cfg(target_arch = "x86_64")] SYS_alarm Always, "older form of setitimer";
        #[cfg(target_arch = "x86_64")] SYS_pause Always, "waiting for a signal";
        #[cfg(target_arch = "x86_64")] SYS_time Always, "clock";
        #[cfg(target_arch = "x86_64")] SYS_arch_prctl ARCH_PRCTL, "thread-local storage register; processor features of its own";
    },
    // Waiting.
    rows! {
        SYS_ppoll Always, "waiting for descriptors";
        SYS_pselect6 Always, "waiting for descriptors";
        SYS_epoll_create1 Always, "event loops";
        SYS_epoll_ctl Always, "event loops";
        SYS_epoll_pwait Always, "event loops";
        SYS_epoll_pwait2 Always, "event loops";
        SYS_eventfd2 Always, "event loops, and the doorbell";
        SYS_signalfd4 Always, "signals as descriptors";
        SYS_timerfd_create Always, "timers as descriptors";
        SYS_timerfd_settime Always, "timers as descriptors";
        SYS_timerfd_gettime Always, "timers as descriptors";
        SYS_nanosleep Always, "sleep";
        SYS_clock_nanosleep Always, "sleep";
        SYS_clock_gettime Always, "clocks, where the vDSO does not answer";
        SYS_clock_getres Always, "clocks";
        SYS_gettimeofday Always, "clock";
        SYS_times Always, "processor time used";
        SYS_getitimer Always, "timers";
        SYS_setitimer Always, "timers (signal.setitimer, profilers)";
        SYS_timer_create Always, "timers (Go's profiler)";
        SYS_timer_settime Always, "timers";
        SYS_timer_gettime Always, "timers";
        SYS_timer_getoverrun Always, "timers";
        SYS_timer_delete Always, "timers";
        SYS_futex FUTEX, "locks and the submission ring: wait and wake only";
    },
    // Memory.
    rows! {
        SYS_mmap MMAP, "memory of ordinary pages, which the memory limit counts";
        SYS_munmap Always, "memory";
        SYS_mremap Always, "memory";
        SYS_mprotect Always, "memory; just-in-time compilers";
        SYS_madvise MADVISE, "memory, but not merging pages with those of others";
        SYS_brk Always, "memory";
        SYS_msync Always, "mapped files";
        SYS_mincore Always, "residency of own pages (JVM, Go)";
        SYS_mlock Always, "small locked buffers, within RLIMIT_MEMLOCK";
        SYS_mlock2 Always, "small locked buffers, within RLIMIT_MEMLOCK";
        SYS_munlock Always, "small locked buffers";
        SYS_membarrier Always, "barriers between own threads (JVM, liburcu)";
        SYS_pkey_alloc Always, "protection keys of own pages (V8)";
        SYS_pkey_free Always, "protection keys of own pages";
        SYS_pkey_mprotect Always, "protection keys of own pages";
        SYS_get_mempolicy Always, "allocators ask for their node";
        SYS_MSEAL Always, "sealing own mappings (new glibc)";
        SYS_MAP_SHADOW_STACK Always, "shadow stacks (new glibc)";
        SYS_rseq Always, "restartable sequences (glibc)";
        SYS_shmget SHMGET, "System V memory of the sandbox's own ipc namespace";
        SYS_shmat Always, "System V memory of the sandbox's own ipc namespace";
        SYS_shmdt Always, "System V memory of the sandbox's own ipc namespace";
        SYS_shmctl Always, "System V memory of the sandbox's own ipc namespace";
    },
    // Processes, threads and signals, all within the sandbox's own pid namespace.
    rows! {
        SYS_clone CLONE, "threads and processes, without new namespaces";
        SYS_execve Always, "subprocess; nothing gains privilege";
        SYS_execveat Always, "fexecve";
        SYS_exit Always, "ending";
        SYS_exit_group Always, "ending";
        SYS_wait4 Always, "children";
        SYS_waitid Always, "children";
        SYS_getpid Always, "ids";
        SYS_getppid Always, "ids";
        SYS_gettid Always, "ids";
        SYS_getpgid Always, "ids";
        SYS_getsid Always, "ids";
        SYS_setpgid Always, "process groups of own children";
        SYS_setsid Always, "subprocess(start_new_session=True)";
        SYS_set_tid_address Always, "thread start";
        SYS_set_robust_list Always, "thread start";
        SYS_get_robust_list Always, "robust locks";
        SYS_kill Always, "signals to own processes";
        SYS_tkill Always, "signals to own threads";
        SYS_tgkill Always, "signals to own threads (abort, Go's preemption)";
        SYS_pidfd_open Always, "asyncio waits for children with it";
        SYS_pidfd_send_signal Always, "signals to own processes";
        SYS_rt_sigaction Always, "signals";
        SYS_rt_sigprocmask Always, "signals";
        SYS_rt_sigreturn Always, "signals";
        SYS_rt_sigpending Always, "signals";
        SYS_rt_sigsuspend Always, "signals";
        SYS_rt_sigtimedwait Always, "signals";
        SYS_rt_sigqueueinfo Always, "signals to own processes";
        SYS_rt_tgsigqueueinfo Always, "signals to own threads";
        SYS_sigaltstack Always, "overflow handlers (Rust, Go)";
        SYS_restart_syscall Always, "the kernel's own";
        SYS_prctl PRCTL, "names of threads and harmless queries";
        SYS_getrlimit Always, "limits";
        SYS_setrlimit SETRLIMIT, "lowering own limits";
        SYS_prlimit64 PRLIMIT, "limits of own processes";
        SYS_getrusage Always, "resources used";
        SYS_sched_yield Always, "spinning politely";
        SYS_sched_getaffinity Always, "counting cores";
        SYS_sched_getparam Always, "thread attributes";
        SYS_sched_getscheduler Always, "thread attributes";
        SYS_sched_get_priority_max Always, "thread attributes";
        SYS_sched_get_priority_min Always, "thread attributes";
        SYS_sched_rr_get_interval Always, "thread attributes";
        SYS_getpriority Always, "niceness";
        SYS_setpriority Always, "being nicer; RLIMIT_NICE is 0";
        SYS_getcpu Always, "which core, where the vDSO does not answer";
    },
    // Who and where.
    rows! {
        SYS_getuid Always, "ids";
        SYS_geteuid Always, "ids";
        SYS_getgid Always, "ids";
        SYS_getegid Always, "ids";
        SYS_getresuid Always, "ids";
        SYS_getresgid Always, "ids";
        SYS_getgroups Always, "ids";
        SYS_capget Always, "learning that there are none";
        SYS_uname Always, "platform module";
        SYS_sysinfo Always, "memory totals (node, glibc's qsort)";
        SYS_getrandom Always, "randomness";
        SYS_semget Always, "System V semaphores of the sandbox's own ipc namespace";
        SYS_semop Always, "System V semaphores of the sandbox's own ipc namespace";
        SYS_semctl Always, "System V semaphores of the sandbox's own ipc namespace";
        SYS_semtimedop Always, "System V semaphores of the sandbox's own ipc namespace";
    },
    // Sockets. The network namespace has a loopback and nothing else.
    rows! {
        SYS_socket SOCKET, "local, TCP, UDP and route-netlink sockets";
        SYS_socketpair SOCKETPAIR, "event loops wake themselves with a pair";
        SYS_bind Always, "servers on the sandbox's own loopback";
        SYS_listen Always, "servers on the sandbox's own loopback";
        SYS_accept Always, "servers on the sandbox's own loopback";
        SYS_accept4 Always, "servers on the sandbox's own loopback";
        SYS_connect Always, "clients";
        SYS_getsockname Always, "addresses";
        SYS_getpeername Always, "addresses";
        SYS_sendto Always, "data";
        SYS_recvfrom Always, "data";
        SYS_sendmsg Always, "data";
        SYS_recvmsg Always, "data";
        SYS_sendmmsg Always, "glibc's resolver";
        SYS_recvmmsg Always, "data";
        SYS_shutdown Always, "closing one way";
        SYS_setsockopt SETSOCKOPT, "options, but no programs and no protocols on top";
        SYS_getsockopt Always, "options";
    },
];

/// Calls that answer ENOSYS instead of EPERM, so that a libc takes its older way: `clone3`, whose flags lie in memory where a filter cannot
/// look (libc then uses `clone`), and what is newer than this list.
pub(super) fn unimplemented() -> impl Iterator<Item = libc::c_long> {
    std::iter::once(libc::SYS_clone3)
        .chain(NEWER)
        .filter(|number| !ROWS.iter().copied().flatten().any(|row| row.number == *number))
}

/// From `futex_waitv` up to a number that no kernel has reached yet.
const NEWER: std::ops::Range<libc::c_long> = libc::SYS_futex_waitv..512;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{ROWS, Rule, unimplemented};

    #[test]
    fn every_call_has_one_row_and_a_reason() {
        let mut seen = HashSet::new();
        for row in ROWS.iter().copied().flatten() {
            assert!(seen.insert(row.number), "{} appears twice", row.name);
            assert!(row.reason.len() > 2, "{} has no reason", row.name);
            if let Rule::Only(cases) | Rule::Except(cases) = row.rule {
                assert!(
                    !cases.is_empty() && cases.iter().all(|case| !case.is_empty()),
                    "{} has an empty rule",
                    row.name
                );
            }
        }
    }

    #[test]
    fn what_must_never_have_a_row_has_none() {
        let forbidden = [
            libc::SYS_io_uring_setup,
            libc::SYS_io_uring_enter,
            libc::SYS_io_uring_register,
            libc::SYS_bpf,
            libc::SYS_userfaultfd,
            libc::SYS_perf_event_open,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_request_key,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_pidfd_getfd,
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_move_mount,
            libc::SYS_open_tree,
            libc::SYS_fsopen,
            libc::SYS_mount_setattr,
            libc::SYS_pivot_root,
            libc::SYS_chroot,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_name_to_handle_at,
            libc::SYS_open_by_handle_at,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_kexec_load,
            libc::SYS_swapon,
            libc::SYS_personality,
            libc::SYS_sched_setaffinity,
            libc::SYS_sched_setscheduler,
            libc::SYS_clone3,
            libc::SYS_seccomp,
            libc::SYS_syslog,
            libc::SYS_mknodat,
            libc::SYS_personality,
            libc::SYS_vmsplice,
            libc::SYS_fanotify_init,
            // cachestat, listmount, statmount.
            451,
            457,
            458,
        ];
        for row in ROWS.iter().copied().flatten() {
            assert!(!forbidden.contains(&row.number), "{} must not be allowed", row.name);
        }
        assert!(unimplemented().any(|number| number == libc::SYS_clone3));
    }
}
