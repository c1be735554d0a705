//! From a whole request to the engine, and from the engine's effects to the world.
//!
//! Invariant: every effect is performed once and in the engine's order; what performing one gives rise to (a ring that
//! is broken, a start that could not be asked for) goes back to the engine as an event of its own.

use vilya_engine::{Effect, Event, FunctionId, InvocationId, Origin, Outcome, SandboxId, StartKind};
use vilya_ipc::host::{Payload, Submission};
use vilya_ipc::metadata::RequestMetadata;
use vilya_protocol::error::ErrorKind;

use super::Shard;
use super::upload::Leaving;
use crate::arena::Hold;
use crate::mesh::{ControlMessage, Message};
use crate::request::{Request, Run, Source};
use crate::response::{Body, Response};
use crate::slots::Key;
use crate::starter::Start;

/// Why a sandbox ended, for the answers of what it was doing.
#[derive(Clone, Debug)]
pub(super) struct Cause {
    pub(super) kind: ErrorKind,
    pub(super) message: String,
    /// What the function itself reported while it was loaded; sent on as it is.
    pub(super) report: Option<Vec<u8>>,
}

/// The run of an invocation that is answered now, as the engine tells it.
struct Dispatched {
    invocation: InvocationId,
    origin: Origin,
    sandbox: SandboxId,
    lane: u16,
    deadline_ns: u64,
    run: Run,
}

impl Shard {
    /// Hands a whole request to the engine.
    pub(super) fn admit(&mut self, request: Request) {
        let function = request.function;
        match self.requests.insert(request) {
            Ok(key) => self.feed(Event::Arrive { origin: Origin(key.0), function }),
            // Room for every invocation the engine admits, and one to be refused by it, so this is a shard whose
            // refusal is under way.
            Err(request) => {
                let response = Response::refusal(vilya_engine::Refusal::InvocationsFull);
                self.reply(&request, response);
            }
        }
    }

    /// The client of a request has gone. A scan, since few clients leave and requests are few thousands at most.
    pub(super) fn cancel(&mut self, source: Source) {
        let found = self.requests.iter().find(|(_, request)| request.source == source);
        if let Some(invocation) = found.and_then(|(_, request)| request.invocation) {
            self.feed(Event::Cancel { invocation });
        }
    }

    /// Steps the engine with an event, and with those that its effects give rise to.
    pub(super) fn feed(&mut self, event: Event) {
        self.feed_with(event, None);
    }

    /// As `feed`, with the reason that the answers of this event give.
    pub(super) fn feed_with(&mut self, event: Event, cause: Option<Cause>) {
        self.events.push_back((event, cause));
        if self.feeding {
            return;
        }
        self.feeding = true;
        while let Some((event, cause)) = self.events.pop_front() {
            self.cause = cause;
            let mut effects = self.effects.take().unwrap_or_default();
            self.engine.step(self.now(), event, &mut effects);
            for effect in effects.drain() {
                self.perform(effect);
            }
            self.effects = Some(effects);
            // What did not fit into one step is told the same reason.
            if self.cause.is_some() && self.engine_is_due() {
                let cause = self.cause.take();
                self.events.push_front((Event::Tick, cause));
            }
        }
        self.cause = None;
        self.feeding = false;
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Refuse { origin, reason } => {
                if let Some(request) = self.requests.remove(Key(origin.0)) {
                    match request.awaits_bytes {
                        Some(_) => self.refuse_upload(&request, Response::refusal(reason)),
                        None => self.reply(&request, Response::refusal(reason)),
                    }
                    self.pool.give(request.text.into_buffer());
                }
            }
            Effect::Enqueued { invocation, origin } => {
                if let Some(request) = self.requests.get_mut(Key(origin.0)) {
                    request.invocation = Some(invocation);
                }
            }
            Effect::Start { sandbox, function } => self.start(sandbox, function),
            Effect::Dispatch { invocation, origin, sandbox, lane, start, queued, starting, deadline } => {
                let run = Run {
                    start,
                    queued_ns: queued.as_nanos(),
                    starting_ns: starting.as_nanos(),
                    dispatched_ns: self.now_ns,
                };
                self.dispatch(&Dispatched { invocation, origin, sandbox, lane, deadline_ns: deadline.as_nanos(), run });
            }
            Effect::Trim { sandbox } => self.advise_trim(sandbox),
            Effect::Freeze { sandbox } => self.freeze(sandbox),
            Effect::Thaw { sandbox } => self.thaw(sandbox),
            Effect::Demote { sandbox } => self.demote(sandbox),
            Effect::Promote { sandbox } => self.promote(sandbox),
            Effect::CancelRun { sandbox, lane, invocation } => self.cancel_run(sandbox, lane, invocation),
            Effect::Kill { sandbox, reason } => self.kill(sandbox, reason),
            Effect::Answer { origin, outcome, .. } => self.answer(origin, outcome),
            Effect::Reserved { invocation, origin, sandbox, lane } => {
                self.reserved(Key(origin.0), invocation, sandbox, lane);
            }
            Effect::NotReserved { origin } => self.not_reserved(Key(origin.0)),
            Effect::Unreserved { origin, .. } => self.unreserved(Key(origin.0)),
            Effect::Reclaim { invocation, sandbox, lane } => {
                if !self.reclaim_upload(invocation) {
                    self.reclaim_answer(Hold { sandbox, lane, invocation });
                }
            }
            // Starts have been made from it since it was there; what it is charged is the engine's to know.
            Effect::KeepLayer { .. } => {}
            Effect::DropLayer { function } => {
                // The starter ends after the shards; images end with it.
                let _ = self.links.nursery.drops.send(function);
            }
            Effect::FunctionGone { function } => {
                let counters = self.functions.remove(function).map(|owned| owned.counters).unwrap_or_default();
                let (shard, counters) = (self.settings.shard, Box::new(counters));
                // The control thread outlives the shards; if it has ended, so has the need to delete anything.
                let _ = self.links.control.send(ControlMessage::FunctionGone { shard, function, counters });
            }
            Effect::Drained => {
                if let Some(drained) = &self.draining {
                    // Who asked may have given up waiting only by ending.
                    let _ = drained.send(());
                }
            }
        }
    }

    fn start(&mut self, sandbox: SandboxId, function: FunctionId) {
        let Some(owned) = self.functions.get(function) else {
            return self.feed(Event::SandboxStartFailed { sandbox });
        };
        let start = Start {
            shard: self.settings.shard,
            sandbox,
            function,
            record: owned.record.clone(),
            cores: self.settings.sandbox_cores.clone(),
            whole: false,
        };
        let record = owned.record.clone();
        self.expect_sandbox(sandbox, record);
        if self.links.nursery.starts.send(start).is_err() {
            self.start_failed(sandbox, "the starter thread has ended; restart the worker".into());
        }
    }

    fn dispatch(&mut self, dispatched: &Dispatched) {
        let Dispatched { invocation, origin, sandbox, lane, deadline_ns, run } = *dispatched;
        let Some(request) = self.requests.get_mut(Key(origin.0)) else {
            return self.feed(Event::Broken { sandbox });
        };
        request.invocation = Some(invocation);
        request.run = Some(run);
        // From here on the payload lives in the sandbox's arena; a queued copy is not needed any more.
        let text = std::mem::take(&mut request.text);
        let in_lane = request.in_lane.take();
        request.awaits_bytes = None;
        let deadline_ns = deadline_ns.min(request.deadline_ns);
        let described = RequestMetadata {
            request_id: request.id.0,
            received_unix_ms: request.received_unix_ms,
            content_type: text.content_type(),
            trace_parent: text.trace_parent(),
        };
        let mut metadata = std::mem::take(&mut self.metadata);
        // Cannot fail: the head's parts were bounded when they were read.
        let encoded = described.encode(&mut metadata);
        debug_assert!(encoded.is_ok(), "{encoded:?}");
        let id = request.id;
        let Some(entry) = self.sandboxes.get_mut(sandbox.index as usize).and_then(Option::as_mut) else {
            return self.feed(Event::Broken { sandbox });
        };
        let submitted = entry.give((id, Key(origin.0)), lane, |host| {
            host.submit(&Submission {
                invocation: invocation.to_bits(),
                lane,
                deadline_ns,
                metadata: &metadata,
                payload: match &in_lane {
                    Some(slice) => Payload::InLane { bytes: slice.len() as u64 },
                    None => Payload::Bytes(text.body()),
                },
            })
        });
        self.metadata = metadata;
        let body_bytes = text.body().len() as u64;
        self.pool.give(text.into_buffer());
        self.swell(sandbox, body_bytes);
        match submitted {
            Ok(()) => self.given(sandbox.index),
            Err(error) => {
                let cause = Cause {
                    kind: ErrorKind::SandboxBroken,
                    message: format!("the request could not be handed to its sandbox: {error}"),
                    report: None,
                };
                self.feed_with(Event::Broken { sandbox }, Some(cause));
            }
        }
    }

    fn cancel_run(&mut self, sandbox: SandboxId, lane: u16, invocation: InvocationId) {
        let Some(entry) = self.sandboxes.get_mut(sandbox.index as usize).and_then(Option::as_mut) else { return };
        // Advice: a ring with no room for it is left alone, the deadline stands.
        if entry.host().is_some_and(|host| host.cancel(invocation.to_bits(), lane).is_ok()) {
            self.to_wake.push(sandbox.index);
        }
    }

    fn answer(&mut self, origin: Origin, outcome: Outcome) {
        let returned = self.returned.take();
        let Some(mut request) = self.requests.remove(Key(origin.0)) else { return };
        self.count(&request, outcome);
        let mut response = match outcome {
            // Nobody waits for it.
            Outcome::Cancelled => {
                let held = request.gathered.map_or(0, |gathered| gathered.bytes.len() as u64);
                self.bodies.give_back(held);
                return self.pool.give(request.text.into_buffer());
            }
            Outcome::Returned | Outcome::Raised => returned.unwrap_or_else(|| {
                Response::error(ErrorKind::Internal, "the answer was lost inside the worker; please report this")
            }),
            Outcome::TimedOut if request.run.is_none() => Response::error(
                ErrorKind::TimedOut,
                "the invocation waited too long for a free sandbox; raise the function's `concurrency`, limits.sandboxes_per_function, limits.sandboxes or limits.memory",
            ),
            Outcome::TimedOut => Response::error(
                ErrorKind::TimedOut,
                &format!(
                    "the function did not answer within its timeout of {}; raise `timeout` in function.toml if it needs longer",
                    self.timeout_of(request.function)
                ),
            ),
            Outcome::SandboxDied => self.blame(ErrorKind::SandboxDied, "the sandbox died before it answered"),
            Outcome::StartFailed => self.blame(ErrorKind::StartFailed, "no sandbox could be started for the function"),
            Outcome::Draining => {
                Response::error(ErrorKind::Draining, "the worker stopped before the function answered")
            }
        };
        response = self.gathered_answer(&mut request, response);
        if let Some(run) = request.run {
            response.run = Some((run, self.now_ns.saturating_sub(run.dispatched_ns)));
            response.shard = u16::try_from(self.settings.shard).ok();
        }
        if let Body::Lane(lane) = &response.body {
            self.lend(lane.lent.hold, request.source);
        }
        if let Some(upload) = request.upload {
            // Answered while its body was still arriving: the shard is stopping.
            self.begin_leaving(upload, Leaving::Abandoned);
        }
        self.reply(&request, response);
    }

    fn timeout_of(&self, function: FunctionId) -> String {
        match self.functions.get(function) {
            Some(owned) => format!("{} ms", owned.record.manifest.timeout_ns / 1_000_000),
            None => "the version that it belongs to".into(),
        }
    }

    /// The answer for what a dead or unborn sandbox was meant to do.
    fn blame(&self, kind: ErrorKind, message: &str) -> Response {
        match &self.cause {
            Some(Cause { report: Some(report), kind, .. }) => {
                let mut response = Response::error(*kind, "");
                response.body = Body::Bytes(report.clone());
                response
            }
            Some(cause) => Response::error(cause.kind, &cause.message),
            None => Response::error(kind, message),
        }
    }

    fn count(&mut self, request: &Request, outcome: Outcome) {
        self.load.worked_on(request.function);
        let Some(owned) = self.functions.get_mut(request.function) else { return };
        let counters = &mut owned.counters;
        match outcome {
            Outcome::Returned => counters.invocations += 1,
            Outcome::TimedOut => counters.timeouts += 1,
            Outcome::Raised | Outcome::SandboxDied | Outcome::StartFailed => counters.errors += 1,
            Outcome::Cancelled | Outcome::Draining => {}
        }
        if let Some(run) = request.run {
            counters.run.record(self.now_ns.saturating_sub(run.dispatched_ns));
            counters.queue.record(run.queued_ns);
            if run.start == StartKind::Cold {
                counters.cold_starts += 1;
                counters.start.record(run.starting_ns);
            }
        }
    }

    pub(super) fn reply(&mut self, request: &Request, mut response: Response) {
        response.request_id = Some(request.id);
        let Source { shard, client } = request.source;
        if shard == self.settings.shard {
            self.respond(client, response);
        } else {
            self.post(shard, Message::Respond { client, response });
        }
    }
}
