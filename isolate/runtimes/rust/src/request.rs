//! The request as a handler sees it.

use crate::serve::LaneAdvice;
use std::cell::OnceCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use vilya_ipc::guest;

/// One request. Everything is borrowed from memory that the invocation owns until its handler returns.
pub struct Request<'a> {
    inner: guest::Request<'a>,
    /// Written out when it is asked for.
    id: OnceCell<Id>,
    advice: Advice<'a>,
}

/// A window on what the worker says of an invocation that runs.
pub(crate) enum Advice<'a> {
    /// Asked for when the handler wants to know.
    Asked(LaneAdvice<'a>),
    /// Noted by the thread that listens to the worker.
    Told(&'a AtomicBool),
}

/// A request's id as 32 hexadecimal digits.
struct Id([u8; 32]);

impl<'a> Request<'a> {
    pub(crate) fn new(inner: guest::Request<'a>, advice: Advice<'a>) -> Request<'a> {
        Request { id: OnceCell::new(), inner, advice }
    }

    /// The request's bytes. Large ones are read where the worker received them.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.inner.payload()
    }

    /// The request's id: 32 hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> &str {
        self.id.get_or_init(|| Id::new(&self.inner.metadata().request_id)).as_str()
    }

    /// The content type that the client named; `None` when it named none (or none that is text).
    #[must_use]
    pub fn content_type(&self) -> Option<&'a str> {
        text(self.inner.metadata().content_type.as_slice())
    }

    /// The client's W3C `traceparent`; `None` when it sent none.
    #[must_use]
    pub fn trace_parent(&self) -> Option<&'a str> {
        text(self.inner.metadata().trace_parent.as_slice())
    }

    /// When the worker received the request, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn received_unix_ms(&self) -> u64 {
        self.inner.metadata().received_unix_ms.to_native()
    }

    /// When the worker gives the invocation up, in nanoseconds of `CLOCK_MONOTONIC`.
    #[must_use]
    pub fn deadline_ns(&self) -> u64 {
        self.inner.deadline_ns()
    }

    /// The time left until the deadline; zero when it has passed.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        Duration::from_nanos(self.deadline_ns().saturating_sub(guest::monotonic_ns()))
    }

    /// Whether nobody waits for the answer any more. Advice: a handler may stop early, and must return all the same.
    #[must_use]
    pub fn cancelled(&self) -> bool {
        match &self.advice {
            Advice::Asked(lane) => lane.cancelled(),
            // Relaxed: advice, which guards no other memory.
            Advice::Told(cancelled) => cancelled.load(Ordering::Relaxed),
        }
    }
}

impl Id {
    fn new(bytes: &[u8; 16]) -> Id {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        Id(std::array::from_fn(|at| {
            let byte = bytes[at / 2];
            DIGITS[usize::from(if at % 2 == 0 { byte >> 4 } else { byte & 15 })]
        }))
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hexadecimal digits are ASCII")
    }
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_its_bytes_in_hexadecimal() {
        let bytes = [0x00, 0x01, 0x0F, 0x10, 0xAB, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x7E];
        assert_eq!(Id::new(&bytes).as_str(), "00010f10abff0000000000000000007e");
    }
}
