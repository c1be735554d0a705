//! What sandboxes say on their rings, checked, and turned into events.
//!
//! Invariant: a claim that `vilya_ipc` lets through is still only a claim: the engine compares its lane and invocation
//! with its own table. An impossible one ends the sandbox and nothing else. One sandbox has a bounded share of a turn.

use std::sync::Arc;

use vilya_engine::{Event, InvocationId, RunResult};
use vilya_ipc::claim::{Claim, ClaimKind, Poison};
use vilya_protocol::error::ErrorKind;

use super::Shard;
use super::invoke::Cause;
use super::outbox::JOINED_BYTES;
use super::sandbox::Sandbox;
use crate::arena::{Hold, LaneBytes, Lent};
use crate::imports::{self, Learned};
use crate::response::{Body, ContentType, Response};

/// The longest report of a function that could not be loaded: everybody who waits for the function gets a copy.
const REPORT_BYTES: usize = 64 * 1024;

/// Claims of one sandbox in one turn.
const CLAIMS_PER_TURN: usize = 128;

impl Shard {
    /// Marks a sandbox's ring to be looked at in this turn.
    pub(super) fn note(&mut self, index: u32) {
        if let Some(Some(entry)) = self.sandboxes.get_mut(index as usize)
            && !std::mem::replace(&mut entry.noted, true)
        {
            self.claimed.push(index);
        }
    }

    /// Marks those that have answered without a doorbell: the ones that were given work since the shard last slept. One
    /// with nothing left to answer is struck off.
    pub(super) fn note_claims(&mut self) {
        let mut unannounced = std::mem::take(&mut self.unannounced);
        unannounced.retain(|&index| {
            let Some(Some(entry)) = self.sandboxes.get_mut(index as usize) else { return false };
            let pending = entry.host().is_some_and(|host| host.pending());
            entry.listed = entry.listed && (pending || entry.is_busy());
            let listed = entry.listed;
            if pending {
                self.note(index);
            }
            listed
        });
        self.unannounced = unannounced;
    }

    /// Tells the sandboxes that have work to ring from now on. False when one has answered meanwhile: do not sleep.
    pub(super) fn announce_sleep(&mut self) -> bool {
        while let Some(index) = self.unannounced.pop() {
            let Some(Some(entry)) = self.sandboxes.get_mut(index as usize) else { continue };
            if !std::mem::take(&mut entry.listed) {
                continue;
            }
            let Some(host) = entry.host() else { continue };
            if !host.announce_park() {
                host.announce_unpark();
                entry.listed = true;
                self.unannounced.push(index);
                self.note(index);
                return false;
            }
        }
        true
    }

    pub(super) fn check_claims(&mut self) {
        let mut claimed = std::mem::take(&mut self.claimed);
        for index in claimed.drain(..) {
            if let Some(Some(entry)) = self.sandboxes.get_mut(index as usize) {
                entry.noted = false;
            }
            self.check_claims_of(index);
        }
        // What was noted meanwhile is in the new list; keep the larger buffer.
        claimed.append(&mut self.claimed);
        self.claimed = claimed;
    }

    pub(super) fn check_claims_of(&mut self, index: u32) {
        for _ in 0..CLAIMS_PER_TURN {
            let Some(host) = self.sandboxes.get_mut(index as usize).and_then(Option::as_mut).and_then(Sandbox::host)
            else {
                return;
            };
            match host.pop() {
                Ok(Some(claim)) => self.claim(index, claim),
                Ok(None) => return,
                Err(poison) => return self.poison(index, poison),
            }
        }
        // More may wait: its turn comes again, after the others'.
        self.note(index);
    }

    fn claim(&mut self, index: u32, claim: Claim) {
        self.drain_output(index, 1);
        let Some(Some(entry)) = self.sandboxes.get_mut(index as usize) else { return };
        let sandbox = entry.id;
        let Some(host) = entry.host() else { return };
        match claim.kind {
            ClaimKind::Ready => {
                entry.ready = true;
                entry.active_ns = self.now_ns;
                let taken_ns = self.now_ns.saturating_sub(entry.started_ns);
                self.counters.starts.record_ready(taken_ns);
                self.feed(Event::SandboxReady { sandbox });
            }
            ClaimKind::InitFailed => {
                let report = (claim.payload_bytes() <= REPORT_BYTES).then(|| {
                    let mut body = Vec::new();
                    host.copy_payload(&claim, &mut body);
                    body
                });
                let message = "the function could not be loaded, and said more about it than is passed on; see its log";
                let cause = Cause { kind: ErrorKind::FunctionRaised, message: message.into(), report };
                self.feed_with(Event::Broken { sandbox }, Some(cause));
            }
            ClaimKind::Part => {
                let mut bytes = self.pool.take();
                host.copy_payload(&claim, &mut bytes);
                let invocation = InvocationId::from_bits(claim.invocation);
                let key = entry.request_in(claim.lane);
                let content_type = ContentType::Function(claim.metadata.content_type);
                self.part(Hold { sandbox, lane: claim.lane, invocation }, key, content_type, bytes);
            }
            ClaimKind::Imported => {
                let mut names = Vec::new();
                host.copy_payload(&claim, &mut names);
                let record = Arc::clone(&entry.record);
                let learned = imports::parse(&names).map(|names| Learned { record, names });
                // Full, or nobody is there who makes zygotes: nothing depends on it.
                learned.into_iter().for_each(|learned| drop(self.links.nursery.imports.try_send(learned)));
            }
            ClaimKind::Returned | ClaimKind::Raised => {
                let invocation = InvocationId::from_bits(claim.invocation);
                let hold = Hold { sandbox, lane: claim.lane, invocation };
                let body = if !claim.payload_in_slot() && claim.payload_bytes() > JOINED_BYTES {
                    entry.response_slice(&claim).map(|slice| {
                        let lent = Lent::new(hold, self.links.shards[self.settings.shard].clone());
                        Body::Lane(LaneBytes { slice, lent })
                    })
                } else {
                    let mut bytes = self.pool.take();
                    host.copy_payload(&claim, &mut bytes);
                    Some(Body::Bytes(bytes))
                };
                let Some(body) = body else { return };
                entry.lane_done(claim.lane, self.now_ns);
                let (status, content_type, result) = match claim.kind {
                    ClaimKind::Raised => (500, ContentType::Json, RunResult::Raised),
                    _ => (200, ContentType::Function(claim.metadata.content_type), RunResult::Returned),
                };
                let (held, bytes) = (matches!(body, Body::Lane(_)), body.len());
                let mut response = Response::new(status, content_type, Vec::new());
                response.body = body;
                self.returned = Some(response);
                self.feed(Event::Completed { sandbox, lane: claim.lane, invocation, result, held });
                // Nobody waited for it: dropped, and with it the hold of its lane.
                self.returned = None;
                self.swell(sandbox, bytes as u64);
            }
        }
    }

    fn poison(&mut self, index: u32, poison: Poison) {
        let Some(Some(entry)) = self.sandboxes.get_mut(index as usize) else { return };
        let sandbox = entry.id;
        let cause = Cause {
            kind: ErrorKind::SandboxBroken,
            message: format!("the sandbox broke the protocol of its ring and was killed: {poison}"),
            report: None,
        };
        self.counters.poisoned += 1;
        self.feed_with(Event::Broken { sandbox }, Some(cause));
    }
}
