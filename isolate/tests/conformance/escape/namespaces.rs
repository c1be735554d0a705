//! Ways out through namespaces and mounts.

use super::attempt::Outside::{Done, NotTried, Reached};
use super::attempt::{ABSENT, Attempt, FORBIDDEN, Refusal, UNKNOWN, UNWRITABLE, attempt};

/// A namespace's file can be opened where the process may be looked at, and is of no use.
const OF_NO_USE: &[Refusal] =
    &[Refusal::Errno(libc::EPERM), Refusal::Errno(libc::EACCES), Refusal::Errno(libc::ENOENT)];

#[rustfmt::skip]
pub(super) const NAMESPACES: &[Attempt] = &[
    attempt("unshare user", "call('unshare', 0x10000000)", FORBIDDEN, Done),
    attempt("unshare mount", "call('unshare', 0x00020000)", FORBIDDEN, Done),
    attempt("unshare pid", "call('unshare', 0x20000000)", FORBIDDEN, Done),
    attempt("unshare network", "call('unshare', 0x40000000)", FORBIDDEN, Done),
    attempt("unshare ipc", "call('unshare', 0x08000000)", FORBIDDEN, Done),
    attempt("unshare uts", "call('unshare', 0x04000000)", FORBIDDEN, Done),
    attempt("unshare cgroup", "call('unshare', 0x02000000)", FORBIDDEN, Done),
    attempt("unshare time", "call('unshare', 0x80)", FORBIDDEN, Reached),
    attempt("clone into a user namespace", "call('clone', 0x10000000 | 17, 0, 0, 0, 0) or os._exit(0)", FORBIDDEN, Done),
    attempt("clone into a mount namespace", "call('clone', 0x00020000 | 17, 0, 0, 0, 0) or os._exit(0)", FORBIDDEN, Done),
    attempt("clone into a network namespace", "call('clone', 0x40000000 | 17, 0, 0, 0, 0) or os._exit(0)", FORBIDDEN, Done),
    attempt("clone3 into a user namespace", "call('clone3', buffer(struct.pack('11Q', 0x10000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0)), 88) or os._exit(0)", UNKNOWN, Done),
    attempt("enter its own network namespace", "call('setns', os.open('/proc/self/ns/net', 0), 0)", FORBIDDEN, Done),
    attempt("enter the first process's mounts", "call('setns', os.open('/proc/1/ns/mnt', 0), 0)", OF_NO_USE, NotTried("the host's first process may have capabilities that root here lacks")),
    attempt("enter by a pidfd", "call('setns', os.pidfd_open(os.getppid()), 0x00020000)", FORBIDDEN, Done),
    attempt("enter the worker's mounts", "call('setns', os.open('/proc/%d/ns/mnt' % HOST['worker'], 0), 0)", OF_NO_USE, Done),
    attempt("ask for the owner of a namespace", "fcntl.ioctl(os.open('/proc/self/ns/net', 0), 0xb701)", FORBIDDEN, Done),
    attempt("take a descriptor of another process", "call('pidfd_getfd', os.pidfd_open(os.getppid()), 1, 0)", FORBIDDEN, Done),
    attempt("allow itself user namespaces", "rewrite('/proc/sys/user/max_user_namespaces')", UNWRITABLE, NotTried("it takes CAP_SYS_RESOURCE")),
    attempt("change the host name", "call('sethostname', b'vilya-escape', 12)", FORBIDDEN, Done),
];

#[rustfmt::skip]
pub(super) const MOUNTS: &[Attempt] = &[
    attempt("mount a tmpfs", "call('mount', b'vilya-escape', b'/tmp', b'tmpfs', 0, None)", FORBIDDEN, Done),
    attempt("mount a procfs", "call('mount', b'vilya-escape', b'/tmp', b'proc', 0, None)", FORBIDDEN, Done),
    attempt("mount a sysfs", "call('mount', b'vilya-escape', b'/tmp', b'sysfs', 0, None)", FORBIDDEN, Done),
    attempt("mount control groups", "call('mount', b'vilya-escape', b'/tmp', b'cgroup2', 0, None)", FORBIDDEN, Done),
    attempt("bind the root", "call('mount', b'/', b'/tmp', None, 0x1000, None)", FORBIDDEN, Done),
    attempt("make the root writable", "call('mount', None, b'/', None, 0x1020, None)", FORBIDDEN, Done),
    attempt("make the root shared", "call('mount', None, b'/', None, 0x104000, None)", FORBIDDEN, Done),
    attempt("unmount /proc", "call('umount2', b'/proc', 2)", FORBIDDEN, Done),
    attempt("clone the tree", "call('open_tree', -100, b'/', 1)", FORBIDDEN, Done),
    attempt("move a mount", "call('move_mount', -100, b'/no/such', -100, b'/tmp', 0)", FORBIDDEN, Reached),
    attempt("open a file system", "call('fsopen', b'tmpfs', 0)", FORBIDDEN, Done),
    attempt("reconfigure a file system", "call('fspick', -100, b'/', 0)", FORBIDDEN, Done),
    attempt("clear read-only", "call('mount_setattr', -100, b'/', 0, buffer(struct.pack('4Q', 0, 1, 0, 0)), 32)", FORBIDDEN, Done),
    attempt("change the root", "call('chroot', b'/tmp')", FORBIDDEN, Done),
    attempt("exchange the root", "call('pivot_root', b'/', b'/')", FORBIDDEN, Reached),
    attempt("make a device", "path = b'/tmp/vilya-escape-%d' % os.getpid(); call('mknodat', -100, path, 0o20600, 0x109); os.unlink(path)", FORBIDDEN, Done),
    attempt("make a disk", "path = b'/tmp/vilya-escape-%d' % os.getpid(); call('mknodat', -100, path, 0o60600, 0x800); os.unlink(path)", FORBIDDEN, Done),
    attempt("make a file among the system's", "os.open('/usr', os.O_TMPFILE | os.O_RDWR)", UNWRITABLE, Reached),
    attempt("overwrite the system's users", "os.open('/etc/passwd', os.O_WRONLY)", UNWRITABLE, Done),
    attempt("overwrite a program", "os.open('/usr/bin/env', os.O_WRONLY)", UNWRITABLE, Reached),
    attempt("replace what masks files", "os.unlink('/dev/null')", UNWRITABLE, NotTried("the host needs its /dev/null")),
    attempt("see groups by the tree", "os.listdir('/sys/fs/cgroup')", ABSENT, Done),
    attempt("join a group of the host", "os.open(find('/sys/fs/cgroup', 'cgroup.procs'), os.O_WRONLY)", ABSENT, Done),
    attempt("raise a limit", "os.open(find('/sys/fs/cgroup', 'memory.max', 'memory.limit_in_bytes'), os.O_WRONLY)", ABSENT, Done),
    attempt("have the host run a program when a group empties", "os.open(find('/sys/fs/cgroup', 'release_agent'), os.O_WRONLY)", ABSENT, Done),
];
