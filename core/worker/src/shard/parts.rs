//! Answers that come in parts: from the ring of a sandbox to a client of this shard or of another.
//!
//! Invariant: one part of an answer is under way at a time, so that who sends parts goes at the pace of who takes them. What has begun as a good
//! answer and does not end as one is cut, over HTTP with its connection: it is never made to look whole. A client that takes no parts gets the
//! answer whole, if it is no larger than other answers may be.

use vilya_protocol::error::ErrorKind;

use super::Shard;
use crate::arena::Hold;
use crate::config::units::format_bytes;
use crate::mesh::Message;
use crate::part::{Awaited, Part};
use crate::request::{Client, Gathered, Request, Source};
use crate::response::{Body, ContentType, Response};
use crate::slots::Key;

impl Shard {
    /// A sandbox has sent a part of its answer to a request.
    pub(super) fn part(&mut self, hold: Hold, key: Option<Key>, content_type: ContentType, bytes: Vec<u8>) {
        let awaited = Awaited::new(hold, self.links.shards[self.settings.shard].clone());
        let found = key.and_then(|key| self.requests.get_mut(key));
        // Answered already, or its client has left: dropped, and the sandbox is told.
        let Some(request) = found.filter(|request| request.invocation == Some(hold.invocation)) else { return };
        if !request.takes_parts {
            return self.gather(key, awaited, content_type, bytes);
        }
        let is_first = !std::mem::replace(&mut request.has_begun, true);
        let head = is_first.then(|| {
            let mut head = Response::new(200, content_type, Vec::new());
            head.request_id = Some(request.id);
            head.run = request.run.map(|run| (run, self.now_ns.saturating_sub(run.dispatched_ns)));
            head.shard = u16::try_from(self.settings.shard).ok();
            Box::new(head)
        });
        let Source { shard, client } = request.source;
        let part = Part { bytes, head, awaited };
        if shard == self.settings.shard {
            self.pass_on(client, part);
        } else {
            self.post(shard, Message::Part { client, part });
        }
    }

    /// Keeps a part for a client that is to have the answer whole.
    fn gather(&mut self, key: Option<Key>, awaited: Awaited, content_type: ContentType, bytes: Vec<u8>) {
        let limit_bytes = self.settings.http.body_bytes;
        let Some(request) = key.and_then(|key| self.requests.get_mut(key)) else { return };
        let gathered = request.gathered.get_or_insert_with(|| Box::new(Gathered::new(content_type)));
        let held = gathered.bytes.len() as u64;
        let fits = !gathered.is_too_large && held + bytes.len() as u64 <= limit_bytes;
        if fits && self.bodies.take(bytes.len() as u64) {
            gathered.bytes.extend_from_slice(&bytes);
            awaited.taken();
        } else {
            gathered.is_too_large = true;
        }
        self.pool.give(bytes);
    }

    /// The answer of what was gathered and of how it ended.
    pub(super) fn gathered_answer(&mut self, request: &mut Request, response: Response) -> Response {
        let Some(gathered) = request.gathered.take() else { return response };
        let Gathered { mut bytes, content_type, is_too_large } = *gathered;
        self.bodies.give_back(bytes.len() as u64);
        if is_too_large {
            let limit = format_bytes(self.settings.http.body_bytes);
            let message = format!(
                "the function sends its answer in parts, which come to more than {limit}; ask over HTTP/1.1, or with a client of the binary protocol that takes parts"
            );
            return Response::error(ErrorKind::Unsupported, &message);
        }
        if response.status >= 300 {
            return response;
        }
        match &response.body {
            Body::Bytes(last) => bytes.extend_from_slice(last),
            Body::Lane(last) => last.slice.append_to(&mut bytes),
        }
        Response { body: Body::Bytes(bytes), content_type, ..response }
    }

    /// A part for a client of this shard.
    pub(super) fn pass_on(&mut self, client: Client, part: Part) {
        match client {
            Client::Http(key) => self.part_for_http(key, part),
            Client::Wire { connection, id, serial } => self.part_for_wire(connection, id, serial, part),
        }
    }

    /// Word of what became of a part.
    pub(super) fn part_taken(&mut self, hold: Hold, goes_on: bool) {
        if let Some(host) = self.sandbox_at(hold.sandbox).and_then(super::sandbox::Sandbox::host) {
            host.part_taken(hold.lane, goes_on);
        }
    }
}
