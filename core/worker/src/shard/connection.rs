//! One HTTP connection: what has been read of the request at hand, what is still to be sent.
//!
//! Invariant: requests are answered one at a time and in order; bytes that arrive meanwhile wait in a bounded backlog, and
//! so do requests of a client that does not take its answers. It performs no input or output: the shard receives and
//! sends for it.

use std::os::fd::OwnedFd;

use vilya_protocol::error::ErrorKind;
use vilya_protocol::http::{
    CONTINUE, Decoder, Head, Item, LAST_CHUNK, Method, Reject, Version, write_chunk, write_chunk_size,
};
use vilya_protocol::route::{NoRoute, Route as Target};
use vilya_reactor::{OpId, TimerId};

use super::backlog::Backlog;
use super::outbox::{JOINED_BYTES, Outbox};
use super::upload::{UPLOAD_BYTES, Upload};
use crate::part::{Awaited, Part};
use crate::pool::Pool;
use crate::request::{AdminCall, RequestText};
use crate::response::{Body, Response};
use crate::route::{CurrentRoute, RouteTable};
use crate::slots::{Key, Slots};

/// What is reserved for a body before any of it has arrived.
const FIRST_BODY_BYTES: u64 = 64 * 1024;
/// More than this of pipelined bytes stops the reading until the request at hand is answered.
pub(super) const BACKLOG_BYTES: usize = 256 * 1024;
/// With as many bytes of answers unsent, no further request of the connection is taken in.
const UNSENT_BYTES: usize = 256 * 1024;
/// After a refusal, the time in which what the client still sends is read and thrown away.
const LINGER_NS: u64 = 2_000_000_000;

/// What a request asks for, known from its head.
#[derive(Debug)]
pub(super) enum Wanted {
    Function(CurrentRoute),
    Admin(AdminCall),
    Live,
    Ready,
    /// The answer is known already; a body is read and thrown away.
    Refused(Box<Response>),
}

/// A request as its bytes arrive.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) wanted: Wanted,
    pub(super) text: RequestText,
    keep_alive: bool,
    head_only: bool,
    takes_parts: bool,
}

/// How many bytes of bodies a shard holds, and how many it may.
#[derive(Debug)]
pub(super) struct BodyBudget {
    held_bytes: u64,
    limit_bytes: u64,
}

impl BodyBudget {
    pub(super) fn new(limit_bytes: u64) -> Self {
        BodyBudget { held_bytes: 0, limit_bytes }
    }

    /// Takes room for a body or a part of one; false when there is none.
    pub(super) fn take(&mut self, bytes: u64) -> bool {
        let held = self.held_bytes.saturating_add(bytes);
        let fits = held <= self.limit_bytes;
        if fits {
            self.held_bytes = held;
        }
        fits
    }

    pub(super) fn give_back(&mut self, bytes: u64) {
        self.held_bytes -= bytes;
    }
}

/// What of the shard's a connection needs to take bytes in.
pub(super) struct Intake<'a> {
    pub(super) routes: &'a RouteTable,
    pub(super) bodies: &'a mut BodyBudget,
    pub(super) pool: &'a mut Pool,
    pub(super) uploads: &'a mut Slots<Upload>,
    pub(super) shard: usize,
}

/// Where the connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No byte of the next request has been seen.
    Between,
    Head,
    /// The head of a large request is here; a lane is asked for its body.
    Asking,
    Body,
    /// A request is being served by the shard named, or by this one's control thread (none).
    Serving {
        owner: Option<usize>,
    },
    /// Nothing more is served; when all is sent the connection ends, after a pause for what the client still sends.
    Closing,
    /// All is sent and the sending side is shut; what still arrives is thrown away.
    Lingering,
}

/// What the shard has to do after bytes were taken in.
#[derive(Debug)]
pub(super) enum Step {
    /// All of the input is used; more is needed.
    More,
    /// The client waits for leave to send its body.
    Continue,
    /// A large body follows, of so many bytes: a lane may take it in. The client may wait for leave to send it.
    Announced { bytes: u64, waits: bool },
    /// A whole request has arrived.
    Complete(Incoming),
    /// The request is refused and so is everything after it.
    Rejected(Reject),
}

/// How long each phase of a connection may last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// From the first byte of a head to its last.
    pub(crate) header_ns: u64,
    /// Between requests, and for a client to take what is sent to it.
    pub(crate) idle_ns: u64,
    /// Without a further byte of a body.
    pub(crate) body_ns: u64,
}

pub(super) struct Connection {
    pub(super) socket: OwnedFd,
    pub(super) receive: Option<OpId>,
    /// The receive has been asked to stop until the backlog is served.
    pub(super) paused: bool,
    pub(super) timer: Option<TimerId>,
    /// When the timer armed fires; the deadline may have moved on since.
    pub(super) timer_at_ns: u64,
    pub(super) deadline_ns: u64,
    /// The phase that the deadline was set for.
    timed_phase: Phase,
    /// The shard is going through the backlog: an answer given meanwhile does not start that again.
    pub(super) acting: bool,
    pub(super) phase: Phase,
    pub(super) backlog: Backlog,
    pub(super) outbox: Outbox,
    /// A large body came: the next piece is received once, to see whether it belongs elsewhere.
    pub(super) is_bulk: bool,
    /// The body of the request at hand, on its way into a lane.
    pub(super) upload: Option<Key>,
    decoder: Decoder,
    incoming: Option<Incoming>,
    keep_alive: bool,
    head_only: bool,
    /// The answer to the request at hand may come in parts.
    pub(super) takes_parts: bool,
    /// Some of it was put into the outbox.
    begun: bool,
    /// Who waits for that to be sent.
    pub(super) part: Option<Awaited>,
    /// What the request at hand holds of the shard's body budget, until it is answered.
    charged_bytes: u64,
    pub(super) lingered_bytes: usize,
}

impl Connection {
    pub(super) fn new(socket: OwnedFd, decoder: Decoder) -> Self {
        Connection {
            socket,
            receive: None,
            paused: false,
            timer: None,
            timer_at_ns: u64::MAX,
            deadline_ns: u64::MAX,
            timed_phase: Phase::Between,
            acting: false,
            phase: Phase::Between,
            backlog: Backlog::default(),
            outbox: Outbox::default(),
            is_bulk: false,
            upload: None,
            decoder,
            incoming: None,
            keep_alive: true,
            head_only: false,
            takes_parts: false,
            begun: false,
            part: None,
            charged_bytes: 0,
            lingered_bytes: 0,
        }
    }

    /// Takes in bytes up to the first thing the shard has to act on. Returns how many were used.
    pub(super) fn absorb(&mut self, input: &[u8], intake: &mut Intake<'_>) -> (usize, Step) {
        let mut used = 0;
        loop {
            let step = match self.decoder.decode(&input[used..]) {
                Ok(step) => step,
                Err(reject) => return (used, Step::Rejected(reject)),
            };
            used += step.consumed;
            match step.item {
                Item::NeedMore => {
                    if self.phase == Phase::Between && used > 0 {
                        self.phase = Phase::Head;
                    }
                    return (used, Step::More);
                }
                Item::Head(head) => {
                    let waits = head.expects_continue();
                    let mut incoming = read_head(&head, intake);
                    let announced = head.content_length().unwrap_or(0);
                    if !matches!(incoming.wanted, Wanted::Refused(_)) {
                        if intake.bodies.take(announced) {
                            self.charged_bytes = announced;
                        } else {
                            incoming.wanted = overloaded();
                        }
                    }
                    let refused = matches!(incoming.wanted, Wanted::Refused(_));
                    self.phase = Phase::Body;
                    if waits && refused {
                        // The body will not come: whether the client still sends it cannot be known, so nothing
                        // after this answer can be trusted to be a request.
                        incoming.keep_alive = false;
                        return (used, Step::Complete(self.complete(incoming)));
                    }
                    let takes_lane = match &incoming.wanted {
                        Wanted::Function(route) => {
                            announced >= UPLOAD_BYTES && route.get().is_some_and(|route| route.is_here(intake.shard))
                        }
                        _ => false,
                    };
                    self.takes_parts = incoming.takes_parts;
                    self.incoming = Some(incoming);
                    if takes_lane {
                        self.phase = Phase::Asking;
                        return (used, Step::Announced { bytes: announced, waits });
                    }
                    if waits {
                        return (used, Step::Continue);
                    }
                }
                Item::Body(bytes) if self.upload.is_some() => {
                    // Charged for whole when it was announced.
                    if let Some(upload) = self.upload.and_then(|upload| intake.uploads.get_mut(upload)) {
                        upload.append(bytes);
                    }
                }
                Item::Body(bytes) => {
                    if let Some(incoming) = &mut self.incoming
                        && !matches!(incoming.wanted, Wanted::Refused(_))
                    {
                        // An announced body was charged whole; a chunked one is as it comes.
                        let held = (incoming.text.body().len() + bytes.len()) as u64;
                        let more = held.saturating_sub(self.charged_bytes);
                        if intake.bodies.take(more) {
                            self.charged_bytes += more;
                            incoming.text.append(bytes);
                        } else {
                            incoming.wanted = overloaded();
                            incoming.text = RequestText::default();
                        }
                    }
                }
                Item::End => {
                    if let Some(incoming) = self.incoming.take() {
                        return (used, Step::Complete(self.complete(incoming)));
                    }
                }
            }
        }
    }

    fn complete(&mut self, incoming: Incoming) -> Incoming {
        self.keep_alive = incoming.keep_alive;
        self.head_only = incoming.head_only;
        self.phase = Phase::Serving { owner: None };
        // The next head has a time of its own, also when it came with this request.
        self.timed_phase = self.phase;
        incoming
    }

    /// Gives back what the request at hand holds of the body budget.
    pub(super) fn discharge(&mut self, budget: &mut BodyBudget) {
        budget.give_back(self.hand_over_charge());
    }

    /// What the request at hand holds of the body budget, from now on to be given back by the caller.
    pub(super) fn hand_over_charge(&mut self) -> u64 {
        std::mem::take(&mut self.charged_bytes)
    }

    /// Whether bytes that arrive now belong to a request that may be taken in now.
    pub(super) fn takes_requests(&self) -> bool {
        matches!(self.phase, Phase::Between | Phase::Head | Phase::Body) && !self.is_behind()
    }

    /// The client does not take its answers as fast as it asks.
    fn is_behind(&self) -> bool {
        self.outbox.unsent_bytes() >= UNSENT_BYTES
    }

    /// Moves the deadline to what the phase allows, and returns it; `u64::MAX` is none.
    pub(super) fn renew_deadline(&mut self, now_ns: u64, timeouts: &Timeouts) -> u64 {
        let allowed_ns = match self.phase {
            Phase::Between | Phase::Closing => timeouts.idle_ns,
            Phase::Head => timeouts.header_ns,
            Phase::Body => timeouts.body_ns,
            Phase::Lingering => LINGER_NS,
            Phase::Asking | Phase::Serving { .. } => u64::MAX,
        };
        if self.outbox.is_sending() {
            // What the client sends meanwhile buys it no time to take what is sent to it.
            self.deadline_ns = self.outbox.by_ns();
        } else if self.phase != Phase::Head || self.timed_phase != Phase::Head {
            // A head has one deadline from its first byte: more bytes do not extend it.
            self.deadline_ns = now_ns.saturating_add(allowed_ns);
        }
        self.timed_phase = if self.outbox.is_sending() { Phase::Closing } else { self.phase };
        self.deadline_ns
    }

    /// Forgets the request that was being read: what follows cannot be trusted to be one.
    pub(super) fn refuse(&mut self) {
        self.incoming = None;
        self.head_only = false;
        self.backlog.clear();
    }

    /// Queues an answer; the connection is then between requests, or closing. One with a large body that the budget has
    /// no room for is replaced by the reason.
    pub(super) fn answer(&mut self, mut response: Response, closing: bool, budget: &mut BodyBudget, pool: &mut Pool) {
        let mut charged_bytes = 0;
        if let Body::Bytes(bytes) = &response.body
            && !self.head_only
            && bytes.len() > JOINED_BYTES
        {
            charged_bytes = bytes.len() as u64;
            if !budget.take(charged_bytes) {
                charged_bytes = 0;
                response = response.instead(ErrorKind::Overloaded, ANSWERS_HELD);
            }
        }
        let keep_alive = self.keep_alive && !closing && !response.close;
        let out = self.outbox.text(pool);
        response.write_head(keep_alive, out);
        match response.body {
            // Dropped, and with it what it held.
            _ if self.head_only => {}
            Body::Bytes(bytes) if charged_bytes > 0 => self.outbox.push(bytes, charged_bytes),
            Body::Bytes(bytes) => {
                out.extend_from_slice(&bytes);
                pool.give(bytes);
            }
            Body::Lane(lane) => self.outbox.push_lane(lane),
        }
        self.phase = if keep_alive { Phase::Between } else { Phase::Closing };
    }

    /// Whether parts of the answer to the request at hand were taken in.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Queues a part of the answer, and what an answer begins with before the first.
    pub(super) fn take_part(&mut self, part: Part, closing: bool, pool: &mut Pool) {
        let Part { bytes, head, awaited } = part;
        let out = self.outbox.text(pool);
        if let Some(head) = head {
            self.begun = true;
            self.keep_alive &= !closing;
            head.write_head_of_parts(self.keep_alive, out);
        }
        write_chunk(out, &bytes);
        pool.give(bytes);
        self.part = Some(awaited);
    }

    /// Queues the end of an answer that came in parts. False: it does not end well, and nothing more may be sent.
    pub(super) fn end_parts(&mut self, response: Response, closing: bool, pool: &mut Pool) -> bool {
        self.begun = false;
        if response.status >= 300 {
            return false;
        }
        match response.body {
            Body::Bytes(bytes) => {
                let out = self.outbox.text(pool);
                write_chunk(out, &bytes);
                out.extend_from_slice(LAST_CHUNK);
                pool.give(bytes);
            }
            Body::Lane(lane) => {
                write_chunk_size(self.outbox.text(pool), lane.slice.len());
                self.outbox.push_lane(lane);
                let out = self.outbox.text(pool);
                out.extend_from_slice(b"\r\n");
                out.extend_from_slice(LAST_CHUNK);
            }
        }
        self.phase = if self.keep_alive && !closing { Phase::Between } else { Phase::Closing };
        true
    }

    /// The request whose body a lane is asked for, without the body.
    pub(super) fn asking(&mut self) -> Option<(CurrentRoute, RequestText)> {
        let incoming = self.incoming.as_mut()?;
        let Wanted::Function(route) = &incoming.wanted else { return None };
        Some((CurrentRoute::clone(route), std::mem::take(&mut incoming.text)))
    }

    /// What was asked about the body at hand is answered: it goes into a lane, or into the text.
    pub(super) fn take_body_in(&mut self, upload: Option<Key>, text: RequestText) {
        self.upload = upload;
        self.is_bulk |= upload.is_some();
        if let Some(incoming) = &mut self.incoming {
            incoming.text = text;
        }
        if self.phase == Phase::Asking {
            self.phase = Phase::Body;
        }
    }

    /// The request at hand is refused; its body is read and thrown away.
    pub(super) fn refuse_body(&mut self, response: Response) {
        self.take_body_in(None, RequestText::default());
        if let Some(incoming) = &mut self.incoming {
            incoming.wanted = Wanted::Refused(Box::new(response));
        }
    }

    /// Bytes of the body went past the decoder.
    pub(super) fn body_received(&mut self, bytes: usize) {
        self.decoder.body_received(bytes as u64);
    }

    /// No answer is being made or sent.
    pub(super) fn owes_nothing(&self) -> bool {
        self.outbox.is_empty() && !matches!(self.phase, Phase::Serving { .. })
    }

    /// Queues the leave to send a body.
    pub(super) fn answer_continue(&mut self, pool: &mut Pool) {
        self.outbox.text(pool).extend_from_slice(CONTINUE);
    }
}

const ANSWERS_HELD: &str =
    "the worker holds as many bytes of bodies as limits.bodies allows; the function ran, its answer was dropped";

fn overloaded() -> Wanted {
    let message = "the worker holds as many bytes of request bodies as limits.bodies allows; try again later";
    Wanted::Refused(Box::new(Response::error(ErrorKind::Overloaded, message)))
}

fn read_head(head: &Head<'_>, intake: &mut Intake<'_>) -> Incoming {
    let wanted = wanted(head, intake.routes);
    let announced = head.content_length().unwrap_or(0).min(FIRST_BODY_BYTES) as usize;
    let header = |name| head.header(name).unwrap_or_default();
    let mut text = match wanted {
        Wanted::Function(_) => RequestText::new(intake.pool.take(), header("content-type"), header("traceparent")),
        _ => RequestText::default(),
    };
    if matches!(wanted, Wanted::Function(_) | Wanted::Admin(_)) {
        text.reserve(announced);
    }
    let head_only = head.method() == Method::Head;
    let takes_parts = head.version() == Version::Http11 && !head_only;
    Incoming { wanted, text, keep_alive: head.keep_alive(), head_only, takes_parts }
}

fn wanted(head: &Head<'_>, routes: &RouteTable) -> Wanted {
    match vilya_protocol::route::route(head.method(), head.path()) {
        Ok(Target::Invoke { name }) => match routes.find(name) {
            Some(route) => Wanted::Function(CurrentRoute::clone(route)),
            None => Wanted::Refused(Box::new(Response::no_such_function(name))),
        },
        Ok(Target::DeployFunction { name }) => Wanted::Admin(AdminCall::Deploy { name: name.into() }),
        Ok(Target::GetFunction { name }) => Wanted::Admin(AdminCall::Get { name: name.into() }),
        Ok(Target::DeleteFunction { name }) => Wanted::Admin(AdminCall::Remove { name: name.into() }),
        Ok(Target::ListFunctions) => Wanted::Admin(AdminCall::List),
        Ok(Target::ListSandboxes) => Wanted::Admin(AdminCall::Sandboxes),
        Ok(Target::FunctionLogs { name }) => {
            Wanted::Admin(AdminCall::Logs { name: name.into(), query: head.query().unwrap_or_default().into() })
        }
        Ok(Target::Metrics) => Wanted::Admin(AdminCall::Metrics),
        Ok(Target::Version) => Wanted::Admin(AdminCall::Version),
        Ok(Target::Livez) => Wanted::Live,
        Ok(Target::Readyz) => Wanted::Ready,
        Err(no_route) => {
            let mut response = match no_route {
                NoRoute::InvalidName(error) => {
                    let message = format!("{}; correct the name in the path", error.message());
                    Response::error(no_route.kind(), &message)
                }
                _ => Response::advised(no_route.kind(), no_route.message()),
            };
            if let NoRoute::MethodNotAllowed { allow } = no_route {
                response.allow = Some(allow);
            }
            Wanted::Refused(Box::new(response))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUTS: Timeouts = Timeouts { header_ns: 10, idle_ns: 100, body_ns: 30 };
    const LIVE: &[u8] = b"GET /livez HTTP/1.1\r\nhost: t\r\n\r\n";

    fn connection() -> Connection {
        let (near, _far) = std::os::unix::net::UnixStream::pair().expect("two sockets");
        Connection::new(near.into(), Decoder::new(vilya_protocol::http::Limits::default()))
    }

    fn absorb(connection: &mut Connection, bytes: &[u8], bodies: &mut BodyBudget) -> Step {
        let (mut pool, mut uploads) = (Pool::new(), Slots::new(1));
        let routes = RouteTable::default();
        let mut intake = Intake { routes: &routes, bodies, pool: &mut pool, uploads: &mut uploads, shard: 0 };
        let (used, step) = connection.absorb(bytes, &mut intake);
        assert_eq!(used, bytes.len());
        step
    }

    fn text(bytes: usize) -> Response {
        Response::new(200, crate::response::ContentType::Text, vec![b'x'; bytes])
    }

    #[test]
    fn a_head_has_one_deadline_and_the_next_head_has_its_own() {
        let (mut connection, mut budget) = (connection(), BodyBudget::new(0));
        absorb(&mut connection, b"GET /li", &mut budget);
        assert_eq!(connection.renew_deadline(1000, &TIMEOUTS), 1010);
        absorb(&mut connection, b"ve", &mut budget);
        assert_eq!(connection.renew_deadline(1005, &TIMEOUTS), 1010, "more bytes of a head buy no time");
        // The end of one request and the beginning of the next arrive together.
        let (rest, next) = (&LIVE[9..], b"GET");
        assert!(matches!(absorb(&mut connection, rest, &mut budget), Step::Complete(_)));
        connection.answer(text(1), false, &mut budget, &mut Pool::new());
        absorb(&mut connection, next, &mut budget);
        assert_eq!(connection.renew_deadline(1008, &TIMEOUTS), 1018);
    }

    #[test]
    fn a_client_that_does_not_take_its_answers_is_not_asked_for_more() {
        let (mut connection, mut budget) = (connection(), BodyBudget::new(u64::MAX));
        let mut answered = 0;
        while connection.takes_requests() {
            absorb(&mut connection, LIVE, &mut budget);
            connection.answer(text(1000), false, &mut budget, &mut Pool::new());
            answered += 1;
        }
        assert!((UNSENT_BYTES / 2000..UNSENT_BYTES / 1000).contains(&answered), "{answered}");
        connection.outbox = Outbox::default();
        assert!(connection.takes_requests());
    }

    #[test]
    fn the_budget_gets_back_what_was_taken() {
        let (mut connection, mut budget) = (connection(), BodyBudget::new(100_000));
        let head = b"PUT /v1/functions/f HTTP/1.1\r\nhost: t\r\ncontent-length: 70000\r\n\r\n";
        absorb(&mut connection, head, &mut budget);
        assert_eq!(budget.held_bytes, 70_000);
        assert!(matches!(absorb(&mut connection, &[0; 70_000], &mut budget), Step::Complete(_)));
        connection.discharge(&mut budget);
        connection.answer(text(60_000), false, &mut budget, &mut Pool::new());
        assert_eq!(budget.held_bytes, 60_000);
        absorb(&mut connection, LIVE, &mut budget);
        connection.answer(text(60_000), false, &mut budget, &mut Pool::new());
        let said = String::from_utf8_lossy(connection.outbox.text(&mut Pool::new())).into_owned();
        assert!(said.starts_with("HTTP/1.1 503 ") && said.contains("limits.bodies"), "{said}");
        connection.discharge(&mut budget);
        assert_eq!(budget.held_bytes, 60_000);
    }
}
