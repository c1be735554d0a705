//! Answers in parts over the binary protocol: their ends, their pace, and what they cost other requests.

use std::time::{Duration, Instant};

use vilya_client::{Answer, Connection, Error, Options, Request};

use super::parts::deploy;
use super::wire_client::{Frame, WINDOW, WireClient};
use super::worker::{PATIENCE, Worker, await_log};

fn data(frame: &Frame) -> &[u8] {
    match frame {
        Frame::Response { payload, end: false, .. } | Frame::Data { payload, end: false, .. } => payload,
        other => panic!("no part: {other:?}"),
    }
}

/// The address of each shard.
fn shards(worker: &Worker) -> [std::net::SocketAddr; 2] {
    let Frame::Welcome { ports, .. } = WireClient::of(worker).welcome else { unreachable!() };
    [ports[0], ports[1]].map(|port| std::net::SocketAddr::new(worker.wire_address.ip(), port))
}

#[test]
fn parts_of_two_answers_alternate_as_credit_has_it_from_either_shard() {
    let worker = Worker::start_with(&["cores.shards=2", "cores.pin=false", "policies.spread=off"]);
    deploy(&worker, "many", "concurrency = 4\ntimeout = \"10m\"");
    for address in shards(&worker) {
        let mut client = WireClient::for_parts(address, 0);
        client.request(1, "many", b"parts endless");
        client.request(2, "many", b"parts endless");
        for id in [1, 2] {
            assert!(matches!(client.next_of(id), Frame::Response { in_parts: true, bytes: 0, status: 200, .. }));
        }
        // Each goes on with its own credit alone, in any order, to the byte.
        for (id, bytes, expected) in
            [(2, 3, "tic"), (1, 7, "tick\nti"), (2, 2, "k\n"), (2, 5, "tick\n"), (1, 3, "ck\n")]
        {
            client.grant(id, bytes);
            let mut got = Vec::new();
            while got.len() < expected.len() {
                got.extend_from_slice(data(&client.next_of(id)));
            }
            assert_eq!(String::from_utf8_lossy(&got), expected);
            // Both wait: another request of the connection does not.
            let other = 3 + bytes;
            client.request(other, "many", b"");
            assert!(matches!(client.next(), Frame::Response { id, end: true, status: 200, .. } if id == other));
        }
        client.cancel(1);
        assert!(matches!(client.next_of(1), Frame::Cut { status: 499, .. }));
        client.grant(2, 5);
        assert_eq!(data(&client.next_of(2)), b"tick\n");
        client.cancel(2);
        assert!(matches!(client.next_of(2), Frame::Cut { status: 499, .. }));
        assert_eq!(client.invoke(1, "many", b"the id is free").body, b"the id is free");
    }
    assert!(worker.metric("vilya_mesh_sent_total", "") > 0.0);
    worker.await_metric("vilya_invocations_open", "", |open| open == 0.0);
    assert_eq!(worker.metric("vilya_sandboxes_poisoned_total", "shard"), 0.0);
}

#[test]
fn an_answer_in_parts_may_be_larger_than_a_payload_and_one_for_an_older_client_not() {
    let worker = Worker::start_with(&["cores.shards=2", "server.max_payload=16MiB", "policies.spread=off"]);
    deploy(&worker, "parts", "timeout = \"10m\"");
    for address in shards(&worker) {
        for credit in [0, 100_000, 1 << 30] {
            let mut client = WireClient::for_parts(address, credit);
            let answer = client.invoke(1, "parts", b"parts large");
            assert_eq!((answer.status, answer.in_parts, answer.body.len(), answer.cut), (200, true, 64 << 20, None));
            let is_right = |(number, piece): (usize, &[u8])| piece.iter().all(|&byte| usize::from(byte) == number);
            assert!(answer.body.chunks(1 << 20).enumerate().all(is_right));
            // With the last of it in a lane.
            let large = vec![7; 3 << 20];
            assert!(client.invoke(2, "parts", &large).body == large);
        }
        let mut older = WireClient::connect(address, false, WINDOW);
        assert_eq!(older.invoke(1, "parts", b"parts large").status, 501);
        let whole = older.invoke(2, "parts", b"parts");
        assert_eq!((whole.in_parts, &whole.body[..]), (false, &b"one,zwei,three"[..]));
        assert_eq!(older.invoke(3, "parts", b"parts raise").status, 500);
    }
    worker.await_metric("vilya_lanes_held", "", |lanes| lanes == 0.0);
}

/// The client that others use, against the worker: two answers at its own pace, and others put together in between.
#[test]
fn the_client_takes_several_answers_at_once_and_puts_others_together() {
    let worker = Worker::start_with(&["cores.shards=2", "server.max_payload=16MiB", "policies.spread=off"]);
    deploy(&worker, "many", "concurrency = 4\ntimeout = \"10m\"");
    for address in shards(&worker) {
        let options = Options { window_bytes: 100_000, ..Options::DEFAULT };
        let mut connection = Connection::connect(address, &options).expect("the worker speaks the protocol");
        let begin = |connection: &mut Connection, word: &str| {
            connection.send_for_parts(&Request::new("many", word.as_bytes())).expect("there is room")
        };
        let (endless, large) = (begin(&mut connection, "parts endless"), begin(&mut connection, "parts large"));
        let (mut answer, mut got) = (Answer::default(), 0);
        let together = |connection: &mut Connection, word: &str| {
            let mut answer = Answer::default();
            connection.exchange(&Request::new("many", word.as_bytes()), &mut answer).map(|()| answer)
        };
        while got < 4 << 20 {
            assert!(connection.receive_part(large, &mut answer).expect("it goes on"));
            assert_eq!((answer.id, answer.status), (large, 200));
            assert!(answer.body.iter().enumerate().all(|(at, &byte)| usize::from(byte) == (got + at) >> 20));
            got += answer.body.len();
        }
        assert_eq!(together(&mut connection, "parts").expect("it is answered").body, b"one,zwei,three");
        connection.cancel(large);
        assert!(connection.receive_part(endless, &mut answer).expect("it goes on") && answer.body.starts_with(b"tick"));
        connection.cancel(endless);
        // Put together it may be as large as the client says, and what is cut is an error.
        assert_eq!(together(&mut connection, "parts large").expect("it is answered").body.len(), 64 << 20);
        for (word, status, why) in [("parts raise", 500, "in the middle"), ("parts exit", 502, "code 3")] {
            let cut = together(&mut connection, word).expect("it is answered");
            let text = String::from_utf8_lossy(&cut.body);
            assert!(cut.status == status && text.contains(why), "{} {text}", cut.status);
            let mut parts = connection.parts(&Request::new("many", word.as_bytes())).expect("it begins");
            assert_eq!(parts.next().expect("a part"), Some(&b"begun"[..]));
            assert!(matches!(parts.next(), Err(Error::Cut { status: of, .. }) if of == status));
        }
        assert_eq!(connection.in_flight(), 0);
    }
    worker.await_metric("vilya_invocations_open", "", |open| open == 0.0);
}

/// What is left when the function returns is sent from its lane, which others may want meanwhile.
#[test]
fn the_end_of_an_answer_in_parts_may_be_larger_than_a_part() {
    let settings = ["cores.shards=2", "policies.spread=off", "limits.sandboxes_per_function=1"];
    let worker = Worker::start_with(&settings);
    deploy(&worker, "tail", "timeout = \"10m\"");
    for address in shards(&worker) {
        let expected = [&b"begun"[..], &[7; 3 << 20]].concat();
        for credit in [0, 5, 1 << 30] {
            let mut client = WireClient::for_parts(address, credit);
            let answer = client.invoke(1, "tail", b"parts tail");
            assert!(answer.in_parts && answer.body == expected && answer.cut.is_none(), "{credit} {:?}", answer.cut);
            let http = worker.client().invoke("tail", b"parts tail").expect(200);
            assert!(http.body == expected);
        }
        let mut slow = WireClient::for_parts(address, 5);
        slow.request(1, "tail", b"parts tail");
        assert_eq!(data(&slow.next_of(1)), b"begun");
        worker.await_metric("vilya_lanes_held", "", |lanes| lanes == 1.0);
        // The only lane is wanted: what was not taken is copied out of it.
        assert_eq!(WireClient::of(&worker).invoke(1, "tail", b"x").body, b"x");
        worker.await_metric("vilya_lanes_held", "", |lanes| lanes == 0.0);
        let mut rest = Vec::new();
        while rest.len() < 3 << 20 {
            slow.grant(1, 1 << 20);
            match slow.next_of(1) {
                Frame::Data { payload, end, .. } => {
                    rest.extend_from_slice(&payload);
                    assert_eq!(end, rest.len() == 3 << 20);
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(rest.iter().all(|&byte| byte == 7));
        // Nobody wants the rest.
        slow.request(1, "tail", b"parts tail");
        assert_eq!(data(&slow.next_of(1)), b"begun");
        worker.await_metric("vilya_lanes_held", "", |lanes| lanes == 1.0);
        slow.cancel(1);
        assert!(matches!(slow.next_of(1), Frame::Cut { status: 499, .. }));
        worker.await_metric("vilya_lanes_held", "", |lanes| lanes == 0.0);
        assert_eq!(slow.invoke(1, "tail", b"the id is free").body, b"the id is free");
    }
}

#[test]
fn who_gives_no_credit_for_a_part_loses_that_answer_and_nothing_else() {
    let worker = Worker::start_with(&["cores.shards=1", "server.idle_timeout=2s", "limits.sandboxes_per_function=1"]);
    deploy(&worker, "slow", "timeout = \"10m\"");
    worker.deploy_echo("other", "");
    let mut client = WireClient::for_parts(worker.wire_address, 0);
    client.request(1, "slow", b"parts endless");
    assert!(matches!(client.next_of(1), Frame::Response { in_parts: true, .. }));
    let status = loop {
        client.request(2, "other", b"");
        match client.next() {
            Frame::Response { id: 2, status: 200, .. } => {}
            Frame::Cut { id: 1, status, .. } => break status,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(status, 408);
    assert!(matches!(client.next(), Frame::Response { id: 2, .. }));
    // So does one whose function has ended meanwhile.
    client.request(1, "slow", b"parts tail");
    client.grant(1, 5);
    let mut begun = Vec::new();
    while begun.len() < 5 {
        begun.extend_from_slice(data(&client.next_of(1)));
    }
    assert!(matches!(client.next_of(1), Frame::Cut { status: 408, .. }));
    worker.await_metric("vilya_lanes_held", "", |lanes| lanes == 0.0);
    // The only sandbox of the function is free, and the connection goes on.
    let answer = client.invoke(3, "slow", b"x");
    assert_eq!((answer.status, answer.start, &answer.body[..]), (200, 2, &b"x"[..]));
}

#[test]
fn who_reads_nothing_delays_nobody_else_and_is_given_up() {
    let worker = Worker::start_with(&["cores.shards=1", "server.idle_timeout=2s", "limits.sandboxes_per_function=1"]);
    deploy(&worker, "large", "timeout = \"10m\"");
    worker.deploy_echo("other", "");
    let mut slow = WireClient::for_parts(worker.wire_address, u64::MAX);
    slow.request(1, "large", b"parts endless");
    let address = worker.wire_address;
    let before = worker.resident_bytes();
    let next = std::thread::spawn(move || WireClient::connect(address, false, WINDOW).invoke(1, "large", b"x"));
    let mut other = WireClient::of(&worker);
    while !next.is_finished() {
        assert_eq!(other.invoke(1, "other", b"x").body, b"x");
    }
    let answer = next.join().expect("an answer");
    assert_eq!((answer.status, answer.start), (200, 2));
    let held = worker.resident_bytes().saturating_sub(before);
    assert!(held < 32 << 20, "{held} bytes wait to be read");
    assert!(slow.is_closed());
}

#[test]
fn time_that_runs_out_in_the_middle_is_said() {
    let worker = Worker::start_with(&["cores.shards=1"]);
    deploy(&worker, "short", "timeout = \"300ms\"");
    deploy(&worker, "long", "timeout = \"10m\"");
    let mut client = WireClient::for_parts(worker.wire_address, WINDOW);
    // Its time passes while it goes on, or while it waits for credit; on a busy machine now and then before it begins.
    let (answer, (status, why)) = loop {
        client.request(1, "short", b"parts endless");
        let mut answer = client.answer(1, 1 << 20);
        if let Some(cut) = answer.cut.take() {
            break (answer, cut);
        }
        assert_eq!(answer.status, 504);
    };
    assert!(status == 504 && why.contains("timeout"), "{status} {why}");
    assert!(answer.body.chunks(5).all(|tick| b"tick\n".starts_with(tick)));
    let mut deadline_ms = 500;
    let why = loop {
        client.send(&[WireClient::head(2, "long", 13, 13, deadline_ms), b"parts endless".to_vec()].concat());
        match client.last_of(2) {
            Frame::Cut { status: 504, body, .. } => break body,
            Frame::Response { status: 504, .. } => deadline_ms *= 2,
            other => panic!("{other:?}"),
        }
    };
    assert!(why.contains("deadline"), "{why}");
    // One that ends in time is whole.
    client.send(&[WireClient::head(3, "long", 5, 5, 60_000), b"parts".to_vec()].concat());
    let answer = client.answer(3, WINDOW);
    assert_eq!((&answer.body[..], answer.cut), (&b"one,zwei,three"[..], None));
    worker.await_metric("vilya_invocations_open", "", |open| open == 0.0);
}

#[test]
fn a_client_that_leaves_in_the_middle_ends_what_runs_for_it() {
    let worker = Worker::start_with(&["cores.shards=2", "cores.pin=false", "policies.spread=off"]);
    deploy(&worker, "endless", "timeout = \"10m\"\nconcurrency = 2");
    for (round, address) in (1..).zip(shards(&worker)) {
        for credit in [0, WINDOW] {
            let mut client = WireClient::for_parts(address, credit);
            client.request(1, "endless", b"parts endless");
            assert!(matches!(client.next_of(1), Frame::Response { in_parts: true, .. }));
        }
        worker.await_metric("vilya_invocations_open", "", |open| open == 0.0);
        let since = Instant::now();
        while await_log(&worker, "endless", 1).matches("not taken").count() < 2 * round {
            assert!(since.elapsed() < PATIENCE, "they are not told that nobody takes their parts");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    assert_eq!(worker.metric("vilya_sandboxes_poisoned_total", "shard"), 0.0);
}

#[test]
fn a_failure_that_says_too_much_is_cut_all_the_same() {
    let worker = Worker::start_with(&["cores.shards=1"]);
    let code = "def handler(event, context):\n    yield 'begun'\n    raise ValueError('x' * event)\n";
    worker.deploy_python("loud", code, "");
    let mut client = WireClient::for_parts(worker.wire_address, WINDOW);
    for (id, bytes, shown) in [(1, 100, true), (2, 20_000, false), (3, 1_000_000, false)] {
        let answer = client.invoke(id, "loud", bytes.to_string().as_bytes());
        let (status, error) = answer.cut.expect("it is cut");
        assert_eq!((status, &answer.body[..], error.contains("xxx")), (500, &b"begun"[..], shown), "{error}");
        let error: serde_json::Value = serde_json::from_str(&error).expect("JSON");
        assert!(error["errorType"].is_string());
    }
    worker.await_metric("vilya_lanes_held", "", |lanes| lanes == 0.0);
}

#[test]
fn a_worker_that_stops_ends_what_goes_on_for_too_long() {
    let worker = Worker::start_with(&["cores.shards=1", "server.drain_timeout=1s"]);
    deploy(&worker, "endless", "timeout = \"10m\"");
    let mut client = WireClient::for_parts(worker.wire_address, WINDOW);
    client.request(1, "endless", b"parts endless");
    assert!(matches!(client.next_of(1), Frame::Response { in_parts: true, .. }));
    let stopping = std::thread::spawn(move || worker.stop());
    let last = loop {
        match client.next() {
            Frame::Goaway { status: 503, .. } | Frame::Data { id: 1, end: false, .. } => client.grant(1, 1000),
            other => break other,
        }
    };
    assert!(matches!(last, Frame::Cut { id: 1, status: 503, .. }), "{last:?}");
    assert_eq!(stopping.join().expect("it stops"), Some(0));
}
