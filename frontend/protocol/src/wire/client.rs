//! The decoder of a client: the bytes of one connection in, what its server says out.
//!
//! Invariant: every call consumes bytes, or returns `NeedMore` having consumed all of its input. The first item of a
//! connection is WELCOME or GOAWAY, and WELCOME does not come again. After an error every call returns that error.
//!
//! Does not know: which ids are in flight, what was granted, or the map as a whole.

use super::due::Due;
use super::gather::{Found, Gather};
use super::{HEADER_BYTES, Header, Kind, Limits, MapFrame, Ports, ResponseHead, Welcome, WireError};

/// What one call of [`ClientDecoder::decode`] found.
#[derive(Debug)]
pub struct ClientStep<'a> {
    /// Bytes of the input that are done with; the rest is given again.
    pub consumed: usize,
    /// What they were.
    pub item: ClientItem<'a>,
}

/// A frame, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientItem<'a> {
    /// All input was consumed and the next item needs more.
    NeedMore,
    /// The server's WELCOME.
    Welcome {
        /// What the server takes.
        welcome: Welcome,
        /// The port of each shard.
        ports: Ports<'a>,
    },
    /// Owners of functions.
    Map(MapFrame<'a>),
    /// An answer; the payload of this frame follows.
    Response(ResponseHead<'a>),
    /// More payload of an answer; it follows.
    Data {
        /// The request that is answered.
        id: u64,
        /// Bytes of payload in this frame; 0 only at the end of an answer in parts, or of one that is cut short after a CANCEL.
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
    /// An answer in parts ends here and is not whole.
    Cut {
        /// The request that is answered.
        id: u64,
        /// A status of the error table.
        status: u16,
        /// The error as JSON, or nothing; at most [`CUT_BYTES`](super::CUT_BYTES).
        body: &'a [u8],
    },
    /// The server takes more of a request.
    Credit {
        /// The request.
        id: u64,
        /// Bytes granted, at least one.
        bytes: u64,
    },
    /// The answer to a PING.
    Pong {
        /// As in the PING.
        id: u64,
        /// As in the PING.
        body: &'a [u8],
    },
    /// The server ends the connection (4xx, 5xx), or takes no more requests on it (503).
    Goaway {
        /// A status of the error table.
        status: u16,
        /// Why, for people; at most 512 bytes.
        text: &'a str,
    },
}

/// Decoder of what a server sends on one connection.
#[derive(Debug)]
pub struct ClientDecoder {
    limits: Limits,
    gather: Gather,
    /// From WELCOME; 0 before it.
    shards: u16,
    /// Bytes of the current frame's payload that have not come yet.
    payload_due: Due,
    failed: Option<WireError>,
}

impl Default for ClientDecoder {
    fn default() -> ClientDecoder {
        ClientDecoder::new()
    }
}

impl ClientDecoder {
    /// A decoder at the start of a connection. The limits of frames are those of WELCOME.
    pub fn new() -> ClientDecoder {
        ClientDecoder {
            limits: Limits::DEFAULT,
            gather: Gather::new(),
            shards: 0,
            payload_due: Due::default(),
            failed: None,
        }
    }

    /// True between frames: the connection may end here without a frame being cut short.
    pub fn at_frame_start(&self) -> bool {
        self.payload_due.bytes() == 0 && self.gather.is_empty()
    }

    /// Gives back the memory kept for maps, for a connection that goes idle.
    pub fn release_memory(&mut self) {
        self.gather.release_memory();
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
    /// After an `Err` the connection is closed.
    #[inline]
    pub fn decode<'a>(&'a mut self, input: &'a [u8]) -> Result<ClientStep<'a>, WireError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if input.is_empty() {
            return Ok(ClientStep { consumed: 0, item: ClientItem::NeedMore });
        }
        if let Some((bytes, frame_done)) = self.payload_due.take(input) {
            return Ok(ClientStep { consumed: bytes.len(), item: ClientItem::Payload { bytes, frame_done } });
        }
        let greeted = self.shards != 0;
        let found = match self.gather.find(input, &self.limits, |header| admit(header, greeted)) {
            Ok(found) => found,
            Err(error) => {
                self.failed = Some(error);
                return Err(error);
            }
        };
        let (header, consumed, head) = match found {
            Found::More => return Ok(ClientStep { consumed: input.len(), item: ClientItem::NeedMore }),
            Found::Whole { header, consumed, gathered: false } => (header, consumed, &input[..consumed]),
            Found::Whole { header, consumed, gathered: true } => (header, consumed, self.gather.head(&header)),
        };
        match parse(&header, head, self.shards) {
            Ok(item) => {
                if let ClientItem::Welcome { welcome, ports } = item {
                    self.shards = ports.len() as u16;
                    self.limits = Limits { frame_bytes: welcome.frame_bytes };
                }
                self.payload_due = Due::of(header.payload_bytes());
                Ok(ClientStep { consumed, item })
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
        (Kind::Goaway, _) | (Kind::Welcome, false) => Ok(()),
        (Kind::Welcome, true) => Err(WireError::broken("WELCOME comes twice")),
        (_, false) => Err(WireError::broken("a frame comes before WELCOME")),
        (Kind::Map | Kind::Response | Kind::Data | Kind::Cut | Kind::Credit | Kind::Pong, true) => Ok(()),
        (Kind::Hello | Kind::Request | Kind::Cancel | Kind::Ping, true) => Err(CLIENTS),
    }
}

const CLIENTS: WireError = WireError::broken("a frame is of a kind that only a client sends");

#[inline]
fn parse<'a>(header: &Header, head: &'a [u8], shards: u16) -> Result<ClientItem<'a>, WireError> {
    Ok(match header.kind {
        Kind::Response => ClientItem::Response(ResponseHead::parse(header, head)?),
        Kind::Data => ClientItem::Data { id: header.id, payload_bytes: header.payload_bytes(), end: header.end() },
        Kind::Cut => ClientItem::Cut { id: header.id, status: header.status, body: &head[HEADER_BYTES..] },
        Kind::Credit => ClientItem::Credit { id: header.id, bytes: header.bytes },
        Kind::Pong => ClientItem::Pong { id: header.id, body: &head[HEADER_BYTES..] },
        Kind::Map => ClientItem::Map(MapFrame::parse(head, shards)?),
        Kind::Welcome => {
            let (welcome, ports) = Welcome::parse(header, head)?;
            ClientItem::Welcome { welcome, ports }
        }
        Kind::Goaway => match core::str::from_utf8(&head[HEADER_BYTES..]) {
            Ok(text) => ClientItem::Goaway { status: header.status, text },
            Err(_) => return Err(WireError::broken("the text of a GOAWAY is not UTF-8")),
        },
        Kind::Hello | Kind::Request | Kind::Cancel | Kind::Ping => return Err(CLIENTS),
    })
}
