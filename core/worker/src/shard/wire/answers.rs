//! From whole requests to the engine, and from its answers to frames.
//!
//! Invariant: an answer goes to exactly the stream that asked; a stream that was cancelled or has run out of time is
//! answered at once, and what comes of its run later finds nobody.

use vilya_engine::Refusal;
use vilya_protocol::error::ErrorKind;
use vilya_protocol::wire::{self, Hello, Report, ResponseHead, Start};
use vilya_reactor::Outcome;

use super::connection::{IN_FLIGHT, REQUEST_CREDIT_BYTES, Stage, UNSENT_BYTES, WireConnection};
use super::frames::Wanted;
use super::stream::{Phase, Rest, Stream};
use crate::arena::Hold;
use crate::mesh::Message;
use crate::request::{Request, RequestText};
use crate::response::{Body, Response};
use crate::shard::Shard;
use crate::shard::outbox::JOINED_BYTES;
use crate::shard::upload::Leaving;
use crate::slots::Key;

impl Shard {
    pub(super) fn wire_act(&mut self, key: Key, wanted: Wanted) {
        match wanted {
            Wanted::More => {}
            Wanted::Flush => self.wire_dirty(key),
            Wanted::Greet(hello) => self.greet(key, &hello),
            Wanted::AskForLane { id } => self.wire_ask_for_lane(key, id),
            Wanted::Grant { id } => self.wire_grant(key, id),
            Wanted::Run { id } => self.run_stream(key, id),
            Wanted::Refuse { id, response } => self.answer_stream(key, id, *response),
            Wanted::Cancel { id } => {
                let response = Response::error(ErrorKind::Cancelled, "the client cancelled the request");
                self.end_stream(key, id, true, response);
            }
            Wanted::Credited { id } => {
                if let Some(wire) = self.wires.get_mut(key) {
                    if !wire.answering.contains(&id) {
                        wire.answering.push_back(id);
                    }
                    self.wire_dirty(key);
                }
            }
            Wanted::Sent { id } => {
                if let Some(wire) = self.wires.get_mut(key) {
                    wire.end_if_over(id, &mut self.bodies);
                }
            }
            Wanted::Break { status, text } => self.wire_goaway(key, status, text),
        }
    }

    fn greet(&mut self, key: Key, hello: &Hello) {
        let Some(version) = hello.version() else {
            let text = "this worker speaks version 1 of the protocol only; use a client that does";
            return self.wire_goaway(key, ErrorKind::UnsupportedVersion.status(), text);
        };
        let Some(connection) = self.wires.get_mut(key) else { return };
        connection.open(hello);
        let welcome = wire::Welcome {
            version,
            shard: self.settings.shard as u16,
            frame_bytes: wire::Limits::DEFAULT.frame_bytes,
            in_flight: IN_FLIGHT as u32,
            payload_bytes: self.settings.http.body_bytes,
            request_credit_bytes: REQUEST_CREDIT_BYTES,
        };
        let out = connection.outbox.text(&mut self.pool);
        wire::welcome(out, &welcome, &self.settings.wire_ports);
        if hello.wants_map {
            self.routes.write_map(out);
        }
        self.wire_dirty(key);
        self.wire_rearm(key);
    }

    /// Tells the clients that want to know that a function's owners changed.
    pub(in crate::shard) fn tell_of_route(&mut self, name: &str) {
        let told: Vec<Key> = self
            .wires
            .iter()
            .filter(|(_, wire)| wire.wants_map && wire.stage == Stage::Open)
            .map(|(key, _)| key)
            .collect();
        for key in told {
            if let Some(wire) = self.wires.get_mut(key) {
                if wire.map_is_stale || wire.outbox.unsent_bytes() >= UNSENT_BYTES {
                    wire.map_is_stale = true;
                    continue;
                }
                self.routes.write_change(name, wire.outbox.text(&mut self.pool));
                self.wire_dirty(key);
            }
        }
    }

    fn wire_ask_for_lane(&mut self, key: Key, id: u64) {
        let Some(wire) = self.wires.get_mut(key) else { return };
        let Some(stream) = wire.streams.get_mut(&id) else { return };
        let (bytes, serial, deadline_ns) = (stream.total_bytes, stream.serial, stream.deadline_ns);
        let takes_parts = wire.takes_parts;
        let Phase::Receiving(incoming) = &mut stream.phase else { return };
        let Some(route) = incoming.route.get() else { return incoming.asks = false };
        let (function, text) = (route.function, std::mem::take(&mut incoming.text));
        let (request_id, received) = (incoming.request_id, incoming.received_unix_ms);
        let source = self.wire_source(key, id, serial);
        let mut request = Request::new(source, function, request_id, received, text);
        request.deadline_ns = deadline_ns;
        request.takes_parts = takes_parts;
        self.ask_for_lane(request, bytes);
    }

    pub(in crate::shard) fn wire_has_lane(&mut self, key: Key, id: u64, serial: u32, upload: Key) {
        let incoming = self.wires.get_mut(key).and_then(|wire| wire.stream(id, serial)).and_then(Stream::incoming);
        match incoming {
            Some(incoming) => {
                incoming.asks = false;
                incoming.upload = Some(upload);
                if let Some(wire) = self.wires.get_mut(key) {
                    wire.is_bulk = true;
                }
                self.wire_grant(key, id);
                self.wire_proceed(key);
            }
            None => self.begin_leaving(upload, Leaving::Abandoned),
        }
    }

    pub(in crate::shard) fn wire_has_no_lane(&mut self, key: Key, id: u64, serial: u32, text: RequestText) {
        let incoming = self.wires.get_mut(key).and_then(|wire| wire.stream(id, serial)).and_then(Stream::incoming);
        if let Some(incoming) = incoming {
            incoming.asks = false;
            incoming.upload = None;
            incoming.text = text;
            self.wire_grant(key, id);
            self.wire_proceed(key);
        }
    }

    /// Grants the rest of a payload: there is room for it, in a lane or in the shard's budget, where it is charged for.
    fn wire_grant(&mut self, key: Key, id: u64) {
        let Some(wire) = self.wires.get_mut(key) else { return };
        let Some(stream) = wire.streams.get_mut(&id) else { return };
        let more_bytes = stream.total_bytes.saturating_sub(stream.granted_bytes);
        if more_bytes > 0 && !stream.is_sent {
            stream.granted_bytes = stream.total_bytes;
            wire::credit(wire.outbox.text(&mut self.pool), id, more_bytes);
            self.wire_dirty(key);
        }
    }

    pub(in crate::shard) fn wire_took_body(&mut self, key: Key, _id: u64, bytes: usize) {
        if let Some(wire) = self.wires.get_mut(key)
            && bytes > 0
        {
            wire.active_ns = self.now_ns;
            wire.decoder.payload_received(bytes as u32);
        }
    }

    /// A receive into a lane has ended, and its bytes are counted.
    pub(in crate::shard) fn wire_body_moved(&mut self, key: Key, outcome: &Outcome) {
        match outcome {
            Outcome::Filled(_) | Outcome::Failed { errno: libc::ECANCELED, .. } => {}
            _ => return self.close_wire(key),
        }
        let Some(wire) = self.wires.get_mut(key) else { return };
        wire.is_filling = false;
        if let Some(id) = wire.current
            && wire.decoder.payload_due() == 0
            && wire.streams.get(&id).is_some_and(|stream| stream.is_sent && matches!(stream.phase, Phase::Receiving(_)))
        {
            self.run_stream(key, id);
        }
        self.wire_proceed(key);
        self.wire_resume(key);
    }

    /// The payload of a request is whole.
    fn run_stream(&mut self, key: Key, id: u64) {
        self.counters.requests += 1;
        let Some(wire) = self.wires.get_mut(key) else { return };
        let Some(stream) = wire.streams.get_mut(&id) else { return };
        let Phase::Receiving(incoming) = std::mem::replace(&mut stream.phase, Phase::Answered) else { return };
        let (serial, deadline_ns, takes_parts) = (stream.serial, stream.deadline_ns, wire.takes_parts);
        if let Some(upload) = incoming.upload {
            stream.phase = Phase::Serving { owner: self.settings.shard };
            self.wire_rearm_for(key, deadline_ns);
            return self.commit(upload);
        }
        let Some(route) = incoming.route.get() else {
            self.pool.give(incoming.text.into_buffer());
            return self.answer_stream(key, id, Response::refusal(Refusal::NoSuchFunction));
        };
        let owner = route.owner(self.settings.shard, u64::from(serial));
        if owner != self.settings.shard && self.draining.is_some() {
            // The owner may have stopped already.
            self.pool.give(incoming.text.into_buffer());
            return self.answer_stream(key, id, Response::refusal(Refusal::Draining));
        }
        stream.phase = Phase::Serving { owner };
        self.wire_rearm_for(key, deadline_ns);
        let source = self.wire_source(key, id, serial);
        let (request_id, received) = (incoming.request_id, incoming.received_unix_ms);
        let mut request = Request::new(source, route.function, request_id, received, incoming.text);
        request.deadline_ns = deadline_ns;
        request.takes_parts = takes_parts;
        if owner == self.settings.shard {
            self.admit(request);
        } else {
            self.load.worked_on(request.function);
            self.post(owner, Message::Invoke(request));
        }
    }

    /// Has a deadline looked at when it comes.
    fn wire_rearm_for(&mut self, key: Key, deadline_ns: u64) {
        // The streams are looked through only when it is sooner than whatever is looked at next.
        let is_looked_at = |wire: &WireConnection| wire.timer.is_some() && wire.timer_at_ns <= deadline_ns;
        if deadline_ns != u64::MAX && !self.wires.get(key).is_some_and(is_looked_at) {
            self.wire_rearm(key);
        }
    }

    /// Answers the streams whose clients wait no longer.
    pub(super) fn expire_streams(&mut self, key: Key) {
        let Some(wire) = self.wires.get_mut(key) else { return };
        let now_ns = self.now_ns;
        let late = |stream: &Stream| stream.deadline_ns <= now_ns && !matches!(stream.phase, Phase::Answered);
        let late: Vec<u64> = wire.streams.iter().filter(|(_, stream)| late(stream)).map(|(&id, _)| id).collect();
        for id in late {
            let message = "the function did not answer within the deadline that the client gave";
            self.end_stream(key, id, false, Response::error(ErrorKind::TimedOut, message));
        }
    }

    /// Answers a stream before its run does, and ends that. `is_sent`: the client sends nothing more of it.
    pub(super) fn end_stream(&mut self, key: Key, id: u64, is_sent: bool, response: Response) {
        let Some(stream) = self.wires.get_mut(key).and_then(|wire| wire.streams.get_mut(&id)) else { return };
        stream.is_sent |= is_sent;
        let serial = stream.serial;
        match std::mem::replace(&mut stream.phase, Phase::Answered) {
            // The answer is under way already: what is left of it is left out.
            Phase::Answered => {
                let is_cut = stream.rest.take().is_some();
                if is_cut && stream.begun {
                    return self.cut_parts(key, id, response);
                }
                if let Some(wire) = self.wires.get_mut(key) {
                    if is_cut {
                        wire::data_head(wire.outbox.text(&mut self.pool), id, 0, true);
                    }
                    wire.end_if_over(id, &mut self.bodies);
                }
                return self.wire_dirty(key);
            }
            Phase::Receiving(incoming) => match incoming.upload {
                Some(upload) => self.begin_leaving(upload, Leaving::Abandoned),
                None => self.pool.give(incoming.text.into_buffer()),
            },
            Phase::Serving { owner } => {
                // A later answer to this serial number finds nobody.
                if let Some(stream) = self.wires.get_mut(key).and_then(|wire| wire.streams.get_mut(&id)) {
                    stream.serial = 0;
                }
                let source = self.wire_source(key, id, serial);
                if owner == self.settings.shard {
                    self.cancel(source);
                } else {
                    self.post(owner, Message::Cancel(source));
                }
            }
        }
        self.answer_stream(key, id, response);
    }

    /// The engine's answer, or another shard's.
    pub(in crate::shard) fn respond_wire(&mut self, key: Key, id: u64, serial: u32, response: Response) {
        // Dropped when nobody waits for it, and with it what it holds.
        if self.wires.get_mut(key).is_some_and(|wire| wire.stream(id, serial).is_some()) {
            self.answer_stream(key, id, response);
        }
    }

    fn answer_stream(&mut self, key: Key, id: u64, mut response: Response) {
        let request_id = response.request_id.unwrap_or_else(|| self.ids.next());
        let Some(wire) = self.wires.get_mut(key) else { return };
        let Some(stream) = wire.streams.get_mut(&id) else { return };
        if let Phase::Receiving(incoming) = std::mem::replace(&mut stream.phase, Phase::Answered) {
            self.pool.give(incoming.text.into_buffer());
        }
        self.bodies.give_back(std::mem::take(&mut stream.charged_bytes));
        // It is for the answer, not for the reading of it.
        stream.deadline_ns = u64::MAX;
        let begun = stream.begun;
        if stream.rest.is_some() && response.status < 300 {
            // Its function was not told that the part was taken, and has ended all the same.
            response = response
                .instead(ErrorKind::Internal, "a part of the answer was lost inside the worker; please report this");
        }
        let credit = usize::try_from(stream.credit_bytes).unwrap_or(usize::MAX);
        let has_room = wire.outbox.unsent_bytes() < UNSENT_BYTES;
        // In one frame with its head, at no charge: what is unsent is bounded.
        let fits = |bytes: usize| bytes <= JOINED_BYTES.min(credit) && (has_room || bytes == 0);
        if let Body::Bytes(bytes) = &response.body
            && !fits(bytes.len())
        {
            if self.bodies.take(bytes.len() as u64) {
                stream.charged_bytes = bytes.len() as u64;
            } else {
                let message = "the worker holds as many bytes of bodies as limits.bodies allows; the function ran, its answer was dropped";
                response = response.instead(ErrorKind::Overloaded, message);
            }
        }
        if begun && response.status >= 300 {
            return self.cut_parts(key, id, response);
        }
        let total = response.body.len();
        let inline = match &response.body {
            Body::Bytes(bytes) if fits(bytes.len()) => bytes.len(),
            // The rest follows in its turn.
            _ => 0,
        };
        stream.credit_bytes -= inline as u64;
        let out = wire.outbox.text(&mut self.pool);
        if !begun {
            let head = ResponseHead {
                id,
                status: response.status,
                bytes: total as u64,
                in_parts: false,
                report: report(&response, request_id.0),
                content_type: response.content_type.as_str().as_bytes(),
                payload_bytes: inline as u32,
            };
            let written = wire::response_head(out, &head);
            debug_assert!(written.is_ok(), "{written:?}");
        } else if inline == total {
            wire::data_head(out, id, inline as u32, true);
        }
        match response.body {
            Body::Bytes(bytes) if inline == total => {
                out.extend_from_slice(&bytes);
                self.pool.give(bytes);
            }
            Body::Bytes(bytes) => stream.rest = Some(Rest::Bytes { bytes, at: 0 }),
            Body::Lane(lane) => stream.rest = Some(Rest::Lane(lane)),
        }
        if stream.rest.is_some() {
            wire.answering.push_back(id);
        } else {
            wire.end_if_over(id, &mut self.bodies);
        }
        self.wire_dirty(key);
        self.wire_proceed(key);
    }

    /// What a client has not taken yet of an answer is copied out of its lane.
    pub(in crate::shard) fn reclaim_from_wire(&mut self, key: Key, hold: Hold) {
        let Some(wire) = self.wires.get_mut(key) else { return };
        for stream in wire.streams.values_mut() {
            let Some(Rest::Lane(lane)) = &stream.rest else { continue };
            if lane.lent.hold != hold {
                continue;
            }
            let bytes = lane.slice.len() as u64;
            if !self.bodies.take(bytes) {
                return self.close_wire(key);
            }
            stream.charged_bytes += bytes;
            stream.rest = Some(Rest::Bytes { bytes: lane.copy(), at: 0 });
        }
        if !wire.outbox.reclaim(hold, &mut self.reactor, &mut self.bodies) {
            self.close_wire(key);
        }
    }
}

pub(super) fn report(response: &Response, request_id: [u8; 16]) -> Report {
    let us = |ns: u64| u32::try_from(ns / 1000).unwrap_or(u32::MAX);
    let mut report = Report {
        request_id,
        queue_us: 0,
        start_us: 0,
        run_us: 0,
        shard: response.shard.unwrap_or(0),
        start: Start::None,
    };
    if let Some((run, ran_ns)) = &response.run {
        report.queue_us = us(run.queued_ns);
        report.start_us = us(run.starting_ns);
        report.run_us = us(*ran_ns);
        report.start = match run.start {
            vilya_engine::StartKind::Cold => Start::Cold,
            vilya_engine::StartKind::Warm => Start::Warm,
        };
    }
    report
}
