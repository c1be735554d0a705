//! A connection without its socket: requests become bytes to send, bytes received become events.
//!
//! Invariant: it never writes more payload than was granted, keeps each answer's window open while it is read, and takes
//! from the server only what the protocol allows at that point. What it keeps is the table of requests in flight and what
//! was not yet sent.
//!
//! Does not know: time, or what becomes of an answer.

use vilya_protocol::error::ErrorKind;
use vilya_protocol::wire::{self, ClientDecoder, ClientItem, Hello, RequestHead, VERSION, Welcome, WireError};

use crate::exchange::{Exchange, Exchanges, slot};
use crate::{Error, Event, Options, Request};

/// So much of what was sent is kept before the rest is moved to the front.
const SENT_BYTES: usize = 64 * 1024;

/// A request that was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Started {
    /// Names it from here on.
    pub id: u64,
    /// Bytes of its payload that were taken. The rest is for [`Session::push`], as credit comes.
    pub taken: usize,
}

/// The client's half of one connection.
#[derive(Debug)]
pub struct Session {
    decoder: ClientDecoder,
    state: State,
}

/// A session without its decoder, whose items events are made of.
#[derive(Debug)]
struct State {
    window_bytes: u64,
    in_flight: u32,
    takes_parts: bool,
    welcome: Option<Welcome>,
    ports: Vec<u16>,
    draining: bool,
    failed: Option<WireError>,
    exchanges: Exchanges,
    /// The answer whose frame is being read, and whether it ends with it.
    reading: u64,
    reading_end: bool,
    output: Vec<u8>,
    output_start: usize,
}

impl Session {
    /// A session whose HELLO waits to be sent. Of `options` it takes the window, the requests in flight, and whether the map
    /// and answers in parts are wanted.
    pub fn new(options: &Options) -> Session {
        let mut output = Vec::new();
        // A window of nothing would stop every answer for good.
        let window_bytes = options.window_bytes.max(1);
        let hello = Hello {
            lowest_version: VERSION,
            highest_version: VERSION,
            wants_map: options.wants_map,
            takes_parts: options.takes_parts,
            response_credit_bytes: window_bytes,
        };
        wire::hello(&mut output, &hello);
        let state = State {
            window_bytes,
            in_flight: options.in_flight,
            takes_parts: options.takes_parts,
            welcome: None,
            ports: Vec::new(),
            draining: false,
            failed: None,
            exchanges: Exchanges::new(),
            reading: 0,
            reading_end: false,
            output,
            output_start: 0,
        };
        Session { decoder: ClientDecoder::new(), state }
    }

    /// What the server said of itself, once it has.
    pub fn welcome(&self) -> Option<&Welcome> {
        self.state.welcome.as_ref()
    }

    /// The port of each shard, once the server has told.
    pub fn ports(&self) -> &[u16] {
        &self.state.ports
    }

    /// Requests whose ids are not free.
    pub fn in_flight(&self) -> usize {
        self.state.exchanges.in_flight()
    }

    /// True if a request may be started.
    pub fn is_ready(&self) -> bool {
        self.state.failed.is_none()
            && self.state.welcome.is_some()
            && !self.state.draining
            && !self.state.exchanges.is_full()
    }

    /// A small number that tells the requests in flight apart: below the most that were ever in flight at once.
    pub fn slot(id: u64) -> usize {
        slot(id)
    }

    /// Bytes that wait to be sent.
    pub fn output(&self) -> &[u8] {
        &self.state.output[self.state.output_start..]
    }

    /// Says that the first `bytes` of [`output`](Self::output) were sent.
    ///
    /// # Panics
    /// If it is more than there is.
    pub fn sent(&mut self, bytes: usize) {
        assert!(bytes <= self.state.output.len() - self.state.output_start, "more was sent than there was");
        self.state.output_start += bytes;
        let State { output, output_start, .. } = &mut self.state;
        if *output_start == output.len() {
            output.clear();
            *output_start = 0;
        } else if *output_start >= SENT_BYTES && *output_start >= output.len() / 2 {
            // One that is never emptied must not grow; what is moved is less than what was sent.
            output.drain(..*output_start);
            *output_start = 0;
        }
    }

    /// Starts a request: writes its head and as much of its payload as one frame and the credit take.
    ///
    /// # Errors
    /// Nothing was written: the request breaks a rule, its payload is over the server's limit, too many are in flight, or
    /// the session is not [ready](Self::is_ready).
    pub fn start(&mut self, request: &Request<'_>) -> Result<Started, Error> {
        let Some(welcome) = self.state.welcome else { return Err(Error::Usage("the handshake is not over")) };
        if self.state.draining {
            return Err(Error::Goaway { status: 503, text: "the worker takes no more requests here".to_owned() });
        }
        if self.state.exchanges.is_full() {
            return Err(Error::Busy);
        }
        let bytes = request.payload.len() as u64;
        if bytes > welcome.payload_bytes {
            return Err(Error::PayloadTooLarge { most_bytes: welcome.payload_bytes });
        }
        let values = request.name.len() + request.content_type.len() + request.trace_parent.len();
        let room = (welcome.frame_bytes as usize).saturating_sub(values);
        let credit = welcome.request_credit_bytes;
        let taken = request.payload.len().min(room).min(usize::try_from(credit).unwrap_or(usize::MAX));
        let whole = taken == request.payload.len();
        let mut head = RequestHead {
            id: 1,
            bytes,
            deadline_ms: request.deadline_ms,
            name: request.name,
            content_type: request.content_type,
            trace_parent: request.trace_parent,
            payload_bytes: taken as u32,
        };
        head.id = self.state.exchanges.insert(Exchange {
            to_send: bytes - taken as u64,
            credit: credit - taken as u64,
            sending_over: whole,
            granted: self.state.window_bytes,
            ..Exchange::default()
        });
        if let Err(error) = wire::request_head(&mut self.state.output, &head) {
            self.state.forget(head.id);
            return Err(Error::Request(error));
        }
        self.state.output.extend_from_slice(&request.payload[..taken]);
        Ok(Started { id: head.id, taken })
    }

    /// Writes more of a request's payload, as far as the credit goes; how much was taken. `payload` starts where the bytes
    /// taken so far ended. Takes nothing once the request is answered or cancelled.
    pub fn push(&mut self, id: u64, payload: &[u8]) -> usize {
        let frame_bytes = self.state.welcome.map_or(0, |welcome| welcome.frame_bytes as usize);
        let Some(exchange) = self.state.exchanges.get_mut(id).filter(|exchange| !exchange.sending_over) else {
            return 0;
        };
        let most = exchange.credit.min(exchange.to_send);
        let taken = payload.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        for part in payload[..taken].chunks(frame_bytes.max(1)) {
            exchange.to_send -= part.len() as u64;
            wire::data_head(&mut self.state.output, id, part.len() as u32, exchange.to_send == 0);
            self.state.output.extend_from_slice(part);
        }
        exchange.credit -= taken as u64;
        exchange.sending_over = exchange.to_send == 0;
        if exchange.sending_over {
            self.state.exchanges.settle(id);
        }
        taken
    }

    /// Bytes of a request's payload that [`push`](Self::push) would take.
    pub fn sendable(&self, id: u64) -> u64 {
        let exchange = self.state.exchanges.get(id).filter(|exchange| !exchange.sending_over);
        exchange.map_or(0, |exchange| exchange.credit.min(exchange.to_send))
    }

    /// From here on this answer is given credit for what [`took`](Self::took) says alone, so that no more of it than the window
    /// waits to be taken.
    pub fn hold(&mut self, id: u64) {
        if let Some(exchange) = self.state.exchanges.get_mut(id) {
            exchange.held = true;
        }
    }

    /// Says that so many bytes of an answer that is [held](Self::hold) were taken; the credit for more is written when it is
    /// worth a frame.
    pub fn took(&mut self, id: u64, bytes: usize) {
        let State { exchanges, output, window_bytes, .. } = &mut self.state;
        if let Some(exchange) = exchanges.get_mut(id) {
            exchange.untaken = exchange.untaken.saturating_sub(bytes as u64);
            replenish(exchanges, output, id, *window_bytes);
        }
    }

    /// Says that nobody waits for an answer. It comes all the same, 499 or a real one, unless it was there already; the rest
    /// of one that was begun may be cut short.
    pub fn cancel(&mut self, id: u64) {
        let Some(exchange) = self.state.exchanges.get_mut(id).filter(|exchange| !exchange.cancelled) else { return };
        exchange.cancelled = true;
        exchange.sending_over = true;
        wire::cancel(&mut self.state.output, id);
        self.state.exchanges.settle(id);
    }

    /// Asks whether the server is there.
    pub fn ping(&mut self, id: u64) {
        wire::ping(&mut self.state.output, id, b"");
    }

    /// Reads the next event of `input`, which starts where the bytes consumed so far ended; how many bytes it consumed.
    ///
    /// # Errors
    /// The server broke the protocol: the connection is of no further use, and every call says the same.
    #[inline]
    pub fn read<'a>(&'a mut self, input: &'a [u8]) -> Result<(usize, Event<'a>), WireError> {
        if let Some(error) = self.state.failed {
            return Err(error);
        }
        let step = match self.decoder.decode(input) {
            Ok(step) => step,
            Err(error) => {
                self.state.failed = Some(error);
                return Err(error);
            }
        };
        match self.state.take(step.item) {
            Ok(event) => Ok((step.consumed, event)),
            Err(error) => {
                self.state.failed = Some(error);
                Err(error)
            }
        }
    }
}

impl State {
    #[inline]
    fn take<'a>(&mut self, item: ClientItem<'a>) -> Result<Event<'a>, WireError> {
        Ok(match item {
            ClientItem::NeedMore => Event::NeedMore,
            ClientItem::Response(head) => {
                let exchange = in_flight(&mut self.exchanges, head.id)?;
                if exchange.answered {
                    return Err(broken("a request is answered twice"));
                }
                if head.in_parts && !self.takes_parts {
                    return Err(broken("an answer comes in parts that were not asked for"));
                }
                if head.in_parts && !exchange.sending_over {
                    return Err(broken("an answer in parts begins before its request is whole"));
                }
                exchange.answered = true;
                exchange.in_parts = head.in_parts;
                exchange.to_receive = if head.in_parts { u64::MAX } else { head.bytes };
                (self.reading, self.reading_end) = (head.id, head.whole());
                let mut end = false;
                if head.payload_bytes == 0 {
                    end = head.whole();
                    close(&mut self.exchanges, &mut self.output, head.id, end);
                    replenish(&mut self.exchanges, &mut self.output, head.id, self.window_bytes);
                } else {
                    announce(exchange, head.payload_bytes, head.whole())?;
                }
                Event::Answer { head, end }
            }
            ClientItem::Payload { bytes, frame_done } => {
                let id = self.reading;
                let exchange = in_flight(&mut self.exchanges, id)?;
                exchange.to_receive -= bytes.len() as u64;
                exchange.granted -= bytes.len() as u64;
                if exchange.held {
                    exchange.untaken += bytes.len() as u64;
                }
                let end = frame_done && self.reading_end;
                if frame_done {
                    close(&mut self.exchanges, &mut self.output, id, end);
                    replenish(&mut self.exchanges, &mut self.output, id, self.window_bytes);
                }
                Event::Payload { id, bytes, end }
            }
            ClientItem::Data { id, payload_bytes, end } => {
                let exchange = in_flight(&mut self.exchanges, id)?;
                if !exchange.answered {
                    return Err(broken("a DATA comes before its RESPONSE"));
                }
                (self.reading, self.reading_end) = (id, end);
                if payload_bytes == 0 {
                    let in_parts = exchange.in_parts;
                    if !in_parts && !exchange.cancelled {
                        return Err(broken("an answer that was not cancelled is cut short"));
                    }
                    close(&mut self.exchanges, &mut self.output, id, true);
                    if in_parts { Event::End { id } } else { Event::CutShort { id } }
                } else {
                    announce(exchange, payload_bytes, end)?;
                    Event::Handled
                }
            }
            ClientItem::Cut { id, status, body } => {
                if !in_flight(&mut self.exchanges, id)?.in_parts {
                    return Err(broken("an answer is cut that does not come in parts"));
                }
                close(&mut self.exchanges, &mut self.output, id, true);
                Event::Cut { id, status, body }
            }
            ClientItem::Credit { id, bytes } => match self.exchanges.get_mut(id) {
                Some(exchange) if !exchange.sending_over => {
                    exchange.credit = exchange.credit.saturating_add(bytes);
                    Event::Credit { id }
                }
                _ => Event::Handled,
            },
            ClientItem::Map(frame) => Event::Map(frame),
            ClientItem::Pong { id, .. } => Event::Pong { id },
            ClientItem::Welcome { welcome, ports } => {
                self.ports.extend(ports);
                self.exchanges.limit(welcome.in_flight.min(self.in_flight));
                self.welcome = Some(welcome);
                Event::Welcome
            }
            ClientItem::Goaway { status, text } => {
                self.draining = true;
                Event::Goaway { status, text }
            }
        })
    }

    fn forget(&mut self, id: u64) {
        if let Some(exchange) = self.exchanges.get_mut(id) {
            exchange.sending_over = true;
            exchange.receiving_over = true;
        }
        self.exchanges.settle(id);
    }
}

fn in_flight(exchanges: &mut Exchanges, id: u64) -> Result<&mut Exchange, WireError> {
    match exchanges.get_mut(id) {
        Some(exchange) if !exchange.receiving_over => Ok(exchange),
        _ => Err(broken("an answer is to a request that is not in flight")),
    }
}

/// Checks what a frame says of the payload in it against what was announced and granted.
fn announce(exchange: &Exchange, payload_bytes: u32, end: bool) -> Result<(), WireError> {
    let payload_bytes = u64::from(payload_bytes);
    if payload_bytes > exchange.granted {
        return Err(broken("an answer is sent beyond its credit"));
    }
    let is_whole = payload_bytes == exchange.to_receive;
    if payload_bytes > exchange.to_receive || (!exchange.in_parts && is_whole != end) {
        return Err(broken("an answer has another size than it announced"));
    }
    Ok(())
}

/// Notes that an answer has ended, if it has; what is left of its request is not sent.
fn close(exchanges: &mut Exchanges, output: &mut Vec<u8>, id: u64, end: bool) {
    let Some(exchange) = exchanges.get_mut(id).filter(|_| end) else { return };
    exchange.receiving_over = true;
    if !exchange.sending_over {
        exchange.sending_over = true;
        wire::cancel(output, id);
    }
    exchanges.settle(id);
}

/// Grants what brings an answer's credit back to the window, once half of it is used, and taken if it is held, and more is to
/// come.
fn replenish(exchanges: &mut Exchanges, output: &mut Vec<u8>, id: u64, window_bytes: u64) {
    let Some(exchange) = exchanges.get_mut(id).filter(|exchange| !exchange.receiving_over) else { return };
    let bytes = window_bytes.saturating_sub(exchange.granted.saturating_add(exchange.untaken));
    if exchange.granted < exchange.to_receive && bytes >= window_bytes - window_bytes / 2 {
        exchange.granted += bytes;
        wire::credit(output, id, bytes);
    }
}

const fn broken(message: &'static str) -> WireError {
    WireError { kind: ErrorKind::ProtocolBroken, message }
}
