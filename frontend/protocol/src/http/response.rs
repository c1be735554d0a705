//! A decoder of responses for clients of our own: tests, load generators, and what stands between a client and workers.
//!
//! Invariant: as for requests, the same bytes give the same items at any split points, ambiguous framing is an error, and
//! what is kept is a partial head within [`Limits`].
//!
//! Does not know: which request a response answers, beyond whether it was a `HEAD`.

use core::mem::MaybeUninit;

use super::Limits;
use super::chunked::{Chunked, Progress};
use super::fields::{self, Field, Length};
use super::limits::HEADERS_CAP;
use super::scan::{Bounds, Scanner};

/// What one call of [`Decoder::decode`] found.
#[derive(Debug)]
pub struct Step<'a> {
    /// Bytes of the input that are done with.
    pub consumed: usize,
    /// What they were.
    pub item: Item<'a>,
}

/// A part of a response.
#[derive(Debug)]
pub enum Item<'a> {
    /// All input was consumed and the next item needs more.
    NeedMore,
    /// An interim response (1xx) with this status; the final one follows.
    Interim(u16),
    /// The head of the final response.
    Head(Head<'a>),
    /// The next part of the body, never empty; a slice of the input.
    Body(&'a [u8]),
    /// The response is complete. A body that ends with the connection ends by [`Decoder::finish`] instead.
    End,
}

/// Why a response cannot be read. The connection is of no further use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// What is wrong with it.
    pub message: &'static str,
}

impl core::fmt::Display for Malformed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "malformed response: {}", self.message)
    }
}

impl core::error::Error for Malformed {}

const fn malformed(message: &'static str) -> Malformed {
    Malformed { message }
}

/// The head of one response, borrowed from the input or from the decoder.
#[derive(Clone, Copy)]
pub struct Head<'a> {
    bytes: &'a [u8],
    fields: &'a [Field],
    parsed: Parsed,
}

#[derive(Clone, Copy, Debug)]
struct Parsed {
    status: u16,
    framing: Framing,
    keep_alive: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

impl<'a> Head<'a> {
    /// The status, 100 to 999.
    pub fn status(&self) -> u16 {
        self.parsed.status
    }

    /// The first value under `name` (compared without case), without white space around it.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        fields::find(self.bytes, self.fields, name)
    }

    /// Every field in the order sent.
    pub fn headers(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let bytes = self.bytes;
        self.fields.iter().map(move |field| (field.name(bytes), field.value(bytes)))
    }

    /// Length of the body that follows, in bytes, where it was announced.
    pub fn content_length(&self) -> Option<u64> {
        match self.parsed.framing {
            Framing::Length(bytes) => Some(bytes),
            Framing::None | Framing::Chunked | Framing::UntilClose => None,
        }
    }

    /// True if the body is chunked.
    pub fn chunked(&self) -> bool {
        self.parsed.framing == Framing::Chunked
    }

    /// True if the connection takes another request after this response.
    pub fn keep_alive(&self) -> bool {
        self.parsed.keep_alive
    }
}

impl core::fmt::Debug for Head<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Head").field("parsed", &self.parsed).field("headers", &self.fields.len()).finish()
    }
}

#[derive(Clone, Copy, Debug)]
enum State {
    Start,
    Head,
    Length { left: u64 },
    Chunked,
    UntilClose { left: u64 },
    End,
    Failed(Malformed),
}

/// Decoder of the responses of one connection.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    state: State,
    to_head_request: bool,
    scanner: Scanner,
    chunked: Chunked,
    buffer: Vec<u8>,
    fields: Vec<Field>,
}

impl Decoder {
    /// A decoder at the start of a connection; `target_bytes` has no meaning here.
    pub fn new(limits: Limits) -> Decoder {
        Decoder {
            limits: limits.capped(),
            state: State::Start,
            to_head_request: false,
            scanner: Scanner::default(),
            chunked: Chunked::new(),
            buffer: Vec::new(),
            fields: Vec::new(),
        }
    }

    /// Says that the next response answers a `HEAD`, so has no body whatever its head says.
    pub fn next_answers_head(&mut self) {
        self.to_head_request = true;
    }

    /// True between responses.
    pub fn ended(&self) -> bool {
        matches!(self.state, State::Start)
    }

    /// Says that the connection ended. `Ok` if that cut nothing short: between responses, or at the end of a body that ends
    /// with the connection.
    pub fn finish(&mut self) -> Result<(), Malformed> {
        match self.state {
            State::Start | State::End | State::UntilClose { .. } => {
                self.state = State::Start;
                Ok(())
            }
            State::Failed(failure) => Err(failure),
            State::Head | State::Length { .. } | State::Chunked => {
                Err(self.fail(malformed("the connection ended within a response")))
            }
        }
    }

    /// Decodes the next item of `input`, which starts where the bytes consumed so far ended.
    pub fn decode<'a>(&'a mut self, input: &'a [u8]) -> Result<Step<'a>, Malformed> {
        match self.state {
            State::Start | State::Head => self.decode_head(input),
            State::Length { left } => {
                let bytes = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                let left = left - bytes as u64;
                self.state = if left == 0 { State::End } else { State::Length { left } };
                Ok(body(input, bytes))
            }
            State::UntilClose { left: 0 } if !input.is_empty() => {
                Err(self.fail(malformed("the body is over the limit")))
            }
            State::UntilClose { left } => {
                let bytes = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                self.state = State::UntilClose { left: left - bytes as u64 };
                Ok(body(input, bytes))
            }
            State::Chunked => self.decode_chunked(input),
            State::End => {
                self.state = State::Start;
                Ok(Step { consumed: 0, item: Item::End })
            }
            State::Failed(failure) => Err(failure),
        }
    }

    fn fail(&mut self, failure: Malformed) -> Malformed {
        self.state = State::Failed(failure);
        failure
    }

    fn decode_head<'a>(&'a mut self, input: &'a [u8]) -> Result<Step<'a>, Malformed> {
        if input.is_empty() {
            return Ok(Step { consumed: 0, item: Item::NeedMore });
        }
        if matches!(self.state, State::Start) {
            self.scanner = Scanner::default();
            self.buffer.clear();
            self.state = State::Head;
        }
        let head_bytes = self.limits.head_bytes;
        let bounds = Bounds { section_bytes: head_bytes, first_line_bytes: head_bytes, lines: self.limits.headers + 1 };
        let end = match self.scanner.feed(input, &bounds) {
            Ok(Some(end)) => end,
            Ok(None) => {
                self.buffer.extend_from_slice(input);
                return Ok(Step { consumed: input.len(), item: Item::NeedMore });
            }
            Err(_) => {
                return Err(self.fail(malformed("the head is over the limit or has a stray control character")));
            }
        };
        let bytes: &'a [u8] = if self.buffer.is_empty() {
            &input[..end]
        } else {
            self.buffer.extend_from_slice(&input[..end]);
            &self.buffer
        };
        let parsed = match parse(bytes, &self.limits, self.to_head_request, &mut self.fields) {
            Ok(parsed) => parsed,
            Err(failure) => {
                self.state = State::Failed(failure);
                return Err(failure);
            }
        };
        if parsed.status < 200 {
            self.state = State::Start;
            return Ok(Step { consumed: end, item: Item::Interim(parsed.status) });
        }
        self.to_head_request = false;
        self.state = match parsed.framing {
            Framing::None | Framing::Length(0) => State::End,
            Framing::Length(left) => State::Length { left },
            Framing::UntilClose => State::UntilClose { left: self.limits.body_bytes },
            Framing::Chunked => {
                self.chunked = Chunked::new();
                State::Chunked
            }
        };
        Ok(Step { consumed: end, item: Item::Head(Head { bytes, fields: &self.fields, parsed }) })
    }

    fn decode_chunked<'a>(&mut self, input: &'a [u8]) -> Result<Step<'a>, Malformed> {
        if !self.chunked.in_trailers() {
            self.buffer.clear();
        }
        match self.chunked.advance(input, &self.limits, &mut self.buffer) {
            Ok(Progress::NeedMore) => Ok(Step { consumed: input.len(), item: Item::NeedMore }),
            Ok(Progress::Data { start, end }) => Ok(Step { consumed: end, item: Item::Body(&input[start..end]) }),
            Ok(Progress::End { consumed }) => {
                self.state = State::Start;
                Ok(Step { consumed, item: Item::End })
            }
            Err(reject) => Err(self.fail(malformed(reject.message))),
        }
    }
}

fn body(input: &[u8], bytes: usize) -> Step<'_> {
    let item = if bytes == 0 { Item::NeedMore } else { Item::Body(&input[..bytes]) };
    Step { consumed: bytes, item }
}

fn parse(bytes: &[u8], limits: &Limits, to_head_request: bool, fields: &mut Vec<Field>) -> Result<Parsed, Malformed> {
    fields.clear();
    let mut table = [const { MaybeUninit::uninit() }; HEADERS_CAP];
    let mut response = httparse::Response::new(&mut []);
    let outcome =
        httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut response, bytes, &mut table);
    let (Ok(httparse::Status::Complete(end)), Some(status), Some(minor)) = (outcome, response.code, response.version)
    else {
        return Err(malformed("the head is not a status line and headers"));
    };
    if end != bytes.len() || !(100..=999).contains(&status) || status == 101 {
        return Err(malformed("the status is not one that answers a request"));
    }
    let mut framing = Fields::default();
    for header in response.headers.iter() {
        framing.take(header)?;
        fields.push(Field::locate(bytes, header.name, header.value));
    }
    let framing_without_body = to_head_request || matches!(status, 100..=199 | 204 | 304);
    let body = if framing_without_body { Framing::None } else { framing.body(limits)? };
    let persists = !framing.close && (minor == 1 || framing.keep_alive) && body != Framing::UntilClose;
    Ok(Parsed { status, framing: body, keep_alive: persists })
}

/// What the fields that frame a response say.
#[derive(Default)]
struct Fields {
    length: Option<Length>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
}

impl Fields {
    fn take(&mut self, header: &httparse::Header<'_>) -> Result<(), Malformed> {
        if header.name.eq_ignore_ascii_case("content-length") {
            let length = fields::parse_length(header.value);
            if self.length.replace(length).is_some() || length == Length::Malformed {
                return Err(malformed("the Content-Length is not one plain decimal number"));
            }
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            if self.chunked || !header.value.eq_ignore_ascii_case(b"chunked") {
                return Err(malformed("the Transfer-Encoding is not exactly 'chunked'"));
            }
            self.chunked = true;
        } else if header.name.eq_ignore_ascii_case("connection") {
            self.close |= fields::lists(header.value, "close");
            self.keep_alive |= fields::lists(header.value, "keep-alive");
        }
        Ok(())
    }

    fn body(&self, limits: &Limits) -> Result<Framing, Malformed> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(malformed("Content-Length and Transfer-Encoding come together")),
            (true, None) => Ok(Framing::Chunked),
            (false, None) => Ok(Framing::UntilClose),
            (false, Some(Length::Bytes(bytes))) if bytes <= limits.body_bytes => Ok(Framing::Length(bytes)),
            (false, Some(_)) => Err(malformed("the body is over the limit")),
        }
    }
}
