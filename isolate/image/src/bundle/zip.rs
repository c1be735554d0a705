//! Zip archives: stored and deflated entries, read by the central directory.
//!
//! Declared sizes are never trusted: content is counted as it is inflated. Entries that share bytes, which is how a small
//! archive declares an enormous one, are refused before anything is inflated.

use std::io::{Read, Seek};

use zip::ZipArchive;
use zip::read::ZipFile;
use zip::result::ZipError;

use super::BundleError;
use super::tree::{FileEntry, Tree};

const KIND_MASK: u32 = 0o170_000;
const KIND_FILE: u32 = 0o100_000;
const KIND_DIRECTORY: u32 = 0o040_000;

/// Unpacks a zip.
pub(super) fn unpack(archive: impl Read + Seek, tree: &mut Tree) -> Result<(), BundleError> {
    let damaged = |error: ZipError| BundleError::damaged(b"", error);
    let mut archive = ZipArchive::new(archive).map_err(damaged)?;
    if archive.has_duplicate_names() {
        return Err(BundleError::refused(b"central directory", "the archive names a file twice"));
    }
    if archive.has_overlapping_entries().map_err(damaged)? {
        return Err(BundleError::refused(b"central directory", "entries share the same bytes"));
    }
    let names: Vec<Vec<u8>> = archive.file_names_raw().map(<[u8]>::to_vec).collect();
    for (index, name) in names.iter().enumerate() {
        let entry = archive.by_index(index).map_err(|error| cannot_open(name, error))?;
        add(entry, name, tree)?;
    }
    Ok(())
}

fn add<R: Read>(mut entry: ZipFile<'_, R>, name: &[u8], tree: &mut Tree) -> Result<(), BundleError> {
    let mode = entry.unix_mode().unwrap_or(0);
    match mode & KIND_MASK {
        0 | KIND_FILE | KIND_DIRECTORY => {}
        0o120_000 => {
            return Err(BundleError::refused(name, "it is a symbolic link; archive the files themselves"));
        }
        _ => {
            return Err(BundleError::refused(
                name,
                "it is a device, FIFO or socket; a bundle holds only files and folders",
            ));
        }
    }
    let is_directory = name.ends_with(b"/");
    if is_directory {
        return match entry.size() {
            0 => tree.add_directory(name),
            _ => Err(BundleError::refused(name, "it is a folder with content of its own")),
        };
    }
    if mode & KIND_MASK == KIND_DIRECTORY {
        return Err(BundleError::refused(name, "it is a folder whose name does not end in /"));
    }
    let file = FileEntry { name, executable: mode & 0o100 != 0, declared_bytes: entry.size() };
    tree.add_file(file, &mut entry)
}

fn cannot_open(name: &[u8], error: ZipError) -> BundleError {
    match error {
        ZipError::UnsupportedArchive(ZipError::PASSWORD_REQUIRED) => BundleError::refused(name, "it is encrypted"),
        ZipError::UnsupportedArchive(_) | ZipError::CompressionMethodNotSupported(_) => {
            BundleError::refused(name, "it is compressed in a way that is not understood: use deflate or store")
        }
        error => BundleError::damaged(name, error),
    }
}
