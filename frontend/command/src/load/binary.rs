//! A client of the binary protocol: a lane for each shard that it needs, with several requests in flight on each. Nothing on
//! a lane waits for another lane.
//!
//! Invariant: a lane has as many exchanges as jobs that it began and did not report. Requests that cannot be started yet,
//! before the handshake and while the worker leaves, wait on their lane and their time runs.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;

use nix::sys::epoll::{EpollEvent, EpollFlags};
use vilya_client::{Error, Event, Options, Request, Session, Start};

use super::connection::{Exchange, GONE, INTEREST, Job, Surroundings, broke, connecting};
use super::heads::Heads;
use super::tally::{Broke, Ending};

#[derive(Debug)]
pub(super) struct Connection {
    client: usize,
    lanes: Vec<Lane>,
}

#[derive(Debug, Default)]
struct Lane {
    open: Option<Open>,
    /// By the slots of their requests.
    exchanges: Vec<Option<InFlight>>,
    /// Jobs that are not started.
    waiting: VecDeque<Exchange>,
    used_before: bool,
    /// It is among the lanes with bytes to send.
    unsent: bool,
}

#[derive(Debug)]
struct InFlight {
    id: u64,
    exchange: Exchange,
}

#[derive(Debug)]
struct Open {
    stream: TcpStream,
    session: Session,
    connected: bool,
    /// The worker takes no more requests here.
    leaving: bool,
    /// Requests in flight whose payload waits for credit: id and how much was taken.
    parts: Vec<(u64, usize)>,
    heads: Heads,
}

impl Connection {
    pub(super) fn new(client: usize) -> Connection {
        Connection { client, lanes: Vec::new() }
    }

    pub(super) fn counted_jobs(&self) -> usize {
        let counted = |exchange: &&Exchange| exchange.job.counted;
        let of = |lane: &Lane| {
            lane.waiting.iter().filter(counted).count()
                + lane.exchanges.iter().flatten().map(|under_way| &under_way.exchange).filter(counted).count()
        };
        self.lanes.iter().map(of).sum()
    }

    pub(super) fn begin(&mut self, place: usize, job: Job, around: &mut Surroundings<'_>) -> io::Result<()> {
        let number = around.routes.lane(job.choice.function);
        if self.lanes.len() <= number {
            self.lanes.resize_with(number + 1, Lane::default);
        }
        let lane = &mut self.lanes[number];
        lane.waiting.push_back(Exchange::new(place, job));
        if lane.open.is_none() {
            lane.connect(self.client, number, around)?;
        }
        lane.start_waiting(around);
        lane.note_unsent(self.client, number, around);
        Ok(())
    }

    pub(super) fn flush(&mut self, lane: usize, around: &mut Surroundings<'_>) -> io::Result<()> {
        let flushed = &mut self.lanes[lane];
        flushed.unsent = false;
        if flushed.open.as_ref().is_some_and(|open| open.connected) && flushed.write().is_err() {
            // What the other side said before it went may still be there to read.
            return self.advance(lane, GONE, around);
        }
        Ok(())
    }

    pub(super) fn advance(&mut self, lane: usize, flags: EpollFlags, around: &mut Surroundings<'_>) -> io::Result<()> {
        let number = lane;
        let Some(lane) = self.lanes.get_mut(number) else { return Ok(()) };
        let Some(open) = lane.open.as_mut() else { return Ok(()) };
        if !open.connected {
            if !flags.intersects(EpollFlags::EPOLLOUT | GONE) {
                return Ok(());
            }
            if flags.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP) {
                lane.end(Broke::Connect, around);
                return Ok(());
            }
            open.connected = true;
        }
        let mut ended = lane.write().err().map(|error| broke(&error));
        if flags.intersects(EpollFlags::EPOLLIN | GONE) {
            ended = lane.read(flags.intersects(GONE), around).or(ended);
        }
        if let Some(ended) = ended {
            lane.end(ended, around);
        } else if lane.is_left() {
            // Everything was answered. What waits goes to whoever is there next.
            lane.open = None;
            if !lane.waiting.is_empty() {
                lane.connect(self.client, number, around)?;
            }
        } else {
            lane.feed(around);
            lane.start_waiting(around);
        }
        lane.note_unsent(self.client, number, around);
        Ok(())
    }

    pub(super) fn time_out(&mut self, due_before_ns: u64, around: &mut Surroundings<'_>) {
        for (number, lane) in self.lanes.iter_mut().enumerate() {
            lane.time_out(due_before_ns, around);
            lane.note_unsent(self.client, number, around);
        }
    }
}

impl Lane {
    fn connect(&mut self, client: usize, lane: usize, around: &mut Surroundings<'_>) -> io::Result<()> {
        around.news.opened += 1;
        around.news.reopened += u64::from(self.used_before);
        self.used_before = true;
        match connecting(around.routes.address(lane))? {
            Ok(stream) => {
                around.epoll.add(&stream, EpollEvent::new(INTEREST, around.routes.token(client, lane)))?;
                let options = Options {
                    // One client of a thread is enough to learn what moves.
                    wants_map: client == 0,
                    in_flight: u32::try_from(around.pipeline).unwrap_or(u32::MAX),
                    ..Options::DEFAULT
                };
                let session = Session::new(&options);
                self.open = Some(Open {
                    stream,
                    session,
                    connected: false,
                    leaving: false,
                    parts: Vec::new(),
                    heads: Heads::default(),
                });
            }
            Err(_) => self.end(Broke::Connect, around),
        }
        Ok(())
    }

    /// Starts what waits, as far as the worker takes requests.
    fn start_waiting(&mut self, around: &mut Surroundings<'_>) {
        let Some(open) = self.open.as_mut() else { return };
        while open.session.is_ready() {
            let Some(mut exchange) = self.waiting.pop_front() else { return };
            let choice = exchange.job.choice;
            let (name, payload) = (around.functions[choice.function].name.as_str(), around.request(choice).payload());
            let content_type = if payload.is_empty() { "" } else { around.content_type };
            let request = Request { content_type: content_type.as_bytes(), ..Request::new(name, payload) };
            let before_bytes = open.session.output().len();
            match open.session.start(&request) {
                Ok(started) => {
                    exchange.written = open.session.output().len() - before_bytes;
                    exchange.sent_ns = Some(around.clock.now_ns());
                    if started.taken < payload.len() {
                        open.parts.push((started.id, started.taken));
                    }
                    let slot = Session::slot(started.id);
                    if self.exchanges.len() <= slot {
                        self.exchanges.resize_with(slot + 1, || None);
                    }
                    self.exchanges[slot] = Some(InFlight { id: started.id, exchange });
                }
                Err(error) => {
                    let status = if let Error::PayloadTooLarge { .. } = error { 413 } else { 400 };
                    let now_ns = around.clock.now_ns();
                    around.news.finished.push(exchange.finish(Ending::Answered(status), now_ns));
                }
            }
        }
    }

    /// Adds of the payloads that wait what their credit allows.
    fn feed(&mut self, around: &Surroundings<'_>) {
        let Some(Open { session, parts, .. }) = self.open.as_mut() else { return };
        parts.retain_mut(|(id, taken)| {
            let Some(exchange) = exchange(&mut self.exchanges, *id) else { return false };
            let payload = around.request(exchange.job.choice).payload();
            let before_bytes = session.output().len();
            *taken += session.push(*id, &payload[*taken..]);
            exchange.written += session.output().len() - before_bytes;
            *taken < payload.len()
        });
    }

    fn write(&mut self) -> io::Result<()> {
        let Some(open) = self.open.as_mut() else { return Ok(()) };
        while !open.session.output().is_empty() {
            match open.stream.write(open.session.output()) {
                Ok(bytes) => open.session.sent(bytes),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads until there is no more; how the connection ended, if it did.
    fn read(&mut self, to_the_end: bool, around: &mut Surroundings<'_>) -> Option<Broke> {
        loop {
            let open = self.open.as_mut()?;
            let bytes = match open.stream.read(around.buffer) {
                Ok(0) => return Some(Broke::Closed),
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return to_the_end.then_some(Broke::Closed),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Some(broke(&error)),
            };
            if let Err(ended) = self.take_in(bytes, around) {
                return Some(ended);
            }
            if bytes < around.buffer.len() && !to_the_end {
                return None;
            }
        }
    }

    /// Takes in the first `bytes` of the buffer.
    fn take_in(&mut self, bytes: usize, around: &mut Surroundings<'_>) -> Result<(), Broke> {
        let Some(open) = self.open.as_mut() else { return Ok(()) };
        let mut at = 0;
        loop {
            let read = open.session.read(&around.buffer[at..bytes]);
            let (consumed, event) = read.map_err(|_| Broke::Malformed)?;
            at += consumed;
            let bytes_in = open.heads.answer_bytes(consumed, &event);
            let (id, end) = match event {
                Event::NeedMore => return Ok(()),
                Event::Answer { head, end } => {
                    if let Some(exchange) = exchange(&mut self.exchanges, head.id) {
                        exchange.received += bytes_in;
                        exchange.status = Some(head.status);
                        let report = head.report;
                        if report.start != Start::None {
                            exchange.cold = Some(report.start == Start::Cold);
                            exchange.shard = Some(report.shard);
                            exchange.phases.queue_us = Some(u64::from(report.queue_us));
                            exchange.phases.start_us = Some(u64::from(report.start_us));
                            exchange.phases.run_us = Some(u64::from(report.run_us));
                        }
                    }
                    (head.id, end)
                }
                Event::Payload { id, bytes, end } => {
                    if let Some(exchange) = exchange(&mut self.exchanges, id) {
                        exchange.received += bytes_in;
                        exchange.body(bytes);
                    }
                    (id, end)
                }
                Event::Cut { id, status, body } => {
                    if let Some(exchange) = exchange(&mut self.exchanges, id) {
                        exchange.received += bytes_in;
                        // What has come is no answer: the error is.
                        exchange.status = Some(status);
                        exchange.body(body);
                    }
                    (id, true)
                }
                Event::End { id } => {
                    if let Some(exchange) = exchange(&mut self.exchanges, id) {
                        exchange.received += bytes_in;
                    }
                    (id, true)
                }
                Event::CutShort { id } => (id, true),
                Event::Map(frame) => {
                    around.routes.learn(&frame);
                    continue;
                }
                Event::Goaway { status: 503, .. } => {
                    open.leaving = true;
                    continue;
                }
                Event::Goaway { .. } => return Err(Broke::Closed),
                Event::Handled | Event::Welcome | Event::Credit { .. } | Event::Pong { .. } => continue,
            };
            if end
                && let Some(InFlight { exchange, .. }) =
                    self.exchanges.get_mut(Session::slot(id)).and_then(Option::take)
                && let Some(status) = exchange.status
            {
                let now_ns = around.clock.now_ns();
                around.news.finished.push(exchange.finish(Ending::Answered(status), now_ns));
            }
        }
    }

    /// The worker takes no more here, and owes nothing.
    fn is_left(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.leaving) && self.exchanges.iter().all(Option::is_none)
    }

    /// Ends the connection and every job on it.
    fn end(&mut self, ended: Broke, around: &mut Surroundings<'_>) {
        self.open = None;
        let now_ns = around.clock.now_ns();
        let under_way = self.exchanges.iter_mut().filter_map(Option::take).map(|under_way| under_way.exchange);
        for exchange in under_way.chain(self.waiting.drain(..)) {
            around.news.finished.push(exchange.finish(Ending::Broke(ended), now_ns));
        }
    }

    /// Gives up the jobs that were due before, and tells the worker so.
    fn time_out(&mut self, due_before_ns: u64, around: &mut Surroundings<'_>) {
        let late = |exchange: &Exchange| exchange.job.due_ns <= due_before_ns;
        let now_ns = around.clock.now_ns();
        while self.waiting.front().is_some_and(late) {
            let exchange = self.waiting.pop_front().into_iter();
            around.news.finished.extend(exchange.map(|given| given.finish(Ending::Broke(Broke::Timeout), now_ns)));
        }
        let Some(open) = self.open.as_mut() else { return };
        for place in &mut self.exchanges {
            if let Some(InFlight { id, exchange }) = place.take_if(|under_way| late(&under_way.exchange)) {
                open.session.cancel(id);
                around.news.finished.push(exchange.finish(Ending::Broke(Broke::Timeout), now_ns));
            }
        }
    }

    fn note_unsent(&mut self, client: usize, lane: usize, around: &mut Surroundings<'_>) {
        let unsent = self.open.as_ref().is_some_and(|open| open.connected && !open.session.output().is_empty());
        if unsent && !self.unsent {
            self.unsent = true;
            around.news.unsent.push((client, lane));
        }
    }
}

fn exchange(exchanges: &mut [Option<InFlight>], id: u64) -> Option<&mut Exchange> {
    let under_way = exchanges.get_mut(Session::slot(id)).and_then(Option::as_mut);
    under_way.filter(|under_way| under_way.id == id).map(|under_way| &mut under_way.exchange)
}
