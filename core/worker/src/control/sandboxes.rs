//! `GET /v1/sandboxes`: every sandbox of the worker.
//!
//! Invariant: runs on the control thread; a shard only copies what it knows. The memory is that of a sandbox's first process, its share
//! of shared pages counted proportionally, as the kernel says when it is asked: a process that has ended meanwhile has none.

use crossbeam_channel::bounded;
use serde_json::{Value, json};
use vilya_isolate::Stages;

use super::{Control, answers};
use crate::mesh::Message;
use crate::response::Response;
use crate::shard::{Activity, Sighting};

impl Control {
    pub(super) fn sandboxes(&self) -> Response {
        let (sender, receiver) = bounded(self.shards.len());
        for shard in &self.shards {
            shard.send(Message::Roster(sender.clone()));
        }
        drop(sender);
        let mut all: Vec<Sighting> = receiver.iter().flatten().collect();
        let key = |one: &Sighting| (one.record.manifest.name.clone(), one.shard, one.sandbox.index);
        all.sort_by_cached_key(key);
        let rows: Vec<Value> = all.iter().map(describe).collect();
        answers::json_response(200, &json!({ "sandboxes": rows }))
    }
}

fn describe(one: &Sighting) -> Value {
    let state = match one.activity {
        Activity::Starting => "starting",
        Activity::Idle => "idle",
        Activity::Frozen => "frozen",
        Activity::Busy => "busy",
        Activity::Dying => "dying",
    };
    let birth = one.process;
    json!({
        "function": one.record.manifest.name,
        "version": one.record.version,
        "image": one.record.image.as_ref().and_then(|image| image.pinned.as_ref()).or(one.record.manifest.image.as_ref()),
        "shard": one.shard,
        "sandbox": format!("{}.{}", one.sandbox.index, one.sandbox.generation),
        "pid": birth.map(|birth| birth.pid),
        "state": state,
        "age_ms": one.age_ns / 1_000_000,
        "idle_ms": one.idle_ns.map(|ns| ns / 1_000_000),
        "memory_bytes": birth.and_then(|birth| memory_bytes(birth.pid)),
        "invocations": one.invocations,
        "start": birth.map(|birth| form(&birth.stages)),
        "start_us": birth.map(|birth| birth.stages.total_ns / 1000),
    })
}

/// The words of `vilya_sandbox_starts_total`.
fn form(stages: &Stages) -> &'static str {
    match stages {
        Stages { copied: true, of_runtime: false, .. } => "copy",
        Stages { copied: true, .. } => "runtime",
        Stages { prepared: true, .. } => "prepared",
        _ => "made",
    }
}

/// Proportional set size of a process; none when it has gone or the worker may not look.
fn memory_bytes(pid: i32) -> Option<u64> {
    pss_bytes(&std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?)
}

fn pss_bytes(rollup: &str) -> Option<u64> {
    let kib = rollup.lines().find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB"))?;
    kib.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_figure_is_found() {
        let rollup = "55d0-7ffd ---p 0 00:00 0 [rollup]\nRss:   500 kB\nPss:    123 kB\nPss_Dirty: 7 kB\n";
        assert_eq!(pss_bytes(rollup), Some(123 * 1024));
        assert_eq!(pss_bytes(""), None, "a process that is ending has no memory");
        assert!(memory_bytes(std::process::id().cast_signed()).is_some_and(|bytes| bytes > 0));
    }
}
