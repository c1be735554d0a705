//! Why an image was not pulled.
//!
//! Owns: the messages, each of which says what to do. Invariant: what a registry sent is escaped and bounded before it is shown, and no
//! credential is ever in a message. Does not know: statuses.

use std::io;
use std::path::PathBuf;

/// Most that is shown of what a registry sent.
const SHOWN_BYTES_MAX: usize = 200;

/// Why an image was not pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The reference, or what the registry says the image is, cannot be used.
    #[error("{0}")]
    Invalid(String),
    /// The registry wants credentials, or others.
    #[error("{0}")]
    Unauthorized(String),
    /// The Docker configuration or a program that it names failed.
    #[error("{0}")]
    Credentials(String),
    /// There is no such image.
    #[error("{0} is not in its registry: check the name and the tag")]
    NotFound(String),
    /// The registry answered something else than what was asked for.
    #[error("{host} answered {status}{}: {advice}", shown_after(message))]
    Refused {
        /// Who.
        host: String,
        /// HTTP status.
        status: u16,
        /// What it says, as it came.
        message: String,
        /// What to do.
        advice: &'static str,
    },
    /// It cannot be reached, or the connection broke.
    #[error("{host} cannot be reached: {reason}; {advice}")]
    Unreachable {
        /// Who.
        host: String,
        /// What the system said.
        reason: String,
        /// What to do.
        advice: &'static str,
    },
    /// It is slower than allowed.
    #[error("{0}")]
    TooSlow(String),
    /// A blob or manifest is not what its digest says.
    #[error(
        "{what} has digest sha256:{found} and should have sha256:{wanted}: the registry, or something between, altered it; \
         push the image again"
    )]
    Digest {
        /// Which part.
        what: String,
        /// SHA-256 found.
        found: String,
        /// SHA-256 said.
        wanted: String,
    },
    /// Of another length than it was said to have.
    #[error(
        "{what} has {found} bytes and should have {wanted}: the registry altered it or cut it short; push the image again"
    )]
    Length {
        /// Which part.
        what: String,
        /// What came, as far as it was read.
        found: String,
        /// What the manifest says.
        wanted: u64,
    },
    /// More than allowed.
    #[error("{0}")]
    TooLarge(String),
    /// A redirect that is not followed.
    #[error("{host} redirects to {to}, which is not followed: {why}")]
    Redirect {
        /// Who.
        host: String,
        /// Where to.
        to: String,
        /// Why not.
        why: &'static str,
    },
    /// The disk said no.
    #[error("cannot write the image to {}: {source}", path.display())]
    Disk {
        /// What was written.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The pull was given up because the worker stops.
    #[error("the worker is stopping and pulls no more images")]
    Stopped,
}

/// Text from elsewhere, safe to print: escaped and of bounded length.
pub(crate) fn shown(text: &str) -> String {
    let mut cut = text.len().min(SHOWN_BYTES_MAX);
    while !text.is_char_boundary(cut) {
        cut -= 1;
    }
    let ellipsis = if cut < text.len() { "..." } else { "" };
    format!("{}{ellipsis}", text[..cut].trim().escape_debug())
}

fn shown_after(message: &str) -> String {
    let message = shown(message);
    if message.is_empty() { message } else { format!(" ({message})") }
}
