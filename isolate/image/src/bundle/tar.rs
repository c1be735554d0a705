//! Tar archives, plain or gzipped.
//!
//! The headers are read raw, so that long names are bounded and nothing is honoured that is not named here: regular files,
//! directories, GNU long names, and the `path` of PAX headers. Every other kind of entry is refused.

use std::io::{self, Read};

use flate2::read::MultiGzDecoder;
use tar::{Archive, Entry, EntryType, PaxExtensions};

use super::tree::{FileEntry, Tree};
use super::{BundleError, BundleLimits};

/// Largest long-name or PAX header.
const EXTENSION_BYTES_MAX: u64 = 64 << 10;
/// Headers an entry may have of its own: a long name and a PAX header beside the plain one, each with content.
const BLOCKS_PER_ENTRY: u64 = 8;
const BLOCK_BYTES: u64 = 512;

/// Unpacks a gzipped tar. What comes out of the decompressor is bounded before the tar is read.
pub(super) fn unpack_gz(archive: impl Read, tree: &mut Tree, limits: BundleLimits) -> Result<(), BundleError> {
    let framing_bytes = BLOCK_BYTES * BLOCKS_PER_ENTRY * (u64::from(limits.entries) + 1);
    let left = limits.unpacked_bytes.saturating_add(framing_bytes);
    let mut content = Bounded { inner: MultiGzDecoder::new(archive), left };
    unpack(&mut content, tree, limits)?;
    // To the end, behind which is the checksum.
    let rest = io::copy(&mut content, &mut io::sink());
    rest.map(|_| ()).map_err(|error| read_error(b"", error, limits))
}

/// Unpacks a tar.
pub(super) fn unpack(archive: impl Read, tree: &mut Tree, limits: BundleLimits) -> Result<(), BundleError> {
    let mut archive = Archive::new(archive);
    let entries = archive.entries().map_err(|error| BundleError::damaged(b"", error))?;
    let mut long_name: Option<Vec<u8>> = None;
    for (count, entry) in entries.raw(true).enumerate() {
        if count as u64 > BLOCKS_PER_ENTRY * u64::from(limits.entries) {
            return Err(BundleError::TooManyEntries { limit: limits.entries });
        }
        let mut entry = entry.map_err(|error| read_error(b"", error, limits))?;
        match entry.header().entry_type() {
            EntryType::GNULongName => long_name = Some(gnu_name(&mut entry, limits)?),
            EntryType::XHeader => long_name = pax_name(&mut entry, limits)?.or(long_name),
            // `git archive` writes one with a comment; nothing in it is honoured.
            EntryType::XGlobalHeader => {}
            kind => {
                let name = long_name.take().unwrap_or_else(|| entry.header().path_bytes().into_owned());
                add(&mut entry, kind, &name, tree)?;
            }
        }
    }
    Ok(())
}

fn add<R: Read>(entry: &mut Entry<'_, R>, kind: EntryType, name: &[u8], tree: &mut Tree) -> Result<(), BundleError> {
    let reason = match kind {
        EntryType::Directory => return tree.add_directory(name),
        EntryType::Regular => {
            let mode = entry.header().mode().map_err(|error| BundleError::damaged(name, error))?;
            let file = FileEntry { name, executable: mode & 0o100 != 0, declared_bytes: entry.size() };
            return tree.add_file(file, entry);
        }
        EntryType::Symlink => "it is a symbolic link; archive the files themselves (tar --dereference)",
        EntryType::Link => "it is a hard link; archive the files themselves (tar --hard-dereference)",
        EntryType::Char | EntryType::Block => "it is a device; a bundle holds only files and folders",
        EntryType::Fifo => "it is a FIFO; a bundle holds only files and folders",
        EntryType::GNUSparse => "it is a sparse file; archive it without --sparse",
        _ => "it is of a kind that no bundle may hold: only files and folders",
    };
    Err(BundleError::refused(name, reason))
}

fn gnu_name<R: Read>(entry: &mut Entry<'_, R>, limits: BundleLimits) -> Result<Vec<u8>, BundleError> {
    let mut name = extension(entry, limits)?;
    // The name ends with a NUL; one inside it stays and is refused with the name.
    if name.last() == Some(&0) {
        name.pop();
    }
    Ok(name)
}

/// The `path` of a PAX header. What would change the meaning of the entry is refused instead of ignored.
fn pax_name<R: Read>(entry: &mut Entry<'_, R>, limits: BundleLimits) -> Result<Option<Vec<u8>>, BundleError> {
    let data = extension(entry, limits)?;
    let mut name = None;
    for extension in PaxExtensions::new(&data) {
        let extension = extension.map_err(|error| BundleError::damaged(&data, error))?;
        match extension.key_bytes() {
            b"path" => name = Some(extension.value_bytes().to_vec()),
            b"size" => {
                return Err(BundleError::refused(b"PAX header", "it gives a size of its own to the next entry"));
            }
            key if key.starts_with(b"GNU.sparse") => {
                return Err(BundleError::refused(
                    b"PAX header",
                    "the next entry is a sparse file; archive it without --sparse",
                ));
            }
            _ => {}
        }
    }
    Ok(name)
}

fn extension<R: Read>(entry: &mut Entry<'_, R>, limits: BundleLimits) -> Result<Vec<u8>, BundleError> {
    let name = entry.header().path_bytes().into_owned();
    if entry.size() > EXTENSION_BYTES_MAX {
        return Err(BundleError::refused(&name, "its extended header is larger than 64 KiB"));
    }
    let mut data = Vec::new();
    entry.take(EXTENSION_BYTES_MAX).read_to_end(&mut data).map_err(|error| read_error(&name, error, limits))?;
    Ok(data)
}

fn read_error(name: &[u8], error: io::Error, limits: BundleLimits) -> BundleError {
    match error.kind() {
        io::ErrorKind::FileTooLarge => BundleError::TooLarge { limit_bytes: limits.unpacked_bytes },
        _ => BundleError::damaged(name, error),
    }
}

/// A reader that fails with `FileTooLarge` instead of giving more than `left` bytes.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        match self.left.checked_sub(count as u64) {
            Some(left) => self.left = left,
            None => return Err(io::ErrorKind::FileTooLarge.into()),
        }
        Ok(count)
    }
}
