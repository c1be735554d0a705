//! Time, room and patience of the binary protocol: deadlines, clients that stall, and what they may cost others.

use std::time::{Duration, Instant};

use vilya_protocol::wire;

use super::client::pattern;
use super::wire_client::{Frame, WINDOW, WireClient};
use super::worker::{PATIENCE, Worker};

/// A deadline is for the answer to begin. How long its client takes to read it is another matter.
#[test]
fn an_answer_under_way_is_not_cut_by_its_deadline() {
    let worker = Worker::start_with(&["cores.shards=1"]);
    worker.deploy_echo("echo", "memory = \"64MiB\"");
    let mut client = WireClient::connect(worker.wire_address, false, 0);
    assert_eq!(client.invoke(1, "echo", b"warm").body, b"warm");
    let body = pattern(60_000);
    client.send(&[WireClient::head(2, "echo", 60_000, 60_000, 1500), body.clone()].concat());
    assert!(matches!(client.next(), Frame::Response { id: 2, status: 200, end: false, .. }));
    // Past the deadline, so that a fault shows.
    std::thread::sleep(Duration::from_millis(2000));
    let mut credit = Vec::new();
    wire::credit(&mut credit, 2, 60_000);
    client.send(&credit);
    assert_eq!(client.next(), Frame::Data { id: 2, payload: body, end: true });
    assert_eq!(client.invoke(3, "echo", b"on").body, b"on");
}

/// The deadline comes while the payload streams into a lane: what arrives in that moment is the rest of a frame still.
#[test]
fn a_deadline_in_the_middle_of_a_payload_leaves_the_connection_in_step() {
    let worker = Worker::start_with(&["cores.shards=1"]);
    worker.deploy_echo("echo", "memory = \"64MiB\"");
    let mut client = WireClient::of(&worker);
    assert_eq!(client.invoke(1, "echo", b"warm").body, b"warm");
    let piece = pattern(16 * 1024);
    const FRAME: usize = 1 << 20;
    for round in 0..20 {
        let id = 2 + round;
        client.send(&WireClient::head(id, "echo", 64 << 20, 0, 5));
        assert!(matches!(client.next(), Frame::Credit { .. } | Frame::Response { .. }));
        let status = 'sending: loop {
            let mut out = Vec::new();
            wire::data_head(&mut out, id, FRAME as u32, false);
            client.send(&out);
            let mut answered = None;
            for _ in 0..FRAME / piece.len() {
                client.send(&piece);
                if let Some(Frame::Response { status, .. }) = client.poll() {
                    answered = Some(status);
                }
            }
            if let Some(status) = answered {
                break 'sending status;
            }
        };
        assert_eq!(status, 504);
        client.cancel(id);
        let text = format!("round {round}");
        assert_eq!(client.invoke(1, "echo", text.as_bytes()).body, text.as_bytes());
    }
    worker.await_metric("vilya_lanes_reserved", "", |lanes| lanes == 0.0);
}

/// Whoever takes no answer holds memory, or a lane; not for ever, whatever else it sends.
#[test]
fn a_client_that_gives_no_credit_is_given_up() {
    let worker = Worker::start_with(&["cores.shards=1", "server.idle_timeout=1s"]);
    worker.deploy_echo("echo", "memory = \"64MiB\"");
    let mut client = WireClient::connect(worker.wire_address, false, 0);
    client.request(1, "echo", &pattern(60_000));
    let status = loop {
        let mut ping = Vec::new();
        wire::ping(&mut ping, 1, b"still here");
        client.try_send(&ping);
        match client.next() {
            Frame::Goaway { status, .. } => break status,
            Frame::Response { .. } | Frame::Pong { .. } => {}
            other => panic!("{other:?}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(status, 408);
    assert!(client.is_closed());
    worker.await_metric("vilya_lanes_held", "", |lanes| lanes == 0.0);
}

/// A request answered early and neither sent to its end nor cancelled does not keep a silent connection open.
#[test]
fn a_silent_connection_with_half_a_request_ends() {
    let worker = Worker::start_with(&["cores.shards=1", "server.idle_timeout=1s"]);
    let mut client = WireClient::of(&worker);
    client.send(&WireClient::head(1, "nobody", 1000, 0, 0));
    assert_eq!(client.answer(1, WINDOW).status, 404);
    assert!(matches!(client.next(), Frame::Goaway { status: 408, .. }));
    assert!(client.is_closed());
}

#[test]
fn who_says_no_hello_is_told_that_it_took_too_long() {
    let worker = Worker::start_with(&["server.header_timeout=300ms"]);
    let mut silent = WireClient::silent(worker.wire_address);
    assert!(matches!(silent.next(), Frame::Goaway { status: 408, .. }));
    assert!(silent.is_closed());
}

#[test]
fn one_connection_too_many_is_told_to_go_elsewhere() {
    let worker = Worker::start_with(&["cores.shards=1", "server.connections=2"]);
    let mut first = WireClient::of(&worker);
    let _second = WireClient::of(&worker);
    let mut third = WireClient::silent(worker.wire_address);
    assert!(matches!(third.next(), Frame::Goaway { status: 503, .. }));
    assert!(third.is_closed());
    let mut ping = Vec::new();
    wire::ping(&mut ping, 1, b"");
    first.send(&ping);
    assert!(matches!(first.next(), Frame::Pong { .. }));
}

/// What a client still sends after a GOAWAY is thrown away for two seconds, and no longer, however slowly it comes.
#[test]
fn a_client_that_goes_on_after_goaway_is_cut_off() {
    let worker = Worker::start_with(&["cores.shards=1"]);
    let mut client = WireClient::of(&worker);
    client.send(&[0xFF; 32]);
    assert!(matches!(client.next(), Frame::Goaway { status: 400, .. }));
    let since = Instant::now();
    while client.takes(b"x") {
        assert!(since.elapsed() < PATIENCE, "it is listened to for ever");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Small answers that nobody reads are bounded together, as large ones are.
#[test]
fn answers_that_nobody_reads_take_no_more_memory_than_there_is_for_bodies() {
    let worker = Worker::start_with(&[
        "cores.shards=1",
        "limits.bodies=4MiB",
        "server.max_payload=4MiB",
        "limits.sandboxes_per_function=1",
        "limits.invocations=16384",
        "limits.queue_per_function=16384",
    ]);
    // The first waits until all the others are in the queue.
    let code = "import time\ndef handler(event, context):\n    if event == 1:\n        time.sleep(3)\n    return 'x' * 15000\n";
    worker.deploy_python("many", code, "timeout = \"60s\"");
    assert_eq!(WireClient::of(&worker).invoke(1, "many", b"0").status, 200);
    const REQUESTS: u64 = 1000;
    let before = worker.resident_bytes();
    let mut clients: Vec<WireClient> = (0..8).map(|_| WireClient::of(&worker)).collect();
    clients[0].send(&[WireClient::head(REQUESTS + 1, "many", 1, 1, 0), b"1".to_vec()].concat());
    for client in &mut clients {
        let requests = (1..=REQUESTS).flat_map(|id| [WireClient::head(id, "many", 1, 1, 0), b"0".to_vec()].concat());
        client.send(&requests.collect::<Vec<u8>>());
    }
    worker.await_metric("vilya_invocations_open", "", |open| open > 8.0 * REQUESTS as f64 - 1.0);
    worker.await_metric("vilya_invocations_open", "", |open| open == 0.0);
    let held = worker.resident_bytes().saturating_sub(before);
    assert!(held < 60 << 20, "{held} bytes wait to be read");
    for client in &mut clients {
        for id in 1..=REQUESTS {
            assert!(matches!(client.answer(id, WINDOW).status, 200 | 503));
        }
    }
}

/// Changes of the map do not pile up for a client that is behind: it gets the map anew when it has caught up.
#[test]
fn a_client_that_is_behind_is_told_the_map_once() {
    let worker = Worker::start_with(&["cores.shards=1"]);
    worker.deploy_echo("echo", "memory = \"256MiB\"");
    let mut client = WireClient::connect(worker.wire_address, true, u64::MAX);
    assert!(matches!(client.next(), Frame::Map { whole: true, .. }));
    let body = pattern(24 << 20);
    client.request(1, "echo", &body);
    worker.await_metric("vilya_lanes_held", "", |lanes| lanes == 1.0);
    for name in ["one", "two", "three"] {
        worker.deploy_echo(name, "");
    }
    worker.client().request("DELETE", "/v1/functions/two", b"").expect(204);
    assert!(client.answer(1, 1).body == body);
    let mut ping = Vec::new();
    wire::ping(&mut ping, 1, b"");
    client.send(&ping);
    let mut maps = Vec::new();
    loop {
        match client.next() {
            Frame::Map { whole, entries } => maps.push((whole, entries)),
            Frame::Pong { .. } => break,
            other => panic!("{other:?}"),
        }
    }
    let [(true, entries)] = &mut maps[..] else { panic!("{maps:?}") };
    entries.sort();
    assert_eq!(entries.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["echo", "one", "three"]);
}
