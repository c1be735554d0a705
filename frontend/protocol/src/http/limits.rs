//! Every bound of the HTTP decoder, in one place.
//!
//! Invariant: a decoder holds at most `head_bytes` of buffered head, whatever arrives.

use core::fmt;

/// Longest method that is read; longer ones are not implemented (RFC 9110, section 9.1).
pub(crate) const METHOD_BYTES: usize = 32;

/// Highest value of [`Limits::head_bytes`]: offsets into a head are 16 bits wide.
pub(crate) const HEAD_BYTES_CAP: usize = u16::MAX as usize;

/// Highest value of [`Limits::headers`]: the parser's table of headers lives on the stack.
pub(crate) const HEADERS_CAP: usize = 128;

/// Longest chunk extension, and the most bytes of extensions in one body.
pub(crate) const CHUNK_EXTENSION_BYTES: u32 = 256;
pub(crate) const CHUNK_EXTENSION_TOTAL_BYTES: u32 = 16 * 1024;

/// Most hexadecimal digits of a chunk size: sixteen fill a `u64`.
pub(crate) const CHUNK_SIZE_DIGITS: u8 = 16;

/// `METHOD SP TARGET SP HTTP/1.1 CRLF` around the target.
pub(crate) const REQUEST_LINE_OVERHEAD_BYTES: usize = METHOD_BYTES + 1 + 1 + "HTTP/1.1".len() + 2;

const _: () = assert!(CHUNK_EXTENSION_BYTES <= CHUNK_EXTENSION_TOTAL_BYTES);
const _: () = assert!(Limits::DEFAULT.head_bytes <= HEAD_BYTES_CAP && Limits::DEFAULT.headers <= HEADERS_CAP);
const _: () = assert!(Limits::DEFAULT.target_bytes + REQUEST_LINE_OVERHEAD_BYTES < Limits::DEFAULT.head_bytes);

/// Bounds of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Request line, headers and the empty line after them; also the bound of a trailer section. Over it: 431.
    pub head_bytes: usize,
    /// Number of headers, and of trailers. Over it: 431.
    pub headers: usize,
    /// Length of the request target. Over it: 414.
    pub target_bytes: usize,
    /// Length of a body, announced or chunked (framing not counted). Over it: 413.
    pub body_bytes: u64,
}

impl Limits {
    /// 16 KiB of head, 64 headers, 4 KiB of target, 64 MiB of body.
    pub const DEFAULT: Limits =
        Limits { head_bytes: 16 * 1024, headers: 64, target_bytes: 4 * 1024, body_bytes: 64 * 1024 * 1024 };

    /// Checks the limits against the caps and each other.
    pub fn check(&self) -> Result<(), LimitsError> {
        if self.head_bytes > HEAD_BYTES_CAP {
            return Err(LimitsError::HeadBytes { given: self.head_bytes });
        }
        if self.headers > HEADERS_CAP {
            return Err(LimitsError::Headers { given: self.headers });
        }
        if self.target_bytes + REQUEST_LINE_OVERHEAD_BYTES >= self.head_bytes {
            return Err(LimitsError::TargetBytes { given: self.target_bytes });
        }
        Ok(())
    }

    /// The limits with everything over a cap lowered to it.
    pub(crate) fn capped(mut self) -> Limits {
        self.head_bytes = self.head_bytes.min(HEAD_BYTES_CAP);
        self.headers = self.headers.min(HEADERS_CAP);
        self.target_bytes = self.target_bytes.min(HEAD_BYTES_CAP);
        self
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::DEFAULT
    }
}

/// Why a set of limits cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitsError {
    /// `head_bytes` is over the cap.
    HeadBytes {
        /// The value given.
        given: usize,
    },
    /// `headers` is over the cap.
    Headers {
        /// The value given.
        given: usize,
    },
    /// A request line with a target this long does not fit into `head_bytes`.
    TargetBytes {
        /// The value given.
        given: usize,
    },
}

impl fmt::Display for LimitsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LimitsError::HeadBytes { given } => {
                write!(f, "a head of {given} bytes is over the cap; use at most {HEAD_BYTES_CAP}")
            }
            LimitsError::Headers { given } => write!(f, "{given} headers are over the cap; use at most {HEADERS_CAP}"),
            LimitsError::TargetBytes { given } => {
                write!(f, "a target of {given} bytes leaves no room in the head; raise the head limit or lower it")
            }
        }
    }
}

impl core::error::Error for LimitsError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_finds_each_fault() {
        assert_eq!(Limits::DEFAULT.check(), Ok(()));
        let mut limits = Limits { head_bytes: HEAD_BYTES_CAP + 1, ..Limits::DEFAULT };
        assert_eq!(limits.check(), Err(LimitsError::HeadBytes { given: HEAD_BYTES_CAP + 1 }));
        limits = Limits { headers: HEADERS_CAP + 1, ..Limits::DEFAULT };
        assert_eq!(limits.check(), Err(LimitsError::Headers { given: HEADERS_CAP + 1 }));
        limits = Limits { head_bytes: 4096, ..Limits::DEFAULT };
        assert_eq!(limits.check(), Err(LimitsError::TargetBytes { given: 4096 }));
    }

    #[test]
    fn capped_limits_are_within_the_caps() {
        let limits =
            Limits { head_bytes: usize::MAX, headers: usize::MAX, target_bytes: usize::MAX, body_bytes: u64::MAX };
        let capped = limits.capped();
        assert_eq!((capped.head_bytes, capped.headers), (HEAD_BYTES_CAP, HEADERS_CAP));
        assert_eq!(capped.body_bytes, u64::MAX);
    }
}
