//! Sandboxes in which an invocation takes long: they give way to others. Where this host cannot have them do so, all is served as before.

use std::path::PathBuf;
use std::time::Instant;

use super::worker::{PATIENCE, Worker, control_groups, worker_id};

/// Answers after so many seconds.
const WAITS: &str = "
import time
def handler(event, context):
    time.sleep(event)
    return event
";

/// What the groups of all sandboxes say, each by its path.
fn settings(worker: &str) -> Vec<(PathBuf, String)> {
    let read = |group: PathBuf| {
        let setting = std::fs::read_to_string(group.join("cpu.idle")).ok()?;
        Some((group, setting.trim().to_owned()))
    };
    control_groups(worker).into_iter().filter_map(read).collect()
}

#[test]
fn a_long_invocation_gives_way_and_the_next_short_one_does_not() {
    let worker =
        Worker::start_with(&["cores.shards=1", "policies.quantum=20ms", "sandbox.prepared=0", "limits.zygotes=0"]);
    worker.deploy_python("waits", WAITS, "");
    let mut client = worker.client();
    client.invoke("waits", b"0").expect(200);
    let name = worker_id(&worker);
    if settings(&name).is_empty() {
        println!("not checked here: sandboxes have no group that could give way");
        client.invoke("waits", b"0.1").expect(200);
        return;
    }
    let said = |expected: &str| {
        let since = Instant::now();
        while !settings(&name).iter().any(|(_, setting)| setting == expected) || settings(&name).len() != 1 {
            assert!(since.elapsed() < PATIENCE, "never {expected}: {:?}", settings(&name));
        }
    };
    said("0");
    client.invoke("waits", b"0.2").expect(200);
    // It stays so: what it left behind may run on.
    said("1");
    assert_eq!(worker.metric("vilya_sandbox_demotions_total", "shard"), 1.0);
    client.invoke("waits", b"0").expect(200);
    said("0");
    assert_eq!(worker.metric("faas_coldstarts_total", "waits"), 1.0, "one sandbox served them all");
}

/// What is not a sibling is no measure: below a directory of the worker's it would give way to other sandboxes alone.
#[test]
fn where_version_one_has_the_processor_alone_a_sandbox_gives_way_to_every_program_of_the_host() {
    let worker = Worker::start_with(&["cores.shards=1"]);
    worker.deploy_python("waits", WAITS, "min_warm = 1");
    worker.client().invoke("waits", b"0").expect(200);
    let listing = worker.client().request("GET", "/v1/sandboxes", b"").expect(200).json();
    let pid = listing["sandboxes"][0]["pid"].as_i64().expect("a process id");
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it lives");
    let alone = groups.lines().find_map(|line| line.split_once(":cpu:/"));
    let name = worker_id(&worker);
    let ours = control_groups(&name).iter().any(|group| group.join("cpu.idle").exists());
    match alone.filter(|_| ours && nix::unistd::geteuid().is_root()) {
        Some((_, path)) => assert!(path.starts_with(&format!("vilya.{name}.")) && !path.contains('/'), "{path}"),
        None => println!("not checked here: the processor is not divided by version 1 and alone"),
    }
}

#[test]
fn without_a_quantum_nothing_gives_way() {
    let worker = Worker::start_with(&["cores.shards=1", "policies.quantum=off"]);
    worker.deploy_python("waits", WAITS, "");
    worker.client().invoke("waits", b"0.1").expect(200);
    assert_eq!(worker.metric("vilya_sandbox_demotions_total", "shard"), 0.0);
    assert!(settings(&worker_id(&worker)).iter().all(|(_, setting)| setting == "0"));
}
