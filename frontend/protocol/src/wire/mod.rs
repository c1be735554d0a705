//! The binary protocol, sans-IO: frames decoded for a server and for a client, and their heads encoded.
//!
//! `frontend/protocol/WIRE.md` is its specification. A frame is a fixed header of 32 bytes and `length` bytes after it;
//! numbers are little-endian.
//!
//! Invariant: the same bytes give the same items at any split points; a frame that breaks a rule which it alone can show is
//! an error, after which the decoder says nothing else. What is kept between calls is at most one partial head; payload is
//! handed out where it lies and never kept.
//!
//! Does not know: sockets, or which ids are in flight. That payloads have the announced size, that credit is kept and that
//! ids are not used twice is for whoever owns the table of requests.

mod client;
mod due;
mod encode;
mod gather;
mod handshake;
mod head;
mod header;
mod home;
mod limits;
mod map;
mod server;

#[cfg(feature = "adversarial")]
pub mod adversarial;

pub use client::{ClientDecoder, ClientItem, ClientStep};
pub use encode::{
    cancel, credit, cut, data_head, goaway, hello, map, ping, pong, request_head, response_head, welcome,
};
pub use handshake::{Hello, Ports, Welcome};
pub use head::{Report, RequestHead, ResponseHead, Start};
pub use header::{Header, Kind};
pub use home::home_shard;
pub use limits::{
    CUT_BYTES, FRAME_BYTES_CAP, FRAME_BYTES_MIN, GOAWAY_TEXT_BYTES, HEAD_BYTES, HEADER_BYTES, HELLO_BYTES, Limits,
    PING_BYTES, REPORT_BYTES, WELCOME_FIXED_BYTES,
};
pub use map::{Entries, Entry, MapFrame, Owners};
pub use server::{Item, ServerDecoder, Step};

use crate::error::ErrorKind;

/// The version of the protocol that this module speaks, and the only one.
pub const VERSION: u16 = 1;

/// The first bytes of the bodies of HELLO and WELCOME.
pub const MAGIC: [u8; 8] = *b"VILYAWIR";

/// Why a frame is refused. The connection is of no further use: a server sends GOAWAY with the status and closes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireError {
    /// Row of the error table.
    pub kind: ErrorKind,
    /// What is wrong with the frame.
    pub message: &'static str,
}

impl WireError {
    const fn broken(message: &'static str) -> WireError {
        WireError { kind: ErrorKind::ProtocolBroken, message }
    }

    /// Status for GOAWAY; always that of `kind`.
    pub const fn status(&self) -> u16 {
        self.kind.status()
    }
}

impl core::fmt::Display for WireError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} {}: {}", self.status(), self.kind.error_type(), self.message)
    }
}

impl core::error::Error for WireError {}
