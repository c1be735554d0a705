//! HELLO and WELCOME: which version is spoken, and what each side will take.

use super::header::{u16_at, u32_at, u64_at};
use super::limits::{HEADER_BYTES, WELCOME_FIXED_BYTES};
use super::{Header, Limits, MAGIC, VERSION, WireError};

/// What a client says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Lowest version that the client speaks, at least 1.
    pub lowest_version: u16,
    /// Highest version that the client speaks.
    pub highest_version: u16,
    /// Whether the client wants the map, and its changes.
    pub wants_map: bool,
    /// Whether the client takes answers in parts.
    pub takes_parts: bool,
    /// Bytes of an answer's payload that the server may send before the client's CREDIT.
    pub response_credit_bytes: u64,
}

impl Hello {
    const WANTS_MAP: u32 = 1;
    const TAKES_PARTS: u32 = 2;

    /// The version that both sides speak; `None` if there is none, which GOAWAY 505 answers.
    pub const fn version(&self) -> Option<u16> {
        if self.lowest_version <= VERSION && VERSION <= self.highest_version { Some(VERSION) } else { None }
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Hello, WireError> {
        let body = &bytes[HEADER_BYTES..];
        if body[..8] != MAGIC {
            return Err(WireError::broken("HELLO does not start with VILYAWIR"));
        }
        let hello = Hello {
            lowest_version: u16_at(body, 8),
            highest_version: u16_at(body, 10),
            // The other bits ask for what this side does not know, and does without.
            wants_map: u32_at(body, 12) & Hello::WANTS_MAP != 0,
            takes_parts: u32_at(body, 12) & Hello::TAKES_PARTS != 0,
            response_credit_bytes: u64_at(body, 16),
        };
        if hello.lowest_version == 0 || hello.lowest_version > hello.highest_version {
            return Err(WireError::broken("the versions of HELLO are no range from 1 up"));
        }
        Ok(hello)
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.lowest_version.to_le_bytes());
        out.extend_from_slice(&self.highest_version.to_le_bytes());
        let bit = |set: bool, bit: u32| if set { bit } else { 0 };
        let wants = bit(self.wants_map, Hello::WANTS_MAP) | bit(self.takes_parts, Hello::TAKES_PARTS);
        out.extend_from_slice(&wants.to_le_bytes());
        out.extend_from_slice(&self.response_credit_bytes.to_le_bytes());
    }
}

/// What a server says first. The number of shards is the number of ports that come with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The version that is spoken from here on.
    pub version: u16,
    /// The shard that serves this connection.
    pub shard: u16,
    /// Most bytes of a frame after its header, either way: 4 KiB to 16 MiB.
    pub frame_bytes: u32,
    /// Most requests in flight on the connection, at least 1.
    pub in_flight: u32,
    /// Most bytes of a payload.
    pub payload_bytes: u64,
    /// Bytes of a request's payload that the client may send before the server's CREDIT.
    pub request_credit_bytes: u64,
}

impl Welcome {
    pub(super) fn parse<'a>(header: &Header, bytes: &'a [u8]) -> Result<(Welcome, Ports<'a>), WireError> {
        let (body, ports) = bytes[HEADER_BYTES..].split_at(WELCOME_FIXED_BYTES as usize);
        let shards = u16_at(body, 10);
        let welcome = Welcome {
            version: u16_at(body, 8),
            shard: u16_at(body, 12),
            frame_bytes: u32_at(body, 16),
            in_flight: u32_at(body, 20),
            payload_bytes: u64_at(body, 24),
            request_credit_bytes: u64_at(body, 32),
        };
        if body[..8] != MAGIC {
            return Err(WireError::broken("WELCOME does not start with VILYAWIR"));
        }
        if welcome.version != VERSION {
            return Err(WireError::broken("WELCOME chooses a version that was not offered"));
        }
        if u16_at(body, 14) != 0 {
            return Err(WireError::broken("a reserved field of WELCOME is not zero"));
        }
        if header.length - WELCOME_FIXED_BYTES != 2 * u32::from(shards) {
            return Err(WireError::broken("WELCOME does not have a port for each shard"));
        }
        if welcome.shard >= shards {
            return Err(WireError::broken("the shard of WELCOME is none of its shards"));
        }
        if welcome.in_flight == 0 {
            return Err(WireError::broken("WELCOME allows no request"));
        }
        Limits { frame_bytes: welcome.frame_bytes }.check()?;
        Ok((welcome, Ports { bytes: ports }))
    }

    pub(super) fn write(&self, ports: &[u16], out: &mut Vec<u8>) {
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&(ports.len() as u16).to_le_bytes());
        out.extend_from_slice(&self.shard.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.frame_bytes.to_le_bytes());
        out.extend_from_slice(&self.in_flight.to_le_bytes());
        out.extend_from_slice(&self.payload_bytes.to_le_bytes());
        out.extend_from_slice(&self.request_credit_bytes.to_le_bytes());
        for port in ports {
            out.extend_from_slice(&port.to_le_bytes());
        }
    }
}

/// The port of each shard, in the order of the shards; 0 where it has none of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports<'a> {
    bytes: &'a [u8],
}

impl Iterator for Ports<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        let (port, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
        Some(u16::from_le_bytes(*port))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.bytes.len() / 2, Some(self.bytes.len() / 2))
    }
}

impl ExactSizeIterator for Ports<'_> {}
