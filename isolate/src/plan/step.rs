//! One step of making a sandbox: data, with every string and buffer ready for the kernel.
//!
//! Owns: [`Step`] and how it reads. Invariant: performing a step needs no memory that is not already in it. Does not know: in which order
//! steps come, or who performs them.

use std::ffi::{CStr, CString};
use std::fmt;
use std::ptr;

use crate::landlock::Rules;
use crate::limits::CORES;
use crate::processor::Guess;
use crate::seccomp::Filter;

/// Strings as `execve` wants them.
#[derive(Debug)]
pub struct Strings {
    owned: Vec<CString>,
    /// One a string, and a null at the end. They point into the heap buffers of `owned`, which is never changed.
    pointers: Vec<*const libc::c_char>,
}

impl Strings {
    /// Lays the strings out.
    #[must_use]
    pub fn new(owned: Vec<CString>) -> Strings {
        let pointers = owned.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect();
        Strings { owned, pointers }
    }

    /// The null-terminated array.
    pub(crate) fn as_ptr(&self) -> *const *const libc::c_char {
        self.pointers.as_ptr()
    }
}

/// Points between which the time of a start is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Milestone {
    /// In its groups and namespaces.
    Placed,
    /// The file system stands.
    Mounted,
    /// Credentials, capabilities and limits are final.
    Confined,
    /// The system call filter is in force.
    Filtered,
}

impl Milestone {
    /// How many there are.
    pub const COUNT: usize = 4;
}

/// One step. Paths without a leading `/` are below the new root until [`Step::EnterRoot`].
#[derive(Debug)]
pub enum Step {
    /// Duplicates the allotted descriptors to 0 to 5.
    PlaceDescriptors,
    /// Writes itself into the allotted version 1 control groups.
    JoinGroups,
    /// Leaves a namespace shared so far.
    Unshare(libc::c_int),
    /// Keeps a handle on the host's `/proc` for the steps that write there after the root has changed.
    KeepProc,
    /// Makes the out-of-memory killer of the whole host take sandboxes before the worker.
    OfferToOomKiller,
    /// Denies `setgroups` and writes the allotted one-line maps of user and group.
    MapIds,
    /// Sets the limit of nested user namespaces to none.
    ForbidUserNamespaces,
    /// A session of its own: no controlling terminal.
    NewSession,
    /// Every signal to its default.
    DefaultSignals,
    /// Ordinary scheduling and personality, whatever the worker was given: never real time, never before others, addresses random.
    OrdinaryProcess,
    /// The file mode mask.
    Umask(libc::mode_t),
    /// The host name.
    Hostname(CString),
    /// Brings the loopback interface up.
    LoopbackUp,
    /// No mount spreads to or from the host.
    PrivateMounts,
    /// A tmpfs on an existing directory.
    Tmpfs {
        /// The directory.
        target: CString,
        /// `MS_*`.
        flags: libc::c_ulong,
        /// Size, inodes and mode.
        options: CString,
    },
    /// The process file system of the new pid namespace.
    Proc {
        /// The directory.
        target: CString,
    },
    /// The same in place of the host's, which is shown there: where mounts belong to an ordinary user, the kernel makes one only while another
    /// can be seen.
    ReplaceProc {
        /// The directory.
        target: CString,
        /// An empty one that it is made on first.
        by: CString,
    },
    /// A directory.
    Directory(CString),
    /// A symbolic link.
    Link {
        /// Where it points.
        to: CString,
        /// Its path.
        path: CString,
    },
    /// A file with this text, mode 0644.
    File {
        /// Its path.
        path: CString,
        /// Its text.
        text: Vec<u8>,
    },
    /// Shows a file with this text, which nobody can change, in place of one that is there; no part of its path may be a link.
    Replacement {
        /// Its path.
        path: CString,
        /// Its text.
        text: Vec<u8>,
    },
    /// Shows a file or directory of the host; makes the place to mount it on.
    Bind {
        /// The path on the host.
        source: CString,
        /// The path inside.
        target: CString,
        /// `MOUNT_ATTR_*`, set on it and on every mount below before it becomes visible.
        attributes: u64,
        /// Whether the path may lead through symbolic links: those of the system may.
        follow: bool,
    },
    /// Covers an existing file with the `dev/null` below the new root.
    Mask(CString),
    /// Changes the working directory.
    Enter(CString),
    /// Makes the working directory the root and drops the host's file system.
    EnterRoot,
    /// Makes the root file system itself read-only.
    SealRoot,
    /// Opens the sandbox's own `/dev/null` as descriptor 0, in place of the host's.
    EmptyInput,
    /// A resource limit, soft and hard.
    Limit {
        /// Its name, for people.
        name: &'static str,
        /// `RLIMIT_*`.
        resource: u32,
        /// The value, in the resource's own unit.
        value: u64,
    },
    /// The cores that it may run on.
    Cores([u64; CORES / 64]),
    /// No supplementary groups, and the allotted user and group as real, effective and saved.
    BecomeUser,
    /// `/proc/self` belongs to the new user again, so that it can write its own maps.
    Dumpable,
    /// Empties every capability set, the bounding set up to this capability, and locks the secure bits.
    DropCapabilities {
        /// The highest capability that the kernel knows.
        last: u32,
    },
    /// Dies when the worker dies, also if it is dead already.
    DieWithParent,
    /// Nothing executed from here on gains privilege.
    NoNewPrivileges,
    /// Makes the rules of Landlock for the root as it stands.
    Rules(Rules),
    /// Puts those rules in force, with the kernel's flags for it.
    EnforceRules(libc::c_long),
    /// Turns a kind of speculation off for good.
    Forbid(Guess),
    /// Shares no core with others at a time.
    OwnCores,
    /// Closes every descriptor above 5 on `exec`.
    CloseOnExec,
    /// Installs the system call filter.
    Filter(&'static Filter),
    /// Unblocks every signal.
    UnblockSignals,
    /// Notes the time.
    Reached(Milestone),
    /// Becomes the program.
    Execute {
        /// The program.
        program: CString,
        /// Its arguments.
        arguments: Strings,
        /// Its environment.
        environment: Strings,
    },
    /// Ends with status 0: the last step of a trial.
    Finish,
    /// Enters the allotted network namespace.
    JoinNetwork,
    /// Listens at these ports of its loopback, and hands the sockets over.
    Listen(Vec<u16>),
    /// Waits, confined, to be told what to become.
    AwaitOrder,
    /// Shows this program as its own, in place of the worker's. What does not go on without, ends if it cannot.
    ShowProgram {
        /// Its path inside.
        path: CString,
        /// Whether it does not go on without.
        required: bool,
    },
    /// Attaches mounts in sandboxes, whenever told to.
    Carry,
    /// Makes children that perform this plan, whenever told to.
    MakeOthers(Box<super::Plan>),
}

/// A borrowed C string for people.
struct Text<'a>(&'a CStr);

impl fmt::Display for Text<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.to_string_lossy())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::PlaceDescriptors => write!(out, "place descriptors 0 to 5"),
            Step::JoinGroups => write!(out, "join control groups"),
            Step::Unshare(flags) => write!(out, "unshare {}", Namespaces(*flags as u64)),
            Step::KeepProc => write!(out, "keep a handle on the host's /proc"),
            Step::OfferToOomKiller => write!(out, "set oom_score_adj"),
            Step::MapIds => write!(out, "map user and group"),
            Step::ForbidUserNamespaces => write!(out, "forbid nested user namespaces"),
            Step::NewSession => write!(out, "new session"),
            Step::DefaultSignals => write!(out, "default signals"),
            Step::OrdinaryProcess => write!(out, "ordinary scheduling and personality"),
            Step::Umask(mask) => write!(out, "umask {mask:03o}"),
            Step::Hostname(name) => write!(out, "host name {}", Text(name)),
            Step::LoopbackUp => write!(out, "bring loopback up"),
            Step::PrivateMounts => write!(out, "make mounts private"),
            Step::Tmpfs { target, flags, options } => {
                write!(out, "tmpfs on {} ({}, {})", Text(target), MountFlags(*flags), Text(options))
            }
            Step::Proc { target } => {
                write!(out, "proc on {} (ro,nosuid,nodev,noexec)", Text(target))
            }
            Step::ReplaceProc { target, .. } => {
                write!(out, "proc on {} in place of the host's (ro,nosuid,nodev,noexec)", Text(target))
            }
            Step::Directory(path) => write!(out, "directory {}", Text(path)),
            Step::Link { to, path } => write!(out, "link {} -> {}", Text(path), Text(to)),
            Step::File { path, text } => write!(out, "file {} ({} bytes)", Text(path), text.len()),
            Step::Replacement { path, text } => write!(out, "replace {} ({} bytes)", Text(path), text.len()),
            Step::Bind { source, target, attributes, .. } => {
                write!(out, "bind {} at {} ({})", Text(source), Text(target), Attributes(*attributes))
            }
            Step::Mask(path) => write!(out, "mask {}", Text(path)),
            Step::Enter(path) => write!(out, "enter {}", Text(path)),
            Step::EnterRoot => write!(out, "enter the root"),
            Step::SealRoot => write!(out, "seal the root"),
            Step::EmptyInput => write!(out, "empty input"),
            Step::Limit { name, value, .. } => write!(out, "limit {name} to {value}"),
            Step::Cores(mask) => write!(out, "run on cores {}", CoreList(mask)),
            Step::BecomeUser => write!(out, "become the sandbox's user"),
            Step::Dumpable => write!(out, "own /proc/self"),
            Step::DropCapabilities { last } => write!(out, "drop capabilities 0 to {last}"),
            Step::DieWithParent => write!(out, "die with the worker"),
            Step::NoNewPrivileges => write!(out, "no new privileges"),
            Step::Rules(rules) => write!(out, "{rules}"),
            Step::EnforceRules(_) => write!(out, "put the rules in force"),
            Step::Forbid(guess) => write!(out, "no {}", guess.name()),
            Step::OwnCores => write!(out, "share no core at a time"),
            Step::CloseOnExec => write!(out, "close descriptors above 5 on exec"),
            Step::Filter(_) => write!(out, "filter system calls"),
            Step::UnblockSignals => write!(out, "unblock signals"),
            Step::Reached(milestone) => write!(out, "[{milestone:?}]"),
            Step::Execute { program, arguments, .. } => {
                write!(out, "execute {}", Text(program))?;
                arguments.owned.iter().skip(1).try_for_each(|argument| write!(out, " {}", Text(argument)))
            }
            Step::Finish => write!(out, "finish"),
            Step::JoinNetwork => write!(out, "enter a prepared network namespace"),
            Step::Listen(ports) => write!(out, "listen at ports {ports:?} for the host's"),
            Step::AwaitOrder => write!(out, "await what to become"),
            Step::ShowProgram { path, .. } => write!(out, "show {} as its program", Text(path)),
            Step::Carry => write!(out, "attach mounts in sandboxes"),
            Step::MakeOthers(bare) => {
                write!(out, "make others: clone into new {}", Namespaces(bare.namespaces))?;
                bare.steps.iter().try_for_each(|step| write!(out, "\n  {step}"))
            }
        }
    }
}

/// Names of bits, joined by commas.
fn names(out: &mut fmt::Formatter<'_>, bits: u64, table: &[(u64, &str)]) -> fmt::Result {
    let mut separator = "";
    for (_, name) in table.iter().filter(|(bit, _)| bits & bit != 0) {
        write!(out, "{separator}{name}")?;
        separator = ",";
    }
    Ok(())
}

/// `CLONE_NEW*`.
pub(super) struct Namespaces(pub(super) u64);

impl fmt::Display for Namespaces {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = [
            (libc::CLONE_NEWUSER as u64, "user"),
            (libc::CLONE_NEWPID as u64, "pid"),
            (libc::CLONE_NEWNS as u64, "mount"),
            (libc::CLONE_NEWNET as u64, "net"),
            (libc::CLONE_NEWIPC as u64, "ipc"),
            (libc::CLONE_NEWUTS as u64, "uts"),
            (libc::CLONE_NEWCGROUP as u64, "cgroup"),
        ];
        names(out, self.0, &table)
    }
}

struct MountFlags(libc::c_ulong);

impl fmt::Display for MountFlags {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = [
            (libc::MS_RDONLY, "ro"),
            (libc::MS_NOSUID, "nosuid"),
            (libc::MS_NODEV, "nodev"),
            (libc::MS_NOEXEC, "noexec"),
        ];
        names(out, self.0, &table)
    }
}

struct Attributes(u64);

impl fmt::Display for Attributes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = [
            (libc::MOUNT_ATTR_RDONLY, "ro"),
            (libc::MOUNT_ATTR_NOSUID, "nosuid"),
            (libc::MOUNT_ATTR_NODEV, "nodev"),
            (libc::MOUNT_ATTR_NOEXEC, "noexec"),
        ];
        names(out, self.0, &table)
    }
}

struct CoreList<'a>(&'a [u64]);

impl fmt::Display for CoreList<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for core in (0..CORES).filter(|core| self.0[core / 64] & (1 << (core % 64)) != 0) {
            write!(out, "{separator}{core}")?;
            separator = ",";
        }
        Ok(())
    }
}
