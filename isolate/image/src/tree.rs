//! What a layer holds, on disk and as a list.
//!
//! Owns: every write, and the bounds. Invariant: the list knows every entry below the directory, and each part of a path but the
//! last is a directory of the list before anything is written there, so no symbolic link is ever followed. Modes are 0755 and 0644 only:
//! no set-user-id, no owners, no attributes. Whiteouts are noted beside the files. Does not know: archives, other layers.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::changes::{CHANGES_BYTES_MAX, Changes};
use crate::error::ImageError;

/// The directory of a layer's files in the layer's own, and the file beside it that says what else it changes.
pub(crate) const FILES: &str = "files";
pub(crate) const CHANGES: &str = "changes";

pub(crate) const NO_FILE: &str = "it is a hard link to what is no file of the image";
pub(crate) const NO_DIRECTORY: &str = "it lies below what is no directory of the image";

/// Bounds of an unpacked image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries of all layers together, those included that only a path implies.
    pub entries: u64,
    /// Contents of all files of all layers together.
    pub bytes: u64,
    /// Parts of a path.
    pub depth: usize,
    /// How many times larger a layer may be than its compressed form.
    pub ratio: u64,
}

impl Default for Limits {
    /// Room for a Debian with Python and its numerical libraries.
    fn default() -> Self {
        Limits { entries: 200_000, bytes: 4 << 30, depth: 64, ratio: 256 }
    }
}

impl Limits {
    /// What the tar of a layer may have at most: contents, and headers for every entry.
    pub(crate) fn framed_bytes(&self) -> u64 {
        self.entries.saturating_mul(4096).saturating_add(self.bytes)
    }
}

/// Whether so many entries and bytes may be.
pub(crate) fn within(limits: Limits, entries: u64, bytes: u64) -> Result<(), ImageError> {
    if entries > limits.entries {
        return Err(ImageError::TooLarge(format!("it has more than {} entries", limits.entries)));
    }
    if bytes > limits.bytes {
        return Err(ImageError::TooLarge(format!("its files have more than {} bytes", limits.bytes)));
    }
    Ok(())
}

/// Directories at the root of which nothing is taken: a sandbox has its own.
pub const COVERED: [&str; 7] = ["dev", "proc", "sys", "tmp", "run", "function", "vilya"];

const PATH_BYTES_MAX: usize = 3072;
const PART_BYTES_MAX: usize = 255;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Directory,
    File,
    Link,
}

pub(crate) struct Tree {
    /// Of the layer.
    place: PathBuf,
    directory: PathBuf,
    pub(crate) limits: Limits,
    /// By path without a leading `/`; a directory's descendants follow it, since `/` ends each part of their paths.
    nodes: BTreeMap<Vec<u8>, Kind>,
    changes: Changes,
    /// Of the layers below.
    earlier: Size,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Entries, those included that only a path implies, and whiteouts.
    pub entries: u64,
    /// Contents of files.
    pub bytes: u64,
}

impl Tree {
    /// For a layer in this empty directory. What the layers below have counts against the limits, too.
    pub(crate) fn new(place: &Path, limits: Limits, earlier: Size) -> Result<Tree, ImageError> {
        let directory = place.join(FILES);
        fs::create_dir(&directory).and_then(|()| set_mode(&directory, 0o755)).map_err(disk(&directory))?;
        let (nodes, changes) = (BTreeMap::new(), Changes::default());
        Ok(Tree { place: place.to_owned(), directory, limits, nodes, changes, earlier })
    }

    /// Writes down what the layer changes of others; how much it has.
    pub(crate) fn complete(self) -> Result<Size, ImageError> {
        let bytes = self.changes.to_bytes();
        if bytes.len() as u64 > CHANGES_BYTES_MAX {
            let message = format!("a layer takes away and implies more than {CHANGES_BYTES_MAX} bytes of names");
            return Err(ImageError::TooLarge(message));
        }
        let place = self.place.join(CHANGES);
        let mut file = OpenOptions::new();
        let mut file = file.write(true).create_new(true).mode(0o644).open(&place).map_err(disk(&place))?;
        file.write_all(&bytes).and_then(|()| set_mode(&place, 0o644)).map_err(disk(&place))?;
        Ok(Size { entries: self.changes.entries, bytes: self.changes.bytes })
    }

    /// Checks an entry's name and notes what a whiteout asks for; the path, if something is to be made there.
    pub(crate) fn place(&mut self, name: &[u8]) -> Result<Option<Vec<u8>>, ImageError> {
        self.count()?;
        let path = self.checked(name)?;
        let first = path.split(|byte| *byte == b'/').next().unwrap_or_default();
        if path.is_empty() || COVERED.iter().any(|covered| covered.as_bytes() == first) {
            return Ok(None);
        }
        let (parent, last) = split(&path);
        if last == OPAQUE {
            self.changes.opaque.insert(parent.to_vec());
            return Ok(None);
        }
        match last.strip_prefix(WHITEOUT) {
            Some(b"" | b"." | b"..") => Err(ImageError::refused(name, "it is a whiteout of nothing")),
            Some(gone) => {
                self.changes.gone.insert(join(parent, gone));
                Ok(None)
            }
            None => {
                self.make_parents(&path)?;
                Ok(Some(path))
            }
        }
    }

    pub(crate) fn directory(&mut self, path: &[u8]) -> Result<(), ImageError> {
        let there = self.nodes.get(path).copied();
        if there != Some(Kind::Directory) {
            self.remove(path)?;
            if there.is_some() {
                // What it replaces had replaced what lower layers have there.
                self.changes.opaque.insert(path.to_vec());
            }
            let place = self.on_disk(path);
            fs::create_dir(&place).and_then(|()| set_mode(&place, 0o755)).map_err(disk(&place))?;
        }
        self.nodes.insert(path.to_vec(), Kind::Directory);
        Ok(())
    }

    pub(crate) fn file(&mut self, path: &[u8], executable: bool, content: impl Read) -> Result<(), ImageError> {
        self.remove(path)?;
        let place = self.on_disk(path);
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&place).map_err(disk(&place))?;
        self.copy(content, &mut file, &place)?;
        set_mode(&place, if executable { 0o755 } else { 0o644 }).map_err(disk(&place))?;
        self.nodes.insert(path.to_vec(), Kind::File);
        Ok(())
    }

    pub(crate) fn link(&mut self, path: &[u8], to: &[u8]) -> Result<(), ImageError> {
        if to.is_empty() || to.len() > PATH_BYTES_MAX || to.contains(&0) {
            return Err(ImageError::refused(path, "its target is empty, too long or holds a NUL"));
        }
        self.remove(path)?;
        let place = self.on_disk(path);
        std::os::unix::fs::symlink(OsStr::from_bytes(to), &place).map_err(disk(&place))?;
        self.nodes.insert(path.to_vec(), Kind::Link);
        Ok(())
    }

    pub(crate) fn hard_link(&mut self, path: &[u8], to: &[u8]) -> Result<(), ImageError> {
        let to = self.checked(to)?;
        if !matches!(self.nodes.get(&to), Some(Kind::File) | None) || to.is_empty() || to == path {
            return Err(ImageError::refused(path, NO_FILE));
        }
        let below = match self.nodes.get(&to) {
            // Whether a lower layer has it shows when they are laid upon each other.
            None => Some(to.clone()),
            Some(_) => self.changes.links.get(&to).cloned(),
        };
        if let Some(below) = below {
            self.file(path, false, io::empty())?;
            self.changes.links.insert(path.to_vec(), below);
            return Ok(());
        }
        self.remove(path)?;
        if !self.nodes.contains_key(&to) {
            return Err(ImageError::refused(path, "it is a hard link to what it replaces"));
        }
        let place = self.on_disk(path);
        fs::hard_link(self.on_disk(&to), &place).map_err(disk(&place))?;
        self.nodes.insert(path.to_vec(), Kind::File);
        Ok(())
    }

    fn count(&mut self) -> Result<(), ImageError> {
        self.changes.entries += 1;
        self.check()
    }

    fn check(&self) -> Result<(), ImageError> {
        let Size { entries, bytes } = self.earlier;
        within(self.limits, entries.saturating_add(self.changes.entries), bytes.saturating_add(self.changes.bytes))
    }

    /// A path without `.`, `..` and empty parts.
    fn checked(&self, name: &[u8]) -> Result<Vec<u8>, ImageError> {
        if name.starts_with(b"/") {
            return Err(ImageError::refused(name, "its path is absolute"));
        }
        let parts = name.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
        let parts: Vec<&[u8]> = parts.collect();
        if parts.contains(&b"..".as_slice()) {
            return Err(ImageError::refused(name, "its path leads upwards"));
        }
        let is_long = parts.iter().any(|part| part.len() > PART_BYTES_MAX) || name.len() > PATH_BYTES_MAX;
        if parts.len() > self.limits.depth || is_long || name.contains(&0) {
            return Err(ImageError::refused(name, "its path is too deep, too long or holds a NUL"));
        }
        Ok(parts.join(&b'/'))
    }

    fn make_parents(&mut self, path: &[u8]) -> Result<(), ImageError> {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        for parent in ends.map(|(end, _)| path.get(..end).unwrap_or_default()) {
            match self.nodes.get(parent) {
                Some(Kind::Directory) => {}
                Some(_) => return Err(ImageError::refused(path, NO_DIRECTORY)),
                None => {
                    self.count()?;
                    self.directory(parent)?;
                    self.changes.implied.insert(parent.to_vec());
                }
            }
        }
        Ok(())
    }

    fn copy(&mut self, mut content: impl Read, file: &mut fs::File, place: &Path) -> Result<(), ImageError> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = match content.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ImageError::read("a file", error)),
            };
            self.changes.bytes += count as u64;
            self.check()?;
            file.write_all(buffer.get(..count).unwrap_or_default()).map_err(disk(place))?;
        }
    }

    /// Removes an entry and all below it, if there is one; its parents are directories of the list, or there is none.
    fn remove(&mut self, path: &[u8]) -> Result<(), ImageError> {
        let place = self.on_disk(path);
        match self.nodes.remove(path) {
            None => return Ok(()),
            Some(Kind::Directory) => fs::remove_dir_all(&place).map_err(disk(&place))?,
            Some(Kind::File | Kind::Link) => fs::remove_file(&place).map_err(disk(&place))?,
        }
        self.forget(path);
        for below in self.below(path) {
            self.nodes.remove(&below);
            self.forget(&below);
        }
        Ok(())
    }

    fn forget(&mut self, path: &[u8]) {
        self.changes.implied.remove(path);
        self.changes.links.remove(path);
    }

    fn below(&self, path: &[u8]) -> Vec<Vec<u8>> {
        let prefix = [path, b"/"].concat();
        let after = self.nodes.range(prefix.clone()..);
        after.take_while(|(path, _)| path.starts_with(&prefix)).map(|(path, _)| path.clone()).collect()
    }

    fn on_disk(&self, path: &[u8]) -> PathBuf {
        self.directory.join(OsStr::from_bytes(path))
    }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (path.get(..at).unwrap_or_default(), path.get(at + 1..).unwrap_or_default()),
        None => (b"", path),
    }
}

pub(crate) fn join(parent: &[u8], last: &[u8]) -> Vec<u8> {
    if parent.is_empty() { last.to_vec() } else { [parent, b"/", last].concat() }
}

pub(crate) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

pub(crate) fn disk(path: &Path) -> impl FnOnce(io::Error) -> ImageError {
    let path = path.to_owned();
    move |source| ImageError::Disk { path, source }
}
