//! The head of a request: from lines that are known to be well-formed to a [`Head`] whose framing is known.
//!
//! Invariant: a `Head` exists only for a request that has one reading. `Content-Length` and `Transfer-Encoding` never come
//! together, twice, or in a spelling that another parser could read otherwise; `Host` is there once and matches the target.
//!
//! Does not know: how the bytes arrived, or what the request asks for.

use core::mem::MaybeUninit;

use super::fields::{self, Field, Length};
use super::limits::{HEADERS_CAP, METHOD_BYTES};
use super::{Limits, Reject, target};
use crate::error::ErrorKind;

/// A request method. `CONNECT` and `TRACE` are refused by the decoder and so have no variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `DELETE`
    Delete,
    /// `OPTIONS`
    Options,
    /// `PATCH`
    Patch,
    /// Any other token; see [`Head::method_text`].
    Other,
}

/// The HTTP version of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// HTTP/1.0: the connection closes unless the client asks to keep it; no chunked answers.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// How the end of the body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    None,
    Length(u64),
    Chunked,
}

/// The head of one request, borrowed from the input or from the decoder.
#[derive(Clone, Copy)]
pub struct Head<'a> {
    bytes: &'a [u8],
    fields: &'a [Field],
    parsed: Parsed<'a>,
}

/// What [`parse`] found, apart from where the fields lie.
#[derive(Clone, Copy)]
pub(crate) struct Parsed<'a> {
    method: Method,
    method_text: &'a str,
    path: &'a str,
    query: Option<&'a str>,
    version: Version,
    pub(crate) framing: Framing,
    keep_alive: bool,
    expects_continue: bool,
}

impl<'a> Head<'a> {
    pub(crate) fn new(bytes: &'a [u8], fields: &'a [Field], parsed: Parsed<'a>) -> Head<'a> {
        Head { bytes, fields, parsed }
    }

    /// The method.
    pub fn method(&self) -> Method {
        self.parsed.method
    }

    /// The method as it was sent; for [`Method::Other`].
    pub fn method_text(&self) -> &'a str {
        self.parsed.method_text
    }

    /// The path as it was sent: valid, with its escapes in place (see [`percent`](super::percent)). It starts with a slash
    /// or is the `*` of an `OPTIONS`.
    pub fn path(&self) -> &'a str {
        self.parsed.path
    }

    /// What follows the question mark, as it was sent.
    pub fn query(&self) -> Option<&'a str> {
        self.parsed.query
    }

    /// The version.
    pub fn version(&self) -> Version {
        self.parsed.version
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

    /// Length of the body in bytes where it was announced; `None` without a body or with a chunked one.
    pub fn content_length(&self) -> Option<u64> {
        match self.parsed.framing {
            Framing::Length(bytes) => Some(bytes),
            Framing::None | Framing::Chunked => None,
        }
    }

    /// True if the body is chunked. The decoder delivers it without its chunks.
    pub fn chunked(&self) -> bool {
        self.parsed.framing == Framing::Chunked
    }

    /// True if a body of at least one byte, or a chunked one, follows.
    pub fn has_body(&self) -> bool {
        !matches!(self.parsed.framing, Framing::None | Framing::Length(0))
    }

    /// True if the client takes another answer on this connection.
    pub fn keep_alive(&self) -> bool {
        self.parsed.keep_alive
    }

    /// True if the client waits for [`CONTINUE`](super::CONTINUE) before it sends the body.
    pub fn expects_continue(&self) -> bool {
        self.parsed.expects_continue
    }
}

impl core::fmt::Debug for Head<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Head")
            .field("method", &self.method_text())
            .field("path", &self.path())
            .field("query", &self.query())
            .field("version", &self.version())
            .field("framing", &self.parsed.framing)
            .field("keep_alive", &self.keep_alive())
            .field("expects_continue", &self.expects_continue())
            .field("headers", &self.fields.len())
            .finish()
    }
}

/// Parses a whole head (with its empty line) whose lines the scanner has passed. `fields` receives where they lie.
pub(crate) fn parse<'b>(bytes: &'b [u8], limits: &Limits, fields: &mut Vec<Field>) -> Result<Parsed<'b>, Reject> {
    fields.clear();
    let mut table = [const { MaybeUninit::uninit() }; HEADERS_CAP];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, &mut table) {
        Ok(httparse::Status::Complete(end)) if end == bytes.len() => {}
        Ok(_) => {
            return Err(Reject::malformed("the head does not end where its empty line is"));
        }
        Err(error) => return Err(syntax_reject(error, bytes)),
    }
    let (Some(method_text), Some(target_text), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(Reject::malformed("the request line is incomplete"));
    };
    if target_text.len() > limits.target_bytes {
        return Err(TARGET_TOO_LONG);
    }
    let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    let method = parse_method(method_text)?;
    let target = target::parse(method, target_text)?;

    let mut meaning = Meaning::default();
    for header in request.headers.iter() {
        meaning.take(header)?;
        fields.push(Field::locate(bytes, header.name, header.value));
    }
    meaning.check_host(version, target.authority)?;
    let framing = meaning.framing(version, limits)?;
    Ok(Parsed {
        method,
        method_text,
        path: target.path,
        query: target.query,
        version,
        framing,
        keep_alive: !meaning.close && (version == Version::Http11 || meaning.keep_alive),
        // RFC 9110, section 10.1.1: ignored from a 1.0 client and without a body to wait for.
        expects_continue: meaning.expects_continue
            && version == Version::Http11
            && !matches!(framing, Framing::None | Framing::Length(0)),
    })
}

pub(crate) const TARGET_TOO_LONG: Reject = Reject::new(ErrorKind::TargetTooLong, "the target is over the limit");

fn parse_method(text: &str) -> Result<Method, Reject> {
    Ok(match text {
        "GET" => Method::Get,
        "POST" => Method::Post,
        "HEAD" => Method::Head,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "OPTIONS" => Method::Options,
        "PATCH" => Method::Patch,
        "CONNECT" | "TRACE" => {
            return Err(Reject::new(ErrorKind::Unsupported, "CONNECT and TRACE are not implemented"));
        }
        _ if text.len() > METHOD_BYTES => {
            return Err(Reject::new(ErrorKind::Unsupported, "no method with so long a name is implemented"));
        }
        _ => Method::Other,
    })
}

fn syntax_reject(error: httparse::Error, bytes: &[u8]) -> Reject {
    use httparse::Error as E;
    match error {
        E::Version if ends_in_other_version(bytes) => {
            Reject::new(ErrorKind::UnsupportedVersion, "only HTTP/1.0 and HTTP/1.1 are spoken here")
        }
        E::TooManyHeaders => Reject::new(ErrorKind::HeadersTooLarge, "there are more headers than the limit"),
        E::HeaderName => Reject::malformed("a header's name is empty, folded, or holds a character that is no token's"),
        E::HeaderValue => Reject::malformed("a header's value holds a control character"),
        E::Token | E::Version | E::NewLine | E::Status => {
            Reject::malformed("the request line is not METHOD SP TARGET SP HTTP/1.1")
        }
    }
}

/// True if the request line is three words of which the last is `HTTP/d.d`: a version, and not garbage in its place.
fn ends_in_other_version(bytes: &[u8]) -> bool {
    let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ').skip(2);
    let version = words.next().and_then(|word| word.strip_prefix(b"HTTP/"));
    words.next().is_none()
        && matches!(version, Some([major, b'.', minor]) if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// What the fields that frame a request say, while they are read.
#[derive(Default)]
struct Meaning<'b> {
    host: Option<&'b str>,
    length: Option<Length>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
}

impl<'b> Meaning<'b> {
    fn take(&mut self, header: &httparse::Header<'b>) -> Result<(), Reject> {
        let name = header.name;
        match name.len() {
            4 if name.eq_ignore_ascii_case("host") => self.take_host(header.value),
            6 if name.eq_ignore_ascii_case("expect") => self.take_expect(header.value),
            10 if name.eq_ignore_ascii_case("connection") => {
                self.close |= fields::lists(header.value, "close");
                self.keep_alive |= fields::lists(header.value, "keep-alive");
                Ok(())
            }
            14 if name.eq_ignore_ascii_case("content-length") => self.take_length(header.value),
            17 if name.eq_ignore_ascii_case("transfer-encoding") => self.take_coding(header.value),
            _ => Ok(()),
        }
    }

    fn take_host(&mut self, value: &'b [u8]) -> Result<(), Reject> {
        if self.host.is_some() {
            return Err(Reject::malformed("there is more than one Host header"));
        }
        match core::str::from_utf8(value) {
            Ok(host) if target::valid_authority(host) => {
                self.host = Some(host);
                Ok(())
            }
            _ => Err(Reject::malformed("the Host header is not a host with an optional port")),
        }
    }

    fn take_expect(&mut self, value: &[u8]) -> Result<(), Reject> {
        if !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(Reject::new(ErrorKind::ExpectationFailed, "the only expectation met is 100-continue"));
        }
        self.expects_continue = true;
        Ok(())
    }

    fn take_length(&mut self, value: &[u8]) -> Result<(), Reject> {
        if self.length.is_some() {
            return Err(Reject::malformed("there is more than one Content-Length header"));
        }
        match fields::parse_length(value) {
            Length::Malformed => Err(Reject::malformed("the Content-Length is not a plain decimal number")),
            length => {
                self.length = Some(length);
                Ok(())
            }
        }
    }

    fn take_coding(&mut self, value: &[u8]) -> Result<(), Reject> {
        if self.chunked {
            return Err(Reject::malformed("there is more than one Transfer-Encoding header"));
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Reject::malformed("the Transfer-Encoding is not exactly 'chunked'"));
        }
        self.chunked = true;
        Ok(())
    }

    fn check_host(&self, version: Version, authority: Option<&str>) -> Result<(), Reject> {
        match (self.host, authority) {
            (None, _) if version == Version::Http11 => {
                Err(Reject::malformed("an HTTP/1.1 request needs a Host header"))
            }
            (Some(host), Some(authority)) if !host.eq_ignore_ascii_case(authority) => {
                Err(Reject::malformed("the Host header and the target name different hosts"))
            }
            _ => Ok(()),
        }
    }

    fn framing(&self, version: Version, limits: &Limits) -> Result<Framing, Reject> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(Reject::malformed("Content-Length and Transfer-Encoding come together")),
            (true, None) if version == Version::Http10 => Err(Reject::malformed("HTTP/1.0 has no Transfer-Encoding")),
            (true, None) => Ok(Framing::Chunked),
            (false, None) => Ok(Framing::None),
            (false, Some(Length::Bytes(bytes))) if bytes <= limits.body_bytes => Ok(Framing::Length(bytes)),
            (false, Some(_)) => Err(BODY_TOO_LARGE),
        }
    }
}

pub(crate) const BODY_TOO_LARGE: Reject = Reject::new(ErrorKind::PayloadTooLarge, "the body is over the limit");
