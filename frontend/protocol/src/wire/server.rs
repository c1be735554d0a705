//! The decoder of a server: the bytes of one connection in, what its client asks for out.
//!
//! Invariant: every call consumes bytes, or returns `NeedMore` having consumed all of its input. The first item of a
//! connection is its HELLO, and there is no other. After an error every call returns that error.
//!
//! Does not know: which ids are in flight, or what was granted.

use super::due::Due;
use super::gather::{Found, Gather};
use super::{HEADER_BYTES, Header, Hello, Kind, Limits, RequestHead, WireError};

/// What one call of [`ServerDecoder::decode`] found.
#[derive(Debug)]
pub struct Step<'a> {
    /// Bytes of the input that are done with; the rest is given again.
    pub consumed: usize,
    /// What they were.
    pub item: Item<'a>,
}

/// A frame, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// All input was consumed and the next item needs more.
    NeedMore,
    /// The client's HELLO. Its versions may all be other ones: see [`Hello::version`].
    Hello(Hello),
    /// A request; the payload of this frame follows.
    Request(RequestHead<'a>),
    /// More payload of a request; it follows.
    Data {
        /// The request.
        id: u64,
        /// Bytes of payload in this frame, at least one.
        payload_bytes: u32,
        /// The payload ends with this frame.
        end: bool,
    },
    /// The next part of the payload of the frame that came last, never empty; a slice of the input.
    Payload {
        /// The part.
        bytes: &'a [u8],
        /// The frame ends with it.
        frame_done: bool,
    },
    /// The client takes more of an answer.
    Credit {
        /// The request that it answers.
        id: u64,
        /// Bytes granted, at least one.
        bytes: u64,
    },
    /// Nobody waits for the answer to this request.
    Cancel {
        /// The request.
        id: u64,
    },
    /// To be answered by a PONG with the same id and body.
    Ping {
        /// Anything.
        id: u64,
        /// At most 64 bytes.
        body: &'a [u8],
    },
}

/// Decoder of what one client sends.
#[derive(Debug)]
pub struct ServerDecoder {
    limits: Limits,
    gather: Gather,
    greeted: bool,
    /// Bytes of the current frame's payload that have not come yet.
    payload_due: Due,
    failed: Option<WireError>,
}

impl ServerDecoder {
    /// A decoder at the start of a connection. A limit beyond its bounds is moved to the nearer one ([`Limits::check`]
    /// tells).
    pub fn new(limits: Limits) -> ServerDecoder {
        ServerDecoder {
            limits: limits.clamped(),
            gather: Gather::new(),
            greeted: false,
            payload_due: Due::default(),
            failed: None,
        }
    }

    /// True between frames: the connection may end here without a frame being cut short.
    pub fn at_frame_start(&self) -> bool {
        self.payload_due.bytes() == 0 && self.gather.is_empty()
    }

    /// Bytes of the current frame's payload that have not been decoded or received yet. While it is not 0, nothing but
    /// payload comes next, so that many bytes may be taken from the stream into other memory.
    pub fn payload_due(&self) -> u32 {
        self.payload_due.bytes()
    }

    /// Says that `bytes` of payload, at most [`payload_due`](Self::payload_due), were taken from the stream elsewhere.
    /// Returns true if the frame ends there.
    ///
    /// # Panics
    /// If it is more than was due.
    pub fn payload_received(&mut self, bytes: u32) -> bool {
        self.payload_due.received(bytes)
    }

    /// Decodes the next item of `input`, which starts where the bytes consumed so far ended.
    ///
    /// After an `Err` the connection is told by GOAWAY and closed.
    #[inline]
    pub fn decode<'a>(&'a mut self, input: &'a [u8]) -> Result<Step<'a>, WireError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if input.is_empty() {
            return Ok(Step { consumed: 0, item: Item::NeedMore });
        }
        if let Some((bytes, frame_done)) = self.payload_due.take(input) {
            return Ok(Step { consumed: bytes.len(), item: Item::Payload { bytes, frame_done } });
        }
        let greeted = self.greeted;
        let found = match self.gather.find(input, &self.limits, |header| admit(header, greeted)) {
            Ok(found) => found,
            Err(error) => {
                self.failed = Some(error);
                return Err(error);
            }
        };
        let (header, consumed, head) = match found {
            Found::More => return Ok(Step { consumed: input.len(), item: Item::NeedMore }),
            Found::Whole { header, consumed, gathered: false } => (header, consumed, &input[..consumed]),
            Found::Whole { header, consumed, gathered: true } => (header, consumed, self.gather.head(&header)),
        };
        match parse(&header, head) {
            Ok(item) => {
                self.greeted = true;
                self.payload_due = Due::of(header.payload_bytes());
                Ok(Step { consumed, item })
            }
            Err(error) => {
                self.failed = Some(error);
                Err(error)
            }
        }
    }
}

fn admit(header: &Header, greeted: bool) -> Result<(), WireError> {
    match (header.kind, greeted) {
        (Kind::Hello, false) => Ok(()),
        (Kind::Hello, true) => Err(WireError::broken("HELLO comes twice")),
        (_, false) => Err(WireError::broken("a frame comes before HELLO")),
        (Kind::Data, true) if header.length == 0 => Err(WireError::broken("a DATA of a request carries nothing")),
        (Kind::Request | Kind::Data | Kind::Credit | Kind::Cancel | Kind::Ping, true) => Ok(()),
        (Kind::Welcome | Kind::Map | Kind::Response | Kind::Pong | Kind::Goaway | Kind::Cut, true) => Err(SERVERS),
    }
}

const SERVERS: WireError = WireError::broken("a frame is of a kind that only a server sends");

#[inline]
fn parse<'a>(header: &Header, head: &'a [u8]) -> Result<Item<'a>, WireError> {
    Ok(match header.kind {
        Kind::Request => Item::Request(RequestHead::parse(header, head)?),
        Kind::Data => Item::Data { id: header.id, payload_bytes: header.payload_bytes(), end: header.end() },
        Kind::Credit => Item::Credit { id: header.id, bytes: header.bytes },
        Kind::Cancel => Item::Cancel { id: header.id },
        Kind::Ping => Item::Ping { id: header.id, body: &head[HEADER_BYTES..] },
        Kind::Hello => Item::Hello(Hello::parse(head)?),
        Kind::Welcome | Kind::Map | Kind::Response | Kind::Pong | Kind::Goaway | Kind::Cut => {
            return Err(SERVERS);
        }
    })
}
