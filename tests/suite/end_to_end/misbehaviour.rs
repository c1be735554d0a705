//! Functions that do what they must not: each gets its status, and a neighbour is served all the while.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::client::Client;
use super::worker::{Worker, await_log};

const NEIGHBOUR: &str = "def handler(event, context):\n    return event\n";

/// Invokes the neighbour again and again while `body` runs; every answer must be right.
fn beside_a_neighbour(worker: &Worker, body: impl FnOnce(&mut Client)) {
    worker.deploy_python("neighbour", NEIGHBOUR, "");
    let over = Arc::new(AtomicBool::new(false));
    let (address, until) = (worker.address, Arc::clone(&over));
    let neighbour = std::thread::spawn(move || {
        let mut client = Client::connect(address);
        let mut served = 0_u64;
        // Relaxed: only when to stop hangs on it.
        while !until.load(Ordering::Relaxed) {
            let answer = client.invoke("neighbour", served.to_string().as_bytes()).expect(200);
            assert_eq!(answer.text().trim(), served.to_string());
            served += 1;
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        served
    });
    body(&mut worker.client());
    over.store(true, Ordering::Relaxed);
    assert!(neighbour.join().expect("the neighbour is always served") > 0);
}

#[test]
fn one_that_exits_is_reported_and_replaced() {
    let worker = Worker::start();
    worker.deploy_python("quitter", "import os\ndef handler(event, context):\n    os._exit(7)\n", "");
    beside_a_neighbour(&worker, |client| {
        for _ in 0..3 {
            let answer = client.invoke("quitter", b"").expect(502);
            assert!(answer.json()["errorMessage"].to_string().contains("code 7"), "{}", answer.text());
            assert!(answer.json()["errorType"].is_string());
        }
    });
}

#[test]
fn one_that_takes_more_memory_than_it_has_fails_alone() {
    let worker = Worker::start();
    let code = "def handler(event, context):\n    hoard = []\n    while True:\n        hoard.append(bytearray(b'x' * (1 << 20)))\n";
    worker.deploy_python("hoarder", code, "memory = \"64MiB\"\ntimeout = \"20s\"");
    beside_a_neighbour(&worker, |client| {
        let answer = client.invoke("hoarder", b"");
        // Killed where the host delegates memory limits; elsewhere the allocation itself fails, and raises.
        let message = answer.json()["errorMessage"].to_string();
        match answer.status {
            502 => assert!(message.contains("64 MiB"), "{message}"),
            500 => assert_eq!(answer.json()["errorType"], "MemoryError"),
            other => panic!("{other}: {message}"),
        }
        if nix::unistd::geteuid().is_root() {
            assert_eq!(answer.status, 502, "root can limit memory: {message}");
        }
    });
}

#[test]
fn one_that_forks_without_end_is_bounded_and_leaves_nothing() {
    // Memory for as many processes as it may have, so that their number is what bounds it, whatever the machine's speed.
    let worker = Worker::start_with(&["limits.processes=48"]);
    let code = "import os, time\ndef handler(event, context):\n    children = 0\n    while True:\n        try:\n            if os.fork() == 0 and event == 'count':\n                time.sleep(600)\n            children += 1\n        except OSError:\n            if event == 'count':\n                return children\n";
    let name = format!("rabbit-{}", std::process::id());
    worker.deploy_python(&name, code, "memory = \"1GiB\"\ntimeout = \"1s\"");
    beside_a_neighbour(&worker, |client| {
        client.invoke(&name, b"").expect(504);
    });
    worker.await_metric("vilya_sandboxes", "", |alive| alive <= 1.0);
    worker.deploy_python(&name, code, "memory = \"1GiB\"\ntimeout = \"30s\"");
    let children = worker.client().invoke(&name, b"\"count\"").expect(200).json().as_u64().expect("a number");
    assert!((1..48).contains(&children), "{children} children of a sandbox of 48 processes");
    worker.client().request("DELETE", &format!("/v1/functions/{name}"), b"").expect(204);
    worker.await_metric("vilya_sandboxes", "", |alive| alive <= 1.0);
    assert_eq!(super::worker::sandbox_processes(&name), Vec::<i32>::new());
}

#[test]
fn one_that_sleeps_past_its_timeout_is_given_up() {
    let worker = Worker::start();
    worker.deploy_python(
        "sleeper",
        "import time\ndef handler(event, context):\n    time.sleep(3600)\n",
        "timeout = \"300ms\"",
    );
    beside_a_neighbour(&worker, |client| {
        let answer = client.invoke("sleeper", b"").expect(504);
        assert!(answer.json()["errorMessage"].to_string().contains("300 ms"), "{}", answer.text());
        let again = client.invoke("sleeper", b"").expect(504);
        assert_eq!(again.header("x-vilya-start"), Some("cold"), "the one that slept is gone");
    });
}

#[test]
fn one_that_floods_its_output_is_answered_and_its_log_stays_bounded() {
    let worker = Worker::start_with(&["limits.log_bytes=1MiB"]);
    let code = "import sys\ndef handler(event, context):\n    for _ in range(20):\n        sys.stdout.write('x' * 1023 + '\\n')\n        for _ in range(1023):\n            sys.stdout.write('y' * 1023 + '\\n')\n    return 'done'\n";
    worker.deploy_python("chatter", code, "timeout = \"50s\"");
    beside_a_neighbour(&worker, |client| {
        let answer = client.invoke("chatter", b"").expect(200);
        assert_eq!(answer.json(), "done");
    });
    await_log(&worker, "chatter", 10);
    assert!(worker.metric("vilya_output_pauses_total", "shard") > 0.0);
    let kept: u64 = std::fs::read_dir(worker.state().join("logs"))
        .expect("the logs are in the state directory")
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("chatter"))
        .map(|entry| entry.metadata().map_or(0, |metadata| metadata.len()))
        .sum();
    assert!(kept > 0 && kept <= 2 << 20, "{kept} bytes are kept");
}

#[test]
fn one_that_writes_faster_than_is_read_waits_and_loses_nothing() {
    let worker = Worker::start_with(&["cores.shards=1"]);
    let code = "import os\ndef handler(event, context):\n    for number in range(2000):\n        os.write(1, b'%d %s\\n' % (number, b'x' * 1000))\n";
    worker.deploy_python("writer", code, "timeout = \"50s\"");
    worker.client().invoke("writer", b"").expect(200);
    assert!(worker.metric("vilya_output_pauses_total", "shard") > 0.0, "two megabytes are more than is read at once");
    let written: usize = (0..2000).map(|number: u32| number.to_string().len() + 1002).sum();
    worker.await_metric("vilya_log_bytes_total", "shard", |bytes| bytes == written as f64);
    // The last of them that an answer shows; the rest was counted.
    let since = std::time::Instant::now();
    let is_last = |kept: &str| kept.lines().last().is_some_and(|line| line.contains(" 1999 x"));
    let mut kept = String::new();
    while !is_last(&kept) {
        assert!(since.elapsed() < super::worker::PATIENCE, "the last line never came");
        kept = await_log(&worker, "writer", 500);
    }
    let numbers: Vec<u32> = kept
        .lines()
        .map(|line| line.split(' ').nth(2).and_then(|number| number.parse().ok()).expect("a numbered line"))
        .collect();
    assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{numbers:?}");
}

#[test]
fn one_that_returns_five_mebibytes_gets_them_all_back() {
    let worker = Worker::start();
    worker.deploy_python("large", "def handler(event, context):\n    return 'z' * (5 << 20)\n", "");
    beside_a_neighbour(&worker, |client| {
        let answer = client.invoke("large", b"").expect(200);
        assert_eq!(answer.body.len(), (5 << 20) + 2);
        assert!(answer.body[1..answer.body.len() - 1].iter().all(|&byte| byte == b'z'));
    });
}

#[test]
fn one_that_scribbles_over_its_ring_dies_alone() {
    let worker = Worker::start();
    // The up region is the one it can write; its indices, its descriptors and its header are all overwritten.
    let code = "import mmap, os\ndef handler(event, context):\n    size = os.fstat(4).st_size\n    up = mmap.mmap(4, size)\n    up[:65536] = os.urandom(65536)\n    os.write(5, (1).to_bytes(8, 'little'))\n    import time\n    time.sleep(30)\n";
    worker.deploy_python("scribbler", code, "timeout = \"20s\"");
    beside_a_neighbour(&worker, |client| {
        for _ in 0..5 {
            let answer = client.invoke("scribbler", b"").expect(502);
            assert!(answer.json()["errorMessage"].to_string().contains("ring"), "{}", answer.text());
        }
    });
    assert!(worker.metric("vilya_sandboxes_poisoned_total", "") >= 5.0);
}

#[test]
fn one_that_rings_without_end_holds_nobody_up() {
    let worker = Worker::start_with(&["cores.shards=1"]);
    // Each ring is a wake-up of the shard, which finds nothing.
    let code = "import os\nword = (1).to_bytes(8, 'little')\ndef handler(event, context):\n    while True:\n        os.write(5, word)\n";
    worker.deploy_python("ringer", code, "timeout = \"2s\"");
    beside_a_neighbour(&worker, |client| {
        client.invoke("ringer", b"").expect(504);
    });
    assert_eq!(worker.metric("vilya_sandboxes_poisoned_total", ""), 0.0, "to ring is no lie");
}

#[test]
fn one_that_answers_with_a_header_of_its_own_splits_nothing() {
    let worker = Worker::start();
    let code = "import vilya\n@vilya.raw\ndef handler(request, context):\n    context.content_type = 'text/plain\\r\\nx-evil: 1'\n    return b'ok'\n";
    worker.deploy_python("splitter", code, "");
    let answer = worker.client().invoke("splitter", b"");
    assert_eq!(answer.header("x-evil"), None);
}

#[test]
fn one_that_says_too_much_of_why_it_does_not_load_is_not_passed_on() {
    let worker = Worker::start();
    // The runtime cuts what it reports; this one reports by itself.
    let code = "import gc\nchannel = [it for it in gc.get_objects() if type(it).__name__ == 'Channel'][0]\nchannel.publish(4, 0, 0, b'', b'y' * (1 << 20))\nimport time\ntime.sleep(30)\n";
    worker.deploy_python("talker", code, "memory = \"256MiB\"");
    let answer = worker.client().invoke("talker", b"").expect(500);
    assert!(answer.body.len() < 1024, "{} bytes", answer.body.len());
    assert!(answer.json()["errorMessage"].to_string().contains("could not be loaded"), "{}", answer.text());
    worker.deploy_python("talker", "raise ValueError('short')\n", "");
    let answer = worker.client().invoke("talker", b"").expect(500);
    assert_eq!(answer.json()["errorType"], "ValueError");
}
