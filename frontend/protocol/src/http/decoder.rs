//! The request decoder: bytes of one connection in, heads and bodies out.
//!
//! Invariant: every call consumes bytes, or returns `End`, or returns `NeedMore` having consumed all of its input. Between
//! calls the decoder keeps a partial head (at most `Limits::head_bytes`) and nothing of a body. A head that lies whole in
//! the input is parsed where it lies. After a reject every call returns that reject.
//!
//! Does not know: when to read, when to give up waiting, or what to answer.

use super::chunked::{Chunked, Progress};
use super::fields::Field;
use super::head::{self, Framing, Head, TARGET_TOO_LONG};
use super::limits::REQUEST_LINE_OVERHEAD_BYTES;
use super::scan::{Bounds, Fault, Scanner};
use super::{Limits, Reject};
use crate::error::ErrorKind;

/// What one call of [`Decoder::decode`] found.
#[derive(Debug)]
pub struct Step<'a> {
    /// Bytes of the input that are done with; the rest is given again.
    pub consumed: usize,
    /// What they were.
    pub item: Item<'a>,
}

/// A part of a request.
#[derive(Debug)]
pub enum Item<'a> {
    /// All input was consumed and the next item needs more.
    NeedMore,
    /// The head of a request.
    Head(Head<'a>),
    /// The next part of its body, never empty; a slice of the input.
    Body(&'a [u8]),
    /// The request is complete. Also follows a head without a body.
    End,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Before the first byte of a request; `blank`: an empty line went before.
    Start {
        blank: bool,
    },
    /// After the CR of an empty line before a request.
    BlankLf,
    Head,
    Length {
        left: u64,
    },
    Chunked,
    /// The body is complete, `End` is not yet returned.
    End,
    Rejected(Reject),
}

/// Decoder of the requests of one connection.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    state: State,
    scanner: Scanner,
    chunked: Chunked,
    /// A partial head or partial trailers.
    buffer: Vec<u8>,
    fields: Vec<Field>,
}

impl Decoder {
    /// A decoder at the start of a connection. Limits over their caps are lowered to them ([`Limits::check`] tells).
    pub fn new(limits: Limits) -> Decoder {
        Decoder {
            limits: limits.capped(),
            state: State::Start { blank: false },
            scanner: Scanner::default(),
            chunked: Chunked::new(),
            buffer: Vec::new(),
            fields: Vec::new(),
        }
    }

    /// True between requests: the connection may end here without anything being cut short.
    pub fn ended(&self) -> bool {
        matches!(self.state, State::Start { .. })
    }

    /// Gives back the memory kept for reuse, for a connection that goes idle. Does nothing while a head or trailers are
    /// partly read.
    pub fn release_memory(&mut self) {
        if self.ended() {
            self.buffer = Vec::new();
            self.fields = Vec::new();
        }
    }

    /// Decodes the next item of `input`, which starts where the bytes consumed so far ended.
    ///
    /// After an `Err` the connection is answered and closed.
    pub fn decode<'a>(&'a mut self, input: &'a [u8]) -> Result<Step<'a>, Reject> {
        match self.state {
            State::Start { .. } | State::BlankLf | State::Head => self.decode_head(input),
            State::Length { left } => Ok(self.decode_length(left, input)),
            State::Chunked => self.decode_chunked(input),
            State::End => {
                self.state = State::Start { blank: false };
                Ok(Step { consumed: 0, item: Item::End })
            }
            State::Rejected(reject) => Err(reject),
        }
    }

    /// Bytes of an announced body that have not come yet. While it is not 0, nothing but body comes next, so that many
    /// bytes may be taken from the stream into other memory.
    pub fn body_due(&self) -> u64 {
        if let State::Length { left } = self.state { left } else { 0 }
    }

    /// Says that `bytes` of the body, at most [`body_due`](Self::body_due), were taken from the stream elsewhere.
    ///
    /// # Panics
    /// If it is more than was due.
    pub fn body_received(&mut self, bytes: u64) {
        let due = self.body_due();
        assert!(bytes <= due, "more of a body was received than was announced");
        if bytes == due && due > 0 {
            self.state = State::End;
        } else if due > 0 {
            self.state = State::Length { left: due - bytes };
        }
    }

    fn reject(&mut self, reject: Reject) -> Reject {
        self.state = State::Rejected(reject);
        self.buffer = Vec::new();
        reject
    }

    fn decode_head<'a>(&'a mut self, input: &'a [u8]) -> Result<Step<'a>, Reject> {
        let skipped = match self.skip_blank_line(input) {
            Ok(Some(skipped)) => skipped,
            Ok(None) => {
                return Ok(Step { consumed: input.len(), item: Item::NeedMore });
            }
            Err(reject) => return Err(self.reject(reject)),
        };
        let input = &input[skipped..];
        let bounds = Bounds {
            section_bytes: self.limits.head_bytes,
            first_line_bytes: self.limits.target_bytes + REQUEST_LINE_OVERHEAD_BYTES,
            lines: self.limits.headers + 1,
        };
        let end = match self.scanner.feed(input, &bounds) {
            Ok(Some(end)) => end,
            Ok(None) => {
                self.buffer.extend_from_slice(input);
                return Ok(Step { consumed: skipped + input.len(), item: Item::NeedMore });
            }
            Err(fault) => return Err(self.reject(head_reject(fault))),
        };
        let bytes: &'a [u8] = if self.buffer.is_empty() {
            &input[..end]
        } else {
            self.buffer.extend_from_slice(&input[..end]);
            &self.buffer
        };
        match head::parse(bytes, &self.limits, &mut self.fields) {
            Ok(parsed) => {
                self.state = match parsed.framing {
                    Framing::None | Framing::Length(0) => State::End,
                    Framing::Length(left) => State::Length { left },
                    Framing::Chunked => {
                        self.chunked = Chunked::new();
                        State::Chunked
                    }
                };
                Ok(Step { consumed: skipped + end, item: Item::Head(Head::new(bytes, &self.fields, parsed)) })
            }
            Err(reject) => {
                self.state = State::Rejected(reject);
                Err(reject)
            }
        }
    }

    /// Passes over one empty line before a request (RFC 9112, section 2.2) and enters the head at its first byte. `None`
    /// if the input ends before that byte.
    fn skip_blank_line(&mut self, input: &[u8]) -> Result<Option<usize>, Reject> {
        for (index, byte) in input.iter().enumerate() {
            self.state = match (self.state, byte) {
                (State::Head, _) => return Ok(Some(index)),
                (State::Start { blank: false }, b'\r') => State::BlankLf,
                (State::BlankLf, b'\n') => State::Start { blank: true },
                (State::Start { blank: true }, b'\r') => {
                    return Err(Reject::malformed("more than one empty line goes before the request"));
                }
                (State::BlankLf, _) => return Err(head_reject(Fault::BareCr)),
                _ => {
                    self.scanner = Scanner::default();
                    // Holds the head or the trailers of the request before, which nothing borrows any more.
                    self.buffer.clear();
                    self.state = State::Head;
                    return Ok(Some(index));
                }
            };
        }
        Ok(None)
    }

    fn decode_length<'a>(&mut self, left: u64, input: &'a [u8]) -> Step<'a> {
        if input.is_empty() {
            return Step { consumed: 0, item: Item::NeedMore };
        }
        let bytes = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        let left = left - bytes as u64;
        self.state = if left == 0 { State::End } else { State::Length { left } };
        Step { consumed: bytes, item: Item::Body(&input[..bytes]) }
    }

    fn decode_chunked<'a>(&mut self, input: &'a [u8]) -> Result<Step<'a>, Reject> {
        if !self.chunked.in_trailers() {
            self.buffer.clear();
        }
        match self.chunked.advance(input, &self.limits, &mut self.buffer) {
            Ok(Progress::NeedMore) => Ok(Step { consumed: input.len(), item: Item::NeedMore }),
            Ok(Progress::Data { start, end }) => Ok(Step { consumed: end, item: Item::Body(&input[start..end]) }),
            Ok(Progress::End { consumed }) => {
                self.state = State::Start { blank: false };
                Ok(Step { consumed, item: Item::End })
            }
            Err(reject) => Err(self.reject(reject)),
        }
    }
}

fn head_reject(fault: Fault) -> Reject {
    match fault {
        Fault::SectionTooLong => Reject::new(ErrorKind::HeadersTooLarge, "the head is over the limit"),
        Fault::TooManyLines => Reject::new(ErrorKind::HeadersTooLarge, "there are more headers than the limit"),
        Fault::FirstLineTooLong => TARGET_TOO_LONG,
        Fault::BareLf => Reject::malformed("a line of the head ends in LF without CR"),
        Fault::BareCr => Reject::malformed("a CR in the head is not followed by LF"),
        Fault::Control => Reject::malformed("the head holds a control character"),
    }
}
