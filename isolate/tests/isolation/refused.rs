//! System calls that a sandbox must not get through with.

use crate::support::Room;

/// Calls by number, so that no libc stands in between; prints the name and the errno, 0 for success.
const PROBE: &str = r#"
import ctypes, os, platform, signal
libc = ctypes.CDLL(None, use_errno=True)
arm = platform.machine() == "aarch64"
def call(name, number, *arguments):
    if number is None: return
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(value) if isinstance(value, int) else value for value in arguments])
    print(name, ctypes.get_errno() if result == -1 else 0)
def at(x86, other): return other if arm else x86
buffer = ctypes.create_string_buffer(4096)
slash = ctypes.c_char_p(b"/")
call("mount", at(165, 40), ctypes.c_char_p(b"tmpfs"), ctypes.c_char_p(b"/tmp"), ctypes.c_char_p(b"tmpfs"), 0, 0)
call("umount2", at(166, 39), ctypes.c_char_p(b"/tmp"), 2)
call("pivot_root", at(155, 41), slash, slash)
call("chroot", at(161, 51), slash)
call("open_tree", 428, -100, slash, 1)
call("move_mount", 429, -100, slash, -100, slash, 0)
call("fsopen", 430, ctypes.c_char_p(b"tmpfs"), 0)
call("mount_setattr", 442, -100, slash, 0, buffer, 32)
call("ptrace", at(101, 117), 0, 0, 0, 0)
call("process_vm_readv", at(310, 270), 1, buffer, 1, buffer, 1, 0)
call("pidfd_getfd", 438, 0, 0, 0)
call("bpf", at(321, 280), 0, buffer, 48)
call("io_uring_setup", 425, 8, buffer)
call("io_uring_enter", 426, 0, 0, 0, 0, 0, 0)
call("unshare user", at(272, 97), 0x10000000)
call("unshare mount", at(272, 97), 0x00020000)
call("setns", at(308, 268), 0, 0)
call("keyctl", at(250, 219), 0, -3, 0)
call("add_key", at(248, 217), buffer, buffer, buffer, 0, -3)
call("userfaultfd", at(323, 282), 0)
call("perf_event_open", at(298, 241), buffer, 0, -1, -1, 0)
call("open_by_handle_at", at(304, 265), -100, buffer, 0)
call("name_to_handle_at", at(303, 264), -100, slash, buffer, buffer, 0)
call("personality", at(135, 92), 0x0040000)
call("syslog", at(103, 116), 3, buffer, 4096)
call("reboot", at(169, 142), 0, 0, 0, 0)
call("swapon", at(167, 224), slash, 0)
call("init_module", at(175, 105), buffer, 0, buffer)
call("kexec_load", at(246, 104), 0, 0, 0, 0)
call("mknodat", at(259, 33), -100, ctypes.c_char_p(b"/tmp/device"), 0o60666, 0x800)
call("sched_setaffinity", at(203, 122), 0, 128, buffer)
call("sched_setscheduler", at(144, 119), 0, 1, buffer)
call("seccomp", at(317, 277), 0, 0, 0)
call("mq_open", at(240, 180), ctypes.c_char_p(b"x"), 0o102, 0o600, 0)
call("set_pdeathsig 0", at(157, 167), 1, 0, 0, 0, 0)
call("set_pdeathsig usr1", at(157, 167), 1, 10, 0, 0, 0)
call("set_ptracer", at(157, 167), 0x59616d61, -1, 0, 0, 0)
call("set_mm", at(157, 167), 35, 1, 0, 0, 0)
call("cap_ambient", at(157, 167), 47, 2, 21, 0, 0)
call("set_seccomp", at(157, 167), 22, 1, 0, 0, 0)
call("socket packet", at(41, 198), 17, 3, 0)
call("socket vsock", at(41, 198), 40, 1, 0)
call("socket alg", at(41, 198), 38, 5, 0)
call("socket xdp", at(41, 198), 44, 3, 0)
call("socket netlink audit", at(41, 198), 16, 3, 9)
call("socket netlink netfilter", at(41, 198), 16, 3, 12)
call("socket raw", at(41, 198), 2, 3, 1)
call("ioctl tiocsti", at(16, 29), 0, 0x5412, buffer)
call("ioctl tioclinux", at(16, 29), 0, 0x541c, buffer)
call("ioctl device", at(16, 29), 0, 0x1234, buffer)
call("futex lock_pi", at(202, 98), buffer, 6, 0, 0, 0, 0)
call("futex requeue", at(202, 98), buffer, 3, 0, 0, buffer, 0)
call("futex cmp_requeue_pi", at(202, 98), buffer, 12, 0, 0, buffer, 0)
call("kill outside", at(62, 129), 999999, 9)
call("clock_settime", at(227, 112), 0, buffer)
call("setuid 0", at(105, 146), 0)
call("clone3", 435, buffer, 88)
call("futex_waitv", 449, buffer, 0, 0, 0, 0)
call("newer", 500)
# Memory that no limit counts, and looks at what others hold in memory.
call("mmap huge", at(9, 222), 0, 2 << 20, 3, 0x40022, -1, 0)
call("memfd huge", at(319, 279), ctypes.c_char_p(b"x"), 4)
call("shmget huge", at(29, 194), 0, 2 << 20, 0o5600)
call("madvise mergeable", at(28, 233), 0, 0, 12)
call("madvise hwpoison", at(28, 233), 0, 0, 100)
call("fadvise dontneed", at(221, 223), 0, 0, 0, 4)
call("cachestat", 451, 0, buffer, buffer, 0)
call("memfd_secret", 447, 0)
call("move_pages", at(279, 239), 0, 0, 0, 0, 0, 0)
call("migrate_pages", at(256, 238), 0, 0, 0, 0)
call("process_madvise", 440, 0, 0, 0, 0, 0)
call("process_mrelease", 448, 0, 0)
call("vmsplice", at(278, 75), 0, 0, 0, 0)
# The limit that keeps the host from running a program when a sandbox crashes.
call("prlimit core", at(302, 261), 0, 4, buffer, 0)
call("prlimit core, upper half", at(302, 261), 0, 4, 1 << 32, 0)
call("setrlimit core", at(160, 164), 4, buffer)
# Protocols whose modules the kernel would load, and programs in sockets.
call("socket sctp", at(41, 198), 2, 1, 132)
call("socket sctp seqpacket", at(41, 198), 10, 5, 132)
call("socket dccp", at(41, 198), 2, 6, 33)
call("socket mptcp", at(41, 198), 2, 1, 262)
call("socket udplite", at(41, 198), 2, 2, 136)
call("socket ping", at(41, 198), 2, 2, 1)
call("socket raw inet6", at(41, 198), 10, 3, 58)
call("socket bluetooth", at(41, 198), 31, 3, 1)
call("socket can", at(41, 198), 29, 3, 1)
call("setsockopt ulp", at(54, 208), 0, 6, 31, buffer, 4)
call("setsockopt filter", at(54, 208), 0, 1, 26, buffer, 16)
call("setsockopt reuseport filter", at(54, 208), 0, 1, 51, buffer, 16)
call("setsockopt encapsulation", at(54, 208), 0, 17, 100, buffer, 4)
# Files that others use.
call("fcntl lease", at(72, 25), 0, 1024, 0)
call("fcntl notify", at(72, 25), 0, 1026, 1)
call("fanotify_init", at(300, 262), 0, 0)
call("acct", at(163, 89), 0)
call("quotactl", at(179, 60), 0, 0, 0, 0)
call("sync", at(162, 81))
# Processes and the machine.
call("kcmp", at(312, 272), 1, 1, 0, 0, 0)
call("process_vm_writev", at(311, 271), 1, buffer, 1, buffer, 1, 0)
call("request_key", at(249, 218), buffer, buffer, 0, 0)
call("sched_setattr", at(314, 274), 0, buffer, 0)
call("sched_setparam", at(142, 118), 0, buffer)
call("ioprio_set", at(251, 30), 1, 0, 0)
call("setresuid", at(117, 147), 1000, 1000, 1000)
call("setgroups", at(116, 159), 0, 0)
call("setfsuid", at(122, 151), 0)
call("capset", at(126, 91), buffer, buffer)
call("sethostname", at(170, 161), buffer, 1)
call("settimeofday", at(164, 170), buffer, 0)
call("adjtimex", at(159, 171), buffer)
call("clock_adjtime", at(305, 266), 0, buffer)
call("finit_module", at(313, 273), 0, buffer, 0)
call("delete_module", at(176, 106), buffer, 0)
call("kexec_file_load", at(320, 294), 0, 0, 0, 0, 0)
call("swapoff", at(168, 225), slash)
call("vhangup", at(153, 58))
call("io_setup", at(206, 0), 8, buffer)
call("io_uring_register", 427, 0, 0, 0, 0)
call("landlock_create_ruleset", 444, 0, 0, 1)
call("iopl", at(172, None), 3)
call("ioperm", at(173, None), 0x60, 1, 1)
call("modify_ldt", at(154, None), 0, buffer, 16)
call("arch_prctl cpuid", at(158, None), 0x1012, 0)
call("x32 getpid", at(0x40000000 + 39, None))
call("set_securebits", at(157, 167), 28, 0, 0, 0, 0)
call("set_keepcaps", at(157, 167), 8, 1, 0, 0, 0)
call("set_speculation", at(157, 167), 53, 0, 0, 0, 0)
call("set_memory_merge", at(157, 167), 67, 1, 0, 0, 0)
call("child of the worker", at(56, 220), 0x8000 | 17, 0, 0, 0, 0)
# What must go through.
call("ok prlimit read core", at(302, 261), 0, 4, 0, buffer)
call("ok prlimit other", at(302, 261), 0, 7, 0, buffer)
call("ok mmap", at(9, 222), 0, 4096, 3, 0x22, -1, 0)
call("ok madvise", at(28, 233), 0, 0, 4)
call("ok shmget", at(29, 194), 0, 4096, 0o600)
call("ok socket tcp", at(41, 198), 2, 0x80801, 6)
call("ok socket udp", at(41, 198), 2, 0x80802, 17)
call("ok futex wake", at(202, 98), buffer, 1, 1, 0, 0, 0)
call("ok futex wake private", at(202, 98), buffer, 129, 1, 0, 0, 0)
call("ok set_name", at(157, 167), 15, ctypes.c_char_p(b"probe"), 0, 0, 0)
call("ok socket route", at(41, 198), 16, 3, 0)
call("ok socket inet6", at(41, 198), 10, 1, 0)
call("ok memfd_create", at(319, 279), ctypes.c_char_p(b"x"), 1)
"#;

/// Last, because it makes a child if it gets through. The flags, as the first argument, are the same on both architectures.
const CLONES: &str = r#"
import ctypes, os, platform
libc = ctypes.CDLL(None, use_errno=True)
number = 220 if platform.machine() == "aarch64" else 56
for name, flag in (("user", 0x10000000), ("mount", 0x20000), ("pid", 0x20000000), ("net", 0x40000000), ("ipc", 0x8000000), ("uts", 0x4000000), ("cgroup", 0x2000000)):
    result = libc.syscall(ctypes.c_long(number), ctypes.c_long(flag | 17), 0, 0, 0, 0)
    if result == 0: os._exit(0)
    print("clone-" + name, ctypes.get_errno() if result == -1 else 0)
"#;

#[test]
fn dangerous_calls_are_refused_and_needed_ones_pass() {
    let ran = Room::new().python(PROBE);
    assert!(ran.succeeded(), "{ran:?}");
    let expected = |name: &str| match name {
        "clone3" | "futex_waitv" | "newer" | "cachestat" => libc::ENOSYS,
        // The kernel's own answer to the first process of a namespace: its siblings would be children of the worker.
        "child of the worker" => libc::EINVAL,
        "kill outside" => libc::ESRCH,
        _ if name.starts_with("ok ") => 0,
        _ => libc::EPERM,
    };
    let mut count = 0;
    // Calls that only one architecture has.
    let absent = if cfg!(target_arch = "x86_64") { 0 } else { PROBE.matches(", None)").count() };
    for line in ran.stdout.lines() {
        let (name, errno) = line.rsplit_once(' ').expect("a name and a number");
        assert_eq!(errno, expected(name).to_string(), "{name}");
        count += 1;
    }
    let calls = PROBE.lines().filter(|line| line.starts_with("call(")).count();
    assert_eq!(count, calls - absent, "every call was made");
}

#[test]
fn no_child_gets_a_new_namespace() {
    let seen = Room::new().python(CLONES).answers();
    assert_eq!(seen.len(), 7);
    for (name, errno) in seen {
        assert_eq!(errno, libc::EPERM.to_string(), "{name}");
    }
}

/// `int 0x80` reaches the kernel's 32-bit table, in which the numbers mean other calls.
#[cfg(target_arch = "x86_64")]
#[test]
fn calls_of_another_architecture_kill() {
    use vilya_isolate::Exit;
    let program = r#"
import ctypes, mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes([0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0xc3]))  # mov eax, getpid; int 0x80; ret
print("calling", flush=True)
print("survived", ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))())
"#;
    let ran = Room::new().python(program);
    assert_eq!(ran.stdout, "calling\n");
    // A kernel without 32-bit support faults instead.
    assert!(matches!(ran.ended.exit, Exit::Signal(libc::SIGSYS | libc::SIGSEGV)), "{ran:?}");
}
