//! The 32 bytes at the front of every frame.
//!
//! Invariant: a decoded header keeps every rule that a header alone can show: its kind exists, reserved bits and the
//! fields that its kind does not use are zero, and its lengths fit each other and the limit.

use super::limits::{
    CUT_BYTES, GOAWAY_TEXT_BYTES, HEADER_BYTES, HELLO_BYTES, MAP_FIXED_BYTES, PING_BYTES, REPORT_BYTES,
};
use super::{Limits, WELCOME_FIXED_BYTES, WireError};
use crate::name;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// The client's first frame.
    Hello = 1,
    /// The server's first frame.
    Welcome = 2,
    /// Which shards own which functions.
    Map = 3,
    /// A request and the first of its payload.
    Request = 4,
    /// More payload, either way.
    Data = 5,
    /// An answer and the first of its payload.
    Response = 6,
    /// The receiver of a payload takes more of it.
    Credit = 7,
    /// The client waits no longer.
    Cancel = 8,
    /// The client asks whether the server is there.
    Ping = 9,
    /// It is.
    Pong = 10,
    /// The server ends the connection, or will.
    Goaway = 11,
    /// An answer in parts ends before it is whole.
    Cut = 12,
}

impl Kind {
    const fn from_byte(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::Hello,
            2 => Kind::Welcome,
            3 => Kind::Map,
            4 => Kind::Request,
            5 => Kind::Data,
            6 => Kind::Response,
            7 => Kind::Credit,
            8 => Kind::Cancel,
            9 => Kind::Ping,
            10 => Kind::Pong,
            11 => Kind::Goaway,
            12 => Kind::Cut,
            _ => return None,
        })
    }
}

/// The header of a frame. Fields that its kind does not use are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the frame after the header.
    pub length: u32,
    /// What the frame is.
    pub kind: Kind,
    /// [`Header::END`], [`Header::PARTS`], or zero.
    pub flags: u8,
    /// RESPONSE: 200 to 599. GOAWAY, CUT: 400 to 599.
    pub status: u16,
    /// The request that the frame is about, never 0 there. PING and PONG: anything.
    pub id: u64,
    /// REQUEST, RESPONSE: bytes of the whole payload; 0 with [`Header::PARTS`]. CREDIT: bytes granted, never 0.
    pub bytes: u64,
    /// REQUEST: milliseconds that the client waits, from when the server has the head; 0: as long as it takes.
    pub deadline_ms: u32,
    /// REQUEST: length of the function's name, 1 to 63.
    pub name_bytes: u8,
    /// REQUEST, RESPONSE: length of the content type.
    pub content_type_bytes: u8,
    /// REQUEST: length of the traceparent.
    pub trace_parent_bytes: u8,
}

impl Header {
    /// Flag of REQUEST, DATA and RESPONSE: the payload ends with this frame.
    pub const END: u8 = 1;

    /// Flag of RESPONSE: the answer comes in parts, whose number and size nobody knows yet.
    pub const PARTS: u8 = 2;

    /// A header of `kind` with zeros in it.
    pub const fn new(kind: Kind) -> Header {
        Header {
            length: 0,
            kind,
            flags: 0,
            status: 0,
            id: 0,
            bytes: 0,
            deadline_ms: 0,
            name_bytes: 0,
            content_type_bytes: 0,
            trace_parent_bytes: 0,
        }
    }

    /// The bytes of the header. Checks nothing.
    #[inline]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0..4].copy_from_slice(&self.length.to_le_bytes());
        out[4] = self.kind as u8;
        out[5] = self.flags;
        out[6..8].copy_from_slice(&self.status.to_le_bytes());
        out[8..16].copy_from_slice(&self.id.to_le_bytes());
        out[16..24].copy_from_slice(&self.bytes.to_le_bytes());
        out[24..28].copy_from_slice(&self.deadline_ms.to_le_bytes());
        out[28] = self.name_bytes;
        out[29] = self.content_type_bytes;
        out[30] = self.trace_parent_bytes;
        out
    }

    /// The header in `bytes`, if it keeps the rules.
    #[inline]
    pub fn decode(bytes: &[u8; HEADER_BYTES], limits: &Limits) -> Result<Header, WireError> {
        let Some(kind) = Kind::from_byte(bytes[4]) else {
            return Err(WireError::broken("the kind of a frame is none of 1 to 11"));
        };
        let header = Header {
            length: u32_at(bytes, 0),
            kind,
            flags: bytes[5],
            status: u16_at(bytes, 6),
            id: u64_at(bytes, 8),
            bytes: u64_at(bytes, 16),
            deadline_ms: u32_at(bytes, 24),
            name_bytes: bytes[28],
            content_type_bytes: bytes[29],
            trace_parent_bytes: bytes[30],
        };
        let unused = &UNUSED[kind as usize];
        let stray = (0..4).fold(0, |stray, word| stray | (u64_at(bytes, 8 * word) & unused[word]));
        if stray != 0 {
            return Err(RESERVED);
        }
        if header.length > limits.frame_bytes {
            return Err(WireError::broken("a frame is longer than the longest that WELCOME allows"));
        }
        header.check()?;
        Ok(header)
    }

    /// True if the payload of the request or answer ends with this frame.
    #[inline]
    pub const fn end(&self) -> bool {
        self.flags & Header::END != 0
    }

    /// True if the answer that begins with this frame comes in parts.
    #[inline]
    pub const fn parts(&self) -> bool {
        self.flags & Header::PARTS != 0
    }

    /// Bytes of the frame before its payload, header included. Only for a header that was decoded.
    #[inline]
    pub(super) const fn head_bytes(&self) -> usize {
        HEADER_BYTES
            + match self.kind {
                Kind::Request => self.value_bytes(),
                Kind::Response => REPORT_BYTES + self.content_type_bytes as usize,
                Kind::Data => 0,
                _ => self.length as usize,
            }
    }

    /// Bytes of payload in the frame. Only for a header that was decoded.
    #[inline]
    pub(super) const fn payload_bytes(&self) -> u32 {
        self.length - (self.head_bytes() - HEADER_BYTES) as u32
    }

    const fn value_bytes(&self) -> usize {
        self.name_bytes as usize + self.content_type_bytes as usize + self.trace_parent_bytes as usize
    }

    #[inline]
    fn check(&self) -> Result<(), WireError> {
        match self.kind {
            Kind::Hello => fixed(self.length == HELLO_BYTES),
            Kind::Welcome => fixed(self.length >= WELCOME_FIXED_BYTES && self.length.is_multiple_of(2)),
            Kind::Map => fixed(self.length >= MAP_FIXED_BYTES),
            Kind::Request => {
                if self.name_bytes == 0 || usize::from(self.name_bytes) > name::MAX_BYTES {
                    return Err(WireError::broken("the name of a REQUEST does not have 1 to 63 bytes"));
                }
                self.check_whole(self.value_bytes())
            }
            Kind::Response => {
                if !matches!(self.status, 200..=599) {
                    return Err(WireError::broken("the status of a RESPONSE is not between 200 and 599"));
                }
                if self.parts() {
                    return self.check_parts();
                }
                self.check_whole(REPORT_BYTES + usize::from(self.content_type_bytes))
            }
            Kind::Data if self.length == 0 && !self.end() => {
                Err(WireError::broken("a DATA carries nothing and ends nothing"))
            }
            Kind::Data => self.check_id(),
            Kind::Credit if self.bytes == 0 => Err(WireError::broken("a CREDIT grants nothing")),
            Kind::Credit | Kind::Cancel => {
                fixed(self.length == 0)?;
                self.check_id()
            }
            Kind::Ping | Kind::Pong => fixed(self.length <= PING_BYTES),
            Kind::Goaway => {
                if !matches!(self.status, 400..=599) {
                    return Err(WireError::broken("the status of a GOAWAY is not between 400 and 599"));
                }
                fixed(self.length <= GOAWAY_TEXT_BYTES)
            }
            Kind::Cut => {
                if !matches!(self.status, 400..=599) {
                    return Err(WireError::broken("the status of a CUT is not between 400 and 599"));
                }
                fixed(self.length <= CUT_BYTES)?;
                self.check_id()
            }
        }
    }

    fn check_id(&self) -> Result<(), WireError> {
        if self.id == 0 { Err(WireError::broken("the id of a request is 0")) } else { Ok(()) }
    }

    /// For the RESPONSE of an answer in parts: nothing is known of its size or of its end.
    fn check_parts(&self) -> Result<(), WireError> {
        self.check_id()?;
        if self.end() || self.bytes != 0 || self.status > 299 {
            return Err(WireError::broken("an answer in parts begins with its size, its end or an error"));
        }
        if self.length < (REPORT_BYTES + usize::from(self.content_type_bytes)) as u32 {
            return Err(SHORT);
        }
        Ok(())
    }

    /// For a frame that announces its payload: the lengths fit, and END says whether the payload is whole.
    fn check_whole(&self, before_bytes: usize) -> Result<(), WireError> {
        self.check_id()?;
        let Some(payload_bytes) = self.length.checked_sub(before_bytes as u32) else {
            return Err(SHORT);
        };
        if u64::from(payload_bytes) > self.bytes {
            return Err(WireError::broken("a frame has more payload than it announces"));
        }
        if (u64::from(payload_bytes) == self.bytes) != self.end() {
            return Err(WireError::broken("END is not set exactly when the payload is whole"));
        }
        Ok(())
    }
}

/// The bits that each kind leaves zero, as the four words of a header.
const UNUSED: [[u64; 4]; 13] = {
    const STATUS: u64 = 0xffff << 48;
    const END: u64 = (Header::END as u64) << 40;
    const PARTS: u64 = (Header::PARTS as u64) << 40;
    /// All of the first word but the length, the kind, and what is given.
    const fn first(used: u64) -> u64 {
        !(0xff_ffff_ffff | used)
    }
    const NO: u64 = u64::MAX;
    const YES: u64 = 0;
    const VALUES: u64 = 0xff << 56;
    const CONTENT_TYPE: u64 = !(0xff << 40);
    [
        [NO; 4],
        [first(0), NO, NO, NO],
        [first(0), NO, NO, NO],
        [first(0), NO, NO, NO],
        [first(END), YES, YES, VALUES],
        [first(END), YES, NO, NO],
        [first(END | PARTS | STATUS), YES, YES, CONTENT_TYPE],
        [first(0), YES, YES, NO],
        [first(0), YES, NO, NO],
        [first(0), YES, NO, NO],
        [first(0), YES, NO, NO],
        [first(STATUS), NO, NO, NO],
        [first(STATUS), YES, NO, NO],
    ]
};

const SHORT: WireError = WireError::broken("a frame is shorter than what its header says is in it");

const RESERVED: WireError = WireError::broken("a field or bit that the kind of frame does not use is not zero");

fn fixed(fits: bool) -> Result<(), WireError> {
    if fits { Ok(()) } else { Err(WireError::broken("the length of a frame is none that its kind can have")) }
}

#[inline]
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

#[inline]
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

#[inline]
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid() -> Vec<Header> {
        let new = Header::new;
        vec![
            Header { length: 24, ..new(Kind::Hello) },
            Header { length: 44, ..new(Kind::Welcome) },
            Header { length: 16, ..new(Kind::Map) },
            Header {
                length: 10,
                flags: 1,
                id: 7,
                bytes: 1,
                deadline_ms: 5,
                name_bytes: 4,
                content_type_bytes: 3,
                trace_parent_bytes: 2,
                ..new(Kind::Request)
            },
            Header { length: 4, id: u64::MAX, bytes: u64::MAX, name_bytes: 4, ..new(Kind::Request) },
            Header { length: 1, id: 7, ..new(Kind::Data) },
            Header { length: 0, id: 7, flags: 1, ..new(Kind::Data) },
            Header { length: 35, flags: 1, status: 200, id: 7, bytes: 1, content_type_bytes: 2, ..new(Kind::Response) },
            Header { id: 7, bytes: 1, ..new(Kind::Credit) },
            Header { id: 7, ..new(Kind::Cancel) },
            Header { length: 64, id: 0, ..new(Kind::Ping) },
            Header { length: 0, id: 9, ..new(Kind::Pong) },
            Header { length: 512, status: 503, ..new(Kind::Goaway) },
            Header { length: 35, flags: 2, status: 200, id: 7, content_type_bytes: 2, ..new(Kind::Response) },
            Header { length: CUT_BYTES, status: 500, id: 7, ..new(Kind::Cut) },
        ]
    }

    #[test]
    fn valid_headers_are_read_back() {
        for header in valid() {
            assert_eq!(Header::decode(&header.encode(), &Limits::DEFAULT), Ok(header));
        }
    }

    /// Fields of each kind, from the specification: no other may be set.
    #[test]
    fn every_bit_of_an_unused_field_is_refused() {
        for header in valid() {
            let used: &[core::ops::Range<usize>] = match header.kind {
                Kind::Hello | Kind::Welcome | Kind::Map => &[0..4, 4..5],
                Kind::Request => &[0..4, 4..5, 8..16, 16..24, 24..28, 28..31],
                Kind::Data => &[0..4, 4..5, 8..16],
                Kind::Response => &[0..4, 4..5, 6..8, 8..16, 16..24, 29..30],
                Kind::Credit => &[0..4, 4..5, 8..16, 16..24],
                Kind::Cancel | Kind::Ping | Kind::Pong => &[0..4, 4..5, 8..16],
                Kind::Goaway => &[0..4, 4..5, 6..8],
                Kind::Cut => &[0..4, 4..5, 6..8, 8..16],
            };
            for at in (0..HEADER_BYTES).filter(|at| !used.iter().any(|range| range.contains(at))) {
                for bit in 0..8 {
                    let ends = matches!(header.kind, Kind::Request | Kind::Data | Kind::Response);
                    if at == 5 && bit == 0 && ends || (at, bit, header.kind) == (5, 1, Kind::Response) {
                        continue;
                    }
                    let mut bytes = header.encode();
                    bytes[at] ^= 1 << bit;
                    assert_eq!(Header::decode(&bytes, &Limits::DEFAULT), Err(RESERVED), "{header:?} {at} {bit}");
                }
            }
        }
    }

    #[test]
    fn lengths_ids_and_ends_that_cannot_be_are_refused() {
        let request = Header { length: 6, flags: 1, id: 1, bytes: 2, name_bytes: 4, ..Header::new(Kind::Request) };
        let response = Header { length: 34, flags: 1, status: 200, id: 1, bytes: 2, ..Header::new(Kind::Response) };
        let wrong = [
            Header { length: 23, ..Header::new(Kind::Hello) },
            Header { length: 25, ..Header::new(Kind::Hello) },
            Header { length: 41, ..Header::new(Kind::Welcome) },
            Header { length: 38, ..Header::new(Kind::Welcome) },
            Header { length: 15, ..Header::new(Kind::Map) },
            Header { length: (1 << 20) + 1, ..Header::new(Kind::Map) },
            Header { id: 0, ..request },
            Header { name_bytes: 0, ..request },
            Header { name_bytes: 64, length: 66, ..request },
            Header { length: 3, bytes: 0, ..request },
            Header { bytes: 1, ..request },
            Header { bytes: 3, ..request },
            Header { flags: 0, ..request },
            Header { id: 0, ..response },
            Header { status: 199, ..response },
            Header { status: 600, ..response },
            Header { length: 31, bytes: 0, ..response },
            Header { flags: 0, ..response },
            Header { bytes: 3, ..response },
            Header { length: 1, ..Header::new(Kind::Data) },
            Header { length: 0, id: 1, ..Header::new(Kind::Data) },
            Header { id: 1, ..Header::new(Kind::Credit) },
            Header { bytes: 1, ..Header::new(Kind::Credit) },
            Header { length: 1, id: 1, bytes: 1, ..Header::new(Kind::Credit) },
            Header::new(Kind::Cancel),
            Header { length: 1, id: 1, ..Header::new(Kind::Cancel) },
            Header { length: 65, ..Header::new(Kind::Ping) },
            Header { length: 513, status: 503, ..Header::new(Kind::Goaway) },
            Header { status: 399, ..Header::new(Kind::Goaway) },
            Header { flags: 3, bytes: 0, ..response },
            Header { flags: 2, ..response },
            Header { flags: 2, bytes: 0, status: 300, ..response },
            Header { flags: 2, bytes: 0, id: 0, ..response },
            Header { flags: 2, bytes: 0, length: 31, ..response },
            Header { status: 500, ..Header::new(Kind::Cut) },
            Header { id: 1, status: 399, ..Header::new(Kind::Cut) },
            Header { id: 1, status: 600, ..Header::new(Kind::Cut) },
            Header { id: 1, status: 500, length: CUT_BYTES + 1, ..Header::new(Kind::Cut) },
        ];
        for header in wrong {
            assert!(Header::decode(&header.encode(), &Limits::DEFAULT).is_err(), "{header:?}");
        }
        for kind in [0, 13, 255] {
            let mut bytes = request.encode();
            bytes[4] = kind;
            assert!(Header::decode(&bytes, &Limits::DEFAULT).is_err());
        }
    }
}
