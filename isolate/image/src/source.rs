//! The parts of an image by name, in a folder or a tar.
//!
//! Owns: finding and reading them, and digests. Invariant: a part's name is one of the listing's, or made from checked hexadecimal digits,
//! so nothing outside the folder is opened; a description is read whole only up to a bound. Does not know: what a part means.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::error::ImageError;

/// Largest manifest or configuration.
const DESCRIPTION_BYTES_MAX: u64 = 4 << 20;
/// Most entries of the archive itself: some for each layer.
const PARTS_MAX: usize = 4096;

#[derive(Debug)]
pub(crate) enum Source {
    Folder(PathBuf),
    /// Where each part lies in the file.
    Archive {
        path: PathBuf,
        parts: HashMap<String, (u64, u64)>,
    },
}

impl Source {
    pub(crate) fn open(path: &Path) -> Result<Source, ImageError> {
        let failed = |source| ImageError::read(&path.to_string_lossy(), source);
        if std::fs::metadata(path).map_err(failed)?.is_dir() {
            return Ok(Source::Folder(path.to_owned()));
        }
        let file = BufReader::new(File::open(path).map_err(failed)?);
        let mut archive = tar::Archive::new(file);
        let mut parts = HashMap::new();
        for entry in archive.entries_with_seek().map_err(failed)?.raw(true) {
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
        Ok(Source::Archive { path: path.to_owned(), parts })
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        match self {
            Source::Folder(folder) => folder.join(name).is_file(),
            Source::Archive { parts, .. } => parts.contains_key(name),
        }
    }

    /// Opens a part; how many bytes it has.
    pub(crate) fn part(&self, name: &str) -> Result<(Box<dyn Read>, u64), ImageError> {
        let failed = |source| ImageError::read(name, source);
        match self {
            Source::Folder(folder) => {
                let file = File::open(folder.join(name)).map_err(failed)?;
                let bytes = file.metadata().map_err(failed)?.len();
                Ok((Box::new(BufReader::new(file)), bytes))
            }
            Source::Archive { path, parts } => {
                let (offset, bytes) = parts.get(name).ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
                let mut file = File::open(path).map_err(failed)?;
                file.seek(SeekFrom::Start(*offset)).map_err(failed)?;
                Ok((Box::new(BufReader::new(file).take(*bytes)), *bytes))
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
