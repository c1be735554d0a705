//! The client's half of HTTP/1.1, as far as a measuring program needs it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::exchange::{Exchange, MARK, payload};

/// How every answer that is wanted begins.
pub const SUCCESS: &[u8] = b"HTTP/1.1 200";

/// A request with a body; `path` may be of a function or of the administration.
#[must_use]
pub fn request(method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// An invocation that comes back with its payload of so many bytes.
#[must_use]
pub fn echo(function: &str, bytes: usize) -> Exchange {
    let request = request("POST", &format!("/fn/{function}"), &payload(bytes));
    Exchange { request, head: SUCCESS.to_vec(), tail: MARK.to_vec() }
}

/// One request on a connection of its own, and the body of its answer.
///
/// # Errors
/// The connection's, or an answer that is no success.
pub fn ask(address: SocketAddr, request: &[u8]) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(request)?;
    let mut answer = Vec::new();
    let mut piece = vec![0; 64 * 1024];
    loop {
        let read = stream.read(&mut piece)?;
        answer.extend_from_slice(&piece[..read]);
        if let Some(body) = body(&answer) {
            let text = String::from_utf8_lossy(body).into_owned();
            return if answer.starts_with(b"HTTP/1.1 2") { Ok(text) } else { Err(io::Error::other(text)) };
        }
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The body of an answer that is whole, by its length.
#[must_use]
pub fn body(answer: &[u8]) -> Option<&[u8]> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().ok())?
    });
    answer[end + 4..].get(..length.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_all_of_its_body_is_not_whole() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc";
        assert_eq!(body(answer), Some(&b"abc"[..]));
        assert_eq!(body(&answer[..answer.len() - 1]), None);
        assert_eq!(body(&answer[..10]), None);
    }
}
