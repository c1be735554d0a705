//! Answers in parts over the binary protocol: each part into frames as credit allows, and how such an answer ends.
//!
//! Invariant: a stream holds at most one part, and who sent it hears that it was taken when all of it is in frames. An answer
//! that has begun in parts ends with END if its function has ended well, and with CUT otherwise: never by itself.

use vilya_protocol::error::{self, ErrorKind};
use vilya_protocol::wire::{self, CUT_BYTES, ResponseHead};

use super::answers::report;
use super::connection::UNSENT_BYTES;
use super::stream::{Phase, Rest, Stream};
use crate::part::Part;
use crate::response::{Body, Response};
use crate::shard::Shard;
use crate::slots::Key;

impl Shard {
    /// A part of the answer to a request. Dropped when nobody waits for it, and with it the hope of who sent it.
    pub(in crate::shard) fn part_for_wire(&mut self, key: Key, id: u64, serial: u32, part: Part) {
        let Some(wire) = self.wires.get_mut(key) else { return };
        let has_room = wire.outbox.unsent_bytes() < UNSENT_BYTES;
        let is_meant = |stream: &&mut Stream| stream.serial == serial && matches!(stream.phase, Phase::Serving { .. });
        let Some(stream) = wire.streams.get_mut(&id).filter(is_meant) else { return };
        let Part { bytes, head, awaited } = part;
        let fits = has_room && bytes.len() as u64 <= stream.credit_bytes;
        let inline = if fits { bytes.len() as u32 } else { 0 };
        let out = wire.outbox.text(&mut self.pool);
        if let Some(head) = head {
            stream.begun = true;
            self.bodies.give_back(std::mem::take(&mut stream.charged_bytes));
            let request_id = head.request_id.unwrap_or_else(|| self.ids.next());
            let head = ResponseHead {
                id,
                status: head.status,
                bytes: 0,
                in_parts: true,
                report: report(&head, request_id.0),
                content_type: head.content_type.as_str().as_bytes(),
                payload_bytes: inline,
            };
            let written = wire::response_head(out, &head);
            debug_assert!(written.is_ok(), "{written:?}");
        } else if inline > 0 {
            wire::data_head(out, id, inline, false);
        }
        if fits {
            stream.credit_bytes -= u64::from(inline);
            out.extend_from_slice(&bytes);
            self.pool.give(bytes);
            awaited.taken();
        } else {
            stream.rest = Some(Rest::Bytes { bytes, at: 0 });
            stream.part = Some(Box::new(awaited));
            wire.answering.push_back(id);
        }
        self.wire_dirty(key);
    }

    /// Ends an answer in parts that is not whole, with the reason. What was not put into frames is left out.
    pub(super) fn cut_parts(&mut self, key: Key, id: u64, response: Response) {
        let Some(wire) = self.wires.get_mut(key) else { return };
        let has_room = wire.outbox.unsent_bytes() < UNSENT_BYTES;
        let Some(stream) = wire.streams.get_mut(&id) else { return };
        stream.rest = None;
        stream.part = None;
        self.bodies.give_back(std::mem::take(&mut stream.charged_bytes));
        let out = wire.outbox.text(&mut self.pool);
        match response.body {
            // Of an answer to a client that reads nothing as little as can be.
            _ if !has_room => wire::cut(out, id, response.status, &[]),
            Body::Bytes(bytes) if bytes.len() <= CUT_BYTES as usize => {
                wire::cut(out, id, response.status, &bytes);
                self.pool.give(bytes);
            }
            _ => {
                let message = "the function failed in the middle of its answer, and said more about it than is passed on; see its log";
                wire::cut(out, id, response.status, &error::body(ErrorKind::FunctionRaised, message));
            }
        }
        wire.end_if_over(id, &mut self.bodies);
        self.wire_dirty(key);
        self.wire_proceed(key);
    }

    /// Gives up the answers in parts whose clients have given no credit for too long.
    pub(super) fn cut_stalled_parts(&mut self, key: Key) {
        let Some(wire) = self.wires.get_mut(key) else { return };
        let now_ns = self.now_ns;
        let is_stalled = |stream: &Stream| stream.begun && stream.credit_by_ns <= now_ns;
        let stalled: Vec<u64> =
            wire.streams.iter().filter(|(_, stream)| is_stalled(stream)).map(|(&id, _)| id).collect();
        for id in stalled {
            let message = "the answer was given no credit for too long; read it or cancel it";
            self.end_stream(key, id, false, Response::error(ErrorKind::RequestTimeout, message));
        }
    }
}
