//! Sandboxes that are frozen while nobody asks for them. Where this host cannot freeze, that it says so and serves as before.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::worker::{PATIENCE, Worker, archive, control_groups, worker_id};

/// A thread that counts for as long as it may.
const COUNTS: &str = "\
import threading
count = 0
def counting():
    global count
    while True:
        count += 1
threading.Thread(target=counting, daemon=True).start()
def handler(event, context):
    return count
";

fn await_that(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn rows(worker: &Worker) -> Vec<Value> {
    let listing = worker.client().request("GET", "/v1/sandboxes", b"").expect(200).json();
    listing["sandboxes"].as_array().expect("a list").clone()
}

/// Waits until every sandbox is frozen; their processes. `None` where none can be.
fn frozen(worker: &Worker) -> Option<Vec<Pid>> {
    let mut seen = Vec::new();
    await_that("every sandbox is frozen, or one cannot be", || {
        seen = rows(worker);
        let is_frozen = !seen.is_empty() && seen.iter().all(|row| row["state"] == "frozen");
        is_frozen || worker.metric("vilya_sandbox_freezes_failed_total", "shard") > 0.0
    });
    if worker.metric("vilya_sandbox_freezes_failed_total", "shard") > 0.0 {
        println!("not checked here: this host cannot freeze sandboxes");
        assert!(seen.iter().all(|row| row["state"] != "frozen"), "{seen:?}");
        assert_eq!(worker.metric("vilya_sandboxes_frozen", "shard"), 0.0);
        return None;
    }
    assert_eq!(worker.metric("vilya_sandboxes_frozen", "shard"), seen.len() as f64);
    assert!(seen.iter().all(|row| row["idle_ms"].is_u64()), "{seen:?}");
    Some(seen.iter().map(pid).collect())
}

fn pid(row: &Value) -> Pid {
    Pid::from_raw(row["pid"].as_i64().and_then(|pid| pid.try_into().ok()).expect("a process id"))
}

fn is_there(pid: Pid) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

/// Processor time of a process so far, in ticks.
fn ticks(pid: Pid) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let fields = stat.rsplit_once(')').expect("the kernel's format").1.split_whitespace();
    fields.skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum()
}

#[test]
fn a_thread_of_a_function_stands_still_between_invocations_and_goes_on_with_the_next() {
    let worker = Worker::start_with(&["cores.shards=1"]);
    worker.deploy_python("counts", COUNTS, "freeze_after = \"100ms\"");
    let mut client = worker.client();
    let mut count = move || client.invoke("counts", b"null").expect(200).json().as_u64().expect("a number");
    let mut before = count();
    let Some(processes) = frozen(&worker) else {
        await_that("its thread runs on", || count() > before);
        return;
    };
    let [process] = processes[..] else { panic!("one: {processes:?}") };
    // What it was doing when it was told to stop may take it a moment.
    await_that("it uses no processor time", || {
        let spent = ticks(process);
        std::thread::sleep(Duration::from_millis(300));
        ticks(process) == spent
    });
    for _ in 0..3 {
        await_that("its thread goes on", || {
            let now = count();
            std::mem::replace(&mut before, now) < now
        });
        assert_eq!(frozen(&worker), Some(vec![process]), "the same sandbox");
    }
    assert_eq!(worker.metric("faas_coldstarts_total", "counts"), 1.0, "the frozen one served them all");
    assert!(worker.metric("vilya_sandbox_thaws_total", "shard") >= 3.0);
    assert!(worker.metric("vilya_sandbox_freezes_total", "shard") >= 4.0);
}

#[test]
fn a_function_that_is_never_to_be_frozen_is_not_and_others_follow_the_workers_setting() {
    let worker = Worker::start_with(&["cores.shards=1", "policies.freeze_after=50ms"]);
    worker.deploy_echo("awake", "freeze_after = \"off\"\nmin_warm = 1");
    worker.deploy_echo("usual", "min_warm = 1");
    await_that("both are ready and one of them is frozen, if any can be", || {
        let states: Vec<(Value, Value)> =
            rows(&worker).iter().map(|row| (row["function"].clone(), row["state"].clone())).collect();
        let failed = worker.metric("vilya_sandbox_freezes_failed_total", "shard") > 0.0;
        let usual = if failed { "idle" } else { "frozen" };
        states == [("awake".into(), "idle".into()), ("usual".into(), usual.into())]
    });
    let tried = worker.metric("vilya_sandbox_freezes_total", "shard")
        + worker.metric("vilya_sandbox_freezes_failed_total", "shard");
    assert_eq!(tried, 1.0);
}

#[test]
fn every_invocation_is_answered_however_often_its_sandbox_is_frozen() {
    let worker = Worker::start_with(&["policies.freeze_after=1ms"]);
    worker.deploy_echo("rust", "min_warm = 4");
    worker.deploy_python("python", "def handler(event, context): return event", "concurrency = 3");
    let rounds = |name: &'static str| {
        let mut client = worker.client();
        std::thread::spawn(move || {
            for round in 0..200 {
                client.invoke(name, b"7").expect(200);
                // So that freezing and thawing meet in every order.
                std::thread::sleep(Duration::from_micros(round % 23 * 100));
            }
        })
    };
    let clients: Vec<_> = ["rust", "rust", "rust", "python", "python"].map(rounds).into_iter().collect();
    for client in clients {
        client.join().expect("every answer is right");
    }
    assert_eq!(worker.metric("vilya_sandboxes_poisoned_total", "shard"), 0.0);
    if frozen(&worker).is_some() {
        assert!(worker.metric("vilya_sandbox_thaws_total", "shard") > 10.0);
    }
}

#[test]
fn what_ends_a_sandbox_ends_a_frozen_one() {
    let ttl = ["cores.shards=1", "policies.freeze_after=50ms", "policies.keep_alive=ttl", "policies.keep_alive_ttl=2s"];
    let worker = Worker::start_with(&ttl);
    let gone = |processes: &[Pid]| {
        await_that("it is gone", || worker.metric("vilya_sandboxes", "shard") == 0.0);
        assert!(!processes.iter().copied().any(is_there));
    };
    // Kept for as long as its time to live, which has passed.
    worker.deploy_echo("expires", "");
    worker.client().invoke("expires", b"x").expect(200);
    let Some(processes) = frozen(&worker) else { return };
    gone(&processes);
    // Killed from outside: the next invocation has another.
    worker.client().invoke("expires", b"x").expect(200);
    let processes = frozen(&worker).expect("it could be before");
    kill(processes[0], Signal::SIGKILL).expect("it is there");
    gone(&processes);
    worker.client().invoke("expires", b"x").expect(200);
    // Removed.
    let processes = frozen(&worker).expect("it could be before");
    assert_eq!(worker.client().request("DELETE", "/v1/functions/expires", b"").status, 204);
    gone(&processes);
    // Replaced.
    worker.deploy_echo("replaced", "freeze_after = \"20ms\"\nmin_warm = 1");
    let processes = frozen(&worker).expect("it could be before");
    worker.deploy_echo("replaced", "freeze_after = \"off\"");
    gone(&processes);
}

#[test]
fn frozen_sandboxes_end_with_their_worker_whether_it_stops_or_is_killed() {
    for is_killed in [false, true] {
        let worker = Worker::start_with(&["policies.freeze_after=50ms"]);
        worker.deploy_echo("frozen", "min_warm = 3");
        worker.await_metric("vilya_sandboxes_idle", "shard", |idle| idle == 3.0);
        let Some(processes) = frozen(&worker) else { return };
        assert_eq!(processes.len(), 3);
        let id = worker_id(&worker);
        if is_killed {
            let state = worker.crash();
            await_that("they die with it", || !processes.iter().copied().any(is_there));
            // The next start removes the groups that nobody was left to remove.
            assert_eq!(Worker::start_on(state, &[]).stop(), Some(0));
        } else {
            assert_eq!(worker.stop(), Some(0));
            assert!(!processes.iter().copied().any(is_there));
        }
        assert_eq!(control_groups(&id), Vec::<std::path::PathBuf>::new());
    }
}

/// A worker with the counting function on a mechanism of other programs; none where it is not to be had.
fn counting_on(mechanism: &str, name: &str) -> Option<Worker> {
    let socket = std::env::var("VILYA_TEST_DOCKER_SOCKET").unwrap_or_else(|_| "/var/run/docker.sock".into());
    let worker = Worker::start_with(&["cores.shards=1", &format!("sandbox.docker_socket={socket}")]);
    let manifest =
        format!("name = \"{name}\"\nruntime = \"python\"\nmechanism = \"{mechanism}\"\nfreeze_after = \"100ms\"\n");
    let files = [("function.toml", manifest.as_bytes(), 0o644), ("main.py", COUNTS.as_bytes(), 0o644)];
    let answer = worker.deploy(name, &archive(&files));
    if answer.status == 400 {
        println!("skipped: {}", answer.text());
        return None;
    }
    assert_eq!(answer.status, 201, "{}", answer.text());
    Some(worker)
}

#[test]
fn containers_are_frozen_and_thawed_and_end_as_sandboxes_do() {
    for mechanism in ["oci", "docker"] {
        let name = format!("counts-{mechanism}-{}", std::process::id());
        let Some(worker) = counting_on(mechanism, &name) else { continue };
        let mut client = worker.client();
        let mut count = || client.invoke(&name, b"null").expect(200).json().as_u64().expect("a number");
        let mut before = count();
        let Some(processes) = frozen(&worker) else { continue };
        await_that("it uses no processor time", || {
            let spent = ticks(processes[0]);
            std::thread::sleep(Duration::from_millis(300));
            ticks(processes[0]) == spent
        });
        await_that("its thread goes on", || {
            let now = count();
            std::mem::replace(&mut before, now) < now
        });
        assert_eq!(frozen(&worker), Some(processes.clone()), "the same container");
        // Removed while it is frozen.
        assert_eq!(worker.client().request("DELETE", &format!("/v1/functions/{name}"), b"").status, 204);
        await_that("it is gone", || worker.metric("vilya_sandboxes", "shard") == 0.0);
        assert!(!processes.iter().copied().any(is_there));
    }
}

#[test]
fn frozen_containers_of_a_killed_worker_are_gone_when_the_next_serves() {
    for mechanism in ["oci", "docker"] {
        let name = format!("left-{mechanism}-{}", std::process::id());
        let Some(worker) = counting_on(mechanism, &name) else { continue };
        worker.client().invoke(&name, b"null").expect(200);
        let Some(processes) = frozen(&worker) else { continue };
        let state = worker.crash();
        let worker = Worker::start_on(state, &[]);
        await_that("it is gone", || !processes.iter().copied().any(is_there));
        assert_eq!(worker.stop(), Some(0));
    }
}
