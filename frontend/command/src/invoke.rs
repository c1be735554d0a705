//! `invoke`: one payload in, one answer out. The answer's bytes go to standard output (or a file) as they are and as they
//! come; everything said about them goes to standard error.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use crate::arguments::{Invoke, Protocol};
use crate::client::{Answer, Client};
use crate::failure::Failure;
use crate::output::{Screen, note};
use crate::wire;

pub(crate) fn invoke(client: &Client, asked: &Invoke, screen: &mut Screen) -> Result<(), Failure> {
    let payload = Payload::read(asked.data.as_deref(), &mut std::io::stdin())?;
    let content_type = asked.content_type.as_deref().unwrap_or_else(|| payload.content_type());
    let mut place = Place { output: asked.output.as_deref(), file: None, last: None, screen };
    let mut take = |piece: &[u8]| place.take(piece);
    let (name, bytes) = (asked.name.as_str(), payload.bytes.as_slice());
    let outcome = match asked.wire.protocol {
        Protocol::Http => client.invoke(name, bytes, content_type, &mut take),
        Protocol::Binary => wire::invoke(&asked.wire.wire_address, name, bytes, content_type, &mut take),
    };
    place.end()?;
    let answer = outcome?;
    if asked.verbose {
        describe(&answer);
    }
    if let Some(error) = answer.error() {
        if asked.verbose {
            error.stack_trace.iter().for_each(|frame| note(frame.trim_end()));
        }
        return Err(client.invocation_failure(&asked.name, &answer, &error));
    }
    place.take(b"")
}

/// Where an answer goes: standard output, or a file, which is made when something comes of a good answer.
struct Place<'a> {
    output: Option<&'a Path>,
    file: Option<File>,
    last: Option<u8>,
    screen: &'a mut Screen,
}

impl Place<'_> {
    fn take(&mut self, piece: &[u8]) -> Result<(), Failure> {
        self.last = piece.last().copied().or(self.last);
        let Some(path) = self.output else { return self.screen.bytes(piece) };
        let failed = |error| Failure::file("write", path, &error);
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(File::create(path).map_err(failed)?),
        };
        file.write_all(piece).map_err(failed)
    }

    fn end(&mut self) -> Result<(), Failure> {
        if self.output.is_some() { Ok(()) } else { self.screen.end_foreign(self.last) }
    }
}

/// What is sent to a function.
pub(crate) struct Payload {
    pub(crate) bytes: Vec<u8>,
}

impl Payload {
    /// `data` as it was typed: text, `@FILE`, or `-` for what `stdin` has; nothing when absent.
    pub(crate) fn read(data: Option<&str>, stdin: &mut dyn Read) -> Result<Payload, Failure> {
        let bytes = match data {
            None => Vec::new(),
            Some("-") => {
                let mut bytes = Vec::new();
                stdin
                    .read_to_end(&mut bytes)
                    .map_err(|error| Failure::local(format_args!("cannot read standard input: {error}")))?;
                bytes
            }
            Some(data) => match data.strip_prefix('@') {
                Some(path) => {
                    let path = Path::new(path);
                    std::fs::read(path).map_err(|error| Failure::file("read", path, &error))?
                }
                None => data.as_bytes().to_vec(),
            },
        };
        Ok(Payload { bytes })
    }

    /// What the payload is, as far as it shows.
    pub(crate) fn content_type(&self) -> &'static str {
        if serde_json::from_slice::<serde::de::IgnoredAny>(&self.bytes).is_ok() {
            "application/json"
        } else if !self.bytes.is_empty() && std::str::from_utf8(&self.bytes).is_ok() {
            "text/plain; charset=utf-8"
        } else {
            "application/octet-stream"
        }
    }
}

fn describe(answer: &Answer) {
    let header = |name| answer.header(name).unwrap_or("-");
    let bytes = answer.taken_bytes + answer.body.len() as u64;
    note(format_args!("status {}, {bytes} bytes of {}", answer.status, header("content-type")));
    let shard = answer.header("x-vilya-shard").map_or(String::new(), |shard| format!(", shard {shard}"));
    note(format_args!("request {}, {} start{shard}", header("x-request-id"), header("x-vilya-start")));
    if let Some(timing) = answer.header("server-timing") {
        let parts: Vec<String> =
            phases(timing).map(|(phase, duration_ms)| format!("{phase} {duration_ms:.3} ms")).collect();
        note(parts.join(", "));
    }
}

/// The metrics of a `Server-Timing` header with a duration, in milliseconds. Source: W3C Server Timing, section 2.
pub(crate) fn phases(header: &str) -> impl Iterator<Item = (&str, f64)> {
    header.split(',').filter_map(|metric| {
        let mut parts = metric.split(';').map(str::trim);
        let name = parts.next()?;
        let duration = parts.find_map(|part| part.strip_prefix("dur="))?;
        Some((name, duration.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(data: Option<&str>) -> Vec<u8> {
        Payload::read(data, &mut &b"from stdin"[..]).unwrap().bytes
    }

    #[test]
    fn a_payload_is_text_a_file_or_standard_input() {
        assert_eq!(payload(None), b"");
        assert_eq!(payload(Some("text")), b"text");
        assert_eq!(payload(Some("-")), b"from stdin");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"\xff").unwrap();
        assert_eq!(payload(Some(&format!("@{}", file.path().display()))), b"\xff");
        let absent = Payload::read(Some("@/absent/file"), &mut std::io::empty()).err().unwrap();
        assert_eq!(absent.fault().code(), 5);
    }

    #[test]
    fn the_content_type_is_what_the_bytes_show() {
        let of = |bytes: &[u8]| Payload { bytes: bytes.to_vec() }.content_type();
        assert_eq!(of(b"{\"a\": 1}"), "application/json");
        assert_eq!(of(b"plain words"), "text/plain; charset=utf-8");
        assert_eq!(of(b"\xff\xd8\xff"), "application/octet-stream");
        assert_eq!(of(b""), "application/octet-stream");
    }

    #[test]
    fn server_timing_is_read_by_name() {
        let read: Vec<_> = phases("queue;dur=0.012, start;desc=\"x\";dur=3, cache, run;dur=nonsense").collect();
        assert_eq!(read, [("queue", 0.012), ("start", 3.0)]);
    }
}
