//! A client's way to the worker, over either protocol, and what a thread and its connections have to do with each other.
//!
//! Invariant: a job that a [`Connection`] has begun is reported as [`Finished`] exactly once. Sockets are registered
//! edge-triggered, so they are read until they have no more; none of them blocks.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollFlags};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket};
use serde::Deserialize;

use super::clock::Clock;
use super::plan::Protocol;
use super::reach::Routes;
use super::request::{Function, Rendered};
use super::schedule::Choice;
use super::tally::{Broke, Ending, Phases};
use super::{binary, http};

/// The most that is kept of the body of an error, to find its `errorType` in.
const ERROR_BODY_BYTES: usize = 16 << 10;
pub(super) const GONE: EpollFlags = EpollFlags::EPOLLRDHUP.union(EpollFlags::EPOLLHUP).union(EpollFlags::EPOLLERR);
pub(super) const INTEREST: EpollFlags =
    EpollFlags::EPOLLIN.union(EpollFlags::EPOLLOUT).union(EpollFlags::EPOLLRDHUP).union(EpollFlags::EPOLLET);

/// A request that is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) due_ns: u64,
    pub(super) choice: Choice,
    /// False in the warm-up.
    pub(super) counted: bool,
}

/// A job that is over.
#[derive(Debug)]
pub(super) struct Finished {
    /// The place that it had, as in [`Connection::begin`].
    pub(super) place: usize,
    pub(super) job: Job,
    pub(super) ending: Ending,
    pub(super) sent_ns: Option<u64>,
    pub(super) done_ns: u64,
    pub(super) cold: Option<bool>,
    pub(super) phases: Phases,
    /// The shard that ran it, where the worker says.
    pub(super) shard: Option<u16>,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    /// What an answer that is not 2xx says it is, or nothing.
    pub(super) error_type: String,
}

/// A job under way and what is known of its answer.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) place: usize,
    pub(super) job: Job,
    pub(super) sent_ns: Option<u64>,
    pub(super) written: usize,
    pub(super) received: u64,
    pub(super) status: Option<u16>,
    pub(super) cold: Option<bool>,
    pub(super) phases: Phases,
    pub(super) shard: Option<u16>,
    error_body: Vec<u8>,
}

impl Exchange {
    pub(super) fn new(place: usize, job: Job) -> Exchange {
        Exchange {
            place,
            job,
            sent_ns: None,
            written: 0,
            received: 0,
            status: None,
            cold: None,
            phases: Phases::default(),
            shard: None,
            error_body: Vec::new(),
        }
    }

    pub(super) fn body(&mut self, part: &[u8]) {
        if !matches!(self.status, Some(200..=299)) {
            let room = ERROR_BODY_BYTES.saturating_sub(self.error_body.len());
            self.error_body.extend_from_slice(&part[..part.len().min(room)]);
        }
    }

    pub(super) fn finish(self, ending: Ending, done_ns: u64) -> Finished {
        Finished {
            place: self.place,
            job: self.job,
            ending,
            sent_ns: self.sent_ns,
            done_ns,
            cold: self.cold,
            phases: self.phases,
            shard: self.shard,
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
    if body.is_empty() {
        return String::new();
    }
    serde_json::from_slice(body).map(|error: Error| error.error_type).unwrap_or_default()
}

/// What a connection needs of the thread it is on.
pub(super) struct Surroundings<'a> {
    pub(super) epoll: &'a Epoll,
    pub(super) clock: Clock,
    /// For what is received; shared by all connections of the thread, since a decoder keeps what it needs.
    pub(super) buffer: &'a mut [u8],
    pub(super) functions: &'a [Function],
    pub(super) content_type: &'a str,
    /// Most requests in flight on one connection.
    pub(super) pipeline: usize,
    pub(super) routes: &'a mut Routes,
    pub(super) news: &'a mut News,
}

impl<'a> Surroundings<'a> {
    /// The bytes of a request.
    pub(super) fn request(&self, choice: Choice) -> &'a Rendered {
        &self.functions[choice.function].requests[choice.payload]
    }
}

/// What connections have to tell their thread.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) finished: Vec<Finished>,
    /// Lanes with bytes to send, as (client, lane).
    pub(super) unsent: Vec<(usize, usize)>,
    pub(super) opened: u64,
    /// Of those, in the place of one that had ended.
    pub(super) reopened: u64,
}

/// One client's connections: over HTTP one, over the binary protocol a lane for each shard that it needs. `client` is its
/// number on its thread, from which the tokens of its sockets are made.
#[derive(Debug)]
pub(super) enum Connection {
    Http(Box<http::Connection>),
    Binary(binary::Connection),
}

impl Connection {
    pub(super) fn new(protocol: Protocol, client: usize) -> Connection {
        match protocol {
            Protocol::Http => Connection::Http(Box::default()),
            Protocol::Binary => Connection::Binary(binary::Connection::new(client)),
        }
    }

    /// Takes a job for `place`, connecting first where there is no connection. What it has to send may wait for
    /// [`flush`](Self::flush).
    ///
    /// # Errors
    /// This machine refused a socket.
    pub(super) fn begin(
        &mut self,
        client: usize,
        place: usize,
        job: Job,
        around: &mut Surroundings<'_>,
    ) -> io::Result<()> {
        match self {
            Connection::Http(connection) => connection.begin(client, place, job, around),
            Connection::Binary(connection) => connection.begin(place, job, around),
        }
    }

    /// Sends what waits on a lane.
    pub(super) fn flush(&mut self, lane: usize, around: &mut Surroundings<'_>) -> io::Result<()> {
        match self {
            Connection::Http(_) => Ok(()),
            Connection::Binary(connection) => connection.flush(lane, around),
        }
    }

    /// Goes on after an event on a lane.
    pub(super) fn advance(&mut self, lane: usize, flags: EpollFlags, around: &mut Surroundings<'_>) -> io::Result<()> {
        match self {
            Connection::Http(connection) => {
                connection.advance(flags, around);
                Ok(())
            }
            Connection::Binary(connection) => connection.advance(lane, flags, around),
        }
    }

    /// Gives up the jobs that were due before.
    pub(super) fn time_out(&mut self, due_before_ns: u64, around: &mut Surroundings<'_>) {
        match self {
            Connection::Http(connection) => connection.time_out(due_before_ns, around),
            Connection::Binary(connection) => connection.time_out(due_before_ns, around),
        }
    }

    /// Jobs under way that count.
    pub(super) fn counted_jobs(&self) -> usize {
        match self {
            Connection::Http(connection) => connection.counted_jobs(),
            Connection::Binary(connection) => connection.counted_jobs(),
        }
    }
}

pub(super) fn broke(error: &io::Error) -> Broke {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => Broke::Closed,
        _ => Broke::Io,
    }
}

/// A socket that is connecting, or the other side's refusal.
pub(super) fn connecting(address: SocketAddr) -> io::Result<Result<TcpStream, Errno>> {
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
