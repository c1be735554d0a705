//! Response heads, written into a buffer that the caller reuses.
//!
//! Invariant: whatever the fields hold (a content type comes from a function, which is hostile), the head is one head:
//! nothing that a function returns can end a line, and framing fields come from here alone. No allocation but the growth
//! of the buffer.
//!
//! Does not know: bodies, and the clock (there is no `date`; a caller that wants one passes it).

use super::fields::{frames_message, valid_header_value, valid_token};
use super::status::reason_phrase;

/// What a client that sent `Expect: 100-continue` waits for.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

const FALLBACK_CONTENT_TYPE: &str = "application/octet-stream";

/// A response head.
///
/// ```
/// use vilya_protocol::http::ResponseHead;
/// let head = ResponseHead { content_type: Some("text/plain"), content_length: Some(2), ..ResponseHead::new(200) };
/// let mut out = Vec::new();
/// head.write(&mut out);
/// assert_eq!(out, b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\n");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'a> {
    /// Status, 100 to 999.
    pub status: u16,
    /// Replaced by `application/octet-stream` if empty or not a valid header value.
    pub content_type: Option<&'a str>,
    /// Body length in bytes. `None`: the body is chunked, which only an HTTP/1.1 client understands. Statuses without a
    /// body (1xx, 204, 304) carry neither.
    pub content_length: Option<u64>,
    /// Whether the connection stays open after the body.
    pub keep_alive: bool,
    /// Further fields, `x-request-id` among them. One that is not a token with a valid value, or that frames the message
    /// (`content-length`, `transfer-encoding`, `connection`, ...), is left out.
    pub headers: &'a [(&'a str, &'a str)],
}

impl ResponseHead<'_> {
    /// A head with no content type, no body, no further fields and a connection that stays open.
    pub const fn new(status: u16) -> ResponseHead<'static> {
        ResponseHead { status, content_type: None, content_length: Some(0), keep_alive: true, headers: &[] }
    }

    /// Appends the head with its empty line. Returns how many fields were invalid, and so replaced or left out.
    pub fn write(&self, out: &mut Vec<u8>) -> usize {
        let mut invalid = 0;
        out.extend_from_slice(b"HTTP/1.1 ");
        write_decimal(out, u64::from(self.status));
        out.push(b' ');
        out.extend_from_slice(reason_phrase(self.status).as_bytes());
        out.extend_from_slice(b"\r\n");
        if let Some(content_type) = self.content_type {
            let valid = !content_type.is_empty() && valid_header_value(content_type.as_bytes());
            invalid += usize::from(!valid);
            write_field(out, b"content-type", if valid { content_type } else { FALLBACK_CONTENT_TYPE }.as_bytes());
        }
        if !matches!(self.status, 100..=199 | 204 | 304) {
            match self.content_length {
                Some(bytes) => {
                    out.extend_from_slice(b"content-length: ");
                    write_decimal(out, bytes);
                    out.extend_from_slice(b"\r\n");
                }
                None => write_field(out, b"transfer-encoding", b"chunked"),
            }
        }
        // Said also where it is the default: a 1.0 client that asked to keep the connection must hear it.
        write_field(out, b"connection", if self.keep_alive { b"keep-alive" } else { b"close" });
        for (name, value) in self.headers {
            let (name, value) = (name.as_bytes(), value.as_bytes());
            if valid_token(name) && valid_header_value(value) && !frames_message(name) {
                write_field(out, name, value);
            } else {
                invalid += 1;
            }
        }
        out.extend_from_slice(b"\r\n");
        invalid
    }
}

fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn write_decimal(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(head: ResponseHead<'_>) -> (String, usize) {
        let mut out = Vec::new();
        let invalid = head.write(&mut out);
        (String::from_utf8(out).expect("the tests write ASCII"), invalid)
    }

    #[test]
    fn a_full_head() {
        let head = ResponseHead {
            status: 429,
            content_type: Some("application/json"),
            content_length: Some(18_446_744_073_709_551_615),
            keep_alive: false,
            headers: &[("x-request-id", "abc"), ("retry-after", "1")],
        };
        let expected = "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\n\
                        content-length: 18446744073709551615\r\nconnection: close\r\nx-request-id: abc\r\nretry-after: 1\r\n\r\n";
        assert_eq!(written(head), (expected.to_owned(), 0));
    }

    #[test]
    fn hostile_values_cannot_end_a_line() {
        for content_type in ["a\r\nset-cookie: x", "a\nb", "a\rb", "a\0b", " a", "\r\n\r\n<html>", ""] {
            let head = ResponseHead { content_type: Some(content_type), ..ResponseHead::new(200) };
            let expected = "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: 0\r\n\
                            connection: keep-alive\r\n\r\n";
            assert_eq!(written(head), (expected.to_owned(), 1));
        }
        let headers = [
            ("a", "b\r\nc: d"),
            ("a b", "c"),
            ("", "c"),
            ("a:", "c"),
            ("a\n", "c"),
            ("Content-Length", "5"),
            ("transfer-encoding", "chunked"),
            ("CONNECTION", "close"),
            ("ok", "yes"),
        ];
        let (text, invalid) = written(ResponseHead { headers: &headers, ..ResponseHead::new(200) });
        assert_eq!(invalid, headers.len() - 1);
        assert_eq!(text, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\nok: yes\r\n\r\n");
    }

    #[test]
    fn framing_follows_the_status_and_the_length() {
        let (text, _) = written(ResponseHead { content_length: None, ..ResponseHead::new(200) });
        assert!(text.contains("transfer-encoding: chunked\r\n") && !text.contains("content-length"));
        for status in [204, 304] {
            for content_length in [None, Some(5)] {
                let (text, _) = written(ResponseHead { content_length, ..ResponseHead::new(status) });
                assert!(!text.contains("content-length") && !text.contains("transfer-encoding"), "{status}");
            }
        }
        assert!(written(ResponseHead::new(299)).0.starts_with("HTTP/1.1 299 \r\n"));
    }

    #[test]
    fn a_reused_buffer_does_not_grow() {
        let head = ResponseHead {
            content_type: Some("text/plain"),
            headers: &[("x-request-id", "0123")],
            ..ResponseHead::new(200)
        };
        let mut out = Vec::new();
        head.write(&mut out);
        let capacity = out.capacity();
        for _ in 0..100 {
            out.clear();
            head.write(&mut out);
        }
        assert_eq!(out.capacity(), capacity);
    }
}
