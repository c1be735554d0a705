//! The heads of REQUEST and RESPONSE: what goes before the payload.
//!
//! Does not know: whether the function exists, or whether the request may still be answered.

use super::header::{u16_at, u32_at};
use super::limits::{HEADER_BYTES, REPORT_BYTES, VALUE_BYTES};
use super::{Header, Kind, WireError};
use crate::http::valid_header_value;
use crate::name;

/// The head of a request, decoded or to be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHead<'a> {
    /// Chosen by the client, unique among its requests in flight on the connection; never 0.
    pub id: u64,
    /// Bytes of the whole payload.
    pub bytes: u64,
    /// Milliseconds that the client waits, from when the server has the head; 0: as long as it takes.
    pub deadline_ms: u32,
    /// The function, a valid [`name`].
    pub name: &'a str,
    /// Type of the payload, a valid header value of at most 255 bytes; empty: not said.
    pub content_type: &'a [u8],
    /// W3C trace context, a valid header value of at most 255 bytes; empty: none.
    pub trace_parent: &'a [u8],
    /// Bytes of payload in this frame.
    pub payload_bytes: u32,
}

impl<'a> RequestHead<'a> {
    /// A request to `name` without payload, deadline or types.
    pub const fn new(id: u64, name: &'a str) -> RequestHead<'a> {
        RequestHead { id, bytes: 0, deadline_ms: 0, name, content_type: &[], trace_parent: &[], payload_bytes: 0 }
    }

    /// True if the payload of this frame is the whole payload: END is set.
    #[inline]
    pub const fn whole(&self) -> bool {
        self.payload_bytes as u64 == self.bytes
    }

    /// Reads the head in `bytes`, which are those before the payload, header included.
    #[inline]
    pub(super) fn parse(header: &Header, bytes: &'a [u8]) -> Result<RequestHead<'a>, WireError> {
        let (name, rest) = bytes[HEADER_BYTES..].split_at(usize::from(header.name_bytes));
        let (content_type, trace_parent) = rest.split_at(usize::from(header.content_type_bytes));
        let Ok(name) = core::str::from_utf8(name) else {
            return Err(WireError::broken("the function name may hold only a-z, 0-9 and '-'"));
        };
        let head = RequestHead {
            id: header.id,
            bytes: header.bytes,
            deadline_ms: header.deadline_ms,
            name,
            content_type,
            trace_parent,
            payload_bytes: header.payload_bytes(),
        };
        head.check_values()?;
        Ok(head)
    }

    /// The header for this head, if the head keeps the rules.
    pub(super) fn header(&self) -> Result<Header, WireError> {
        self.check_values()?;
        let value_bytes = self.name.len() + self.content_type.len() + self.trace_parent.len();
        let length = length(value_bytes, self.payload_bytes, self.bytes, self.id)?;
        Ok(Header {
            length,
            flags: if self.whole() { Header::END } else { 0 },
            id: self.id,
            bytes: self.bytes,
            deadline_ms: self.deadline_ms,
            name_bytes: self.name.len() as u8,
            content_type_bytes: self.content_type.len() as u8,
            trace_parent_bytes: self.trace_parent.len() as u8,
            ..Header::new(Kind::Request)
        })
    }

    #[inline]
    fn check_values(&self) -> Result<(), WireError> {
        name::check(self.name).map_err(|error| WireError::broken(error.message()))?;
        if !valid_value(self.content_type) {
            return Err(CONTENT_TYPE);
        }
        if !valid_value(self.trace_parent) {
            return Err(WireError::broken("the traceparent is over 255 bytes or cannot stand in a header"));
        }
        Ok(())
    }
}

/// How the sandbox that ran an invocation came to be there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Start {
    /// No sandbox took the request.
    #[default]
    None = 0,
    /// It was started for the invocation.
    Cold = 1,
    /// It was there.
    Warm = 2,
}

/// What the server says of how it ran a request. All zero if it did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The worker's id of the request, as in its logs.
    pub request_id: [u8; 16],
    /// Microseconds in the queue.
    pub queue_us: u32,
    /// Microseconds for which the invocation waited for the start of a sandbox.
    pub start_us: u32,
    /// Microseconds in the sandbox.
    pub run_us: u32,
    /// The shard that ran it.
    pub shard: u16,
    /// Whether the sandbox was there.
    pub start: Start,
}

impl Report {
    /// The bytes of the report in a RESPONSE.
    #[inline]
    pub fn encode(&self) -> [u8; REPORT_BYTES] {
        let mut out = [0; REPORT_BYTES];
        out[0..16].copy_from_slice(&self.request_id);
        out[16..20].copy_from_slice(&self.queue_us.to_le_bytes());
        out[20..24].copy_from_slice(&self.start_us.to_le_bytes());
        out[24..28].copy_from_slice(&self.run_us.to_le_bytes());
        out[28..30].copy_from_slice(&self.shard.to_le_bytes());
        out[30] = self.start as u8;
        out
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Result<Report, WireError> {
        let start = match (bytes[30], bytes[31]) {
            (0, 0) => Start::None,
            (1, 0) => Start::Cold,
            (2, 0) => Start::Warm,
            _ => return Err(WireError::broken("the report of a RESPONSE has an unknown start or a reserved bit")),
        };
        let mut request_id = [0; 16];
        request_id.copy_from_slice(&bytes[..16]);
        Ok(Report {
            request_id,
            queue_us: u32_at(bytes, 16),
            start_us: u32_at(bytes, 20),
            run_us: u32_at(bytes, 24),
            shard: u16_at(bytes, 28),
            start,
        })
    }
}

/// The head of an answer, decoded or to be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseHead<'a> {
    /// The request that is answered.
    pub id: u64,
    /// 200 to 599, as over HTTP; at most 299 of an answer in parts.
    pub status: u16,
    /// Bytes of the whole payload; 0 of an answer in parts.
    pub bytes: u64,
    /// The answer comes in parts: its payload ends where a DATA says so, or a CUT.
    pub in_parts: bool,
    /// How the request was run.
    pub report: Report,
    /// Type of the payload, a valid header value of at most 255 bytes; empty: not said.
    pub content_type: &'a [u8],
    /// Bytes of payload in this frame.
    pub payload_bytes: u32,
}

impl<'a> ResponseHead<'a> {
    /// True if the payload of this frame is the whole payload: END is set.
    #[inline]
    pub const fn whole(&self) -> bool {
        self.payload_bytes as u64 == self.bytes && !self.in_parts
    }

    /// Reads the head in `bytes`, which are those before the payload, header included.
    #[inline]
    pub(super) fn parse(header: &Header, bytes: &'a [u8]) -> Result<ResponseHead<'a>, WireError> {
        let (report, content_type) = bytes[HEADER_BYTES..].split_at(REPORT_BYTES);
        if !valid_value(content_type) {
            return Err(CONTENT_TYPE);
        }
        Ok(ResponseHead {
            id: header.id,
            status: header.status,
            bytes: header.bytes,
            in_parts: header.parts(),
            report: Report::decode(report)?,
            content_type,
            payload_bytes: header.payload_bytes(),
        })
    }

    /// The header for this head, if the head keeps the rules.
    pub(super) fn header(&self) -> Result<Header, WireError> {
        if !valid_value(self.content_type) {
            return Err(CONTENT_TYPE);
        }
        if !matches!(self.status, 200..=599) {
            return Err(WireError::broken("the status of a RESPONSE is not between 200 and 599"));
        }
        if self.in_parts && (self.bytes != 0 || self.status > 299) {
            return Err(WireError::broken("an answer in parts begins with its size or an error"));
        }
        let bytes = if self.in_parts { u64::MAX } else { self.bytes };
        let length = length(REPORT_BYTES + self.content_type.len(), self.payload_bytes, bytes, self.id)?;
        Ok(Header {
            length,
            flags: match (self.in_parts, self.whole()) {
                (true, _) => Header::PARTS,
                (false, true) => Header::END,
                (false, false) => 0,
            },
            status: self.status,
            id: self.id,
            bytes: self.bytes,
            content_type_bytes: self.content_type.len() as u8,
            ..Header::new(Kind::Response)
        })
    }
}

const CONTENT_TYPE: WireError = WireError::broken("the content type is over 255 bytes or cannot stand in a header");

#[inline]
fn valid_value(value: &[u8]) -> bool {
    value.len() <= VALUE_BYTES && valid_header_value(value)
}

/// Length of a frame with `before_bytes` between its header and its payload.
fn length(before_bytes: usize, payload_bytes: u32, bytes: u64, id: u64) -> Result<u32, WireError> {
    if id == 0 {
        return Err(WireError::broken("the id of a request is 0"));
    }
    if u64::from(payload_bytes) > bytes {
        return Err(WireError::broken("a frame has more payload than it announces"));
    }
    (before_bytes as u32)
        .checked_add(payload_bytes)
        .ok_or(WireError::broken("a frame is longer than its length can say"))
}
