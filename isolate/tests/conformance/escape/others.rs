//! Harm to other processes, other people's files, and whoever listens on the host.

use super::attempt::Outside::{Done, NotTried, Reached};
use super::attempt::{ABSENT, Attempt, FORBIDDEN, NOBODY, Refusal, UNWRITABLE, attempt};

const TOO_HIGH: &[Refusal] = &[Refusal::Errno(libc::EACCES), Refusal::Errno(libc::EPERM)];
const NOT_THERE: &[Refusal] = &[Refusal::Errno(libc::ECONNREFUSED), Refusal::Errno(libc::ENETUNREACH)];
const NO_ROUTE: &[Refusal] = &[Refusal::Errno(libc::ENETUNREACH)];
/// Of another mount.
const ELSEWHERE: &[Refusal] = &[
    Refusal::Errno(libc::EXDEV),
    Refusal::Errno(libc::EPERM),
    Refusal::Errno(libc::EACCES),
    Refusal::Errno(libc::EROFS),
];
const NO_DEVICE: &[Refusal] =
    &[Refusal::Errno(libc::EACCES), Refusal::Errno(libc::EPERM), Refusal::Errno(libc::ENOENT)];

/// Those that end a process come last.
#[rustfmt::skip]
pub(super) const PROCESSES: &[Attempt] = &[
    attempt("be traced", "call('ptrace', 0, 0, 0, 0)", FORBIDDEN, Done),
    attempt("trace a process of the host", "call('ptrace', 0x4206, HOST['victim'], 0, 0)", FORBIDDEN, Done),
    attempt("read memory by its address", "data = buffer(b'x'); at = buffer(struct.pack('QQ', ctypes.addressof(data), 1)); call('process_vm_readv', os.getpid(), at, 1, at, 1, 0)", FORBIDDEN, Done),
    attempt("write memory by its address", "data = buffer(b'x'); at = buffer(struct.pack('QQ', ctypes.addressof(data), 1)); call('process_vm_writev', os.getpid(), at, 1, at, 1, 0)", FORBIDDEN, Done),
    attempt("open a process's memory", "os.open('/proc/%d/mem' % HOST['victim'], os.O_RDWR)", NOBODY, Done),
    attempt("read a process's environment", "open('/proc/%d/environ' % HOST['victim'], 'rb').read() or nothing()", NOBODY, Done),
    attempt("see the root of the worker", "os.listdir('/proc/%d/root' % HOST['worker'])", NOBODY, Done),
    attempt("use a descriptor of the worker", "os.open('/proc/%d/fd/0' % HOST['worker'], os.O_PATH)", NOBODY, Done),
    attempt("have a process die first", "open('/proc/%d/oom_score_adj' % HOST['victim'], 'w').write('1000')", NOBODY, Done),
    attempt("compare processes", "call('kcmp', os.getpid(), os.getpid(), 1, 0, 0)", FORBIDDEN, Done),
    attempt("let anybody trace it", "call('prctl', 0x59616d61, -1, 0, 0, 0)", FORBIDDEN, Reached),
    attempt("outlive the worker", "call('prctl', 1, 0, 0, 0, 0)", FORBIDDEN, Done),
    attempt("dump its core on the host", "call('prlimit64', 0, 4, buffer(struct.pack('QQ', 0, 0)), None)", FORBIDDEN, Done),
    attempt("real-time priority", "any_time(); os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))", FORBIDDEN, Done),
    attempt("deadlines", "call('sched_setattr', 0, buffer(struct.pack('IIQiIQQQ', 48, 6, 0, 0, 0, 1000000, 2000000, 2000000)), 0)", FORBIDDEN, Reached),
    attempt("another core", "os.sched_setaffinity(0, os.sched_getaffinity(0))", FORBIDDEN, Done),
    attempt("another core for a process", "call('sched_setaffinity', HOST['victim'], 8, buffer(b'\\1', 8))", FORBIDDEN, Done),
    attempt("come before others", "os.setpriority(os.PRIO_PROCESS, 0, -5)", TOO_HIGH, Done),
    attempt("read disks before others", "call('ioprio_set', 1, 0, 1 << 13)", FORBIDDEN, Done),
    attempt("become root", "call('setresuid', 0, 0, 0)", FORBIDDEN, Done),
    attempt("change its groups", "call('setgroups', 0, None)", FORBIDDEN, Done),
    attempt("change its capabilities", "call('capset', buffer(struct.pack('Ii', 0x20080522, 0)), buffer())", FORBIDDEN, Done),
    attempt("slow a process down", "os.setpriority(os.PRIO_PROCESS, HOST['victim'], 19)", NOBODY, Done),
    attempt("limit a process", "import resource; resource.prlimit(HOST['victim'], resource.RLIMIT_NOFILE, (10, 10))", NOBODY, Done),
    attempt("hold on to a process", "os.pidfd_open(HOST['victim'])", NOBODY, Done),
    attempt("signal the worker", "os.kill(HOST['worker'], 0)", NOBODY, Done),
    attempt("signal a thread", "call('tgkill', HOST['victim'], HOST['victim'], 0)", NOBODY, Done),
    attempt("queue a signal", "call('rt_sigqueueinfo', HOST['victim'], 18, buffer(struct.pack('iii', 18, 0, -1)))", NOBODY, Done),
    attempt("kill a neighbour", "os.kill(HOST['neighbour'], signal.SIGKILL)", NOBODY, Done),
    attempt("kill a process of the host", "os.kill(HOST['victim'], signal.SIGKILL)", NOBODY, Done),
];

#[rustfmt::skip]
pub(super) const TURNS: &[Attempt] = &[
    attempt("die last", "open('/proc/self/oom_score_adj', 'w').write('-1000')", UNWRITABLE, NotTried("it takes CAP_SYS_RESOURCE")),
];

#[rustfmt::skip]
pub(super) const FILES: &[Attempt] = &[
    attempt("a file of the host by its path", "open(HOST['canary'], 'a').write('harmed')", ABSENT, Done),
    attempt("by the process's root", "open('/proc/self/root' + HOST['canary'], 'a').write('harmed')", ABSENT, Done),
    attempt("by the first process's root", "open('/proc/1/root' + HOST['canary'], 'a').write('harmed')", NO_DEVICE, NotTried("the host's first process may have capabilities that root here lacks")),
    attempt("by the working directory", "open('/proc/self/cwd' + '/..' * 20 + HOST['canary'], 'a').write('harmed')", ABSENT, Done),
    attempt("by a link in its folder", "open(HOST['function'] + '/link', 'a').write('harmed')", UNWRITABLE, Done),
    attempt("by a way up from its folder", "open(HOST['function'] + '/..' * 20 + HOST['canary'], 'a').write('harmed')", ABSENT, Done),
    attempt("by a directory that was left open", "for fd in os.listdir('/proc/self/fd'):\n    try: open('/proc/self/fd/' + fd + '/..' * 20 + HOST['canary']); break\n    except OSError: pass\nelse: nothing()", ABSENT, Done),
    attempt("a descriptor that was left open", "[fd for fd in range(6, 1024) if is_open(fd)] or nothing()", ABSENT, Done),
    attempt("overwrite what runs it", "os.open('/proc/self/exe', os.O_WRONLY)", UNWRITABLE, Reached),
    attempt("change the mode of what runs it", "os.chmod('/proc/self/exe', 0o4777)", UNWRITABLE, NotTried("it would change the host's Python")),
    attempt("change the times of what runs it", "os.utime('/proc/self/exe', (1, 1))", UNWRITABLE, NotTried("it would change the host's Python")),
    attempt("a device in its folder", "os.open(HOST['function'] + '/device', os.O_WRONLY)", NO_DEVICE, Done),
    attempt("add to its folder", "open(HOST['function'] + '/more', 'w').close()", UNWRITABLE, Done),
    attempt("change its code", "open(HOST['function'] + '/code', 'a').write('harmed')", UNWRITABLE, Done),
    attempt("change the mode of its code", "os.chmod(HOST['function'] + '/code', 0o4777)", UNWRITABLE, Done),
    attempt("change the times of its code", "os.utime(HOST['function'] + '/code', (1, 1))", UNWRITABLE, Done),
    attempt("put an attribute on its code", "os.setxattr(HOST['function'] + '/code', 'user.x', b'x')", UNWRITABLE, Reached),
    attempt("keep its code", "path = '/tmp/vilya-escape-%d' % os.getpid(); os.link(HOST['function'] + '/code', path); os.unlink(path)", ELSEWHERE, Done),
    attempt("rename its code", "os.rename(HOST['function'] + '/code', HOST['function'] + '/other')", UNWRITABLE, Done),
    attempt("remove from its folder", "os.unlink(HOST['function'] + '/link')", UNWRITABLE, Done),
];

#[rustfmt::skip]
pub(super) const NETWORK: &[Attempt] = &[
    attempt("a port of the host", "socket.create_connection(('127.0.0.1', HOST['port']), 5)", NOT_THERE, Done),
    attempt("a port of the host by every address", "socket.create_connection(('0.0.0.0', HOST['port']), 5)", NOT_THERE, Done),
    attempt("a name of the host", "socket.socket(socket.AF_UNIX).connect('\\0' + HOST['name'])", NOT_THERE, Done),
    attempt("a socket file of the host", "socket.socket(socket.AF_UNIX).connect(HOST['socket'])", ABSENT, Done),
    attempt("the metadata of the machine", "socket.create_connection(('169.254.169.254', 80), 5)", NO_ROUTE, NotTried("whether there is one is the host's affair")),
    attempt("the metadata by version 6", "socket.create_connection(('fd00:ec2::254', 80), 5)", &[Refusal::Errno(libc::ENETUNREACH), Refusal::Errno(libc::EADDRNOTAVAIL), Refusal::Errno(libc::EAFNOSUPPORT)], NotTried("whether there is one is the host's affair")),
    attempt("a packet to anybody", "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))", NO_ROUTE, NotTried("no packet leaves this host for a test")),
    attempt("turn an interface off", "own_network(); fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sH14x', b'lo', 0))", FORBIDDEN, Done),
    attempt("make an interface", "own_network(); netlink(16, struct.pack('BxHiII', 0, 0, 0, 0, 0) + struct.pack('HH8s', 12, 3, b'escape0\\0') + struct.pack('HHHH8s', 16, 18, 12, 1, b'none'))", FORBIDDEN, Reached),
    attempt("give itself an address", "own_network(); netlink(20, struct.pack('BBBBi', 2, 8, 0, 0, 1) + struct.pack('HH4s', 8, 2, bytes([10, 9, 8, 7])))", FORBIDDEN, Done),
    attempt("make a route", "own_network(); netlink(24, struct.pack('8BI', 2, 8, 0, 0, 254, 4, 253, 1, 0) + struct.pack('HH4s', 8, 1, bytes([10, 0, 0, 0])) + struct.pack('HHi', 8, 4, 1))", FORBIDDEN, Reached),
];
