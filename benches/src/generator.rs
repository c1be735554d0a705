//! A closed loop over many connections from one thread: each has one request in flight.
//!
//! Invariant: every protocol is driven by this same loop of one `epoll_wait` for many answers, one `read` and one `write`
//! an answer, so that a ratio of two throughputs is of two servers. Requests are small: one that the socket's buffer does
//! not take whole is an error.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::exchange::Exchange;
use crate::sample::Samples;

/// A server that says nothing for so long is dead.
const PATIENCE_MS: u16 = 30_000;

/// Connections that are kept over all rounds.
pub struct Generator {
    epoll: Epoll,
    connections: Vec<Connection>,
    events: Vec<EpollEvent>,
}

struct Connection {
    stream: TcpStream,
    answer: Box<[u8]>,
    filled: usize,
    sent: Instant,
}

/// What a window of time saw.
pub struct Load {
    /// Answers a second.
    pub per_second: f64,
    /// How long each answer took.
    pub latency: Samples,
    /// Answers.
    pub answers: u64,
}

impl Generator {
    /// Connects so often; answers may have up to 4 KiB.
    ///
    /// # Errors
    /// Nobody listens there, or not so often.
    pub fn connect(address: SocketAddr, count: usize) -> io::Result<Generator> {
        Generator::over((0..count).map(|_| TcpStream::connect(address)).collect::<io::Result<_>>()?)
    }

    /// Drives connections that are open and have nothing in flight.
    ///
    /// # Errors
    /// The machine has no descriptors left.
    pub fn over(streams: Vec<TcpStream>) -> io::Result<Generator> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let count = streams.len();
        let mut connections = Vec::with_capacity(count);
        for (index, stream) in streams.into_iter().enumerate() {
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
            connections.push(Connection {
                stream,
                answer: vec![0; 4096].into_boxed_slice(),
                filled: 0,
                sent: Instant::now(),
            });
        }
        Ok(Generator { epoll, connections, events: vec![EpollEvent::empty(); count.max(1)] })
    }

    /// Keeps one request in flight on each connection for so long, then waits for the last answers.
    ///
    /// # Errors
    /// A connection's, an answer that was not expected, or a server that says nothing more.
    pub fn run(&mut self, exchange: &Exchange, window: Duration) -> io::Result<Load> {
        let started = Instant::now();
        let until = started + window;
        let mut load = Load { per_second: 0.0, latency: Samples::default(), answers: 0 };
        for connection in &mut self.connections {
            connection.send(exchange, started)?;
        }
        let mut open = self.connections.len();
        let mut now = started;
        while open > 0 {
            let ready = match self.epoll.wait(&mut self.events, EpollTimeout::from(PATIENCE_MS)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(ready) => ready,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            // One look at the clock for all that arrived together.
            now = Instant::now();
            for event in &self.events[..ready] {
                let connection = &mut self.connections[event.data() as usize];
                if !connection.receive(exchange)? {
                    continue;
                }
                load.answers += 1;
                load.latency.push((now - connection.sent).as_nanos() as u64);
                if now < until {
                    connection.send(exchange, now)?;
                } else {
                    open -= 1;
                }
            }
        }
        load.per_second = load.answers as f64 / (now - started).as_secs_f64();
        Ok(load)
    }
}

impl Connection {
    fn send(&mut self, exchange: &Exchange, now: Instant) -> io::Result<()> {
        self.sent = now;
        self.filled = 0;
        let sent = self.stream.write(&exchange.request)?;
        if sent < exchange.request.len() {
            return Err(io::Error::other("the request did not fit into the socket's buffer"));
        }
        Ok(())
    }

    /// Whether the answer is whole now.
    fn receive(&mut self, exchange: &Exchange) -> io::Result<bool> {
        let read = self.stream.read(&mut self.answer[self.filled..])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.filled += read;
        exchange.is_whole(&self.answer[..self.filled])
    }
}
