//! HTTP/1.1, sans-IO: requests decoded, response heads written, and a small decoder of responses for clients.
//!
//! Invariant: the same bytes give the same items at any split points, and any request whose framing two parsers could read
//! differently is refused with its connection, never repaired. What is kept between calls is a partial head, within
//! [`Limits`].
//!
//! Does not know: sockets, routes (see [`crate::route`]), timeouts, or how many requests a connection may pipeline.
//!
//! The grammar is RFC 9112 (message syntax), RFC 9110 (semantics) and RFC 3986 (targets), read strictly.

mod chunked;
mod decoder;
mod fields;
mod head;
mod limits;
pub mod percent;
pub mod response;
mod scan;
mod status;
mod target;
mod writer;

#[cfg(feature = "adversarial")]
pub mod adversarial;

pub use chunked::{LAST_CHUNK, write_chunk, write_chunk_size};
pub use decoder::{Decoder, Item, Step};
pub use fields::valid_header_value;
pub use head::{Head, Method, Version};
pub use limits::{Limits, LimitsError};
pub use status::reason_phrase;
pub use writer::{CONTINUE, ResponseHead};

use crate::error::ErrorKind;

/// Why a request is refused. The answer goes out with `connection: close`, and the connection is closed after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Status of the answer; always that of `kind`.
    pub status: u16,
    /// Row of the error table.
    pub kind: ErrorKind,
    /// What is wrong with the request.
    pub message: &'static str,
}

impl Reject {
    /// A reject with the status of `kind`.
    pub const fn new(kind: ErrorKind, message: &'static str) -> Reject {
        Reject { status: kind.status(), kind, message }
    }

    const fn malformed(message: &'static str) -> Reject {
        Reject::new(ErrorKind::MalformedRequest, message)
    }
}

impl core::fmt::Display for Reject {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} {}: {}", self.status, self.kind.error_type(), self.message)
    }
}

impl core::error::Error for Reject {}
