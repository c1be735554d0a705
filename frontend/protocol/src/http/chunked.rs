//! The chunked coding, both ways (RFC 9112, section 7.1).
//!
//! Invariant: data is handed on as slices of the input; between calls only counters are kept, and a partial trailer section
//! within the head limit. Sizes are bare hexadecimal; lines end in CRLF; extensions are bounded and ignored; trailers are
//! checked and dropped. Each fault belongs to the first byte that proves it, so splits do not matter.
//!
//! Does not know: whether it reads a request or a response.

use super::head::BODY_TOO_LARGE;
use super::limits::{CHUNK_EXTENSION_BYTES, CHUNK_EXTENSION_TOTAL_BYTES, CHUNK_SIZE_DIGITS, HEADERS_CAP};
use super::scan::{Bounds, Fault, Scanner};
use super::{Limits, Reject, fields};
use crate::error::ErrorKind;

/// Ends a chunked body that has no trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Appends `data` as one chunk. Empty data appends nothing, since an empty chunk would end the body.
pub fn write_chunk(out: &mut Vec<u8>, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    write_chunk_size(out, data.len());
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// Appends what a chunk of so many bytes, at least one, begins with: for data that is sent from elsewhere, and a CRLF after it.
pub fn write_chunk_size(out: &mut Vec<u8>, bytes: usize) {
    let digits = (usize::BITS - bytes.leading_zeros()).div_ceil(4);
    for digit in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(bytes >> (digit * 4)) & 15]);
    }
    out.extend_from_slice(b"\r\n");
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// In the size, after so many digits.
    Size {
        digits: u8,
    },
    /// After the semicolon.
    ExtensionStart,
    Extension,
    /// After the CR of the size line.
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailers,
}

/// Decoder of one chunked body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunked {
    state: State,
    /// In `Size`: the value so far. In `Data`: what is left of the chunk.
    size: u64,
    /// Data announced so far, the current chunk included.
    total_bytes: u64,
    extension_bytes: u32,
    extension_total_bytes: u32,
    scanner: Scanner,
}

/// What one call found. Indices are into the input.
pub(crate) enum Progress {
    /// All of the input was consumed.
    NeedMore,
    /// `input[start..end]` is data; everything before `end` is consumed.
    Data { start: usize, end: usize },
    /// The body ended before `input[consumed]`.
    End { consumed: usize },
}

impl Chunked {
    pub(crate) fn new() -> Chunked {
        Chunked {
            state: State::Size { digits: 0 },
            size: 0,
            total_bytes: 0,
            extension_bytes: 0,
            extension_total_bytes: 0,
            scanner: Scanner::default(),
        }
    }

    /// True if `buffer` may hold partial trailers.
    pub(crate) fn in_trailers(&self) -> bool {
        matches!(self.state, State::Trailers)
    }

    /// Decodes up to the next data. `buffer` keeps a partial trailer section; it must be empty before that.
    pub(crate) fn advance(&mut self, input: &[u8], limits: &Limits, buffer: &mut Vec<u8>) -> Result<Progress, Reject> {
        let mut at = 0;
        while at < input.len() {
            match self.state {
                State::Data => {
                    let left = usize::try_from(self.size).unwrap_or(usize::MAX);
                    let end = at + left.min(input.len() - at);
                    self.size -= (end - at) as u64;
                    if self.size == 0 {
                        self.state = State::DataCr;
                    }
                    return Ok(Progress::Data { start: at, end });
                }
                State::Trailers => {
                    return self.trailers(&input[at..], limits, buffer).map(|end| match end {
                        Some(end) => Progress::End { consumed: at + end },
                        None => Progress::NeedMore,
                    });
                }
                _ => {
                    self.framing_byte(input[at], limits)?;
                    at += 1;
                }
            }
        }
        Ok(Progress::NeedMore)
    }

    fn framing_byte(&mut self, byte: u8, limits: &Limits) -> Result<(), Reject> {
        self.state = match (self.state, byte) {
            (State::Size { digits }, _) => return self.size_byte(digits, byte, limits),
            (State::ExtensionStart, _) if !fields::valid_token(&[byte]) => {
                return Err(Reject::malformed("a chunk extension has no name"));
            }
            (State::ExtensionStart | State::Extension, b'\r') => State::SizeLf,
            (State::ExtensionStart | State::Extension, _) => return self.extension_byte(byte),
            (State::SizeLf, b'\n') if self.size == 0 => State::Trailers,
            (State::SizeLf, b'\n') => State::Data,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => {
                self.size = 0;
                State::Size { digits: 0 }
            }
            (State::SizeLf | State::DataLf, _) => {
                return Err(Reject::malformed("a CR in the chunk framing lacks its LF"));
            }
            _ => {
                return Err(Reject::malformed("a chunk's data does not end where its size says"));
            }
        };
        Ok(())
    }

    fn size_byte(&mut self, digits: u8, byte: u8, limits: &Limits) -> Result<(), Reject> {
        if let Some(digit) = (byte as char).to_digit(16) {
            if digits == CHUNK_SIZE_DIGITS {
                return Err(Reject::malformed("a chunk size has too many digits"));
            }
            self.size = (self.size << 4) | u64::from(digit);
            self.state = State::Size { digits: digits + 1 };
            return Ok(());
        }
        if digits == 0 || !matches!(byte, b'\r' | b';') {
            return Err(Reject::malformed("a chunk size is not a bare hexadecimal number ended by CRLF"));
        }
        self.total_bytes = self.total_bytes.saturating_add(self.size);
        if self.total_bytes > limits.body_bytes {
            return Err(BODY_TOO_LARGE);
        }
        self.extension_bytes = 0;
        self.state = if byte == b'\r' { State::SizeLf } else { State::ExtensionStart };
        Ok(())
    }

    fn extension_byte(&mut self, byte: u8) -> Result<(), Reject> {
        if byte != b'\t' && (byte < 0x20 || byte == 0x7f) {
            return Err(Reject::malformed("a chunk extension holds a control character"));
        }
        self.extension_bytes += 1;
        self.extension_total_bytes += 1;
        if self.extension_bytes > CHUNK_EXTENSION_BYTES || self.extension_total_bytes > CHUNK_EXTENSION_TOTAL_BYTES {
            return Err(Reject::malformed("the chunk extensions are over the limit"));
        }
        self.state = State::Extension;
        Ok(())
    }

    /// `Some(end)` once the trailer section, with its empty line, ends before `input[end]`.
    fn trailers(&mut self, input: &[u8], limits: &Limits, buffer: &mut Vec<u8>) -> Result<Option<usize>, Reject> {
        let bounds = Bounds { section_bytes: limits.head_bytes, first_line_bytes: usize::MAX, lines: limits.headers };
        let end = self.scanner.feed(input, &bounds).map_err(trailer_reject)?;
        let Some(end) = end else {
            buffer.extend_from_slice(input);
            return Ok(None);
        };
        if buffer.is_empty() {
            check_trailers(&input[..end])?;
        } else {
            buffer.extend_from_slice(&input[..end]);
            check_trailers(buffer)?;
            buffer.clear();
        }
        Ok(Some(end))
    }
}

fn trailer_reject(fault: Fault) -> Reject {
    match fault {
        Fault::SectionTooLong | Fault::FirstLineTooLong | Fault::TooManyLines => {
            Reject::new(ErrorKind::HeadersTooLarge, "the trailers are over the limit")
        }
        Fault::BareLf => Reject::malformed("a line of the trailers ends in LF without CR"),
        Fault::BareCr => Reject::malformed("a CR in the trailers is not followed by LF"),
        Fault::Control => Reject::malformed("the trailers hold a control character"),
    }
}

fn check_trailers(section: &[u8]) -> Result<(), Reject> {
    if section == b"\r\n" {
        return Ok(());
    }
    let mut table = [httparse::EMPTY_HEADER; HEADERS_CAP];
    let Ok(httparse::Status::Complete((end, trailers))) = httparse::parse_headers(section, &mut table) else {
        return Err(Reject::malformed("a trailer is not NAME: VALUE"));
    };
    if end != section.len() {
        return Err(Reject::malformed("the trailers do not end where their empty line is"));
    }
    if trailers.iter().any(|trailer| forbidden_in_trailer(trailer.name.as_bytes())) {
        return Err(Reject::malformed("a trailer carries a field that may stand only in the head"));
    }
    Ok(())
}

/// Fields that change framing, routing, authentication or the reading of the body (RFC 9110, section 6.5.1).
fn forbidden_in_trailer(name: &[u8]) -> bool {
    const HEAD_ONLY: [&str; 14] = [
        "host",
        "authorization",
        "proxy-authorization",
        "cookie",
        "set-cookie",
        "content-type",
        "content-encoding",
        "content-range",
        "expect",
        "range",
        "cache-control",
        "max-forwards",
        "proxy-connection",
        "age",
    ];
    fields::frames_message(name) || HEAD_ONLY.iter().any(|field| name.eq_ignore_ascii_case(field.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_written_with_the_shortest_size() {
        for (bytes, size) in [(1, "1"), (15, "f"), (16, "10"), (255, "ff"), (256, "100"), (70_000, "11170")] {
            let mut out = Vec::new();
            write_chunk(&mut out, &vec![b'x'; bytes]);
            assert!(out.starts_with(format!("{size}\r\nx").as_bytes()), "{bytes}");
            assert_eq!(out.len(), size.len() + 2 + bytes + 2);
            assert!(out.ends_with(b"x\r\n"));
        }
        let mut out = Vec::new();
        write_chunk(&mut out, b"");
        assert!(out.is_empty());
    }

    #[test]
    fn what_is_written_is_read_back() {
        let data: Vec<u8> = (0..5000u32).map(|index| index as u8).collect();
        let mut wire = Vec::new();
        for part in data.chunks(777) {
            write_chunk(&mut wire, part);
        }
        wire.extend_from_slice(LAST_CHUNK);
        wire.extend_from_slice(b"next");

        let (mut chunked, mut buffer, mut read, mut at) = (Chunked::new(), Vec::new(), Vec::new(), 0);
        loop {
            match chunked.advance(&wire[at..], &Limits::DEFAULT, &mut buffer).expect("the writer is correct") {
                Progress::NeedMore => panic!("the body is whole"),
                Progress::Data { start, end } => {
                    read.extend_from_slice(&wire[at + start..at + end]);
                    at += end;
                }
                Progress::End { consumed } => {
                    at += consumed;
                    break;
                }
            }
        }
        assert_eq!(read, data);
        assert_eq!(&wire[at..], b"next");
    }
}
