//! The sandboxes of a shard: from the start that was asked for to the last line of their output.
//!
//! Invariant: an entry lives from the engine's Start to its SandboxDied; the process is gone and cleaned up before the
//! engine hears of its death, so that memory it is promised elsewhere is free. Nothing a sandbox wrote is used here but
//! through a checked claim.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use vilya_engine::{Event, KillReason, SandboxId};
use vilya_ipc::claim::Claim;
use vilya_ipc::host::{Host, SubmitError};
use vilya_isolate::{Ended, Exit, Freezer, Precedence, Remains};
use vilya_protocol::error::ErrorKind;
use vilya_reactor::{Op, OpId, Outcome};

use super::Shard;
use super::doorbell::Rings;
use super::invoke::Cause;
use super::output::Written;
use super::roster::Birth;
use super::token::{Owner, SandboxKey, Stream};
use crate::arena::{Arena, Slice};
use crate::mesh::StartedSandbox;
use crate::request::{RequestId, Source};
use crate::slots::Key;
use crate::starter::Reap;
use crate::storage::FunctionRecord;

/// A process and what leads to it.
pub(super) struct Process {
    pub(super) host: Host,
    /// The regions, for what is received into lanes and sent from them.
    down: Arc<Arena>,
    up: Arc<Arena>,
    remains: Remains,
    stdout: OwnedFd,
    stderr: OwnedFd,
    /// Doorbell, death, and the two streams, each in its place; none where the ring refused one.
    pub(super) operations: [Option<OpId>; 4],
}

impl Process {
    pub(super) fn output(&self, stream: Stream) -> &OwnedFd {
        match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        }
    }
}

/// One sandbox.
pub(super) struct Sandbox {
    pub(super) id: SandboxId,
    pub(super) record: Arc<FunctionRecord>,
    pub(super) name: Arc<str>,
    pub(super) process: Option<Process>,
    /// When the engine asked for it.
    pub(super) asked_ns: u64,
    /// When something last ended in it, or it became ready.
    pub(super) active_ns: u64,
    /// Answers it has given.
    pub(super) served: u64,
    /// Once there is a process.
    pub(super) birth: Option<Birth>,
    /// When its process was there.
    pub(super) started_ns: u64,
    /// It has said that it takes invocations.
    pub(super) ready: bool,
    /// Asked to be frozen, and not thawed since.
    pub(super) frozen: bool,
    /// Killed: what it still claims is not looked at.
    pub(super) doomed: bool,
    /// The requests in its lanes, for the log.
    lanes: Vec<Option<RequestId>>,
    /// And where the shard keeps them.
    keys: Vec<Key>,
    /// Whom answers are sent to from its lanes.
    takers: Vec<Option<Source>>,
    /// In the list of those whose lanes may hold memory to give back.
    pub(super) swollen: bool,
    last_request: Option<RequestId>,
    pub(super) output: Written,
    pub(super) rings: Rings,
    /// In the list of rings to look at in this turn.
    pub(super) noted: bool,
    /// In the list of those that have work and were not told to ring.
    pub(super) listed: bool,
    /// In the list of those to be woken.
    waking: bool,
}

impl Sandbox {
    /// Its rings, once its process exists and while it is trusted.
    pub(super) fn host(&mut self) -> Option<&mut Host> {
        if self.doomed { None } else { self.process.as_mut().map(|process| &mut process.host) }
    }

    /// What freezes it, where something does.
    pub(super) fn freezer(&self) -> Option<Freezer> {
        self.process.as_ref().and_then(|process| process.remains.freezer())
    }

    /// What has it give way to others, where something does.
    pub(super) fn precedence(&self) -> Option<Precedence> {
        self.process.as_ref().and_then(|process| process.remains.precedence())
    }

    /// Gives it a request.
    pub(super) fn give(
        &mut self,
        (request, key): (RequestId, Key),
        lane: u16,
        submit: impl FnOnce(&mut Host) -> Result<(), SubmitError>,
    ) -> Result<(), SubmitError> {
        let Some(process) = &mut self.process else { return Err(SubmitError::Full) };
        // While it is being given work the shard is awake: no doorbell needed until it says that it sleeps.
        process.host.announce_unpark();
        submit(&mut process.host)?;
        if let Some(slot) = self.lanes.get_mut(usize::from(lane)) {
            *slot = Some(request);
            self.keys[usize::from(lane)] = key;
        }
        self.last_request = Some(request);
        Ok(())
    }

    /// The first `bytes` of a lane's request area, for the body that the lane is lent for; none without a process or when
    /// the lane is smaller.
    pub(super) fn request_slice(&mut self, lane: u16, bytes: u64) -> Option<Slice> {
        if self.doomed || usize::from(lane) >= self.lanes.len() {
            return None;
        }
        let Process { host, down, .. } = self.process.as_ref()?;
        let window = host.request_window(lane);
        let end = window.start.checked_add(bytes).filter(|end| *end <= window.end)?;
        Some(Slice::new(Arc::clone(down), &(window.start..end)))
    }

    /// Where the answer of a claim lies.
    pub(super) fn response_slice(&mut self, claim: &Claim) -> Option<Slice> {
        let Process { host, up, .. } = self.process.as_ref()?;
        Some(Slice::new(Arc::clone(up), &host.response_window(claim)))
    }

    /// Tells that bytes were received into an idle lane.
    pub(super) fn request_written(&mut self, lane: u16, bytes: u64) {
        if let Some(process) = &mut self.process {
            process.host.request_written(lane, bytes);
        }
    }

    /// Gives back what large payloads left in idle lanes; `receives` says of a lane that a body is on its way into it.
    /// Whether nothing is left to do: no lane is in use.
    pub(super) fn trim(&mut self, receives: impl Fn(u16) -> bool) -> bool {
        let Some(process) = &mut self.process else { return true };
        let mut is_idle = true;
        for (lane, (running, taker)) in (0..).zip(self.lanes.iter().zip(&self.takers)) {
            if running.is_some() || taker.is_some() || receives(lane) {
                is_idle = false;
            } else {
                process.host.trim(lane);
            }
        }
        is_idle
    }

    /// What it holds of large requests and cannot give back.
    pub(super) fn retained_bytes(&self) -> u64 {
        self.process.as_ref().map_or(0, |process| process.host.retained_bytes())
    }

    pub(super) fn taker(&mut self, lane: u16) -> Option<&mut Option<Source>> {
        self.takers.get_mut(usize::from(lane))
    }

    /// Where the shard keeps the request that a lane was given.
    pub(super) fn request_in(&self, lane: u16) -> Option<Key> {
        let lane = usize::from(lane);
        self.lanes.get(lane)?.and(self.keys.get(lane).copied())
    }

    /// Whether any lane has a request.
    pub(super) fn is_busy(&self) -> bool {
        self.lanes.iter().any(Option::is_some)
    }

    pub(super) fn lane_done(&mut self, lane: u16, now_ns: u64) {
        self.served += 1;
        self.active_ns = now_ns;
        if let Some(slot) = self.lanes.get_mut(usize::from(lane)) {
            *slot = None;
        }
    }

    /// Whose output it is: that of the only request it has, or of the last one it had; with several it cannot be told.
    pub(super) fn speaker(&self) -> Option<RequestId> {
        let mut running = self.lanes.iter().flatten();
        match (running.next(), running.next()) {
            (Some(only), None) => Some(*only),
            (None, _) => self.last_request,
            _ => None,
        }
    }
}

impl Shard {
    pub(super) fn expect_sandbox(&mut self, id: SandboxId, record: Arc<FunctionRecord>) {
        let index = id.index as usize;
        if self.sandboxes.len() <= index {
            self.sandboxes.resize_with(index + 1, || None);
        }
        let lanes = vec![None; usize::from(record.manifest.concurrency)];
        let takers = vec![None; lanes.len()];
        let keys = vec![Key(u64::MAX); lanes.len()];
        self.sandboxes[index] = Some(Sandbox {
            id,
            name: record.manifest.name.as_str().into(),
            record,
            process: None,
            asked_ns: self.now_ns,
            active_ns: self.now_ns,
            served: 0,
            birth: None,
            started_ns: 0,
            ready: false,
            doomed: false,
            lanes,
            keys,
            takers,
            frozen: false,
            swollen: false,
            last_request: None,
            output: Written::default(),
            rings: Rings::default(),
            noted: false,
            listed: false,
            waking: false,
        });
    }

    /// Exactly this sandbox, if it is there.
    pub(super) fn sandbox_at(&mut self, sandbox: SandboxId) -> Option<&mut Sandbox> {
        self.sandboxes.get_mut(sandbox.index as usize)?.as_mut().filter(|entry| entry.id == sandbox)
    }

    pub(super) fn entry(&mut self, key: SandboxKey) -> Option<&mut Sandbox> {
        self.sandboxes.get_mut(key.index as usize)?.as_mut().filter(|entry| key.names(entry.id))
    }

    /// The starter has answered.
    pub(super) fn started(&mut self, sandbox: SandboxId, outcome: Result<StartedSandbox, String>) {
        let StartedSandbox { mut host, mut started, stdout, stderr } = match outcome {
            Ok(started) => started,
            Err(why) => return self.start_failed(sandbox, why),
        };
        self.counters.starts.record(&started.stages);
        let from_layer = started.stages.copied && !started.stages.of_runtime;
        let key = SandboxKey::of(sandbox);
        // The ring keeps what it only polls once. A doorbell may be left alone for a while and polled again, which takes its descriptor.
        let watch = |file| Op::Watch { file, once: true };
        let polls = [
            (Owner::Doorbell(key), Some(Op::Poll { fd: host.doorbell().as_raw_fd() })),
            (Owner::Death(key), started.give_pidfd().ok().map(watch)),
            (Owner::Output(key, Stream::Stdout), Some(Op::Read { fd: stdout.as_raw_fd() })),
            (Owner::Output(key, Stream::Stderr), Some(Op::Read { fd: stderr.as_raw_fd() })),
        ];
        let operations = polls.map(|(owner, op)| op.and_then(|op| self.reactor.submit(owner.token(), op).ok()));
        let refused = operations.contains(&None);
        let now_ns = self.now_ns;
        let Some(entry) = self.entry(key) else {
            // Unreachable while the engine keeps an id until its death is told; the process must not be left behind.
            started.remains.kill();
            return;
        };
        // Until it is given work, it must ring for its Ready.
        let quiet = host.announce_park();
        let (down, up) = (Arena::new(host.down_mapping()), Arena::new(host.up_mapping()));
        entry.process = Some(Process { host, down, up, remains: started.remains, stdout, stderr, operations });
        entry.started_ns = now_ns;
        entry.birth = Some(Birth { pid: started.pid, stages: started.stages });
        let doomed = entry.doomed || refused;
        self.feed(Event::SandboxStarted { sandbox, from_layer });
        if doomed {
            self.kill(sandbox, KillReason::StartTimedOut);
        } else if !quiet {
            self.note(sandbox.index);
        }
        if refused {
            // Its death would go unseen, so it is told now.
            self.died.push(sandbox.index);
        }
    }

    pub(super) fn start_failed(&mut self, sandbox: SandboxId, why: String) {
        if let Some(entry) = self.entry(SandboxKey::of(sandbox)) {
            tracing::warn!(function = entry.record.manifest.name, "a sandbox could not be started: {why}");
            self.sandboxes[sandbox.index as usize] = None;
        }
        let cause = Cause { kind: ErrorKind::StartFailed, message: why, report: None };
        self.feed_with(Event::SandboxStartFailed { sandbox }, Some(cause));
    }

    pub(super) fn kill(&mut self, sandbox: SandboxId, reason: KillReason) {
        let Some(entry) = self.entry(SandboxKey::of(sandbox)) else { return };
        entry.doomed = true;
        tracing::debug!(function = entry.record.manifest.name, ?reason, "killing a sandbox");
        // Without a process yet, the kill happens when the starter answers.
        if let Some(process) = &entry.process {
            process.remains.kill();
        }
        self.release(sandbox);
    }

    /// Notes that a sandbox was given something: it is to be woken, and its ring to be looked at.
    pub(super) fn given(&mut self, index: u32) {
        let Some(Some(entry)) = self.sandboxes.get_mut(index as usize) else { return };
        if !std::mem::replace(&mut entry.waking, true) {
            self.to_wake.push(index);
        }
        if !std::mem::replace(&mut entry.listed, true) {
            self.unannounced.push(index);
        }
    }

    pub(super) fn wake_sandbox(&mut self, index: u32) {
        let Some(Some(entry)) = self.sandboxes.get_mut(index as usize) else { return };
        entry.waking = false;
        if entry.host().is_some_and(|host| host.wake_if_parked()) {
            self.counters.wakes += 1;
        }
    }

    /// The process has ended; its end is dealt with after the rest of this turn's completions, its output among them.
    pub(super) fn saw_death(&mut self, key: SandboxKey, outcome: &Outcome) {
        if let Outcome::Failed { .. } = outcome {
            return self.give_up_watching(key);
        }
        let Some(entry) = self.entry(key) else { return };
        let (sandbox, is_idle) = (entry.id, entry.ready && !entry.is_busy());
        self.died.push(key.index);
        if is_idle {
            // Cleaning up takes a while, and nothing may be given to it meanwhile. One that runs or starts something is
            // told of then, with what is known of its end.
            self.feed(Event::Broken { sandbox });
        }
    }

    /// Ends a sandbox whose doorbell or death would go unnoticed.
    pub(super) fn give_up_watching(&mut self, key: SandboxKey) {
        let Some(entry) = self.entry(key) else { return };
        let sandbox = entry.id;
        tracing::warn!(function = entry.record.manifest.name, "a sandbox can no longer be watched; it is killed");
        self.kill(sandbox, KillReason::Broken);
        self.died.push(key.index);
    }

    pub(super) fn bury_the_dead(&mut self) {
        while let Some(index) = self.died.pop() {
            let Some(entry) = self.sandboxes.get_mut(index as usize).and_then(Option::as_mut) else { continue };
            let sandbox = entry.id;
            // What it answered before it died still counts.
            self.check_claims_of(index);
            self.drain_output(index, super::output::DRAIN_ROUNDS);
            self.end_output(index);
            let Some(entry) = self.sandboxes.get_mut(index as usize).and_then(Option::as_mut) else { continue };
            entry.doomed = true;
            let Some(process) = entry.process.take() else { continue };
            for op in process.operations.into_iter().flatten() {
                self.reactor.abandon(op);
            }
            self.closing.extend([process.stdout, process.stderr]);
            let reap = Reap { shard: self.settings.shard, sandbox, remains: process.remains, host: process.host };
            if self.links.nursery.reaps.send(reap).is_err() {
                self.gone(sandbox, None);
            }
        }
    }

    /// Nothing is left of it.
    pub(super) fn reaped(&mut self, sandbox: SandboxId, ended: &Ended) {
        self.gone(sandbox, Some(ended));
    }

    fn gone(&mut self, sandbox: SandboxId, ended: Option<&Ended>) {
        let Some(entry) = self.entry(SandboxKey::of(sandbox)) else { return };
        let cause = ended.map(|ended| explain(ended, &entry.record));
        self.sandboxes[sandbox.index as usize] = None;
        self.feed_with(Event::SandboxDied { sandbox }, cause);
    }
}

/// Why a sandbox ended, as its client is told.
fn explain(ended: &Ended, record: &FunctionRecord) -> Cause {
    let memory_mib = record.manifest.memory_bytes / (1024 * 1024);
    let message = if ended.out_of_memory {
        format!("the function went past its memory of {memory_mib} MiB and was killed; raise `memory` in function.toml")
    } else {
        match ended.exit {
            Exit::Code(code) => format!("the function's process ended by itself with code {code} before it answered"),
            Exit::Signal(signal) => format!("the function's process was killed by signal {signal} before it answered"),
            Exit::Unknown => "the function's process ended before it answered".into(),
        }
    };
    Cause { kind: ErrorKind::SandboxDied, message, report: None }
}
