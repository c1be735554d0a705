//! On which arguments a system call of the allow-list is allowed: reviewed data.
//!
//! Owns: the shapes of a rule, and every rule but "always". Invariant: a rule looks at registers only, never at memory, which another
//! thread could change after the look; and only at the bits that the kernel reads too. Does not know: which call has which rule.

/// When a call with a row is allowed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rule {
    /// Whatever its arguments.
    Always,
    /// If any one of these cases holds.
    Only(&'static [Case]),
    /// Unless any one of these cases holds.
    Except(&'static [Case]),
}

impl Rule {
    /// Whether a call with these arguments is allowed.
    pub(super) fn allows(self, arguments: &[u64; 6]) -> bool {
        let any = |cases: &[Case]| cases.iter().any(|case| case.iter().all(|argument| argument.holds(arguments)));
        match self {
            Rule::Always => true,
            Rule::Only(cases) => any(cases),
            Rule::Except(cases) => !any(cases),
        }
    }
}

/// Conditions that must hold together.
pub(super) type Case = &'static [Argument];

/// A condition on one half of a register argument: whether `half & mask == value` is as `equal` says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Argument {
    /// Position of the argument, from 0.
    pub(super) index: u8,
    pub(super) half: Half,
    pub(super) mask: u32,
    pub(super) value: u32,
    pub(super) equal: bool,
}

impl Argument {
    pub(super) fn holds(&self, arguments: &[u64; 6]) -> bool {
        let whole = arguments[usize::from(self.index)];
        let half = if self.half == Half::Low { whole as u32 } else { (whole >> 32) as u32 };
        (half & self.mask == self.value) == self.equal
    }
}

/// Which 32 bits of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    Low,
    High,
}

const fn word(index: u8, value: u32) -> Argument {
    masked(index, u32::MAX, value)
}

const fn masked(index: u8, mask: u32, value: u32) -> Argument {
    Argument { index, half: Half::Low, mask, value, equal: true }
}

const fn not(argument: Argument) -> Argument {
    Argument { equal: !argument.equal, ..argument }
}

/// The upper half of an argument that is an address or a length.
const fn upper(index: u8, value: u32) -> Argument {
    Argument { half: Half::High, ..word(index, value) }
}

/// The namespace flags of `clone`, CLONE_NEWTIME (0x80) excepted: in `clone` those bits are the exit signal.
const NAMESPACE_FLAGS: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;

pub(super) const CLONE: Rule = Rule::Only(&[&[masked(0, NAMESPACE_FLAGS, 0)]]);

/// Operations of `futex` on ordinary words. None on priority inheritance and none that requeues: neither glibc's nor musl's locks use them
/// by default, and both have been the way into the kernel before.
pub(super) const FUTEX: Rule = Rule::Only(&[
    &[futex(libc::FUTEX_WAIT)],
    &[futex(libc::FUTEX_WAKE)],
    &[futex(libc::FUTEX_WAKE_OP)],
    &[futex(libc::FUTEX_WAIT_BITSET)],
    &[futex(libc::FUTEX_WAKE_BITSET)],
]);

/// The flags PRIVATE and CLOCK_REALTIME may come with any of them.
const fn futex(operation: i32) -> Argument {
    const MODIFIERS: u32 = (libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME) as u32;
    masked(1, !MODIFIERS, operation as u32)
}

/// Never PR_SET_PDEATHSIG: a function must not be able to outlive the worker. PR_SET_NO_NEW_PRIVS can only be set.
pub(super) const PRCTL: Rule = Rule::Only(&[
    &[word(0, libc::PR_SET_NAME as u32)],
    &[word(0, libc::PR_GET_NAME as u32)],
    &[word(0, libc::PR_GET_PDEATHSIG as u32)],
    &[word(0, libc::PR_GET_DUMPABLE as u32)],
    &[word(0, libc::PR_SET_DUMPABLE as u32)],
    &[word(0, libc::PR_GET_TIMERSLACK as u32)],
    &[word(0, libc::PR_SET_TIMERSLACK as u32)],
    &[word(0, libc::PR_CAPBSET_READ as u32)],
    &[word(0, libc::PR_GET_NO_NEW_PRIVS as u32)],
    &[word(0, libc::PR_SET_NO_NEW_PRIVS as u32)],
    &[word(0, libc::PR_GET_SECCOMP as u32)],
    &[word(0, libc::PR_GET_THP_DISABLE as u32)],
    &[word(0, libc::PR_SET_THP_DISABLE as u32)],
    &[word(0, libc::PR_GET_CHILD_SUBREAPER as u32)],
    &[word(0, libc::PR_SET_CHILD_SUBREAPER as u32)],
    // 0x53564d41 is PR_SET_VMA: names of anonymous mappings, given by allocators.
    &[word(0, 0x5356_4d41)],
]);

/// The registers of thread-local storage, and what glibc asks about the processor. Not CPUID faulting or address tagging.
#[cfg(target_arch = "x86_64")]
pub(super) const ARCH_PRCTL: Rule = Rule::Only(&[
    // GS and FS, set and get.
    &[word(0, 0x1001)],
    &[word(0, 0x1002)],
    &[word(0, 0x1003)],
    &[word(0, 0x1004)],
    // Extended state (AMX): supported, permitted, request.
    &[word(0, 0x1021)],
    &[word(0, 0x1022)],
    &[word(0, 0x1023)],
    // Shadow stacks: enable, disable, lock.
    &[word(0, 0x5001)],
    &[word(0, 0x5002)],
    &[word(0, 0x5003)],
]);

/// What runtimes ask of pipes, sockets and files, and what a program asks to learn whether it has a terminal. Neither TIOCSTI nor TIOCLINUX,
/// nor any device's own requests.
pub(super) const IOCTL: Rule = Rule::Only(&[
    &[word(1, 0x5401)],      // TCGETS: isatty
    &[word(1, 0x802c_542a)], // TCGETS2: isatty of newer libc
    &[word(1, 0x5413)],      // TIOCGWINSZ
    &[word(1, 0x541b)],      // FIONREAD
    &[word(1, 0x5421)],      // FIONBIO
    &[word(1, 0x5450)],      // FIONCLEX
    &[word(1, 0x5451)],      // FIOCLEX
    &[word(1, 0x8905)],      // SIOCATMARK
    &[word(1, 0x8910)],      // SIOCGIFNAME
    &[word(1, 0x8912)],      // SIOCGIFCONF
    &[word(1, 0x8913)],      // SIOCGIFFLAGS
    &[word(1, 0x8915)],      // SIOCGIFADDR
    &[word(1, 0x8919)],      // SIOCGIFBRDADDR
    &[word(1, 0x891b)],      // SIOCGIFNETMASK
    &[word(1, 0x8921)],      // SIOCGIFMTU
    &[word(1, 0x8927)],      // SIOCGIFHWADDR
    &[word(1, 0x8933)],      // SIOCGIFINDEX
    &[word(1, 0x4020_940d)], // FICLONERANGE, which copies of files try first
    &[word(1, 0x4004_9409)], // FICLONE
]);

/// A lease delays whoever opens the file next, outside as well; the notices of F_NOTIFY tell of what others do (inotify does so too, but
/// within limits that are counted per user).
pub(super) const FCNTL: Rule = Rule::Except(&[&[word(1, libc::F_SETLEASE as u32)], &[word(1, libc::F_NOTIFY as u32)]]);

/// POSIX_FADV_DONTNEED throws the pages of the system's files out of a cache that is everybody's.
pub(super) const ADVICE: Rule = Rule::Except(&[&[word(3, libc::POSIX_FADV_DONTNEED as u32)]]);

/// MADV_MERGEABLE would let a sandbox time what the pages of others hold; the other two damage pages, and need a capability besides.
pub(super) const MADVISE: Rule = Rule::Except(&[
    &[word(2, libc::MADV_MERGEABLE as u32)],
    &[word(2, libc::MADV_HWPOISON as u32)],
    &[word(2, libc::MADV_SOFT_OFFLINE as u32)],
]);

/// Huge pages of the host's reserve are not counted by the memory limit; transparent ones are, and need no flag.
pub(super) const MMAP: Rule = Rule::Only(&[&[masked(3, libc::MAP_HUGETLB as u32, 0)]]);
pub(super) const MEMFD_CREATE: Rule = Rule::Only(&[&[masked(1, libc::MFD_HUGETLB, 0)]]);
pub(super) const SHMGET: Rule = Rule::Only(&[&[masked(2, libc::SHM_HUGETLB as u32, 0)]]);

/// The limit of core dumps stays 1: see the plan. It can be read.
pub(super) const PRLIMIT: Rule = Rule::Only(&[&[not(word(1, libc::RLIMIT_CORE))], &[word(2, 0), upper(2, 0)]]);
pub(super) const SETRLIMIT: Rule = Rule::Except(&[&[word(0, libc::RLIMIT_CORE)]]);

/// Local sockets, TCP, UDP, and the route netlink that `getaddrinfo`, `getifaddrs` and `if_nameindex` read interfaces with; it shows the
/// sandbox's own network namespace, and changing anything there needs a capability. No other protocol: the kernel loads modules for them
/// when asked, and they have been the way into it before.
pub(super) const SOCKET: Rule = Rule::Only(&[
    &[word(0, libc::AF_UNIX as u32)],
    &stream(libc::AF_INET, 0),
    &stream(libc::AF_INET, libc::IPPROTO_TCP),
    &datagram(libc::AF_INET, 0),
    &datagram(libc::AF_INET, libc::IPPROTO_UDP),
    &stream(libc::AF_INET6, 0),
    &stream(libc::AF_INET6, libc::IPPROTO_TCP),
    &datagram(libc::AF_INET6, 0),
    &datagram(libc::AF_INET6, libc::IPPROTO_UDP),
    &[word(0, libc::AF_NETLINK as u32), word(2, libc::NETLINK_ROUTE as u32)],
]);

/// Without the flags that may be added to the type.
const SOCKET_TYPE: u32 = 0xf;

const fn stream(family: i32, protocol: i32) -> [Argument; 3] {
    [word(0, family as u32), masked(1, SOCKET_TYPE, libc::SOCK_STREAM as u32), word(2, protocol as u32)]
}

const fn datagram(family: i32, protocol: i32) -> [Argument; 3] {
    [word(0, family as u32), masked(1, SOCKET_TYPE, libc::SOCK_DGRAM as u32), word(2, protocol as u32)]
}

pub(super) const SOCKETPAIR: Rule = Rule::Only(&[&[word(0, libc::AF_UNIX as u32)]]);

/// Options that run a program in the kernel, or put another protocol into a socket (TLS, IPsec): neither needs a capability.
pub(super) const SETSOCKOPT: Rule = Rule::Except(&[
    &option(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER),
    &option(libc::SOL_SOCKET, libc::SO_ATTACH_BPF),
    &option(libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF),
    &option(libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_EBPF),
    &option(libc::SOL_TCP, libc::TCP_ULP),
    &option(libc::SOL_UDP, libc::UDP_ENCAP),
]);

const fn option(level: i32, name: i32) -> [Argument; 2] {
    [word(1, level as u32), word(2, name as u32)]
}

/// The modes of a directory that its owner can use, and empty again, and no others: by the position of the mode.
pub(super) const MKDIR: Rule = Rule::Only(&[&[masked(1, 0o7700, 0o700)]]);
pub(super) const MKDIRAT: Rule = Rule::Only(&[&[masked(2, 0o7700, 0o700)]]);
/// What exists, or a file that its owner can use.
pub(super) const OPEN: Rule = Rule::Only(&[&[creates(1, false)], &[creates(1, true), masked(2, 0o7600, 0o600)]]);
pub(super) const OPENAT: Rule = Rule::Only(&[&[creates(2, false)], &[creates(2, true), masked(3, 0o7600, 0o600)]]);

const fn creates(index: u8, does: bool) -> Argument {
    let flag = libc::O_CREAT as u32;
    masked(index, flag, if does { flag } else { 0 })
}

/// The two modes that unpacked files have.
pub(super) const CHMOD: Rule = Rule::Only(&[&[word(1, 0o755)], &[word(1, 0o644)]]);
pub(super) const FCHMODAT: Rule = Rule::Only(&[&[word(2, 0o755)], &[word(2, 0o644)]]);

/// Memory that is never executable.
pub(super) const DATA_PAGES: Rule = Rule::Only(&[&[masked(2, libc::PROT_EXEC as u32, 0)]]);

/// What std asks of descriptors: their flags, and a copy.
pub(super) const FCNTL_PLAIN: Rule = Rule::Only(&[
    &[word(1, libc::F_GETFD as u32)],
    &[word(1, libc::F_SETFD as u32)],
    &[word(1, libc::F_GETFL as u32)],
    &[word(1, libc::F_DUPFD_CLOEXEC as u32)],
]);
