//! What a session makes of what the server sends.

use vilya_protocol::wire::{MapFrame, ResponseHead};

/// What one call of [`Session::read`](crate::Session::read) found.
#[derive(Debug, PartialEq)]
pub enum Event<'a> {
    /// All input was consumed and the next event needs more.
    NeedMore,
    /// Something that is the session's own affair; read on.
    Handled,
    /// The handshake is over: requests may be started.
    Welcome,
    /// Owners of functions.
    Map(MapFrame<'a>),
    /// An answer; its payload follows unless `end`.
    Answer {
        /// Its head.
        head: ResponseHead<'a>,
        /// It has no payload: the request is over.
        end: bool,
    },
    /// The next part of an answer's payload.
    Payload {
        /// The request.
        id: u64,
        /// The part; a slice of the input.
        bytes: &'a [u8],
        /// The request is over.
        end: bool,
    },
    /// An answer in parts is whole: the request is over. An answer may also end with its last [`Payload`](Event::Payload).
    End {
        /// The request.
        id: u64,
    },
    /// An answer in parts ends and is not whole: the request is over.
    Cut {
        /// The request.
        id: u64,
        /// A status of the table of errors.
        status: u16,
        /// The error as JSON, or nothing.
        body: &'a [u8],
    },
    /// An answer whose size was announced was cut short after [`Session::cancel`](crate::Session::cancel): the request is over.
    CutShort {
        /// The request.
        id: u64,
    },
    /// More of a payload may be pushed.
    Credit {
        /// The request.
        id: u64,
    },
    /// The answer to a [`Session::ping`](crate::Session::ping).
    Pong {
        /// Its id.
        id: u64,
    },
    /// The server ends the connection; after 503 what is in flight is still answered, and nothing else may be started.
    Goaway {
        /// A status of the table of errors.
        status: u16,
        /// For people.
        text: &'a str,
    },
}
