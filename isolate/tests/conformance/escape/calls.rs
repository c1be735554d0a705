//! The numbers of the system calls that attempts make, on this architecture.

/// Names and numbers, from the kernel's own list as libc has it.
macro_rules! numbers {
    ($($name:ident)*) => { &[$((stringify!($name), libc::$name)),*] };
}

const NUMBERS: &[(&str, libc::c_long)] = numbers! {
    SYS_acct SYS_add_key SYS_adjtimex SYS_bpf SYS_capset SYS_chroot SYS_clock_settime SYS_clone SYS_clone3 SYS_delete_module SYS_fanotify_init
    SYS_finit_module SYS_fsopen SYS_fspick SYS_futex SYS_init_module SYS_io_uring_enter SYS_io_uring_register SYS_io_uring_setup SYS_ioprio_set
    SYS_kcmp SYS_kexec_load SYS_keyctl SYS_madvise SYS_memfd_create SYS_memfd_secret SYS_mknodat SYS_mmap SYS_mount SYS_mount_setattr
    SYS_move_mount SYS_mq_open SYS_name_to_handle_at SYS_open_by_handle_at SYS_open_tree SYS_perf_event_open SYS_personality SYS_pidfd_getfd
    SYS_pidfd_open SYS_pidfd_send_signal SYS_pivot_root SYS_prctl SYS_prlimit64 SYS_process_madvise SYS_process_vm_readv SYS_process_vm_writev
    SYS_ptrace SYS_quotactl SYS_reboot SYS_renameat2 SYS_request_key SYS_rt_sigqueueinfo SYS_sched_setaffinity SYS_sched_setattr SYS_sched_setscheduler
    SYS_seccomp SYS_setgroups SYS_sethostname SYS_setns SYS_setpriority SYS_setresuid SYS_setsockopt SYS_settimeofday SYS_shmget SYS_socket SYS_swapon
    SYS_syslog SYS_tgkill SYS_umount2 SYS_unshare SYS_userfaultfd SYS_vhangup SYS_vmsplice
};

#[cfg(target_arch = "x86_64")]
const OWN_NUMBERS: &[(&str, libc::c_long)] = &[
    ("SYS_iopl", libc::SYS_iopl),
    ("SYS_ioperm", libc::SYS_ioperm),
    ("SYS_modify_ldt", libc::SYS_modify_ldt),
    // The calls of x32, by which a filter that looks at numbers alone is passed.
    ("SYS_x32_ptrace", 0x4000_0000 + 521),
];
#[cfg(not(target_arch = "x86_64"))]
const OWN_NUMBERS: &[(&str, libc::c_long)] = &[];

/// As the beginning of a Python program.
pub(super) fn prelude() -> String {
    let pairs = NUMBERS.iter().chain(OWN_NUMBERS).map(|(name, number)| {
        let name = name.trim_start_matches("SYS_");
        format!("{name:?}: {number}")
    });
    format!("SYS = {{{}}}\n", pairs.collect::<Vec<_>>().join(", "))
}
