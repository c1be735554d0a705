//! The binary protocol against a real worker.

use std::collections::HashSet;

use vilya_protocol::wire;

use super::client::pattern;
use super::wire_client::{Frame, WINDOW, WireClient};
use super::worker::Worker;

const NAP: &str = "import time\ndef handler(event, context):\n    time.sleep(event)\n    return event\n";

#[test]
fn every_shard_has_a_port_and_the_map_says_who_owns_what() {
    let worker = Worker::start_with(&["cores.shards=2"]);
    let names: Vec<String> = (0..8).map(|number| format!("echo-{number}")).collect();
    for name in &names {
        worker.deploy_echo(name, "memory = \"32MiB\"");
    }
    let mut client = WireClient::connect(worker.wire_address, true, WINDOW);
    let Frame::Welcome { ports, max_payload, .. } = client.welcome.clone() else { unreachable!() };
    assert_eq!((ports.len(), max_payload), (2, 64 << 20));
    let Frame::Map { whole: true, mut entries } = client.next() else { panic!("a map follows") };
    entries.sort();
    assert_eq!(entries.iter().map(|(name, _)| name).collect::<Vec<_>>(), names.iter().collect::<Vec<_>>());
    let owners: HashSet<u16> = entries.iter().map(|(_, owners)| owners[0]).collect();
    assert_eq!(owners.len(), 2, "both shards own some");
    // Whoever follows the map takes no hop.
    let mut address = worker.wire_address;
    for (name, owners) in &entries {
        address.set_port(ports[usize::from(owners[0])]);
        let mut direct = WireClient::connect(address, false, WINDOW);
        let Frame::Welcome { shard, .. } = direct.welcome else { unreachable!() };
        assert_eq!(shard, owners[0]);
        let answer = direct.invoke(1, name, b"hop?");
        assert_eq!((answer.status, answer.shard, &answer.body[..]), (200, owners[0], &b"hop?"[..]));
    }
    assert_eq!(worker.metric("vilya_mesh_sent_total", ""), 0.0);
    // Whoever does not, is served all the same.
    address.set_port(ports[usize::from(1 - entries[0].1[0])]);
    let answer = WireClient::connect(address, false, WINDOW).invoke(7, &entries[0].0, b"a hop");
    assert_eq!((answer.status, answer.shard), (200, entries[0].1[0]));
    assert!(worker.metric("vilya_mesh_sent_total", "") > 0.0);
    // Changes are told.
    worker.client().request("DELETE", &format!("/v1/functions/{}", names[3]), b"").expect(204);
    assert_eq!(client.next(), Frame::Map { whole: false, entries: vec![(names[3].clone(), vec![])] });
    worker.deploy_echo(&names[3], "memory = \"32MiB\"");
    let Frame::Map { whole: false, entries: changed } = client.next() else { panic!("a change is told") };
    assert_eq!(changed[0].0, names[3]);
    assert_eq!(changed[0].1.len(), 1);
}

#[test]
fn payloads_of_every_size_come_back_within_the_credit_given() {
    let worker = Worker::start_with(&["cores.shards=2"]);
    worker.deploy_echo("echo", "memory = \"256MiB\"");
    let sizes = [0, 1, 1215, 1217, 16_384, 16_385, 32_767, 32_768, 65_536, 65_537, 1 << 20, (16 << 20) + 3];
    let Frame::Welcome { ports, .. } = WireClient::of(&worker).welcome else { unreachable!() };
    // The owner's port and the other's: into a lane, and through the mesh.
    for port in ports {
        let mut address = worker.wire_address;
        address.set_port(port);
        let mut client = WireClient::connect(address, false, WINDOW);
        for (id, length) in (1..).zip(sizes) {
            let body = pattern(length);
            let answer = client.invoke(id, "echo", &body);
            assert_eq!((answer.status, &*answer.content_type), (200, "text/plain"), "{length}");
            assert!(answer.body == body, "{length} bytes came back as {}", answer.body.len());
        }
    }
    // Without credit nothing of a payload comes; with a little, no more than that.
    let mut poor = WireClient::connect(worker.wire_address, false, 0);
    for length in [10, 100_000] {
        let body = pattern(length);
        poor.request(5, "echo", &body);
        match poor.next() {
            Frame::Response { id: 5, status: 200, payload, end: false, .. } => assert!(payload.is_empty()),
            other => panic!("{other:?}"),
        }
        let mut back = Vec::new();
        while back.len() < length {
            let mut out = Vec::new();
            wire::credit(&mut out, 5, 7000);
            poor.send(&out);
            let Frame::Data { id: 5, payload, .. } = poor.next() else { panic!("DATA follows credit") };
            assert!(payload.len() <= 7000);
            back.extend_from_slice(&payload);
        }
        assert!(back == body);
    }
}

#[test]
fn pipelined_requests_are_each_answered_once() {
    let worker = Worker::start();
    worker.deploy_echo("echo", "memory = \"64MiB\"\nconcurrency = 16");
    let mut client = WireClient::of(&worker);
    let mut out = Vec::new();
    const REQUESTS: u64 = 1000;
    for id in 1..=REQUESTS {
        let body = format!("request {id}");
        out.extend(WireClient::head(id, "echo", body.len() as u64, body.len() as u32, 0));
        out.extend_from_slice(body.as_bytes());
    }
    client.send(&out);
    for id in 1..=REQUESTS {
        let answer = client.answer(id, WINDOW);
        assert_eq!((answer.status, answer.body), (200, format!("request {id}").into_bytes()));
    }
    // The ids are free again.
    assert_eq!(client.invoke(1, "echo", b"again").body, b"again");
}

#[test]
fn a_cancelled_request_is_answered_at_once_and_its_id_is_free() {
    let worker = Worker::start_with(&["limits.sandboxes_per_function=1"]);
    worker.deploy_python("nap", NAP, "timeout = \"2s\"");
    let mut client = WireClient::of(&worker);
    client.request(9, "nap", b"30");
    client.cancel(9);
    assert_eq!(client.answer(9, WINDOW).status, 499);
    client.cancel(9);
    client.cancel(12345);
    // What the cancelled run comes to is nobody's: the next request of the id gets its own answer.
    let answer = client.invoke(9, "nap", b"0");
    assert_eq!((answer.status, &answer.body[..]), (200, &b"0"[..]));
    // One whose payload is not whole.
    client.send(&[WireClient::head(10, "nap", 100_000, 3, 0), b"123".to_vec()].concat());
    client.cancel(10);
    assert_eq!(client.answer(10, WINDOW).status, 499);
    assert_eq!(client.invoke(10, "nap", b"0").status, 200);
    worker.await_metric("vilya_invocations_open", "", |open| open == 0.0);
}

#[test]
fn a_client_waits_no_longer_than_it_said() {
    let worker = Worker::start();
    worker.deploy_python("nap", NAP, "timeout = \"20s\"");
    let mut client = WireClient::of(&worker);
    assert_eq!(client.invoke(1, "nap", b"0").status, 200);
    client.send(&[WireClient::head(2, "nap", 2, 2, 50), b"10".to_vec()].concat());
    let answer = client.answer(2, WINDOW);
    assert_eq!(answer.status, 504);
    assert!(String::from_utf8_lossy(&answer.body).contains("deadline"));
    // One that is kept costs nothing.
    client.send(&[WireClient::head(3, "nap", 1, 1, 10_000), b"0".to_vec()].concat());
    assert_eq!(client.answer(3, WINDOW).status, 200);
}

#[test]
fn refusals_come_before_the_payload_and_the_connection_goes_on() {
    let worker = Worker::start_with(&["server.max_payload=32MiB"]);
    worker.deploy_echo("echo", "");
    let mut client = WireClient::of(&worker);
    assert_eq!(client.invoke(1, "nobody", b"hello").status, 404);
    // Of a payload that is refused the rest may still come, and is thrown away.
    client.send(&[WireClient::head(2, "nobody", 10, 4, 0), b"half".to_vec()].concat());
    assert_eq!(client.answer(2, WINDOW).status, 404);
    let mut rest = Vec::new();
    wire::data_head(&mut rest, 2, 6, true);
    rest.extend_from_slice(b"of it.");
    client.send(&rest);
    assert_eq!(client.invoke(2, "echo", b"the id is free").body, b"the id is free");
    client.send(&WireClient::head(3, "echo", (32 << 20) + 1, 0, 0));
    assert_eq!(client.answer(3, WINDOW).status, 413);
    client.cancel(3);
    let answer = client.invoke(3, "echo", b"raise");
    assert_eq!((answer.status, answer.start), (500, 2));
    let mut ping = Vec::new();
    wire::ping(&mut ping, 77, b"there?");
    client.send(&ping);
    assert_eq!(client.next(), Frame::Pong { id: 77, body: b"there?".to_vec() });
}

#[test]
fn who_breaks_the_protocol_is_told_how_and_costs_only_itself() {
    let worker = Worker::start();
    worker.deploy_echo("echo", "");
    let mut neighbour = WireClient::of(&worker);
    let echo = |id| [WireClient::head(id, "echo", 2, 2, 0), b"ok".to_vec()].concat();
    let data = |id, bytes: &[u8], end| {
        let mut out = Vec::new();
        wire::data_head(&mut out, id, bytes.len() as u32, end);
        out.extend_from_slice(bytes);
        out
    };
    let begun = WireClient::head(1, "echo", 200_000, 0, 0);
    let unused_bit = {
        let mut bytes = echo(1);
        bytes[31] = 1;
        bytes
    };
    let broken: Vec<(&str, Vec<u8>)> = vec![
        ("twice", [WireClient::head(1, "echo", 5, 0, 0), echo(1)].concat()),
        ("not in flight", data(5, b"x", true)),
        ("END", [begun, data(1, b"too short", true)].concat()),
        ("reserved", unused_bit),
        ("kind", vec![0xFF; 64]),
        ("HTTP", b"POST /fn/echo HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\n\r\n".to_vec()),
    ];
    for (what, bytes) in broken {
        let mut client = WireClient::of(&worker);
        client.try_send(&bytes);
        let status = loop {
            match client.next() {
                Frame::Goaway { status, .. } => break status,
                // What was in order before.
                Frame::Response { .. } | Frame::Data { .. } | Frame::Credit { .. } => {}
                other => panic!("{what}: {other:?}"),
            }
        };
        assert_eq!(status, 400, "{what}");
        assert!(client.is_closed(), "{what}");
        assert_eq!(neighbour.invoke(1, "echo", what.as_bytes()).body, what.as_bytes());
    }
    let mut impolite = WireClient::silent(worker.wire_address);
    impolite.try_send(&echo(1));
    assert!(matches!(impolite.next(), Frame::Goaway { status: 400, .. }));
    let mut future = WireClient::silent(worker.wire_address);
    future.greet(2, 9, false, 0);
    assert!(matches!(future.next(), Frame::Goaway { status: 505, .. }));
    drop(neighbour);
    worker.await_metric("vilya_connections_open", "", |open| open <= 3.0);
    worker.await_metric("vilya_invocations_open", "", |open| open == 0.0);
}

/// The only lane of a function is lent to a request that does not come to its end: whoever has a whole one is served.
#[test]
fn a_slow_writer_keeps_no_lane_from_those_who_wait() {
    let worker = Worker::start_with(&["cores.shards=1", "limits.sandboxes_per_function=1"]);
    worker.deploy_echo("echo", "memory = \"64MiB\"");
    let body = pattern(3 << 20);
    let mut slow = WireClient::of(&worker);
    assert_eq!(slow.invoke(1, "echo", b"warm").body, b"warm");
    slow.send(&WireClient::head(2, "echo", body.len() as u64, 0, 0));
    assert!(matches!(slow.next(), Frame::Credit { id: 2, .. }));
    let half = body.len() / 2;
    let mut out = Vec::new();
    wire::data_head(&mut out, 2, 1 << 20, false);
    out.extend_from_slice(&body[..half.min(1 << 20)]);
    slow.send(&out[..out.len() - 1000]);
    worker.await_metric("vilya_lanes_reserved", "", |lanes| lanes == 1.0);
    let mut quick = worker.client();
    for round in 0..20 {
        assert_eq!(quick.invoke("echo", format!("{round}").as_bytes()).expect(200).text(), format!("{round}"));
    }
    slow.send(&out[out.len() - 1000..]);
    let mut rest = Vec::new();
    for (at, piece) in body[1 << 20..].chunks(1 << 20).enumerate() {
        wire::data_head(&mut rest, 2, piece.len() as u32, at == 1);
        rest.extend_from_slice(piece);
    }
    slow.send(&rest);
    let answer = slow.answer(2, 1 << 20);
    assert_eq!(answer.status, 200);
    assert!(answer.body == body, "what came before and after the lane was left is one payload");
    // One that leaves in the middle gives its lane back.
    slow.send(&WireClient::head(3, "echo", body.len() as u64, 0, 0));
    assert!(matches!(slow.next(), Frame::Credit { id: 3, .. }));
    drop(slow);
    assert_eq!(quick.invoke("echo", b"after").expect(200).text(), "after");
    worker.await_metric("vilya_lanes_reserved", "", |lanes| lanes == 0.0);
}

#[test]
fn a_slow_reader_keeps_no_lane_from_those_who_wait() {
    let worker = Worker::start_with(&["cores.shards=1", "limits.sandboxes_per_function=1"]);
    worker.deploy_echo("echo", "memory = \"256MiB\"");
    let body = pattern(24 << 20);
    let mut slow = WireClient::of(&worker);
    slow.request(1, "echo", &body);
    worker.await_metric("vilya_lanes_held", "", |lanes| lanes == 1.0);
    let mut quick = worker.client();
    for round in 0..20 {
        assert_eq!(quick.invoke("echo", format!("{round}").as_bytes()).expect(200).text(), format!("{round}"));
    }
    worker.await_metric("vilya_lanes_held", "", |lanes| lanes == 0.0);
    assert!(slow.answer(1, 1 << 20).body == body);
    // The same over HTTP, where the answer was on its way already.
    let mut slow = worker.client();
    slow.send(format!("POST /fn/echo HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes())
        .expect("sent");
    slow.send(&body).expect("sent");
    slow.stream().peek(&mut [0; 1]).expect("an answer begins");
    assert_eq!(quick.invoke("echo", b"over HTTP").expect(200).text(), "over HTTP");
    assert!(slow.read_answer().expect("whole").expect(200).body == body);
}

#[test]
fn a_stopping_worker_says_so_and_answers_what_it_took() {
    let worker = Worker::start();
    worker.deploy_python("nap", NAP, "");
    let mut client = WireClient::of(&worker);
    assert_eq!(client.invoke(1, "nap", b"0").status, 200);
    client.request(2, "nap", b"0.5");
    // The PONG comes when what was sent before it has been taken in.
    let mut ping = Vec::new();
    wire::ping(&mut ping, 1, b"");
    client.send(&ping);
    assert!(matches!(client.next(), Frame::Pong { .. }));
    let stopping = std::thread::spawn(move || worker.stop());
    assert!(matches!(client.next(), Frame::Goaway { status: 503, .. }));
    let answer = client.answer(2, WINDOW);
    assert_eq!((answer.status, &answer.body[..]), (200, &b"0.5"[..]));
    assert_eq!(stopping.join().expect("it stops"), Some(0));
}
