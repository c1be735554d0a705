//! One invocation inside a sandbox: it owns its lane from the submission to the answer.
//!
//! Invariant: while an [`Invocation`] lives, the worker writes nothing of its request and reads nothing of its
//! response; answering consumes it. Small responses are built in private memory and ride in the slot; larger ones are
//! built where the worker reads them.
#![allow(unsafe_code)]

use super::shared::{Lane, Regions, SlotBytes};
use crate::layout::{INLINE_BYTES, METADATA_BYTES, PART_BYTES};
use crate::metadata::{ArchivedRequestMetadata, ContentType, EncodeError, ResponseMetadata};
use rkyv::util::AlignedVec;
use std::cell::OnceCell;
use std::fmt;
use std::io;
use std::ops::Range;
use thiserror::Error;

/// More bytes than the sandbox may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{bytes} bytes do not fit a response of at most {limit}; raise the worker's payload limit or send less")]
pub struct TooLarge {
    /// What was asked for.
    pub bytes: usize,
    /// What fits.
    pub limit: usize,
}

/// Where a part of a request lies.
pub(super) enum Part {
    /// Copied out of the slot, into the lane's private memory.
    Slot(Range<usize>),
    /// In the down region.
    Lane(Range<u64>),
}

/// Where the response is built, and how long it is.
#[derive(Clone, Copy)]
pub(super) enum Body {
    /// In the lane's private memory.
    Private(usize),
    /// In the lane's payload area.
    Lane(usize),
}

/// What the invocation will answer if it returns.
#[derive(Clone, Copy)]
pub(super) struct Answer {
    pub(super) body: Body,
    pub(super) has_metadata: bool,
}

/// An invocation that was taken and not yet answered. Dropping it leaves its lane busy until the worker gives it up.
pub struct Invocation(Box<Lane>);

/// A request, borrowed from its invocation.
#[derive(Clone)]
pub struct Request<'a> {
    archive: &'a [u8],
    /// `archive`, once somebody wanted to know.
    metadata: OnceCell<&'a ArchivedRequestMetadata>,
    payload: &'a [u8],
    deadline_ns: u64,
}

/// The response that an invocation will answer with.
pub struct Response<'a> {
    private: &'a mut SlotBytes,
    lane: &'a mut [u8],
    answer: &'a mut Answer,
    metadata: &'a mut AlignedVec,
    id: u64,
    number: u32,
    outlet: Option<&'a dyn Outlet>,
}

/// Where parts of a response go before the rest of it.
pub trait Outlet {
    /// Sends a part and waits until it was taken. Whether more would be.
    fn send(&self, part: &Piece<'_>) -> bool;
}

/// A part of a response.
pub struct Piece<'a> {
    pub(super) invocation: u64,
    pub(super) lane: u32,
    pub(super) metadata: &'a [u8],
    pub(super) payload: PieceBytes<'a>,
}

/// Where it lies.
pub(super) enum PieceBytes<'a> {
    Private(&'a [u8]),
    /// In the lane's payload area.
    Lane(Range<usize>),
}

/// Why a part was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotTaken {
    /// The client has left, or the invocation's time is over.
    #[error("nobody takes any more of this answer; return")]
    Over,
    /// Whoever runs the handler sends answers whole.
    #[error("this runtime sends answers whole; return without sending parts")]
    Whole,
}

impl Invocation {
    /// The invocation whose request `lane` holds, with an empty response.
    pub(super) fn new(mut lane: Box<Lane>) -> Invocation {
        lane.answer = Answer { body: Body::Private(0), has_metadata: false };
        Invocation(lane)
    }

    /// The worker's id of it.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// The lane it occupies.
    #[must_use]
    pub fn lane(&self) -> u32 {
        self.0.lane
    }

    /// The request, and the response to fill.
    pub fn parts(&mut self) -> (Request<'_>, Response<'_>) {
        self.open(None)
    }

    /// As [`Invocation::parts`], with a place where parts of the response may be sent to before the rest.
    pub fn parts_with<'a>(&'a mut self, outlet: &'a dyn Outlet) -> (Request<'a>, Response<'a>) {
        self.open(Some(outlet))
    }

    fn open<'a>(&'a mut self, outlet: Option<&'a dyn Outlet>) -> (Request<'a>, Response<'a>) {
        let (id, number) = (self.0.id, self.0.lane);
        let Lane { regions, lane, deadline_ns, archive, payload, request, answer, response, metadata, .. } =
            &mut *self.0;
        let Regions { down, up, geometry } = &**regions;
        let bytes = |part: &Part| match part {
            Part::Slot(range) => &request.0[range.clone()],
            // SAFETY: the worker is trusted, and writes nothing of a busy lane.
            Part::Lane(range) => unsafe { down.slice(range) },
        };
        let request = Request {
            archive: bytes(archive),
            metadata: OnceCell::new(),
            payload: bytes(payload),
            deadline_ns: *deadline_ns,
        };
        let lane = geometry.response_lane(*lane);
        // SAFETY: the invocation owns its lane, and the borrow of `self` keeps the slice unique; the worker reads it
        // only after the answer is published, which consumes the invocation.
        let lane = unsafe { up.slice_mut(&(lane.start + METADATA_BYTES..lane.end)) };
        (request, Response { private: response, lane, answer, metadata, id, number, outlet })
    }

    /// A part of the response that lies elsewhere, of the content type that the response names.
    #[must_use]
    pub fn piece<'a>(&'a self, bytes: &'a [u8]) -> Piece<'a> {
        let Lane { id, lane, answer, metadata, .. } = &*self.0;
        let metadata = if answer.has_metadata { metadata.as_slice() } else { &[] };
        Piece { invocation: *id, lane: *lane, metadata, payload: PieceBytes::Private(bytes) }
    }

    /// Ends the invocation: its lane, with the answer.
    pub(super) fn close(self) -> Box<Lane> {
        self.0
    }
}

impl fmt::Debug for Invocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invocation").field("id", &self.0.id).field("lane", &self.0.lane).finish_non_exhaustive()
    }
}

impl<'a> Request<'a> {
    /// The request's bytes.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// What the worker says of the request, in place.
    ///
    /// # Panics
    /// The worker sent metadata that is none.
    #[must_use]
    pub fn metadata(&self) -> &'a ArchivedRequestMetadata {
        let read = || ArchivedRequestMetadata::read(self.archive).expect("the worker sends sound metadata");
        self.metadata.get_or_init(read)
    }

    /// When the worker gives the invocation up, on `CLOCK_MONOTONIC`.
    #[must_use]
    pub fn deadline_ns(&self) -> u64 {
        self.deadline_ns
    }
}

impl Response<'_> {
    /// Makes the response `bytes` long and gives it to be written in place. What it held before is lost; what is not
    /// written is unspecified (zeros, or bytes of this sandbox's earlier responses).
    ///
    /// # Errors
    /// More than a response may have.
    pub fn reserve(&mut self, bytes: usize) -> Result<&mut [u8], TooLarge> {
        self.check(bytes)?;
        if bytes <= INLINE_BYTES as usize {
            self.answer.body = Body::Private(bytes);
            Ok(&mut self.private.0[..bytes])
        } else {
            self.answer.body = Body::Lane(bytes);
            Ok(&mut self.lane[..bytes])
        }
    }

    /// Appends to the response.
    ///
    /// # Errors
    /// More than a response may have; nothing was appended.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), TooLarge> {
        let end = self.len().saturating_add(bytes.len());
        self.check(end)?;
        let body = match self.answer.body {
            Body::Private(len) if end <= INLINE_BYTES as usize => {
                self.private.0[len..end].copy_from_slice(bytes);
                Body::Private(end)
            }
            Body::Private(len) => {
                self.lane[..len].copy_from_slice(&self.private.0[..len]);
                self.lane[len..end].copy_from_slice(bytes);
                Body::Lane(end)
            }
            Body::Lane(len) => {
                self.lane[len..end].copy_from_slice(bytes);
                Body::Lane(end)
            }
        };
        self.answer.body = body;
        Ok(())
    }

    /// Shortens the response to `bytes`; one that is shorter stays as it is.
    pub fn truncate(&mut self, bytes: usize) {
        let (Body::Private(len) | Body::Lane(len)) = &mut self.answer.body;
        *len = bytes.min(*len);
    }

    /// The bytes of the response so far.
    #[must_use]
    pub fn len(&self) -> usize {
        let (Body::Private(len) | Body::Lane(len)) = self.answer.body;
        len
    }

    /// Whether the response has no bytes so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sends what the response has so far as a part of it and waits until it was taken; the response is empty again, and as much fits it as
    /// before. What the handler returns with is the last part. Does nothing for an empty response.
    ///
    /// # Errors
    /// Nobody takes it: see [`NotTaken`].
    pub fn send_part(&mut self) -> Result<(), NotTaken> {
        let outlet = self.outlet.ok_or(NotTaken::Whole)?;
        let (invocation, lane) = (self.id, self.number);
        let metadata = if self.answer.has_metadata { self.metadata.as_slice() } else { &[] };
        let body = std::mem::replace(&mut self.answer.body, Body::Private(0));
        let send = |payload| outlet.send(&Piece { invocation, lane, metadata, payload });
        let is_taken = match body {
            Body::Private(0) => true,
            Body::Private(bytes) => send(PieceBytes::Private(&self.private.0[..bytes])),
            Body::Lane(bytes) => {
                let most = PART_BYTES as usize;
                (0..bytes).step_by(most).all(|from| send(PieceBytes::Lane(from..bytes.min(from + most))))
            }
        };
        if is_taken { Ok(()) } else { Err(NotTaken::Over) }
    }

    /// The most bytes a response may have.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.lane.len()
    }

    /// Names the response's content type.
    ///
    /// # Errors
    /// It is too long, or not printable ASCII; the response keeps the one it had.
    pub fn set_content_type(&mut self, content_type: &str) -> Result<(), EncodeError> {
        let content_type = ContentType::new(content_type.as_bytes()).ok_or(EncodeError::ContentType)?;
        self.answer.has_metadata = !content_type.is_empty();
        ResponseMetadata { content_type }.encode(self.metadata);
        Ok(())
    }

    fn check(&self, bytes: usize) -> Result<(), TooLarge> {
        let limit = self.lane.len();
        if bytes > limit { Err(TooLarge { bytes, limit }) } else { Ok(()) }
    }
}

impl io::Write for Response<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match Response::write(self, bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => Err(io::Error::new(io::ErrorKind::FileTooLarge, error)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
