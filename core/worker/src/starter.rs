//! The starter and the reaper: two threads that make sandboxes and clean up after them, so that no shard ever waits for
//! a fork, a mount or a control group.
//!
//! Invariant: every start that was asked for is answered once. The starter's thread lives as long as the worker, since
//! a sandbox dies with the thread that made it. It does not know queues, engines or connections.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, unbounded};
use vilya_engine::SandboxId;
use vilya_ipc::host::{Host, ReadOnlyBy};
use vilya_isolate::{
    Begun, Bind, CopyOf, Descriptors, Image, ImageRoot, PoolOptions, Reach, Remains, ResourceLimits, Root, Spec,
    StartError,
};

use crate::ahead::Ahead;
use crate::loading::{Loading, Wish};
use crate::manifest::Runtime;
use crate::mechanisms::Mechanisms;
use crate::mesh::{Message, Post, StartedSandbox};
use crate::network::{Network, NetworkSettings};
use crate::node::{self, NodeHome};
use crate::process::vital;
use crate::python::PythonHome;
use crate::rehearsal::{self, OnStage, Part};
use crate::ring::{Ring, Rings};
use crate::runtimes::{RUNTIMES, RUNTIMES_INSIDE};
use crate::storage::FunctionRecord;
use crate::zygotes::{Subject, Zygote, Zygotes};

/// What every sandbox of this worker has in common.
#[derive(Clone, Debug)]
pub(crate) struct SandboxDefaults {
    pub(crate) python: Option<PythonHome>,
    /// Or why no function of Node can run.
    pub(crate) node: Result<NodeHome, String>,
    pub(crate) bundles: PathBuf,
    pub(crate) payload_limit_bytes: u64,
    pub(crate) processes: u32,
    pub(crate) tmp_bytes: u64,
    pub(crate) open_files: u32,
    pub(crate) cpu_millis: Option<u32>,
    pub(crate) spin_us: Option<u64>,
    /// Sandboxes that are made before they are needed, and the threads that make them.
    pub(crate) prepared: usize,
    pub(crate) makers: usize,
    /// Node processes that are started before their function is known.
    pub(crate) node_ahead: usize,
    /// Sandboxes that have loaded the image that their function's next start asks for, at most.
    pub(crate) loaded: usize,
    /// Most memory of the images that copies are made of; 0 makes none.
    pub(crate) zygotes_bytes: u64,
    pub(crate) start_timeout: Duration,
    pub(crate) network: NetworkSettings,
}

/// The memory limit that a prepared sandbox waits with; a start sets the function's own.
const TEMPLATE_MEMORY_BYTES: u64 = 128 << 20;
/// Where a function's files are inside.
const FUNCTION: &str = "/function";
/// Where programs are looked for inside.
const SEARCH_PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// Tells a runtime that it is to wait until it is copied.
const ZYGOTE_VARIABLE: &str = "VILYA_ZYGOTE";
/// The host name inside. The function's own name is in its environment: what is made before the function is known cannot bear it.
const HOSTNAME: &str = "function";

/// A start that a shard asks for.
pub(crate) struct Start {
    pub(crate) shard: usize,
    pub(crate) sandbox: SandboxId,
    pub(crate) record: Arc<FunctionRecord>,
    pub(crate) cores: Vec<usize>,
    /// Never as a copy: one has failed.
    pub(crate) whole: bool,
}

/// Whether the function sets variables that libraries look at when a process begins, which a copy of a bare runtime has done.
fn is_set_at_start(record: &FunctionRecord) -> bool {
    const PREFIXES: [&str; 11] =
        ["TZ", "LC_", "LANG", "LD_", "GLIBC_", "MALLOC_", "PYTHON", "OPENSSL_", "NODE_", "UV_", "SSL_"];
    record.manifest.environment.keys().any(|name| PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
}

/// A start that has begun.
struct Unfinished {
    start: Start,
    begun: Begun,
    host: Host,
    stdout: OwnedFd,
    stderr: OwnedFd,
    /// The image that it is to be a copy of.
    copied: Option<Arc<Image>>,
}

/// Waits for the ends of starts, in the order in which they began, so that the starter can begin the next.
struct Witness {
    shards: Vec<Post>,
    zygotes: Option<Arc<Zygotes>>,
    /// Starts that failed as copies and are made again.
    failed: Sender<Start>,
}

impl Witness {
    fn run(&self, inbox: &Receiver<Unfinished>) {
        for Unfinished { start, begun, host, stdout, stderr, copied } in inbox {
            let outcome = match (begun.finish(), copied) {
                (Ok(started), _) => Ok(StartedSandbox { host, started, stdout, stderr }),
                (Err(error), Some(image)) => {
                    tracing::warn!(function = start.record.name, "a copy failed and the program is started: {error}");
                    // One that was killed from outside, or was late on a busy machine, says nothing against its image.
                    if matches!(error, StartError::NotCopied | StartError::Step { .. }) {
                        self.zygotes.iter().for_each(|zygotes| zygotes.failed(&start.record, &image));
                    }
                    match self.failed.send(Start { whole: true, ..start }) {
                        Ok(()) => continue,
                        Err(_) => return,
                    }
                }
                (Err(error), None) => Err(error.to_string()),
            };
            let message = Message::Started { sandbox: start.sandbox, outcome: Box::new(outcome) };
            self.shards[start.shard].send(message);
        }
    }
}

/// A dead sandbox to clean up.
pub(crate) struct Reap {
    pub(crate) shard: usize,
    pub(crate) sandbox: SandboxId,
    pub(crate) remains: Remains,
    /// Unmapping what a large payload touched takes a while, so it is done here.
    pub(crate) host: Host,
}

/// The inboxes of the threads that see to sandboxes. Dropping every copy ends them.
#[derive(Clone)]
pub(crate) struct Nursery {
    pub(crate) starts: Sender<Start>,
    pub(crate) reaps: Sender<Reap>,
    pub(crate) frosts: Sender<crate::freezer::Order>,
}

/// Starts the threads.
pub(crate) fn spawn(
    mechanisms: Mechanisms,
    defaults: SandboxDefaults,
    shards: Vec<Post>,
) -> io::Result<(Nursery, [JoinHandle<()>; 3])> {
    // Bounded by the engine: a shard has at most `sandboxes` of them between its Start and its SandboxDied.
    let (starts, start_inbox) = unbounded();
    let (reaps, reap_inbox) = unbounded();
    let (frosts, freezer) = crate::freezer::spawn(shards.clone())?;
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
    };
    starter.prepare()?;
    let starter = std::thread::Builder::new()
        .name("vilya-starter".into())
        .spawn(move || vital("the starter", || starter.run(&start_inbox)))?;
    let reaper = std::thread::Builder::new()
        .name("vilya-reaper".into())
        .spawn(move || vital("the reaper", || reap(&reap_inbox, &reap_posts)))?;
    Ok((Nursery { starts, reaps, frosts }, [starter, reaper, freezer]))
}

fn reap(inbox: &Receiver<Reap>, shards: &[Post]) {
    for Reap { shard, sandbox, remains, host } in inbox {
        drop(host);
        let ended = remains.reap();
        shards[shard].send(Message::Reaped { sandbox, ended });
    }
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
}

impl Starter {
    /// Has sandboxes made ahead. Without them every start makes its own, and works.
    fn prepare(&mut self) -> io::Result<()> {
        let SandboxDefaults { prepared, makers, loaded, zygotes_bytes, .. } = self.defaults;
        if prepared == 0 {
            return Ok(());
        }
        let options = PoolOptions {
            template: self.template(),
            mount_points: vec![FUNCTION],
            size: prepared,
            loaded,
            threads: makers,
        };
        match self.mechanisms.chosen().prepare(options) {
            Ok(true) => {
                tracing::debug!(prepared, makers, "sandboxes are made ahead");
                self.ahead = Ahead::new(self.defaults.node_ahead);
                let zygotes = (zygotes_bytes > 0).then(|| Zygotes::start(zygotes_bytes, self.rehearsals.0.clone()));
                self.zygotes = zygotes.transpose()?.map(Arc::new);
            }
            Ok(false) => tracing::info!("sandboxes cannot be made ahead here: each start makes its own"),
            Err(error) => tracing::warn!("sandboxes cannot be made ahead: {error}; each start makes its own"),
        }
        Ok(())
    }

    /// What every sandbox that is made ahead has in common.
    fn template(&self) -> Spec {
        Spec {
            name: "template".into(),
            command: vec!["/usr/bin/true".into()],
            environment: Vec::new(),
            working_directory: "/".into(),
            root: Root::System,
            binds: self.runtime_binds(),
            limits: self.limits(TEMPLATE_MEMORY_BYTES),
            cores: Vec::new(),
            hostname: HOSTNAME.into(),
            reach: Reach::Nothing,
        }
    }

    /// What the runtimes of every function need.
    fn runtime_binds(&self) -> Vec<Bind> {
        let SandboxDefaults { bundles, python, node, .. } = &self.defaults;
        let shown = |source: PathBuf, target: &str| Bind { source, target: target.into(), read_only: true };
        let python = python.as_ref().and_then(|python| python.prefix.clone());
        let node = node.as_ref().ok().and_then(|node| node.prefix.clone()).map(|prefix| (prefix.clone(), prefix));
        // One within the other is there already.
        let within = |one: &Option<(PathBuf, PathBuf)>, of: &Option<(PathBuf, PathBuf)>| matches!((one, of), (Some((one, _)), Some((of, _))) if one.starts_with(of));
        let node = if within(&node, &python) { None } else { node };
        let python = if within(&python, &node) { None } else { python };
        let prefixes = python.into_iter().chain(node).map(|(inside, outside)| {
            let target = inside.to_string_lossy().into_owned();
            shown(outside, &target)
        });
        std::iter::once(shown(bundles.join(RUNTIMES), RUNTIMES_INSIDE)).chain(prefixes).collect()
    }

    fn limits(&self, memory_bytes: u64) -> ResourceLimits {
        ResourceLimits {
            memory_bytes,
            cpu_millis: self.defaults.cpu_millis,
            processes: self.defaults.processes,
            tmp_bytes: self.defaults.tmp_bytes,
            open_files: self.defaults.open_files,
        }
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
            let rehearsals = self.rehearsals.1.clone();
            crossbeam_channel::select! {
                recv(inbox) -> start => return start.ok(),
                recv(failed) -> start => return start.ok(),
                recv(rehearsals) -> request => request.into_iter().for_each(|request| self.rehearse(request)),
                default(self.loading.pause()) => self.load_ahead(),
            }
        }
    }

    /// Begins a copy that serves nobody.
    fn rehearse(&mut self, request: rehearsal::Request) {
        let Part { spec, lanes, .. } = &request.part;
        let spec = Spec { name: format!("r{}-{}", self.sequence, spec.name), ..spec.clone() };
        self.sequence += 1;
        let copy = Ring::new(*lanes, self.defaults.payload_limit_bytes, ReadOnlyBy::Permission).and_then(|ring| {
            let Ring { host, stdout, stderr, descriptors } = ring;
            let begun = self.mechanisms.chosen().begin(&spec, descriptors, Some(request.copy()));
            begun.map(|begun| OnStage::new(begun, host, [stdout, stderr])).map_err(|error| error.to_string())
        });
        request.answer(copy);
    }

    /// Has a sandbox load the image that was asked for, or ends those whose image is not used any more.
    fn load_ahead(&mut self) {
        let Some(zygotes) = self.zygotes.clone() else { return };
        if !self.loading.is_inspected() {
            self.loading.inspected(self.mechanisms.chosen().keep_loaded(&mut |image| zygotes.has(image)));
        }
        let Some(wish) = self.loading.next() else { return };
        if !zygotes.has(&wish.image) {
            return;
        }
        match self.mechanisms.chosen().load(&wish.spec, wish.copy()) {
            Ok(true) => self.loading.done(),
            Ok(false) => self.loading.refuse(wish),
            Err(error) => tracing::debug!("an image was not loaded ahead: {error}"),
        }
    }

    /// Whether one was made.
    fn make_ring_ahead(&mut self) -> bool {
        let wanted = if self.zygotes.is_some() { self.defaults.prepared } else { 0 };
        self.rings.count() < wanted
            && Ring::new(1, self.defaults.payload_limit_bytes, ReadOnlyBy::Permission)
                .map(|ring| self.rings.keep(ring))
                .is_ok()
    }

    /// Whether one was started.
    fn start_node_ahead(&mut self) -> bool {
        let (Some(memory_bytes), Ok(home)) = (self.ahead.missing(), &self.defaults.node) else { return false };
        let mut command = home.command(memory_bytes);
        command.push(node::AHEAD.into());
        self.sequence += 1;
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let spec = Spec {
            name: format!("ahead-{}", self.sequence),
            command,
            environment: [("PATH", SEARCH_PATH), ("HOME", "/tmp"), ("LANG", "C.UTF-8"), node::ENVIRONMENT]
                .map(own)
                .into(),
            limits: self.limits(memory_bytes),
            ..self.template()
        };
        let started = self.ahead.start(self.mechanisms.chosen(), &spec);
        if let Err(why) = &started {
            tracing::warn!("no process of Node is started ahead: {why}");
            self.ahead.give_up();
        }
        started.is_ok()
    }

    fn begin(&mut self, start: Start) -> Result<Unfinished, String> {
        let spec = self.spec(&start)?;
        // Only the mechanism that makes sandboxes ahead makes copies.
        let is_chosen = self.mechanisms.is_chosen(start.record.manifest.mechanism);
        let manifest = &start.record.manifest;
        let is_alone = start.record.image.is_none() && manifest.network == Network::None;
        let zygotes = self
            .zygotes
            .as_ref()
            .filter(|_| is_chosen && is_alone && !start.whole && start.record.manifest.runtime.is_copied());
        let mut way = zygotes.map(|zygotes| zygotes.way(&start.record));
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
        if way.as_ref().is_some_and(|way| way.raises_zygote)
            && let Err(why) = self.raise_zygote_of(spec, &unfinished.start)
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
        let mechanism = self.mechanisms.get(start.record.manifest.mechanism).map_err(|error| error.to_string())?;
        let read_only_by = if mechanism.distinct_users() { ReadOnlyBy::Permission } else { ReadOnlyBy::Seal };
        let lanes = start.record.manifest.concurrency;
        let ahead = if lanes == 1 && read_only_by == ReadOnlyBy::Permission { self.rings.take() } else { None };
        let ring = ahead.map_or_else(|| Ring::new(lanes, self.defaults.payload_limit_bytes, read_only_by), Ok)?;
        let Ring { host, stdout, stderr, descriptors } = ring;
        let waited = can_wait.then(|| self.ahead.become_function(mechanism, spec, &descriptors)).flatten();
        let begun = match waited {
            Some(started) => Begun::Done(Box::new(started)),
            None => mechanism.begin(spec, descriptors, copy).map_err(|error| error.to_string())?,
        };
        Ok(Unfinished { start, begun, host, stdout, stderr, copied: None })
    }

    /// Starts a sandbox of the function that loads it and then waits to be copied. What it prints is thrown away: the sandboxes that were
    /// started whole have printed it.
    fn raise_zygote_of(&mut self, mut spec: Spec, start: &Start) -> Result<(), String> {
        let part = Part { spec: spec.clone(), lanes: start.record.manifest.concurrency, tells_environment: false };
        spec.name.insert(0, 'z');
        spec.environment.push((ZYGOTE_VARIABLE.into(), "function".into()));
        self.raise_zygote(&spec, part, Subject::Function(Arc::clone(&start.record)))
    }

    /// Starts the Python runtime without a function. Without its image, the first sandboxes of a function are started from the beginning.
    fn raise_runtime(&mut self) {
        let Some(command) = self.python_command() else { return };
        let environment = vec![
            ("PATH".into(), SEARCH_PATH.into()),
            ("LANG".into(), "C.UTF-8".into()),
            (ZYGOTE_VARIABLE.into(), "runtime".into()),
        ];
        let spec = Spec { name: "zygote-python".into(), command, environment, ..self.template() };
        let mut copied = spec.clone();
        // In a rehearsal it serves what every Python has.
        copied.environment[2] = ("VILYA_HANDLER".into(), "json.loads".into());
        let part = Part { spec: copied, lanes: 1, tells_environment: true };
        if let Err(why) = self.raise_zygote(&spec, part, Subject::Runtime(Runtime::Python)) {
            tracing::info!("no zygote of the Python runtime: {why}");
        }
    }

    fn raise_zygote(&mut self, spec: &Spec, part: Part, subject: Subject) -> Result<(), String> {
        let Some(zygotes) = &self.zygotes else { return Ok(()) };
        let failed = |error: io::Error| format!("cannot prepare a zygote: {error}");
        let (says, told) = UnixStream::pair().map_err(failed)?;
        let null = || File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from).map_err(failed);
        let descriptors = Descriptors { ring: [told.into(), null()?, null()?], stdout: null()?, stderr: null()? };
        let started = self.mechanisms.chosen().start(spec, descriptors).map_err(|error| error.to_string())?;
        let patience = self.defaults.start_timeout;
        let working_directory = spec.working_directory.clone();
        let limit_bytes = spec.limits.memory_bytes.min(self.defaults.zygotes_bytes);
        zygotes.raise(Zygote { subject, part, started, says, patience, working_directory, limit_bytes });
        Ok(())
    }

    fn python_command(&self) -> Option<Vec<String>> {
        let interpreter = self.defaults.python.as_ref()?.interpreter.to_string_lossy().into_owned();
        Some(python_arguments(interpreter))
    }

    fn spec(&mut self, start: &Start) -> Result<Spec, String> {
        self.sequence += 1;
        let manifest = &start.record.manifest;
        let mut binds = vec![Bind {
            source: self.defaults.bundles.join(&start.record.bundle),
            target: FUNCTION.into(),
            read_only: true,
        }];
        if manifest.runtime.interpreter().is_some() {
            // What the host's interpreters need besides is not for an image's.
            let most = if start.record.image.is_some() { 1 } else { usize::MAX };
            binds.extend(self.runtime_binds().into_iter().take(most));
        }
        let command = self.command(&start.record)?;
        let asked = manifest.network;
        let refused = |why| format!("network = \"{}\": {why}", asked.as_str());
        let reach = self.defaults.network.reach(asked).map_err(refused)?;
        let root = match &start.record.image {
            Some(image) => image_root(self.defaults.bundles.join(image.directory()))?,
            None => Root::System,
        };
        Ok(Spec {
            name: format!("s{}-{}-{}", start.shard, self.sequence, manifest.name),
            command,
            environment: self.environment(&start.record),
            working_directory: FUNCTION.into(),
            root,
            binds,
            limits: self.limits(manifest.memory_bytes),
            cores: start.cores.clone(),
            hostname: HOSTNAME.into(),
            reach,
        })
    }

    fn command(&self, record: &FunctionRecord) -> Result<Vec<String>, String> {
        const NO_PYTHON: &str =
            "no Python 3.9 or later was found at start; install one or set runtimes.python.interpreter";
        let manifest = &record.manifest;
        // Its interpreter is looked for when it is deployed.
        let inside = record.image.as_ref().map(|image| image.interpreter.clone().unwrap_or_default());
        match manifest.runtime {
            Runtime::Rust | Runtime::C => Ok(vec![format!("{FUNCTION}/{}", manifest.handler)]),
            Runtime::Python => {
                let outside = self.python_command().ok_or(NO_PYTHON)?;
                Ok(inside.map_or(outside, python_arguments))
            }
            Runtime::Node => {
                let home = self.defaults.node.as_ref().map_err(Clone::clone)?;
                let within = |interpreter| node::arguments(interpreter, manifest.memory_bytes);
                Ok(inside.map_or_else(|| home.command(manifest.memory_bytes), within))
            }
        }
    }

    fn environment(&self, record: &FunctionRecord) -> Vec<(String, String)> {
        let manifest = &record.manifest;
        let mut environment: Vec<(String, String)> = vec![
            ("PATH".into(), SEARCH_PATH.into()),
            ("HOME".into(), "/tmp".into()),
            ("LANG".into(), "C.UTF-8".into()),
            ("VILYA_FUNCTION".into(), manifest.name.clone()),
            ("VILYA_VERSION".into(), record.version.to_string()),
            ("VILYA_HANDLER".into(), manifest.handler.clone()),
            ("VILYA_MEMORY_BYTES".into(), manifest.memory_bytes.to_string()),
            ("VILYA_TIMEOUT_MS".into(), (manifest.timeout_ns / 1_000_000).to_string()),
            ("VILYA_CONCURRENCY".into(), manifest.concurrency.to_string()),
        ];
        if !manifest.preload.is_empty() {
            environment.push(("VILYA_PRELOAD".into(), manifest.preload.join(" ")));
        }
        if manifest.runtime == Runtime::Node {
            environment.push((node::ENVIRONMENT.0.into(), node::ENVIRONMENT.1.into()));
        }
        if let Some(spin) = self.defaults.spin_us {
            environment.push(("VILYA_SPIN_US".into(), spin.to_string()));
        }
        for (key, value) in record.image.iter().flat_map(|image| &image.environment) {
            environment.retain(|(name, _)| name != key);
            environment.push((key.clone(), value.clone()));
        }
        // The function's own come last and win, but for the VILYA_ names, which a manifest may not set.
        for (key, value) in &manifest.environment {
            environment.retain(|(name, _)| name != key);
            environment.push((key.clone(), value.clone()));
        }
        environment
    }
}

fn python_arguments(interpreter: String) -> Vec<String> {
    let arguments = ["-I", "-B", "-X", "utf8", "/vilya/python/vilya_runtime/__main__.py"];
    std::iter::once(interpreter).chain(arguments.map(String::from)).collect()
}

/// What is shown of an image: its directories and links, but for those that a sandbox has of its own.
fn image_root(directory: PathBuf) -> Result<Root, String> {
    let failed =
        |error: io::Error| format!("the image {} cannot be read: {error}; deploy it again", directory.display());
    let (mut directories, mut links) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(&directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let kind = entry.file_type().map_err(failed)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if kind.is_dir() {
            directories.push(name);
        } else if kind.is_symlink() {
            let to = std::fs::read_link(entry.path()).map_err(failed)?;
            links.push((name, to.to_string_lossy().into_owned()));
        }
    }
    Ok(Root::Image(ImageRoot { directory, directories, links }))
}
