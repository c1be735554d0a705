//! What stored layers add up to, as a tree of hard links to their files.
//!
//! Owns: whiteouts, replacements, and links between layers. Invariant: a layer's files are read from nowhere but its own directory, each part
//! of a path but the last is a directory there, and nothing of a layer is written to: files and links of the tree are further names of
//! theirs. Contents are not looked at. Does not know: archives, and where layers are kept.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::changes::{CHANGES_BYTES_MAX, Changes};
use crate::error::ImageError;
use crate::tree::{self, CHANGES, FILES, Limits, Size, disk, join, set_mode};

/// A layer on disk.
struct Stored {
    files: PathBuf,
    changes: Changes,
}

/// What lies at a path when the layers are laid upon each other.
enum Found {
    Nothing,
    /// A file or symbolic link of this layer.
    Other(usize, Kind),
    /// A directory, and the layers whose contents show in it, from the lowest to the highest.
    Directory(Vec<usize>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    File,
    Link,
}

impl Kind {
    fn of(kind: fs::FileType) -> Option<Kind> {
        let kinds = [(kind.is_dir(), Kind::Directory), (kind.is_file(), Kind::File), (kind.is_symlink(), Kind::Link)];
        kinds.into_iter().find_map(|(is, kind)| is.then_some(kind))
    }
}

/// Writes what layers add up to into an empty directory on their file system, with `files` (path and text) in place of their own; the bytes of
/// the layers' files. What was written before an error stays there; nothing is on disk yet. `layers` are directories that [`crate::work`]
/// wrote, from the lowest to the highest.
///
/// # Errors
/// When a layer puts something below what is no directory, or takes a file that is none, when all are larger than the limits, or the disk says
/// no.
pub fn merge(
    layers: &[PathBuf],
    directory: &Path,
    limits: Limits,
    files: &[(String, String)],
) -> Result<u64, ImageError> {
    let mut union = Union { layers: Vec::with_capacity(layers.len()), directory };
    let (mut entries, mut bytes, mut records) = (0_u64, 0_u64, limits.entries.saturating_mul(2));
    for layer in layers {
        let changes = read_changes(layer, records)?;
        let count = changes.gone.len() + changes.opaque.len() + changes.implied.len() + changes.links.len();
        records = records.saturating_sub(count as u64);
        entries = entries.saturating_add(changes.entries);
        bytes = bytes.saturating_add(changes.bytes);
        tree::within(limits, entries, bytes)?;
        union.layers.push(Stored { files: layer.join(FILES), changes });
    }
    let all: Vec<usize> = (0..layers.len()).collect();
    let root = union.root(layers.len(), &all);
    union.write_directory(b"", &root)?;
    for (path, text) in files {
        put(directory, path, text)?;
        bytes = bytes.saturating_add(text.len() as u64);
    }
    Ok(bytes)
}

/// How many entries and bytes a stored layer has.
///
/// # Errors
/// When it cannot be read.
pub fn size(layer: &Path, limits: Limits) -> Result<Size, ImageError> {
    let changes = read_changes(layer, limits.entries.saturating_mul(2))?;
    Ok(Size { entries: changes.entries, bytes: changes.bytes })
}

fn read_changes(layer: &Path, most: u64) -> Result<Changes, ImageError> {
    let path = layer.join(CHANGES);
    let mut bytes = Vec::new();
    let file = fs::File::open(&path).map_err(disk(&path))?;
    file.take(CHANGES_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(disk(&path))?;
    let changes = (bytes.len() as u64 <= CHANGES_BYTES_MAX).then(|| Changes::from_bytes(&bytes, most)).flatten();
    changes.ok_or_else(|| ImageError::invalid("what a layer changes of others is too much or not to be understood"))
}

struct Union<'a> {
    layers: Vec<Stored>,
    directory: &'a Path,
}

impl Union<'_> {
    /// The layers that show at the root of the first so many.
    fn root(&self, upto: usize, among: &[usize]) -> Vec<usize> {
        let opaque =
            |layer: &usize| self.layers.get(*layer).is_some_and(|stored| stored.changes.opaque.contains(&b""[..]));
        let lowest = among.iter().copied().take_while(|layer| *layer < upto).filter(opaque).last().unwrap_or(0);
        among.iter().copied().filter(|layer| (lowest..upto).contains(layer)).collect()
    }

    /// What the first so many layers have at a path. `entries` are those of them that have something there, from the lowest.
    fn found(&self, path: &[u8], entries: &[(usize, Kind)], upto: usize) -> Result<Found, ImageError> {
        let (mut found, mut entries) = (Found::Nothing, entries.iter().peekable());
        for (layer, Stored { changes, .. }) in self.layers.iter().enumerate().take(upto) {
            if changes.gone.contains(path) {
                found = Found::Nothing;
            } else if changes.opaque.contains(path)
                && let Found::Directory(below) = &mut found
            {
                below.clear();
            }
            let Some((_, kind)) = entries.next_if(|(of, _)| *of == layer) else { continue };
            found = match (kind, found) {
                (Kind::Directory, Found::Directory(mut below)) => {
                    below.push(layer);
                    Found::Directory(below)
                }
                (Kind::Directory, Found::Other(..)) if changes.implied.contains(path) => {
                    let reason = "something lies below it, and it is no directory of the image, so that lies below what is no \
                                  directory";
                    return Err(ImageError::refused(path, reason));
                }
                (Kind::Directory, _) => Found::Directory(vec![layer]),
                (kind, _) => Found::Other(layer, *kind),
            };
        }
        Ok(found)
    }

    /// Writes what is in a directory, which these layers have.
    fn write_directory(&self, path: &[u8], among: &[usize]) -> Result<(), ImageError> {
        let mut names: BTreeMap<Vec<u8>, Vec<(usize, Kind)>> = BTreeMap::new();
        for layer in among {
            let Some(stored) = self.layers.get(*layer) else { continue };
            let place = stored.files.join(OsStr::from_bytes(path));
            for entry in fs::read_dir(&place).map_err(disk(&place))? {
                let entry = entry.map_err(disk(&place))?;
                let kind = Kind::of(entry.file_type().map_err(disk(&place))?);
                names.entry(entry.file_name().into_vec()).or_default().extend(kind.map(|kind| (*layer, kind)));
            }
        }
        for (name, entries) in names {
            let at = join(path, &name);
            let place = self.directory.join(OsStr::from_bytes(&at));
            match self.found(&at, &entries, self.layers.len())? {
                Found::Nothing => {}
                Found::Directory(among) => {
                    fs::create_dir(&place).and_then(|()| set_mode(&place, 0o755)).map_err(disk(&place))?;
                    self.write_directory(&at, &among)?;
                }
                Found::Other(layer, _) => share(&self.source(layer, &at)?, &place).map_err(disk(&place))?,
            }
        }
        Ok(())
    }

    /// Where the file or link of a layer lies: in a lower one, if it is another name for something of that.
    fn source(&self, layer: usize, path: &[u8]) -> Result<PathBuf, ImageError> {
        let Some(stored) = self.layers.get(layer) else { return Err(ImageError::Unknown) };
        let Some(to) = stored.changes.links.get(path) else { return Ok(stored.files.join(OsStr::from_bytes(path))) };
        // Each step goes to lower layers, so it ends.
        let found = self.file_below(to, layer)?;
        let (of, at) = found.ok_or_else(|| ImageError::refused(path, tree::NO_FILE))?;
        self.source(of, &at)
    }

    /// The file at a path of the layers below one.
    fn file_below(&self, path: &[u8], upto: usize) -> Result<Option<(usize, Vec<u8>)>, ImageError> {
        let all: Vec<usize> = (0..upto).collect();
        let (mut among, mut at) = (self.root(upto, &all), Vec::new());
        let mut parts = path.split(|byte| *byte == b'/').peekable();
        while let Some(part) = parts.next() {
            if matches!(part, b"" | b"." | b"..") {
                return Ok(None);
            }
            at = join(&at, part);
            let kind = |layer: &usize| {
                let place = self.layers.get(*layer)?.files.join(OsStr::from_bytes(&at));
                Some((*layer, Kind::of(fs::symlink_metadata(place).ok()?.file_type())?))
            };
            let entries: Vec<_> = among.iter().filter_map(kind).collect();
            match (self.found(&at, &entries, upto)?, parts.peek()) {
                (Found::Directory(below), Some(_)) => among = below,
                (Found::Other(layer, Kind::File), None) => return Ok(Some((layer, at))),
                _ => return Ok(None),
            }
        }
        Ok(None)
    }
}

/// Gives a file or link another name; a copy where the file system has no more names, or none.
fn share(from: &Path, to: &Path) -> io::Result<()> {
    use io::ErrorKind::{PermissionDenied, TooManyLinks, Unsupported};
    match fs::hard_link(from, to) {
        Err(error) if matches!(error.kind(), TooManyLinks | PermissionDenied | Unsupported) => {
            match fs::read_link(from) {
                Ok(target) => std::os::unix::fs::symlink(target, to),
                Err(_) => fs::copy(from, to).map(drop),
            }
        }
        other => other,
    }
}

/// Puts a file in place of whatever is there, whose content may be a layer's.
fn put(directory: &Path, path: &str, text: &str) -> Result<(), ImageError> {
    let mut place = directory.to_owned();
    let mut parts = path.split('/').peekable();
    while let Some(part) = parts.next() {
        place.push(part);
        let found = match fs::symlink_metadata(&place) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(disk(&place)(error)),
        };
        match (found, parts.peek()) {
            (Some(found), Some(_)) if found.is_dir() => {}
            (Some(_), Some(_)) => return Err(ImageError::refused(path.as_bytes(), tree::NO_DIRECTORY)),
            (None, Some(_)) => {
                fs::create_dir(&place).and_then(|()| set_mode(&place, 0o755)).map_err(disk(&place))?;
            }
            (found, None) => {
                let removed = match found {
                    Some(found) if found.is_dir() => fs::remove_dir_all(&place),
                    Some(_) => fs::remove_file(&place),
                    None => Ok(()),
                };
                let written = removed.and_then(|()| {
                    let mut options = OpenOptions::new();
                    options.write(true).create_new(true).mode(0o644).open(&place)?.write_all(text.as_bytes())
                });
                written.and_then(|()| set_mode(&place, 0o644)).map_err(disk(&place))?;
            }
        }
    }
    Ok(())
}
