//! Sandboxes that nobody asks for: they are told to give memory back, and frozen. And those that are busy for long: they give way.
//!
//! Invariant: the engine hears that a sandbox is thawed only after the kernel has been told so, and of one that has no freezer at once that it
//! is not frozen. The shard itself makes no system call for it.

use std::sync::Arc;

use vilya_engine::{Event, FunctionSpec, Nanos, SandboxId};
use vilya_isolate::Freezer;
use vilya_protocol::error::ErrorKind;

use super::Shard;
use super::invoke::Cause;
use super::sandbox::Sandbox;
use super::token::SandboxKey;
use crate::freezer::{Order, Wanted};
use crate::storage::FunctionRecord;

impl Shard {
    /// When something is done with idle sandboxes of a function: as it says, or else as the worker does; 0 is never.
    pub(super) fn with_idle_steps(&self, spec: FunctionSpec, record: &Arc<FunctionRecord>) -> FunctionSpec {
        let step = |ns: u64| (ns > 0).then(|| Nanos::from_nanos(ns));
        let freeze_ns = record.manifest.freeze_after_ns.unwrap_or(self.settings.freeze_after_ns);
        // What is frozen gives nothing back: it has half of the time before for it.
        let trim_ns = self.settings.trim_after_ns.min(if freeze_ns > 0 { freeze_ns / 2 } else { u64::MAX });
        FunctionSpec { trim_after: step(trim_ns), freeze_after: step(freeze_ns), ..spec }
    }

    /// Wakes an idle sandbox to give memory back. One whose ring has no room has not taken what was said before.
    pub(super) fn advise_trim(&mut self, sandbox: SandboxId) {
        let Some(host) = self.entry(SandboxKey::of(sandbox)).and_then(Sandbox::host) else { return };
        if host.advise_trim().is_ok() {
            self.to_wake.push(sandbox.index);
        }
    }

    pub(super) fn freeze(&mut self, sandbox: SandboxId) {
        if self.order(sandbox, Sandbox::freezer, Wanted::Frozen) {
            self.entry(SandboxKey::of(sandbox)).into_iter().for_each(|entry| entry.frozen = true);
        } else {
            self.feed(Event::NotFrozen { sandbox });
        }
    }

    /// One that was killed while it was frozen is thawed to die, where it must be.
    pub(super) fn release(&mut self, sandbox: SandboxId) {
        let holds = |entry: &Sandbox| {
            let freezer = if entry.frozen { entry.freezer() } else { None };
            freezer.filter(Freezer::holds_the_killed)
        };
        self.order(sandbox, holds, Wanted::Released);
    }

    pub(super) fn thaw(&mut self, sandbox: SandboxId) {
        if self.order(sandbox, Sandbox::freezer, Wanted::Thawed) {
            return;
        }
        // What cannot be frozen is awake, also if the engine wanted both in one step.
        let is_frozen = self.entry(SandboxKey::of(sandbox)).is_none_or(|entry| entry.frozen);
        self.feed(if is_frozen { Event::Broken { sandbox } } else { Event::Thawed { sandbox } });
    }

    /// Has a sandbox in which a run takes long give way to others, where something does that.
    pub(super) fn demote(&mut self, sandbox: SandboxId) {
        self.order(sandbox, Sandbox::precedence, Wanted::Demoted);
    }

    pub(super) fn promote(&mut self, sandbox: SandboxId) {
        self.order(sandbox, Sandbox::precedence, Wanted::Promoted);
    }

    /// Whether somebody sees to it.
    fn order<T>(&mut self, sandbox: SandboxId, of: impl Fn(&Sandbox) -> Option<T>, wanted: fn(T) -> Wanted) -> bool {
        let Some(by) = self.entry(SandboxKey::of(sandbox)).and_then(|entry| of(entry)) else { return false };
        let order = Order { shard: self.settings.shard, sandbox, wanted: wanted(by) };
        self.links.nursery.frosts.send(order).is_ok()
    }

    pub(super) fn not_frozen(&mut self, sandbox: SandboxId) {
        self.entry(SandboxKey::of(sandbox)).into_iter().for_each(|entry| entry.frozen = false);
        self.feed(Event::NotFrozen { sandbox });
    }

    pub(super) fn thawed(&mut self, sandbox: SandboxId, outcome: Result<(), String>) {
        let Some(entry) = self.entry(SandboxKey::of(sandbox)) else { return };
        entry.frozen = false;
        match outcome {
            Ok(()) => self.feed(Event::Thawed { sandbox }),
            Err(why) => {
                tracing::warn!(function = entry.record.manifest.name, "a frozen sandbox cannot be thawed: {why}");
                let message = format!("the sandbox was frozen and cannot be thawed: {why}");
                let cause = Cause { kind: ErrorKind::SandboxDied, message, report: None };
                self.feed_with(Event::Broken { sandbox }, Some(cause));
            }
        }
    }
}
