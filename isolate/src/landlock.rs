//! Landlock: what a sandbox may do with files, said once more by another part of the kernel than its mounts.
//!
//! Owns: the rules, and the three calls. Invariant: reading and executing are allowed below the sandbox's own root and nowhere else, so a
//! directory of the host that got inside as a descriptor opens nothing; writing is allowed where a mount is meant to be written, so a mount
//! that is writable by mistake, or that is attached later, is not written. Signals and abstract sockets stay among the processes of the
//! sandbox. What the kernel is too old for is left out. Does not know: why a mount is writable, or when the rules are put in force.
//!
//! Rules belong to the inode at the root of a mount, so each sandbox, whose `/tmp` is its own, makes its own. The `landlock` crate is not
//! used: it allocates, which the child that this runs in must not.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::fmt;
use std::os::fd::RawFd;

use crate::sys::{Errno, Word, call};

/// From `linux/landlock.h`.
const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIRECTORY: u64 = 1 << 3;
const REMOVE_DIRECTORY: u64 = 1 << 4;
const REMOVE_FILE: u64 = 1 << 5;
const MAKE_DIRECTORY: u64 = 1 << 7;
const MAKE_REGULAR: u64 = 1 << 8;
const MAKE_SOCKET: u64 = 1 << 9;
const MAKE_LINK: u64 = 1 << 12;
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;
const CONTROL_DEVICE: u64 = 1 << 15;
/// All that an interface knows: 13 rights at first, then one more in each of 2, 3 and 5.
const OF_FIRST: u64 = (1 << 13) - 1;

const READ: u64 = EXECUTE | READ_FILE | READ_DIRECTORY;
const WRITE: u64 = WRITE_FILE
    | REMOVE_DIRECTORY
    | REMOVE_FILE
    | MAKE_DIRECTORY
    | MAKE_REGULAR
    | MAKE_SOCKET
    | MAKE_LINK
    | REFER
    | TRUNCATE;
/// Of these, what a rule on a file may say.
const OF_FILES: u64 = WRITE_FILE | TRUNCATE;

const BIND_TCP: u64 = 1;
const CONNECT_TCP: u64 = 1 << 1;
/// The first interface that knows of ports.
const WITH_PORTS: u32 = 4;

const SCOPE_ABSTRACT_SOCKETS: u64 = 1;
const SCOPE_SIGNALS: u64 = 1 << 1;
const VERSION: Word = 1;
const PATH_BENEATH: Word = 1;
/// Refusals are not written to the host's audit log, which a function could fill with them.
const NO_LOG: Word = 1;

/// The oldest interface that is used: before it, no file could be renamed from one directory to another.
const OLDEST: u32 = 2;
/// The first with the scopes of signals and abstract sockets.
pub(crate) const WITH_SCOPES: u32 = 6;
const WITH_LOG: u32 = 7;

/// The kernel's interface, counted from 1; 0 where there is none.
pub(crate) fn version() -> u32 {
    // SAFETY: a question about the version takes no memory.
    let version = unsafe { call(libc::SYS_landlock_create_ruleset, [0, 0, VERSION]) };
    version.ok().and_then(|version| u32::try_from(version).ok()).unwrap_or(0)
}

/// The same; 0 also where it is too old to be used.
pub(crate) fn interface() -> u32 {
    Some(version()).filter(|version| *version >= OLDEST).unwrap_or(0)
}

/// What a sandbox may do, as one interface of the kernel can be told.
#[derive(Debug)]
pub struct Rules {
    /// The kernel's `struct landlock_ruleset_attr`: rights on files and on ports that are denied unless allowed, and scopes.
    attributes: [u64; 3],
    flags: Word,
    beneath: Vec<(CString, u64)>,
}

/// The kernel's `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct Beneath {
    allowed: u64,
    parent: RawFd,
}

impl Rules {
    /// Rules for a root in which these directories, or files, may be written; `None` if the kernel takes no rules. Ports are left to the
    /// network namespace.
    pub(crate) fn new(interface: u32, writable: impl Iterator<Item = CString>) -> Option<Rules> {
        if interface < OLDEST {
            return None;
        }
        let handled = match interface {
            2 => OF_FIRST | REFER,
            3 | 4 => OF_FIRST | REFER | TRUNCATE,
            _ => OF_FIRST | REFER | TRUNCATE | CONTROL_DEVICE,
        };
        let scopes = if interface < WITH_SCOPES { 0 } else { SCOPE_ABSTRACT_SOCKETS | SCOPE_SIGNALS };
        let below = [(c"/", READ), (c"/dev", WRITE_FILE)].map(|(path, rights)| (path.to_owned(), rights));
        let beneath = below.into_iter().chain(writable.map(|path| (path, WRITE & handled))).collect();
        Some(Rules { attributes: [handled, 0, scopes], flags: if interface < WITH_LOG { 0 } else { NO_LOG }, beneath })
    }

    /// Rules for a child that reads below one directory and makes plain files, directories and links below another; nothing is executed,
    /// and no port of TCP is bound or connected to.
    pub(crate) fn unpacking(interface: u32, read: &CStr, write: &CStr) -> Option<Rules> {
        let mut rules = Rules::new(interface, std::iter::empty())?;
        let handled = rules.attributes[0];
        let made = READ | WRITE & !MAKE_SOCKET & handled;
        rules.beneath = vec![(read.to_owned(), READ & !EXECUTE), (write.to_owned(), made & !EXECUTE)];
        rules.attributes[1] = if interface < WITH_PORTS { 0 } else { BIND_TCP | CONNECT_TCP };
        Some(rules)
    }

    /// Makes them in the kernel, as a descriptor. Between `clone3` and `exec`, in the root that they are for.
    pub(crate) fn make(&self) -> Result<RawFd, Errno> {
        // An older kernel takes a shorter struct, or a longer one that ends in zeroes.
        let arguments = [self.attributes.as_ptr() as Word, size_of_val(&self.attributes) as Word, 0];
        // SAFETY: the attributes outlive the call and the size is their own.
        let ruleset = unsafe { call(libc::SYS_landlock_create_ruleset, arguments) }?;
        for (path, allowed) in &self.beneath {
            let flags = Word::from(libc::O_PATH | libc::O_CLOEXEC);
            // SAFETY: the path is null-terminated and outlives the call.
            let parent = unsafe { call(libc::SYS_openat, [libc::AT_FDCWD.into(), path.as_ptr() as Word, flags, 0]) }?;
            let added = match add(ruleset, parent, *allowed) {
                // What is a file and not a directory cannot hold others.
                Err(libc::EINVAL) => add(ruleset, parent, allowed & OF_FILES),
                added => added,
            };
            // SAFETY: opened here, and known to nobody else.
            unsafe { call(libc::SYS_close, [parent]) }?;
            added?;
        }
        Ok(ruleset as RawFd)
    }

    /// The kernel's flags for putting them in force.
    pub(crate) fn flags(&self) -> Word {
        self.flags
    }
}

/// Puts rules in force for the calling thread, which must be the only one, and all that it makes and becomes.
pub(crate) fn enforce(ruleset: RawFd, flags: Word) -> Result<(), Errno> {
    // SAFETY: no pointers.
    unsafe { call(libc::SYS_landlock_restrict_self, [ruleset.into(), flags]) }.map(drop)
}

fn add(ruleset: Word, parent: Word, allowed: u64) -> Result<(), Errno> {
    let beneath = Beneath { allowed, parent: parent as RawFd };
    // SAFETY: the rule outlives the call.
    unsafe { call(libc::SYS_landlock_add_rule, [ruleset, PATH_BENEATH, (&raw const beneath) as Word, 0]) }.map(drop)
}

impl fmt::Display for Rules {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "rules: read and execute below /, write to files below /dev")?;
        let places = self.beneath.iter().skip(2);
        places.into_iter().try_for_each(|(path, _)| write!(out, ", write below {}", path.to_string_lossy()))?;
        if self.attributes[2] == 0 { Ok(()) } else { write!(out, "; signals and abstract sockets stay within") }
    }
}
