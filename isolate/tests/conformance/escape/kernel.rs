//! What of the kernel a sandbox must not reach: calls, and the settings that procfs and sysfs show.

use super::attempt::Outside::{Done, NotTried, Reached};
use super::attempt::{ABSENT, Attempt, FORBIDDEN, Outside, Refusal, UNKNOWN_OR_FORBIDDEN, UNWRITABLE, attempt};

const KILLED: &[Refusal] = &[Refusal::Signal(libc::SIGSYS), Refusal::Signal(libc::SIGSEGV)];
/// A filter that a container runtime compiles takes x32 for another architecture.
const FORBIDDEN_OR_KILLED: &[Refusal] = &[Refusal::Errno(libc::EPERM), Refusal::Signal(libc::SIGSYS)];
/// One maker's processors know the instruction in programs of 64 bits, the other's do not.
#[cfg(target_arch = "x86_64")]
const KILLED_OR_UNKNOWN: &[Refusal] =
    &[Refusal::Signal(libc::SIGSYS), Refusal::Signal(libc::SIGSEGV), Refusal::Signal(libc::SIGILL)];
const MODULES: Outside = NotTried("the host may load a module for it");

#[rustfmt::skip]
pub(super) const CALLS: &[Attempt] = &[
    attempt("bpf", "call('bpf', 0, buffer(struct.pack('4I', 2, 4, 4, 1)), 48)", FORBIDDEN, Done),
    attempt("perf_event_open", "call('perf_event_open', buffer(struct.pack('IIQ', 1, 112, 0)), 0, -1, -1, 0)", FORBIDDEN, Done),
    attempt("userfaultfd", "call('userfaultfd', 0)", FORBIDDEN, Done),
    attempt("io_uring_setup", "call('io_uring_setup', 8, buffer())", FORBIDDEN, Done),
    attempt("io_uring_enter", "call('io_uring_enter', -1, 0, 0, 0, None, 0)", FORBIDDEN, Reached),
    attempt("io_uring_register", "call('io_uring_register', -1, 2, None, 0)", FORBIDDEN, Reached),
    attempt("keyctl", "call('keyctl', 0, -3, 1)", FORBIDDEN, Done),
    attempt("add_key", "call('add_key', b'user', b'vilya-escape', b'x', 1, -2)", FORBIDDEN, Done),
    attempt("request_key", "call('request_key', b'user', b'vilya-escape-none', None, 0)", FORBIDDEN, Reached),
    attempt("init_module", "call('init_module', buffer(), 64, b'')", FORBIDDEN, Reached),
    attempt("finit_module", "call('finit_module', os.open('/dev/null', 0), b'', 0)", FORBIDDEN, Reached),
    attempt("delete_module", "call('delete_module', b'vilya_escape', 0x800)", FORBIDDEN, Reached),
    attempt("kexec_load", "call('kexec_load', 0, 1 << 20, None, 0)", FORBIDDEN, Reached),
    attempt("reboot", "call('reboot', 1, 2, 3, 0)", FORBIDDEN, Reached),
    attempt("swapon", "call('swapon', b'/tmp', 0)", FORBIDDEN, Reached),
    attempt("acct", "call('acct', b'/no/such')", FORBIDDEN, Reached),
    attempt("quotactl", "call('quotactl', 0x80000100, None, 0, None)", FORBIDDEN, Reached),
    attempt("syslog", "call('syslog', 3, buffer(), 4096)", FORBIDDEN, Done),
    attempt("settimeofday", "call('settimeofday', buffer(struct.pack('qq', 0, 1 << 40)), None)", FORBIDDEN, Reached),
    attempt("clock_settime", "call('clock_settime', 0, buffer(struct.pack('qq', 0, 1 << 40)))", FORBIDDEN, Reached),
    attempt("adjtimex", "call('adjtimex', buffer())", FORBIDDEN, Done),
    attempt("personality", "call('personality', 0x0040000)", FORBIDDEN, Done),
    attempt("vmsplice", "data = buffer(b'x'); call('vmsplice', os.pipe()[1], buffer(struct.pack('QQ', ctypes.addressof(data), 1)), 1, 0)", FORBIDDEN, Done),
    attempt("name a file by its handle", "call('name_to_handle_at', -100, b'/', buffer(struct.pack('I', 128)), buffer(), 0)", FORBIDDEN, Reached),
    attempt("open a file by its number", "call('open_by_handle_at', os.open('/', 0), buffer(struct.pack('IiQ', 8, 1, 2)), 0)", FORBIDDEN, Reached),
    attempt("mq_open", "call('mq_open', b'vilya-escape', 2, 0, None)", FORBIDDEN, Reached),
    attempt("huge pages by a file", "call('memfd_create', b'x', 4)", FORBIDDEN, Reached),
    attempt("huge pages by a mapping", "call('mmap', 0, 2 << 20, 3, 0x40022, -1, 0)", FORBIDDEN, Reached),
    attempt("huge pages by a segment", "call('shmget', 0, 0, 0o5600)", FORBIDDEN, Reached),
    attempt("merge pages with others", "call('madvise', 0, 0, 12)", FORBIDDEN, Reached),
    attempt("watch a file system", "call('fanotify_init', 0, 0)", FORBIDDEN, Done),
    attempt("install a filter of its own", "call('seccomp', 3, 0, buffer())", FORBIDDEN, Done),
    attempt("install a filter by another call", "call('prctl', 22, 2, None, 0, 0)", FORBIDDEN, Reached),
    attempt("hear of a process's calls", "call('seccomp', 1, 8, None)", FORBIDDEN, Reached),
    attempt("lock with priorities", "call('futex', buffer(), 6, 0, None, None, 0)", FORBIDDEN, Done),
    attempt("requeue waiters", "call('futex', buffer(), 3, 0, None, buffer(), 0)", FORBIDDEN, Done),
    attempt("hang up", "call('vhangup')", FORBIDDEN, NotTried("the host's terminal is in use")),
    attempt("type into a terminal", "fcntl.ioctl(0, 0x5412, b'x')", FORBIDDEN, Reached),
    attempt("paste into a console", "fcntl.ioctl(0, 0x541c, b'\\3')", FORBIDDEN, Reached),
    attempt("set security bits", "call('prctl', 28, 0, 0, 0, 0)", FORBIDDEN, Done),
    attempt("keep capabilities", "call('prctl', 8, 1, 0, 0, 0)", FORBIDDEN, Done),
    attempt("change ambient capabilities", "call('prctl', 47, 4, 0, 0, 0)", FORBIDDEN, Done),
    attempt("change its memory map", "call('prctl', 35, 1, 0, 0, 0)", FORBIDDEN, NotTried("it takes CAP_SYS_RESOURCE")),
    attempt("a packet socket", "call('socket', 17, 3, 0)", FORBIDDEN, Done),
    attempt("a raw socket", "call('socket', 2, 3, 1)", FORBIDDEN, Done),
    attempt("a raw socket of version 6", "call('socket', 10, 3, 58)", FORBIDDEN, Done),
    attempt("a packet socket as it once was", "call('socket', 2, 10, 0x0300)", FORBIDDEN, Done),
    attempt("an echo socket", "call('socket', 2, 2, 1)", FORBIDDEN, Reached),
    attempt("a socket to the firewall", "call('socket', 16, 3, 12)", FORBIDDEN, Done),
    attempt("a socket to those of others", "call('socket', 16, 3, 4)", FORBIDDEN, Done),
    attempt("a socket to any family of the kernel's", "call('socket', 16, 3, 16)", FORBIDDEN, Done),
    attempt("a socket that hears of devices", "call('socket', 16, 3, 15)", FORBIDDEN, Done),
    attempt("a socket that hears of processes", "call('socket', 16, 3, 11)", FORBIDDEN, Done),
    attempt("a socket to the keys of the network", "call('socket', 16, 3, 6)", FORBIDDEN, MODULES),
    attempt("an audit socket", "call('socket', 16, 3, 9)", FORBIDDEN, MODULES),
    attempt("a socket to the hypervisor", "call('socket', 40, 1, 0)", FORBIDDEN, MODULES),
    attempt("a cipher socket", "call('socket', 38, 5, 0)", FORBIDDEN, MODULES),
    attempt("an express socket", "call('socket', 44, 3, 0)", FORBIDDEN, MODULES),
    attempt("sctp", "call('socket', 2, 1, 132)", FORBIDDEN, MODULES),
    attempt("a program on a socket", "code = buffer(struct.pack('HBBI', 6, 0, 0, 1)); call('setsockopt', socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).detach(), 1, 26, buffer(struct.pack('HxxxxxxQ', 1, ctypes.addressof(code))), 16)", FORBIDDEN, Done),
    attempt("another protocol in a socket", "call('setsockopt', socket.socket().detach(), 6, 31, b'none', 4)", FORBIDDEN, MODULES),
    attempt("a call that is newer than the list", "libc.syscall(ctypes.c_long(511)) == -1 and refuse()", UNKNOWN_OR_FORBIDDEN, NotTried("there is no such call yet")),
];

/// Calls that only this architecture has.
#[rustfmt::skip]
#[cfg(target_arch = "x86_64")]
pub(super) const OWN_CALLS: &[Attempt] = &[
    attempt("iopl", "call('iopl', 3)", FORBIDDEN, Done),
    attempt("ioperm", "call('ioperm', 0x60, 1, 1)", FORBIDDEN, Done),
    attempt("modify_ldt", "call('modify_ldt', 0, buffer(), 16)", FORBIDDEN, Done),
    attempt("x32", "call('x32_ptrace', 0, 0, 0, 0)", FORBIDDEN_OR_KILLED, Done),
    attempt("32-bit calls", "import mmap\ncode = mmap.mmap(-1, 4096, prot=7)\ncode.write(bytes([0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0xc3]))\nctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()", KILLED, Done),
    attempt("32-bit calls from 32-bit code", "run_code(lambda at: bytes([0x48, 0x89, 0x25, 57, 0, 0, 0, 0x6a, 0x23, 0x68]) + struct.pack('I', at + 16) + bytes([0x48, 0xcb, 0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0xea]) + struct.pack('IH', at + 30, 0x33) + bytes([0x48, 0x8b, 0x25, 27, 0, 0, 0, 0xc3]))", KILLED, Done),
    attempt("32-bit calls the fast way", "run_code(lambda at: b'\\xbd' + struct.pack('I', at + 128) + bytes([0xb8, 20, 0, 0, 0, 0x0f, 0x34]))", KILLED_OR_UNKNOWN, NotTried("a program of 64 bits does not come back from it")),
    // What it does offer, the time and the core, is on the list of calls.
    attempt("into the middle of the vsyscall page", "ctypes.CFUNCTYPE(ctypes.c_long)(0xffffffffff600010)()", KILLED, NotTried("nobody may")),
    attempt("beyond the calls of the vsyscall page", "ctypes.CFUNCTYPE(ctypes.c_long)(0xffffffffff600c00)()", KILLED, NotTried("nobody may")),
    attempt("write to the vsyscall page", "ctypes.memset(0xffffffffff600000, 0xcc, 1)", KILLED, NotTried("nobody may")),
];
#[cfg(not(target_arch = "x86_64"))]
pub(super) const OWN_CALLS: &[Attempt] = &[];

#[rustfmt::skip]
pub(super) const SETTINGS: &[Attempt] = &[
    attempt("core_pattern", "rewrite('/proc/sys/kernel/core_pattern')", UNWRITABLE, Done),
    attempt("modprobe", "rewrite('/proc/sys/kernel/modprobe')", UNWRITABLE, Done),
    attempt("sysrq", "rewrite('/proc/sys/kernel/sysrq')", UNWRITABLE, Done),
    attempt("overcommit", "rewrite('/proc/sys/vm/overcommit_memory')", UNWRITABLE, Done),
    attempt("randomize_va_space", "rewrite('/proc/sys/kernel/randomize_va_space')", UNWRITABLE, Done),
    attempt("panic", "rewrite('/proc/sys/kernel/panic')", UNWRITABLE, Done),
    attempt("time for real-time processes", "rewrite('/proc/sys/kernel/sched_rt_runtime_us')", UNWRITABLE, Done),
    attempt("file-max", "rewrite('/proc/sys/fs/file-max')", UNWRITABLE, Done),
    attempt("forwarding", "rewrite('/proc/sys/net/ipv4/ip_forward')", UNWRITABLE, Done),
    attempt("sysrq-trigger", "not_null(os.open('/proc/sysrq-trigger', os.O_WRONLY))", UNWRITABLE, Done),
    attempt("drop_caches", "os.open('/proc/sys/vm/drop_caches', os.O_WRONLY)", UNWRITABLE, Done),
    attempt("binfmt_misc", "os.open('/proc/sys/fs/binfmt_misc/register', os.O_WRONLY)", UNWRITABLE, Done),
    attempt("uevent_helper", "rewrite('/sys/kernel/uevent_helper')", UNWRITABLE, Done),
    attempt("kernel addresses", "open('/proc/kallsyms').read(64) or nothing()", ABSENT, Done),
    attempt("kernel memory", "not_null(os.open('/proc/kcore', os.O_RDONLY))", ABSENT, Done),
    attempt("kernel messages", "not_null(os.open('/proc/kmsg', os.O_RDONLY | os.O_NONBLOCK))", UNWRITABLE, Done),
    attempt("keys", "not_null(os.open('/proc/keys', os.O_RDONLY))", ABSENT, Done),
    attempt("timers", "not_null(os.open('/proc/timer_list', os.O_RDONLY))", ABSENT, Done),
    attempt("the machine's devices", "os.listdir('/sys') or nothing()", ABSENT, Done),
    attempt("physical memory", "os.open('/dev/mem', os.O_RDWR)", ABSENT, Done),
    attempt("the message device", "os.open('/dev/kmsg', os.O_WRONLY)", ABSENT, Done),
    attempt("virtual machines", "os.open('/dev/kvm', os.O_RDWR)", ABSENT, Done),
    attempt("loop devices", "os.open('/dev/loop-control', os.O_RDWR)", ABSENT, Done),
    attempt("tunnels", "os.open('/dev/net/tun', os.O_RDWR)", ABSENT, Done),
    attempt("file systems of its own", "os.open('/dev/fuse', os.O_RDWR)", ABSENT, Done),
    attempt("a disk", "os.open(next((e.path for e in os.scandir('/dev') if stat.S_ISBLK(e.stat().st_mode)), '/dev/no-disk'), os.O_RDONLY)", ABSENT, Done),
];
