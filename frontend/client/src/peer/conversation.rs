//! One connection of a [`Peer`](super::Peer).

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use vilya_protocol::error::{ErrorKind, body};
use vilya_protocol::wire::{self, Hello, Item, Limits, Report, ResponseHead, ServerDecoder, Welcome, WireError};

use super::{Asked, Ending, Reaction, Shared};

/// Whether the connection goes on.
type Outcome = Result<(), WireError>;

/// Sends to a client, or not if it has gone.
pub(super) fn send(stream: &Mutex<TcpStream>, bytes: &[u8]) {
    let _ = stream.lock().unwrap_or_else(PoisonError::into_inner).write_all(bytes);
}

/// Talks to a client until one of both has enough.
pub(super) fn hold(mut stream: TcpStream, shard: u16, shared: &Shared) {
    let _ = stream.set_nodelay(true);
    let Ok(writer) = stream.try_clone() else { return };
    let mut conversation = Conversation {
        shared,
        shard,
        stream: Arc::new(Mutex::new(writer)),
        window_bytes: 0,
        takes_parts: false,
        asked: HashMap::new(),
        answers: HashMap::new(),
        receiving: 0,
        closing: false,
    };
    let mut decoder = ServerDecoder::new(Limits { frame_bytes: shared.settings.welcome.frame_bytes });
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
        let outcome = conversation.take_in(&mut decoder, &buffer[..bytes]);
        if let Err(error) = outcome {
            let mut out = Vec::new();
            wire::goaway(&mut out, error.status(), error.message);
            conversation.say(&out);
        }
        if outcome.is_err() || conversation.closing {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
}

struct Conversation<'a> {
    shared: &'a Shared,
    shard: u16,
    stream: Arc<Mutex<TcpStream>>,
    /// Initial credit of answers.
    window_bytes: u64,
    takes_parts: bool,
    /// Requests of which the client has sent neither END nor CANCEL.
    asked: HashMap<u64, Whole>,
    /// Answers that are not over.
    answers: HashMap<u64, Reply>,
    /// The request whose payload is coming.
    receiving: u64,
    closing: bool,
}

/// A request that is being put together.
struct Whole {
    name: String,
    content_type: Vec<u8>,
    deadline_ms: u32,
    bytes: u64,
    granted: u64,
    payload: Vec<u8>,
    /// Its answer is under way already.
    answered: bool,
}

struct Reply {
    body: Vec<u8>,
    sent: usize,
    credit: u64,
    /// Nothing more is said: a CANCEL decides.
    awaits_cancel: bool,
    /// Of an answer in parts: where in the body each ends, and how it does.
    parts: Option<(Vec<usize>, Ending)>,
}

impl Reply {
    /// Bytes up to the end of the part, or of the answer.
    fn due(&self) -> usize {
        let edges = self.parts.iter().flat_map(|(edges, _)| edges);
        edges.copied().find(|edge| *edge > self.sent).unwrap_or(self.body.len()) - self.sent
    }

    /// Whether the last bytes of the body end the answer.
    fn ends_with_body(&self) -> bool {
        match &self.parts {
            None => true,
            Some((edges, Ending::Whole)) => !edges.is_empty() && edges.iter().rev().nth(1) != edges.last(),
            Some(_) => false,
        }
    }
}

const fn broken(message: &'static str) -> WireError {
    WireError { kind: ErrorKind::ProtocolBroken, message }
}

impl Conversation<'_> {
    fn say(&self, bytes: &[u8]) {
        send(&self.stream, bytes);
    }

    fn take_in(&mut self, decoder: &mut ServerDecoder, input: &[u8]) -> Outcome {
        let mut at = 0;
        while !self.closing {
            let step = decoder.decode(&input[at..])?;
            at += step.consumed;
            match step.item {
                Item::NeedMore => return Ok(()),
                Item::Hello(hello) => self.welcome(&hello),
                Item::Request(head) => {
                    if self.asked.contains_key(&head.id) || self.answers.contains_key(&head.id) {
                        return Err(broken("an id is in flight twice"));
                    }
                    let answering = self.answers.keys().filter(|id| !self.asked.contains_key(id)).count();
                    if self.asked.len() + answering >= self.shared.settings.welcome.in_flight as usize {
                        return Err(broken("too many requests are in flight"));
                    }
                    let granted = self.shared.settings.welcome.request_credit_bytes;
                    self.asked.insert(
                        head.id,
                        Whole {
                            name: head.name.to_owned(),
                            content_type: head.content_type.to_vec(),
                            deadline_ms: head.deadline_ms,
                            bytes: head.bytes,
                            granted,
                            payload: Vec::new(),
                            answered: false,
                        },
                    );
                    if self.shared.settings.early.iter().any(|name| name == head.name) {
                        self.react(head.id);
                    }
                    self.expect(head.id, head.payload_bytes)?;
                }
                Item::Data { id, payload_bytes, end } => {
                    let whole = self.asked.get(&id).ok_or(broken("DATA is of no request in flight"))?;
                    let left = whole.bytes - whole.payload.len() as u64;
                    if u64::from(payload_bytes) > left || end != (u64::from(payload_bytes) == left) {
                        return Err(broken("a payload has another size than announced"));
                    }
                    self.expect(id, payload_bytes)?;
                }
                Item::Payload { bytes, frame_done } => {
                    let id = self.receiving;
                    if let Some(whole) = self.asked.get_mut(&id) {
                        whole.payload.extend_from_slice(bytes);
                    }
                    if frame_done {
                        self.received(id);
                    }
                }
                Item::Credit { id, bytes } => {
                    if let Some(reply) = self.answers.get_mut(&id) {
                        reply.credit = reply.credit.saturating_add(bytes);
                        self.go_on(id);
                    }
                }
                Item::Cancel { id } => self.cancel(id),
                Item::Ping { id, body } => {
                    let mut out = Vec::new();
                    wire::pong(&mut out, id, body);
                    self.say(&out);
                }
            }
        }
        Ok(())
    }

    fn welcome(&mut self, hello: &Hello) {
        let mut out = Vec::new();
        if hello.version().is_none() {
            wire::goaway(&mut out, 505, "version 1 is spoken here");
            self.closing = true;
            return self.say(&out);
        }
        self.window_bytes = hello.response_credit_bytes;
        self.takes_parts = hello.takes_parts;
        let settings = &self.shared.settings;
        wire::welcome(&mut out, &Welcome { shard: self.shard, ..settings.welcome }, &self.shared.ports);
        if hello.wants_map {
            let entries = settings.map.iter().map(|(name, owners)| (name.as_str(), owners.as_slice()));
            wire::map(&mut out, 1, true, settings.welcome.frame_bytes, entries);
            let mut listeners = self.shared.listeners.lock().unwrap_or_else(PoisonError::into_inner);
            listeners.push(Arc::clone(&self.stream));
        }
        self.say(&out);
    }

    /// So much payload of this request comes next.
    fn expect(&mut self, id: u64, payload_bytes: u32) -> Outcome {
        self.receiving = id;
        let Some(whole) = self.asked.get(&id) else { return Ok(()) };
        if whole.payload.len() as u64 + u64::from(payload_bytes) > whole.granted {
            return Err(broken("a payload is sent beyond its credit"));
        }
        if payload_bytes == 0 {
            self.received(id);
        }
        Ok(())
    }

    /// A frame with payload of this request is over.
    fn received(&mut self, id: u64) {
        let Some(whole) = self.asked.get_mut(&id) else { return };
        let have = whole.payload.len() as u64;
        if have == whole.bytes {
            if !whole.answered {
                self.react(id);
            }
            self.asked.remove(&id);
        } else if !whole.answered && whole.granted - have <= self.shared.settings.welcome.request_credit_bytes / 2 {
            let bytes = self.shared.settings.welcome.request_credit_bytes.max(1);
            whole.granted = whole.granted.saturating_add(bytes);
            let mut out = Vec::new();
            wire::credit(&mut out, id, bytes);
            self.say(&out);
        }
    }

    fn react(&mut self, id: u64) {
        let Some(whole) = self.asked.get_mut(&id) else { return };
        whole.answered = true;
        let asked = Asked {
            // Relaxed: each number is drawn once, whatever the order.
            index: self.shared.requests.fetch_add(1, Ordering::Relaxed),
            shard: self.shard,
            name: &whole.name,
            payload: &whole.payload,
            content_type: &whole.content_type,
            deadline_ms: whole.deadline_ms,
        };
        let reaction = (self.shared.react)(&asked);
        self.act(id, reaction);
    }

    fn act(&mut self, id: u64, reaction: Reaction) {
        match reaction {
            Reaction::Answer(status, report, content_type, body) => {
                self.answer(id, status, report, content_type, body);
            }
            Reaction::Parts(report, content_type, parts, ending) => {
                self.answer_in_parts(id, report, content_type, &parts, ending);
            }
            Reaction::AnswerAfter(time, reaction) => {
                thread::sleep(time);
                self.act(id, *reaction);
            }
            Reaction::AwaitCancel => {
                let credit = self.window_bytes;
                let reply = Reply { body: Vec::new(), sent: 0, credit, awaits_cancel: true, parts: None };
                self.answers.insert(id, reply);
            }
            Reaction::Silence => {}
            Reaction::Goaway(status, text) => {
                let mut out = Vec::new();
                wire::goaway(&mut out, status, text);
                self.say(&out);
                self.closing = status != 503;
                if status == 503 {
                    self.answer(id, 503, Report::default(), "", Vec::new());
                }
            }
            Reaction::Raw(bytes) => {
                self.say(&bytes);
                self.closing = true;
            }
        }
    }

    fn answer(&mut self, id: u64, status: u16, report: Report, content_type: &str, body: Vec<u8>) {
        let most = self.window_bytes.min(u64::from(self.shared.settings.welcome.frame_bytes) - 512);
        let first = body.len().min(most as usize);
        let head = ResponseHead {
            id,
            status,
            bytes: body.len() as u64,
            in_parts: false,
            report,
            content_type: content_type.as_bytes(),
            payload_bytes: first as u32,
        };
        let mut out = Vec::new();
        // A test that asks for a head which cannot be gets a connection that ends.
        self.closing = wire::response_head(&mut out, &head).is_err();
        out.extend_from_slice(&body[..first]);
        self.say(&out);
        if first < body.len() {
            let credit = self.window_bytes - first as u64;
            self.answers.insert(id, Reply { body, sent: first, credit, awaits_cancel: false, parts: None });
            self.go_on(id);
        }
    }

    fn answer_in_parts(&mut self, id: u64, report: Report, content_type: &str, parts: &[Vec<u8>], ending: Ending) {
        let body = parts.concat();
        if !self.takes_parts {
            return match ending {
                Ending::Whole => self.answer(id, 200, report, content_type, body),
                Ending::Cut(status, error) => self.answer(id, status, report, "application/json", error.into()),
                Ending::AwaitCancel => self.act(id, Reaction::AwaitCancel),
                Ending::Gone => self.closing = true,
            };
        }
        let head = ResponseHead {
            id,
            status: 200,
            bytes: 0,
            in_parts: true,
            report,
            content_type: content_type.as_bytes(),
            payload_bytes: 0,
        };
        // With its head if it fits, unless it would be the end.
        let most = self.window_bytes.min(u64::from(self.shared.settings.welcome.frame_bytes) - 512);
        let first = parts.first().map_or(0, Vec::len);
        let first = if first as u64 <= most && first < body.len() { first } else { 0 };
        let mut out = Vec::new();
        self.closing = wire::response_head(&mut out, &ResponseHead { payload_bytes: first as u32, ..head }).is_err();
        out.extend_from_slice(&body[..first]);
        self.say(&out);
        let edges = parts.iter().scan(0, |at, part| {
            *at += part.len();
            Some(*at)
        });
        let parts = Some((edges.collect(), ending));
        let credit = self.window_bytes - first as u64;
        self.answers.insert(id, Reply { body, sent: first, credit, awaits_cancel: false, parts });
        self.go_on(id);
    }

    /// Sends of an answer what its credit allows.
    fn go_on(&mut self, id: u64) {
        let frame_bytes = self.shared.settings.welcome.frame_bytes as usize;
        while let Some(reply) = self.answers.get_mut(&id).filter(|reply| !reply.awaits_cancel) {
            let left = reply.body.len() - reply.sent;
            let part = reply.due().min(frame_bytes).min(usize::try_from(reply.credit).unwrap_or(usize::MAX));
            if part == 0 && left > 0 {
                return;
            }
            let mut out = Vec::new();
            let mut is_over = part == left;
            if part > 0 {
                wire::data_head(&mut out, id, part as u32, is_over && reply.ends_with_body());
                out.extend_from_slice(&reply.body[reply.sent..][..part]);
                reply.sent += part;
                reply.credit -= part as u64;
            }
            if is_over && let Some((_, ending)) = reply.parts {
                match ending {
                    Ending::Whole if part > 0 && reply.ends_with_body() => {}
                    Ending::Whole => wire::data_head(&mut out, id, 0, true),
                    Ending::Cut(status, error) => wire::cut(&mut out, id, status, error.as_bytes()),
                    Ending::AwaitCancel => {
                        reply.awaits_cancel = true;
                        is_over = false;
                    }
                    Ending::Gone => self.closing = true,
                }
            }
            send(&self.stream, &out);
            if is_over {
                self.answers.remove(&id);
            }
        }
    }

    fn cancel(&mut self, id: u64) {
        let unanswered = self.asked.remove(&id).is_some_and(|whole| !whole.answered);
        let reply = self.answers.remove(&id);
        let error = body(ErrorKind::Cancelled, "the client cancelled");
        let mut out = Vec::new();
        match reply {
            Some(Reply { parts: Some(_), .. }) => wire::cut(&mut out, id, ErrorKind::Cancelled.status(), &error),
            Some(Reply { awaits_cancel: false, .. }) => wire::data_head(&mut out, id, 0, true),
            None if !unanswered => return,
            _ => {
                let status = ErrorKind::Cancelled.status();
                return self.answer(id, status, Report::default(), "application/json", error);
            }
        }
        self.say(&out);
    }
}
