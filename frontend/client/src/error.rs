//! Why there is no answer.

use std::{fmt, io};

use vilya_protocol::wire::WireError;

/// Why there is no answer. An answer with an error in it is an [`Answer`](crate::Answer) with a status from 400 up.
#[derive(Debug)]
pub enum Error {
    /// The socket failed. The connection is of no further use.
    Io(io::Error),
    /// The server ended the connection. Whether the request ran is not known.
    Closed,
    /// The server said that it ends the connection, and why.
    Goaway {
        /// A status of the table of errors.
        status: u16,
        /// For people.
        text: String,
    },
    /// The server broke the protocol. The connection is of no further use.
    Protocol(WireError),
    /// The request breaks a rule; nothing was sent.
    Request(WireError),
    /// As many requests are in flight as the server, or the options, allow; nothing was sent.
    Busy,
    /// The payload is larger than the server takes; nothing was sent.
    PayloadTooLarge {
        /// The most that it takes.
        most_bytes: u64,
    },
    /// The answer came in parts and ended before it was whole.
    Cut {
        /// Why: a status of the table of errors.
        status: u16,
        /// The error as JSON, or nothing.
        body: Vec<u8>,
    },
    /// The answer is larger than the options allow; it was cancelled.
    AnswerTooLarge {
        /// Its size; of one in parts, what had come of it.
        bytes: u64,
    },
    /// No answer came in time; it was cancelled.
    TimedOut,
    /// The address is none, or nothing is in flight that an answer could come for.
    Usage(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io(error) => write!(f, "the connection failed: {error}"),
            Error::Closed => f.write_str("the server ended the connection"),
            Error::Goaway { status, text } => write!(f, "the server ended the connection: {status} {text}"),
            Error::Protocol(error) => write!(f, "the server broke the protocol: {}", error.message),
            Error::Request(error) => write!(f, "the request cannot be sent: {}", error.message),
            Error::Busy => f.write_str("too many requests are in flight: receive an answer first"),
            Error::PayloadTooLarge { most_bytes } => write!(f, "the payload is over {most_bytes} bytes"),
            Error::Cut { status, body } => {
                write!(f, "the answer was cut before it was whole: {status} {}", String::from_utf8_lossy(body))
            }
            Error::AnswerTooLarge { bytes } => {
                write!(f, "the answer has at least {bytes} bytes: raise the limit of answers to take it")
            }
            Error::TimedOut => f.write_str("no answer came in time"),
            Error::Usage(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io(error) => Some(error),
            Error::Protocol(error) | Error::Request(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
                Error::Closed
            }
            _ => Error::Io(error),
        }
    }
}
