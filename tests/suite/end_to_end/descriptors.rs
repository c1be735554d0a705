//! Descriptors are what bounds the sandboxes of a worker once memory does not: what one costs is what the worker reckons with.

use std::time::{Duration, Instant};

use vilya_worker::descriptors::OF_SANDBOX;

use super::worker::{PATIENCE, Worker};

const FEW: u64 = 2;
const MANY: u64 = 14;

/// Descriptors of the worker but for network namespaces, of which it keeps a bounded number for others, and for connections, among
/// them those over which its metrics are asked for.
fn open(worker: &Worker) -> u64 {
    let entries = std::fs::read_dir(format!("/proc/{}/fd", worker.pid())).expect("the worker runs").flatten();
    let targets = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let is_other = |target: &std::path::PathBuf| {
        let target = target.to_string_lossy();
        target.starts_with("net:[") || target.starts_with("socket:[")
    };
    targets.filter(|target| !is_other(target)).count() as u64
}

/// Waits until so many sandboxes are idle and nothing is being opened or closed, and counts.
fn settled(worker: &Worker, idle: u64) -> u64 {
    const LOOKS: u32 = 25;
    let since = Instant::now();
    let mut counts = Vec::new();
    loop {
        let there = worker.metric("vilya_sandboxes_idle", "shard") as u64 == idle
            && worker.metric("vilya_sandboxes", "shard") as u64 == idle;
        counts.push(if there { open(worker) } else { 0 });
        let last = &counts[counts.len().saturating_sub(LOOKS as usize)..];
        if last.len() == LOOKS as usize && last[0] > 0 && last.iter().all(|count| *count == last[0]) {
            return last[0];
        }
        assert!(since.elapsed() < PATIENCE, "never at rest with {idle}: {counts:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_idle_sandbox_costs_what_the_worker_reckons_with() {
    // Without zygotes, whose images are files too, one a function.
    let worker = Worker::start_with(&["limits.zygotes=0", "limits.sandboxes=64"]);
    worker.deploy_echo("idle", &format!("min_warm = {FEW}"));
    let few = settled(&worker, FEW);
    worker.deploy_echo("idle", &format!("min_warm = {MANY}"));
    let many = settled(&worker, MANY);
    assert_eq!(many - few, (MANY - FEW) * OF_SANDBOX, "{few} with {FEW}, {many} with {MANY}");
}
