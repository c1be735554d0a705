//! One keep-alive connection that never blocks: a request is written whole as far as the socket takes it, the answer is
//! decoded as it comes. One request at a time.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;

use nix::sys::epoll::{EpollEvent, EpollFlags};
use vilya_protocol::http::Limits;
use vilya_protocol::http::response::{Decoder, Head, Item};

use super::connection::{Exchange, GONE, INTEREST, Job, Surroundings, broke, connecting};
use super::tally::{Broke, Ending};
use crate::invoke::phases;

/// Answers may be as large as a function makes them; none is kept.
const LIMITS: Limits = Limits { body_bytes: u64::MAX, ..Limits::DEFAULT };

#[derive(Debug)]
struct Open {
    stream: TcpStream,
    decoder: Decoder,
    connected: bool,
    /// The answer under way lets the connection be used again.
    keep_alive: bool,
}

/// A place for a connection: open or not, with a job or not.
#[derive(Debug, Default)]
pub(super) struct Connection {
    open: Option<Open>,
    exchange: Option<Exchange>,
    used_before: bool,
}

/// What reading brought.
enum Reading {
    Pending,
    Ended(Ending),
    /// The other side ended a connection that had nothing to do.
    Lost,
}

impl Connection {
    /// The jobs under way that count: one or none.
    pub(super) fn counted_jobs(&self) -> usize {
        self.exchange.iter().filter(|exchange| exchange.job.counted).count()
    }

    /// As [`super::connection::Connection::begin`].
    pub(super) fn begin(
        &mut self,
        client: usize,
        place: usize,
        job: Job,
        around: &mut Surroundings<'_>,
    ) -> io::Result<()> {
        self.exchange = Some(Exchange::new(place, job));
        if self.open.is_none() {
            around.news.opened += 1;
            around.news.reopened += u64::from(self.used_before);
            match connecting(around.routes.address(0))? {
                Ok(stream) => {
                    let token = around.routes.token(client, 0);
                    around.epoll.add(&stream, EpollEvent::new(INTEREST, token))?;
                    let decoder = Decoder::new(LIMITS);
                    self.open = Some(Open { stream, decoder, connected: false, keep_alive: false });
                    self.used_before = true;
                }
                Err(_) => self.end(Ending::Broke(Broke::Connect), around),
            }
            return Ok(());
        }
        if self.write(around).is_err() {
            // What the other side said before it went may still be there to read.
            self.advance(GONE, around);
        }
        Ok(())
    }

    /// Goes on after an event.
    pub(super) fn advance(&mut self, flags: EpollFlags, around: &mut Surroundings<'_>) {
        let Some(open) = self.open.as_mut() else { return };
        if !open.connected {
            if !flags.intersects(EpollFlags::EPOLLOUT | GONE) {
                return;
            }
            if flags.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP) {
                return self.end(Ending::Broke(Broke::Connect), around);
            }
            open.connected = true;
        }
        let mut gone = flags.intersects(GONE);
        if self.exchange.is_some() {
            gone |= self.write(around).is_err();
        }
        match self.read(gone, around.buffer) {
            Reading::Pending if gone => self.end(Ending::Broke(Broke::Closed), around),
            Reading::Pending => {}
            Reading::Ended(ending) => self.end_keeping(ending, gone, around),
            Reading::Lost => self.open = None,
        }
    }

    /// Gives the job up if it was due before.
    pub(super) fn time_out(&mut self, due_before_ns: u64, around: &mut Surroundings<'_>) {
        if self.exchange.as_ref().is_some_and(|exchange| exchange.job.due_ns <= due_before_ns) {
            self.end(Ending::Broke(Broke::Timeout), around);
        }
    }

    /// Writes what is left of the request, as far as the socket takes it.
    fn write(&mut self, around: &Surroundings<'_>) -> io::Result<()> {
        let (Some(open), Some(exchange)) = (self.open.as_mut(), self.exchange.as_mut()) else { return Ok(()) };
        let request = around.request(exchange.job.choice).bytes.as_slice();
        if exchange.sent_ns.is_none() {
            exchange.sent_ns = Some(around.clock.now_ns());
        }
        while exchange.written < request.len() {
            match open.stream.write(&request[exchange.written..]) {
                Ok(bytes) => exchange.written += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read(&mut self, to_the_end: bool, buffer: &mut [u8]) -> Reading {
        let Some(open) = self.open.as_mut() else { return Reading::Lost };
        loop {
            let bytes = match open.stream.read(buffer) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Reading::Pending,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if self.exchange.is_some() => return Reading::Ended(Ending::Broke(broke(&error))),
                Err(_) => return Reading::Lost,
            };
            // Bytes without a request, and an end without one, leave nothing to keep.
            let Some(exchange) = self.exchange.as_mut() else { return Reading::Lost };
            if bytes == 0 {
                return Reading::Ended(match (open.decoder.finish(), exchange.status) {
                    (Ok(()), Some(status)) => {
                        open.keep_alive = false;
                        Ending::Answered(status)
                    }
                    _ => Ending::Broke(Broke::Closed),
                });
            }
            exchange.received += bytes as u64;
            if let Some(ending) = decode(open, exchange, &buffer[..bytes]) {
                return Reading::Ended(ending);
            }
            if bytes < buffer.len() && !to_the_end {
                return Reading::Pending;
            }
        }
    }

    /// Ends the job; the connection stays if both sides can go on with it.
    fn end_keeping(&mut self, ending: Ending, gone: bool, around: &mut Surroundings<'_>) {
        let Some(exchange) = self.exchange.take() else { return };
        let whole = exchange.written == around.request(exchange.job.choice).bytes.len();
        let keep_alive = self.open.as_ref().is_some_and(|open| open.keep_alive);
        if gone || !whole || !keep_alive || matches!(ending, Ending::Broke(_)) {
            self.open = None;
        }
        around.news.finished.push(exchange.finish(ending, around.clock.now_ns()));
    }

    /// Ends the job and the connection.
    fn end(&mut self, ending: Ending, around: &mut Surroundings<'_>) {
        self.open = None;
        let Some(exchange) = self.exchange.take() else { return };
        around.news.finished.push(exchange.finish(ending, around.clock.now_ns()));
    }
}

/// Decodes `input`; how the exchange ended, if it did.
fn decode(open: &mut Open, exchange: &mut Exchange, mut input: &[u8]) -> Option<Ending> {
    loop {
        let Ok(step) = open.decoder.decode(input) else { return Some(Ending::Broke(Broke::Malformed)) };
        input = &input[step.consumed..];
        match step.item {
            Item::Interim(_) => {}
            Item::Head(head) => {
                open.keep_alive = head.keep_alive();
                take_head(exchange, &head);
            }
            Item::Body(part) => exchange.body(part),
            Item::NeedMore => return None,
            // More than was asked for: whose it is cannot be told.
            Item::End if !input.is_empty() => return Some(Ending::Broke(Broke::Malformed)),
            Item::End => return exchange.status.map(Ending::Answered),
        }
    }
}

fn take_head(exchange: &mut Exchange, head: &Head<'_>) {
    exchange.status = Some(head.status());
    exchange.cold = match head.header("x-vilya-start") {
        Some(b"cold") => Some(true),
        Some(b"warm") => Some(false),
        _ => None,
    };
    let text = |name| head.header(name).and_then(|value| std::str::from_utf8(value).ok());
    exchange.shard = text("x-vilya-shard").and_then(|shard| shard.parse().ok());
    for (phase, duration_ms) in text("server-timing").into_iter().flat_map(phases) {
        // A float-to-integer `as` saturates, and what is no number is zero.
        let us = Some((duration_ms * 1e3).round() as u64);
        match phase {
            "queue" => exchange.phases.queue_us = us,
            "start" => exchange.phases.start_us = us,
            "run" => exchange.phases.run_us = us,
            _ => {}
        }
    }
}
