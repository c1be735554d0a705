//! One connection with many requests on it at once.
//!
//! Invariant: writing never waits without reading in between, so that two sides that both have much to send cannot stand
//! still. An answer that nobody waits for any more is read and dropped.
//!
//! Does not know: other connections, or whether the shard at the other end owns the function.

mod parts;
mod pending;

use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use vilya_protocol::wire::Welcome;

use crate::{Answer, Error, Event, FunctionMap, Options, Request, Session};
pub use parts::Parts;
use parts::Untaken;
use pending::{Done, Pending};

const INPUT_BYTES: usize = 64 * 1024;
/// While so much waits to be sent, payloads add nothing to it.
const OUTPUT_BYTES: usize = 1024 * 1024;
/// How long a write, or a read, waits before the other is looked after, and the time.
const WRITE_SLICE: Duration = Duration::from_millis(10);
const READ_SLICE: Duration = Duration::from_millis(50);

/// One pipelined connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    session: Session,
    options: Options,
    input: Vec<u8>,
    /// By the slots of their requests.
    pending: Vec<Pending>,
    /// Requests whose payload was not taken whole yet.
    unsent: Vec<u64>,
    /// Answers that are over and not received yet: their slots may be others' already.
    done: VecDeque<Done>,
    /// Buffers of answers that were received.
    spare: Vec<Answer>,
    /// Requests whose answer somebody will receive, and not yet in `done`.
    awaited: usize,
    /// Answers that are taken in parts, until their end was taken.
    untaken: HashMap<u64, Untaken>,
    map: FunctionMap,
    goaway: Option<(u16, String)>,
    broken: bool,
}

impl Connection {
    /// Connects, and waits for the server's WELCOME; with [`Options::wants_map`] for the map as well.
    ///
    /// # Errors
    /// Nobody answers there, in time, or speaks the protocol.
    pub fn connect(address: SocketAddr, options: &Options) -> Result<Connection, Error> {
        let deadline = after(options.connect_timeout);
        let stream = TcpStream::connect_timeout(&address, options.connect_timeout.max(Duration::from_millis(1)))?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WRITE_SLICE))?;
        stream.set_read_timeout(Some(options.timeout.clamp(Duration::from_millis(1), READ_SLICE)))?;
        let mut connection = Connection {
            stream,
            session: Session::new(options),
            options: *options,
            input: vec![0; INPUT_BYTES],
            pending: Vec::new(),
            unsent: Vec::new(),
            done: VecDeque::new(),
            spare: Vec::new(),
            awaited: 0,
            untaken: HashMap::new(),
            map: FunctionMap::default(),
            goaway: None,
            broken: false,
        };
        while connection.session.welcome().is_none() || (options.wants_map && !connection.map.is_whole()) {
            connection.advance(deadline)?;
            connection.still_open()?;
        }
        Ok(connection)
    }

    /// What the server said of itself.
    pub fn welcome(&self) -> &Welcome {
        self.session.welcome().expect("a connection is made with its WELCOME")
    }

    /// The port of each shard.
    pub fn ports(&self) -> &[u16] {
        self.session.ports()
    }

    /// The map as far as it was read; empty unless it was wanted.
    pub fn map(&self) -> &FunctionMap {
        &self.map
    }

    /// Requests whose answers were not received yet.
    pub fn in_flight(&self) -> usize {
        self.awaited + self.done.len() + self.untaken.len()
    }

    /// True if a request can be sent: the connection is whole, the server takes more on it.
    pub fn is_ready(&self) -> bool {
        !self.broken && self.session.is_ready()
    }

    /// Puts a request into the buffer of what is to be sent; the number that its answer will carry. What the credit does not
    /// allow yet of its payload is copied.
    ///
    /// # Errors
    /// As [`Session::start`]; the request is not sent then.
    pub fn send(&mut self, request: &Request<'_>) -> Result<u64, Error> {
        let (id, taken) = self.begin(request)?;
        if taken < request.payload.len() {
            self.pending[Session::slot(id)].rest.extend_from_slice(&request.payload[taken..]);
            self.unsent.push(id);
        }
        Ok(id)
    }

    /// Sends what is in the buffer, as far as the server's credit allows.
    ///
    /// # Errors
    /// The connection failed, or the server did not take it all within [`Options::timeout`].
    pub fn flush(&mut self) -> Result<(), Error> {
        self.flush_until(after(self.options.timeout))
    }

    /// Waits for an answer, whichever comes first, and puts it into `answer`, whose buffers are used again. Sends what is in
    /// the buffer before.
    ///
    /// # Errors
    /// The connection failed, no answer came for [`Options::timeout`], or no request is in flight. One that was over
    /// [`Options::answer_bytes`] is an error once, and the connection goes on.
    pub fn receive(&mut self, answer: &mut Answer) -> Result<(), Error> {
        let mut deadline = None;
        loop {
            if let Some(done) = self.done.pop_front() {
                return self.take(done, answer);
            }
            if self.awaited == 0 {
                self.still_open()?;
                return Err(Error::Usage("no request is in flight"));
            }
            let deadline = *deadline.get_or_insert_with(|| after(self.options.timeout));
            self.advance(deadline)?;
        }
    }

    /// Sends one request and waits for its answer. Others may be in flight. Its payload is not copied whole, whatever the
    /// credit.
    ///
    /// # Errors
    /// As [`send`](Self::send) and [`receive`](Self::receive). A request without an answer in time is cancelled.
    pub fn exchange(&mut self, request: &Request<'_>, answer: &mut Answer) -> Result<(), Error> {
        let deadline = after(self.options.timeout);
        let (id, mut taken) = self.begin(request)?;
        loop {
            if let Some(done) = self.done_of(id) {
                return self.take(done, answer);
            }
            if self.session.output().len() < OUTPUT_BYTES {
                let most = request.payload.len().min(taken + OUTPUT_BYTES);
                taken += self.session.push(id, &request.payload[taken..most]);
            }
            if let Err(error) = self.advance_with(deadline, self.session.sendable(id) == 0) {
                if matches!(error, Error::TimedOut) {
                    self.cancel(id);
                }
                return Err(error);
            }
        }
    }

    /// Says that nobody waits for this answer; it will not be received. The server is told with what is sent next.
    pub fn cancel(&mut self, id: u64) {
        if let Some(done) = self.done_of(id) {
            self.spare.push(done.answer);
            return;
        }
        self.session.cancel(id);
        let is_taken_in_parts = self.untaken.remove(&id).is_some();
        if let Some(pending) = self.pending.get_mut(Session::slot(id)).filter(|pending| pending.answer.id == id)
            && !std::mem::replace(&mut pending.abandoned, true)
            && !is_taken_in_parts
        {
            self.awaited -= 1;
        }
    }

    /// Takes in what the server has sent, without waiting: changes of the map, and that it has gone.
    ///
    /// # Errors
    /// The connection failed or ended.
    pub fn settle(&mut self) -> Result<(), Error> {
        self.guarded(Connection::read_what_is_there)?;
        self.still_open()
    }

    fn begin(&mut self, request: &Request<'_>) -> Result<(u64, usize), Error> {
        self.still_open()?;
        let started = self.session.start(request)?;
        let slot = Session::slot(started.id);
        if slot >= self.pending.len() {
            self.pending.resize_with(slot + 1, Pending::default);
        }
        self.pending[slot].start(started.id);
        self.awaited += 1;
        Ok((started.id, started.taken))
    }

    fn done_of(&mut self, id: u64) -> Option<Done> {
        let at = self.done.iter().position(|done| done.answer.id == id)?;
        self.done.remove(at)
    }

    fn take(&mut self, mut done: Done, answer: &mut Answer) -> Result<(), Error> {
        if done.too_large_bytes.is_none() {
            std::mem::swap(&mut done.answer, answer);
        }
        self.spare.push(done.answer);
        done.too_large_bytes.map_or(Ok(()), |bytes| Err(Error::AnswerTooLarge { bytes }))
    }

    /// An error if the connection is of no further use.
    fn still_open(&self) -> Result<(), Error> {
        match &self.goaway {
            Some((status, text)) if *status != 503 || self.broken => {
                Err(Error::Goaway { status: *status, text: text.clone() })
            }
            _ if self.broken => Err(Error::Closed),
            _ => Ok(()),
        }
    }

    /// Sends what can be sent, waits for what comes, and takes it in.
    fn advance(&mut self, deadline: Instant) -> Result<(), Error> {
        self.advance_with(deadline, true)
    }

    fn advance_with(&mut self, deadline: Instant, wait: bool) -> Result<(), Error> {
        self.flush_until(deadline)?;
        if wait { self.guarded(|connection| connection.read_until(deadline)) } else { Ok(()) }
    }

    fn flush_until(&mut self, deadline: Instant) -> Result<(), Error> {
        self.guarded(|connection| connection.write_until(deadline))
    }

    /// Does it, and notes if that was the end of the connection.
    fn guarded(&mut self, act: impl FnOnce(&mut Connection) -> Result<(), Error>) -> Result<(), Error> {
        self.still_open()?;
        let outcome = act(self);
        if matches!(outcome, Err(Error::Io(_) | Error::Closed | Error::Protocol(_))) {
            self.broken = true;
            if matches!(outcome, Err(Error::Closed)) {
                // Why, if the server said so.
                return self.still_open();
            }
        }
        outcome
    }

    fn write_until(&mut self, deadline: Instant) -> Result<(), Error> {
        loop {
            self.feed();
            if self.session.output().is_empty() {
                return Ok(());
            }
            match self.stream.write(self.session.output()) {
                Ok(0) => return Err(Error::Closed),
                Ok(bytes) => self.session.sent(bytes),
                Err(error) if waited(error.kind()) => {
                    // It may be waiting for us.
                    self.read_what_is_there()?;
                    if Instant::now() >= deadline {
                        return Err(Error::TimedOut);
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    // What the server said before it went may still be there to read.
                    self.read_what_is_there()?;
                    return Err(error.into());
                }
            }
        }
    }

    /// Adds of the payloads that wait what their credit allows.
    fn feed(&mut self) {
        let (session, pending) = (&mut self.session, &mut self.pending);
        self.unsent.retain(|id| {
            let pending = &mut pending[Session::slot(*id)];
            if pending.answer.id != *id {
                return false;
            }
            if session.output().len() < OUTPUT_BYTES {
                let most = pending.rest.len().min(pending.rest_taken + OUTPUT_BYTES);
                pending.rest_taken += session.push(*id, &pending.rest[pending.rest_taken..most]);
            }
            pending.rest_taken < pending.rest.len()
        });
    }

    fn read_until(&mut self, deadline: Instant) -> Result<(), Error> {
        loop {
            match self.stream.read(&mut self.input) {
                Ok(0) => return Err(Error::Closed),
                Ok(bytes) => return self.take_in(bytes),
                Err(error) if waited(error.kind()) => {
                    if Instant::now() >= deadline {
                        return Err(Error::TimedOut);
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn read_what_is_there(&mut self) -> Result<(), Error> {
        self.stream.set_nonblocking(true)?;
        let outcome = loop {
            match self.stream.read(&mut self.input) {
                Ok(0) => break Err(Error::Closed),
                Ok(bytes) => {
                    if let Err(error) = self.take_in(bytes) {
                        break Err(error);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break Err(error.into()),
            }
        };
        self.stream.set_nonblocking(false)?;
        outcome
    }

    /// Takes in the first `bytes` of the input.
    fn take_in(&mut self, bytes: usize) -> Result<(), Error> {
        let mut at = 0;
        loop {
            let (consumed, event) = self.session.read(&self.input[at..bytes]).map_err(Error::Protocol)?;
            at += consumed;
            let over = match event {
                Event::NeedMore => return Ok(()),
                Event::Answer { head, end } => {
                    let pending = &mut self.pending[Session::slot(head.id)];
                    pending.begin(&head);
                    let id = head.id;
                    if pending.by_parts {
                        self.untaken.get_mut(&id).into_iter().for_each(|untaken| untaken.begin(&pending.answer));
                    } else if !pending.fits(head.bytes, self.options.answer_bytes) {
                        self.session.cancel(id);
                    }
                    end.then_some(id)
                }
                Event::Payload { id, bytes, end } => {
                    let pending = &mut self.pending[Session::slot(id)];
                    if pending.by_parts {
                        self.untaken.get_mut(&id).into_iter().for_each(|untaken| untaken.grow(bytes));
                    } else if !pending.grow(bytes, self.options.answer_bytes) {
                        self.session.cancel(id);
                    }
                    end.then_some(id)
                }
                Event::Cut { id, status, body } => {
                    let pending = &mut self.pending[Session::slot(id)];
                    if pending.by_parts {
                        self.untaken.get_mut(&id).into_iter().for_each(|untaken| untaken.cut(status, body));
                    } else {
                        pending.cut(status, body);
                    }
                    Some(id)
                }
                Event::End { id } | Event::CutShort { id } => Some(id),
                Event::Map(frame) => {
                    self.map.apply(&frame);
                    None
                }
                Event::Goaway { status, text } => {
                    self.goaway = Some((status, text.to_owned()));
                    None
                }
                Event::Welcome | Event::Handled | Event::Credit { .. } | Event::Pong { .. } => None,
            };
            if let Some(id) = over {
                self.over(id);
            }
        }
    }

    fn over(&mut self, id: u64) {
        let pending = &mut self.pending[Session::slot(id)];
        if pending.abandoned {
            pending.answer.id = 0;
        } else if pending.by_parts {
            pending.answer.id = 0;
            self.untaken.get_mut(&id).into_iter().for_each(Untaken::end);
        } else {
            self.awaited -= 1;
            self.done.push_back(pending.finish(self.spare.pop().unwrap_or_default()));
        }
    }
}

fn waited(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// The end of a wait from here on; one longer than a clock can say is as good as none.
fn after(wait: Duration) -> Instant {
    const LONG: Duration = Duration::from_secs(1 << 32);
    Instant::now() + wait.min(LONG)
}
