//! One keep-alive connection that never blocks: a request is written whole as far as the socket takes it, the answer is
//! decoded as it comes. One request at a time.
//!
//! Invariant: a [`Connection`] has a job from [`Connection::begin`] until it reports how the job ended, and reports that
//! exactly once. It is registered edge-triggered, so it reads until the socket has no more.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket};
use serde::Deserialize;
use vilya_protocol::http::Limits;
use vilya_protocol::http::response::{Decoder, Head, Item};

use super::clock::Clock;
use super::tally::{Broke, Ending, Phases};
use crate::invoke::phases;

/// The most that is kept of the body of an error, to find its `errorType` in.
const ERROR_BODY_BYTES: usize = 16 << 10;
/// Answers may be as large as a function makes them; none is kept.
const LIMITS: Limits = Limits { body_bytes: u64::MAX, ..Limits::DEFAULT };
const GONE: EpollFlags = EpollFlags::EPOLLRDHUP.union(EpollFlags::EPOLLHUP).union(EpollFlags::EPOLLERR);

/// A request that is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) due_ns: u64,
    pub(super) function: usize,
    /// False in the warm-up.
    pub(super) counted: bool,
}

/// A job that is over.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) job: Job,
    pub(super) ending: Ending,
    pub(super) sent_ns: Option<u64>,
    pub(super) done_ns: u64,
    pub(super) cold: Option<bool>,
    pub(super) phases: Phases,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    /// What an answer that is not 2xx says it is, or nothing.
    pub(super) error_type: String,
}

/// What a connection needs of the thread it is on.
pub(super) struct Surroundings<'a> {
    pub(super) address: SocketAddr,
    pub(super) epoll: &'a Epoll,
    pub(super) clock: Clock,
    /// For what is received; shared by all connections of the thread, since a decoder keeps what it needs.
    pub(super) buffer: &'a mut [u8],
    /// The bytes of the request to each function.
    pub(super) request: &'a dyn Fn(usize) -> &'a [u8],
}

/// The job under way and what is known of its answer.
#[derive(Debug)]
struct Exchange {
    job: Job,
    sent_ns: Option<u64>,
    written: usize,
    received: u64,
    status: Option<u16>,
    keep_alive: bool,
    cold: Option<bool>,
    phases: Phases,
    error_body: Vec<u8>,
}

impl Exchange {
    fn new(job: Job) -> Exchange {
        Exchange {
            job,
            sent_ns: None,
            written: 0,
            received: 0,
            status: None,
            keep_alive: false,
            cold: None,
            phases: Phases::default(),
            error_body: Vec::new(),
        }
    }

    fn head(&mut self, head: &Head<'_>) {
        self.status = Some(head.status());
        self.keep_alive = head.keep_alive();
        self.cold = match head.header("x-vilya-start") {
            Some(b"cold") => Some(true),
            Some(b"warm") => Some(false),
            _ => None,
        };
        let timing = head.header("server-timing").and_then(|value| std::str::from_utf8(value).ok());
        for (phase, duration_ms) in timing.into_iter().flat_map(phases) {
            // A float-to-integer `as` saturates, and what is no number is zero.
            let us = Some((duration_ms * 1e3).round() as u64);
            match phase {
                "queue" => self.phases.queue_us = us,
                "start" => self.phases.start_us = us,
                "run" => self.phases.run_us = us,
                _ => {}
            }
        }
    }

    fn body(&mut self, part: &[u8]) {
        if !matches!(self.status, Some(200..=299)) {
            let room = ERROR_BODY_BYTES.saturating_sub(self.error_body.len());
            self.error_body.extend_from_slice(&part[..part.len().min(room)]);
        }
    }

    fn finish(self, ending: Ending, done_ns: u64) -> Finished {
        Finished {
            job: self.job,
            ending,
            sent_ns: self.sent_ns,
            done_ns,
            cold: self.cold,
            phases: self.phases,
            bytes_in: self.received,
            bytes_out: self.written as u64,
            error_type: error_type(&self.error_body),
        }
    }
}

fn error_type(body: &[u8]) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Error {
        error_type: String,
    }
    serde_json::from_slice(body).map(|error: Error| error.error_type).unwrap_or_default()
}

#[derive(Debug)]
struct Open {
    stream: TcpStream,
    decoder: Decoder,
    connected: bool,
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
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// When the job under way was due.
    pub(super) fn busy_since_ns(&self) -> Option<u64> {
        self.exchange.as_ref().map(|exchange| exchange.job.due_ns)
    }

    /// True if the job under way is one that counts.
    pub(super) fn has_counted_job(&self) -> bool {
        self.exchange.as_ref().is_some_and(|exchange| exchange.job.counted)
    }

    /// True if there was a connection in this place before.
    pub(super) fn used_before(&self) -> bool {
        self.used_before
    }

    /// Takes a job. Connects first where there is no connection; `token` names it in epoll's events.
    ///
    /// # Errors
    /// This machine refused a socket.
    pub(super) fn begin(
        &mut self,
        job: Job,
        token: u64,
        around: &mut Surroundings<'_>,
    ) -> io::Result<Option<Finished>> {
        self.exchange = Some(Exchange::new(job));
        if self.open.is_none() {
            return Ok(match connecting(around.address)? {
                Ok(stream) => {
                    let interest =
                        EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
                    around.epoll.add(&stream, EpollEvent::new(interest, token))?;
                    self.open = Some(Open { stream, decoder: Decoder::new(LIMITS), connected: false });
                    self.used_before = true;
                    None
                }
                Err(_) => self.end(Ending::Broke(Broke::Connect), around.clock),
            });
        }
        let refused = self.write(around).is_err();
        // What the other side said before it went may still be there to read.
        if refused { Ok(self.advance(GONE, around)) } else { Ok(None) }
    }

    /// Goes on after an event.
    pub(super) fn advance(&mut self, flags: EpollFlags, around: &mut Surroundings<'_>) -> Option<Finished> {
        let open = self.open.as_mut()?;
        if !open.connected {
            if !flags.intersects(EpollFlags::EPOLLOUT | GONE) {
                return None;
            }
            if flags.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP) {
                return self.end(Ending::Broke(Broke::Connect), around.clock);
            }
            open.connected = true;
        }
        let mut gone = flags.intersects(GONE);
        if self.exchange.is_some() {
            gone |= self.write(around).is_err();
        }
        match self.read(gone, around.buffer) {
            Reading::Pending if gone => self.end(Ending::Broke(Broke::Closed), around.clock),
            Reading::Pending => None,
            Reading::Ended(ending) => self.end_keeping(ending, gone, around),
            Reading::Lost => {
                self.open = None;
                None
            }
        }
    }

    /// Gives the job up.
    pub(super) fn time_out(&mut self, clock: Clock) -> Option<Finished> {
        self.end(Ending::Broke(Broke::Timeout), clock)
    }

    /// Writes what is left of the request, as far as the socket takes it.
    fn write(&mut self, around: &Surroundings<'_>) -> io::Result<()> {
        let (Some(open), Some(exchange)) = (self.open.as_mut(), self.exchange.as_mut()) else { return Ok(()) };
        let request = (around.request)(exchange.job.function);
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
                        exchange.keep_alive = false;
                        Ending::Answered(status)
                    }
                    _ => Ending::Broke(Broke::Closed),
                });
            }
            exchange.received += bytes as u64;
            if let Some(ending) = decode(&mut open.decoder, exchange, &buffer[..bytes]) {
                return Reading::Ended(ending);
            }
            if bytes < buffer.len() && !to_the_end {
                return Reading::Pending;
            }
        }
    }

    /// Ends the job; the connection stays if both sides can go on with it.
    fn end_keeping(&mut self, ending: Ending, gone: bool, around: &Surroundings<'_>) -> Option<Finished> {
        let exchange = self.exchange.take()?;
        let whole = exchange.written == (around.request)(exchange.job.function).len();
        if gone || !whole || !exchange.keep_alive || matches!(ending, Ending::Broke(_)) {
            self.open = None;
        }
        Some(exchange.finish(ending, around.clock.now_ns()))
    }

    /// Ends the job and the connection.
    fn end(&mut self, ending: Ending, clock: Clock) -> Option<Finished> {
        self.open = None;
        Some(self.exchange.take()?.finish(ending, clock.now_ns()))
    }
}

/// Decodes `input`; how the exchange ended, if it did.
fn decode(decoder: &mut Decoder, exchange: &mut Exchange, mut input: &[u8]) -> Option<Ending> {
    loop {
        let Ok(step) = decoder.decode(input) else { return Some(Ending::Broke(Broke::Malformed)) };
        input = &input[step.consumed..];
        match step.item {
            Item::Interim(_) => {}
            Item::Head(head) => exchange.head(&head),
            Item::Body(part) => exchange.body(part),
            Item::NeedMore => return None,
            // More than was asked for: whose it is cannot be told.
            Item::End if !input.is_empty() => return Some(Ending::Broke(Broke::Malformed)),
            Item::End => return exchange.status.map(Ending::Answered),
        }
    }
}

fn broke(error: &io::Error) -> Broke {
    match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => Broke::Closed,
        _ => Broke::Io,
    }
}

/// A socket that is connecting, or the other side's refusal.
fn connecting(address: SocketAddr) -> io::Result<Result<TcpStream, Errno>> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let descriptor = socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)?;
    let outcome = connect(descriptor.as_raw_fd(), &SockaddrStorage::from(address));
    let stream = TcpStream::from(descriptor);
    stream.set_nodelay(true)?;
    Ok(match outcome {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(stream),
        Err(error) => Err(error),
    })
}
