//! The bounds of this package, in one place.
//!
//! Owns: every number that caps a list, a size or a wait here. Invariant: full or late means refused, with the reason.

use std::time::Duration;

/// Longest name of a sandbox or of a worker, in bytes: it becomes a directory name among the control groups.
pub const NAME_BYTES: usize = 64;
/// Most binds of one sandbox.
pub const BINDS: usize = 32;
/// Most entries of an image's root that are shown.
pub const IMAGE_ENTRIES: usize = 64;
/// Most arguments of a command, its program included.
pub const ARGUMENTS: usize = 256;
/// Most environment variables of one sandbox.
pub const ENVIRONMENT: usize = 1024;
/// Most ports of the host's loopback that one sandbox reaches.
pub const PORTS: usize = 32;
/// Connections to the host's loopback that one sandbox may have at once; each is two descriptors of the worker.
pub const FORWARDED: usize = 64;
/// Nameservers that a sandbox is told of: as many as resolvers ask.
pub const NAMESERVERS: usize = 3;
/// Most blocks of addresses that may be denied to sandboxes.
pub const DENIED: usize = 64;
/// Lengths of the prefix of the range that sandboxes have their addresses from: six sandboxes to 32,766.
pub const EGRESS_PREFIX: std::ops::RangeInclusive<u8> = 16..=28;
/// Most connections that one sandbox may have with other machines.
pub const EGRESS_CONNECTIONS: u32 = 1 << 16;
/// Cores that an affinity can name: indices below this.
pub const CORES: usize = 1024;
/// Smallest memory limit: below it no runtime starts, and the kernel may kill inside `exec`.
pub const MEMORY_BYTES_LEAST: u64 = 8 << 20;
/// Smallest private `/tmp`: one page, because a tmpfs of size 0 is one without a limit.
pub const TMP_BYTES_LEAST: u64 = 4096;
/// Fewest open files: the six that a sandbox starts with and some for the runtime.
pub const OPEN_FILES_LEAST: u32 = 16;

/// Size of the root file system: empty directories, symbolic links and a few small files.
pub(crate) const ROOT_BYTES: u64 = 1 << 20;
/// Files and directories on the root file system.
pub(crate) const ROOT_INODES: u64 = 1024;
/// Inodes of `/tmp` and `/dev/shm`: one a page, within these bounds.
pub(crate) const TMP_INODES: std::ops::RangeInclusive<u64> = 1024..=262_144;
/// Longest core dump: a value that the kernel takes for "none, and no program that would receive it".
pub(crate) const CORE_BYTES: u64 = 1;
/// Signals and timers that a sandbox may have queued. Counted per user, of which a sandbox made by an ordinary user shares the worker's.
pub(crate) const PENDING_SIGNALS: u64 = 1024;
/// Memory that a sandbox may lock.
pub(crate) const LOCKED_BYTES: u64 = 64 << 10;

/// Sandboxes of one process alive at once, as root: each has a host user id of its own.
pub(crate) const USERS: u32 = 1 << 20;
/// First of those user ids. Far above what distributions, container engines and systemd hand out.
pub(crate) const USER_FIRST: u32 = 0x7000_0000;

/// Stack of a thread that forwards; what is moved lies on the heap.
pub(crate) const FORWARDER_STACK_BYTES: usize = 128 << 10;
/// Connections to a forwarded port that may wait to be accepted.
pub(crate) const FORWARDED_WAITING: i32 = 64;

/// How long the steps of a start may take, `exec` included. A mount that hangs must not hang the thread that starts sandboxes.
pub(crate) const START_PATIENCE: Duration = Duration::from_secs(10);
/// How long the removal of a control group is tried. Tasks leave it shortly after their process was waited for.
pub(crate) const REMOVAL_PATIENCE: Duration = Duration::from_secs(2);
/// Pause between two tries.
pub(crate) const REMOVAL_PAUSE: Duration = Duration::from_micros(500);

/// Most network namespaces of living sandboxes that are kept open, so that others can use them whichever way their sandbox ends.
pub const NETWORKS_HELD: usize = 64;
/// Most network namespaces that wait to be used again.
pub(crate) const NETWORKS_RETURNED: usize = 128;
/// Most descriptors that the sandboxes of a mechanism have open together, besides the one that each has.
pub const SHARED_DESCRIPTORS: usize = NETWORKS_HELD + NETWORKS_RETURNED;

/// Archives that are unpacked at once.
pub const UNPACKING: usize = 16;
/// Users of the children that unpack, as root; after those of the sandboxes.
pub(crate) const UNPACKING_USER_FIRST: u32 = USER_FIRST + USERS;
/// Longest order to the process that makes them; a packet socket takes some 200 KiB at once.
pub(crate) const UNPACKING_ORDER_BYTES: usize = 128 << 10;
/// Longest answer of one.
pub(crate) const UNPACKING_REPORT_BYTES: usize = 1 << 20;
/// What is kept of what one says when it fails.
pub(crate) const UNPACKING_WORDS_BYTES: usize = 4096;
/// Files that one may have open: a directory for each part of a path that is removed, and some.
pub(crate) const UNPACKING_OPEN_FILES: u64 = 128;
/// How long one that was killed may take to be gone.
pub(crate) const UNPACKING_PATIENCE: Duration = Duration::from_secs(10);

/// Descriptors of a sandbox: 0 to 5. What the worker keeps for the child during a start lies above.
pub(crate) const DESCRIPTORS: i32 = 6;
/// Lowest number that a descriptor kept for the child may have.
pub(crate) const DESCRIPTORS_KEPT_FROM: i32 = 10;

const _: () =
    assert!(DESCRIPTORS_KEPT_FROM >= DESCRIPTORS, "moving a descriptor into place must not overwrite another");
const _: () = assert!(OPEN_FILES_LEAST as i32 > DESCRIPTORS);
const _: () = assert!(USER_FIRST.checked_add(USERS).is_some());
const _: () = assert!(UNPACKING_USER_FIRST.checked_add(UNPACKING as u32).is_some());
const _: () = assert!(CORES.is_multiple_of(64));
const _: () =
    assert!(ROOT_INODES as usize > 8 * BINDS + IMAGE_ENTRIES, "every bind needs a few directories to be mounted on");
