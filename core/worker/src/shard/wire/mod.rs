//! What a shard does for its connections of the binary protocol (`frontend/protocol/WIRE.md`): receive, take frames in,
//! answer, give up on the slow and the broken.
//!
//! Invariant: each request of a client is answered once, in whatever order the answers come; a client that breaks the
//! protocol is told how, and costs only itself. At most one send and one receive of a connection are with the ring.

mod answers;
mod connection;
mod frames;
mod parts;
mod stream;

use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{MsgFlags, Shutdown, send, shutdown};
use vilya_protocol::wire;
use vilya_reactor::{Chunk, Op, OpId, Outcome};

pub(super) use connection::WireConnection;
use connection::{Stage, UNSENT_BYTES};
use stream::Phase;

use super::Shard;
use super::connection::BACKLOG_BYTES;
use super::token::Owner;
use super::upload::{Leaving, Upload};
use crate::mesh::Message;
use crate::request::{Client, Source};
use crate::slots::Key;

/// After a GOAWAY, this much of what the client still sends is read and thrown away before the connection ends, so that
/// the reason is not lost to a reset.
const LINGER_BYTES: usize = 4 * 1024 * 1024;
const LINGER_NS: u64 = 2_000_000_000;

/// What frames need of a shard, beside the connection that they came on.
macro_rules! intake {
    ($shard:expr) => {
        &mut frames::FrameIntake {
            routes: &$shard.routes,
            bodies: &mut $shard.bodies,
            pool: &mut $shard.pool,
            uploads: &mut $shard.uploads,
            ids: &mut $shard.ids,
            shard: $shard.settings.shard,
            now_ns: $shard.now_ns,
            max_payload_bytes: $shard.settings.http.body_bytes,
            is_draining: $shard.draining.is_some(),
        }
    };
}

impl Shard {
    /// Takes a connection in, if there is room.
    pub(super) fn welcome_wire(&mut self, socket: OwnedFd) -> bool {
        match self.wires.insert(WireConnection::new(socket, self.now_ns)) {
            Ok(key) => {
                self.wire_resume(key);
                self.wire_rearm(key);
                true
            }
            Err(wire) => {
                turn_away(&wire.socket);
                false
            }
        }
    }

    /// Receives if the kernel has stopped and there is room for more: into the lane of a payload that has one.
    fn wire_resume(&mut self, key: Key) {
        let Some(wire) = self.wires.get_mut(key).filter(|wire| !wire.is_filling) else { return };
        let socket = wire.socket.as_raw_fd();
        let due_bytes = wire.decoder.payload_due() as usize;
        let into_lane = if due_bytes > 0 && wire.backlog.is_empty() {
            wire.current.and_then(|id| wire.streams.get_mut(&id)?.incoming()?.upload)
        } else {
            None
        };
        if let Some(upload) = into_lane.filter(|&upload| self.uploads.get(upload).is_some_and(|upload| upload.stays()))
        {
            match wire.receive {
                // What the kernel has received by then still comes, and is copied.
                Some(receive) => {
                    wire.paused = true;
                    self.reactor.interrupt(receive);
                }
                None => {
                    if self.fill(upload, socket, due_bytes).is_err() {
                        return self.close_wire(key);
                    }
                    let is_filling = self.uploads.get(upload).is_some_and(Upload::is_filling);
                    if let Some(wire) = self.wires.get_mut(key) {
                        wire.is_filling = is_filling;
                    }
                }
            }
            return;
        }
        if wire.receive.is_some() || wire.backlog.waiting().len() >= BACKLOG_BYTES {
            return;
        }
        wire.paused = false;
        let receive = if wire.is_bulk { Op::ReceiveOnce { socket } } else { Op::Receive { socket } };
        match self.reactor.submit(Owner::WireReceive(key).token(), receive) {
            Ok(receive) => wire.receive = Some(receive),
            Err(_) => self.close_wire(key),
        }
    }

    pub(super) fn wire_received(&mut self, key: Key, more: bool, outcome: Outcome) {
        let Some(wire) = self.wires.get_mut(key) else { return self.discard(outcome) };
        if !more {
            wire.receive = None;
        }
        // What comes after the end buys no time.
        if wire.stage != Stage::Lingering {
            wire.active_ns = self.now_ns;
        }
        match outcome {
            Outcome::Received(chunk) => {
                self.counters.bytes_in += chunk.len() as u64;
                self.wire_take_in(key, &chunk);
                self.reactor.recycle(chunk);
            }
            Outcome::Ended => return self.close_wire(key),
            Outcome::Failed { errno: libc::ENOBUFS | libc::ECANCELED, .. } => {}
            Outcome::Failed { .. } => return self.close_wire(key),
            other => self.discard(other),
        }
        if self.wires.get(key).is_some_and(WireConnection::is_receiving) {
            self.wire_rearm(key);
        }
        self.wire_resume(key);
    }

    fn wire_take_in(&mut self, key: Key, chunk: &Chunk) {
        let Some(wire) = self.wires.get_mut(key) else { return };
        let bytes = self.reactor.chunk(chunk);
        if matches!(wire.stage, Stage::Closing | Stage::Lingering) {
            wire.lingered_bytes += bytes.len();
            if wire.lingered_bytes > LINGER_BYTES {
                self.close_wire(key);
            }
            return;
        }
        if !wire.backlog.is_empty() || !wire.takes_frames() {
            wire.backlog.push(bytes);
            if wire.backlog.waiting().len() >= BACKLOG_BYTES
                && let Some(receive) = wire.receive
                && !wire.paused
            {
                wire.paused = true;
                self.reactor.interrupt(receive);
            }
            return;
        }
        // The shard's other parts are needed while the bytes are read: the pieces of a chunk are handed over one by one.
        let length = bytes.len();
        let mut used = 0;
        self.set_wire_acting(key, true);
        while used < length {
            let Some(wire) = self.wires.get_mut(key) else { return };
            if !wire.takes_frames() {
                break;
            }
            let bytes = &self.reactor.chunk(chunk)[used..];
            let (taken, wanted) = frames::take(wire, bytes, intake!(self));
            used += taken;
            self.wire_act(key, wanted);
        }
        self.set_wire_acting(key, false);
        if used < length
            && let Some(wire) = self.wires.get_mut(key)
            && wire.stage == Stage::Open
        {
            wire.backlog.push(&self.reactor.chunk(chunk)[used..]);
        }
    }

    fn set_wire_acting(&mut self, key: Key, acting: bool) {
        if let Some(wire) = self.wires.get_mut(key) {
            wire.acting = acting;
        }
    }

    /// Goes on with what waited: for room in the outbox, or for word about a lane.
    fn wire_proceed(&mut self, key: Key) {
        if self.wires.get(key).is_none_or(|wire| wire.acting) {
            return;
        }
        let mut has_taken = false;
        self.set_wire_acting(key, true);
        while let Some(wire) = self.wires.get_mut(key)
            && !wire.backlog.is_empty()
            && wire.takes_frames()
        {
            has_taken = true;
            let mut backlog = std::mem::take(&mut wire.backlog);
            let (taken, wanted) = frames::take(wire, backlog.waiting(), intake!(self));
            backlog.take(taken);
            wire.backlog = backlog;
            self.wire_act(key, wanted);
        }
        self.set_wire_acting(key, false);
        if has_taken && self.wires.get(key).is_some_and(WireConnection::is_receiving) {
            self.wire_rearm(key);
        }
        self.wire_resume(key);
    }

    /// Notes that something is to be sent: it leaves with what else this turn gives rise to.
    fn wire_dirty(&mut self, key: Key) {
        if let Some(wire) = self.wires.get_mut(key)
            && !std::mem::replace(&mut wire.dirty, true)
        {
            self.wires_to_flush.push(key);
        }
    }

    /// Begins the sends of this turn.
    pub(super) fn flush_wires(&mut self) {
        while let Some(key) = self.wires_to_flush.pop() {
            if let Some(wire) = self.wires.get_mut(key) {
                wire.dirty = false;
                self.wire_send(key);
            }
        }
    }

    fn wire_send(&mut self, key: Key) {
        let Some(wire) = self.wires.get_mut(key) else { return };
        let by_ns = self.now_ns.saturating_add(self.settings.timeouts.idle_ns);
        if wire.map_is_stale && wire.stage == Stage::Open && wire.outbox.unsent_bytes() < UNSENT_BYTES {
            wire.map_is_stale = false;
            self.routes.write_map(wire.outbox.text(&mut self.pool));
        }
        wire.frame_answers(&mut self.pool, &mut self.bodies, by_ns);
        let may_be_quiet = wire.stage == Stage::Open && wire.answering.is_empty() && self.draining.is_none();
        let (socket, token) = (wire.socket.as_raw_fd(), Owner::WireSend(key).token());
        match wire.outbox.start(&mut self.reactor, socket, token, by_ns, may_be_quiet) {
            Ok(bytes) => {
                self.counters.bytes_out += bytes as u64;
                self.restless |= wire.outbox.waits_behind_quiet();
                if wire.outbox.is_empty() && wire.stage == Stage::Closing {
                    self.wire_linger(key);
                }
            }
            Err(_) => self.close_wire(key),
        }
    }

    pub(super) fn wire_sent(&mut self, key: Key, op: OpId, outcome: Outcome) {
        let Some(wire) = self.wires.get_mut(key) else { return self.orphan_sent(op, outcome) };
        wire.active_ns = self.now_ns;
        if wire.outbox.ended(outcome, &mut self.bodies, &mut self.pool) {
            self.wire_send(key);
            self.wire_proceed(key);
        } else {
            self.close_wire(key);
        }
    }

    /// All is sent: the reason for the end is not to be lost to a reset by what the client still sends.
    fn wire_linger(&mut self, key: Key) {
        let Some(wire) = self.wires.get_mut(key) else { return };
        wire.stage = Stage::Lingering;
        wire.active_ns = self.now_ns;
        wire.backlog.clear();
        if self.draining.is_some() || shutdown(wire.socket.as_raw_fd(), Shutdown::Write).is_err() {
            return self.close_wire(key);
        }
        self.wire_rearm(key);
        self.wire_resume(key);
    }

    /// Tells a client that broke the protocol, or whose time is over, and ends the connection. What runs for it is cancelled.
    fn wire_goaway(&mut self, key: Key, status: u16, text: &str) {
        self.counters.requests_rejected += 1;
        self.wire_abandon_streams(key);
        let Some(wire) = self.wires.get_mut(key) else { return };
        wire::goaway(wire.outbox.text(&mut self.pool), status, text);
        wire.stage = Stage::Closing;
        wire.backlog.clear();
        self.wire_dirty(key);
    }

    /// Nobody waits for the answers of this connection any more.
    fn wire_abandon_streams(&mut self, key: Key) {
        let Some(wire) = self.wires.get_mut(key) else { return };
        wire.current = None;
        wire.answering.clear();
        let streams = std::mem::take(&mut wire.streams);
        for (id, stream) in streams {
            self.bodies.give_back(stream.charged_bytes);
            let source = self.wire_source(key, id, stream.serial);
            match stream.phase {
                Phase::Receiving(incoming) => match incoming.upload {
                    Some(upload) => self.begin_leaving(upload, Leaving::Abandoned),
                    None => self.pool.give(incoming.text.into_buffer()),
                },
                Phase::Serving { owner } if owner == self.settings.shard => self.cancel(source),
                Phase::Serving { owner } => self.post(owner, Message::Cancel(source)),
                Phase::Answered => {}
            }
        }
    }

    fn wire_source(&self, connection: Key, id: u64, serial: u32) -> Source {
        Source { shard: self.settings.shard, client: Client::Wire { connection, id, serial } }
    }

    /// Forgets a connection; buffers and lanes that the kernel still uses stay with the ring.
    pub(super) fn close_wire(&mut self, key: Key) {
        self.wire_abandon_streams(key);
        let Some(mut wire) = self.wires.remove(key) else { return };
        if let Some(receive) = wire.receive {
            self.reactor.abandon(receive);
        }
        let orphan = wire.outbox.close(&mut self.reactor, &mut self.bodies);
        self.orphans.extend(orphan);
        if let Some(timer) = wire.timer {
            self.reactor.clear_timer(timer);
        }
        self.closing.push(wire.socket);
    }

    /// Tells every client that the worker stops: what is under way is answered, nothing more is taken.
    pub(super) fn announce_drain(&mut self) {
        let open: Vec<Key> =
            self.wires.iter().filter(|(_, wire)| wire.stage == Stage::Open).map(|(key, _)| key).collect();
        for key in open {
            if let Some(wire) = self.wires.get_mut(key) {
                wire::goaway(wire.outbox.text(&mut self.pool), 503, "the worker is stopping; use another one");
                self.wire_dirty(key);
            }
        }
    }

    /// Sets the connection's timer to the next moment at which it may have waited too long.
    fn wire_rearm(&mut self, key: Key) {
        let Some(wire) = self.wires.get_mut(key) else { return };
        let look_again_ns = self.now_ns.saturating_add(self.settings.timeouts.idle_ns);
        let at_ns = self.settings.timeouts.of_wire(wire).unwrap_or(look_again_ns);
        if wire.timer.is_some() && wire.timer_at_ns <= at_ns {
            return;
        }
        if let Some(timer) = wire.timer.take() {
            self.reactor.clear_timer(timer);
        }
        wire.timer_at_ns = at_ns;
        wire.timer = Some(self.reactor.set_timer(Owner::WireTimer(key).token(), at_ns));
    }

    /// The timer fired. It is armed when a wait begins and not moved as the connection goes on, so it looks first.
    pub(super) fn wire_timer(&mut self, key: Key) {
        let Some(wire) = self.wires.get_mut(key) else { return };
        wire.timer = None;
        self.expire_streams(key);
        self.cut_stalled_parts(key);
        let Some(wire) = self.wires.get_mut(key) else { return };
        if wire.is_stalled(self.now_ns) {
            self.wire_goaway(key, 408, "an answer was given no credit for too long; read it or cancel it");
            return self.wire_rearm(key);
        }
        if self.settings.timeouts.of_wire(wire).is_none_or(|at_ns| at_ns > self.now_ns) {
            return self.wire_rearm(key);
        }
        let waits_for_it = match wire.stage {
            Stage::Fresh => true,
            Stage::Open => !wire.streams.is_empty() || !wire.decoder.at_frame_start(),
            Stage::Closing | Stage::Lingering => false,
        };
        if waits_for_it && !wire.outbox.is_sending() {
            self.wire_goaway(key, 408, "HELLO, a frame or a payload took too long to arrive; send it faster");
            self.wire_rearm(key);
        } else {
            self.close_wire(key);
        }
    }
}

/// Says that there is no room: what has not been used has room for a frame, and if not, the end of it says enough.
fn turn_away(socket: &OwnedFd) {
    let mut frame = Vec::new();
    wire::goaway(&mut frame, 503, "the worker has as many connections as server.connections allows; use another one");
    let _ = send(socket.as_raw_fd(), &frame, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
}

impl super::Timeouts {
    /// When a connection will have waited too long, if nothing comes or goes until then; none while functions run for it,
    /// which have deadlines of their own.
    fn of_wire(&self, wire: &WireConnection) -> Option<u64> {
        let due = wire.streams.values().map(|stream| stream.deadline_ns.min(stream.credit_by_ns));
        let deadline_ns = due.min().unwrap_or(u64::MAX);
        let allowed_ns = match wire.stage {
            Stage::Lingering => LINGER_NS,
            Stage::Fresh => self.header_ns,
            _ if wire.outbox.is_sending() => return Some(wire.outbox.by_ns().min(deadline_ns)),
            _ if wire.is_receiving() => self.body_ns,
            _ if wire.is_served() => return (deadline_ns != u64::MAX).then_some(deadline_ns),
            _ => self.idle_ns,
        };
        Some(wire.active_ns.saturating_add(allowed_ns).min(deadline_ns))
    }
}
