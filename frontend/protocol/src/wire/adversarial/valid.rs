//! Streams with every kind of frame, and what reading them must give.

use super::{ClientEvent, ServerEvent};
use crate::wire::{self, Hello, Report, RequestHead, ResponseHead, Start, Welcome};

/// The bytes of an ordinary HELLO.
pub fn hello() -> Vec<u8> {
    let mut out = Vec::new();
    wire::hello(&mut out, &HELLO);
    out
}

const HELLO: Hello =
    Hello { lowest_version: 1, highest_version: 3, wants_map: true, takes_parts: true, response_credit_bytes: 65_536 };

/// What a client may send, and how it is read.
pub fn from_client() -> (Vec<u8>, Vec<ServerEvent>) {
    let mut out = hello();
    let mut events = vec![ServerEvent::Hello(HELLO)];
    let requests = [
        (RequestHead::new(1, "hello"), &b""[..]),
        (RequestHead { bytes: 5, payload_bytes: 5, deadline_ms: 250, ..RequestHead::new(2, "echo") }, b"abcde"),
        (
            RequestHead {
                bytes: 12,
                payload_bytes: 2,
                content_type: b"text/plain",
                trace_parent: b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                ..RequestHead::new(u64::MAX, "a")
            },
            b"\x00\xff",
        ),
        (RequestHead { bytes: u64::MAX, ..RequestHead::new(4, "endless") }, b""),
    ];
    for (head, payload) in requests {
        wire::request_head(&mut out, &head).expect("the head is valid");
        out.extend_from_slice(payload);
        events.push(ServerEvent::request(&head, payload));
    }
    for (end, payload) in [(false, &b"012"[..]), (true, b"3456789")] {
        wire::data_head(&mut out, u64::MAX, payload.len() as u32, end);
        out.extend_from_slice(payload);
        events.push(ServerEvent::Data { id: u64::MAX, end, payload: payload.to_vec() });
    }
    wire::credit(&mut out, 2, 1 << 40);
    wire::cancel(&mut out, 4);
    wire::ping(&mut out, 0, b"");
    wire::ping(&mut out, 9, &[b'p'; 64]);
    events.push(ServerEvent::Credit { id: 2, bytes: 1 << 40 });
    events.push(ServerEvent::Cancel { id: 4 });
    events.push(ServerEvent::Ping { id: 0, body: Vec::new() });
    events.push(ServerEvent::Ping { id: 9, body: vec![b'p'; 64] });
    (out, events)
}

/// What a server may send, and how it is read.
pub fn from_server() -> (Vec<u8>, Vec<ClientEvent>) {
    let mut out = Vec::new();
    let welcome = Welcome {
        version: 1,
        shard: 299,
        frame_bytes: 4096,
        in_flight: 64,
        payload_bytes: 1 << 30,
        request_credit_bytes: 65_536,
    };
    // Longer than any other head.
    let ports: Vec<u16> = (7880..8180).collect();
    wire::welcome(&mut out, &welcome, &ports);
    let mut events = vec![ClientEvent::Welcome { welcome, ports }];

    // Frames of 4 KiB hold this many entries of two owners and a name of twelve bytes.
    const ENTRIES: usize = (4096 - 16) / (2 + 12 + 4);
    let names: Vec<String> = (0..400).map(|index| format!("function-{index:03}")).collect();
    wire::map(&mut out, 7, true, 4096, names.iter().map(|name| (name.as_str(), &[299, 0][..])));
    let parts: Vec<&[String]> = names.chunks(ENTRIES).collect();
    for (index, part) in parts.iter().enumerate() {
        events.push(ClientEvent::Map {
            generation: 7,
            first: index == 0,
            last: index + 1 == parts.len(),
            entries: part.iter().map(|name| (name.clone(), vec![299, 0])).collect(),
        });
    }
    wire::map(&mut out, 8, false, 4096, [("hello", &[][..])]);
    events.push(ClientEvent::Map {
        generation: 8,
        first: false,
        last: false,
        entries: vec![("hello".to_owned(), Vec::new())],
    });

    let report = Report {
        request_id: *b"0123456789abcdef",
        queue_us: 1,
        start_us: 20_000,
        run_us: u32::MAX,
        shard: 299,
        start: Start::Cold,
    };
    let in_parts = ResponseHead {
        id: 4,
        status: 200,
        bytes: 0,
        in_parts: true,
        report,
        content_type: b"text/csv",
        payload_bytes: 5,
    };
    let answers = [
        (
            ResponseHead {
                id: 1,
                status: 200,
                bytes: 5,
                in_parts: false,
                report,
                content_type: b"text/plain",
                payload_bytes: 5,
            },
            &b"hello"[..],
        ),
        (
            ResponseHead {
                id: 2,
                status: 499,
                bytes: 0,
                in_parts: false,
                report: Report::default(),
                content_type: b"",
                payload_bytes: 0,
            },
            b"",
        ),
        (
            ResponseHead { id: 3, status: 200, bytes: 9, in_parts: false, report, content_type: b"", payload_bytes: 1 },
            b"0",
        ),
        (in_parts, b"first"),
        (ResponseHead { id: 5, payload_bytes: 0, ..in_parts }, b""),
    ];
    for (head, payload) in answers {
        wire::response_head(&mut out, &head).expect("the head is valid");
        out.extend_from_slice(payload);
        events.push(ClientEvent::response(&head, payload));
    }
    for (id, end, payload) in
        [(3, false, &b"123"[..]), (4, false, b"second"), (3, true, b""), (5, false, b"x"), (4, true, b"")]
    {
        wire::data_head(&mut out, id, payload.len() as u32, end);
        out.extend_from_slice(payload);
        events.push(ClientEvent::Data { id, end, payload: payload.to_vec() });
    }
    // Longer than any other head that is no WELCOME or MAP.
    for (id, body) in [(5, vec![b'e'; 2000]), (6, Vec::new())] {
        wire::cut(&mut out, id, 502, &body);
        events.push(ClientEvent::Cut { id, status: 502, body });
    }
    wire::credit(&mut out, 5, 1);
    wire::pong(&mut out, 9, b"p");
    wire::goaway(&mut out, 503, "the worker is shutting down");
    events.push(ClientEvent::Credit { id: 5, bytes: 1 });
    events.push(ClientEvent::Pong { id: 9, body: b"p".to_vec() });
    events.push(ClientEvent::Goaway { status: 503, text: "the worker is shutting down".to_owned() });
    (out, events)
}
