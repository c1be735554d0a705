//! The one table of errors that a client can see: status, `errorType` and advice, and the JSON body.
//!
//! Invariant: a status code is chosen here and nowhere else; the table is in the order of [`ErrorKind`], which a const
//! assert holds. Whatever a message contains, the body is valid JSON.
//!
//! Does not know: why something failed inside the worker, beyond the kind.

/// What went wrong, as a client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ErrorKind {
    /// The bytes are not one unambiguous HTTP request.
    MalformedRequest,
    /// A frame of the binary protocol breaks its rules.
    ProtocolBroken,
    /// The function name is not one, or the bundle or manifest of a deployment is wrong.
    InvalidFunction,
    /// The path names nothing.
    NotFound,
    /// No function has that name.
    NoSuchFunction,
    /// The path exists, the method on it does not.
    MethodNotAllowed,
    /// The client did not send its request in time.
    RequestTimeout,
    /// The function is being changed by somebody else.
    Conflict,
    /// The body is over the limit.
    PayloadTooLarge,
    /// The target is over the limit.
    TargetTooLong,
    /// The body is of a type that the operation does not take.
    UnsupportedMediaType,
    /// An `Expect` other than `100-continue`.
    ExpectationFailed,
    /// The function's queue is full.
    QueueFull,
    /// Head, headers or trailers are over the limit.
    HeadersTooLarge,
    /// The client cancelled the request. Only the binary protocol answers it.
    Cancelled,
    /// A fault of the worker.
    Internal,
    /// The function raised an error.
    FunctionRaised,
    /// The method or feature is not implemented.
    Unsupported,
    /// The sandbox died while it held the invocation.
    SandboxDied,
    /// The sandbox broke the protocol and was killed.
    SandboxBroken,
    /// No sandbox could be started.
    StartFailed,
    /// The registry of a function's image failed.
    ImageUnavailable,
    /// The worker as a whole holds as many invocations or connections as it may.
    Overloaded,
    /// The worker is shutting down.
    Draining,
    /// The function ran, or waited, longer than its timeout.
    TimedOut,
    /// An HTTP version other than 1.0 and 1.1, or no version of the binary protocol that both sides speak.
    UnsupportedVersion,
    /// The disk is full, or as many functions are deployed as may be.
    StorageFull,
}

struct Row {
    kind: ErrorKind,
    status: u16,
    error_type: &'static str,
    advice: &'static str,
    retry_after_s: Option<u32>,
}

const fn row(kind: ErrorKind, status: u16, error_type: &'static str, advice: &'static str) -> Row {
    // 429 and 503 are the two that pass by themselves.
    let retry_after_s = if status == 429 || status == 503 { Some(1) } else { None };
    Row { kind, status, error_type, advice, retry_after_s }
}

use ErrorKind as K;

#[rustfmt::skip]
const TABLE: [Row; 27] = [
    row(K::MalformedRequest, 400, "MalformedRequest", "send one HTTP/1.1 request with unambiguous framing; the connection is closed"),
    row(K::ProtocolBroken, 400, "ProtocolBroken", "send frames as frontend/protocol/WIRE.md has them; the connection is closed"),
    row(K::InvalidFunction, 400, "InvalidFunction", "correct the function's name, manifest or bundle"),
    row(K::NotFound, 404, "NotFound", "check the path; functions are invoked with POST /fn/{name}"),
    row(K::NoSuchFunction, 404, "NoSuchFunction", "deploy the function first, or list what is deployed with GET /v1/functions"),
    row(K::MethodNotAllowed, 405, "MethodNotAllowed", "use a method that the Allow header lists"),
    row(K::RequestTimeout, 408, "RequestTimeout", "send the whole request sooner"),
    row(K::Conflict, 409, "Conflict", "wait for the other change of this function to finish, then try again"),
    row(K::PayloadTooLarge, 413, "PayloadTooLarge", "send a smaller body, or raise the worker's body limit"),
    row(K::TargetTooLong, 414, "TargetTooLong", "put long arguments into the body"),
    row(K::UnsupportedMediaType, 415, "UnsupportedMediaType", "send a body of a type that the operation takes"),
    row(K::ExpectationFailed, 417, "ExpectationFailed", "send no Expect header other than 100-continue"),
    row(K::QueueFull, 429, "QueueFull", "try again later, or raise the function's queue or concurrency limits"),
    row(K::HeadersTooLarge, 431, "HeadersTooLarge", "send fewer or shorter headers"),
    row(K::Cancelled, 499, "Cancelled", "nothing; the client cancelled the request"),
    row(K::Internal, 500, "Internal", "report this with the request id and the worker's log"),
    row(K::FunctionRaised, 500, "FunctionRaised", "see the function's log for the stack trace"),
    row(K::Unsupported, 501, "Unsupported", "use a method and features that this server implements"),
    row(K::SandboxDied, 502, "SandboxDied", "see the function's log; its memory limit may be too low"),
    row(K::SandboxBroken, 502, "SandboxBroken", "the function's process broke the runtime protocol; see its log"),
    row(K::StartFailed, 502, "StartFailed", "see the function's log for why its runtime did not start"),
    row(K::ImageUnavailable, 502, "ImageUnavailable", "see that the image's registry is there and holds the image whole"),
    row(K::Overloaded, 503, "Overloaded", "try again later, or on another worker"),
    row(K::Draining, 503, "Draining", "the worker is shutting down; use another worker"),
    row(K::TimedOut, 504, "TimedOut", "make the function faster, or raise its timeout"),
    row(K::UnsupportedVersion, 505, "UnsupportedVersion", "speak HTTP/1.1, or version 1 of the binary protocol"),
    row(K::StorageFull, 507, "StorageFull", "remove functions that are not needed, or raise limits.functions"),
];

const _: () = {
    let mut index = 0;
    while index < TABLE.len() {
        assert!(TABLE[index].kind as usize == index, "the table is in the order of ErrorKind");
        index += 1;
    }
    assert!(ErrorKind::StorageFull as usize + 1 == TABLE.len(), "every kind has its row");
};

impl ErrorKind {
    /// Every kind, in the order of the table.
    pub fn all() -> impl Iterator<Item = ErrorKind> {
        TABLE.iter().map(|row| row.kind)
    }

    const fn row(self) -> &'static Row {
        const ROWS: &[Row; 27] = &TABLE;
        &ROWS[self as usize]
    }

    /// The HTTP status code.
    pub const fn status(self) -> u16 {
        self.row().status
    }

    /// The stable name that the body carries as `errorType`.
    pub const fn error_type(self) -> &'static str {
        self.row().error_type
    }

    /// What the reader of the error can do about it.
    pub const fn advice(self) -> &'static str {
        self.row().advice
    }

    /// Value of `Retry-After` in seconds, for the kinds that pass by themselves.
    pub const fn retry_after_s(self) -> Option<u32> {
        self.row().retry_after_s
    }
}

/// The JSON body for an error: `errorType` and `errorMessage`.
pub fn body(kind: ErrorKind, message: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + message.len());
    out.extend_from_slice(b"{\"errorType\":");
    write_json_string(&mut out, kind.error_type());
    out.extend_from_slice(b",\"errorMessage\":");
    write_json_string(&mut out, message);
    out.extend_from_slice(b"}\n");
    out
}

/// As [`body`], for a message that says what is wrong but not what to do: the table's advice follows it.
pub fn advised_body(kind: ErrorKind, message: &str) -> Vec<u8> {
    body(kind, &format!("{message}; {}", kind.advice()))
}

/// Appends `text` as a JSON string with its quotes (RFC 8259, section 7).
pub fn write_json_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for &byte in text.as_bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x00..=0x1f | 0x7f => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_the_ones_promised() {
        let promised = [
            (K::NoSuchFunction, 404),
            (K::MalformedRequest, 400),
            (K::PayloadTooLarge, 413),
            (K::HeadersTooLarge, 431),
            (K::TargetTooLong, 414),
            (K::MethodNotAllowed, 405),
            (K::FunctionRaised, 500),
            (K::SandboxDied, 502),
            (K::SandboxBroken, 502),
            (K::StartFailed, 502),
            (K::ImageUnavailable, 502),
            (K::Draining, 503),
            (K::TimedOut, 504),
            (K::QueueFull, 429),
            (K::Internal, 500),
            (K::NotFound, 404),
            (K::InvalidFunction, 400),
            (K::Unsupported, 501),
            (K::ProtocolBroken, 400),
            (K::Cancelled, 499),
            (K::UnsupportedVersion, 505),
        ];
        for (kind, status) in promised {
            assert_eq!(kind.status(), status, "{kind:?}");
        }
    }

    #[test]
    fn every_row_is_named_after_its_kind_and_gives_advice() {
        for kind in ErrorKind::all() {
            assert_eq!(kind.error_type(), format!("{kind:?}"));
            assert!(!kind.advice().is_empty());
            assert_eq!(kind.retry_after_s().is_some(), matches!(kind.status(), 429 | 503));
        }
    }

    #[test]
    fn body_is_escaped() {
        let bytes = body(K::Internal, "a \"b\" \\ \n\r\t\u{1}\u{7f} \u{e9}");
        let text = String::from_utf8(bytes).expect("the input was UTF-8 and escapes are ASCII");
        assert_eq!(
            text,
            "{\"errorType\":\"Internal\",\"errorMessage\":\"a \\\"b\\\" \\\\ \\n\\r\\t\\u0001\\u007f \u{e9}\"}\n"
        );
    }

    #[test]
    fn advice_follows_the_message() {
        let text = String::from_utf8(advised_body(K::UnsupportedVersion, "HTTP/3")).expect("ASCII");
        assert_eq!(
            text,
            "{\"errorType\":\"UnsupportedVersion\",\"errorMessage\":\"HTTP/3; speak HTTP/1.1, or version 1 of the binary protocol\"}\n"
        );
    }
}
