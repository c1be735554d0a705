//! What is true of this host: the facts that a plan is made from.
//!
//! Owns: [`Host`] and its probe. Invariant: a plan reads the host only through this value, so that planning is pure and can be tested with
//! a host that does not exist. Does not know: sandboxes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::processor::Processor;

/// By what right sandboxes are made; it decides the order of steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// Real root: mounts belong to the initial user namespace, and each sandbox has a host user id of its own.
    Root,
    /// An ordinary user: everything happens within a user namespace that maps this user and group.
    User {
        /// Effective user id of the worker.
        uid: u32,
        /// Effective group id of the worker.
        gid: u32,
    },
}

/// An entry of the root directory that belongs to the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SystemEntry {
    /// A real directory, shown read-only.
    Directory {
        /// Its name in `/`.
        name: String,
    },
    /// A symbolic link, made again as it is.
    Link {
        /// Its name in `/`.
        name: String,
        /// Where it points.
        target: String,
    },
}

/// What control groups will limit; what they do not, resource limits must.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupFacts {
    /// Memory is limited by a control group.
    pub memory: bool,
    /// Processes are limited by a control group.
    pub processes: bool,
    /// Processor time is limited by a control group.
    pub cpu: bool,
    /// The child puts itself into its groups (version 1) instead of being born there.
    pub joins: bool,
}

/// Limits that the worker itself runs under; it cannot give more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HardLimits {
    /// RLIMIT_NOFILE.
    pub open_files: u64,
    /// RLIMIT_NPROC.
    pub processes: u64,
    /// RLIMIT_CORE, in bytes.
    pub core_bytes: u64,
    /// RLIMIT_SIGPENDING.
    pub pending_signals: u64,
    /// RLIMIT_DATA, in bytes.
    pub data_bytes: u64,
    /// RLIMIT_MEMLOCK, in bytes.
    pub locked_bytes: u64,
    /// RLIMIT_FSIZE, in bytes.
    pub file_bytes: u64,
    /// RLIMIT_CPU, in seconds.
    pub processor_seconds: u64,
}

/// The facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// By what right sandboxes are made.
    pub privilege: Privilege,
    /// An empty directory on which each sandbox, in a mount namespace of its own, builds its root.
    pub staging: PathBuf,
    /// `/bin`, `/lib` and their like.
    pub system: Vec<SystemEntry>,
    /// Files and directories below `/etc` that libraries need, without the leading `/etc/`.
    pub etc: Vec<String>,
    /// Files below `/proc` to be hidden, without the leading `/proc/`.
    pub masked_files: Vec<String>,
    /// Directories below `/proc` to be hidden, without the leading `/proc/`.
    pub masked_directories: Vec<String>,
    /// What control groups limit.
    pub groups: GroupFacts,
    /// Limits of the worker itself.
    pub hard_limits: HardLimits,
    /// The highest capability that the kernel knows.
    pub last_capability: u32,
    /// The kernel's interface of Landlock, counted from 1; 0 where there is none.
    pub landlock: u32,
    /// What processes share in its processors.
    pub processor: Processor,
    /// Whether that is to be turned off for sandboxes, where the kernel can; a probe leaves it at no.
    pub mitigations: bool,
    /// Whether `/proc/sys/user` can be written, to forbid nested user namespaces once more.
    pub user_limits_writable: bool,
}

/// Only certificates and settings: never `/etc/ssl/private`, keys, or anything that names the host's users.
const ETC: [&str; 10] = [
    "ld.so.cache",
    "ld-musl-x86_64.path",
    "ld-musl-aarch64.path",
    "localtime",
    "timezone",
    "alternatives",
    "ssl/certs",
    "ssl/openssl.cnf",
    "pki/ca-trust/extracted",
    "crypto-policies",
];

const MASKED_FILES: [&str; 15] = [
    "cmdline",
    "interrupts",
    "kallsyms",
    "kcore",
    "key-users",
    "keys",
    "kmsg",
    "kpagecgroup",
    "kpagecount",
    "kpageflags",
    "latency_stats",
    "sched_debug",
    "sysrq-trigger",
    "timer_list",
    "vmallocinfo",
];

const MASKED_DIRECTORIES: [&str; 4] = ["acpi", "asound", "bus", "scsi"];

/// The host could not be probed.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}: {source}; /proc must be mounted and readable")]
pub struct ProbeError {
    /// What was read.
    pub path: &'static str,
    /// Why it could not be.
    #[source]
    pub source: io::Error,
}

impl Host {
    /// Reads the facts of this host.
    ///
    /// # Errors
    /// When `/proc` does not answer.
    pub fn probe(staging: PathBuf, groups: GroupFacts) -> Result<Host, ProbeError> {
        Ok(Host {
            privilege: privilege()?,
            staging,
            system: ["bin", "sbin", "lib", "lib32", "lib64", "libx32"].into_iter().filter_map(system_entry).collect(),
            etc: etc(),
            masked_files: present(&MASKED_FILES),
            masked_directories: present(&MASKED_DIRECTORIES),
            groups,
            hard_limits: hard_limits()?,
            last_capability: last_capability()?,
            landlock: crate::landlock::interface(),
            processor: Processor::probe(),
            mitigations: false,
            user_limits_writable: !read_only_below("/proc/sys/user")?,
        })
    }
}

fn read(path: &'static str) -> Result<String, ProbeError> {
    fs::read_to_string(path).map_err(|source| ProbeError { path, source })
}

fn malformed(path: &'static str) -> ProbeError {
    ProbeError { path, source: io::Error::from(io::ErrorKind::InvalidData) }
}

/// Root counts as root only with the capability to mount in the mount namespace that it is in.
pub(crate) fn privilege() -> Result<Privilege, ProbeError> {
    const STATUS: &str = "/proc/self/status";
    const CAP_SYS_ADMIN: u32 = 21;
    let status = read(STATUS)?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    // Real, effective, saved, file system.
    let effective = |name| field(name).and_then(|ids| ids.split_whitespace().nth(1)?.parse().ok());
    let uid: u32 = effective("Uid:").ok_or_else(|| malformed(STATUS))?;
    let gid: u32 = effective("Gid:").ok_or_else(|| malformed(STATUS))?;
    let capabilities =
        field("CapEff:").and_then(|hex| u64::from_str_radix(hex, 16).ok()).ok_or_else(|| malformed(STATUS))?;
    let root = uid == 0 && capabilities & (1 << CAP_SYS_ADMIN) != 0;
    Ok(if root { Privilege::Root } else { Privilege::User { uid, gid } })
}

fn system_entry(name: &str) -> Option<SystemEntry> {
    let path = Path::new("/").join(name);
    let kind = fs::symlink_metadata(&path).ok()?.file_type();
    if kind.is_dir() {
        return Some(SystemEntry::Directory { name: name.to_owned() });
    }
    let target = fs::read_link(&path).ok()?.into_os_string().into_string().ok()?;
    Some(SystemEntry::Link { name: name.to_owned(), target })
}

fn etc() -> Vec<String> {
    let mut entries: Vec<String> =
        ETC.into_iter().filter(|name| Path::new("/etc").join(name).exists()).map(str::to_owned).collect();
    // Debian keeps the settings of a Java there, and the Java itself only links to them.
    let java = fs::read_dir("/etc").into_iter().flatten().flatten();
    let java = java.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| name.starts_with("java-"));
    entries.extend(java);
    entries.sort();
    entries
}

fn present(names: &[&str]) -> Vec<String> {
    names.iter().filter(|name| Path::new("/proc").join(name).exists()).map(|name| (*name).to_owned()).collect()
}

pub(crate) fn hard_limits() -> Result<HardLimits, ProbeError> {
    const LIMITS: &str = "/proc/self/limits";
    let limits = read(LIMITS)?;
    // "Max open files            1024                 524288               files": name, soft, hard, unit.
    let hard = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
        match line.split_whitespace().nth(1)? {
            "unlimited" => Some(u64::MAX),
            number => number.parse().ok(),
        }
    };
    let limit = |name| hard(name).ok_or_else(|| malformed(LIMITS));
    Ok(HardLimits {
        open_files: limit("Max open files")?,
        processes: limit("Max processes")?,
        core_bytes: limit("Max core file size")?,
        pending_signals: limit("Max pending signals")?,
        data_bytes: limit("Max data size")?,
        locked_bytes: limit("Max locked memory")?,
        file_bytes: limit("Max file size")?,
        processor_seconds: limit("Max cpu time")?,
    })
}

pub(crate) fn last_capability() -> Result<u32, ProbeError> {
    const LAST: &str = "/proc/sys/kernel/cap_last_cap";
    read(LAST)?.trim().parse().map_err(|_| malformed(LAST))
}

/// Whether the mount that holds `path` is read-only, as `/proc/sys` is inside a container.
fn read_only_below(path: &str) -> Result<bool, ProbeError> {
    const MOUNTS: &str = "/proc/self/mountinfo";
    let mounts = read(MOUNTS)?;
    let mut nearest = (0, false);
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(4);
        let (Some(point), Some(options)) = (fields.next(), fields.next()) else {
            continue;
        };
        if Path::new(path).starts_with(point) && point.len() >= nearest.0 {
            nearest = (point.len(), options.split(',').any(|option| option == "ro"));
        }
    }
    Ok(nearest.1)
}
