//! The decoder against the tables and the generator of hostile requests.

use std::collections::HashSet;

use vilya_protocol::http::Limits;
use vilya_protocol::http::adversarial::{Mutations, VALID, malformed, oversized, read};

/// Cuts at which the same bytes are read again: none, every byte, and some between.
fn cuts(bytes: usize) -> [Vec<usize>; 4] {
    [vec![], (0..bytes).collect(), (0..bytes).step_by(3).collect(), vec![bytes / 2]]
}

fn check_refused(name: &str, status: u16, bytes: &[u8]) {
    let whole = read(bytes, Limits::DEFAULT, &[]);
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(400)]);
    let reject = whole.reject.unwrap_or_else(|| panic!("{name}: taken: {shown:?}\n{whole:?}"));
    assert_eq!(reject.status, status, "{name}: {reject}: {shown:?}");
    assert!(whole.requests.iter().all(|request| !request.whole), "{name}: a request before the fault: {shown:?}");
    for cuts in cuts(bytes.len()) {
        assert_eq!(read(bytes, Limits::DEFAULT, &cuts), whole, "{name}: {shown:?}");
    }
}

#[test]
fn every_malformed_request_is_refused_with_its_status_at_any_split() {
    let mut names = HashSet::new();
    for case in malformed() {
        assert!(names.insert(case.name), "two cases are named {:?}", case.name);
        check_refused(case.name, case.status, case.bytes);
    }
    assert!(names.len() >= 120, "only {} cases", names.len());
}

#[test]
fn every_request_over_a_limit_is_refused_with_its_status_at_any_split() {
    for case in oversized(&Limits::DEFAULT) {
        check_refused(case.mutation, case.status, &case.bytes);
    }
}

#[test]
fn a_request_that_fills_each_limit_is_taken() {
    let limits = Limits { body_bytes: 1000, ..Limits::DEFAULT };
    let target = format!("/{}", "t".repeat(limits.target_bytes - 1));
    let mut head = format!("POST {target} HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n");
    head.push_str(&"X: y\r\n".repeat(limits.headers - 3));
    let padding = limits.head_bytes - head.len() - "P: \r\n\r\n".len();
    head.push_str(&format!("P: {}\r\n\r\n", "p".repeat(padding)));
    assert_eq!(head.len(), limits.head_bytes);
    let mut wire = head.into_bytes();
    wire.extend_from_slice(&[b'b'; 1000]);
    for cuts in cuts(wire.len()) {
        let reading = read(&wire, limits, &cuts);
        assert_eq!(reading.reject, None);
        assert_eq!(reading.requests[0].body.len(), 1000);
        assert_eq!(reading.requests[0].headers.len(), limits.headers);
        assert!(reading.ended);
    }
}

#[test]
fn a_chunked_body_that_fills_each_limit_is_taken() {
    let limits = Limits { body_bytes: 70, ..Limits::DEFAULT };
    let head = "POST /fn/echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    // Sixty-four extensions of 256 bytes are 16 KiB, and as many trailers are the limit.
    let chunks = format!("1;{}\r\nx\r\n", "e".repeat(256)).repeat(64);
    let wire = format!("{head}{chunks}6\r\nhello!\r\n0\r\n{}\r\n", "X: y\r\n".repeat(64)).into_bytes();
    for cuts in cuts(wire.len()) {
        let reading = read(&wire, limits, &cuts);
        assert_eq!(reading.reject, None);
        assert_eq!(reading.requests[0].body.len(), 70);
        assert!(reading.ended);
    }
}

#[test]
fn ten_thousand_distinct_mutations_are_refused_with_their_status() {
    let mut distinct = HashSet::new();
    let mut mutations = HashSet::new();
    for case in Mutations::new(7).take(10_000) {
        let reading = read(&case.bytes, Limits::DEFAULT, &[]);
        let shown = String::from_utf8_lossy(&case.bytes);
        assert_eq!(reading.reject.map(|reject| reject.status), Some(case.status), "{}: {shown:?}", case.mutation);
        assert!(reading.requests.iter().all(|request| !request.whole), "{}: {shown:?}", case.mutation);
        let cut = case.bytes.len() / 3;
        assert_eq!(read(&case.bytes, Limits::DEFAULT, &[cut, cut * 2]), reading, "{shown:?}");
        mutations.insert(case.mutation);
        distinct.insert(case.bytes);
    }
    assert_eq!(distinct.len(), 10_000);
    assert!(mutations.len() >= 30, "only {} mutations were drawn", mutations.len());
}

#[test]
fn what_the_mutations_start_from_is_taken() {
    let mut source = Mutations::new(11);
    for _ in 0..2_000 {
        let bytes = source.next_valid();
        let reading = read(&bytes, Limits::DEFAULT, &[]);
        let shown = String::from_utf8_lossy(&bytes);
        assert_eq!(reading.reject, None, "{shown:?}");
        assert!(reading.requests.len() == 1 && reading.requests[0].whole && reading.ended, "{shown:?}");
    }
}

#[test]
fn odd_but_right_requests_are_read_as_meant_at_any_split() {
    let mut names = HashSet::new();
    for case in VALID {
        assert!(names.insert(case.name), "two cases are named {:?}", case.name);
        for cuts in cuts(case.bytes.len()) {
            let reading = read(case.bytes, Limits::DEFAULT, &cuts);
            assert_eq!(reading.reject, None, "{}", case.name);
            assert!(reading.ended, "{}", case.name);
            assert_eq!(reading.requests.len(), case.requests.len(), "{}", case.name);
            for (read, expected) in reading.requests.iter().zip(case.requests) {
                assert!(read.whole, "{}", case.name);
                assert_eq!(read.method, Some(expected.method), "{}", case.name);
                assert_eq!(read.path, expected.path, "{}", case.name);
                assert_eq!(read.query.as_deref(), expected.query, "{}", case.name);
                assert_eq!(read.body, expected.body, "{}", case.name);
                assert_eq!(read.keep_alive, expected.keep_alive, "{}", case.name);
                assert_eq!(read.expects_continue, expected.expects_continue, "{}", case.name);
                for (name, value) in expected.headers {
                    let found = read.headers.iter().find(|(read, _)| read.eq_ignore_ascii_case(name.as_bytes()));
                    assert_eq!(found.map(|(_, value)| value.as_slice()), Some(*value), "{}: {name}", case.name);
                }
            }
        }
    }
}
