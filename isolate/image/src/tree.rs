//! What the layers add up to, on disk and as a list.
//!
//! Owns: every write, whiteouts, and the bounds. Invariant: the list knows every entry below the directory, and each part of a path but the
//! last is a directory of the list before anything is written there, so no symbolic link is ever followed. Modes are 0755 and 0644 only:
//! no set-user-id, no owners, no attributes. Does not know: archives.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::ImageError;

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
    directory: PathBuf,
    pub(crate) limits: Limits,
    /// By path without a leading `/`; a directory's descendants follow it, since `/` ends each part of their paths.
    nodes: BTreeMap<Vec<u8>, Kind>,
    /// What the layer at hand has made: its whiteouts are about what lies below it.
    fresh: BTreeSet<Vec<u8>>,
    entries: u64,
    bytes: u64,
}

impl Tree {
    pub(crate) fn new(directory: &Path, limits: Limits) -> Tree {
        let directory = directory.to_owned();
        Tree { directory, limits, nodes: BTreeMap::new(), fresh: BTreeSet::new(), entries: 0, bytes: 0 }
    }

    pub(crate) fn begin_layer(&mut self) {
        self.fresh.clear();
    }

    /// Checks an entry's name and does what a whiteout asks for; the path, if something is to be made there.
    pub(crate) fn place(&mut self, name: &[u8]) -> Result<Option<Vec<u8>>, ImageError> {
        self.count()?;
        let path = self.checked(name)?;
        let first = path.split(|byte| *byte == b'/').next().unwrap_or_default();
        if path.is_empty() || COVERED.iter().any(|covered| covered.as_bytes() == first) {
            return Ok(None);
        }
        let (parent, last) = split(&path);
        if last == OPAQUE {
            self.remove_older(parent)?;
            return Ok(None);
        }
        match last.strip_prefix(WHITEOUT) {
            Some(b"" | b"." | b"..") => Err(ImageError::refused(name, "it is a whiteout of nothing")),
            Some(gone) => {
                let gone = join(parent, gone);
                if self.fresh.contains(&gone) {
                    self.remove_older(&gone)?
                } else {
                    self.remove(&gone)?
                }
                Ok(None)
            }
            None => {
                self.make_parents(&path)?;
                Ok(Some(path))
            }
        }
    }

    pub(crate) fn directory(&mut self, path: &[u8]) -> Result<(), ImageError> {
        if self.nodes.get(path) != Some(&Kind::Directory) {
            self.remove(path)?;
            let place = self.on_disk(path);
            fs::create_dir(&place).and_then(|()| set_mode(&place, 0o755)).map_err(disk(&place))?;
        }
        self.note(path, Kind::Directory);
        Ok(())
    }

    pub(crate) fn file(&mut self, path: &[u8], executable: bool, content: impl Read) -> Result<(), ImageError> {
        self.remove(path)?;
        let place = self.on_disk(path);
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&place).map_err(disk(&place))?;
        self.copy(content, &mut file, &place)?;
        set_mode(&place, if executable { 0o755 } else { 0o644 }).map_err(disk(&place))?;
        self.note(path, Kind::File);
        Ok(())
    }

    pub(crate) fn link(&mut self, path: &[u8], to: &[u8]) -> Result<(), ImageError> {
        if to.is_empty() || to.len() > PATH_BYTES_MAX || to.contains(&0) {
            return Err(ImageError::refused(path, "its target is empty, too long or holds a NUL"));
        }
        self.remove(path)?;
        let place = self.on_disk(path);
        std::os::unix::fs::symlink(OsStr::from_bytes(to), &place).map_err(disk(&place))?;
        self.note(path, Kind::Link);
        Ok(())
    }

    pub(crate) fn hard_link(&mut self, path: &[u8], to: &[u8]) -> Result<(), ImageError> {
        let to = self.checked(to)?;
        if self.nodes.get(&to) != Some(&Kind::File) || to == path {
            return Err(ImageError::refused(path, "it is a hard link to what is no file of the image"));
        }
        self.remove(path)?;
        if !self.nodes.contains_key(&to) {
            return Err(ImageError::refused(path, "it is a hard link to what it replaces"));
        }
        let place = self.on_disk(path);
        fs::hard_link(self.on_disk(&to), &place).map_err(disk(&place))?;
        self.note(path, Kind::File);
        Ok(())
    }

    /// Puts these files in place of the image's; how many bytes of files there are.
    pub(crate) fn complete(mut self, files: &[(String, String)]) -> Result<u64, ImageError> {
        for (path, text) in files {
            self.begin_layer();
            if let Some(path) = self.place(path.as_bytes())? {
                self.file(&path, false, text.as_bytes())?;
            }
        }
        Ok(self.bytes)
    }

    fn count(&mut self) -> Result<(), ImageError> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(ImageError::TooLarge(format!("it has more than {} entries", self.limits.entries)));
        }
        Ok(())
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
                Some(_) => return Err(ImageError::refused(path, "it lies below what is no directory of the image")),
                None => {
                    self.count()?;
                    self.directory(parent)?;
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
            self.bytes += count as u64;
            if self.bytes > self.limits.bytes {
                return Err(ImageError::TooLarge(format!("its files have more than {} bytes", self.limits.bytes)));
            }
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
        for below in self.below(path) {
            self.nodes.remove(&below);
            self.fresh.remove(&below);
        }
        Ok(())
    }

    /// Removes what earlier layers have put below a directory.
    fn remove_older(&mut self, parent: &[u8]) -> Result<(), ImageError> {
        let older: Vec<_> = self.below(parent).into_iter().filter(|path| !self.fresh.contains(path)).collect();
        older.iter().try_for_each(|path| self.remove(path))
    }

    fn below(&self, path: &[u8]) -> Vec<Vec<u8>> {
        let prefix = if path.is_empty() { Vec::new() } else { [path, b"/"].concat() };
        let after = self.nodes.range(prefix.clone()..);
        after.take_while(|(path, _)| path.starts_with(&prefix)).map(|(path, _)| path.clone()).collect()
    }

    /// Notes an entry of the layer at hand; the directories above it are then the layer's, too.
    fn note(&mut self, path: &[u8], kind: Kind) {
        self.nodes.insert(path.to_vec(), kind);
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
        let above: Vec<_> = ends.chain([path.len()]).filter_map(|end| path.get(..end)).map(<[u8]>::to_vec).collect();
        self.fresh.extend(above);
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

fn join(parent: &[u8], last: &[u8]) -> Vec<u8> {
    if parent.is_empty() { last.to_vec() } else { [parent, b"/", last].concat() }
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn disk(path: &Path) -> impl FnOnce(io::Error) -> ImageError {
    let path = path.to_owned();
    move |source| ImageError::Disk { path, source }
}
