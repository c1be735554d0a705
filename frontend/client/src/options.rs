//! Every bound and wait of a client, in one place.

use std::time::Duration;

/// What a connection allows and how long it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes of an answer that may be under way before the client has taken them, for each request. A smaller window bounds
    /// memory, a larger one keeps a long line full.
    pub window_bytes: u64,
    /// Largest answer that is put together; a larger one is cancelled.
    pub answer_bytes: u64,
    /// Most requests in flight on a connection; the server may allow fewer.
    pub in_flight: u32,
    /// How long a connection, with its handshake, may take.
    pub connect_timeout: Duration,
    /// How long an answer may take from when it is asked for, or from one part of it to the next, and sending what waits to be
    /// sent; `Duration::MAX`: as long as it takes.
    pub timeout: Duration,
    /// The map of functions, and its changes, are wanted.
    pub wants_map: bool,
    /// The server may answer in parts. A [`Connection`](crate::Connection) puts them together unless it is asked for them.
    pub takes_parts: bool,
}

impl Options {
    /// A window of 1 MiB, answers up to 1 GiB, 1,024 in flight, 5 s to connect, 60 s for an answer, no map, answers in parts.
    pub const DEFAULT: Options = Options {
        window_bytes: 1024 * 1024,
        answer_bytes: 1024 * 1024 * 1024,
        in_flight: 1024,
        connect_timeout: Duration::from_secs(5),
        timeout: Duration::from_secs(60),
        wants_map: false,
        takes_parts: true,
    };
}

impl Default for Options {
    fn default() -> Options {
        Options::DEFAULT
    }
}
