//! MAP: which shards own which functions.
//!
//! Invariant: the entries of a [`MapFrame`] have been read once from front to back; iterating over them cannot fail.
//!
//! Does not know: the map as a whole. A client lays the frames over each other.

use super::header::{u32_at, u64_at};
use super::limits::{FRAME_BYTES_CAP, FRAME_BYTES_MIN, HEADER_BYTES, MAP_FIXED_BYTES};
use super::{Header, Kind, WireError};
use crate::name;

const FIRST: u32 = 1;
const LAST: u32 = 2;

/// Entries of the map, from one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapFrame<'a> {
    /// Grows with every change.
    pub generation: u64,
    /// The first frame of a whole map: what the client knew is forgotten.
    pub first: bool,
    /// The last frame of a whole map.
    pub last: bool,
    /// What each entry says of its function holds from here on.
    pub entries: Entries<'a>,
}

/// A function and its owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The function, a valid [`name`].
    pub name: &'a str,
    /// The shards that own it; none: the function is gone.
    pub owners: Owners<'a>,
}

/// The entries of a frame, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entries<'a> {
    bytes: &'a [u8],
}

/// The owners of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owners<'a> {
    bytes: &'a [u8],
}

impl<'a> MapFrame<'a> {
    /// Reads the frame in `bytes`, header included. Owners must be below `shards`.
    pub(super) fn parse(bytes: &'a [u8], shards: u16) -> Result<MapFrame<'a>, WireError> {
        let (fixed, entries) = bytes[HEADER_BYTES..].split_at(MAP_FIXED_BYTES as usize);
        let (count, flags) = (u32_at(fixed, 8), u32_at(fixed, 12));
        if flags & !(FIRST | LAST) != 0 {
            return Err(WireError::broken("a MAP has a flag that is not known"));
        }
        let mut rest = entries;
        for _ in 0..count {
            let (entry, after) = take(rest)?;
            name::check(entry.name).map_err(|error| WireError::broken(error.message()))?;
            let mut owners = entry.owners;
            if owners.any(|owner| owner >= shards) {
                return Err(WireError::broken("an owner in a MAP is no shard"));
            }
            rest = after;
        }
        if !rest.is_empty() {
            return Err(WireError::broken("a MAP has bytes after its entries"));
        }
        Ok(MapFrame {
            generation: u64_at(fixed, 0),
            first: flags & FIRST != 0,
            last: flags & LAST != 0,
            entries: Entries { bytes: entries },
        })
    }
}

/// The first entry of `bytes` and what follows it.
fn take(bytes: &[u8]) -> Result<(Entry<'_>, &[u8]), WireError> {
    const SHORT: WireError = WireError::broken("a MAP ends within an entry");
    let Some((&[name_bytes, owner_count], rest)) = bytes.split_first_chunk() else { return Err(SHORT) };
    let Some((name, rest)) = rest.split_at_checked(usize::from(name_bytes)) else { return Err(SHORT) };
    let Some((owners, rest)) = rest.split_at_checked(2 * usize::from(owner_count)) else { return Err(SHORT) };
    match core::str::from_utf8(name) {
        Ok(name) => Ok((Entry { name, owners: Owners { bytes: owners } }, rest)),
        Err(_) => Err(WireError::broken("the function name may hold only a-z, 0-9 and '-'")),
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        // Every entry has been read before, so only the end stops it.
        let (entry, rest) = take(self.bytes).ok()?;
        self.bytes = rest;
        Some(entry)
    }
}

impl Iterator for Owners<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        let (owner, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
        Some(u16::from_le_bytes(*owner))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.bytes.len() / 2, Some(self.bytes.len() / 2))
    }
}

impl ExactSizeIterator for Owners<'_> {}

/// Writes MAP frames of at most `frame_bytes`, at least one, over `entries`. Names must be valid; of more than 255 owners
/// the first 255 are told, since any of them will do.
pub(super) fn write<'a>(
    out: &mut Vec<u8>,
    generation: u64,
    whole: bool,
    frame_bytes: u32,
    entries: impl IntoIterator<Item = (&'a str, &'a [u16])>,
) {
    let most = frame_bytes.clamp(FRAME_BYTES_MIN, FRAME_BYTES_CAP) as usize;
    let mut frame = Frame::begin(out, generation, if whole { FIRST } else { 0 });
    for (name, owners) in entries {
        debug_assert_eq!(name::check(name), Ok(()));
        let owners = &owners[..owners.len().min(usize::from(u8::MAX))];
        if frame.body_bytes(out) + 2 + name.len() + 2 * owners.len() > most {
            frame.finish(out, 0);
            frame = Frame::begin(out, generation, 0);
        }
        out.extend_from_slice(&[name.len() as u8, owners.len() as u8]);
        out.extend_from_slice(name.as_bytes());
        for owner in owners {
            out.extend_from_slice(&owner.to_le_bytes());
        }
        frame.count += 1;
    }
    frame.finish(out, if whole { LAST } else { 0 });
}

/// A frame that is being written to the end of a buffer.
struct Frame {
    start: usize,
    generation: u64,
    flags: u32,
    count: u32,
}

impl Frame {
    fn begin(out: &mut Vec<u8>, generation: u64, flags: u32) -> Frame {
        let start = out.len();
        out.resize(start + HEADER_BYTES + MAP_FIXED_BYTES as usize, 0);
        Frame { start, generation, flags, count: 0 }
    }

    fn body_bytes(&self, out: &[u8]) -> usize {
        out.len() - self.start - HEADER_BYTES
    }

    fn finish(&self, out: &mut [u8], flags: u32) {
        let header = Header { length: self.body_bytes(out) as u32, ..Header::new(Kind::Map) };
        let frame = &mut out[self.start..];
        frame[..HEADER_BYTES].copy_from_slice(&header.encode());
        let fixed = &mut frame[HEADER_BYTES..][..MAP_FIXED_BYTES as usize];
        fixed[0..8].copy_from_slice(&self.generation.to_le_bytes());
        fixed[8..12].copy_from_slice(&self.count.to_le_bytes());
        fixed[12..16].copy_from_slice(&(self.flags | flags).to_le_bytes());
    }
}
