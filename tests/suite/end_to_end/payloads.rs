//! Bodies of every size, both ways, whole.

use super::client::pattern;
use super::worker::Worker;

#[test]
fn bytes_come_back_as_they_went_at_every_size() {
    let worker = Worker::start();
    worker.deploy_echo("rust-echo", "memory = \"256MiB\"");
    let raw = "import vilya\n@vilya.raw\ndef handler(request, context):\n    out = context.reserve(len(request))\n    out[:] = request\n    return out\n";
    worker.deploy_python("python-echo", raw, "memory = \"256MiB\"");
    let mut client = worker.client();
    for name in ["rust-echo", "python-echo"] {
        for length in
            [0, 1, 63, 1024, 1215, 1216, 1217, 4096, 16_383, 16_384, 16_385, 65_536, 1 << 20, 5 << 20, (16 << 20) + 3]
        {
            let body = pattern(length);
            let answer =
                client.request_typed("POST", &format!("/fn/{name}"), "application/octet-stream", &body).expect(200);
            assert!(answer.body == body, "{name} changed {length} bytes into {}", answer.body.len());
        }
    }
}

#[test]
fn a_chunked_body_is_put_together() {
    let worker = Worker::start();
    worker.deploy_echo("echo", "");
    let mut client = worker.client();
    client
        .send(b"POST /fn/echo HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n,\r\n6\r\n world\r\n0\r\n\r\n")
        .expect("sent");
    assert_eq!(client.read_answer().expect("an answer").expect(200).text(), "hello, world");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let worker = Worker::start();
    worker.deploy_echo("echo", "");
    let mut client = worker.client();
    let mut bytes = Vec::new();
    for turn in 0..500 {
        let body = format!("turn {turn}");
        let head = format!("POST /fn/echo HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        bytes.extend_from_slice(head.as_bytes());
    }
    client.send(&bytes).expect("sent");
    for turn in 0..500 {
        assert_eq!(client.read_answer().expect("an answer").expect(200).text(), format!("turn {turn}"));
    }
}

#[test]
fn more_pipelined_bytes_than_the_backlog_holds_are_not_lost() {
    let worker = Worker::start();
    worker.deploy_echo("echo", "");
    let mut client = worker.client();
    let body = pattern(50_000);
    let head = format!("POST /fn/echo HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n", body.len());
    let request = [head.as_bytes(), &body].concat();
    let mut writer = client.stream().try_clone().expect("a socket");
    let sender = std::thread::spawn(move || {
        for _ in 0..40 {
            std::io::Write::write_all(&mut writer, &request).expect("sent");
        }
    });
    for _ in 0..40 {
        assert!(client.read_answer().expect("an answer").expect(200).body == body);
    }
    sender.join().expect("all is sent");
}

#[test]
fn a_body_over_the_limit_is_refused_from_its_announcement() {
    let worker = Worker::start_with(&["server.max_payload=1MiB"]);
    let raw = "import vilya\n@vilya.raw\ndef handler(request, context):\n    return request\n";
    worker.deploy_python("echo", raw, "");
    let mut client = worker.client();
    // Only the head is sent: the answer comes without a byte of the body.
    client.send(b"POST /fn/echo HTTP/1.1\r\nhost: t\r\ncontent-length: 1048577\r\n\r\n").expect("sent");
    let answer = client.read_answer().expect("an answer").expect(413);
    assert!(answer.json()["errorType"].is_string());
    assert!(client.is_closed());
    let mut client = worker.client();
    client
        .send(b"POST /fn/echo HTTP/1.1\r\nhost: t\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n")
        .expect("sent");
    assert_eq!(client.read_answer().expect("leave to go on").status, 100);
    client.send(b"then this").expect("sent");
    assert_eq!(client.read_answer().expect("an answer").expect(200).text(), "then this");
    // The limit itself is not over the limit.
    let body = pattern(1 << 20);
    assert!(client.request_typed("POST", "/fn/echo", "a/b", &body).expect(200).body == body);
}

#[test]
fn a_response_over_the_limit_is_an_error_and_not_a_part() {
    let worker = Worker::start_with(&["server.max_payload=1MiB"]);
    worker.deploy_python("large", "def handler(event, context):\n    return 'z' * (1 << 20)\n", "");
    let mut client = worker.client();
    let answer = client.invoke("large", b"").expect(500);
    assert!(answer.json()["errorType"].to_string().contains("TooLarge"), "{}", answer.text());
}

/// What large payloads make resident goes back to the system: as root out of the living sandbox; without, with it.
#[test]
fn memory_of_large_payloads_is_given_back() {
    let worker = Worker::start_with(&["cores.shards=1"]);
    worker.deploy_echo("echo", "memory = \"256MiB\"");
    let mut client = worker.client();
    let body = pattern(32 << 20);
    assert_eq!(client.invoke("echo", b"small").expect(200).text(), "small");
    let before = worker.shared_bytes();
    for _ in 0..2 {
        assert!(client.request_typed("POST", "/fn/echo", "a/b", &body).expect(200).body == body);
    }
    let since = std::time::Instant::now();
    loop {
        let held = worker.shared_bytes().saturating_sub(before);
        if held < 1 << 20 {
            break;
        }
        assert!(since.elapsed() < super::worker::PATIENCE, "{held} bytes are kept");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!(client.request_typed("POST", "/fn/echo", "a/b", &body).expect(200).body == body);
}

/// Memory is given back a second after a large payload: not that of a lane into which the next is arriving by then.
#[test]
fn memory_is_not_taken_from_under_a_body_that_is_arriving() {
    let worker = Worker::start_with(&["cores.shards=1", "limits.sandboxes_per_function=1"]);
    worker.deploy_echo("echo", "memory = \"256MiB\"");
    let mut client = worker.client();
    let body = pattern(4 << 20);
    assert!(client.request_typed("POST", "/fn/echo", "a/b", &body).expect(200).body == body);
    client
        .send(format!("POST /fn/echo HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes())
        .expect("sent");
    let (first, rest) = body.split_at(3 << 20);
    client.send(first).expect("sent");
    // Longer than it takes, so that a fault shows; there is nothing to wait for.
    std::thread::sleep(std::time::Duration::from_millis(2500));
    client.send(rest).expect("sent");
    assert!(client.read_answer().expect("an answer").expect(200).body == body, "what had arrived was lost");
}

/// A body that came whole into a lane which is no longer to be had queues like any other, and is refused like any other.
#[test]
fn a_body_whose_lane_is_lost_is_answered_also_when_there_is_no_room_for_it() {
    let worker =
        Worker::start_with(&["cores.shards=1", "limits.sandboxes_per_function=1", "limits.queue_per_function=1"]);
    let nap = "import time\ndef handler(event, context):\n    time.sleep(event)\n    return event\n";
    worker.deploy_python("nap", nap, "concurrency = 3\ntimeout = \"3s\"");
    let mut upload = worker.client();
    assert_eq!(upload.invoke("nap", b"0").expect(200).text(), "0");
    let invoke = |seconds: &'static str| {
        let mut client = worker.client();
        std::thread::spawn(move || client.invoke("nap", seconds.as_bytes()).status)
    };
    let overdue = invoke("30");
    let mut body = b"0".to_vec();
    body.resize(100_000, b' ');
    let head = format!("POST /fn/nap HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n", body.len());
    upload.send(&[head.as_bytes(), &body[..50_000]].concat()).expect("sent");
    worker.await_metric("vilya_lanes_reserved", "", |lanes| lanes == 1.0);
    std::thread::sleep(std::time::Duration::from_millis(1500));
    // Still in time when the first is not any more: the sandbox lives on for it, and takes nothing else.
    let in_time = invoke("2.7");
    assert_eq!(overdue.join().expect("an answer"), 504);
    let queued = invoke("0");
    worker.await_metric("vilya_invocations_queued", "", |queued| queued >= 1.0);
    upload.send(&body[50_000..]).expect("sent");
    let status = upload.read_answer().expect("an answer").status;
    // 200 if all of that took so long that another sandbox was there.
    assert!(matches!(status, 429 | 200), "{status}");
    for other in [in_time, queued] {
        other.join().expect("an answer");
    }
}
