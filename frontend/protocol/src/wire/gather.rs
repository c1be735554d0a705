//! The head of one frame: found whole in the input, or gathered from pieces of it.
//!
//! Invariant: holds at most one partial head, and nothing while `filled` is 0. A head that lies whole in the input is not
//! copied. `long` stays empty for a server, whose heads all fit into `fixed`.

use super::limits::{HEAD_BYTES, HEADER_BYTES};
use super::{Header, Limits, WireError};

#[derive(Debug)]
pub(super) struct Gather {
    fixed: [u8; HEAD_BYTES],
    /// Heads that do not fit into `fixed`: the bodies of WELCOME, MAP and CUT, which count as heads. At most one frame.
    long: Vec<u8>,
    filled: usize,
    /// The header of the head that is being gathered, once it is there.
    header: Option<Header>,
}

/// What [`Gather::find`] made of the input.
pub(super) enum Found {
    /// All of it was taken and the head needs more.
    More,
    /// A head ends after `consumed` bytes of the input.
    Whole {
        header: Header,
        consumed: usize,
        /// The head lies in [`Gather::head`]; else it is the first `consumed` bytes of the input.
        gathered: bool,
    },
}

impl Gather {
    pub(super) fn new() -> Gather {
        Gather { fixed: [0; HEAD_BYTES], long: Vec::new(), filled: 0, header: None }
    }

    /// True if nothing of a head is held.
    pub(super) fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Gives back memory kept for long heads, unless it is in use.
    pub(super) fn release_memory(&mut self) {
        if self.is_empty() {
            self.long = Vec::new();
        }
    }

    /// Looks for the end of a head. `admit` says whether a frame with this header may come at all.
    #[inline]
    pub(super) fn find(
        &mut self,
        input: &[u8],
        limits: &Limits,
        admit: impl Fn(&Header) -> Result<(), WireError>,
    ) -> Result<Found, WireError> {
        if self.filled == 0
            && let Some(first) = input.first_chunk()
        {
            let header = Header::decode(first, limits)?;
            admit(&header)?;
            let head_bytes = header.head_bytes();
            if input.len() >= head_bytes {
                return Ok(Found::Whole { header, consumed: head_bytes, gathered: false });
            }
            self.header = Some(header);
        }
        self.gather(input, limits, admit)
    }

    fn gather(
        &mut self,
        input: &[u8],
        limits: &Limits,
        admit: impl Fn(&Header) -> Result<(), WireError>,
    ) -> Result<Found, WireError> {
        let mut consumed = 0;
        loop {
            let head_bytes = self.header.as_ref().map_or(HEADER_BYTES, Header::head_bytes);
            let take = (head_bytes - self.filled).min(input.len() - consumed);
            self.keep(&input[consumed..][..take], head_bytes);
            consumed += take;
            if self.filled < head_bytes {
                return Ok(Found::More);
            }
            if let Some(header) = self.header.take() {
                self.filled = 0;
                return Ok(Found::Whole { header, consumed, gathered: true });
            }
            let mut bytes = [0; HEADER_BYTES];
            bytes.copy_from_slice(&self.fixed[..HEADER_BYTES]);
            let header = Header::decode(&bytes, limits)?;
            admit(&header)?;
            if header.head_bytes() > HEAD_BYTES {
                self.long.clear();
                self.long.extend_from_slice(&bytes);
            }
            self.header = Some(header);
        }
    }

    fn keep(&mut self, piece: &[u8], head_bytes: usize) {
        if head_bytes <= HEAD_BYTES {
            self.fixed[self.filled..][..piece.len()].copy_from_slice(piece);
        } else {
            if self.filled == 0 {
                self.long.clear();
            }
            self.long.extend_from_slice(piece);
        }
        self.filled += piece.len();
    }

    /// The head that was found last and gathered.
    pub(super) fn head(&self, header: &Header) -> &[u8] {
        let head_bytes = header.head_bytes();
        if head_bytes <= HEAD_BYTES { &self.fixed[..head_bytes] } else { &self.long[..head_bytes] }
    }
}
