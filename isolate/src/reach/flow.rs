//! Bytes on their way from one socket to another.
//!
//! Owns: one direction of a forwarded connection. Invariant: no byte is lost or repeated, no more than one buffer waits, and the end of what
//! one side sends reaches the other after its last byte. Does not know: which side is whose, or when to look.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// Read and not written yet.
    waiting: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// The sender has ended; the receiver is not told yet.
    Ending,
    Ended,
}

impl Flow {
    pub(super) fn wants_to_read(&self) -> bool {
        self.state == State::Open && self.waiting.is_empty()
    }

    pub(super) fn wants_to_write(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Moves what can be moved without waiting: what was left, and one buffer more.
    pub(super) fn carry(&mut self, from: &TcpStream, to: &TcpStream, buffer: &mut [u8]) -> io::Result<()> {
        if self.wants_to_write() {
            let written = write(to, &self.waiting)?;
            self.waiting.drain(..written);
        }
        if self.wants_to_read() {
            match { from }.read(buffer) {
                Ok(0) => self.state = State::Ending,
                Ok(length) => {
                    let written = write(to, &buffer[..length])?;
                    self.waiting.extend_from_slice(&buffer[written..length]);
                }
                Err(error) if is_for_later(&error) => {}
                Err(error) => return Err(error),
            }
        }
        if self.state == State::Ending && self.waiting.is_empty() {
            to.shutdown(Shutdown::Write)?;
            self.state = State::Ended;
        }
        if self.waiting.is_empty() {
            // A connection at rest keeps no memory.
            self.waiting = Vec::new();
        }
        Ok(())
    }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn write(mut to: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match to.write(bytes) {
        Err(error) if is_for_later(&error) => Ok(0),
        result => result,
    }
}
