//! Why an image was not taken.
//!
//! Owns: the messages, each of which says what to do. Invariant: names of entries are escaped and bounded before they are shown. Does not
//! know: statuses.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

/// Why an image was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Neither an OCI layout nor a docker archive.
    #[error(
        "the image is not understood: give an OCI image layout (a folder or an uncompressed tar of it) or the output of \
         `docker save`"
    )]
    Unknown,
    /// Its description is wrong.
    #[error("the image is invalid: {0}")]
    Invalid(String),
    /// A blob is not what its name says.
    #[error(
        "{what} of the image has digest {found} and should have {wanted}: it was altered or cut short; export it again"
    )]
    Digest {
        /// Which blob.
        what: String,
        /// SHA-256 found.
        found: String,
        /// SHA-256 said.
        wanted: String,
    },
    /// An entry that no image may hold.
    #[error("the image's entry \"{entry}\" is refused: {reason}")]
    Refused {
        /// The entry's name, escaped.
        entry: String,
        /// Why.
        reason: Cow<'static, str>,
    },
    /// More than the limits.
    #[error("the image is too large: {0}")]
    TooLarge(String),
    /// A part cannot be read.
    #[error("cannot read {what} of the image: {source}")]
    Read {
        /// Which part.
        what: String,
        /// The error.
        source: io::Error,
    },
    /// The disk said no.
    #[error("cannot write the image to {}: {source}", path.display())]
    Disk {
        /// What was written.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl ImageError {
    pub(crate) fn invalid(message: impl Into<String>) -> ImageError {
        ImageError::Invalid(message.into())
    }

    pub(crate) fn refused(entry: &[u8], reason: &'static str) -> ImageError {
        let shown = entry.get(..200).unwrap_or(entry).escape_ascii().to_string();
        ImageError::Refused { entry: shown, reason: reason.into() }
    }

    pub(crate) fn read(what: &str, source: io::Error) -> ImageError {
        ImageError::Read { what: what.escape_debug().to_string(), source }
    }
}
