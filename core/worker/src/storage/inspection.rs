//! Looking at a tree that a process made which had read hostile bytes.
//!
//! Invariant: a tree that passed holds directories, plain files and symbolic links and nothing else, on one file system, with modes 0755 and
//! 0644, all made by that process, within the limits, and no file of it has a name outside it; it belongs to the worker then. Nothing is
//! opened through a link. It does not know what the tree shall hold, which only whoever read the image knows.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::unistd::{Gid, Uid, fchownat};

/// Why a tree was not taken.
#[derive(Debug)]
pub(super) enum Fault {
    /// It is not as it may be: which entry, and why.
    Untrue(String),
    /// It cannot be looked at, or be made durable.
    Disk(PathBuf, io::Error),
}

/// What a tree may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowed {
    pub(super) entries: u64,
    pub(super) bytes: u64,
    pub(super) depth: usize,
    /// Symbolic and hard ones.
    pub(super) links: bool,
}

/// Looks at everything below a directory that `maker` wrote, takes it over and waits until it is on disk.
pub(super) fn take(tree: &Path, maker: u32, allowed: Allowed) -> Result<(), Fault> {
    let entries = inspect(tree, maker, allowed)?;
    let disk = |source| Fault::Disk(tree.to_owned(), source);
    lchown(tree, Some(Uid::effective().as_raw()), Some(Gid::effective().as_raw())).map_err(disk)?;
    fs::set_permissions(tree, Permissions::from_mode(0o755)).map_err(disk)?;
    let synced = if entries <= SYNCED_ONE_BY_ONE_MAX { sync_below(tree) } else { sync(tree) };
    synced.map_err(disk)
}

/// Waits until everything on the file system of a directory is on disk.
pub(super) fn sync(directory: &Path) -> io::Result<()> {
    Ok(nix::unistd::syncfs(&File::open(directory)?)?)
}

/// Makes a directory as one that was taken.
pub(super) fn make_directory(tree: &Path) -> io::Result<()> {
    fs::create_dir(tree)?;
    fs::set_permissions(tree, Permissions::from_mode(0o755))
}

fn sync_below(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sync_below(&entry.path())?;
        } else if kind.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    super::sync_directory(directory)
}

/// Looks at everything below a directory; how many entries there are.
fn inspect(tree: &Path, maker: u32, allowed: Allowed) -> Result<u64, Fault> {
    let disk = |path: &Path, errno: nix::Error| Fault::Disk(path.to_owned(), errno.into());
    let root = Dir::open(tree, DIRECTORY, Mode::empty()).map_err(|errno| disk(tree, errno))?;
    let found = fstat(&root).map_err(|errno| disk(tree, errno))?;
    let own = Uid::effective();
    let takes_over = (maker != own.as_raw()).then(|| (own, Gid::effective()));
    let mut look =
        Look { maker, allowed, takes_over, device: found.st_dev, entries: 0, bytes: 0, names: HashMap::new() };
    look.directory(root, tree, 0)?;
    match look.names.iter().find(|(_, (seen, links))| seen != links) {
        Some(_) => Err(Fault::Untrue("a file has more names than the tree shows".to_owned())),
        None => Ok(look.entries),
    }
}

/// Up to this many entries are made durable one by one; beyond, one `syncfs` is cheaper, although it waits for others' writes.
const SYNCED_ONE_BY_ONE_MAX: u64 = 64;
const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
const MODE_BITS: u32 = 0o7777;

struct Look {
    maker: u32,
    allowed: Allowed,
    /// Whose it shall be, if it is not yet.
    takes_over: Option<(Uid, Gid)>,
    device: u64,
    entries: u64,
    bytes: u64,
    /// Files with several names, by inode: how many were seen, and how many there are.
    names: HashMap<u64, (u64, u64)>,
}

impl Look {
    fn directory(&mut self, mut directory: Dir, path: &Path, depth: usize) -> Result<(), Fault> {
        let disk = |errno: nix::Error| Fault::Disk(path.to_owned(), errno.into());
        let mut names: Vec<CString> = Vec::new();
        for entry in directory.iter() {
            let entry = entry.map_err(disk)?;
            if ![c".", c".."].contains(&entry.file_name()) {
                self.entries += 1;
                self.within("entries", self.entries, self.allowed.entries)?;
                names.push(entry.file_name().to_owned());
            }
        }
        if !names.is_empty() {
            self.within("levels", depth as u64 + 1, self.allowed.depth as u64)?;
        }
        for name in names {
            let shown = path.join(name.to_string_lossy().escape_debug().to_string());
            let found = fstatat(directory.as_fd(), name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW).map_err(disk)?;
            self.entry(&found).map_err(|why| Fault::Untrue(format!("{}: {why}", shown.display())))?;
            if kind(&found) == SFlag::S_IFDIR {
                let below = Dir::openat(directory.as_fd(), name.as_c_str(), DIRECTORY, Mode::empty()).map_err(disk)?;
                self.directory(below, &shown, depth + 1)?;
            }
            self.take_over(&directory, &name).map_err(disk)?;
        }
        Ok(())
    }

    fn take_over(&self, directory: &Dir, name: &CStr) -> nix::Result<()> {
        match self.takes_over {
            Some((user, group)) => {
                fchownat(directory.as_fd(), name, Some(user), Some(group), AtFlags::AT_SYMLINK_NOFOLLOW)
            }
            None => Ok(()),
        }
    }

    fn entry(&mut self, found: &FileStat) -> Result<(), String> {
        let mode = found.st_mode & MODE_BITS;
        let is_plain = match kind(found) {
            SFlag::S_IFDIR => mode == 0o755,
            SFlag::S_IFREG => [0o644, 0o755].contains(&mode),
            SFlag::S_IFLNK if self.allowed.links => true,
            _ => return Err("it is of a kind that may not be there".to_owned()),
        };
        if !is_plain {
            return Err(format!("its mode is {mode:04o}"));
        }
        if found.st_dev != self.device {
            return Err("it lies on another file system".to_owned());
        }
        let is_known = kind(found) == SFlag::S_IFREG && self.names.contains_key(&found.st_ino);
        if found.st_uid != self.maker
            && !(is_known && self.takes_over.is_some_and(|(own, _)| own.as_raw() == found.st_uid))
        {
            return Err(format!("it belongs to user {}", found.st_uid));
        }
        if kind(found) == SFlag::S_IFREG {
            if found.st_nlink > 1 && !self.allowed.links {
                return Err("it has several names".to_owned());
            }
            if found.st_nlink > 1 {
                self.names.entry(found.st_ino).or_insert((0, found.st_nlink)).0 += 1;
            }
            if !is_known {
                self.bytes = self.bytes.saturating_add(found.st_size.unsigned_abs());
                return self
                    .within("bytes", self.bytes, self.allowed.bytes)
                    .map_err(|_| format!("the files up to it have more than {} bytes", self.allowed.bytes));
            }
        }
        Ok(())
    }

    fn within(&self, what: &str, found: u64, most: u64) -> Result<(), Fault> {
        if found <= most { Ok(()) } else { Err(Fault::Untrue(format!("it has more than {most} {what}"))) }
    }
}

fn kind(found: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits())
}
