//! The directory that a bundle becomes: checks names, counts, creates.
//!
//! Invariant: every path is built from components that were checked here, below a directory that only this process
//! can reach and in which it creates nothing but files and directories; so no path can lead out of it. A file is created
//! exclusively, so that nothing is ever written twice. It does not know archive formats.

use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{BundleError, BundleLimits};

const COMPONENT_BYTES_MAX: usize = 255; // NAME_MAX of Linux filesystems
const NAME_BYTES_MAX: usize = 1024;
const DEPTH_MAX: usize = 32;
const COPY_BYTES: usize = 64 << 10;

// A name of the greatest depth fits the greatest length.
const _: () = assert!(DEPTH_MAX * 2 <= NAME_BYTES_MAX);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    /// A directory that an entry names.
    Directory,
    /// A directory that is only implied by the path of another entry.
    Implied,
}

/// A directory being filled.
pub(super) struct Tree {
    root: PathBuf,
    limits: BundleLimits,
    entries: HashMap<String, Kind>,
    bytes: u64,
}

impl Tree {
    pub(super) fn new(root: &Path, limits: BundleLimits) -> Self {
        Tree { root: root.to_owned(), limits, entries: HashMap::new(), bytes: 0 }
    }

    /// Adds a directory. The root itself, as many archives name it, is nothing to add.
    pub(super) fn add_directory(&mut self, name: &[u8]) -> Result<(), BundleError> {
        let trimmed = name.strip_suffix(b"/").unwrap_or(name);
        let path = check_name(trimmed).map_err(|reason| BundleError::refused(name, reason))?;
        if path.is_empty() {
            return Ok(());
        }
        self.make_parents(name, &path)?;
        match self.entries.get(&path) {
            None => self.make_directory(path, Kind::Directory),
            Some(Kind::Implied) => {
                self.entries.insert(path, Kind::Directory);
                Ok(())
            }
            Some(_) => Err(BundleError::refused(name, "the archive names it twice")),
        }
    }

    /// Adds a file with what `content` gives, which must be `declared_bytes`.
    pub(super) fn add_file(&mut self, entry: FileEntry<'_>, content: &mut dyn Read) -> Result<(), BundleError> {
        let path = check_name(entry.name).map_err(|reason| BundleError::refused(entry.name, reason))?;
        if path.is_empty() {
            return Err(BundleError::refused(entry.name, "a file needs a name"));
        }
        self.make_parents(entry.name, &path)?;
        if self.entries.contains_key(&path) {
            return Err(BundleError::refused(entry.name, "the archive names it twice"));
        }
        if entry.declared_bytes > self.limits.unpacked_bytes - self.bytes {
            return Err(BundleError::TooLarge { limit_bytes: self.limits.unpacked_bytes });
        }
        let full = self.root.join(&path);
        self.count(path, Kind::File)?;
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&full);
        let mut file = opened.map_err(|error| BundleError::disk(&full, error))?;
        let copied = self.copy(entry.name, content, &mut file, &full)?;
        if copied != entry.declared_bytes {
            return Err(BundleError::damaged(entry.name, "its content is not of the size that it declares"));
        }
        let mode = if entry.executable { 0o755 } else { 0o644 };
        file.set_permissions(Permissions::from_mode(mode)).map_err(|error| BundleError::disk(&full, error))?;
        Ok(())
    }

    /// The directory that has `manifest`: the root, or the only directory in it.
    pub(super) fn root_with(&self, manifest: &str) -> Option<PathBuf> {
        if self.entries.get(manifest) == Some(&Kind::File) {
            return Some(self.root.clone());
        }
        let mut top = self.entries.iter().filter(|(path, _)| !path.contains('/'));
        let (only, kind) = top.next()?;
        if top.next().is_some() || *kind == Kind::File {
            return None;
        }
        let inside = self.entries.get(&format!("{only}/{manifest}"));
        (inside == Some(&Kind::File)).then(|| self.root.join(only))
    }

    /// The sum of the files' contents.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes the directories that lead to `path`; a file among them is refused under the `entry`'s name.
    fn make_parents(&mut self, entry: &[u8], path: &str) -> Result<(), BundleError> {
        for (end, _) in path.match_indices('/') {
            let parent = &path[..end];
            match self.entries.get(parent) {
                None => self.make_directory(parent.to_owned(), Kind::Implied)?,
                Some(Kind::File) => {
                    return Err(BundleError::refused(entry, "it is inside what the archive made a file"));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn make_directory(&mut self, path: String, kind: Kind) -> Result<(), BundleError> {
        let full = self.root.join(&path);
        self.count(path, kind)?;
        let made = DirBuilder::new().mode(0o755).create(&full);
        // Again, since the process's mask may have taken bits away.
        let made = made.and_then(|()| std::fs::set_permissions(&full, Permissions::from_mode(0o755)));
        made.map_err(|error| BundleError::disk(&full, error))
    }

    fn count(&mut self, path: String, kind: Kind) -> Result<(), BundleError> {
        if self.entries.len() >= self.limits.entries as usize {
            return Err(BundleError::TooManyEntries { limit: self.limits.entries });
        }
        self.entries.insert(path, kind);
        Ok(())
    }

    /// Copies until the end, counting what really comes, not what was declared.
    fn copy(&mut self, name: &[u8], from: &mut dyn Read, to: &mut File, path: &Path) -> Result<u64, BundleError> {
        let too_large = BundleError::TooLarge { limit_bytes: self.limits.unpacked_bytes };
        let mut buffer = vec![0; COPY_BYTES];
        let mut copied = 0;
        loop {
            let count = match from.read(&mut buffer) {
                Ok(0) => return Ok(copied),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::FileTooLarge => return Err(too_large),
                Err(error) => return Err(BundleError::damaged(name, error)),
            };
            if count as u64 > self.limits.unpacked_bytes - self.bytes {
                return Err(too_large);
            }
            to.write_all(&buffer[..count]).map_err(|error| BundleError::disk(path, error))?;
            self.bytes += count as u64;
            copied += count as u64;
        }
    }
}

/// A file of an archive.
#[derive(Clone, Copy)]
pub(super) struct FileEntry<'a> {
    /// Its path as the archive has it.
    pub(super) name: &'a [u8],
    /// Whether its owner may run it.
    pub(super) executable: bool,
    /// Its size as the archive has it.
    pub(super) declared_bytes: u64,
}

/// The path inside the bundle, without `.` components; empty for the root itself.
fn check_name(name: &[u8]) -> Result<String, &'static str> {
    if name.len() > NAME_BYTES_MAX {
        return Err("its path is longer than 1024 bytes");
    }
    let name = std::str::from_utf8(name).map_err(|_| "its name is not UTF-8")?;
    if name.starts_with('/') {
        return Err("its path is absolute; paths are relative to the bundle");
    }
    if name.chars().any(char::is_control) {
        return Err("its name has a control character");
    }
    if name.contains('\\') {
        return Err("its name has a backslash; separate folders with /");
    }
    let mut components = Vec::new();
    for component in name.split('/') {
        match component {
            "." => {}
            ".." => return Err("its path leads upwards with \"..\""),
            "" if !name.is_empty() => return Err("its path has an empty part"),
            "" => {}
            long if long.len() > COMPONENT_BYTES_MAX => {
                return Err("a part of its path is longer than 255 bytes");
            }
            component => components.push(component),
        }
    }
    if components.len() > DEPTH_MAX {
        return Err("it is more than 32 folders deep");
    }
    Ok(components.join("/"))
}
