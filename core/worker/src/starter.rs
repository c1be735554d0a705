//! The starter: threads that make sandboxes and clean up after them, so that no shard ever waits for a fork, a mount or a control group.
//!
//! Invariant: every start that was asked for is answered once. The starter's thread lives as long as the worker, since
//! a sandbox dies with the thread that made it. It does not know queues, engines or connections.

mod idle;
mod likeness;
mod raising;
mod reaper;
mod roll;
mod witness;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, unbounded};
use vilya_engine::{FunctionId, SandboxId};
use vilya_ipc::host::ReadOnlyBy;
use vilya_isolate::{Begun, CopyOf, Mechanism, PoolOptions, Spec};

use crate::ahead::Ahead;
use crate::imports::Learned;
use crate::loading::{Loading, Wish};
use crate::manifest::Runtime;
use crate::mechanisms::Mechanisms;
use crate::mesh::{Message, Post};
use crate::network::Network;
use crate::process::vital;
use crate::rehearsal;
use crate::ring::{Ring, Rings};
use crate::storage::FunctionRecord;
use crate::waiting::RollCall;
use crate::zygotes::{Way, Zygotes};
pub(crate) use likeness::SandboxDefaults;
use likeness::{FUNCTION, is_set_at_start};
pub(crate) use reaper::Reap;
use reaper::reap;
use witness::{Unfinished, Witness};

/// Reports of what functions imported that wait to be noted.
const LEARNED_WAITING: usize = 64;

/// A start that a shard asks for.
pub(crate) struct Start {
    pub(crate) shard: usize,
    pub(crate) sandbox: SandboxId,
    pub(crate) function: FunctionId,
    pub(crate) record: Arc<FunctionRecord>,
    pub(crate) cores: Vec<usize>,
    /// Never as a copy: one has failed.
    pub(crate) whole: bool,
}

/// The inboxes of the threads that see to sandboxes. Dropping every copy ends them.
#[derive(Clone)]
pub(crate) struct Nursery {
    pub(crate) starts: Sender<Start>,
    pub(crate) reaps: Sender<Reap>,
    pub(crate) frosts: Sender<crate::freezer::Order>,
    pub(crate) imports: Sender<Learned>,
    /// Functions whose image is to be given up.
    pub(crate) drops: Sender<FunctionId>,
    /// Who wants to know what waits.
    pub(crate) rolls: Sender<RollCall>,
}

/// Starts the threads.
pub(crate) fn spawn(
    mechanisms: Mechanisms,
    defaults: SandboxDefaults,
    shards: Vec<Post>,
) -> io::Result<(Nursery, [JoinHandle<()>; 4])> {
    // Bounded by the engine: a shard has at most `sandboxes` of them between its Start and its SandboxDied.
    let (starts, start_inbox) = unbounded();
    let (reaps, reap_inbox) = unbounded();
    let (frosts, [freezer, pauser]) = crate::freezer::spawn(shards.clone())?;
    // What finds no room is said again by the next sandbox.
    let (imports, learned) = bounded(LEARNED_WAITING);
    // Bounded by the engine: a function has one image at most.
    let (drops, drop_inbox) = unbounded();
    // The control thread asks, and waits for the answer.
    let (rolls, roll_inbox) = bounded(1);
    let reap_posts = shards.clone();
    let mut starter = Starter {
        loading: Loading::new(defaults.loaded),
        mechanisms,
        defaults,
        shards,
        sequence: 0,
        zygotes: None,
        rings: Rings::default(),
        ahead: Ahead::default(),
        // One taker of images, which waits for its answer.
        rehearsals: bounded(1),
        drops: drop_inbox,
        rolls: roll_inbox,
    };
    starter.prepare(learned)?;
    let starter = std::thread::Builder::new()
        .name("vilya-starter".into())
        .spawn(move || vital("the starter", || starter.run(&start_inbox)))?;
    let reaper = std::thread::Builder::new()
        .name("vilya-reaper".into())
        .spawn(move || vital("the reaper", || reap(&reap_inbox, &reap_posts)))?;
    Ok((Nursery { starts, reaps, frosts, imports, drops, rolls }, [starter, reaper, freezer, pauser]))
}

struct Starter {
    mechanisms: Mechanisms,
    defaults: SandboxDefaults,
    shards: Vec<Post>,
    sequence: u64,
    /// Where copies can be made.
    zygotes: Option<Arc<Zygotes>>,
    rings: Rings,
    ahead: Ahead,
    loading: Loading,
    rehearsals: (Sender<rehearsal::Request>, Receiver<rehearsal::Request>),
    drops: Receiver<FunctionId>,
    rolls: Receiver<RollCall>,
}

impl Starter {
    /// Has sandboxes made ahead. Without them every start makes its own, and works.
    fn prepare(&mut self, learned: Receiver<Learned>) -> io::Result<()> {
        let SandboxDefaults { prepared, makers, loaded, zygotes_bytes, .. } = self.defaults;
        if prepared == 0 {
            return Ok(());
        }
        let options = PoolOptions {
            template: self.defaults.template(),
            mount_points: vec![FUNCTION],
            size: prepared,
            loaded,
            threads: makers,
            images: self.defaults.prepared_images,
            image_binds: self.defaults.image_binds(),
        };
        match self.mechanisms.chosen().prepare(options) {
            Ok(true) => {
                tracing::debug!(prepared, makers, "sandboxes are made ahead");
                self.ahead = Ahead::new(self.defaults.node_ahead);
                let (rehearsals, shards) = (self.rehearsals.0.clone(), self.shards.clone());
                let zygotes = (zygotes_bytes > 0).then(|| Zygotes::start(zygotes_bytes, shards, rehearsals, learned));
                self.zygotes = zygotes.transpose()?.map(Arc::new);
            }
            Ok(false) => tracing::info!("sandboxes cannot be made ahead here: each start makes its own"),
            Err(error) => tracing::warn!("sandboxes cannot be made ahead: {error}; each start makes its own"),
        }
        Ok(())
    }

    fn run(&mut self, inbox: &Receiver<Start>) {
        self.raise_runtime();
        let (begun, begun_inbox) = unbounded();
        let (failed, failed_inbox) = unbounded();
        let witness = Witness { shards: self.shards.clone(), zygotes: self.zygotes.clone(), failed };
        std::thread::scope(|scope| {
            let witness = std::thread::Builder::new()
                .name("vilya-witness".into())
                .spawn_scoped(scope, move || vital("the witness of starts", || witness.run(&begun_inbox)));
            witness.expect("a thread more, at start");
            while let Some(start) = self.next(inbox, &failed_inbox) {
                let shard = start.shard;
                let sandbox = start.sandbox;
                match self.begin(start) {
                    // The thread waits for exactly this; it ends after this one.
                    Ok(unfinished) => drop(begun.send(unfinished)),
                    Err(why) => {
                        self.shards[shard].send(Message::Started { sandbox, outcome: Box::new(Err(why)) });
                    }
                }
            }
            drop(begun);
        });
    }

    /// The next start; while there is none, rings are made and images loaded for those to come.
    fn next(&mut self, inbox: &Receiver<Start>, failed: &Receiver<Start>) -> Option<Start> {
        loop {
            if let Ok(start) = failed.try_recv() {
                return Some(start);
            }
            match inbox.try_recv() {
                Ok(start) => return Some(start),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) if self.make_ring_ahead() || self.start_node_ahead() => continue,
                Err(TryRecvError::Empty) => {}
            }
            let (rehearsals, drops, rolls) = (self.rehearsals.1.clone(), self.drops.clone(), self.rolls.clone());
            crossbeam_channel::select! {
                recv(inbox) -> start => return start.ok(),
                recv(failed) -> start => return start.ok(),
                recv(rehearsals) -> request => request.into_iter().for_each(|request| self.rehearse(request)),
                // The shards hold the other end, and that of `inbox`: it is seen there that they have ended.
                recv(drops) -> function => function.into_iter().for_each(|function| self.drop_image(function)),
                recv(rolls) -> asked => asked.into_iter().for_each(|asked| self.call_roll(&asked)),
                default(self.loading.pause().min(self.ahead.pause())) => {
                    self.ahead.inspect();
                    self.load_ahead();
                }
            }
        }
    }

    fn begin(&mut self, start: Start) -> Result<Unfinished, String> {
        self.sequence += 1;
        let spec = self.defaults.spec(&start, self.sequence)?;
        // Only the mechanism that makes sandboxes ahead makes copies.
        let is_chosen = self.mechanisms.is_chosen(start.record.manifest.mechanism);
        let manifest = &start.record.manifest;
        let is_alone =
            manifest.network == Network::None && (start.record.image.is_none() || self.defaults.prepared_images > 0);
        let zygotes = self
            .zygotes
            .as_ref()
            .filter(|_| is_chosen && is_alone && !start.whole && start.record.manifest.runtime.is_copied());
        let mut way = zygotes.map(|zygotes| zygotes.way(&start.record, start.shard));
        if let Some(way) = way.as_mut().filter(|way| way.is_runtime && is_set_at_start(&start.record)) {
            way.image = None;
        }
        let copied = way.as_ref().and_then(|way| way.image.clone());
        let copy = copied
            .as_ref()
            .map(|image| CopyOf { image, tells_environment: way.as_ref().is_some_and(|way| way.is_runtime) });
        let begun = self.begin_as(&spec, start, copy)?;
        if let Some(CopyOf { image, tells_environment }) = copy {
            self.loading.wish(Wish::new(spec.clone(), Arc::clone(image), tells_environment));
        }
        let unfinished = Unfinished { copied: copied.clone(), ..begun };
        if way.as_ref().is_some_and(|way| way.raises_runtime) {
            self.raise_runtime();
        }
        if let Some(Way { raises_zygote: true, imports, .. }) = way
            && let Err(why) = self.raise_zygote_of(spec, &unfinished.start, imports)
        {
            tracing::info!(function = unfinished.start.record.name, "no zygote: {why}");
            self.zygotes.iter().for_each(|zygotes| zygotes.refuse(&unfinished.start.record));
        }
        Ok(unfinished)
    }

    fn begin_as(&mut self, spec: &Spec, start: Start, copy: Option<CopyOf<'_>>) -> Result<Unfinished, String> {
        let can_wait = start.record.manifest.runtime == Runtime::Node
            && start.record.image.is_none()
            && self.mechanisms.is_chosen(start.record.manifest.mechanism)
            && !is_set_at_start(&start.record);
        let of_rings_ahead = read_only_by(self.mechanisms.chosen());
        let mechanism = self.mechanisms.get(start.record.manifest.mechanism).map_err(|error| error.to_string())?;
        let read_only_by = read_only_by(mechanism);
        let lanes = start.record.manifest.concurrency;
        let ahead = if lanes == 1 && read_only_by == of_rings_ahead { self.rings.take() } else { None };
        let ring = ahead.map_or_else(|| Ring::new(lanes, self.defaults.payload_limit_bytes, read_only_by), Ok)?;
        let Ring { host, stdout, stderr, descriptors } = ring;
        let waited = can_wait.then(|| self.ahead.become_function(mechanism, spec, &descriptors)).flatten();
        let begun = match waited {
            Some(started) => Begun::Done(Box::new(started)),
            None => mechanism.begin(spec, descriptors, copy).map_err(|error| error.to_string())?,
        };
        Ok(Unfinished { start, begun, host, stdout, stderr, copied: None })
    }
}

/// What keeps a sandbox of this mechanism from writing what it may only read.
fn read_only_by(mechanism: &dyn Mechanism) -> ReadOnlyBy {
    if mechanism.distinct_users() { ReadOnlyBy::Permission } else { ReadOnlyBy::Seal }
}
