//! Full means a clear refusal; a client that leaves takes its work with it; stopping finishes what was begun.

use std::time::Duration;

use super::client::Client;
use super::worker::Worker;

const NAP: &str = "import time\ndef handler(event, context):\n    time.sleep(event)\n    return event\n";

#[test]
fn a_full_queue_says_when_to_come_back() {
    let settings =
        ["limits.sandboxes=2", "limits.queue_per_function=2", "cores.shards=1", "limits.sandboxes_per_function=1"];
    let worker = Worker::start_with(&settings);
    worker.deploy_python("nap", NAP, "timeout = \"30s\"");
    let address = worker.address;
    let invoke = move || Client::connect(address).invoke("nap", b"1");
    let mut waiting = vec![std::thread::spawn(invoke)];
    worker.await_metric("vilya_sandboxes", "", |alive| alive == 1.0);
    worker.await_metric("vilya_invocations_queued", "", |queued| queued == 0.0);
    for queued in 1..=2 {
        waiting.push(std::thread::spawn(invoke));
        worker.await_metric("vilya_invocations_queued", "", |now| now == f64::from(queued));
    }
    let refused = worker.client().invoke("nap", b"1").expect(429);
    assert!(refused.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()));
    assert!(refused.json()["errorType"].is_string());
    for thread in waiting {
        thread.join().expect("a thread").expect(200);
    }
}

#[test]
fn idle_sandboxes_make_room_for_others() {
    let settings = ["limits.memory=256MiB", "cores.shards=1"];
    let worker = Worker::start_with(&settings);
    for name in ["a", "b", "c"] {
        worker.deploy_python(
            name,
            "def handler(event, context):\n    return context.function_name\n",
            "memory = \"100MiB\"",
        );
    }
    let mut client = worker.client();
    for _ in 0..2 {
        for name in ["a", "b", "c"] {
            assert_eq!(client.invoke(name, b"").expect(200).json(), name);
            assert!(worker.metric("vilya_sandbox_memory_bytes", "") <= (256 << 20) as f64);
        }
    }
    let warm = client.invoke("c", b"").expect(200);
    assert_eq!(warm.header("x-vilya-start"), Some("warm"), "the one used last is kept");
}

#[test]
fn an_idle_sandbox_goes_after_its_time_to_live() {
    let worker = Worker::start_with(&["policies.keep_alive=ttl", "policies.keep_alive_ttl=1s"]);
    let name = format!("brief-{}", std::process::id());
    worker.deploy_python(&name, "def handler(event, context):\n    return 1\n", "");
    worker.client().invoke(&name, b"").expect(200);
    worker.await_metric("vilya_sandboxes", "", |alive| alive == 0.0);
    assert_eq!(super::worker::sandbox_processes(&name), Vec::<i32>::new());
}

#[test]
fn a_client_that_leaves_takes_its_queued_request_with_it() {
    let worker = Worker::start_with(&["cores.shards=1", "limits.sandboxes_per_function=1"]);
    worker.deploy_python("nap", NAP, "timeout = \"30s\"");
    let address = worker.address;
    let first = std::thread::spawn(move || Client::connect(address).invoke("nap", b"2"));
    worker.await_metric("vilya_sandboxes", "", |alive| alive == 1.0);
    let mut leaving = worker.client();
    leaving.send(b"POST /fn/nap HTTP/1.1\r\nhost: t\r\ncontent-length: 2\r\n\r\n20").expect("sent");
    worker.await_metric("vilya_invocations_queued", "", |queued| queued == 1.0);
    drop(leaving);
    worker.await_metric("vilya_invocations_queued", "", |queued| queued == 0.0);
    first.join().expect("a thread").expect(200);
    // Were it still there, this would wait for its 20 seconds.
    let answer = worker.client().invoke("nap", b"0").expect(200);
    assert_eq!(answer.header("x-vilya-start"), Some("warm"));
}

#[test]
fn stopping_finishes_what_was_begun_and_takes_nothing_new() {
    let mut worker = Worker::start();
    let name = format!("stopped-{}", std::process::id());
    worker.deploy_python(&name, NAP, "timeout = \"30s\"");
    let (address, function) = (worker.address, name.clone());
    worker.client().invoke(&name, b"0").expect(200);
    let running = std::thread::spawn(move || Client::connect(address).invoke(&function, b"5"));
    worker.await_metric("vilya_invocations_open", "", |open| open == 1.0);
    let mut kept = worker.client();
    kept.request("GET", "/livez", b"").expect(200);
    // A request that has begun to arrive keeps its connection open through the drain.
    kept.send(format!("POST /fn/{name} HTTP/1.1\r\nhost: t\r\ncontent-le").as_bytes()).expect("sent");
    let mut idle: Vec<Client> = (0..16).map(|_| worker.client()).collect();
    for client in &mut idle {
        client.request("GET", "/livez", b"").expect(200);
    }
    // Every shard answers a scrape, so by the second one each has taken in what had arrived before the first.
    worker.metric("vilya_connections_open", "");
    worker.metric("vilya_connections_open", "");
    worker.signal(nix::sys::signal::Signal::SIGTERM);
    // A shard that drains closes what is idle: when all of these are closed, every shard does.
    assert!(idle.iter_mut().all(Client::is_closed));
    kept.send(b"ngth: 1\r\n\r\n0").expect("sent");
    let late = kept.read_answer().expect("an answer").expect(503);
    assert!(late.json()["errorType"].is_string());
    running.join().expect("a thread").expect(200);
    assert_eq!(worker.await_end(), Some(0));
    assert_eq!(super::worker::sandbox_processes(&name), Vec::<i32>::new());
}

#[test]
fn slow_senders_are_given_up_and_idle_connections_closed() {
    let worker = Worker::start_with(&["server.header_timeout=1s", "server.idle_timeout=1s", "server.body_timeout=1s"]);
    worker.deploy_echo("echo", "");
    let mut slow_head = worker.client();
    let mut slow_body = worker.client();
    let mut idle = worker.client();
    slow_body.send(b"POST /fn/echo HTTP/1.1\r\nhost: t\r\ncontent-length: 100\r\n\r\nx").expect("sent");
    // A byte now and then does not buy a head more time.
    let sent = (0..100).take_while(|_| {
        std::thread::sleep(Duration::from_millis(50));
        slow_head.send(b"P").is_ok()
    });
    assert!(sent.count() < 100, "a slow head is read for ever");
    assert_eq!(slow_body.read_answer().map(|answer| answer.status).expect("an answer"), 408);
    assert!(idle.is_closed());
    worker.client().invoke("echo", b"x").expect(200);
}

#[test]
fn connections_beyond_the_limit_are_refused_and_the_others_served() {
    let worker = Worker::start_with(&["cores.shards=1", "server.connections=16"]);
    worker.deploy_echo("echo", "");
    let mut clients: Vec<Client> = (0..16).map(|_| worker.client()).collect();
    for client in &mut clients {
        client.request("GET", "/livez", b"").expect(200);
    }
    let mut beyond = worker.client();
    assert!(beyond.is_closed());
    clients[3].invoke("echo", b"x").expect(200);
    clients.pop();
    clients.pop();
    // Room again, as soon as the worker has seen them go.
    let again = (0..1000).any(|_| {
        std::thread::sleep(Duration::from_millis(5));
        let mut client = worker.client();
        client.send(b"GET /livez HTTP/1.1\r\nhost: t\r\n\r\n").is_ok()
            && client.read_answer().is_ok_and(|answer| answer.status == 200)
    });
    assert!(again);
}
