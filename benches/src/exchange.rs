//! A request and how its whole answer is known.
//!
//! Invariant: an answer is looked at in its first and last bytes alone, so that judging one costs a client the same
//! whatever the protocol, and ratios between protocols are of servers. It does not know sockets.

use std::io;

/// The bytes that end every payload made here, and appear nowhere else in it.
pub const MARK: &[u8] = b"<the end of it>";

/// A request that is sent again and again, and what its answers look like.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Sent as it is.
    pub request: Vec<u8>,
    /// An answer that does not begin so is a failure.
    pub head: Vec<u8>,
    /// An answer that ends so is whole.
    pub tail: Vec<u8>,
}

impl Exchange {
    /// Bytes that come back as they are.
    #[must_use]
    pub fn echo(bytes: usize) -> Exchange {
        Exchange { request: payload(bytes), head: Vec::new(), tail: MARK.to_vec() }
    }

    /// Whether these are all the bytes of an answer.
    ///
    /// # Errors
    /// The answer is not the one that was expected; its text is the error's.
    pub fn is_whole(&self, answer: &[u8]) -> io::Result<bool> {
        let judged = self.head.len().min(answer.len());
        if answer[..judged] != self.head[..judged] {
            let text = String::from_utf8_lossy(&answer[..answer.len().min(1024)]).into_owned();
            return Err(io::Error::other(format!("not the answer that was expected: {text}")));
        }
        Ok(judged == self.head.len() && answer.ends_with(&self.tail))
    }
}

/// A payload of so many bytes that ends in [`MARK`].
///
/// # Panics
/// It is shorter than the mark.
#[must_use]
pub fn payload(bytes: usize) -> Vec<u8> {
    let mut payload = vec![b'.'; bytes - MARK.len()];
    payload.extend_from_slice(MARK);
    payload
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_at_its_mark_and_a_wrong_one_is_an_error() {
        let exchange = Exchange { request: Vec::new(), head: b"HTTP/1.1 200".to_vec(), tail: MARK.to_vec() };
        let answer = [&b"HTTP/1.1 200 OK\r\n\r\n"[..], &payload(64)].concat();
        for cut in 0..answer.len() {
            assert!(!exchange.is_whole(&answer[..cut]).unwrap(), "{cut}");
        }
        assert!(exchange.is_whole(&answer).unwrap());
        assert!(exchange.is_whole(b"HTTP/1.1 503").unwrap_err().to_string().contains("503"));
    }
}
