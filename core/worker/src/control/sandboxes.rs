//! `GET /v1/sandboxes`: every sandbox of the worker, and apart from them what was made ahead.
//!
//! Invariant: runs on the control thread; a shard only copies what it knows. The memory is that of a sandbox's first process, its share
//! of shared pages counted proportionally, as the kernel says when it is asked: a process that has ended meanwhile has none.

use std::time::Duration;

use crossbeam_channel::bounded;
use serde_json::{Value, json};
use vilya_isolate::Stages;

use super::{Control, answers};
use crate::mesh::Message;
use crate::response::Response;
use crate::shard::{Activity, Sighting};
use crate::waiting::{Waiting, share_bytes};

/// How long the starter may take to say what waits: it may be making a sandbox that nothing was made ahead for.
const STARTER_PATIENCE: Duration = Duration::from_secs(2);

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
        let ahead: Option<Vec<Value>> =
            self.waiting(STARTER_PATIENCE).map(|all| all.iter().map(describe_waiting).collect());
        answers::json_response(200, &json!({ "sandboxes": rows, "ahead": ahead }))
    }

    /// What was made ahead and waits; none while the starter is too busy to say.
    pub(super) fn waiting(&self, patience: Duration) -> Option<Vec<Waiting>> {
        let (answer, answers) = bounded(1);
        self.rolls.send_timeout(answer, patience).ok()?;
        let mut all = answers.recv_timeout(patience).ok()?;
        all.sort_by(|one, other| {
            let key = |it: &Waiting| (it.form, it.layer, it.of.clone(), it.since);
            key(one).cmp(&key(other))
        });
        Some(all)
    }
}

fn describe_waiting(one: &Waiting) -> Value {
    json!({
        "state": "ahead",
        "form": one.form.as_str(),
        "layer": one.layer.as_str(),
        "of": one.of,
        "pid": one.pid(),
        "age_ms": u64::try_from(one.since.elapsed().as_millis()).unwrap_or(u64::MAX),
        "memory_bytes": one.memory_bytes(),
    })
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
        "memory_bytes": birth.and_then(|birth| share_bytes(birth.pid, "Pss:")),
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
