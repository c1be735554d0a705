//! What becomes of sandboxes that nobody is using.

use std::time::{Duration, Instant};

use super::worker::{PATIENCE, Worker};

/// Looks again and again until it is so.
fn await_that(what: &str, is_so: impl Fn() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_function_with_a_warm_target_has_its_sandboxes_before_anybody_asks_and_again_when_one_has_ended() {
    let worker = Worker::start_with(&["policies.keep_alive=ttl", "policies.keep_alive_ttl=1s"]);
    let idle = || worker.metric("vilya_sandboxes_idle", "shard");
    worker.deploy_echo("warm", "min_warm = 2");
    await_that("two are ready", || idle() == 2.0);
    worker.client().invoke("warm", b"x").expect(200);
    assert_eq!(worker.metric("faas_coldstarts_total", "warm"), 0.0);
    let ready = || worker.metric("vilya_sandbox_starts_total", "shard");
    // Past the time to live of what is beyond a target.
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!((ready(), idle()), (2.0, 2.0));

    worker.client().invoke("warm", b"exit").expect(502);
    await_that("the one that ended is replaced", || ready() == 3.0 && idle() == 2.0);
    assert_eq!(worker.metric("vilya_sandboxes_warm_missing", "shard"), 0.0);

    // The next version has a target of its own, and what the last one kept goes.
    worker.deploy_echo("warm", "min_warm = 1");
    await_that("one of the new version is left", || worker.metric("vilya_sandboxes", "shard") == 1.0 && idle() == 1.0);
    let removed = worker.client().request("DELETE", "/v1/functions/warm", b"");
    assert_eq!(removed.status, 204);
    await_that("none is left", || worker.metric("vilya_sandboxes", "shard") == 0.0);
}

#[test]
fn every_sandbox_is_shown_with_what_it_does() {
    let worker = Worker::start_with(&["cores.shards=1"]);
    let rows = || {
        let listing = worker.client().request("GET", "/v1/sandboxes", b"").expect(200).json();
        listing["sandboxes"].as_array().expect("a list").clone()
    };
    assert!(rows().is_empty());
    let code = "import time\nkept = b'x' * (8 << 20)\ndef handler(event, context): time.sleep(event)";
    worker.deploy_python("seen", code, "timeout = \"60s\"\nmemory = \"64MiB\"");
    for _ in 0..3 {
        worker.client().invoke("seen", b"0").expect(200);
    }
    let all = rows();
    let [row] = &all[..] else { panic!("{all:?}") };
    assert_eq!((&row["function"], &row["version"], &row["shard"]), (&"seen".into(), &1.into(), &0.into()));
    assert_eq!((&row["state"], &row["invocations"]), (&"idle".into(), &3.into()));
    let pid = row["pid"].as_i64().expect("a process id");
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "{row}");
    assert!(row["age_ms"].as_u64() >= row["idle_ms"].as_u64() && row["idle_ms"].is_u64(), "{row}");
    assert!(row["start"].is_string() && row["start_us"].as_u64() > Some(0), "{row}");
    // Where the worker may not look into its sandboxes it says that it does not know.
    if nix::unistd::geteuid().is_root() {
        assert!(row["memory_bytes"].as_u64() > Some(8 << 20), "{row}");
    } else {
        println!("the memory of sandboxes is not checked: only root may always see it");
    }

    let busy = worker.client();
    let running = std::thread::spawn(move || {
        let mut busy = busy;
        busy.invoke("seen", b"5").expect(200);
    });
    await_that("it is busy", || rows().iter().any(|row| row["state"] == "busy" && row["idle_ms"].is_null()));
    running.join().expect("it returns");
    await_that("it is idle", || rows().iter().all(|row| row["state"] == "idle" && row["invocations"] == 4));
}
