//! System calls and arguments with which they return at once and change nothing: what the filter lets through, and what it refuses.
//!
//! Owns: the cases of the calls that have a row. Invariant: arguments are such that the kernel's own answer is neither EPERM nor ENOSYS.
//! Does not know: how a call is made.

use libc::*;

/// Zeroed memory, at the same place in every process that makes the calls.
pub(super) const BUFFER: u64 = 0x5a00_0000_0000;
/// No descriptor, and no address that anything lies at.
const BAD: u64 = u64::MAX;
/// No process has this number.
const NOBODY: u64 = 4_194_303;
/// What the ending calls end with.
pub(super) const STATUS: u64 = 42;
/// Bits that the kernel does not read where a register holds an `int`.
const JUNK: u64 = 0xabcd_ef01 << 32;

/// A call, by name and number, with its arguments; missing ones are 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) number: c_long,
    pub(super) arguments: [u64; 6],
}

const fn filled(given: &[u64]) -> [u64; 6] {
    let mut arguments = [0; 6];
    let mut at = 0;
    while at < given.len() {
        arguments[at] = given[at];
        at += 1;
    }
    arguments
}

macro_rules! cases {
    ($($(#[$gate:meta])* $number:ident($($argument:expr),*))*) => {
        &[$($(#[$gate])* Case {
            name: stringify!($number), number: numbers::$number, arguments: filled(&[$($argument as u64),*]),
        },)*]
    };
}

/// Names that libc does not carry for every architecture.
mod numbers {
    pub(super) use libc::*;
    pub(super) const SYS_FCHMODAT2: c_long = 452;
    pub(super) const SYS_MAP_SHADOW_STACK: c_long = 453;
    pub(super) const SYS_MSEAL: c_long = 462;
}

/// What must come through.
pub(super) const PASS: &[&[Case]] = &[
    // Files and descriptors.
    cases! {
        SYS_read(BAD) SYS_write(BAD) SYS_readv(BAD) SYS_writev(BAD) SYS_pread64(BAD) SYS_pwrite64(BAD) SYS_preadv(BAD) SYS_pwritev(BAD)
        SYS_preadv2(BAD) SYS_pwritev2(BAD) SYS_openat(BAD) SYS_openat2(BAD) SYS_close(BAD) SYS_close_range(2, 1) SYS_lseek(BAD) SYS_fstat(BAD)
        SYS_newfstatat(BAD) SYS_statx(BAD) SYS_statfs() SYS_fstatfs(BAD) SYS_readlinkat(BAD, 0, 0, 1) SYS_faccessat(BAD) SYS_faccessat2(BAD)
        SYS_getdents64(BAD) SYS_getcwd() SYS_chdir() SYS_fchdir(BAD) SYS_mkdirat(BAD) SYS_unlinkat(BAD) SYS_renameat(BAD, 0, BAD)
        SYS_renameat2(BAD, 0, BAD) SYS_linkat(BAD, 0, BAD) SYS_symlinkat(0, BAD) SYS_fchmod(BAD) SYS_fchmodat(BAD) SYS_FCHMODAT2(BAD)
        SYS_fchown(BAD) SYS_fchownat(BAD) SYS_utimensat(BAD) SYS_ftruncate(BAD) SYS_truncate() SYS_fallocate(BAD, 0, 0, 1) SYS_fsync(BAD)
        SYS_fdatasync(BAD) SYS_sync_file_range(BAD) SYS_readahead(BAD) SYS_copy_file_range(BAD, 0, BAD, 0, 1) SYS_sendfile(BAD, BAD)
        SYS_splice(BAD, 0, BAD, 0, 1) SYS_tee(BAD, BAD, 1) SYS_dup(BAD) SYS_dup3(BAD) SYS_flock(BAD, 1) SYS_pipe2() SYS_umask(0o22)
        SYS_getxattr() SYS_lgetxattr() SYS_fgetxattr(BAD) SYS_listxattr() SYS_llistxattr() SYS_flistxattr(BAD) SYS_setxattr() SYS_lsetxattr()
        SYS_fsetxattr(BAD) SYS_removexattr() SYS_lremovexattr() SYS_fremovexattr(BAD) SYS_inotify_init1(1) SYS_inotify_add_watch(BAD, 0, 1)
        SYS_inotify_rm_watch(BAD)
        SYS_fadvise64(BAD) SYS_fadvise64(BAD, 0, 0, JUNK)
        SYS_fcntl(BAD, F_GETFL) SYS_fcntl(BAD, JUNK | F_GETFL as u64)
        SYS_memfd_create() SYS_memfd_create(0, MFD_CLOEXEC)
        SYS_ioctl(BAD, 0x5401) SYS_ioctl(BAD, 0x802c_542a) SYS_ioctl(BAD, 0x5413) SYS_ioctl(BAD, 0x541b) SYS_ioctl(BAD, 0x5421)
        SYS_ioctl(BAD, 0x5450) SYS_ioctl(BAD, 0x5451) SYS_ioctl(BAD, 0x8905) SYS_ioctl(BAD, 0x8910) SYS_ioctl(BAD, 0x8912)
        SYS_ioctl(BAD, 0x8913) SYS_ioctl(BAD, 0x8915) SYS_ioctl(BAD, 0x8919) SYS_ioctl(BAD, 0x891b) SYS_ioctl(BAD, 0x8921)
        SYS_ioctl(BAD, 0x8927) SYS_ioctl(BAD, 0x8933) SYS_ioctl(BAD, 0x4020_940d) SYS_ioctl(BAD, 0x4004_9409)
    },
    // The calls that newer architectures leave out. A thread-local register that is set to nothing is missed by nobody: the process ends.
    #[cfg(target_arch = "x86_64")]
    cases! {
        SYS_open() SYS_creat() SYS_stat() SYS_lstat() SYS_access() SYS_readlink(0, 0, 1) SYS_getdents(BAD) SYS_mkdir() SYS_rmdir() SYS_unlink()
        SYS_rename() SYS_link() SYS_symlink() SYS_chmod() SYS_chown() SYS_lchown() SYS_utime() SYS_utimes() SYS_futimesat(BAD) SYS_dup2(BAD)
        SYS_pipe() SYS_poll() SYS_select(BAD) SYS_epoll_create() SYS_epoll_wait(BAD) SYS_eventfd() SYS_signalfd(BAD) SYS_inotify_init()
        SYS_fork() SYS_vfork() SYS_getpgrp() SYS_alarm() SYS_pause() SYS_time()
        SYS_arch_prctl(0x1001) SYS_arch_prctl(0x1002) SYS_arch_prctl(0x1003) SYS_arch_prctl(0x1004) SYS_arch_prctl(0x1021)
        SYS_arch_prctl(0x1022) SYS_arch_prctl(0x1023, 999) SYS_arch_prctl(0x5001) SYS_arch_prctl(0x5002) SYS_arch_prctl(0x5003)
    },
    // Waiting.
    cases! {
        SYS_ppoll(0, 0, BAD) SYS_pselect6(BAD) SYS_epoll_create1(1) SYS_epoll_ctl(BAD) SYS_epoll_pwait(BAD) SYS_epoll_pwait2(BAD)
        SYS_eventfd2(0, 0x10) SYS_signalfd4(BAD) SYS_timerfd_create(999) SYS_timerfd_settime(BAD) SYS_timerfd_gettime(BAD) SYS_nanosleep()
        SYS_clock_nanosleep() SYS_clock_gettime(999) SYS_clock_getres(999) SYS_gettimeofday() SYS_times() SYS_getitimer(9) SYS_setitimer(9)
        SYS_timer_create(999) SYS_timer_settime(BAD) SYS_timer_gettime(BAD) SYS_timer_getoverrun(BAD) SYS_timer_delete(BAD)
        SYS_futex(0, FUTEX_WAIT) SYS_futex(0, FUTEX_WAKE | FUTEX_PRIVATE_FLAG) SYS_futex(0, FUTEX_WAKE_OP) SYS_futex(0, FUTEX_WAKE_BITSET)
        SYS_futex(0, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME | FUTEX_PRIVATE_FLAG) SYS_futex(0, JUNK | FUTEX_WAKE as u64)
    },
    // Memory.
    cases! {
        SYS_mmap(0, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, BAD) SYS_munmap() SYS_mremap(1) SYS_mprotect() SYS_madvise(1) SYS_brk() SYS_msync()
        SYS_mincore(1) SYS_mlock() SYS_mlock2() SYS_munlock() SYS_membarrier() SYS_pkey_alloc(1) SYS_pkey_free(99) SYS_pkey_mprotect(1, 1, 0, 99)
        SYS_get_mempolicy() SYS_MSEAL(1, 1, 1) SYS_MAP_SHADOW_STACK(1, 0, 99) SYS_rseq(0, 0, 2) SYS_shmget() SYS_shmat(BAD) SYS_shmdt(1)
        SYS_shmctl(BAD)
    },
    // Processes, threads and signals.
    cases! {
        SYS_clone(CLONE_THREAD) SYS_clone(JUNK | CLONE_THREAD as u64) SYS_execve() SYS_execveat(BAD) SYS_exit(STATUS) SYS_exit_group(STATUS)
        SYS_wait4(BAD, 0, WNOHANG) SYS_waitid(99) SYS_getpid() SYS_getppid() SYS_gettid() SYS_getpgid() SYS_getsid() SYS_setpgid(NOBODY)
        SYS_setsid() SYS_set_tid_address() SYS_set_robust_list() SYS_get_robust_list(NOBODY) SYS_kill(NOBODY) SYS_tkill(NOBODY)
        SYS_tgkill(NOBODY, NOBODY) SYS_pidfd_open(NOBODY) SYS_pidfd_send_signal(BAD) SYS_rt_sigaction(1) SYS_rt_sigprocmask() SYS_rt_sigreturn()
        SYS_rt_sigpending(0, 99) SYS_rt_sigsuspend() SYS_rt_sigtimedwait() SYS_rt_sigqueueinfo(NOBODY) SYS_rt_tgsigqueueinfo(NOBODY, NOBODY)
        SYS_sigaltstack() SYS_restart_syscall() SYS_getrlimit(99) SYS_setrlimit(RLIMIT_NOFILE) SYS_prlimit64(0, RLIMIT_NOFILE, 0, 0)
        SYS_prlimit64(0, RLIMIT_CORE, 0, BUFFER) SYS_getrusage(99) SYS_sched_yield() SYS_sched_getaffinity() SYS_sched_getparam()
        SYS_sched_getscheduler() SYS_sched_get_priority_max(99) SYS_sched_get_priority_min(99) SYS_sched_rr_get_interval(BAD) SYS_getpriority()
        SYS_setpriority(99) SYS_getcpu()
        SYS_prctl(PR_SET_NAME) SYS_prctl(PR_GET_NAME) SYS_prctl(PR_GET_PDEATHSIG) SYS_prctl(PR_GET_DUMPABLE) SYS_prctl(PR_SET_DUMPABLE, 99)
        SYS_prctl(PR_GET_TIMERSLACK) SYS_prctl(PR_SET_TIMERSLACK) SYS_prctl(PR_CAPBSET_READ, 999) SYS_prctl(PR_GET_NO_NEW_PRIVS)
        SYS_prctl(PR_SET_NO_NEW_PRIVS) SYS_prctl(PR_GET_SECCOMP) SYS_prctl(PR_GET_THP_DISABLE) SYS_prctl(PR_SET_THP_DISABLE)
        SYS_prctl(PR_GET_CHILD_SUBREAPER) SYS_prctl(PR_SET_CHILD_SUBREAPER) SYS_prctl(0x5356_4d41, 99)
    },
    // Who and where.
    cases! {
        SYS_getuid() SYS_geteuid() SYS_getgid() SYS_getegid() SYS_getresuid() SYS_getresgid() SYS_getgroups(BAD) SYS_capget() SYS_uname()
        SYS_sysinfo() SYS_getrandom(0, 0, 99) SYS_semget(0, BAD) SYS_semop(BAD) SYS_semctl(BAD) SYS_semtimedop(BAD)
    },
    // Sockets.
    cases! {
        SYS_socket(AF_UNIX, 99) SYS_socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC) SYS_socket(AF_INET, SOCK_STREAM, IPPROTO_TCP)
        SYS_socket(AF_INET, SOCK_DGRAM) SYS_socket(AF_INET, SOCK_DGRAM, IPPROTO_UDP) SYS_socket(AF_INET6, SOCK_STREAM)
        SYS_socket(AF_INET6, SOCK_STREAM, IPPROTO_TCP) SYS_socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK)
        SYS_socket(AF_INET6, SOCK_DGRAM, IPPROTO_UDP) SYS_socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)
        SYS_socketpair(AF_UNIX, SOCK_STREAM) SYS_bind(BAD) SYS_listen(BAD) SYS_accept(BAD) SYS_accept4(BAD) SYS_connect(BAD) SYS_getsockname(BAD)
        SYS_getpeername(BAD) SYS_sendto(BAD) SYS_recvfrom(BAD) SYS_sendmsg(BAD) SYS_recvmsg(BAD) SYS_sendmmsg(BAD) SYS_recvmmsg(BAD)
        SYS_shutdown(BAD) SYS_setsockopt(BAD, SOL_SOCKET, SO_KEEPALIVE) SYS_getsockopt(BAD)
    },
];

/// What the conditions on arguments refuse, and what stands nearest to what they allow.
pub(super) const REFUSE: &[&[Case]] = &[
    cases! {
        SYS_fadvise64(BAD, 0, 0, POSIX_FADV_DONTNEED) SYS_fcntl(BAD, F_SETLEASE) SYS_fcntl(BAD, JUNK | F_SETLEASE as u64) SYS_fcntl(BAD, F_NOTIFY)
        SYS_memfd_create(0, MFD_HUGETLB) SYS_ioctl(BAD, 0x5412) SYS_ioctl(BAD, JUNK | 0x5412) SYS_ioctl(BAD, 0x541c) SYS_ioctl(BAD, 0x1234)
        SYS_ioctl(BAD, 0x8914) SYS_ioctl(BAD, 0x8916) SYS_ioctl(BAD, 0x89a2)
    },
    // CPUID faulting, tagged addresses, and programs in a guest.
    #[cfg(target_arch = "x86_64")]
    cases! { SYS_arch_prctl(0x1011) SYS_arch_prctl(0x1012) SYS_arch_prctl(0x4001) SYS_arch_prctl(0x4002) SYS_arch_prctl(0x1025) },
    cases! {
        SYS_futex(0, FUTEX_FD) SYS_futex(0, FUTEX_REQUEUE) SYS_futex(0, FUTEX_CMP_REQUEUE) SYS_futex(0, FUTEX_LOCK_PI)
        SYS_futex(0, FUTEX_LOCK_PI | FUTEX_PRIVATE_FLAG) SYS_futex(0, FUTEX_UNLOCK_PI) SYS_futex(0, FUTEX_TRYLOCK_PI)
        SYS_futex(0, FUTEX_WAIT_REQUEUE_PI) SYS_futex(0, FUTEX_CMP_REQUEUE_PI) SYS_futex(0, 13) SYS_futex(0, JUNK | FUTEX_LOCK_PI as u64)
        SYS_mmap(0, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, BAD) SYS_madvise(1, 0, MADV_MERGEABLE)
        SYS_madvise(1, 0, JUNK | MADV_MERGEABLE as u64) SYS_madvise(1, 0, MADV_HWPOISON) SYS_madvise(1, 0, MADV_SOFT_OFFLINE)
        SYS_shmget(0, 0, SHM_HUGETLB)
    },
    cases! {
        SYS_clone(CLONE_NEWNS) SYS_clone(CLONE_NEWCGROUP) SYS_clone(CLONE_NEWUTS) SYS_clone(CLONE_NEWIPC) SYS_clone(CLONE_NEWUSER)
        SYS_clone(CLONE_NEWPID) SYS_clone(CLONE_NEWNET) SYS_clone(CLONE_NEWUSER | CLONE_NEWNS | CLONE_VM | SIGCHLD)
        SYS_prlimit64(0, RLIMIT_CORE, BUFFER) SYS_prlimit64(0, JUNK | RLIMIT_CORE as u64, BUFFER) SYS_prlimit64(0, RLIMIT_CORE, 1_u64 << 32)
        SYS_setrlimit(RLIMIT_CORE)
        SYS_prctl(PR_SET_PDEATHSIG) SYS_prctl(PR_SET_PDEATHSIG, SIGUSR1) SYS_prctl(PR_SET_KEEPCAPS, 1) SYS_prctl(PR_SET_SECCOMP, 1)
        SYS_prctl(PR_CAPBSET_DROP) SYS_prctl(PR_SET_TSC, 1) SYS_prctl(PR_SET_SECUREBITS) SYS_prctl(PR_SET_MM, 1) SYS_prctl(PR_SET_PTRACER, BAD)
        SYS_prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 21) SYS_prctl(PR_SET_SPECULATION_CTRL) SYS_prctl(62, 1) SYS_prctl(67, 1)
        SYS_prctl(JUNK | PR_SET_PDEATHSIG as u64) SYS_prctl()
    },
    cases! {
        SYS_socket(AF_PACKET, SOCK_RAW) SYS_socket(AF_VSOCK, SOCK_STREAM) SYS_socket(AF_ALG, SOCK_SEQPACKET) SYS_socket(AF_XDP, SOCK_RAW)
        SYS_socket(AF_NETLINK, SOCK_RAW, NETLINK_AUDIT) SYS_socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER) SYS_socket(AF_INET, SOCK_RAW, IPPROTO_ICMP)
        SYS_socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6) SYS_socket(AF_INET, SOCK_STREAM, IPPROTO_SCTP) SYS_socket(AF_INET6, SOCK_SEQPACKET, IPPROTO_SCTP)
        SYS_socket(AF_INET, SOCK_DCCP, IPPROTO_DCCP) SYS_socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP) SYS_socket(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE)
        SYS_socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP) SYS_socket(AF_INET, SOCK_STREAM, IPPROTO_UDP) SYS_socket(AF_BLUETOOTH, SOCK_RAW)
        SYS_socket(AF_CAN, SOCK_RAW, 1) SYS_socket(JUNK | AF_VSOCK as u64, SOCK_STREAM) SYS_socketpair(AF_INET, SOCK_STREAM) SYS_socketpair(AF_TIPC, 1)
        SYS_setsockopt(BAD, SOL_SOCKET, SO_ATTACH_FILTER) SYS_setsockopt(BAD, SOL_SOCKET, SO_ATTACH_BPF)
        SYS_setsockopt(BAD, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF) SYS_setsockopt(BAD, SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF)
        SYS_setsockopt(BAD, SOL_TCP, TCP_ULP) SYS_setsockopt(BAD, SOL_UDP, UDP_ENCAP)
        SYS_setsockopt(BAD, JUNK | SOL_SOCKET as u64, JUNK | SO_ATTACH_FILTER as u64)
    },
];
