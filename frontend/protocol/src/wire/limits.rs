//! Every bound of the binary protocol, in one place.
//!
//! Invariant: a server's decoder holds at most [`HEAD_BYTES`], a client's in addition one frame.

use super::WireError;
use crate::name;

/// Bytes of a header.
pub const HEADER_BYTES: usize = 32;

/// Bytes of the body of HELLO.
pub const HELLO_BYTES: u32 = 24;

/// Bytes of the body of WELCOME before the ports.
pub const WELCOME_FIXED_BYTES: u32 = 40;

/// Bytes of the body of MAP before the entries.
pub(super) const MAP_FIXED_BYTES: u32 = 16;

/// Bytes of the report of a RESPONSE.
pub const REPORT_BYTES: usize = 32;

/// Most bytes of a PING and its PONG.
pub const PING_BYTES: u32 = 64;

/// Most bytes of the text of a GOAWAY.
pub const GOAWAY_TEXT_BYTES: u32 = 512;

/// Most bytes of a CUT: an error as JSON.
pub const CUT_BYTES: u32 = 16 * 1024;

/// Longest content type and longest traceparent: what a byte can say.
pub(super) const VALUE_BYTES: usize = u8::MAX as usize;

/// The longest head, which is everything of a frame before its payload: header, name, content type and traceparent.
pub const HEAD_BYTES: usize = HEADER_BYTES + name::MAX_BYTES + 2 * VALUE_BYTES;

/// Lowest value of [`Limits::frame_bytes`]: any head and an entry of the map fit.
pub const FRAME_BYTES_MIN: u32 = 4 * 1024;

/// Highest value of [`Limits::frame_bytes`].
pub const FRAME_BYTES_CAP: u32 = 16 * 1024 * 1024;

const _: () = assert!(HEADER_BYTES + GOAWAY_TEXT_BYTES as usize <= HEAD_BYTES);
const _: () = assert!(HEADER_BYTES + REPORT_BYTES + VALUE_BYTES <= HEAD_BYTES);
const _: () = assert!(HEAD_BYTES <= FRAME_BYTES_MIN as usize);
const _: () = assert!(MAP_FIXED_BYTES as usize + 2 + name::MAX_BYTES + 2 * 255 <= FRAME_BYTES_MIN as usize);
const _: () = assert!(FRAME_BYTES_MIN <= Limits::DEFAULT.frame_bytes && Limits::DEFAULT.frame_bytes <= FRAME_BYTES_CAP);

/// Bounds of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of a frame after its header. A client takes it from WELCOME.
    pub frame_bytes: u32,
}

impl Limits {
    /// 1 MiB a frame.
    pub const DEFAULT: Limits = Limits { frame_bytes: 1024 * 1024 };

    /// Checks the limit against [`FRAME_BYTES_MIN`] and [`FRAME_BYTES_CAP`].
    pub fn check(&self) -> Result<(), WireError> {
        match self.frame_bytes {
            FRAME_BYTES_MIN..=FRAME_BYTES_CAP => Ok(()),
            _ => Err(WireError::broken("the longest frame is not between 4 KiB and 16 MiB")),
        }
    }

    /// The limit moved to the nearer bound where it is beyond one.
    pub(super) fn clamped(self) -> Limits {
        Limits { frame_bytes: self.frame_bytes.clamp(FRAME_BYTES_MIN, FRAME_BYTES_CAP) }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bounds_hold() {
        for (frame_bytes, fits) in [(0, false), (4095, false), (4096, true), (16 << 20, true), (u32::MAX, false)] {
            let limits = Limits { frame_bytes };
            assert_eq!(limits.check().is_ok(), fits, "{frame_bytes}");
            assert_eq!(limits.clamped() == limits, fits);
            assert_eq!(limits.clamped().check(), Ok(()));
        }
    }
}
