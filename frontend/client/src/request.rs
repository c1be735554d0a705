//! What is asked, and what comes back.

use vilya_protocol::wire::Report;

/// A request to a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The function.
    pub name: &'a str,
    /// What the function gets.
    pub payload: &'a [u8],
    /// Type of the payload, at most 255 bytes; empty: not said.
    pub content_type: &'a [u8],
    /// W3C trace context; empty: none.
    pub trace_parent: &'a [u8],
    /// Milliseconds after which the server gives up and answers 504; 0: as long as it takes.
    pub deadline_ms: u32,
}

impl<'a> Request<'a> {
    /// A request of these two, with the type `application/octet-stream` and no deadline.
    pub const fn new(name: &'a str, payload: &'a [u8]) -> Request<'a> {
        Request { name, payload, content_type: b"application/octet-stream", trace_parent: b"", deadline_ms: 0 }
    }
}

/// The answer to a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The request, as [`Connection::send`](crate::Connection::send) numbered it.
    pub id: u64,
    /// As over HTTP: 200 where the function returned; from 400 up an error, with JSON in the body.
    pub status: u16,
    /// Type of the body; empty if it was not said.
    pub content_type: Vec<u8>,
    /// What the function returned, or what went wrong.
    pub body: Vec<u8>,
    /// How the request was run.
    pub report: Report,
}
