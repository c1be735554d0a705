//! Requests between their last byte and their answer: of an invocation, on the shard that owns its function, and of
//! administration, on the control thread. They know no socket and no sandbox.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use vilya_engine::{FunctionId, InvocationId, StartKind};

use crate::arena::Slice;
use crate::response::ContentType;
use crate::slots::Key;

/// What an administrative request asks for; a body travels beside it.
#[derive(Debug)]
pub(crate) enum AdminCall {
    Deploy { name: Box<str> },
    Get { name: Box<str> },
    Remove { name: Box<str> },
    List,
    Sandboxes,
    Logs { name: Box<str>, query: Box<str> },
    Metrics,
    Version,
}

/// Whom an answer goes to, on the shard that the connection is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Client {
    /// An HTTP connection's request at hand.
    Http(Key),
    /// A request of a connection of the binary protocol. The serial number tells it from later ones of the same id.
    Wire { connection: Key, id: u64, serial: u32 },
}

/// Where an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Source {
    pub(crate) shard: usize,
    pub(crate) client: Client,
}

/// The id of a request, unique across restarts: a random half and a counted half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestId(pub(crate) [u8; 16]);

impl RequestId {
    /// The id as 32 hexadecimal digits.
    pub(crate) fn hex(self) -> [u8; 32] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 32];
        for (i, byte) in self.0.into_iter().enumerate() {
            text[2 * i] = DIGITS[usize::from(byte >> 4)];
            text[2 * i + 1] = DIGITS[usize::from(byte & 15)];
        }
        text
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.hex()).map_err(|_| fmt::Error)?)
    }
}

/// Makes request ids; one a shard.
pub(crate) struct RequestIds {
    run: u64,
    next: u64,
}

impl RequestIds {
    /// `run` is random per start of the worker; the shard's number keeps the shards' counters apart.
    pub(crate) fn new(run: u64, shard: usize) -> Self {
        RequestIds { run, next: (shard as u64) << 48 }
    }

    pub(crate) fn next(&mut self) -> RequestId {
        self.next += 1;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.run.to_be_bytes());
        id[8..].copy_from_slice(&self.next.to_be_bytes());
        RequestId(id)
    }
}

/// Sixty-four bits that differ from one start of a worker to the next.
pub(crate) fn random_u64() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // The standard library seeds its hasher from the kernel's randomness; the counter separates calls of one process.
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let mut hasher = std::hash::RandomState::new().build_hasher();
    // Relaxed: only distinctness matters, nothing is published through it.
    hasher.write_u64(CALLS.fetch_add(1, Ordering::Relaxed));
    hasher.finish()
}

/// Wall-clock time in milliseconds since 1970; 0 before that.
pub(crate) fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

/// What a client sent of an invocation, in one buffer: content type, trace context, body.
#[derive(Debug, Default)]
pub(crate) struct RequestText {
    bytes: Vec<u8>,
    content_type_bytes: u16,
    trace_parent_bytes: u16,
}

/// A header that is longer than anything sensible is left out rather than cut. Trace contexts are at most 55 bytes in
/// version 00 (W3C Trace Context).
const CONTENT_TYPE_BYTES: usize = 256;
const TRACE_PARENT_BYTES: usize = 64;

impl RequestText {
    /// An empty body behind these headers, in a buffer that is used for all three.
    pub(crate) fn new(mut bytes: Vec<u8>, content_type: &[u8], trace_parent: &[u8]) -> RequestText {
        let bounded = |value: &[u8], limit| if value.len() <= limit { value.len() } else { 0 };
        let content_type = &content_type[..bounded(content_type, CONTENT_TYPE_BYTES)];
        let trace_parent = &trace_parent[..bounded(trace_parent, TRACE_PARENT_BYTES)];
        bytes.clear();
        bytes.extend_from_slice(content_type);
        bytes.extend_from_slice(trace_parent);
        RequestText {
            bytes,
            content_type_bytes: content_type.len() as u16,
            trace_parent_bytes: trace_parent.len() as u16,
        }
    }

    fn head_bytes(&self) -> usize {
        usize::from(self.content_type_bytes) + usize::from(self.trace_parent_bytes)
    }

    pub(crate) fn content_type(&self) -> &[u8] {
        &self.bytes[..usize::from(self.content_type_bytes)]
    }

    pub(crate) fn trace_parent(&self) -> &[u8] {
        &self.bytes[usize::from(self.content_type_bytes)..self.head_bytes()]
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.bytes[self.head_bytes()..]
    }

    /// Makes room for a body of which so many bytes are to come.
    pub(crate) fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve(bytes);
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The body by itself; free of charge where nothing stands before it.
    pub(crate) fn into_body(mut self) -> Vec<u8> {
        self.bytes.drain(..self.head_bytes());
        self.bytes
    }

    /// The buffer, to append to the body.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The buffer, for another use.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }
}

/// An invocation request as its owner shard holds it.
pub(crate) struct Request {
    pub(crate) source: Source,
    pub(crate) function: FunctionId,
    pub(crate) id: RequestId,
    pub(crate) received_unix_ms: u64,
    pub(crate) text: RequestText,
    /// When its client stops waiting; `u64::MAX`: never.
    pub(crate) deadline_ns: u64,
    /// Set when the engine has admitted it.
    pub(crate) invocation: Option<InvocationId>,
    /// Set when it has been given to a sandbox.
    pub(crate) run: Option<Run>,
    /// The size of a body that is still to come, while a lane is asked for or lent.
    pub(crate) awaits_bytes: Option<u64>,
    /// The body on its way into a lane.
    pub(crate) upload: Option<Key>,
    /// The body, whole in the lane that is to run it.
    pub(crate) in_lane: Option<Slice>,
    /// Its client takes an answer in parts.
    pub(crate) takes_parts: bool,
    /// And has been given some.
    pub(crate) has_begun: bool,
    /// The parts so far of an answer that is to be whole.
    pub(crate) gathered: Option<Box<Gathered>>,
}

/// Parts of an answer for a client that takes none.
#[derive(Debug)]
pub(crate) struct Gathered {
    /// Held of the shard's body budget.
    pub(crate) bytes: Vec<u8>,
    pub(crate) content_type: ContentType,
    /// There is no room for all of it.
    pub(crate) is_too_large: bool,
}

impl Gathered {
    pub(crate) fn new(content_type: ContentType) -> Gathered {
        Gathered { bytes: Vec::new(), content_type, is_too_large: false }
    }
}

impl Request {
    pub(crate) fn new(
        source: Source,
        function: FunctionId,
        id: RequestId,
        received_unix_ms: u64,
        text: RequestText,
    ) -> Self {
        Request {
            source,
            function,
            id,
            received_unix_ms,
            text,
            deadline_ns: u64::MAX,
            invocation: None,
            run: None,
            awaits_bytes: None,
            upload: None,
            in_lane: None,
            takes_parts: false,
            has_begun: false,
            gathered: None,
        }
    }
}

/// What is known of a request once it runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) start: StartKind,
    pub(crate) queued_ns: u64,
    pub(crate) starting_ns: u64,
    pub(crate) dispatched_ns: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_parts_of_a_request_stay_apart() {
        let mut text = RequestText::new(b"used before".to_vec(), b"text/plain", b"00-11-22-01");
        text.append(b"body");
        assert_eq!(
            (text.content_type(), text.trace_parent(), text.body()),
            (&b"text/plain"[..], &b"00-11-22-01"[..], &b"body"[..])
        );
        assert_eq!(text.into_body(), b"body");
        let text = RequestText::new(Vec::new(), &[b'x'; 257], &[b'y'; 65]);
        assert_eq!((text.content_type(), text.trace_parent(), text.body()), (&b""[..], &b""[..], &b""[..]));
    }

    #[test]
    fn ids_of_two_shards_never_meet() {
        let run = random_u64();
        let (mut a, mut b) = (RequestIds::new(run, 0), RequestIds::new(run, 1));
        let ids: std::collections::HashSet<[u8; 16]> = (0..1000).flat_map(|_| [a.next().0, b.next().0]).collect();
        assert_eq!(ids.len(), 2000);
        assert_eq!(a.next().to_string().len(), 32);
    }
}
