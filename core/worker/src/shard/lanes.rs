//! Lanes that answers are sent from, and the memory that large payloads leave behind in lanes.
//!
//! Invariant: a lane is given back to the engine when its answer is sent or copied. Memory is given back to the system a
//! while after a large payload, so that a stream of them does not pay for its pages again and again.

use vilya_engine::{Event, SandboxId};
use vilya_ipc::host::KEPT_PAYLOAD_BYTES;
use vilya_reactor::{OpId, Outcome};

use super::Shard;
use super::token::Owner;
use crate::arena::Hold;
use crate::mesh::Message;
use crate::request::Request;
use crate::request::{Client, Source};
use crate::response::Response;
use crate::slots::Key;

/// From a large payload to the look at what its lane still holds.
const TRIM_AFTER_NS: u64 = 1_000_000_000;

/// A sandbox that holds more than this, and cannot give it back, is replaced when it is idle: without root, requests lie in
/// memory that nobody can punch holes into (see `vilya_ipc::host::ReadOnlyBy`).
const RETAINED_BYTES: u64 = 8 * 1024 * 1024;

impl Shard {
    /// An answer is about to be sent from a lane to a client.
    pub(super) fn lend(&mut self, hold: Hold, taker: Source) {
        if let Some(slot) = self.sandbox_at(hold.sandbox).and_then(|entry| entry.taker(hold.lane)) {
            *slot = Some(taker);
        }
    }

    /// An answer is sent, or copied, or dropped.
    pub(super) fn released(&mut self, hold: Hold) {
        let Hold { sandbox, lane, invocation } = hold;
        if let Some(slot) = self.sandbox_at(sandbox).and_then(|entry| entry.taker(lane)) {
            *slot = None;
        }
        self.feed(Event::Release { sandbox, lane, invocation });
    }

    /// The engine wants a lane back that an answer is sent from.
    pub(super) fn reclaim_answer(&mut self, hold: Hold) {
        let taker = self.sandbox_at(hold.sandbox).and_then(|entry| *entry.taker(hold.lane)?);
        // Without a taker its release is on its way.
        let Some(Source { shard, client }) = taker else { return };
        if shard == self.settings.shard {
            self.reclaim_from(client, hold);
        } else {
            self.post(shard, Message::Reclaim { client, hold });
        }
    }

    /// What a client of this shard has not taken yet of an answer is copied out of its lane. Without room for that, the
    /// client's connection ends: it is slow, and others wait.
    pub(super) fn reclaim_from(&mut self, client: Client, hold: Hold) {
        match client {
            Client::Http(key) => {
                if let Some(connection) = self.connections.get_mut(key)
                    && !connection.outbox.reclaim(hold, &mut self.reactor, &mut self.bodies)
                {
                    self.close(key);
                }
            }
            Client::Wire { connection, .. } => self.reclaim_from_wire(connection, hold),
        }
    }

    /// A send of a connection that is gone has ended: nothing reads its lane any more.
    pub(super) fn orphan_sent(&mut self, op: OpId, outcome: Outcome) {
        self.orphans.retain(|(orphan, _)| *orphan != op);
        self.discard(outcome);
    }

    /// Notes that a payload of so many bytes was in a lane.
    pub(super) fn swell(&mut self, sandbox: SandboxId, bytes: u64) {
        if bytes <= KEPT_PAYLOAD_BYTES {
            return;
        }
        let Some(entry) = self.sandbox_at(sandbox) else { return };
        if std::mem::replace(&mut entry.swollen, true) {
            return;
        }
        if self.swollen.is_empty() {
            self.reactor.set_timer(Owner::Trim.token(), self.now_ns.saturating_add(TRIM_AFTER_NS));
        }
        self.swollen.push(sandbox);
    }

    /// Gives back what lanes hold that are idle; busy ones get their turn later.
    pub(super) fn trim(&mut self) {
        let mut later = Vec::new();
        for sandbox in std::mem::take(&mut self.swollen) {
            let receiving: Vec<u16> = self.uploads.iter().filter_map(|(_, upload)| upload.lane_in(sandbox)).collect();
            let Some(entry) = self.sandbox_at(sandbox) else { continue };
            if !entry.trim(|lane| receiving.contains(&lane)) {
                later.push(sandbox);
                continue;
            }
            entry.swollen = false;
            if entry.retained_bytes() > RETAINED_BYTES {
                self.feed(Event::Replace { sandbox });
            }
        }
        self.swollen = later;
        if !self.swollen.is_empty() {
            self.reactor.set_timer(Owner::Trim.token(), self.now_ns.saturating_add(TRIM_AFTER_NS));
        }
    }

    // What happens to a body on its way, told to the protocol that its client speaks.

    pub(super) fn has_lane(&mut self, client: Client, upload: Key) {
        match client {
            Client::Http(key) => self.http_has_lane(key, upload),
            Client::Wire { connection, id, serial } => self.wire_has_lane(connection, id, serial, upload),
        }
    }

    pub(super) fn has_no_lane(&mut self, request: Request) {
        match request.source.client {
            Client::Http(key) => self.http_has_no_lane(key, request.text),
            Client::Wire { connection, id, serial } => self.wire_has_no_lane(connection, id, serial, request.text),
        }
    }

    pub(super) fn refuse_upload(&mut self, request: &Request, response: Response) {
        match request.source.client {
            Client::Http(key) => self.http_body_refused(key, response),
            Client::Wire { .. } => self.reply(request, response),
        }
    }

    pub(super) fn took_body(&mut self, client: Client, bytes: usize) {
        match client {
            Client::Http(key) => self.http_took_body(key, bytes),
            Client::Wire { connection, id, .. } => self.wire_took_body(connection, id, bytes),
        }
    }

    pub(super) fn body_moved(&mut self, client: Client, outcome: &Outcome) {
        match client {
            Client::Http(key) => self.http_body_moved(key, outcome),
            Client::Wire { connection, .. } => self.wire_body_moved(connection, outcome),
        }
    }

    /// Gives an answer to whom it belongs.
    pub(super) fn respond(&mut self, client: Client, response: Response) {
        match client {
            Client::Http(key) => self.respond_http(key, response),
            Client::Wire { connection, id, serial } => self.respond_wire(connection, id, serial, response),
        }
    }
}
