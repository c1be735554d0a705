//! Ten thousand requests that must not be understood, against a live worker.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use vilya_protocol::http::adversarial;

use super::worker::Worker;

/// Sends bytes, cut at a place of the turn's choosing, and returns the statuses of all that comes back.
fn statuses(worker: &Worker, bytes: &[u8], turn: usize) -> Vec<u16> {
    let mut stream = TcpStream::connect(worker.address).expect("the worker listens");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a TCP socket");
    stream.set_nodelay(true).expect("a TCP socket");
    let cut = if bytes.is_empty() { 0 } else { (turn * 7919) % bytes.len() };
    // The worker may refuse and close before it has taken everything.
    let _ = stream.write_all(&bytes[..cut]).and_then(|()| stream.write_all(&bytes[cut..]));
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer);
    text.match_indices("HTTP/1.1 ").filter_map(|(at, _)| text.get(at + 9..at + 12)?.parse().ok()).collect()
}

#[test]
fn ten_thousand_malformed_requests_are_refused_and_none_is_misread() {
    let worker = Worker::start_with(&["cores.shards=2"]);
    worker.deploy_echo("echo", "");
    worker.client().invoke("echo", b"x").expect(200);
    let resident_before = worker.resident_bytes();
    let rejected_before = worker.metric("vilya_http_requests_rejected_total", "");
    let served_before = worker.metric("faas_invocations_total", "echo");
    let written: Vec<(Vec<u8>, u16)> =
        adversarial::malformed().map(|case| (case.bytes.to_vec(), case.status)).collect();
    let made = adversarial::Mutations::new(0x5eed).take(10_000).map(|made| (made.bytes, made.status));
    let mut sent = 0;
    for (turn, (bytes, status)) in written.into_iter().chain(made).enumerate() {
        let got = statuses(&worker, &bytes, turn);
        assert_eq!(got, [status], "{:?}", String::from_utf8_lossy(&bytes));
        sent += 1;
    }
    assert!(sent > 10_000);
    let rejected = worker.metric("vilya_http_requests_rejected_total", "") - rejected_before;
    assert_eq!(rejected, f64::from(sent));
    assert_eq!(worker.metric("faas_invocations_total", "echo"), served_before, "none reached a function");
    worker.await_metric("vilya_connections_open", "", |open| open <= 2.0);
    let grown = worker.resident_bytes().saturating_sub(resident_before);
    assert!(grown < 16 << 20, "the worker has grown by {grown} bytes");
    worker.client().invoke("echo", b"still serving").expect(200);
}
