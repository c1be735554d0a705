//! Streams that break a rule, each with the rule's name.

use super::valid;
use crate::wire::{Header, Kind};

/// A stream that a decoder must refuse.
#[derive(Clone, Debug)]
pub struct Malformed {
    /// What is wrong with it.
    pub name: &'static str,
    /// The whole stream, from the first frame of the connection.
    pub wire: Vec<u8>,
}

fn frame(header: Header, body: &[u8]) -> Vec<u8> {
    [&Header { length: body.len() as u32, ..header }.encode()[..], body].concat()
}

fn patched(mut bytes: Vec<u8>, at: usize, with: &[u8]) -> Vec<u8> {
    bytes[at..][..with.len()].copy_from_slice(with);
    bytes
}

/// What no client may send, all of it visible in one frame.
pub fn malformed_from_client() -> Vec<Malformed> {
    let new = Header::new;
    let request = Header { flags: Header::END, id: 1, bytes: 2, name_bytes: 4, ..new(Kind::Request) };
    let first = [
        ("HTTP", b"GET / HTTP/1.1\r\nhost: vilya\r\nuser-agent: none\r\n\r\n".to_vec()),
        ("a request before HELLO", frame(request, b"echo42")),
        ("HELLO with another magic", patched(valid::hello(), 32, b"v")),
        ("HELLO with version 0", patched(valid::hello(), 40, &[0, 0])),
        ("HELLO with an empty range of versions", patched(valid::hello(), 40, &[4, 0])),
        ("HELLO that is too short", frame(new(Kind::Hello), &valid::hello()[32..55])),
        ("HELLO that is too long", frame(new(Kind::Hello), &[valid::hello()[32..].to_vec(), vec![0]].concat())),
    ];
    let later = [
        ("HELLO twice", valid::hello()),
        ("kind 0", patched(frame(request, b"echo42"), 4, &[0])),
        ("kind 13", patched(frame(request, b"echo42"), 4, &[13])),
        ("a reserved flag", patched(frame(request, b"echo42"), 5, &[3])),
        ("the reserved byte", patched(frame(request, b"echo42"), 31, &[1])),
        ("a status in a request", patched(frame(request, b"echo42"), 6, &[200])),
        ("id 0", frame(Header { id: 0, ..request }, b"echo42")),
        ("more payload than announced", frame(request, b"echo423")),
        ("less payload than END says", frame(request, b"echo4")),
        ("a whole payload without END", frame(Header { flags: 0, ..request }, b"echo42")),
        ("a name longer than its frame", frame(Header { name_bytes: 9, ..request }, b"echo42")),
        ("no name", frame(Header { name_bytes: 0, ..request }, b"42")),
        ("a name of 64 bytes", frame(Header { name_bytes: 64, bytes: 0, ..request }, &[b'a'; 64])),
        ("a name with a slash", frame(request, b"e/ho42")),
        ("a name with a capital", frame(request, b"Echo42")),
        ("a name that is not UTF-8", frame(request, b"ech\xff42")),
        ("a content type with a line end", frame(Header { content_type_bytes: 2, ..request }, b"echo\r\n42")),
        ("a traceparent with a NUL", frame(Header { trace_parent_bytes: 1, ..request }, b"echo\x0042")),
        ("an empty DATA", frame(Header { id: 1, ..new(Kind::Data) }, b"")),
        ("an empty DATA at the end", frame(Header { id: 1, flags: Header::END, ..new(Kind::Data) }, b"")),
        ("a frame over the limit", Header { length: u32::MAX, id: 1, ..new(Kind::Data) }.encode().to_vec()),
        ("a CREDIT of nothing", frame(Header { id: 1, ..new(Kind::Credit) }, b"")),
        ("a CREDIT with a body", frame(Header { id: 1, bytes: 1, ..new(Kind::Credit) }, b"1")),
        ("a CANCEL of id 0", frame(new(Kind::Cancel), b"")),
        ("a PING of 65 bytes", frame(new(Kind::Ping), &[0; 65])),
        ("a CUT", frame(Header { id: 1, status: 500, ..new(Kind::Cut) }, b"")),
        ("a request in parts", patched(frame(request, b"echo42"), 5, &[2])),
        ("a RESPONSE", frame(Header { id: 1, status: 200, flags: 1, ..new(Kind::Response) }, &[0; 32])),
        ("a WELCOME", frame(new(Kind::Welcome), &[0; 42])),
        ("a MAP", frame(new(Kind::Map), &[0; 16])),
        ("a PONG", frame(new(Kind::Pong), b"")),
        ("a GOAWAY", frame(Header { status: 503, ..new(Kind::Goaway) }, b"")),
    ];
    let later = later.into_iter().map(|(name, wire)| (name, [valid::hello(), wire].concat()));
    first.into_iter().chain(later).map(|(name, wire)| Malformed { name, wire }).collect()
}

/// What no server may send, all of it visible in one frame.
pub fn malformed_from_server() -> Vec<Malformed> {
    let new = Header::new;
    let (valid, _) = valid::from_server();
    // It starts with a WELCOME of 300 shards.
    let welcome = valid[..32 + 40 + 2 * 300].to_vec();
    let response = Header { status: 200, flags: 1, id: 1, ..new(Kind::Response) };
    let map_body = |count: u8, flags: u8, entries: &[u8]| {
        [&[0, 0, 0, 0, 0, 0, 0, 0, count, 0, 0, 0, flags, 0, 0, 0], entries].concat()
    };
    let first = [
        ("a RESPONSE before WELCOME", frame(response, &[0; 32])),
        ("WELCOME with another magic", patched(welcome.clone(), 32, b"v")),
        ("WELCOME with version 2", patched(welcome.clone(), 40, &[2])),
        ("WELCOME with too few ports", patched(welcome.clone(), 42, &[45, 1])),
        ("WELCOME of a shard that is not there", patched(welcome.clone(), 44, &[44, 1])),
        ("WELCOME with a reserved field", patched(welcome.clone(), 46, &[1])),
        ("WELCOME with frames of 16 bytes", patched(welcome.clone(), 48, &[16, 0, 0, 0])),
        ("WELCOME that allows no request", patched(welcome.clone(), 52, &[0, 0, 0, 0])),
    ];
    let later = [
        ("WELCOME twice", welcome.clone()),
        ("status 0", frame(Header { status: 0, ..response }, &[0; 32])),
        ("a report that is cut off", frame(response, &[0; 31])),
        ("a report with start 3", patched(frame(response, &[0; 32]), 62, &[3])),
        ("a report with a reserved byte", patched(frame(response, &[0; 32]), 63, &[1])),
        ("more payload than announced", frame(response, &[0; 33])),
        ("a content type with a NUL", frame(Header { content_type_bytes: 1, ..response }, &[0; 33])),
        ("an empty DATA that ends nothing", frame(Header { id: 1, ..new(Kind::Data) }, b"")),
        ("an answer in parts with its size", frame(Header { flags: 2, bytes: 1, ..response }, &[0; 32])),
        ("an answer in parts with its end", frame(Header { flags: 3, ..response }, &[0; 32])),
        ("an answer in parts that is an error", frame(Header { flags: 2, status: 500, ..response }, &[0; 32])),
        ("an answer in parts without its report", frame(Header { flags: 2, ..response }, &[0; 31])),
        ("DATA in parts", frame(Header { id: 1, flags: 2, ..new(Kind::Data) }, b"x")),
        ("a CUT that is good", frame(Header { id: 1, status: 200, ..new(Kind::Cut) }, b"")),
        ("a CUT of id 0", frame(Header { status: 500, ..new(Kind::Cut) }, b"")),
        ("a CUT that is too long", frame(Header { id: 1, status: 500, ..new(Kind::Cut) }, &[0; 16_385])),
        ("a MAP with too many entries", frame(new(Kind::Map), &map_body(2, 0, b"\x01\x01a\x00\x00"))),
        ("a MAP with too few entries", frame(new(Kind::Map), &map_body(0, 0, b"\x01\x01a\x00\x00"))),
        ("a MAP with an unknown flag", frame(new(Kind::Map), &map_body(0, 4, b""))),
        ("a MAP with an owner that is no shard", frame(new(Kind::Map), &map_body(1, 0, b"\x01\x01a\xff\xff"))),
        ("a MAP with a name that is none", frame(new(Kind::Map), &map_body(1, 0, b"\x01\x01A\x00\x00"))),
        ("a GOAWAY with status 200", frame(Header { status: 200, ..new(Kind::Goaway) }, b"")),
        ("a GOAWAY that is not UTF-8", frame(Header { status: 503, ..new(Kind::Goaway) }, b"\xff")),
        ("a PING", frame(new(Kind::Ping), b"")),
        ("a HELLO", valid::hello()),
    ];
    let later = later.into_iter().map(|(name, wire)| (name, [welcome.clone(), wire].concat()));
    first.into_iter().chain(later).map(|(name, wire)| Malformed { name, wire }).collect()
}
