//! What travels beside a payload: rkyv archives, little endian, 32-bit relative pointers, the root at the end.
//!
//! Invariant: the way down, the runtime reads an archive in place; the way up, the worker reads only a private copy
//! that bytecheck accepted and whose content type may stand in a response head. This module knows nothing of rings.

use crate::layout::{MAX_CONTENT_TYPE_BYTES, METADATA_BYTES};
use rkyv::Archive;
use rkyv::rancor::Failure;
use rkyv::util::Align;
pub use rkyv::util::AlignedVec;
use std::fmt;
use std::mem::{align_of, offset_of, size_of};
use std::ops::Deref;
use thiserror::Error;

/// What the worker says of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestMetadata<'a> {
    /// The request's id: 16 random bytes.
    pub request_id: [u8; 16],
    /// When the worker received it, in milliseconds since the Unix epoch.
    pub received_unix_ms: u64,
    /// The request's content type; empty when it named none.
    pub content_type: &'a [u8],
    /// The request's W3C `traceparent`; empty when it had none.
    pub trace_parent: &'a [u8],
}

/// What a function says of its response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseMetadata {
    /// The response's content type; empty for the platform's default.
    pub content_type: ContentType,
}

/// The content type of a response, in place: at most [`MAX_CONTENT_TYPE_BYTES`] printable ASCII characters. A sandbox
/// that could smuggle a line end here could write response heads of its own.
#[derive(Clone, Copy)]
pub struct ContentType {
    bytes: [u8; MAX_CONTENT_TYPE_BYTES],
    len: u8,
}

/// What [`RequestMetadata`] is in an archive: its shape alone; runtimes read [`ArchivedRequestMetadata`].
#[derive(Archive)]
#[cfg_attr(test, derive(rkyv::Serialize))]
#[rkyv(archived = ArchivedRequestMetadata)]
pub struct RequestRecord {
    /// See [`RequestMetadata`].
    pub request_id: [u8; 16],
    /// See [`RequestMetadata`].
    pub received_unix_ms: u64,
    /// See [`RequestMetadata`].
    pub content_type: Vec<u8>,
    /// See [`RequestMetadata`].
    pub trace_parent: Vec<u8>,
}

/// What [`ResponseMetadata`] is in an archive: its shape alone.
#[derive(Archive)]
#[cfg_attr(test, derive(rkyv::Serialize))]
#[rkyv(archived = ArchivedResponseMetadata)]
pub struct ResponseRecord {
    /// See [`ResponseMetadata`].
    pub content_type: Vec<u8>,
}

/// Why metadata cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// Longer than the bytes reserved for it.
    #[error("the metadata takes {0} bytes; shorten its headers to fit {METADATA_BYTES}")]
    TooLong(usize),
    /// A content type that no response head may carry.
    #[error("a content type must be at most {MAX_CONTENT_TYPE_BYTES} visible ASCII characters and spaces")]
    ContentType,
}

/// Why metadata cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Longer than the bytes reserved for it.
    #[error("the metadata is longer than {METADATA_BYTES} bytes")]
    TooLong,
    /// Not an archive of the expected type.
    #[error("the metadata is not a valid archive")]
    Invalid,
    /// A content type that no response head may carry.
    #[error("the content type is too long or holds a byte that no header may carry")]
    ContentType,
}

impl RequestMetadata<'_> {
    /// Replaces `out` with the archive of this; reusing `out` avoids allocation.
    ///
    /// # Errors
    /// The archive would not fit the bytes reserved for it.
    pub fn encode(&self, out: &mut AlignedVec) -> Result<(), EncodeError> {
        type Root = ArchivedRequestMetadata;
        let strings = self.content_type.len() + self.trace_parent.len();
        let start = strings.next_multiple_of(align_of::<Root>());
        let len = start + size_of::<Root>();
        if len as u64 > METADATA_BYTES {
            return Err(EncodeError::TooLong(len));
        }
        let mut root = [0; size_of::<Root>()];
        set(&mut root, offset_of!(Root, request_id), self.request_id);
        set(&mut root, offset_of!(Root, received_unix_ms), self.received_unix_ms.to_le_bytes());
        set_vector(&mut root, start, offset_of!(Root, content_type), 0..self.content_type.len());
        set_vector(&mut root, start, offset_of!(Root, trace_parent), self.content_type.len()..strings);
        out.clear();
        out.extend_from_slice(self.content_type);
        out.extend_from_slice(self.trace_parent);
        out.resize(start, 0);
        out.extend_from_slice(&root);
        Ok(())
    }
}

impl ArchivedRequestMetadata {
    /// The archive in `bytes`, checked, in place.
    ///
    /// # Errors
    /// `bytes` is no such archive, or not aligned to eight.
    pub fn read(bytes: &[u8]) -> Result<&ArchivedRequestMetadata, DecodeError> {
        rkyv::access::<ArchivedRequestMetadata, Failure>(bytes).map_err(|_| DecodeError::Invalid)
    }
}

impl ResponseMetadata {
    /// Replaces `out` with the archive of this; reusing `out` avoids allocation.
    pub fn encode(&self, out: &mut AlignedVec) {
        type Root = ArchivedResponseMetadata;
        let start = self.content_type.len().next_multiple_of(align_of::<Root>());
        let mut root = [0; size_of::<Root>()];
        set_vector(&mut root, start, offset_of!(Root, content_type), 0..self.content_type.len());
        out.clear();
        out.extend_from_slice(&self.content_type);
        out.resize(start, 0);
        out.extend_from_slice(&root);
    }

    /// The metadata in a private copy of what a sandbox wrote. No bytes at all mean the default.
    ///
    /// # Errors
    /// The bytes are no such archive, or name a content type that may not stand in a response head.
    pub fn decode(bytes: &PrivateCopy) -> Result<ResponseMetadata, DecodeError> {
        Ok(ResponseMetadata { content_type: ContentType::of_checked(content_type(bytes)?) })
    }
}

/// The content type in a private copy of metadata, checked, where it lies.
pub(crate) fn content_type(bytes: &PrivateCopy) -> Result<&[u8], DecodeError> {
    let bytes = bytes.as_slice();
    if bytes.is_empty() {
        return Ok(&[]);
    }
    let archived = rkyv::access::<ArchivedResponseMetadata, Failure>(bytes).map_err(|_| DecodeError::Invalid)?;
    let content_type = archived.content_type.as_slice();
    if ContentType::is_valid(content_type) { Ok(content_type) } else { Err(DecodeError::ContentType) }
}

impl ContentType {
    /// The content type in these bytes; `None` if it may not stand in a response head.
    #[must_use]
    pub fn new(text: &[u8]) -> Option<ContentType> {
        ContentType::is_valid(text).then(|| ContentType::of_checked(text))
    }

    fn is_valid(text: &[u8]) -> bool {
        text.len() <= MAX_CONTENT_TYPE_BYTES && text.iter().all(|byte| (0x20..0x7f).contains(byte))
    }

    /// The content type in bytes that are valid. Inlined, so that it is made where it is to lie and not moved there.
    #[inline(always)]
    pub(crate) fn of_checked(text: &[u8]) -> ContentType {
        let mut bytes = [0; MAX_CONTENT_TYPE_BYTES];
        bytes[..text.len()].copy_from_slice(text);
        ContentType { bytes, len: text.len() as u8 }
    }
}

impl Default for ContentType {
    fn default() -> ContentType {
        ContentType { bytes: [0; MAX_CONTENT_TYPE_BYTES], len: 0 }
    }
}

impl Deref for ContentType {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl PartialEq for ContentType {
    fn eq(&self, other: &ContentType) -> bool {
        **self == **other
    }
}

impl Eq for ContentType {}

impl fmt::Debug for ContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ContentType").field(&self.escape_ascii().to_string()).finish()
    }
}

/// Writes a field of a root that is built by hand.
fn set<const N: usize>(root: &mut [u8], at: usize, value: [u8; N]) {
    root[at..at + N].copy_from_slice(&value);
}

/// Writes a byte string's field: its bytes are at `range` of the archive, and the root that holds the field at `start`.
/// An offset counts from the field itself.
fn set_vector(root: &mut [u8], start: usize, at: usize, range: std::ops::Range<usize>) {
    let offset = range.start as i32 - (start + at) as i32;
    set(root, at, offset.to_le_bytes());
    set(root, at + size_of::<i32>(), (range.len() as u32).to_le_bytes());
}

/// A private, aligned copy of metadata that a sandbox wrote.
pub struct PrivateCopy {
    bytes: Box<Align<[u8; METADATA_BYTES as usize]>>,
    len: usize,
}

impl PrivateCopy {
    /// An empty copy; made once and reused.
    #[must_use]
    pub fn new() -> PrivateCopy {
        PrivateCopy { bytes: Box::new(Align([0; METADATA_BYTES as usize])), len: 0 }
    }

    /// Sets the length and gives the bytes to fill.
    ///
    /// # Errors
    /// `len` is more than metadata may take.
    pub fn resize(&mut self, len: usize) -> Result<&mut [u8], DecodeError> {
        let bytes = self.bytes.0.get_mut(..len).ok_or(DecodeError::TooLong)?;
        self.len = len;
        Ok(bytes)
    }

    /// The copied bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes.0[..self.len]
    }
}

impl Default for PrivateCopy {
    fn default() -> PrivateCopy {
        PrivateCopy::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::mem::offset_of;

    fn private(bytes: &[u8]) -> PrivateCopy {
        let mut copy = PrivateCopy::new();
        copy.resize(bytes.len()).unwrap().copy_from_slice(bytes);
        copy
    }

    /// Reads a byte string as a runtime without rkyv does: an offset from its own place, and a length.
    fn vector(archive: &[u8], at: usize) -> &[u8] {
        let offset = i32::from_le_bytes(archive[at..at + 4].try_into().unwrap());
        let len = u32::from_le_bytes(archive[at + 4..at + 8].try_into().unwrap()) as usize;
        &archive[at.wrapping_add_signed(offset as isize)..][..len]
    }

    proptest! {
        /// The archive's bytes are where `layout.py` says, and the reader in place agrees.
        #[test]
        fn a_request_is_read_by_hand_and_in_place(
            request_id in any::<[u8; 16]>(),
            received_unix_ms in any::<u64>(),
            content_type in prop::collection::vec(any::<u8>(), 0..100),
            trace_parent in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let metadata = RequestMetadata {
                request_id,
                received_unix_ms,
                content_type: &content_type,
                trace_parent: &trace_parent,
            };
            let mut archive = AlignedVec::new();
            metadata.encode(&mut archive).unwrap();
            let (content, trace) = (content_type.clone(), trace_parent.clone());
            let record = RequestRecord { request_id, received_unix_ms, content_type: content, trace_parent: trace };
            prop_assert_eq!(&archive[..], &rkyv::to_bytes::<Failure>(&record).unwrap()[..]);

            let root = archive.len() - size_of::<ArchivedRequestMetadata>();
            let field = |offset: usize| root + offset;
            let id = field(offset_of!(ArchivedRequestMetadata, request_id));
            prop_assert_eq!(&archive[id..id + 16], &metadata.request_id);
            let received = field(offset_of!(ArchivedRequestMetadata, received_unix_ms));
            prop_assert_eq!(&archive[received..received + 8], &metadata.received_unix_ms.to_le_bytes());
            let content_type = field(offset_of!(ArchivedRequestMetadata, content_type));
            prop_assert_eq!(vector(&archive, content_type), metadata.content_type);
            let trace_parent = field(offset_of!(ArchivedRequestMetadata, trace_parent));
            prop_assert_eq!(vector(&archive, trace_parent), metadata.trace_parent);

            let read = ArchivedRequestMetadata::read(&archive).unwrap();
            prop_assert_eq!(read.content_type.as_slice(), metadata.content_type);
            prop_assert_eq!(read.trace_parent.as_slice(), metadata.trace_parent);
        }

        /// A runtime without rkyv writes the bytes, zeros up to the alignment, and the root; the worker reads it.
        #[test]
        fn a_response_written_by_hand_is_read(content_type in "[ -~]{1,255}") {
            let mut bytes = content_type.clone().into_bytes();
            bytes.resize(bytes.len().next_multiple_of(align_of::<ArchivedResponseMetadata>()), 0);
            bytes.extend_from_slice(&(-(bytes.len() as i32)).to_le_bytes());
            bytes.extend_from_slice(&(content_type.len() as u32).to_le_bytes());
            let read = ResponseMetadata::decode(&private(&bytes)).unwrap();
            prop_assert_eq!(&*read.content_type, content_type.as_bytes());

            let mut archive = AlignedVec::new();
            read.encode(&mut archive);
            let record = ResponseRecord { content_type: content_type.into_bytes() };
            prop_assert_eq!(&archive[..], &rkyv::to_bytes::<Failure>(&record).unwrap()[..]);
            prop_assert_eq!(ResponseMetadata::decode(&private(&archive)).unwrap(), read);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(read) = ResponseMetadata::decode(&private(&bytes)) {
                prop_assert_eq!(ContentType::new(&read.content_type), Some(read.content_type));
            }
        }
    }

    #[test]
    fn no_bytes_are_the_default_and_line_ends_are_refused() {
        assert_eq!(ResponseMetadata::decode(&private(&[])), Ok(ResponseMetadata::default()));
        assert_eq!(ContentType::new(b"text/plain\r\nset-cookie: a=b"), None);
        assert_eq!(ContentType::new(&[b'a'; MAX_CONTENT_TYPE_BYTES + 1]), None);
        assert_eq!(*ContentType::new(&[b'a'; MAX_CONTENT_TYPE_BYTES]).unwrap(), [b'a'; MAX_CONTENT_TYPE_BYTES]);
        assert_eq!(PrivateCopy::new().resize(METADATA_BYTES as usize + 1), Err(DecodeError::TooLong));
    }

    #[test]
    fn request_metadata_beyond_its_room_is_refused() {
        let long = [b'a'; METADATA_BYTES as usize];
        let metadata = RequestMetadata { content_type: &long, ..Default::default() };
        assert!(matches!(metadata.encode(&mut AlignedVec::new()), Err(EncodeError::TooLong(_))));
    }
}
