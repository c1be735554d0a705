//! Frames as bytes, appended to a buffer. Of REQUEST, DATA and RESPONSE only the head is written: the payload follows from
//! wherever it lies.
//!
//! Does not know: whether a frame may be sent at this point.

use super::limits::{CUT_BYTES, GOAWAY_TEXT_BYTES, HELLO_BYTES, PING_BYTES, WELCOME_FIXED_BYTES};
use super::{Header, Hello, Kind, RequestHead, ResponseHead, Welcome, WireError};

/// Appends a HELLO.
pub fn hello(out: &mut Vec<u8>, hello: &Hello) {
    out.extend_from_slice(&Header { length: HELLO_BYTES, ..Header::new(Kind::Hello) }.encode());
    hello.write(out);
}

/// Appends a WELCOME. `ports` has one for each shard, 1 to 65,535 of them.
pub fn welcome(out: &mut Vec<u8>, welcome: &Welcome, ports: &[u16]) {
    debug_assert!(usize::from(welcome.shard) < ports.len() && ports.len() <= usize::from(u16::MAX));
    let length = WELCOME_FIXED_BYTES + 2 * ports.len() as u32;
    out.extend_from_slice(&Header { length, ..Header::new(Kind::Welcome) }.encode());
    welcome.write(ports, out);
}

/// Appends the whole map (`whole`) or changes of it, as many frames of at most `frame_bytes` as it takes, and at least one.
/// An entry is a function's name, which must be valid, and its owners; none: the function is gone.
pub fn map<'a>(
    out: &mut Vec<u8>,
    generation: u64,
    whole: bool,
    frame_bytes: u32,
    entries: impl IntoIterator<Item = (&'a str, &'a [u16])>,
) {
    super::map::write(out, generation, whole, frame_bytes, entries);
}

/// Appends the head of a REQUEST, whose `payload_bytes` bytes of payload follow. Appends nothing if the head breaks a rule.
pub fn request_head(out: &mut Vec<u8>, head: &RequestHead<'_>) -> Result<(), WireError> {
    let header = head.header()?;
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(head.name.as_bytes());
    out.extend_from_slice(head.content_type);
    out.extend_from_slice(head.trace_parent);
    Ok(())
}

/// Appends the head of a DATA, whose `payload_bytes` bytes of payload follow: at least one unless it is the end of an answer.
pub fn data_head(out: &mut Vec<u8>, id: u64, payload_bytes: u32, end: bool) {
    debug_assert!(id != 0 && (payload_bytes != 0 || end));
    let flags = if end { Header::END } else { 0 };
    out.extend_from_slice(&Header { length: payload_bytes, flags, id, ..Header::new(Kind::Data) }.encode());
}

/// Appends the head of a RESPONSE, whose `payload_bytes` bytes of payload follow. Appends nothing if the head breaks a rule.
pub fn response_head(out: &mut Vec<u8>, head: &ResponseHead<'_>) -> Result<(), WireError> {
    let header = head.header()?;
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(&head.report.encode());
    out.extend_from_slice(head.content_type);
    Ok(())
}

/// Appends a CUT: an answer in parts ends and is not whole. `status` is that of an error; a `body` of more than 16,384 bytes,
/// of which no part would be JSON, is left out.
pub fn cut(out: &mut Vec<u8>, id: u64, status: u16, body: &[u8]) {
    debug_assert!(id != 0 && matches!(status, 400..=599));
    let body = if body.len() <= CUT_BYTES as usize { body } else { &[] };
    out.extend_from_slice(&Header { length: body.len() as u32, status, id, ..Header::new(Kind::Cut) }.encode());
    out.extend_from_slice(body);
}

/// Appends a CREDIT of `bytes`, at least one.
pub fn credit(out: &mut Vec<u8>, id: u64, bytes: u64) {
    debug_assert!(id != 0 && bytes != 0);
    out.extend_from_slice(&Header { id, bytes, ..Header::new(Kind::Credit) }.encode());
}

/// Appends a CANCEL.
pub fn cancel(out: &mut Vec<u8>, id: u64) {
    debug_assert!(id != 0);
    out.extend_from_slice(&Header { id, ..Header::new(Kind::Cancel) }.encode());
}

/// Appends a PING. `body` has at most 64 bytes; more are cut off.
pub fn ping(out: &mut Vec<u8>, id: u64, body: &[u8]) {
    echo(out, Kind::Ping, id, body);
}

/// Appends a PONG with the id and body of the PING that it answers.
pub fn pong(out: &mut Vec<u8>, id: u64, body: &[u8]) {
    echo(out, Kind::Pong, id, body);
}

fn echo(out: &mut Vec<u8>, kind: Kind, id: u64, body: &[u8]) {
    let body = &body[..body.len().min(PING_BYTES as usize)];
    out.extend_from_slice(&Header { length: body.len() as u32, id, ..Header::new(kind) }.encode());
    out.extend_from_slice(body);
}

/// Appends a GOAWAY. `status` is that of an error; of `text` at most 512 bytes are sent.
pub fn goaway(out: &mut Vec<u8>, status: u16, text: &str) {
    debug_assert!(matches!(status, 400..=599));
    let text = &text[..text.floor_char_boundary(GOAWAY_TEXT_BYTES as usize)];
    out.extend_from_slice(&Header { length: text.len() as u32, status, ..Header::new(Kind::Goaway) }.encode());
    out.extend_from_slice(text.as_bytes());
}
