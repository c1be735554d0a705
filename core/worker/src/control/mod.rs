//! The control thread: administration, off every invocation's path.
//!
//! Invariant: a change of the catalogue is answered after it is durable and after every shard has taken the new routes,
//! so that a client that was told "deployed" finds the function on any connection. It alone writes the catalogue. It
//! knows no sandboxes: the owner shards do.

mod answers;
mod crew;
mod deployments;
mod fetches;
mod sandboxes;
mod spread;
mod unpackings;

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use vilya_engine::policy::balance::BalancePolicy;
use vilya_engine::policy::spread::Spreading;
use vilya_engine::{Bytes, FunctionId, FunctionSpec, Nanos, Owners, SpreadPolicy};
use vilya_protocol::error::ErrorKind;

use crate::mesh::{ControlMessage, Message, Post};
use crate::metrics::{self, AheadFigures, FunctionCounters, FunctionFigures, ShardReport};
use crate::request::{AdminCall, RequestId, Source};
use crate::response::{ContentType, Response};
use crate::route::Route;
use crate::storage::{Catalog, CatalogError, Fault, FunctionRecord, LogControl};
use crate::waiting::RollCall;
pub(crate) use deployments::Deployments;
pub(crate) use fetches::FetchEnded;
use spread::{Leaving, Loads};
pub(crate) use unpackings::UnpackingEnded;

/// A function as the control thread knows it.
struct Live {
    record: Arc<FunctionRecord>,
    route: Route,
    spreading: Spreading,
    /// Shards that own it no more and have not finished with it.
    returning: Owners,
    moves: u64,
    /// What those shards had counted that have finished.
    earlier: FunctionCounters,
}

impl Live {
    fn is_spread(&self) -> bool {
        self.route.owners.len() > 1
    }
}

/// Whom an answer goes to, and what is given back with it.
#[derive(Clone, Copy)]
struct Caller {
    source: Source,
    request_id: RequestId,
    charged_bytes: u64,
}

/// What the control thread is made of.
pub(crate) struct Parts {
    pub(crate) catalog: Catalog,
    pub(crate) deployments: Deployments,
    pub(crate) logs: LogControl,
    pub(crate) shards: Vec<Post>,
    pub(crate) most_functions: u32,
    pub(crate) spread: SpreadPolicy,
    /// Where the starter is asked what waits.
    pub(crate) rolls: Sender<RollCall>,
    /// What of the memory was kept back for that.
    pub(crate) ahead_bytes: u64,
}

/// The control thread's state.
pub(crate) struct Control {
    catalog: Catalog,
    deployments: Deployments,
    logs: LogControl,
    shards: Vec<Post>,
    functions: HashMap<Box<str>, Live>,
    /// Versions that were removed or replaced and still have sandboxes.
    leaving: HashMap<FunctionId, Leaving>,
    loads: Loads,
    free_indices: Vec<u32>,
    generations: Vec<u32>,
    /// Indices there are: every shard's engine has a place for each.
    most_functions: u32,
    rolls: Sender<RollCall>,
    ahead_bytes: u64,
    /// The log has it that what is made ahead takes too much.
    has_told: Cell<bool>,
}

impl Control {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { catalog, deployments, logs, shards, most_functions, spread, rolls, ahead_bytes } = parts;
        Control {
            loads: Loads::new(spread, shards.len()),
            catalog,
            deployments,
            logs,
            shards,
            functions: HashMap::new(),
            leaving: HashMap::new(),
            free_indices: Vec::new(),
            generations: Vec::new(),
            most_functions,
            rolls,
            ahead_bytes,
            has_told: Cell::new(false),
        }
    }

    /// Hands the functions of an earlier run to their shards.
    pub(crate) fn restore(&mut self, records: Vec<FunctionRecord>) {
        for record in records {
            self.install(Arc::new(record));
        }
    }

    /// Serves until told to stop or until every sender is gone.
    pub(crate) fn run(&mut self, inbox: &Receiver<ControlMessage>) {
        loop {
            let now = Instant::now();
            if self.loads.next_look().is_some_and(|at| at <= now) {
                self.rebalance(now);
            }
            let received = match self.loads.next_look() {
                Some(at) => inbox.recv_deadline(at),
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let message = match received {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            match message {
                ControlMessage::Call { source, call, body, request_id, charged_bytes } => {
                    let caller = Caller { source, request_id, charged_bytes };
                    if let Some(response) = self.answer(call, body, caller) {
                        self.reply(caller, response);
                    }
                }
                ControlMessage::Fetched(ended) => self.fetched(*ended),
                ControlMessage::Unpacked(ended) => self.unpacked(*ended),
                ControlMessage::EndDeployments => self.give_up_deployments(),
                ControlMessage::FunctionGone { shard, function, counters } => self.forget(shard, function, &counters),
                ControlMessage::Load(load) => self.loads.take(load, Instant::now()),
                ControlMessage::Stop => {
                    self.give_up_deployments();
                    return self.deployments.join();
                }
            }
        }
    }

    fn reply(&self, caller: Caller, mut response: Response) {
        let Caller { source, request_id, charged_bytes } = caller;
        response.request_id = Some(request_id);
        let (client, response) = (source.client, Box::new(response));
        self.shards[source.shard].send(Message::Administered { client, response, charged_bytes });
    }

    /// The answer, unless it waits for an archive or an image.
    fn answer(&mut self, call: AdminCall, body: Vec<u8>, caller: Caller) -> Option<Response> {
        Some(match call {
            AdminCall::Deploy { name } => return self.deploy(&name, body, caller),
            AdminCall::Remove { name } => self.remove(&name),
            AdminCall::Get { name } => match self.functions.get(&name) {
                Some(live) => answers::function(200, &live.record),
                None => Response::no_such_function(&name),
            },
            AdminCall::List => answers::functions(self.functions.values().map(|live| &*live.record)),
            AdminCall::Sandboxes => self.sandboxes(),
            AdminCall::Logs { name, query } => self.read_logs(&name, &query),
            AdminCall::Metrics => self.metrics(),
            AdminCall::Version => answers::version(self.catalog.worker_id()),
        })
    }

    /// Gives a version to its owner shard, its route to all, and retires the version it replaces.
    fn install(&mut self, record: Arc<FunctionRecord>) {
        let name: Box<str> = record.manifest.name.as_str().into();
        let shards = self.shards.len() as u32;
        let home = BalancePolicy::Home.shard(name.as_bytes(), shards);
        // A version that replaces a hot one is as hot.
        let first = || self.loads.policy().first(home, shards);
        let spreading = self.functions.get(&name).map_or_else(first, |live| live.spreading);
        let route = Route { function: self.allot(), owners: spreading.owners };
        self.give(route.owners, route.function, &record);
        let live =
            Live { record, route, spreading, returning: Owners::NONE, moves: 0, earlier: FunctionCounters::default() };
        let replaced = self.functions.insert(name.clone(), live);
        self.publish(&name, Some(route));
        if let Some(replaced) = replaced {
            self.retire(replaced);
        }
    }

    /// Makes shards owners of a function, before any shard can route to them: their inboxes are in order.
    /// The home shard has the warm target.
    fn give(&self, owners: Owners, function: FunctionId, record: &Arc<FunctionRecord>) {
        let home = BalancePolicy::Home.shard(record.manifest.name.as_bytes(), self.shards.len() as u32);
        let spec = FunctionSpec {
            memory: Bytes::from_bytes(record.manifest.memory_bytes),
            timeout: Nanos::from_nanos(record.manifest.timeout_ns),
            concurrency: record.manifest.concurrency,
            min_warm: 0,
            // The shard knows what the worker does with idle sandboxes.
            trim_after: None,
            freeze_after: None,
        };
        for owner in owners.iter() {
            let min_warm = if owner == home { record.manifest.min_warm } else { 0 };
            let spec = FunctionSpec { min_warm, ..spec };
            self.shards[owner as usize].send(Message::Own { function, spec, record: Arc::clone(record) });
        }
    }

    fn remove(&mut self, name: &str) -> Response {
        self.deployments.removed(name);
        match self.catalog.remove(name) {
            Ok(_) => {}
            Err(error) => return refused(&error),
        }
        self.publish(name, None);
        if let Some(live) = self.functions.remove(name) {
            self.retire(live);
        }
        if let Err(error) = self.logs.remove(name) {
            tracing::warn!(function = name, "its log could not be removed: {error}");
        }
        tracing::info!(function = name, "removed");
        Response::new(204, ContentType::Json, Vec::new())
    }

    fn retire(&mut self, live: Live) {
        let Route { function, owners } = live.route;
        for owner in owners.iter() {
            self.shards[owner as usize].send(Message::Disown { function });
        }
        let shards = owners.with(live.returning);
        self.leaving.insert(function, Leaving { record: live.record, shards });
    }

    /// The last sandbox of a retired version is gone: its bundle goes, its id may be used again.
    fn discard(&mut self, function: FunctionId) {
        if let Some(Leaving { record, .. }) = self.leaving.remove(&function) {
            self.free_indices.push(function.index);
            if let Err(error) = self.catalog.discard(&record) {
                tracing::warn!(
                    function = record.manifest.name,
                    version = record.version,
                    "its bundle could not be deleted: {error}"
                );
            }
        }
    }

    fn allot(&mut self) -> FunctionId {
        let index = self.free_indices.pop().unwrap_or_else(|| {
            self.generations.push(0);
            (self.generations.len() - 1) as u32
        });
        let generation = &mut self.generations[index as usize];
        *generation = generation.wrapping_add(1);
        FunctionId { index, generation: *generation }
    }

    /// Tells every shard, and waits until each has taken it; a shard that has stopped hangs up instead.
    fn publish(&self, name: &str, route: Option<Route>) {
        let (taken, all_taken) = bounded(self.shards.len());
        for shard in &self.shards {
            shard.send(Message::Route { name: name.into(), route, taken: taken.clone() });
        }
        drop(taken);
        while all_taken.recv().is_ok() {}
    }

    fn read_logs(&self, name: &str, query: &str) -> Response {
        if !self.functions.contains_key(name) {
            return Response::no_such_function(name);
        }
        let lines = match answers::tail_of(query) {
            Ok(lines) => lines,
            Err(message) => return Response::error(ErrorKind::MalformedRequest, message),
        };
        match self.logs.tail(name, lines) {
            Ok(text) => Response::new(200, ContentType::Text, text.into_bytes()),
            Err(error) => Response::error(ErrorKind::Internal, &format!("the log could not be read: {error}")),
        }
    }

    /// What waits; said once in the log if it takes more than was kept back for it.
    fn ahead_figures(&self) -> AheadFigures {
        let waiting = self.waiting(SCRAPE_PATIENCE).unwrap_or_default();
        let figures = AheadFigures { waiting, kept_back_bytes: self.ahead_bytes };
        let taken = figures.taken_bytes();
        if taken > self.ahead_bytes && !self.has_told.replace(true) {
            tracing::warn!(
                taken,
                kept_back = self.ahead_bytes,
                "what is made ahead takes more than limits.memory has for it"
            );
        }
        figures
    }

    fn metrics(&self) -> Response {
        let (sender, receiver) = bounded(self.shards.len());
        for shard in &self.shards {
            shard.send(Message::Report(sender.clone()));
        }
        drop(sender);
        let reports: Vec<ShardReport> = receiver.iter().collect();
        let figures = self.functions.iter().map(|(name, live)| FunctionFigures {
            id: live.route.function,
            name,
            owners: live.route.owners.len(),
            moves: live.moves,
            earlier: &live.earlier,
        });
        let mut functions: Vec<FunctionFigures<'_>> = figures.collect();
        functions.sort_unstable_by_key(|figures| figures.name);
        let ahead = self.ahead_figures();
        Response::new(200, ContentType::Metrics, metrics::render(&reports, &functions, &ahead).into_bytes())
    }
}

/// How long a scrape waits for the starter; without its word the figures of what waits are left out.
const SCRAPE_PATIENCE: Duration = Duration::from_millis(100);

/// The statuses of what the catalogue refuses.
fn refused(error: &CatalogError) -> Response {
    let kind = match error.fault() {
        Fault::InvalidFunction => ErrorKind::InvalidFunction,
        Fault::NoSuchFunction => ErrorKind::NoSuchFunction,
        Fault::PayloadTooLarge => ErrorKind::PayloadTooLarge,
        Fault::FunctionsFull | Fault::DiskFull => ErrorKind::StorageFull,
        Fault::RegistryFailed => ErrorKind::ImageUnavailable,
        Fault::Stopping => ErrorKind::Draining,
        Fault::Internal => ErrorKind::Internal,
    };
    Response::error(kind, &error.to_string())
}
