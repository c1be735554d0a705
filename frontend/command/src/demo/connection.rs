//! One keep-alive connection to a worker, made to measure with: a request is rendered once and written whole, the answer
//! is decoded from one reused buffer, and nothing is allocated in between.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use vilya_protocol::http::Limits;
use vilya_protocol::http::response::{Decoder, Item, Malformed};

use crate::invoke::phases;

/// No example takes this long; a worker that does not answer must not hang the demo.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const BUFFER_BYTES: usize = 64 << 10;

/// A request as the bytes that are sent.
pub(super) struct Rendered(Vec<u8>);

impl Rendered {
    /// An invocation of `function`.
    pub(super) fn invocation(function: &str, content_type: &str, body: &[u8]) -> Rendered {
        let mut bytes = format!(
            "POST /fn/{function} HTTP/1.1\r\nhost: vilya\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        bytes.extend_from_slice(body);
        Rendered(bytes)
    }
}

/// What the worker says of one invocation. The body is left with the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// A sandbox was started for it.
    pub(super) cold: bool,
    /// The part of the wait in which its sandbox was starting, in milliseconds.
    pub(super) start_ms: Option<f64>,
    /// The function's own run, in milliseconds.
    pub(super) run_ms: Option<f64>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("the connection to the worker broke: {0}")]
    Io(#[from] io::Error),
    #[error("the worker's answer cannot be read: {0}")]
    Malformed(#[from] Malformed),
    #[error("the worker closed the connection instead of answering")]
    Closed,
}

pub(super) struct Connection {
    stream: TcpStream,
    decoder: Decoder,
    buffer: Vec<u8>,
    body: Vec<u8>,
}

impl Connection {
    pub(super) fn open(address: SocketAddr) -> Result<Connection, Broken> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        let decoder = Decoder::new(Limits::default());
        Ok(Connection { stream, decoder, buffer: vec![0; BUFFER_BYTES], body: Vec::new() })
    }

    /// Sends a request and waits for the whole answer.
    pub(super) fn exchange(&mut self, request: &Rendered) -> Result<Reply, Broken> {
        self.body.clear();
        self.stream.write_all(&request.0)?;
        let mut reply = Reply::default();
        loop {
            let filled = self.stream.read(&mut self.buffer)?;
            if filled == 0 {
                self.decoder.finish()?;
                return Err(Broken::Closed);
            }
            if self.take(filled, &mut reply)? {
                return Ok(reply);
            }
        }
    }

    /// The body of the last answer.
    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    /// Decodes what is in the buffer; true at the end of the answer.
    fn take(&mut self, filled: usize, reply: &mut Reply) -> Result<bool, Broken> {
        let mut input = &self.buffer[..filled];
        loop {
            let step = self.decoder.decode(input)?;
            input = &input[step.consumed..];
            match step.item {
                Item::Interim(_) => {}
                Item::Head(head) => {
                    reply.status = head.status();
                    reply.cold = head.header("x-vilya-start") == Some(b"cold");
                    let timing = head.header("server-timing").and_then(|value| std::str::from_utf8(value).ok());
                    for (phase, duration_ms) in timing.into_iter().flat_map(phases) {
                        match phase {
                            "start" => reply.start_ms = Some(duration_ms),
                            "run" => reply.run_ms = Some(duration_ms),
                            _ => {}
                        }
                    }
                }
                Item::Body(part) => self.body.extend_from_slice(part),
                Item::End => return Ok(true),
                Item::NeedMore => return Ok(false),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Answers every request of one connection (none has a body) with `answer`, in pieces.
    fn answering(answer: &'static [u8], piece_bytes: usize) -> (SocketAddr, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut asked, mut byte) = (Vec::new(), [0]);
            while stream.read(&mut byte).unwrap() == 1 {
                asked.push(byte[0]);
                if asked.ends_with(b"\r\n\r\n") {
                    for piece in answer.chunks(piece_bytes) {
                        stream.write_all(piece).unwrap();
                    }
                }
            }
            String::from_utf8(asked).unwrap()
        });
        (address, server)
    }

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-vilya-start: cold\r\n\
        server-timing: queue;dur=0.001, start;dur=7.5, run;dur=0.25\r\n\r\nhello";

    #[test]
    fn an_answer_is_whole_however_it_arrives_and_the_connection_is_kept() {
        for piece_bytes in [1, 7, ANSWER.len()] {
            let (address, server) = answering(ANSWER, piece_bytes);
            let mut connection = Connection::open(address).unwrap();
            let request = Rendered::invocation("greet", "text/plain", b"");
            for _ in 0..2 {
                let reply = connection.exchange(&request).unwrap();
                let expected = Reply { status: 200, cold: true, start_ms: Some(7.5), run_ms: Some(0.25) };
                assert_eq!((reply, connection.body()), (expected, &b"hello"[..]));
            }
            drop(connection);
            assert_eq!(server.join().unwrap().matches("POST /fn/greet HTTP/1.1\r\n").count(), 2);
        }
    }

    #[test]
    fn an_answer_cut_short_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut connection = Connection::open(listener.local_addr().unwrap()).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 1024];
            assert!(stream.read(&mut asked).unwrap() > 0);
            stream.write_all(&ANSWER[..ANSWER.len() - 1]).unwrap();
        });
        let request = Rendered::invocation("greet", "text/plain", b"");
        assert!(matches!(connection.exchange(&request), Err(Broken::Malformed(_))));
        server.join().unwrap();
    }
}
