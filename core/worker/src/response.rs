//! What goes back to a client, before it is bytes: every status of the worker is chosen here or in the table of
//! `vilya_protocol::error`.
//!
//! Invariant: a failure is never a 2xx. It knows no connection and no protocol state.

use std::io::Write;

use vilya_engine::{Refusal, StartKind};
use vilya_protocol::error::{self, ErrorKind};
use vilya_protocol::http::ResponseHead;

use crate::arena::LaneBytes;
use crate::request::{RequestId, Run};

/// The kind of bytes in a body.
#[derive(Debug)]
// In place: a box would be an allocation an invocation.
#[allow(clippy::large_enum_variant)]
pub(crate) enum ContentType {
    Json,
    Text,
    /// Prometheus text exposition format, version 0.0.4.
    Metrics,
    /// As the function said; empty means unknown bytes.
    Function(vilya_ipc::metadata::ContentType),
}

impl ContentType {
    pub(crate) fn as_str(&self) -> &str {
        match self {
            ContentType::Json => "application/json",
            ContentType::Text => "text/plain; charset=utf-8",
            ContentType::Metrics => "text/plain; version=0.0.4; charset=utf-8",
            // A function is hostile: one that could split the response was not let through by `ipc`.
            ContentType::Function(given) => std::str::from_utf8(given)
                .ok()
                .filter(|given| !given.is_empty() && vilya_protocol::http::valid_header_value(given.as_bytes()))
                .unwrap_or("application/octet-stream"),
        }
    }
}

/// The bytes of an answer.
#[derive(Debug)]
pub(crate) enum Body {
    Bytes(Vec<u8>),
    /// In the lane they were written in.
    Lane(LaneBytes),
}

impl Body {
    pub(crate) fn len(&self) -> usize {
        match self {
            Body::Bytes(bytes) => bytes.len(),
            Body::Lane(lane) => lane.slice.len(),
        }
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) content_type: ContentType,
    pub(crate) body: Body,
    pub(crate) request_id: Option<RequestId>,
    pub(crate) run: Option<(Run, u64)>,
    /// The shard that ran it.
    pub(crate) shard: Option<u16>,
    pub(crate) retry_after_s: Option<u32>,
    pub(crate) allow: Option<&'static str>,
    /// The connection ends after this answer.
    pub(crate) close: bool,
}

impl Response {
    pub(crate) fn new(status: u16, content_type: ContentType, body: Vec<u8>) -> Self {
        Response {
            status,
            content_type,
            body: Body::Bytes(body),
            request_id: None,
            run: None,
            shard: None,
            retry_after_s: None,
            allow: None,
            close: false,
        }
    }

    /// The answer to an error of the table, with a message that says what to do.
    pub(crate) fn error(kind: ErrorKind, message: &str) -> Self {
        let mut response = Response::new(kind.status(), ContentType::Json, error::body(kind, message));
        response.retry_after_s = kind.retry_after_s();
        response
    }

    /// As `error`, for a message that only says what is wrong: the table's advice follows it.
    pub(crate) fn advised(kind: ErrorKind, message: &str) -> Self {
        let mut response = Response::error(kind, "");
        response.body = Body::Bytes(error::advised_body(kind, message));
        response
    }

    /// An error in the place of this answer, for the same request.
    pub(crate) fn instead(self, kind: ErrorKind, message: &str) -> Self {
        Response {
            request_id: self.request_id,
            run: self.run,
            shard: self.shard,
            close: self.close,
            ..Response::error(kind, message)
        }
    }

    /// The answer for a name that no function has.
    pub(crate) fn no_such_function(name: &str) -> Self {
        let message =
            format!("no function is named {name:?}; `vilya list` shows those there are, `vilya deploy DIR` adds one");
        Response::error(ErrorKind::NoSuchFunction, &message)
    }

    /// The answer to a request that the engine did not admit.
    pub(crate) fn refusal(reason: Refusal) -> Self {
        match reason {
            Refusal::NoSuchFunction => {
                Response::error(ErrorKind::NoSuchFunction, "the function was removed while the request was on its way")
            }
            Refusal::QueueFull => {
                Response::error(ErrorKind::QueueFull, "the queue of this function is full; try again later")
            }
            Refusal::InvocationsFull => Response::error(
                ErrorKind::QueueFull,
                "the worker has as many invocations under way as limits.invocations allows; try again later",
            ),
            Refusal::Draining => Response::error(ErrorKind::Draining, "the worker is stopping; try another one"),
            Refusal::TooLarge => Response::error(
                ErrorKind::StartFailed,
                "the function asks for more memory than limits.memory gives this shard; raise the limit or lower the function's memory",
            ),
        }
    }

    /// Writes the head to `out`.
    pub(crate) fn write_head(&self, keep_alive: bool, out: &mut Vec<u8>) {
        self.write_head_for(Some(self.body.len() as u64), keep_alive, out);
    }

    /// As `write_head`, for an answer that comes in parts.
    pub(crate) fn write_head_of_parts(&self, keep_alive: bool, out: &mut Vec<u8>) {
        self.write_head_for(None, keep_alive, out);
    }

    fn write_head_for(&self, bytes: Option<u64>, keep_alive: bool, out: &mut Vec<u8>) {
        let mut timing = [0_u8; 96];
        let id;
        let mut retry = [0_u8; 10];
        let mut shard_digits = [0_u8; 10];
        let mut headers: [(&str, &str); 6] = [("", ""); 6];
        let mut count = 0;
        let mut push = |name, value| {
            headers[count] = (name, value);
            count += 1;
        };
        if let Some(request_id) = self.request_id {
            id = request_id.hex();
            push("x-request-id", std::str::from_utf8(&id).unwrap_or_default());
        }
        if let Some((run, ran_ns)) = &self.run {
            push("x-vilya-start", if run.start == StartKind::Cold { "cold" } else { "warm" });
            push("server-timing", server_timing(run, *ran_ns, &mut timing));
        }
        if let Some(shard) = self.shard {
            push("x-vilya-shard", decimal(u64::from(shard), &mut shard_digits));
        }
        if let Some(seconds) = self.retry_after_s {
            push("retry-after", decimal(u64::from(seconds), &mut retry));
        }
        if let Some(allow) = self.allow {
            push("allow", allow);
        }
        // A 204 has neither (RFC 9110, section 8.6).
        let has_body = self.status != 204;
        ResponseHead {
            status: self.status,
            content_type: has_body.then(|| self.content_type.as_str()),
            content_length: if has_body { bytes } else { Some(0) },
            keep_alive: keep_alive && !self.close,
            headers: &headers[..count],
        }
        .write(out);
    }
}

/// `queue;dur=…, start;dur=…, run;dur=…` in milliseconds with three decimals (W3C Server Timing).
fn server_timing<'a>(run: &Run, ran_ns: u64, buffer: &'a mut [u8]) -> &'a str {
    let length = buffer.len();
    let mut rest = &mut buffer[..];
    let [queue, start, ran] = [run.queued_ns, run.starting_ns, ran_ns].map(|ns| ns.min(999_999_999_999_999) / 1000);
    // 96 bytes hold three 12-digit durations; a write cannot fail for want of room.
    let written = write!(
        rest,
        "queue;dur={}.{:03}, start;dur={}.{:03}, run;dur={}.{:03}",
        queue / 1000,
        queue % 1000,
        start / 1000,
        start % 1000,
        ran / 1000,
        ran % 1000
    );
    let left = rest.len();
    match written {
        Ok(()) => std::str::from_utf8(&buffer[..length - left]).unwrap_or_default(),
        Err(_) => "",
    }
}

fn decimal(value: u64, buffer: &mut [u8]) -> &str {
    let length = buffer.len();
    let mut rest = &mut buffer[..];
    let written = write!(rest, "{value}");
    let left = rest.len();
    match written {
        Ok(()) => std::str::from_utf8(&buffer[..length - left]).unwrap_or_default(),
        Err(_) => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(response: &Response) -> String {
        let mut out = Vec::new();
        response.write_head(true, &mut out);
        String::from_utf8(out).expect("a head is ASCII").to_ascii_lowercase()
    }

    #[test]
    fn timing_has_three_decimals() {
        let run = Run { start: StartKind::Cold, queued_ns: 1_234_567, starting_ns: 999, dispatched_ns: 0 };
        let mut response = Response::new(200, ContentType::Json, b"1".to_vec());
        response.run = Some((run, 12_000_000));
        let head = head(&response);
        assert!(head.contains("server-timing: queue;dur=1.234, start;dur=0.000, run;dur=12.000\r\n"), "{head}");
        assert!(head.contains("x-vilya-start: cold\r\n"), "{head}");
    }

    #[test]
    fn the_longest_timing_fits() {
        let run = Run { start: StartKind::Warm, queued_ns: u64::MAX, starting_ns: u64::MAX, dispatched_ns: 0 };
        let mut buffer = [0; 96];
        assert!(server_timing(&run, u64::MAX, &mut buffer).ends_with("run;dur=999999999.999"));
    }

    #[test]
    fn a_function_names_its_content_type_and_none_means_bytes() {
        let of = |given: &[u8]| {
            let given = vilya_ipc::metadata::ContentType::new(given).expect("it may stand in a head");
            head(&Response::new(200, ContentType::Function(given), Vec::new()))
        };
        assert!(of(b"text/csv").contains("content-type: text/csv\r\n"));
        assert!(of(b"").contains("content-type: application/octet-stream\r\n"));
        assert!(vilya_ipc::metadata::ContentType::new(b"text/plain\r\nset-cookie: a=b").is_none());
    }

    #[test]
    fn full_tells_when_to_come_back() {
        let response = Response::refusal(Refusal::QueueFull);
        assert_eq!(response.status, 429);
        assert!(head(&response).contains("retry-after: "));
    }
}
