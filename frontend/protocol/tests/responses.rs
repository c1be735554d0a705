//! The decoder of responses: every framing, every refusal, at any split.

use vilya_protocol::http::response::{Decoder, Head, Item, Malformed, Step};
use vilya_protocol::http::{Limits, ResponseHead};

/// Items as text, body parts joined; `pieces` is how many bytes each call may see.
fn read(wire: &[u8], pieces: usize, head_request: bool) -> (Vec<String>, Result<(), Malformed>) {
    let mut decoder = Decoder::new(Limits { body_bytes: 100, ..Limits::DEFAULT });
    if head_request {
        decoder.next_answers_head();
    }
    let mut items: Vec<String> = Vec::new();
    let mut at = 0;
    let mut shown = 0;
    loop {
        match decoder.decode(&wire[at..shown]) {
            Ok(Step { consumed, item }) => {
                at += consumed;
                match item {
                    Item::NeedMore if shown == wire.len() => break,
                    Item::NeedMore => shown = wire.len().min(shown + pieces),
                    Item::Interim(status) => items.push(format!("interim {status}")),
                    Item::Head(head) => items.push(format!(
                        "head {} {} {}",
                        head.status(),
                        framing(&head),
                        if head.keep_alive() { "keep" } else { "close" }
                    )),
                    Item::Body(part) => {
                        let part = String::from_utf8_lossy(part);
                        match items.last_mut().filter(|last| last.starts_with("body ")) {
                            Some(last) => last.push_str(&part),
                            None => items.push(format!("body {part}")),
                        }
                    }
                    Item::End => items.push("end".to_owned()),
                }
            }
            Err(failure) => return (items, Err(failure)),
        }
    }
    (items, decoder.finish())
}

fn framing(head: &Head<'_>) -> String {
    match (head.content_length(), head.chunked()) {
        (Some(bytes), _) => format!("length {bytes}"),
        (None, true) => "chunked".to_owned(),
        (None, false) => "no-length".to_owned(),
    }
}

fn check(wire: &str, head_request: bool, expected: &[&str]) {
    for pieces in [1, 2, 3, 7, wire.len().max(1)] {
        let (items, end) = read(wire.as_bytes(), pieces, head_request);
        assert_eq!(items, expected, "{wire:?} in pieces of {pieces}");
        assert_eq!(end, Ok(()), "{wire:?} in pieces of {pieces}");
    }
}

#[test]
fn responses_of_every_framing() {
    check(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 204 No Content\r\n\r\n",
        false,
        &["head 200 length 2 keep", "body hi", "end", "head 204 no-length keep", "end"],
    );
    check(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nt: v\r\n\r\n",
        false,
        &["interim 100", "head 200 chunked keep", "body abcde", "end"],
    );
    check("HTTP/1.1 200\r\n\r\nuntil close", false, &["head 200 no-length close", "body until close"]);
    check("HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n", false, &["head 404 length 0 close", "end"]);
    check("HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n", true, &["head 200 no-length keep", "end"]);
    check(
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: Close\r\n\r\n",
        false,
        &["head 200 length 0 close", "end"],
    );
    check("", false, &[]);
}

#[test]
fn ambiguous_cut_and_oversized_responses_are_errors() {
    let long_body = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(101));
    let wires = [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 099 Odd\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 O",
        long_body.as_str(),
    ];
    for wire in wires {
        let whole = read(wire.as_bytes(), wire.len(), false);
        assert!(whole.1.is_err(), "{wire:?}");
        for pieces in [1, 5] {
            assert_eq!(read(wire.as_bytes(), pieces, false), whole, "{wire:?} in pieces of {pieces}");
        }
    }
}

#[test]
fn what_the_writer_writes_is_read_back() {
    let mut wire = Vec::new();
    let headers = [("x-request-id", "abc")];
    let head = ResponseHead {
        content_type: Some("text/plain"),
        content_length: Some(3),
        keep_alive: false,
        headers: &headers,
        ..ResponseHead::new(503)
    };
    head.write(&mut wire);
    let mut decoder = Decoder::new(Limits::DEFAULT);
    let Ok(Step { consumed, item: Item::Head(read) }) = decoder.decode(&wire) else {
        panic!("the head is whole");
    };
    assert_eq!(consumed, wire.len());
    assert_eq!((read.status(), read.content_length(), read.keep_alive()), (503, Some(3), false));
    assert_eq!(read.header("X-Request-Id"), Some(&b"abc"[..]));
    assert_eq!(read.header("content-type"), Some(&b"text/plain"[..]));
    assert_eq!(read.headers().count(), 4);
}

#[test]
fn a_connection_may_carry_any_number_of_responses() {
    // In sum, many times each limit of a single one.
    let limits = Limits { head_bytes: 64, headers: 1, target_bytes: 0, body_bytes: 5 };
    let wire = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    let mut decoder = Decoder::new(limits);
    for round in 0..200 {
        // Every other one answers a HEAD, and only that one has no body.
        let to_head = round % 2 == 0;
        if to_head {
            decoder.next_answers_head();
        }
        let wire = if to_head { &wire[..wire.len() - 5] } else { &wire[..] };
        let (mut at, mut body) = (0, 0);
        loop {
            let step = decoder.decode(&wire[at..]).expect("the responses are right");
            at += step.consumed;
            match step.item {
                Item::NeedMore | Item::Interim(_) => panic!("the response is whole"),
                Item::Head(head) => assert_eq!(head.status(), 200),
                Item::Body(part) => body += part.len(),
                Item::End => break,
            }
        }
        assert_eq!((at, body), (wire.len(), if to_head { 0 } else { 5 }));
        assert!(decoder.ended());
    }
}
