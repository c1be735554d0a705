//! A server that breaks the protocol costs a client its connection and nothing else.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use vilya_client::{Answer, Connection, Error, Options, Report, Request, ResponseHead, Welcome};
use vilya_protocol::wire::adversarial::malformed_from_server;
use vilya_protocol::wire::{self, RequestHead};

const OPTIONS: Options = Options { window_bytes: 100, timeout: Duration::from_secs(10), ..Options::DEFAULT };

const REQUEST: Request<'static> = Request { content_type: b"", ..Request::new("f", b"") };

/// A server that reads HELLO, says `greeting`, reads a request to `f`, and answers what `answer` makes of its id.
fn server(greeting: Vec<u8>, answer: impl Fn(u64) -> Vec<u8> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let address = listener.local_addr().expect("it has an address");
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the client comes");
        let mut hello = [0; 56];
        let mut request = Vec::new();
        wire::request_head(&mut request, &RequestHead::new(1, "f")).expect("it is valid");
        let _ = stream.read_exact(&mut hello).and_then(|()| stream.write_all(&greeting));
        if stream.read_exact(&mut request).is_ok() {
            let mut id = [0; 8];
            id.copy_from_slice(&request[8..16]);
            let _ = stream.write_all(&answer(u64::from_le_bytes(id)));
        }
        // Until the client has gone.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    address
}

fn welcome() -> Vec<u8> {
    let mut out = Vec::new();
    let welcome = Welcome {
        version: 1,
        shard: 0,
        frame_bytes: 1 << 20,
        in_flight: 10,
        payload_bytes: 100,
        request_credit_bytes: 100,
    };
    wire::welcome(&mut out, &welcome, &[1]);
    out
}

fn outcome(address: SocketAddr) -> Result<Answer, Error> {
    let mut connection = Connection::connect(address, &OPTIONS)?;
    let mut answer = Answer::default();
    connection.exchange(&REQUEST, &mut answer)?;
    // What was wrong may be behind the answer.
    connection.exchange(&REQUEST, &mut answer)?;
    Ok(answer)
}

#[test]
fn every_frame_that_breaks_a_rule_is_an_error() {
    for case in malformed_from_server() {
        let error = outcome(server(case.wire, |_| Vec::new())).expect_err(case.name);
        assert!(matches!(error, Error::Protocol(_)), "{}: {error}", case.name);
    }
}

fn response(id: u64, bytes: u64, payload_bytes: u32) -> Vec<u8> {
    let report = Report::default();
    let head = ResponseHead { id, status: 200, bytes, in_parts: false, report, content_type: b"", payload_bytes };
    let mut out = Vec::new();
    wire::response_head(&mut out, &head).expect("it is valid");
    out.resize(out.len() + payload_bytes as usize, b'x');
    out
}

fn data(id: u64, payload_bytes: u32, end: bool) -> Vec<u8> {
    let mut out = Vec::new();
    wire::data_head(&mut out, id, payload_bytes, end);
    out.resize(out.len() + payload_bytes as usize, b'x');
    out
}

#[test]
fn every_answer_that_breaks_a_rule_is_an_error() {
    type Case = (&'static str, fn(u64) -> Vec<u8>);
    let cases: [Case; 11] = [
        ("to a request that was never sent", |id| response(id + 1, 0, 0)),
        ("to an id of another round", |id| response(id & 0xffff_ffff, 0, 0)),
        ("twice", |id| [response(id, 0, 0), response(id, 0, 0)].concat()),
        ("twice before its end", |id| [response(id, 10, 1), response(id, 10, 1)].concat()),
        ("DATA before the answer", |id| data(id, 1, true)),
        ("DATA after its end", |id| [response(id, 1, 1), data(id, 1, true)].concat()),
        ("DATA of nobody", |id| [response(id, 10, 1), data(id + 1, 1, false)].concat()),
        ("longer than announced", |id| [response(id, 10, 1), data(id, 10, true)].concat()),
        ("ended before it is whole", |id| [response(id, 10, 1), data(id, 8, true)].concat()),
        ("whole and not ended", |id| [response(id, 10, 1), data(id, 9, false)].concat()),
        ("cut short without a CANCEL", |id| [response(id, 10, 1), data(id, 0, true)].concat()),
    ];
    for (name, answer) in cases {
        let error = outcome(server(welcome(), answer)).expect_err(name);
        assert!(matches!(error, Error::Protocol(_)), "{name}: {error}");
    }
}

fn in_parts(id: u64, payload_bytes: u32) -> Vec<u8> {
    let report = Report::default();
    let head = ResponseHead { id, status: 200, bytes: 0, in_parts: true, report, content_type: b"", payload_bytes };
    let mut out = Vec::new();
    wire::response_head(&mut out, &head).expect("it is valid");
    out.resize(out.len() + payload_bytes as usize, b'x');
    out
}

fn cut(id: u64) -> Vec<u8> {
    let mut out = Vec::new();
    wire::cut(&mut out, id, 502, b"{}");
    out
}

#[test]
fn every_answer_in_parts_that_breaks_a_rule_is_an_error() {
    type Case = (&'static str, fn(u64) -> Vec<u8>);
    let cases: [Case; 11] = [
        ("begun twice", |id| [in_parts(id, 1), in_parts(id, 1)].concat()),
        ("begun and then whole", |id| [in_parts(id, 1), response(id, 0, 0)].concat()),
        ("to a request that was never sent", |id| in_parts(id + 1, 0)),
        ("more after its end", |id| [in_parts(id, 1), data(id, 1, true), data(id, 1, false)].concat()),
        ("ended twice", |id| [in_parts(id, 1), data(id, 0, true), data(id, 0, true)].concat()),
        ("cut after its end", |id| [in_parts(id, 0), data(id, 1, true), cut(id)].concat()),
        ("ended after it was cut", |id| [in_parts(id, 0), cut(id), data(id, 0, true)].concat()),
        ("cut before it began", cut),
        ("cut though its size was announced", |id| [response(id, 10, 1), cut(id)].concat()),
        ("cut of nobody", |id| [in_parts(id, 1), cut(id + 1)].concat()),
        ("beyond its credit", |id| [in_parts(id, 49), data(id, 52, true)].concat()),
    ];
    for (name, answer) in cases {
        let error = outcome(server(welcome(), answer)).expect_err(name);
        assert!(matches!(error, Error::Protocol(_)), "{name}: {error}");
    }
    // Nobody who did not ask for parts is sent any.
    let options = Options { takes_parts: false, ..OPTIONS };
    let address = server(welcome(), |id| in_parts(id, 1));
    let mut connection = Connection::connect(address, &options).expect("the server is there");
    assert!(matches!(connection.exchange(&REQUEST, &mut Answer::default()), Err(Error::Protocol(_))));
}

#[test]
fn an_answer_in_parts_without_an_end_is_never_whole() {
    for sent in [|id| in_parts(id, 1), |id| [in_parts(id, 1), data(id, 9, false)].concat()] {
        let ends = move |id| {
            let mut out: Vec<u8> = sent(id);
            // The server goes with this.
            wire::goaway(&mut out, 503, "stopping");
            out
        };
        let options = Options { timeout: Duration::from_millis(200), ..OPTIONS };
        let mut connection = Connection::connect(server(welcome(), ends), &options).expect("the server is there");
        connection.exchange(&REQUEST, &mut Answer::default()).expect_err("it has no end");
    }
}

#[test]
fn an_answer_beyond_its_credit_is_an_error() {
    let within = |id| [response(id, 100, 60), data(id, 40, true)].concat();
    let mut connection = Connection::connect(server(welcome(), within), &OPTIONS).expect("the server is there");
    let mut answer = Answer::default();
    connection.exchange(&REQUEST, &mut answer).expect("it keeps the rules");
    assert_eq!(answer.body, [b'x'; 100]);
    for beyond in [|id| response(id, 101, 101), |id| [response(id, 201, 90), data(id, 111, true)].concat()] {
        assert!(matches!(outcome(server(welcome(), beyond)), Err(Error::Protocol(_))));
    }
}
