//! A shard: one pinned thread with its own ring, connections, functions and sandboxes.
//!
//! Invariant: the loop never blocks but in the ring, and nothing it owns is seen by another thread. A turn is: take the
//! mesh's messages, note which rings have claims, make one system call, handle what it brought, check the claims noted,
//! let the engine look at the time. Claims are noted before the system call and checked after it, so that output a
//! function wrote before its answer is logged under that answer's invocation.
//!
//! It decides nothing about scheduling: the engine does. It knows no file system and makes no sandbox.

mod backlog;
mod claims;
mod connection;
mod door;
mod doorbell;
mod frost;
mod functions;
mod http;
mod invoke;
mod lanes;
mod outbox;
mod output;
mod parts;
mod roster;
mod sandbox;
mod token;
mod upload;
mod vigil;
mod wire;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use vilya_engine::{Bytes, Effects, Engine, Event, FunctionId, FunctionSpec, Nanos, SandboxId};
use vilya_ipc::metadata::AlignedVec;
use vilya_reactor::{Completion, Op, OpId, Outcome, Reactor, Refused, Wait};

pub(crate) use connection::Timeouts;
pub(crate) use roster::{Activity, Sighting};

use crate::arena::Lent;
use crate::load::LoadMeter;
use crate::mesh::{ControlMessage, Message, Post};
use crate::metrics::{FunctionCounters, ShardCounters, ShardReport};
use crate::pool::Pool;
use crate::request::{Request, RequestIds};
use crate::response::Response;
use crate::route::RouteTable;
use crate::slots::{Key, Slots};
use crate::starter::Nursery;
use crate::storage::{FunctionRecord, LogSender};
use connection::{BodyBudget, Connection};
use door::Door;
use functions::{Functions, Owned};
use invoke::Cause;
use sandbox::Sandbox;
use token::Owner;
use upload::Upload;
use vigil::Vigil;
use wire::WireConnection;

/// Messages taken from the mesh in one turn: beyond it, connections get their turn first.
const MESSAGES_PER_TURN: usize = 256;

/// Once everything is drained, clients have this long to take the answers they are owed.
const STOP_GRACE_NS: u64 = 5_000_000_000;

/// Between two tries to tell a log writer that is behind what it missed.
const LOG_RETRY_NS: u64 = 10_000_000;

/// Bodies on their way into lanes at once; more are buffered.
const UPLOADS: usize = 1024;

/// What a shard is told at start.
pub(crate) struct Settings {
    pub(crate) shard: usize,
    pub(crate) engine: vilya_engine::Config,
    pub(crate) http: vilya_protocol::http::Limits,
    pub(crate) connections: usize,
    pub(crate) bodies_bytes: u64,
    pub(crate) timeouts: Timeouts,
    pub(crate) sandbox_cores: Vec<usize>,
    /// How long it may look for work before it sleeps; zero where it shares its core.
    pub(crate) spin_cap: Duration,
    /// The random half of this run's request ids.
    pub(crate) run_id: u64,
    /// Where each shard listens for the binary protocol by itself.
    pub(crate) wire_ports: Arc<[u16]>,
    /// When idle sandboxes are advised to give memory back; 0 is never.
    pub(crate) trim_after_ns: u64,
    /// When idle sandboxes of functions that do not say are frozen; 0 is never.
    pub(crate) freeze_after_ns: u64,
    /// Whether functions move between shards, by what each is busy with.
    pub(crate) spreads: bool,
}

/// The sockets that a shard listens on.
pub(crate) struct Listeners {
    pub(crate) http: OwnedFd,
    /// For the binary protocol: the one that all shards share, and its own.
    pub(crate) wire: Option<[OwnedFd; 2]>,
}

/// The ends that lead to the other threads.
pub(crate) struct Links {
    pub(crate) inbox: Receiver<Message>,
    pub(crate) shards: Vec<Post>,
    pub(crate) control: Sender<ControlMessage>,
    pub(crate) nursery: Nursery,
    pub(crate) logs: LogSender,
}

/// One shard's whole state.
pub(crate) struct Shard {
    settings: Settings,
    links: Links,
    reactor: Reactor,
    completions: Vec<Completion>,
    doors: Vec<Door>,
    connections: Slots<Connection>,
    wires: Slots<WireConnection>,
    /// Connections of the binary protocol with something to send, each once.
    wires_to_flush: Vec<Key>,
    /// Bodies on their way into lanes.
    uploads: Slots<Upload>,
    /// Sends of closed connections that still read a lane.
    orphans: Vec<(OpId, Arc<Lent>)>,
    /// Sandboxes, each once, whose lanes may hold memory to give back.
    swollen: Vec<SandboxId>,
    /// Descriptors let go of in this turn.
    closing: Vec<OwnedFd>,
    bodies: BodyBudget,
    routes: RouteTable,
    ids: RequestIds,
    engine: Engine,
    /// There but while it is gone through: an empty one in its place would be an allocation a step.
    effects: Option<Effects>,
    /// Events that performing an effect gave rise to.
    events: VecDeque<(Event, Option<Cause>)>,
    /// Set while the events are gone through.
    feeding: bool,
    requests: Slots<Request>,
    functions: Functions,
    pool: Pool,
    sandboxes: Vec<Option<Sandbox>>,
    /// Sandboxes given work in this turn, each once, to be woken once for all of it.
    to_wake: Vec<u32>,
    /// Sandboxes, each once, that have work and were not told to ring when they are done.
    unannounced: Vec<u32>,
    /// Sandboxes whose rings have claims to check in this turn.
    claimed: Vec<u32>,
    /// Sandboxes whose death was seen in this turn.
    died: Vec<u32>,
    /// Shards that were posted to in this turn, to be woken once.
    posted: Vec<bool>,
    /// The answer that a completion being stepped carries.
    returned: Option<Response>,
    /// Why the sandbox being stepped died.
    cause: Option<Cause>,
    /// Reused for every submission.
    metadata: AlignedVec,
    /// Keeps this shard's log streams apart from the others'.
    log_salt: u64,
    /// Something waits behind a send whose end wakes nobody: the next turn does not sleep.
    restless: bool,
    /// Told once nothing is left to run; set by the order to drain.
    draining: Option<Sender<()>>,
    stopping: bool,
    stop_by_ns: u64,
    counters: ShardCounters,
    load: LoadMeter,
    vigil: Vigil,
    now_ns: u64,
}

impl Shard {
    pub(crate) fn new(
        settings: Settings,
        links: Links,
        reactor: Reactor,
        listeners: Listeners,
        engine: Engine,
    ) -> Self {
        let invocations = settings.engine.limits.invocations as usize;
        let ids = RequestIds::new(settings.run_id, settings.shard);
        let posted = vec![false; links.shards.len()];
        let vigil = Vigil::new(settings.spin_cap);
        let load = if settings.spreads { LoadMeter::of_this_thread(settings.shard) } else { LoadMeter::off() };
        // Generations use 24 bits of a token's 56, so that these are free.
        let log_salt = (settings.shard as u64) << 60;
        Shard {
            connections: Slots::new(settings.connections),
            wires: Slots::new(settings.connections),
            wires_to_flush: Vec::new(),
            uploads: Slots::new(UPLOADS),
            orphans: Vec::new(),
            swollen: Vec::new(),
            requests: Slots::new(invocations + 1),
            bodies: BodyBudget::new(settings.bodies_bytes),
            ids,
            posted,
            settings,
            links,
            reactor,
            completions: Vec::with_capacity(1024),
            doors: Door::of(listeners),
            closing: Vec::new(),
            routes: RouteTable::default(),
            engine,
            effects: Some(Effects::new()),
            events: VecDeque::new(),
            feeding: false,
            functions: Functions::default(),
            pool: Pool::new(),
            sandboxes: Vec::new(),
            to_wake: Vec::new(),
            unannounced: Vec::new(),
            claimed: Vec::new(),
            died: Vec::new(),
            returned: None,
            cause: None,
            metadata: AlignedVec::new(),
            log_salt,
            restless: false,
            draining: None,
            stopping: false,
            stop_by_ns: u64::MAX,
            counters: ShardCounters::default(),
            load,
            vigil,
            now_ns: Reactor::now_ns(),
        }
    }

    /// Serves until drained.
    pub(crate) fn run(&mut self) -> std::io::Result<()> {
        for door in 0..self.doors.len() {
            self.listen(door);
        }
        while !self.finished() {
            self.turn()?;
        }
        Ok(())
    }

    fn turn(&mut self) -> std::io::Result<()> {
        let told = self.take_messages();
        self.note_claims();
        self.flush_wires();
        self.ring_doorbells();
        self.close_descriptors();
        let wait = self.wait();
        let mut completions = std::mem::take(&mut self.completions);
        let turned = self.reactor.turn(wait, &mut completions);
        self.now_ns = Reactor::now_ns();
        let found = told || !completions.is_empty() || !self.claimed.is_empty();
        self.vigil.turned(wait != Wait::No, found, self.now_ns);
        for completion in completions.drain(..) {
            self.complete(completion);
        }
        self.completions = completions;
        turned?;
        self.check_claims();
        self.bury_the_dead();
        if self.engine_is_due() {
            self.feed(Event::Tick);
        }
        if let Some(load) = self.load.measure(self.now_ns, self.vigil.looked_on_ns()) {
            // The control thread has ended only if the worker stops.
            let _ = self.links.control.send(ControlMessage::Load(load));
        }
        Ok(())
    }

    /// A deadline of the engine has come, or its last step left something over.
    fn engine_is_due(&self) -> bool {
        self.engine.next_wake().is_some_and(|at| at.as_nanos() <= self.now_ns)
    }

    /// How long the ring may sleep: not at all while a claim, a message or a due deadline waits.
    fn wait(&mut self) -> Wait {
        if std::mem::take(&mut self.restless)
            || !self.claimed.is_empty()
            || !self.closing.is_empty()
            || !self.links.inbox.is_empty()
            || self.finished()
            || self.vigil.goes_on(self.now_ns)
            || !self.announce_sleep()
        {
            return Wait::No;
        }
        let mut until = self.engine.next_wake().map(Nanos::as_nanos);
        if self.stopping {
            until = Some(until.map_or(self.stop_by_ns, |at| at.min(self.stop_by_ns)));
        }
        if self.links.logs.is_behind() {
            self.links.logs.retry();
            let soon = self.now_ns.saturating_add(LOG_RETRY_NS);
            until = Some(until.map_or(soon, |at| at.min(soon)));
        }
        until.map_or(Wait::Forever, Wait::Until)
    }

    /// Stopped, and every answer that is owed has been sent, or its client does not take it.
    fn finished(&self) -> bool {
        let is_late = self.now_ns >= self.stop_by_ns;
        let owes_nothing = || {
            self.connections.iter().all(|(_, connection)| connection.owes_nothing())
                && self.wires.iter().all(|(_, wire)| wire.owes_nothing())
        };
        self.stopping && (is_late || owes_nothing())
    }

    /// Whether there were any.
    fn take_messages(&mut self) -> bool {
        for taken in 0..MESSAGES_PER_TURN {
            let Ok(message) = self.links.inbox.try_recv() else { return taken > 0 };
            self.take_message(message);
        }
        true
    }

    fn take_message(&mut self, message: Message) {
        match message {
            Message::Invoke(request) => {
                self.counters.mesh_received += 1;
                self.admit(request);
            }
            Message::Cancel(source) => self.cancel(source),
            Message::Respond { client, response } => {
                self.counters.mesh_received += 1;
                self.respond(client, response);
            }
            Message::Part { client, part } => self.pass_on(client, part),
            Message::PartTaken { hold, goes_on } => self.part_taken(hold, goes_on),
            Message::Reclaim { client, hold } => self.reclaim_from(client, hold),
            Message::Released(hold) => self.released(hold),
            Message::Administered { client, response, charged_bytes } => {
                self.bodies.give_back(charged_bytes);
                self.respond(client, *response);
            }
            Message::Route { name, route, taken } => {
                self.routes.set(&name, route);
                self.tell_of_route(&name);
                // The control thread may have given up waiting only if it is gone.
                let _ = taken.send(());
            }
            Message::Own { function, spec, record } => self.own(function, spec, record),
            Message::Disown { function } => self.feed(Event::FunctionRetired { function }),
            Message::Started { sandbox, outcome } => self.started(sandbox, *outcome),
            Message::NotFrozen { sandbox } => self.not_frozen(sandbox),
            Message::Thawed { sandbox, outcome } => self.thawed(sandbox, outcome),
            Message::LayerMade { function, bytes } => {
                self.feed(Event::LayerMade { function, memory: Bytes::from_bytes(bytes) });
            }
            Message::LayerUsed { function } => self.feed(Event::LayerUsed { function }),
            Message::LayerGone { function } => self.feed(Event::LayerGone { function }),
            Message::Reaped { sandbox, ended } => self.reaped(sandbox, &ended),
            Message::Report(sender) => {
                let _ = sender.send(self.report());
            }
            Message::Roster(sender) => {
                let _ = sender.send(self.roster());
            }
            Message::Drain(drained) => self.drain(drained),
            Message::Stop => {
                self.stopping = true;
                self.restless = true;
                self.stop_by_ns = self.now_ns.saturating_add(STOP_GRACE_NS);
            }
        }
    }

    fn own(&mut self, function: FunctionId, spec: FunctionSpec, record: Arc<FunctionRecord>) {
        let spec = self.with_idle_steps(spec, &record);
        self.functions.insert(function, Owned { record, counters: FunctionCounters::default() });
        self.feed(Event::FunctionAdded { function, spec });
    }

    fn drain(&mut self, drained: Sender<()>) {
        if self.draining.replace(drained).is_some() {
            return;
        }
        self.shut_doors();
        self.close_idle();
        self.feed(Event::Drain);
        self.announce_drain();
    }

    fn complete(&mut self, completion: Completion) {
        let Completion { owner, op, more, outcome } = completion;
        match Owner::of(owner) {
            Some(Owner::Door(door)) => self.knocked(door, more, outcome),
            Some(Owner::Receive(key)) => self.received(key, more, outcome),
            Some(Owner::Send(key)) => self.sent(key, op, outcome),
            Some(Owner::WireReceive(key)) => self.wire_received(key, more, outcome),
            Some(Owner::WireSend(key)) => self.wire_sent(key, op, outcome),
            Some(Owner::WireTimer(key)) => self.wire_timer(key),
            Some(Owner::Fill(upload)) => self.filled(upload, &outcome),
            Some(Owner::Trim) => self.trim(),
            Some(Owner::ConnectionTimer(key)) => self.connection_timer(key),
            Some(Owner::Doorbell(sandbox)) => self.doorbell(sandbox, more, outcome),
            Some(Owner::Death(sandbox)) => self.saw_death(sandbox, &outcome),
            Some(Owner::Output(sandbox, stream)) => self.output(sandbox, stream, outcome),
            Some(Owner::Pause(sandbox, stream)) => self.end_pause(sandbox, stream),
            Some(Owner::Deaf(sandbox)) => self.listen_again(sandbox),
            Some(Owner::Wake(shard)) => self.wake_failed(shard),
            // The reactor's own wake-ups carry nothing: the inbox is looked at in every turn.
            Some(Owner::Closing) | None => self.discard(outcome),
        }
    }

    /// Gives back what a completion holds when nobody wants it.
    fn discard(&mut self, outcome: Outcome) {
        if let Outcome::Received(chunk) | Outcome::Read(chunk) = outcome {
            self.reactor.recycle(chunk);
        }
    }

    /// Posts to another shard; the wake-up goes out with this turn's system call.
    fn post(&mut self, shard: usize, message: Message) {
        self.counters.mesh_sent += 1;
        self.links.shards[shard].leave(message);
        self.posted[shard] = true;
    }

    fn ring_doorbells(&mut self) {
        while let Some(index) = self.to_wake.pop() {
            self.wake_sandbox(index);
        }
        for shard in 0..self.posted.len() {
            if std::mem::take(&mut self.posted[shard]) {
                self.wake_shard(shard);
            }
        }
    }

    fn wake_shard(&mut self, shard: usize) {
        let post = &self.links.shards[shard];
        if !post.waker().request() {
            return;
        }
        let message = Op::Message { ring_fd: post.ring_fd(), value: 0 };
        if self.reactor.submit(Owner::Wake(shard).token(), message).is_err() {
            post.waker().ring();
        }
    }

    /// A ring message did not arrive, and nobody else wakes that shard: it is woken the other way.
    fn wake_failed(&self, shard: usize) {
        if let Some(post) = self.links.shards.get(shard) {
            post.waker().ring();
        }
    }

    /// Closes descriptors on the ring: an operation that names one may still wait to be submitted, and a number that is
    /// free could be another connection's by then.
    fn close_descriptors(&mut self) {
        while let Some(fd) = self.closing.pop() {
            let refused = self.reactor.submit(Owner::Closing.token(), Op::Close { fd }).err();
            if let Some(Refused { op: Op::Close { fd }, .. }) = refused {
                // The next turn makes room.
                self.closing.push(fd);
                return;
            }
        }
    }

    fn report(&self) -> ShardReport {
        ShardReport {
            shard: self.settings.shard,
            connections_open: (self.connections.len() + self.wires.len()) as u64,
            counters: self.counters.clone(),
            engine: self.engine.stats().clone(),
            enters: self.reactor.counters().enters,
            functions: self.functions.iter().map(|(id, owned)| (id, owned.counters.clone())).collect(),
        }
    }

    fn now(&self) -> Nanos {
        Nanos::from_nanos(self.now_ns)
    }
}
