//! One invocation at a time, each sent to a shard that owns its function.
//!
//! Invariant: connections to shards are opened when they are first needed, at the ports that the server told. A shard that
//! cannot be reached, or whose connection is lost, costs a hop: any shard takes any request.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::{Answer, Connection, Error, FunctionMap, Options, Parts, Request};

/// A connection is looked at again after so long before it is used: it may have ended, or the map have changed.
const LOOK: Duration = Duration::from_millis(100);

/// A client of one worker. Not shared: each thread has its own.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    builder: Builder,
    /// The connection that has the map, and by which everything else can be reached.
    common: Line,
    /// By shard; the common connection's shard has none of its own.
    direct: Vec<Direct>,
    turn: usize,
}

#[derive(Debug)]
struct Line {
    connection: Connection,
    looked_at: Instant,
}

#[derive(Debug)]
enum Direct {
    Absent,
    Open(Box<Line>),
    /// Its port does not answer.
    Unreachable,
}

/// How a [`Client`] is to be.
#[derive(Clone, Copy, Debug)]
pub struct Builder {
    options: Options,
    direct: bool,
    deadline: Duration,
}

impl Builder {
    /// What each connection allows and how long it waits. Whether the map is wanted follows from [`direct`](Self::direct).
    pub fn options(mut self, options: Options) -> Builder {
        self.options = options;
        self
    }

    /// Bytes of an answer that may be under way before they are taken.
    pub fn window(mut self, bytes: u64) -> Builder {
        self.options.window_bytes = bytes;
        self
    }

    /// Whether requests go straight to the shard that owns the function; else all go over one connection. On unless it is
    /// turned off.
    pub fn direct(mut self, direct: bool) -> Builder {
        self.direct = direct;
        self
    }

    /// When the server is to give a request up, unless it says otherwise itself; zero: never.
    pub fn deadline(mut self, deadline: Duration) -> Builder {
        self.deadline = deadline;
        self
    }

    /// How long to wait for a connection, and for an answer.
    pub fn timeouts(mut self, connect: Duration, answer: Duration) -> Builder {
        self.options.connect_timeout = connect;
        self.options.timeout = answer;
        self
    }

    /// Connects to the worker's common address.
    ///
    /// # Errors
    /// As [`Connection::connect`]; of several addresses, the last one's.
    pub fn connect(self, address: impl ToSocketAddrs) -> Result<Client, Error> {
        let builder = Builder { options: Options { wants_map: self.direct, ..self.options }, ..self };
        let mut outcome = Error::Usage("the address is of no host");
        for address in address.to_socket_addrs()? {
            match Connection::connect(address, &builder.options) {
                Ok(connection) => {
                    let direct = connection.ports().iter().map(|_| Direct::Absent).collect();
                    return Ok(Client { address, builder, common: Line::new(connection), direct, turn: 0 });
                }
                Err(error) => outcome = error,
            }
        }
        Err(outcome)
    }
}

impl Line {
    fn new(connection: Connection) -> Line {
        Line { connection, looked_at: Instant::now() }
    }

    /// True if the connection can be used, as far as can be told without sending.
    fn is_usable(&mut self, now: Instant) -> bool {
        if now.duration_since(self.looked_at) >= LOOK {
            self.looked_at = now;
            if self.connection.settle().is_err() {
                return false;
            }
        }
        self.connection.is_ready()
    }
}

impl Client {
    /// What a client is unless it is told otherwise: [`Options::DEFAULT`], direct connections, no deadline.
    pub fn builder() -> Builder {
        Builder { options: Options::DEFAULT, direct: true, deadline: Duration::ZERO }
    }

    /// A client as [`builder`](Self::builder) has it.
    ///
    /// # Errors
    /// As [`Connection::connect`].
    pub fn connect(address: impl ToSocketAddrs) -> Result<Client, Error> {
        Client::builder().connect(address)
    }

    /// Runs `name` with this payload. A function that raised is an answer, not an error.
    ///
    /// # Errors
    /// There was no answer. The request may have run, except where the error says that nothing was sent.
    pub fn invoke(&mut self, name: &str, payload: &[u8]) -> Result<Answer, Error> {
        let mut answer = Answer::default();
        self.invoke_with(&Request::new(name, payload), &mut answer)?;
        Ok(answer)
    }

    /// As [`invoke`](Self::invoke), with everything that a request can say, into buffers that are used again. The client's
    /// deadline stands in for a `deadline_ms` of 0.
    ///
    /// # Errors
    /// As [`invoke`](Self::invoke).
    pub fn invoke_with(&mut self, request: &Request<'_>, answer: &mut Answer) -> Result<(), Error> {
        let request = self.with_deadline(request);
        self.connection_for(request.name)?.exchange(&request, answer)
    }

    /// As [`invoke_with`](Self::invoke_with), with the answer as it comes: of a function that answers in parts each when it is
    /// there, of any size.
    ///
    /// # Errors
    /// The answer did not begin.
    pub fn invoke_for_parts(&mut self, request: &Request<'_>) -> Result<Parts<'_>, Error> {
        let request = self.with_deadline(request);
        self.connection_for(request.name)?.parts(&request)
    }

    fn with_deadline<'a>(&self, request: &Request<'a>) -> Request<'a> {
        match request.deadline_ms {
            0 => {
                let deadline_ms = u32::try_from(self.builder.deadline.as_millis()).unwrap_or(u32::MAX);
                Request { deadline_ms, ..*request }
            }
            _ => *request,
        }
    }

    /// The connection to a shard that owns the function, or the common one.
    fn connection_for(&mut self, name: &str) -> Result<&mut Connection, Error> {
        let now = Instant::now();
        if !self.common.is_usable(now) {
            self.common = Line::new(Connection::connect(self.address, &self.builder.options)?);
            // Another worker may have come to the same address.
            self.direct.clear();
            self.direct.resize_with(self.common.connection.ports().len(), || Direct::Absent);
        }
        let direct = self.owner(name).filter(|shard| self.reach(*shard, now));
        let line = match direct.map(|shard| &mut self.direct[usize::from(shard)]) {
            Some(Direct::Open(line)) => line,
            _ => &mut self.common,
        };
        Ok(&mut line.connection)
    }

    /// The map as far as it was read; empty without direct connections.
    pub fn map(&self) -> &FunctionMap {
        self.common.connection.map()
    }

    /// The shard to ask, if it is not the one of the common connection.
    fn owner(&mut self, name: &str) -> Option<u16> {
        if !self.builder.direct {
            return None;
        }
        let connection = &self.common.connection;
        let shard = connection.map().shard(name, self.turn, connection.ports().len() as u16);
        self.turn = self.turn.wrapping_add(1);
        (shard != connection.welcome().shard).then_some(shard)
    }

    /// Makes sure of a connection to the shard; false if it has none and gets none.
    fn reach(&mut self, shard: u16, now: Instant) -> bool {
        let port = self.common.connection.ports().get(usize::from(shard)).copied();
        let (Some(port @ 1..), Some(place)) = (port, self.direct.get_mut(usize::from(shard))) else { return false };
        let usable = match place {
            Direct::Open(line) => line.is_usable(now),
            Direct::Absent => false,
            Direct::Unreachable => return false,
        };
        if !usable {
            let options = Options { wants_map: false, ..self.builder.options };
            *place = match Connection::connect(SocketAddr::new(self.address.ip(), port), &options) {
                Ok(connection) => Direct::Open(Box::new(Line::new(connection))),
                Err(_) => Direct::Unreachable,
            };
        }
        matches!(place, Direct::Open(_))
    }
}
