//! What a shard says of each of its sandboxes, for people who ask.
//!
//! Invariant: made of what the shard knows already: no system call and no look at a sandbox's memory, so a turn of many
//! sandboxes stays short. What a sandbox has of the machine's memory is for the control thread to find out.

use std::sync::Arc;

use vilya_engine::SandboxId;
use vilya_isolate::Stages;

use super::Shard;
use super::sandbox::Sandbox;
use crate::storage::FunctionRecord;

/// What a sandbox is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activity {
    /// It does not take invocations yet.
    Starting,
    /// Every lane is free.
    Idle,
    /// Idle, and frozen.
    Frozen,
    /// Something runs in it.
    Busy,
    /// It was told to die, or is dead and being cleaned up after.
    Dying,
}

/// A sandbox at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Sighting {
    pub(crate) record: Arc<FunctionRecord>,
    pub(crate) shard: usize,
    pub(crate) sandbox: SandboxId,
    /// Once there is a process.
    pub(crate) process: Option<Birth>,
    pub(crate) activity: Activity,
    /// Since its start was asked for.
    pub(crate) age_ns: u64,
    /// Since something last ran in it, or since it was ready; while it is idle.
    pub(crate) idle_ns: Option<u64>,
    /// Answers it has given.
    pub(crate) invocations: u64,
}

/// How a sandbox came to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Birth {
    /// On the host.
    pub(crate) pid: i32,
    pub(crate) stages: Stages,
}

impl Shard {
    pub(super) fn roster(&self) -> Vec<Sighting> {
        self.sandboxes.iter().flatten().map(|sandbox| self.sighting(sandbox)).collect()
    }

    fn sighting(&self, sandbox: &Sandbox) -> Sighting {
        let activity = match sandbox {
            Sandbox { doomed: true, .. } => Activity::Dying,
            Sandbox { ready: false, .. } => Activity::Starting,
            busy if busy.is_busy() => Activity::Busy,
            Sandbox { frozen: true, .. } => Activity::Frozen,
            _ => Activity::Idle,
        };
        let since = |ns: u64| self.now_ns.saturating_sub(ns);
        Sighting {
            record: Arc::clone(&sandbox.record),
            shard: self.settings.shard,
            sandbox: sandbox.id,
            process: sandbox.birth,
            activity,
            age_ns: since(sandbox.asked_ns),
            idle_ns: matches!(activity, Activity::Idle | Activity::Frozen).then(|| since(sandbox.active_ns)),
            invocations: sandbox.served,
        }
    }
}
