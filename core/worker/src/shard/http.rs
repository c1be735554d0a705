//! What a shard does for its HTTP connections: receive, answer, give up on the slow.
//!
//! Invariant: at most one send and one receive of a connection are with the ring; an answer to a connection that has
//! gone is dropped. A request is passed on only when it is whole. A socket is closed on the ring, behind the operations
//! that name it.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{Shutdown, shutdown};
use vilya_engine::Refusal;
use vilya_protocol::error::ErrorKind;
use vilya_protocol::http::{Decoder, Reject};
use vilya_reactor::{Op, OpId, Outcome};

use super::Shard;
use super::connection::{BACKLOG_BYTES, Connection, Incoming, Intake, Phase, Step, Wanted};
use super::token::Owner;
use super::upload::Leaving;
use crate::config::units::format_bytes;
use crate::mesh::{ControlMessage, Message};
use crate::part::{Awaited, Part};
use crate::request::{Client, Request, RequestText, Source, unix_ms};
use crate::response::{ContentType, Response};
use crate::slots::Key;

/// After a refusal, this much of what the client still sends is read and thrown away before the connection ends, so
/// that the refusal is not lost to a reset.
const LINGER_BYTES: usize = 4 * 1024 * 1024;

/// What bytes need of a shard, beside the connection that they came on.
macro_rules! intake {
    ($shard:expr) => {
        &mut Intake {
            routes: &$shard.routes,
            bodies: &mut $shard.bodies,
            pool: &mut $shard.pool,
            uploads: &mut $shard.uploads,
            shard: $shard.settings.shard,
        }
    };
}

impl Shard {
    /// Takes a connection in, if there is room.
    pub(super) fn welcome_http(&mut self, socket: OwnedFd) -> bool {
        let connection = Connection::new(socket, Decoder::new(self.settings.http));
        let Ok(key) = self.connections.insert(connection) else { return false };
        self.receive(key);
        self.touch(key);
        true
    }

    fn receive(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let socket = connection.socket.as_raw_fd();
        let receive = if connection.is_bulk { Op::ReceiveOnce { socket } } else { Op::Receive { socket } };
        match self.reactor.submit(Owner::Receive(key).token(), receive) {
            Ok(receive) => connection.receive = Some(receive),
            Err(_) => self.close(key),
        }
    }

    pub(super) fn received(&mut self, key: Key, more: bool, outcome: Outcome) {
        let Some(connection) = self.connections.get_mut(key) else { return self.discard(outcome) };
        if !more {
            connection.receive = None;
        }
        match outcome {
            Outcome::Received(chunk) => {
                let bytes = self.reactor.chunk(&chunk).len();
                self.counters.bytes_in += bytes as u64;
                self.take_in(key, &chunk);
                self.reactor.recycle(chunk);
            }
            // A client that has shut its sending side while it waits is taken to have gone, as by most servers.
            Outcome::Ended => return self.client_ended(key),
            Outcome::Failed { errno: libc::ENOBUFS | libc::ECANCELED, .. } => {}
            Outcome::Failed { .. } => return self.close(key),
            other => self.discard(other),
        }
        self.resume(key);
    }

    /// Receives again if the kernel has stopped and there is room for more: into the lane of a body that has one.
    fn resume(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if let Some(upload) = connection.upload
            && connection.phase == Phase::Body
            && connection.backlog.is_empty()
        {
            match connection.receive {
                // What the kernel has received by then still comes, and is copied.
                Some(receive) => {
                    connection.paused = true;
                    self.reactor.interrupt(receive);
                }
                None => {
                    connection.paused = false;
                    let socket = connection.socket.as_raw_fd();
                    if self.fill(upload, socket, usize::MAX).is_err() {
                        self.close(key);
                    }
                }
            }
            return;
        }
        if connection.receive.is_none() && connection.backlog.waiting().len() < BACKLOG_BYTES {
            connection.paused = false;
            self.receive(key);
        }
    }

    fn take_in(&mut self, key: Key, chunk: &vilya_reactor::Chunk) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let bytes = self.reactor.chunk(chunk);
        if connection.phase == Phase::Lingering {
            connection.lingered_bytes += bytes.len();
            if connection.lingered_bytes > LINGER_BYTES {
                self.close(key);
            }
        } else if connection.takes_requests() && connection.backlog.is_empty() {
            let (used, step) = connection.absorb(bytes, intake!(self));
            // What follows a whole request waits its turn.
            if let Some(rest) = bytes.get(used..)
                && !rest.is_empty()
            {
                connection.backlog.push(rest);
            }
            self.act(key, step);
        } else {
            connection.backlog.push(bytes);
            if connection.backlog.waiting().len() >= BACKLOG_BYTES
                && let Some(receive) = connection.receive
                && !connection.paused
            {
                connection.paused = true;
                self.reactor.interrupt(receive);
            }
        }
    }

    /// Does what the bytes taken in ask for, then goes on with what waits behind them.
    fn act(&mut self, key: Key, first: Step) {
        self.set_acting(key, true);
        let mut next = Some(first);
        while let Some(step) = next {
            match step {
                Step::More => break,
                Step::Continue => {
                    if let Some(connection) = self.connections.get_mut(key) {
                        connection.answer_continue(&mut self.pool);
                    }
                    self.send(key);
                }
                Step::Announced { bytes, waits } => self.announced(key, bytes, waits),
                Step::Complete(incoming) => self.serve(key, incoming),
                Step::Rejected(reject) => self.reject(key, &reject),
            }
            next = self.next_step(key);
        }
        self.set_acting(key, false);
        self.touch(key);
    }

    fn set_acting(&mut self, key: Key, acting: bool) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.acting = acting;
        }
    }

    /// Takes in what waits in the backlog, when the request at hand allows it.
    fn next_step(&mut self, key: Key) -> Option<Step> {
        let connection = self.connections.get_mut(key)?;
        if !connection.takes_requests() || connection.backlog.is_empty() {
            return None;
        }
        let mut backlog = std::mem::take(&mut connection.backlog);
        let (used, step) = connection.absorb(backlog.waiting(), intake!(self));
        backlog.take(used);
        connection.backlog = backlog;
        Some(step)
    }

    /// Goes on with what waited for an answer to be made or sent.
    fn proceed(&mut self, key: Key) {
        if self.connections.get(key).is_none_or(|connection| connection.acting) {
            return;
        }
        match self.next_step(key) {
            Some(step) => self.act(key, step),
            None => self.touch(key),
        }
        self.resume(key);
    }

    /// A large body is to come: a lane is asked for it.
    fn announced(&mut self, key: Key, bytes: u64, waits: bool) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if waits {
            connection.answer_continue(&mut self.pool);
        }
        let Some((route, text)) = connection.asking() else { return };
        match route.get() {
            Some(route) => {
                let source = Source { shard: self.settings.shard, client: Client::Http(key) };
                let takes_parts = connection.takes_parts;
                let request = Request::new(source, route.function, self.ids.next(), unix_ms(), text);
                self.ask_for_lane(Request { takes_parts, ..request }, bytes);
            }
            None => connection.take_body_in(None, text),
        }
        self.send(key);
    }

    /// A lane is lent for the body at hand.
    pub(super) fn http_has_lane(&mut self, key: Key, upload: Key) {
        match self.connections.get_mut(key) {
            Some(connection) => {
                connection.take_body_in(Some(upload), RequestText::default());
                self.proceed(key);
            }
            None => self.begin_leaving(upload, Leaving::Abandoned),
        }
    }

    /// The body at hand, of which a part may have come, is buffered.
    pub(super) fn http_has_no_lane(&mut self, key: Key, text: RequestText) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.take_body_in(None, text);
            self.proceed(key);
        }
    }

    /// The request is refused before its body has come.
    pub(super) fn http_body_refused(&mut self, key: Key, response: Response) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.refuse_body(response);
            self.proceed(key);
        }
    }

    /// Bytes of the body at hand have arrived in its lane.
    pub(super) fn http_took_body(&mut self, key: Key, bytes: usize) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.body_received(bytes);
        }
    }

    /// A receive into the lane of the body at hand has ended, and its bytes are counted.
    pub(super) fn http_body_moved(&mut self, key: Key, outcome: &Outcome) {
        match outcome {
            Outcome::Filled(_) | Outcome::Failed { errno: libc::ECANCELED, .. } => {}
            Outcome::Ended => return self.client_ended(key),
            _ => return self.close(key),
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        let (_, step) = connection.absorb(&[], intake!(self));
        self.act(key, step);
        self.resume(key);
    }

    fn serve(&mut self, key: Key, incoming: Incoming) {
        self.counters.requests += 1;
        let Incoming { wanted, text, .. } = incoming;
        let source = Source { shard: self.settings.shard, client: Client::Http(key) };
        match wanted {
            Wanted::Function(current) => {
                if let Some(connection) = self.connections.get_mut(key)
                    && let Some(upload) = connection.upload.take()
                {
                    connection.phase = Phase::Serving { owner: Some(self.settings.shard) };
                    return self.commit(upload);
                }
                let Some(route) = current.get() else {
                    return self.respond_http(key, Response::refusal(Refusal::NoSuchFunction));
                };
                let mut request = Request::new(source, route.function, self.ids.next(), unix_ms(), text);
                let owner = route.owner(self.settings.shard, self.counters.requests);
                if let Some(connection) = self.connections.get_mut(key) {
                    connection.phase = Phase::Serving { owner: Some(owner) };
                    request.takes_parts = connection.takes_parts;
                }
                if owner == self.settings.shard {
                    self.admit(request);
                } else if self.draining.is_some() {
                    // The owner may have stopped already.
                    self.respond_http(key, Response::refusal(Refusal::Draining));
                } else {
                    self.load.worked_on(request.function);
                    self.post(owner, Message::Invoke(request));
                }
            }
            Wanted::Admin(call) => {
                let request_id = self.ids.next();
                // The body is held until the control thread is done with it, whether or not its client stays.
                let charged_bytes = self.connections.get_mut(key).map_or(0, Connection::hand_over_charge);
                let body = text.into_body();
                let call = ControlMessage::Call { source, call, body, request_id, charged_bytes };
                if self.links.control.send(call).is_err() {
                    self.bodies.give_back(charged_bytes);
                    self.respond_http(key, Response::error(ErrorKind::Draining, "the worker is stopping"));
                }
            }
            Wanted::Live => self.respond_http(key, Response::new(200, ContentType::Text, b"live\n".to_vec())),
            Wanted::Ready if self.draining.is_some() => {
                self.respond_http(key, Response::error(ErrorKind::Draining, "the worker is stopping"));
            }
            Wanted::Ready => self.respond_http(key, Response::new(200, ContentType::Text, b"ready\n".to_vec())),
            Wanted::Refused(response) => self.respond_http(key, *response),
        }
    }

    /// Answers what cannot be parsed; nothing after it on this connection can be trusted to be a request.
    fn reject(&mut self, key: Key, reject: &Reject) {
        self.counters.requests_rejected += 1;
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.refuse();
        let mut response = match reject.kind {
            ErrorKind::PayloadTooLarge => Response::error(
                reject.kind,
                &format!(
                    "the body is over the limit of {}; send a smaller one, or raise server.max_payload",
                    format_bytes(self.settings.http.body_bytes)
                ),
            ),
            kind => Response::advised(kind, reject.message),
        };
        response.status = reject.status;
        response.close = true;
        response.request_id = Some(self.ids.next());
        self.respond_http(key, response);
    }

    /// Answers the request at hand of a connection, if it is still there.
    pub(super) fn respond_http(&mut self, key: Key, mut response: Response) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if response.request_id.is_none() {
            response.request_id = Some(self.ids.next());
        }
        connection.discharge(&mut self.bodies);
        if connection.has_begun() {
            if !connection.end_parts(response, self.draining.is_some(), &mut self.pool) {
                // What has begun as a good answer must not seem whole.
                return self.close(key);
            }
        } else {
            connection.answer(response, self.draining.is_some(), &mut self.bodies, &mut self.pool);
        }
        self.send(key);
        self.proceed(key);
    }

    /// A part of the answer to the request at hand.
    pub(super) fn part_for_http(&mut self, key: Key, part: Part) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.discharge(&mut self.bodies);
        connection.take_part(part, self.draining.is_some(), &mut self.pool);
        self.send(key);
        self.touch(key);
    }

    fn send(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let socket = connection.socket.as_raw_fd();
        let by_ns = self.now_ns.saturating_add(self.settings.timeouts.idle_ns);
        let may_be_quiet = connection.phase == Phase::Between && self.draining.is_none();
        match connection.outbox.start(&mut self.reactor, socket, Owner::Send(key).token(), by_ns, may_be_quiet) {
            Ok(bytes) => {
                self.counters.bytes_out += bytes as u64;
                self.restless |= connection.outbox.waits_behind_quiet();
                if connection.outbox.is_empty() {
                    self.all_sent(key);
                }
            }
            Err(_) => self.close(key),
        }
    }

    pub(super) fn sent(&mut self, key: Key, op: OpId, outcome: Outcome) {
        let Some(connection) = self.connections.get_mut(key) else { return self.orphan_sent(op, outcome) };
        if connection.outbox.ended(outcome, &mut self.bodies, &mut self.pool) {
            self.send(key);
            self.proceed(key);
        } else {
            self.close(key);
        }
    }

    /// Ends the connection in order if nothing more is to be served on it.
    fn all_sent(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.part.take().into_iter().for_each(Awaited::taken);
        if connection.phase != Phase::Closing {
            return;
        }
        connection.phase = Phase::Lingering;
        connection.backlog.clear();
        if self.draining.is_some() || shutdown(connection.socket.as_raw_fd(), Shutdown::Write).is_err() {
            return self.close(key);
        }
        self.touch(key);
        self.resume(key);
    }

    fn client_ended(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        match connection.phase {
            // What is queued still goes out: the client may have shut only its sending side.
            Phase::Closing => {}
            Phase::Between | Phase::Head | Phase::Body if connection.outbox.is_sending() => {
                connection.refuse();
                connection.phase = Phase::Closing;
                // The end of what is being sent is waited for, though it may wake nobody.
                self.restless = true;
            }
            _ => self.close(key),
        }
    }

    /// Forgets a connection. A request it waits for is cancelled; buffers that the kernel still holds stay with the ring.
    pub(super) fn close(&mut self, key: Key) {
        let Some(mut connection) = self.connections.remove(key) else { return };
        connection.discharge(&mut self.bodies);
        if let Some(receive) = connection.receive {
            self.reactor.abandon(receive);
        }
        let orphan = connection.outbox.close(&mut self.reactor, &mut self.bodies);
        self.orphans.extend(orphan);
        if let Some(upload) = connection.upload {
            self.begin_leaving(upload, Leaving::Abandoned);
        }
        if let Some(timer) = connection.timer {
            self.reactor.clear_timer(timer);
        }
        if let Phase::Serving { owner: Some(owner) } = connection.phase {
            let source = Source { shard: self.settings.shard, client: Client::Http(key) };
            if owner == self.settings.shard {
                self.cancel(source);
            } else {
                self.post(owner, Message::Cancel(source));
            }
        }
        self.closing.push(connection.socket);
    }

    pub(super) fn close_idle(&mut self) {
        let idle: Vec<Key> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.phase == Phase::Between && connection.outbox.is_empty())
            .map(|(key, _)| key)
            .collect();
        for key in idle {
            self.close(key);
        }
    }

    /// Moves the connection's deadline to what its phase allows. The timer itself is armed only when none is, and looks
    /// at the deadline again when it fires, so that a busy connection costs no timer operations.
    pub(super) fn touch(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.renew_deadline(self.now_ns, &self.settings.timeouts) == u64::MAX {
            return;
        }
        if connection.timer.is_none() || connection.timer_at_ns > connection.deadline_ns {
            if let Some(timer) = connection.timer.take() {
                self.reactor.clear_timer(timer);
            }
            connection.timer_at_ns = connection.deadline_ns;
            connection.timer =
                Some(self.reactor.set_timer(Owner::ConnectionTimer(key).token(), connection.deadline_ns));
        }
    }

    pub(super) fn connection_timer(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.timer = None;
        if connection.deadline_ns == u64::MAX {
            return;
        }
        if connection.deadline_ns > self.now_ns {
            connection.timer_at_ns = connection.deadline_ns;
            let timer = self.reactor.set_timer(Owner::ConnectionTimer(key).token(), connection.deadline_ns);
            connection.timer = Some(timer);
            return;
        }
        match connection.phase {
            Phase::Head | Phase::Body if !connection.outbox.is_sending() => {
                let upload = connection.upload.take();
                connection.refuse();
                let mut response =
                    Response::error(ErrorKind::RequestTimeout, "the request took too long to arrive; send it faster");
                response.close = true;
                if let Some(upload) = upload {
                    self.begin_leaving(upload, Leaving::Abandoned);
                }
                self.respond_http(key, response);
            }
            _ => self.close(key),
        }
    }
}
