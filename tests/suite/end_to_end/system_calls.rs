//! How many system calls a warm invocation costs the worker, by its own counters. Counts decide and never time; what the
//! scheduler does in between changes them all the same, and each bound says by how much.

use std::time::Duration;

use super::wire_client::WireClient;
use super::worker::Worker;

/// Enters of the ring and wake-ups of sandboxes so far, the few of the request that asks included.
fn system_calls(worker: &Worker) -> f64 {
    worker.metric("vilya_ring_enters_total", "") + worker.metric("vilya_sandbox_wakes_total", "")
}

/// A batch goes into 64 lanes in four goes. If everything waited for everything, that would be about five enters and four
/// wakes, 0.035 an invocation. But a sandbox rings when the first of a go is done, and how many more the shard finds then
/// depends on who runs when: 0.04 to 0.05 on two cores, busy or not. A call an invocation would be ten times the bound.
/// Where the scheduler has shard and sandbox take turns at each invocation, a window is far above it, so the middle one of
/// many is held to it.
#[test]
fn a_pipelined_invocation_costs_a_tenth_of_a_system_call() {
    /// Sent in one write, and all answered before the next.
    const BATCH: u64 = 256;
    const BATCHES: usize = 8;
    const WINDOWS: usize = 11;
    let worker = Worker::start_with(&["cores.shards=1", "limits.sandboxes_per_function=1"]);
    // Memory for the stacks of as many threads, which count where no control group limits.
    worker.deploy_echo("echo", "memory = \"256MiB\"\nconcurrency = 64");
    let mut client = WireClient::connect(worker.wire_address, false, 256 * 1024);
    let body = [b'.'; 64];
    let mut requests = Vec::new();
    for id in 1..=BATCH {
        requests.extend(WireClient::head(id, "echo", body.len() as u64, body.len() as u32, 0));
        requests.extend_from_slice(&body);
    }
    let mut batch = || {
        client.send(&requests);
        for id in 1..=BATCH {
            let answer = client.answer(id, 0);
            assert_eq!((answer.status, &answer.body[..]), (200, &body[..]));
        }
    };
    batch();
    let mut windows: Vec<f64> = Vec::new();
    for _ in 0..WINDOWS {
        let before = system_calls(&worker);
        (0..BATCHES).for_each(|_| batch());
        windows.push((system_calls(&worker) - before) / (BATCH as f64 * BATCHES as f64));
    }
    windows.sort_by(f64::total_cmp);
    assert!(windows[WINDOWS / 2] <= 0.1, "calls an invocation, by window: {windows:?}");
}

/// An enter that sends the answer before and sleeps until the request arrives, the wake-up of the sandbox, and an enter that
/// sleeps until it has answered. A client that waits a little between its requests makes sure of the sleep, so that a call
/// more would show on any machine. A fifth is for what comes by the clock.
#[test]
fn an_invocation_of_a_lone_http_client_costs_three_system_calls() {
    const REQUESTS: u32 = 1000;
    const REQUEST: &[u8] = b"POST /fn/echo HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\n\r\nhello";
    let worker = Worker::start_with(&["cores.shards=1"]);
    worker.deploy_echo("echo", "memory = \"64MiB\"");
    let mut client = worker.client();
    client.invoke("echo", b"warm").expect(200);
    let before = system_calls(&worker);
    for _ in 0..REQUESTS {
        client.send(REQUEST).expect("the worker takes it");
        assert_eq!(client.read_answer().expect("an answer").expect(200).body, b"hello");
        std::thread::sleep(Duration::from_millis(1));
    }
    let each = (system_calls(&worker) - before) / f64::from(REQUESTS);
    assert!(each <= 3.2, "{each} calls an invocation");
}
