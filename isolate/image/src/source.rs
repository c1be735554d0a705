//! The parts of an image, in a folder or a tar.
//!
//! Owns: finding and reading them, and digests. Invariant: a part of a folder is one of three names or made from checked hexadecimal digits,
//! so nothing outside the folder is opened; a description is read whole only up to a bound. Does not know: what a part means.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::error::ImageError;
use crate::{Layer, Place};

/// Largest manifest or configuration.
const DESCRIPTION_BYTES_MAX: u64 = 4 << 20;
/// Most entries of the archive itself: some for each layer.
const PARTS_MAX: usize = 4096;

#[derive(Debug)]
pub(crate) enum Source {
    Folder(PathBuf),
    /// Where each part lies in the file.
    Archive {
        file: File,
        parts: HashMap<String, (u64, u64)>,
    },
}

impl Source {
    pub(crate) fn open(path: &Path) -> Result<Source, ImageError> {
        let failed = |source| ImageError::read(&path.to_string_lossy(), source);
        if std::fs::metadata(path).map_err(failed)?.is_dir() {
            return Ok(Source::Folder(path.to_owned()));
        }
        Source::archive(File::open(path).map_err(failed)?)
    }

    /// The parts of an archive.
    pub(crate) fn archive(file: File) -> Result<Source, ImageError> {
        let mut archive = tar::Archive::new(BufReader::new(&file));
        let mut parts = HashMap::new();
        let entries = archive.entries_with_seek().map_err(|error| ImageError::read("the archive", error))?;
        for entry in entries.raw(true) {
            let entry = entry.map_err(|_| ImageError::Unknown)?;
            if parts.len() >= PARTS_MAX {
                return Err(ImageError::invalid(format!("it has more than {PARTS_MAX} parts")));
            }
            if entry.header().entry_type().is_file() {
                let name = String::from_utf8_lossy(&entry.header().path_bytes()).into_owned();
                let name = name.trim_start_matches("./").to_owned();
                parts.insert(name, (entry.raw_file_position(), entry.size()));
            }
        }
        Ok(Source::Archive { file, parts })
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        match self {
            Source::Folder(folder) => folder.join(name).is_file(),
            Source::Archive { parts, .. } => parts.contains_key(name),
        }
    }

    /// Where the part of this name lies. Of a folder, only blobs have a place.
    pub(crate) fn place(&self, name: &str) -> Result<Place, ImageError> {
        match self {
            Source::Folder(_) => {
                let digits = name.strip_prefix("blobs/sha256/").unwrap_or_default();
                hexadecimal(&format!("sha256:{digits}")).map(|digits| Place::Blob(digits.to_owned()))
            }
            Source::Archive { parts, .. } => {
                let (offset, bytes) =
                    parts.get(name).ok_or_else(|| ImageError::read(name, io::ErrorKind::NotFound.into()))?;
                Ok(Place::Range { offset: *offset, bytes: *bytes })
            }
        }
    }

    /// Opens a layer; how many bytes it has.
    pub(crate) fn layer<'a>(&'a self, layer: &Layer) -> Result<(Box<dyn Read + 'a>, u64), ImageError> {
        match (self, &layer.place) {
            (Source::Folder(_), Place::Blob(digits)) => self.part(&format!("blobs/sha256/{digits}")),
            (Source::Archive { file, .. }, Place::Range { offset, bytes }) => {
                Ok((Box::new(BufReader::new(Section { file, at: *offset, left: *bytes })), *bytes))
            }
            _ => Err(ImageError::invalid("a layer lies where this form of image has none")),
        }
    }

    fn part(&self, name: &str) -> Result<(Box<dyn Read + '_>, u64), ImageError> {
        let failed = |source| ImageError::read(name, source);
        match self {
            Source::Folder(folder) => {
                let file = File::open(folder.join(name)).map_err(failed)?;
                let bytes = file.metadata().map_err(failed)?.len();
                Ok((Box::new(BufReader::new(file)), bytes))
            }
            Source::Archive { file, parts } => {
                let (offset, bytes) = parts.get(name).ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
                Ok((Box::new(Section { file, at: *offset, left: *bytes }), *bytes))
            }
        }
    }

    /// A blob of an OCI layout, which must be what its digest says.
    pub(crate) fn blob_json<T: DeserializeOwned>(&self, digest: &str) -> Result<T, ImageError> {
        self.json(&blob_name(digest)?, Some(hexadecimal(digest)?))
    }

    pub(crate) fn json<T: DeserializeOwned>(&self, name: &str, digest: Option<&str>) -> Result<T, ImageError> {
        let (part, bytes) = self.part(name)?;
        if bytes > DESCRIPTION_BYTES_MAX {
            return Err(ImageError::TooLarge(format!("{name} has more than 4 MiB")));
        }
        let mut text = Vec::new();
        part.take(DESCRIPTION_BYTES_MAX).read_to_end(&mut text).map_err(|error| ImageError::read(name, error))?;
        if let Some(wanted) = digest {
            check(name, &hex(&Sha256::digest(&text)), wanted)?;
        }
        serde_json::from_slice(&text).map_err(|error| ImageError::invalid(format!("{name}: {error}")))
    }
}

/// A part of a file, read without moving the file's own place.
struct Section<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let count = self.file.read_at(&mut buffer[..most], self.at)?;
        (self.at, self.left) = (self.at + count as u64, self.left - count as u64);
        Ok(count)
    }
}

pub(crate) fn check(what: &str, found: &str, wanted: &str) -> Result<(), ImageError> {
    if found == wanted {
        return Ok(());
    }
    Err(ImageError::Digest { what: what.to_owned(), found: found.to_owned(), wanted: wanted.to_owned() })
}

/// The digits of `sha256:<64 digits>`.
pub(crate) fn hexadecimal(digest: &str) -> Result<&str, ImageError> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let digits = digest.strip_prefix("sha256:").filter(|digits| digits.len() == 64 && digits.bytes().all(is_digit));
    digits.ok_or_else(|| ImageError::invalid(format!("\"{}\" is not a SHA-256 digest", digest.escape_debug())))
}

pub(crate) fn blob_name(digest: &str) -> Result<String, ImageError> {
    Ok(format!("blobs/sha256/{}", hexadecimal(digest)?))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |digit: u8| char::from(b"0123456789abcdef"[usize::from(digit)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
