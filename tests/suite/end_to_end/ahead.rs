//! What is made before a function needs it: shown apart from sandboxes, bounded, and gone with the worker.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::node;
use super::worker::{PATIENCE, Worker, archive};

fn rows(worker: &Worker) -> Vec<Value> {
    let listing = worker.client().request("GET", "/v1/sandboxes", b"").expect(200).json();
    let waiting: BTreeSet<u64> = listing["ahead"].as_array().into_iter().flatten().filter_map(pid).collect();
    let is_of_function = |sandbox: &Value| pid(sandbox).is_some_and(|pid| waiting.contains(&pid));
    let sandboxes = listing["sandboxes"].as_array().expect("a list");
    assert!(!sandboxes.iter().any(is_of_function), "in both lists: {listing}");
    // The starter may have been busy.
    listing["ahead"].as_array().cloned().unwrap_or_default()
}

fn pid(row: &Value) -> Option<u64> {
    row["pid"].as_u64()
}

fn count(rows: &[Value], form: &str, layers: &[&str]) -> usize {
    rows.iter().filter(|row| row["form"] == form && layers.iter().any(|layer| row["layer"] == *layer)).count()
}

/// The bounds hold whenever one looks, also while things come and go.
fn check_bounds(rows: &[Value]) {
    assert!(rows.iter().all(|row| row["state"] == "ahead" && row.get("function").is_none()), "{rows:?}");
    // One that was just taken, and whose place is being filled.
    assert!(count(rows, "sandbox", &["bare"]) <= 3, "{rows:?}");
    assert!(count(rows, "sandbox", &["runtime", "function"]) <= 2, "{rows:?}");
    assert!(count(rows, "process", &["runtime"]) <= 1, "{rows:?}");
}

fn await_rows(
    worker: &Worker,
    what: &str,
    mut meanwhile: impl FnMut(),
    is_there: impl Fn(&[Value]) -> bool,
) -> Vec<Value> {
    let since = Instant::now();
    loop {
        let rows = rows(worker);
        check_bounds(&rows);
        if is_there(&rows) {
            return rows;
        }
        assert!(since.elapsed() < PATIENCE, "{what}: {rows:?}");
        meanwhile();
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// When a process began, in ticks since the machine did; its number may be another's later.
fn began(pid: u64) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(19).map(str::to_owned)
}

#[test]
fn what_waits_is_shown_apart_bounded_and_ended_with_the_worker() {
    let mut settings = vec!["cores.shards=1", "sandbox.prepared=3", "sandbox.loaded=2", "sandbox.node_ahead=1"];
    let node = node::settings();
    settings.extend(node.as_deref());
    let worker = Worker::start_with(&settings);
    worker.deploy_echo("echo", "");
    let mut client = worker.client();
    let all = await_rows(
        &worker,
        "nothing of the function waits",
        || {
            client.invoke("echo", b"x").expect(200);
            client.invoke("echo", b"exit").expect(502);
        },
        |rows| {
            let function =
                |form| rows.iter().any(|row| row["form"] == form && row["of"] == "echo" && row["layer"] == "function");
            function("image") && function("sandbox") && count(rows, "sandbox", &["bare"]) > 0
        },
    );
    let image = all.iter().find(|row| row["form"] == "image" && row["of"] == "echo").expect("it was there");
    assert!(image["pid"].is_null() && image["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 4096), "{image}");
    let waits = all.iter().find(|row| row["layer"] == "bare").expect("it was there");
    assert!(waits["memory_bytes"].as_u64().is_some_and(|bytes| (1..2 << 20).contains(&bytes)), "{waits}");
    assert!(worker.metric("vilya_ahead", "form=\"sandbox\",layer=\"bare\"") > 0.0);
    assert!(worker.metric("vilya_ahead_memory_bytes", "form=\"image\",layer=\"function\"") > 4096.0);
    // Of four images three that wait, of which one has loaded something.
    let of_images = 4 * (2 * (1 << 19) + (1 << 21));
    let kept_back = (3 << 19) + (2 << 21) + (1 << 23) + (1 << 23) + of_images;
    assert_eq!(worker.metric("vilya_ahead_reserved_bytes", "limit=\"memory\""), f64::from(kept_back));

    if node.is_some() {
        for (name, memory) in [("small", "128MiB"), ("large", "192MiB")] {
            let manifest = format!("name = \"{name}\"\nruntime = \"node\"\nmemory = \"{memory}\"\n");
            let code = "export const handler = (event) => event";
            let files = [("function.toml", manifest.as_bytes(), 0o644), ("index.mjs", code.as_bytes(), 0o644)];
            assert_eq!(worker.deploy(name, &archive(&files)).status, 201);
            worker.client().invoke(name, b"1").expect(200);
            let is_process = |row: &&Value| row["form"] == "process";
            let all = await_rows(&worker, "no process waits", || {}, |rows| rows.iter().any(|row| is_process(&row)));
            let process = all.iter().find(is_process).expect("it was there");
            assert_eq!((&process["layer"], &process["of"]), (&"runtime".into(), &"node".into()));
        }
    }
    let left: Vec<(u64, Option<String>)> = rows(&worker).iter().filter_map(pid).map(|pid| (pid, began(pid))).collect();
    assert!(left.len() >= 2, "{left:?}");
    assert_eq!(worker.stop(), Some(0));
    for (pid, began_then) in left {
        assert!(began_then.is_none() || began(pid) != began_then, "{pid} outlives its worker");
    }
}
