//! One connection of the binary protocol: its streams, what waits to be taken in, and what waits to be sent.
//!
//! Invariant: everything is bounded: streams, bytes in the backlog, bytes in the outbox; a client that takes no answers is
//! asked for nothing more. It performs no input or output.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::os::fd::OwnedFd;

use vilya_protocol::wire::{self, ServerDecoder};
use vilya_reactor::{OpId, TimerId};

use super::stream::{Phase, Rest, Stream};
use crate::pool::Pool;
use crate::shard::backlog::Backlog;
use crate::shard::connection::BodyBudget;
use crate::shard::outbox::Outbox;

/// Requests in flight on a connection.
pub(super) const IN_FLIGHT: usize = 1024;
/// Bytes of a request's payload that may come before CREDIT.
pub(super) const REQUEST_CREDIT_BYTES: u64 = 64 * 1024;
/// With as many bytes of answers unsent, no further frame is put together.
pub(super) const UNSENT_BYTES: usize = 1024 * 1024;
/// Payload in one DATA frame: streams of one connection take turns of so much.
const DATA_BYTES: usize = 256 * 1024;

/// Spreads the ids that a client chose, who by choosing badly slows down nobody but itself.
#[derive(Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, id: u64) {
        // Fibonacci hashing: 2^64 over the golden ratio; the high half is folded in, since the table uses the low bits.
        let mixed = (self.0 ^ id).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

/// Streams by the ids that their client chose.
pub(super) type Streams = HashMap<u64, Stream, BuildHasherDefault<IdHasher>>;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Before HELLO.
    Fresh,
    Open,
    /// GOAWAY ends it: when all is sent it is closed.
    Closing,
    /// All is sent and the sending side is shut; what still comes is thrown away.
    Lingering,
}

/// See the module's description.
pub(in crate::shard) struct WireConnection {
    pub(super) socket: OwnedFd,
    pub(super) receive: Option<OpId>,
    /// The receive has been asked to stop.
    pub(super) paused: bool,
    /// Some payload went straight into a lane: the next piece is received once, to see where it belongs.
    pub(super) is_bulk: bool,
    /// The kernel receives into a lane, also for a stream that has ended meanwhile: nothing else is received until it is
    /// done, and what it got is counted.
    pub(super) is_filling: bool,
    pub(super) timer: Option<TimerId>,
    pub(super) timer_at_ns: u64,
    /// The last time that anything came or went.
    pub(super) active_ns: u64,
    pub(super) stage: Stage,
    pub(super) decoder: ServerDecoder,
    pub(super) wants_map: bool,
    /// Answers may come in parts.
    pub(super) takes_parts: bool,
    /// The map changed while much was unsent: it is told whole when there is room.
    pub(super) map_is_stale: bool,
    /// What HELLO grants each answer.
    pub(super) response_credit_bytes: u64,
    pub(super) streams: Streams,
    /// The stream of the payload that comes next.
    pub(super) current: Option<u64>,
    pub(super) serial: u32,
    /// Streams with a rest and credit, in their turns.
    pub(super) answering: VecDeque<u64>,
    pub(super) backlog: Backlog,
    pub(super) outbox: Outbox,
    /// In the shard's list of those with something to send.
    pub(super) dirty: bool,
    /// The shard is going through the backlog.
    pub(super) acting: bool,
    pub(super) lingered_bytes: usize,
}

impl WireConnection {
    pub(super) fn new(socket: OwnedFd, now_ns: u64) -> Self {
        WireConnection {
            socket,
            receive: None,
            paused: false,
            is_bulk: false,
            is_filling: false,
            timer: None,
            timer_at_ns: u64::MAX,
            active_ns: now_ns,
            stage: Stage::Fresh,
            decoder: ServerDecoder::new(wire::Limits::DEFAULT),
            wants_map: false,
            takes_parts: false,
            map_is_stale: false,
            response_credit_bytes: 0,
            streams: Streams::default(),
            current: None,
            serial: 0,
            answering: VecDeque::new(),
            backlog: Backlog::default(),
            outbox: Outbox::default(),
            dirty: false,
            acting: false,
            lingered_bytes: 0,
        }
    }

    /// No answer is being made or sent.
    pub(in crate::shard) fn owes_nothing(&self) -> bool {
        let answers = |stream: &Stream| !matches!(stream.phase, Phase::Receiving(_)) && !stream.is_over();
        self.outbox.is_empty() && !self.streams.values().any(answers)
    }

    /// Whether a frame or a payload has begun and not ended.
    pub(super) fn is_receiving(&self) -> bool {
        !self.decoder.at_frame_start()
            || self.streams.values().any(|stream| matches!(stream.phase, Phase::Receiving(_)))
    }

    /// Whether functions run for it.
    pub(super) fn is_served(&self) -> bool {
        self.streams.values().any(|stream| matches!(stream.phase, Phase::Serving { .. }))
    }

    /// Whether an answer whose size was announced has waited too long for credit.
    pub(super) fn is_stalled(&self, now_ns: u64) -> bool {
        self.streams.values().any(|stream| !stream.begun && stream.credit_by_ns <= now_ns)
    }

    /// Whether frames may be taken in now.
    pub(super) fn takes_frames(&self) -> bool {
        matches!(self.stage, Stage::Fresh | Stage::Open) && self.outbox.unsent_bytes() < UNSENT_BYTES && !self.asks()
    }

    /// A lane was asked for the payload that comes next, and there is no word yet.
    fn asks(&self) -> bool {
        let current = self.current.and_then(|id| self.streams.get(&id));
        matches!(current, Some(Stream { phase: Phase::Receiving(incoming), .. }) if incoming.asks)
    }

    /// The stream, if it is the one meant and not a later one of the same id.
    pub(super) fn stream(&mut self, id: u64, serial: u32) -> Option<&mut Stream> {
        self.streams.get_mut(&id).filter(|stream| stream.serial == serial)
    }

    /// Puts as much of the answers into frames as may wait to be sent, stream by stream. One that has no credit gets it by
    /// `by_ns`, or its client is too slow.
    pub(super) fn frame_answers(&mut self, pool: &mut Pool, budget: &mut BodyBudget, by_ns: u64) {
        while self.outbox.unsent_bytes() < UNSENT_BYTES
            && let Some(id) = self.answering.pop_front()
        {
            if self.frame_data(id, pool, by_ns) {
                self.answering.push_back(id);
            } else {
                self.end_if_over(id, budget);
            }
        }
    }

    /// Forgets a stream of which nothing more comes.
    pub(super) fn end_if_over(&mut self, id: u64, budget: &mut BodyBudget) {
        if self.streams.get(&id).is_some_and(Stream::is_over)
            && let Some(stream) = self.streams.remove(&id)
        {
            budget.give_back(stream.charged_bytes);
        }
    }

    /// Puts the next part of an answer into a frame. Whether another may follow.
    fn frame_data(&mut self, id: u64, pool: &mut Pool, by_ns: u64) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else { return false };
        let Some(rest) = stream.rest.take() else { return false };
        let credit = usize::try_from(stream.credit_bytes).unwrap_or(usize::MAX);
        let bytes = rest.len().min(credit).min(DATA_BYTES);
        if bytes == 0 {
            stream.rest = Some(rest);
            // From when it ran out of credit, however often it is looked at.
            stream.credit_by_ns = stream.credit_by_ns.min(by_ns);
            return false;
        }
        stream.credit_bytes -= bytes as u64;
        let is_all = bytes == rest.len();
        stream.credit_by_ns = if is_all || stream.credit_bytes > 0 { u64::MAX } else { by_ns };
        let out = self.outbox.text(pool);
        // Of an answer in parts that goes on this is not the end.
        wire::data_head(out, id, bytes as u32, is_all && matches!(stream.phase, Phase::Answered));
        match rest {
            Rest::Bytes { bytes: from, at } => {
                out.extend_from_slice(&from[at..at + bytes]);
                if is_all {
                    pool.give(from);
                } else {
                    stream.rest = Some(Rest::Bytes { bytes: from, at: at + bytes });
                }
            }
            Rest::Lane(lane) => {
                self.outbox.push_lane(lane.part(0, bytes));
                if !is_all {
                    stream.rest = Some(Rest::Lane(lane.part(bytes, lane.slice.len())));
                }
            }
        }
        if is_all {
            stream.part.take().into_iter().for_each(|part| part.taken());
        }
        !is_all && stream.credit_bytes > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::BuildHasher;

    #[test]
    fn ids_in_a_row_fall_into_different_places() {
        let hasher = BuildHasherDefault::<IdHasher>::default();
        let places: std::collections::HashSet<u64> = (0..1024_u64).map(|id| hasher.hash_one(id) & 0xFFFF).collect();
        assert!(places.len() > 900, "{}", places.len());
    }
}
