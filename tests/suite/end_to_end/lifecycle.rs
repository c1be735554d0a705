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
