//! A blocking HTTP client that hides nothing: one connection, bytes out, one answer in.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    head: String,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// The value of a header, by its lower-case name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.text()))
    }

    /// Panics unless the status is as expected, with the answer in the message.
    #[track_caller]
    pub(super) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}\n{}", self.head, String::from_utf8_lossy(&self.body));
        self
    }
}

/// Bytes of which no part is like another, so that one that came to the wrong place shows.
pub(super) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect()
}

/// A connection.
pub(super) struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Client {
    pub(super) fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).expect("the worker listens");
        stream.set_nodelay(true).expect("a TCP socket");
        // Only so that a hang fails the test instead of stopping it for ever.
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a TCP socket");
        stream.set_write_timeout(Some(Duration::from_secs(60))).expect("a TCP socket");
        Client { stream, unread: Vec::new() }
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends a request with a body and reads its answer.
    pub(super) fn request(&mut self, method: &str, path: &str, body: &[u8]) -> Answer {
        self.request_typed(method, path, "application/json", body)
    }

    pub(super) fn request_typed(&mut self, method: &str, path: &str, content_type: &str, body: &[u8]) -> Answer {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: test\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        // A worker that refuses early may close before it has read everything; what it said is what counts.
        let _ = self.send(head.as_bytes()).and_then(|()| self.send(body));
        self.read_answer().expect("an answer")
    }

    pub(super) fn invoke(&mut self, name: &str, body: &[u8]) -> Answer {
        self.request("POST", &format!("/fn/{name}"), body)
    }

    /// Reads one answer; `UnexpectedEof` when the worker closed instead, or before all of it had come.
    pub(super) fn read_answer(&mut self) -> io::Result<Answer> {
        let mut answer = self.read_head()?;
        if answer.header("transfer-encoding") == Some("chunked") {
            while let Some(part) = self.read_chunk()? {
                answer.body.extend(part);
            }
            return Ok(answer);
        }
        let length: usize = match answer.header("content-length") {
            Some(length) => length.parse().map_err(io::Error::other)?,
            None => 0,
        };
        answer.body = self.read_bytes(length)?;
        Ok(answer)
    }

    /// Reads what comes before the body.
    pub(super) fn read_head(&mut self) -> io::Result<Answer> {
        let end = loop {
            if let Some(at) = self.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                break at;
            }
            self.read_more()?;
        };
        let head = String::from_utf8(self.unread[..end].to_vec()).map_err(io::Error::other)?;
        self.unread.drain(..end + 4);
        let status =
            head.get(9..12).and_then(|status| status.parse().ok()).ok_or_else(|| io::Error::other("no status"))?;
        Ok(Answer { status, head, body: Vec::new() })
    }

    /// Reads one chunk of a body; none after the last.
    pub(super) fn read_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let end = loop {
            if let Some(at) = self.unread.windows(2).position(|window| window == b"\r\n") {
                break at;
            }
            self.read_more()?;
        };
        let size = std::str::from_utf8(&self.unread[..end]).map_err(io::Error::other)?;
        let size = usize::from_str_radix(size, 16).map_err(io::Error::other)?;
        self.unread.drain(..end + 2);
        let mut chunk = self.read_bytes(size + 2)?;
        assert_eq!(chunk.split_off(size), b"\r\n", "a chunk ends where its size says");
        Ok((size > 0).then_some(chunk))
    }

    fn read_bytes(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.unread.len() < count {
            self.read_more()?;
        }
        Ok(self.unread.drain(..count).collect())
    }

    /// True when the worker has closed the connection and nothing was left unread.
    pub(super) fn is_closed(&mut self) -> bool {
        self.unread.is_empty() && self.read_more().is_err()
    }

    fn read_more(&mut self) -> io::Result<()> {
        let mut buffer = [0; 64 * 1024];
        match self.stream.read(&mut buffer)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.unread.extend_from_slice(&buffer[..read]);
                Ok(())
            }
        }
    }
}
