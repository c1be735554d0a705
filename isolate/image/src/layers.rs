//! One layer: decompressed, verified and read entry by entry.
//!
//! Owns: the two digests, the bounds on what comes out of the decompressor, and which headers of a tar are honoured. Invariant: a layer
//! that was unpacked without an error is what both digests say, to its last byte. Does not know: what lies on disk.

use std::io::{self, Read};

use sha2::{Digest, Sha256};
use tar::{Archive, Entry, EntryType, PaxExtensions};

use crate::Layer;
use crate::compression;
use crate::error::ImageError;
use crate::source::{self, Source};
use crate::tree::{Limits, Size, Tree};

/// Largest long-name or PAX header.
const EXTENSION_BYTES_MAX: u64 = 64 << 10;

/// Unpacks a layer.
pub(crate) fn unpack(source: &Source, layer: &Layer, mut tree: Tree) -> Result<Size, ImageError> {
    let limits = tree.limits;
    read(source, layer, limits, |tar| entries(tar, &mut tree))?;
    tree.complete()
}

/// Hands a layer's tar over, and then says whether it was the layer: an altered one is told to be so, whatever became of it before.
fn read(
    source: &Source,
    layer: &Layer,
    limits: Limits,
    take: impl FnOnce(&mut dyn Read) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let name = layer.to_string();
    let failed = |error| ImageError::read(&name, error);
    let (part, compressed_bytes) = source.layer(layer)?;
    let most = compression::bound(compressed_bytes, limits.ratio).min(limits.framed_bytes());
    let mut stored = Metered::new(part, u64::MAX, layer.digest.is_some());
    let taken = compression::decompressed(&mut stored).map_err(failed).and_then(|tar| {
        let mut tar = Metered::new(tar, most, true);
        take(&mut tar)?;
        io::copy(&mut tar, &mut io::sink()).map_err(failed)?;
        Ok(tar.digest())
    });
    if let Some(wanted) = &layer.digest {
        io::copy(&mut stored, &mut io::sink()).map_err(failed)?;
        source::check(&name, &stored.digest(), wanted)?;
    }
    source::check(&name, &taken.map_err(|error| told(error, most))?, &layer.diff_id)
}

/// What the meter stopped is said to be too large.
fn told(error: ImageError, most: u64) -> ImageError {
    match error {
        ImageError::Read { source, .. } if source.kind() == io::ErrorKind::FileTooLarge => {
            ImageError::TooLarge(format!("a layer unpacks to more than {most} bytes"))
        }
        other => other,
    }
}

/// Names that headers before an entry give it.
#[derive(Default)]
struct Names {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

fn entries(content: impl Read, tree: &mut Tree) -> Result<(), ImageError> {
    let failed = |error| ImageError::read("a layer", error);
    let mut archive = Archive::new(content);
    let mut names = Names::default();
    for entry in archive.entries().map_err(failed)?.raw(true) {
        let mut entry = entry.map_err(failed)?;
        match entry.header().entry_type() {
            EntryType::GNULongName => names.path = Some(long_name(&mut entry)?),
            EntryType::GNULongLink => names.link = Some(long_name(&mut entry)?),
            EntryType::XHeader => pax(&mut entry, &mut names)?,
            EntryType::XGlobalHeader => {}
            kind => add(&mut entry, kind, std::mem::take(&mut names), tree)?,
        }
    }
    Ok(())
}

fn add<R: Read>(entry: &mut Entry<'_, R>, kind: EntryType, names: Names, tree: &mut Tree) -> Result<(), ImageError> {
    let name = names.path.unwrap_or_else(|| entry.header().path_bytes().into_owned());
    let Some(path) = tree.place(&name)? else { return Ok(()) };
    let link = || names.link.or_else(|| entry.header().link_name_bytes().map(|link| link.into_owned()));
    match kind {
        EntryType::Directory => tree.directory(&path),
        EntryType::Regular | EntryType::Continuous => {
            let mode = entry.header().mode().map_err(|error| ImageError::read("a mode", error))?;
            tree.file(&path, mode & 0o111 != 0, entry)
        }
        EntryType::Symlink => tree.link(&path, &link().unwrap_or_default()),
        EntryType::Link => tree.hard_link(&path, &link().unwrap_or_default()),
        EntryType::Char | EntryType::Block => Err(ImageError::refused(&name, "it is a device outside /dev")),
        EntryType::Fifo => Err(ImageError::refused(&name, "it is a FIFO")),
        EntryType::GNUSparse => Err(ImageError::refused(&name, "it is a sparse file")),
        _ => Err(ImageError::refused(&name, "it is of a kind that no layer may hold")),
    }
}

fn extension<R: Read>(entry: &mut Entry<'_, R>) -> Result<Vec<u8>, ImageError> {
    if entry.size() > EXTENSION_BYTES_MAX {
        return Err(ImageError::refused(&entry.header().path_bytes(), "its extended header is larger than 64 KiB"));
    }
    let mut data = Vec::new();
    entry.read_to_end(&mut data).map_err(|error| ImageError::read("an extended header", error))?;
    Ok(data)
}

fn long_name<R: Read>(entry: &mut Entry<'_, R>) -> Result<Vec<u8>, ImageError> {
    let mut name = extension(entry)?;
    if name.last() == Some(&0) {
        name.pop();
    }
    Ok(name)
}

/// Only names are taken of a PAX header: no owners, times or extended attributes.
fn pax<R: Read>(entry: &mut Entry<'_, R>, names: &mut Names) -> Result<(), ImageError> {
    let data = extension(entry)?;
    for extension in PaxExtensions::new(&data) {
        let extension = extension.map_err(|error| ImageError::read("a PAX header", error))?;
        match extension.key_bytes() {
            b"path" => names.path = Some(extension.value_bytes().to_vec()),
            b"linkpath" => names.link = Some(extension.value_bytes().to_vec()),
            b"size" => return Err(ImageError::refused(b"PAX header", "it gives the next entry a size of its own")),
            key if key.starts_with(b"GNU.sparse") => {
                return Err(ImageError::refused(b"PAX header", "the next entry is a sparse file"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A reader that hashes what it gives, if that is wanted, and fails with `FileTooLarge` instead of giving more than it may.
struct Metered<R> {
    inner: R,
    hash: Sha256,
    is_hashed: bool,
    left: u64,
}

impl<R: Read> Metered<R> {
    fn new(inner: R, most: u64, is_hashed: bool) -> Metered<R> {
        Metered { inner, hash: Sha256::new(), is_hashed, left: most }
    }

    fn digest(&self) -> String {
        source::hex(&self.hash.clone().finalize())
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        if self.is_hashed {
            self.hash.update(&buffer[..count]);
        }
        Ok(count)
    }
}
