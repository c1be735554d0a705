//! A function's code: from the bytes of an archive to a directory on disk.
//!
//! Owns: every check of it. Invariant: the archive is hostile until proven otherwise; an unpacked bundle holds only regular files and
//! directories, all inside its own directory, with modes 0644 and 0755 (directories 0755), at most
//! [`BundleLimits::entries`] of them and at most [`BundleLimits::unpacked_bytes`] of content. Anything else is refused with
//! the name of the entry; a refused archive may leave files behind in the directory, which the caller removes.
//!
//! The format is told by the first bytes, never by what the client said. Does not know: manifests, records.

mod tar;
mod tree;
mod zip;

use std::borrow::Cow;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use tree::Tree;

/// Bounds of an unpacked bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BundleLimits {
    /// Files and directories, those included that are only implied by a path.
    pub entries: u32,
    /// Sum of the files' contents.
    pub unpacked_bytes: u64,
}

impl Default for BundleLimits {
    /// Room for a Python function with its numerical libraries.
    fn default() -> Self {
        BundleLimits { entries: 32_768, unpacked_bytes: 512 << 20 }
    }
}

/// Why an archive was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The first bytes are of no known format.
    #[error("the body is not an archive that is understood: send a zip, a tar or a tar.gz of the function's folder")]
    UnknownFormat,
    /// The archive cannot be read.
    #[error("the archive is damaged{}: {reason}", at(entry))]
    Damaged {
        /// The entry it failed at; empty before the first.
        entry: String,
        /// What the reader said.
        reason: String,
    },
    /// An entry that no bundle may hold.
    #[error("the archive's entry \"{entry}\" is refused: {reason}")]
    Refused {
        /// The entry's name, escaped.
        entry: String,
        /// Why.
        reason: Cow<'static, str>,
    },
    /// More content than allowed.
    #[error("the archive unpacks to more than {}: leave out what the function does not need", mebibytes(*limit_bytes))]
    TooLarge {
        /// The bound.
        limit_bytes: u64,
    },
    /// More files and directories than allowed.
    #[error("the archive has more than {limit} files and directories: leave out what the function does not need")]
    TooManyEntries {
        /// The bound.
        limit: u32,
    },
    /// No manifest where one is looked for.
    #[error(
        "there is no {name} at the root of the archive or of its only top folder: add one, or archive the folder that has it"
    )]
    NoManifest {
        /// The manifest's file name.
        name: String,
    },
    /// The disk said no.
    #[error("cannot write the bundle to {}: {source}", path.display())]
    Disk {
        /// What was written.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

fn mebibytes(bytes: u64) -> String {
    format!("{}MiB", bytes >> 20)
}

fn at(entry: &str) -> String {
    if entry.is_empty() { String::new() } else { format!(" at entry \"{entry}\"") }
}

impl BundleError {
    fn damaged(entry: &[u8], error: impl std::fmt::Display) -> Self {
        BundleError::Damaged { entry: shown(entry), reason: error.to_string() }
    }

    fn refused(entry: &[u8], reason: &'static str) -> Self {
        BundleError::Refused { entry: shown(entry), reason: reason.into() }
    }

    fn disk(path: &Path, source: io::Error) -> Self {
        BundleError::Disk { path: path.to_owned(), source }
    }
}

/// An entry's name, safe to print: escaped and of bounded length.
fn shown(name: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 200;
    let cut = &name[..name.len().min(SHOWN_BYTES_MAX)];
    let ellipsis = if cut.len() < name.len() { "..." } else { "" };
    format!("{}{ellipsis}", cut.escape_ascii())
}

/// What came of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// The directory that holds the manifest: the one given, or its only folder.
    pub root: PathBuf,
    /// Sum of the files' contents.
    pub bytes: u64,
}

/// Unpacks `archive` into `directory`, which must exist, be empty and be reachable by nobody else. Nothing is on
/// disk yet then. `manifest` is the name of the file that marks the root.
pub fn unpack(
    mut archive: impl Read + Seek,
    directory: &Path,
    manifest: &str,
    limits: BundleLimits,
) -> Result<Unpacked, BundleError> {
    let mut tree = Tree::new(directory, limits);
    match Format::of(&mut archive)?.ok_or(BundleError::UnknownFormat)? {
        Format::Zip => zip::unpack(archive, &mut tree)?,
        Format::Tar => tar::unpack(archive, &mut tree, limits)?,
        Format::TarGz => tar::unpack_gz(archive, &mut tree, limits)?,
    }
    let root = tree.root_with(manifest).ok_or_else(|| BundleError::NoManifest { name: manifest.to_owned() })?;
    Ok(Unpacked { root, bytes: tree.bytes() })
}

/// Where a tar says that it is one.
const TAR_MAGIC_AT: usize = 257;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Zip,
    Tar,
    TarGz,
}

impl Format {
    /// From the first bytes; the archive is at its beginning again then.
    fn of(archive: &mut (impl Read + Seek)) -> Result<Option<Format>, BundleError> {
        let mut first = Vec::new();
        let read = archive.by_ref().take((TAR_MAGIC_AT + 5) as u64).read_to_end(&mut first);
        read.and_then(|_| archive.rewind()).map_err(|error| BundleError::damaged(b"", error))?;
        Ok(Format::told_by(&first))
    }

    fn told_by(archive: &[u8]) -> Option<Format> {
        if archive.starts_with(b"PK\x03\x04") || archive.starts_with(b"PK\x05\x06") {
            return Some(Format::Zip);
        }
        if archive.starts_with(b"\x1f\x8b") {
            return Some(Format::TarGz);
        }
        archive.get(TAR_MAGIC_AT..)?.starts_with(b"ustar").then_some(Format::Tar)
    }
}

#[cfg(test)]
mod tests;
