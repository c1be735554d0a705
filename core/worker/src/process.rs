//! Starting and stopping a worker: its threads, in order, and what each is given.
//!
//! Invariant: when `start` returns, every shard listens and every function of an earlier run is routed; when `drain`
//! returns, nothing of the worker is left but its state directory. A shard that panics takes the process with it: its
//! sandboxes die with it, and the next start cleans up, which a half-dead worker could not.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, getsockname, listen, setsockopt, socket, sockopt,
};
use vilya_engine::policy::Policies;
use vilya_engine::policy::concurrency::ConcurrencyPolicy;
use vilya_engine::policy::keepalive::KeepAlivePolicy;
use vilya_engine::policy::queue::QueuePolicy;
use vilya_engine::{Bytes, Engine, Limits, Nanos, SpreadPolicy};
use vilya_image::bundle::BundleLimits;
use vilya_ipc::spin::SPIN_CAP;
use vilya_isolate::{Swept, Unpacker};
use vilya_reactor::{Reactor, Waker};

use crate::config::{self, Config};
use crate::control::{Control, Deployments, Parts};
use crate::descriptors::{self, Wanted};
use crate::mechanisms::{MechanismSettings, Mechanisms};
use crate::mesh::{ControlMessage, Message, Post};
use crate::node;
use crate::python;
use crate::request::random_u64;
use crate::runtimes::RUNTIMES;
use crate::shard::{Links, Listeners, Settings, Shard, Timeouts};
use crate::starter::{self, Nursery, SandboxDefaults};
use crate::storage::{Catalog, CatalogLimits, LogFiles, LogWriter};

/// Connections that may wait to be accepted, each shard.
const BACKLOG: i32 = 4096;
/// Provided buffers of a shard: count and bytes of each.
const RECEIVE_BUFFERS: (u16, u32) = (256, 16 * 1024);

/// Why a worker did not start. The message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state directory cannot be used.
    #[error("the state directory {path} cannot be used: {reason}")]
    State {
        /// As configured.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// The address cannot be listened on.
    #[error(
        "{address} cannot be listened on: {source}; is another worker running? set server.address or server.wire_address"
    )]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A port that functions may reach is the worker's own.
    #[error("sandbox.host_loopback_ports: {0}")]
    HostLoopback(String),
    /// A ring could not be made.
    #[error("{0}")]
    Reactor(#[from] vilya_reactor::SetupError),
    /// This host cannot make sandboxes.
    #[error("{0}")]
    Sandboxes(String),
    /// The limits contradict each other.
    #[error("the limits cannot be used: {0}")]
    Limits(String),
    /// A thread could not be made or ended at once.
    #[error("a thread of the worker could not be started: {0}")]
    Thread(#[from] io::Error),
}

/// A worker to be started.
pub struct Worker;

/// A worker that serves. Dropping it without [`Running::drain`] leaves its threads serving until the process ends.
pub struct Running {
    address: SocketAddr,
    wire_address: Option<SocketAddr>,
    posts: Vec<Post>,
    shards: Vec<JoinHandle<()>>,
    control: JoinHandle<()>,
    control_post: Sender<ControlMessage>,
    nursery: Option<Nursery>,
    nursery_threads: [JoinHandle<()>; 4],
    logs: LogWriter,
}

/// What a shard's thread says once its ring is up.
type Born = Result<(Waker, RawFd), vilya_reactor::SetupError>;

struct Cradle {
    thread: JoinHandle<()>,
    give: Sender<(Settings, Links, Listeners, Engine)>,
    post: Post,
    inbox: Receiver<Message>,
}

impl Worker {
    /// Starts a worker and returns once it serves.
    ///
    /// # Errors
    /// Whatever keeps it from serving; nothing is left running then.
    pub fn start(config: &Config) -> Result<Running, StartError> {
        // Before anything else, so that what it and its children have of this process is little.
        let unpacker = Unpacker::start(vilya_image::work).map_err(|error| StartError::Sandboxes(error.to_string()))?;
        let state = &config.server.state_directory;
        let bad_state = |reason: String| StartError::State { path: state.display().to_string(), reason };
        let place = std::fs::create_dir_all(state.join(RUNTIMES)).and_then(|()| std::fs::canonicalize(state)).map_err(
            |error| bad_state(format!("{error}; set server.state_directory or VILYA_SERVER__STATE_DIRECTORY")),
        )?;
        // Links above it are the operator's and are followed this once: nothing below is ever found through one.
        let mut placed = config.clone();
        placed.server.state_directory = place;
        placed.sandbox.network.egress.settle();
        let (config, state) = (&placed, &placed.server.state_directory);
        let catalog = Catalog::open(state, catalog_limits(config)).map_err(|error| bad_state(error.to_string()))?;
        let records = catalog.list().map_err(|error| bad_state(error.to_string()))?;
        let wanted = Wanted::by(config);
        let ahead = wanted.prepared_within(descriptors::raise_limit(&wanted));
        let mechanisms = mechanisms(config, catalog.worker_id())?;
        let offered = mechanism_settings(config, catalog.worker_id());
        let catalog = catalog.offering(offered).unpacked_by(Arc::new(unpacker));
        let http = listeners(config.server.address, config.topology.shards.len())?;
        let address = local_address(&http[0])?;
        let wire = WireListeners::open(config)?;
        let common = wire.address.map(|address| address.port());
        let own = wire.ports.iter().copied().chain(common).chain([address.port()]);
        config.sandbox.network.keep_off(own).map_err(StartError::HostLoopback)?;

        let most_functions = most_functions(config, records.len());
        let engines = engines(config, most_functions, &wire.ports)?;
        let cradles = give_birth(config)?;
        let posts: Vec<Post> = cradles.iter().map(|cradle| cradle.post.clone()).collect();
        let logs = LogFiles::open(&state.join("logs"), config.limits.log_bytes)
            .and_then(LogWriter::start)
            .map_err(|error| bad_state(error.to_string()))?;
        let (nursery, nursery_threads) = starter::spawn(mechanisms, sandbox_defaults(config, ahead), posts.clone())?;
        let (control_post, control_inbox) = unbounded();

        let mut shards = Vec::with_capacity(cradles.len());
        let wire_address = wire.address;
        let listeners = http.into_iter().zip(wire.of_shards);
        for ((cradle, (http, wire)), (settings, engine)) in cradles.into_iter().zip(listeners).zip(engines) {
            let links = Links {
                inbox: cradle.inbox,
                shards: posts.clone(),
                control: control_post.clone(),
                nursery: nursery.clone(),
                logs: logs.sender(),
            };
            // The thread waits for exactly this; it cannot have gone.
            let _ = cradle.give.send((settings, links, Listeners { http, wire }, engine));
            shards.push(cradle.thread);
        }

        let deployments = Deployments::new(&config.images, &control_post);
        let (logs_control, spread) = (logs.control(), spread(config));
        let parts = Parts {
            catalog,
            deployments,
            logs: logs_control,
            shards: posts.clone(),
            most_functions,
            spread,
            rolls: nursery.rolls.clone(),
            ahead_bytes: config.limits.ahead_bytes,
        };
        let mut control = Control::new(parts);
        control.restore(records);
        let control = std::thread::Builder::new()
            .name("vilya-control".into())
            .spawn(move || vital("the control thread", || control.run(&control_inbox)))?;
        tracing::info!(%address, shards = posts.len(), "serving");
        Ok(Running {
            address,
            wire_address,
            posts,
            shards,
            control,
            control_post,
            nursery: Some(nursery),
            nursery_threads,
            logs,
        })
    }
}

impl Running {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens for the binary protocol; none when it is off.
    pub fn wire_address(&self) -> Option<SocketAddr> {
        self.wire_address
    }

    /// Takes no more work, finishes what is under way within `server.drain_timeout`, and ends every thread and sandbox.
    pub fn drain(mut self) {
        // What waits for a registry or an archive is answered, so that no shard waits for it.
        let _ = self.control_post.send(ControlMessage::EndDeployments);
        // In two steps: a shard that is drained still takes the answers that others owe its connections.
        let (tell, drained) = bounded(self.posts.len());
        for post in &self.posts {
            post.send(Message::Drain(tell.clone()));
        }
        drop(tell);
        for _ in &self.posts {
            if drained.recv().is_err() {
                break;
            }
        }
        for post in &self.posts {
            post.send(Message::Stop);
        }
        for shard in self.shards {
            join(shard);
        }
        // The control thread keeps a sender of its own through no one: it ends when told.
        let _ = self.control_post.send(ControlMessage::Stop);
        join(self.control);
        drop(self.nursery.take());
        for thread in self.nursery_threads {
            join(thread);
        }
        // Writes out what the shards sent before they ended.
        drop(self.logs);
    }
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("a thread of the worker ended in a panic");
    }
}

fn catalog_limits(config: &Config) -> CatalogLimits {
    CatalogLimits {
        functions: config.limits.functions,
        function_memory_bytes: config.limits.function_memory_bytes(config.topology.shards.len()),
        bundle: BundleLimits::default(),
        image_bytes: config.images.max_size_bytes,
    }
}

/// Removes what an earlier run left behind, and sets up the mechanism of the configuration.
fn mechanisms(config: &Config, worker_id: &str) -> Result<Mechanisms, StartError> {
    let state = &config.server.state_directory;
    let failed = |error: &dyn std::fmt::Display| StartError::Sandboxes(error.to_string());
    let swept = vilya_isolate::sweep(state, worker_id).map_err(|error| failed(&error))?;
    if swept != Swept::default() {
        let Swept { groups, containers, links, processes, stuck } = &swept;
        tracing::info!(groups, containers, links, processes, "removed what an earlier run left behind");
        for (path, why) in stuck {
            tracing::warn!("what an earlier run left could not be removed: {}: {why}", path.display());
        }
    }
    Mechanisms::new(mechanism_settings(config, worker_id)).map_err(|error| failed(&error))
}

fn mechanism_settings(config: &Config, worker_id: &str) -> MechanismSettings {
    MechanismSettings {
        chosen: config.sandbox.mechanism,
        state_directory: config.server.state_directory.clone(),
        worker_id: worker_id.to_owned(),
        oci_runtime: config.sandbox.oci_runtime,
        docker_socket: config.sandbox.docker_socket.clone(),
        mitigations: config.sandbox.mitigations,
        network: config.sandbox.network.clone(),
    }
}

/// One listening socket a shard on one address. The first is bound alone, so that an address that another process
/// holds is an error and not a share of its connections.
fn listeners(wanted: SocketAddr, shards: usize) -> Result<Vec<OwnedFd>, StartError> {
    let failed = |source: io::Error| StartError::Listen { address: wanted, source };
    let mut address = wanted;
    if wanted.port() != 0 {
        listener(wanted, false).map_err(failed)?;
    }
    let mut listeners = Vec::new();
    for _ in 0..shards {
        let one = listener(address, true).map_err(failed)?;
        address = local_address(&one).map_err(failed)?;
        listeners.push(one);
    }
    Ok(listeners)
}

/// The sockets of the binary protocol: a common address for any shard, and a port for each.
struct WireListeners {
    address: Option<SocketAddr>,
    ports: Vec<u16>,
    /// For each shard the common socket and its own; none when the protocol is off.
    of_shards: Vec<Option<[OwnedFd; 2]>>,
}

impl WireListeners {
    fn open(config: &Config) -> Result<WireListeners, StartError> {
        let shards = config.topology.shards.len();
        let Some(wanted) = config.server.wire_address else {
            return Ok(WireListeners {
                address: None,
                ports: Vec::new(),
                of_shards: (0..shards).map(|_| None).collect(),
            });
        };
        let mut open = WireListeners { address: None, ports: Vec::new(), of_shards: Vec::new() };
        for (shard, common) in listeners(wanted, shards)?.into_iter().enumerate() {
            open.address = Some(local_address(&common)?);
            let mut own = wanted;
            if wanted.port() != 0 {
                let port = u16::try_from(usize::from(wanted.port()) + 1 + shard);
                let too_high = |_| StartError::Listen {
                    address: wanted,
                    source: io::Error::other("the ports above it, one for each shard, would be over 65535"),
                };
                own.set_port(port.map_err(too_high)?);
            }
            let socket = listeners(own, 1)?.remove(0);
            open.ports.push(local_address(&socket)?.port());
            open.of_shards.push(Some([common, socket]));
        }
        Ok(open)
    }
}

fn listener(address: SocketAddr, shared: bool) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    if shared {
        setsockopt(&fd, sockopt::ReusePort, &true)?;
    }
    // Inherited by every connection accepted from it.
    setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    if shared {
        listen(&fd, Backlog::new(BACKLOG)?)?;
    }
    Ok(fd)
}

fn local_address(fd: &OwnedFd) -> io::Result<SocketAddr> {
    let name: SockaddrStorage = getsockname(fd.as_raw_fd())?;
    let v4 = name.as_sockaddr_in().map(|v4| SocketAddr::from((v4.ip(), v4.port())));
    let v6 = name.as_sockaddr_in6().map(|v6| SocketAddr::from((v6.ip(), v6.port())));
    v4.or(v6).ok_or_else(|| io::Error::other("the listening socket has no internet address"))
}

/// Starts the shards' threads, each pinned and with its ring, and waits until all have one.
fn give_birth(config: &Config) -> Result<Vec<Cradle>, StartError> {
    let mut cradles = Vec::new();
    for (shard, placement) in config.topology.shards.iter().enumerate() {
        let (born, tell) = bounded::<Born>(1);
        let (give, given) = bounded(1);
        let core = config.topology.pin.then_some(placement.core);
        let reactor = reactor_config(config, shard);
        let thread = std::thread::Builder::new()
            .name(format!("vilya-shard-{shard}"))
            .spawn(move || live(core, &reactor, &born, &given))?;
        let (waker, ring_fd) =
            tell.recv().map_err(|_| io::Error::other("a shard's thread ended before its ring was up"))??;
        let (post, inbox) = Post::new(waker, ring_fd);
        cradles.push(Cradle { thread, give, post, inbox });
    }
    Ok(cradles)
}

/// A shard's thread: its core, its ring, then its loop.
fn live(
    core: Option<usize>,
    reactor: &vilya_reactor::Config,
    born: &Sender<Born>,
    given: &Receiver<(Settings, Links, Listeners, Engine)>,
) {
    if let Some(core) = core {
        pin(core);
    }
    if let Err(error) = vilya_isolate::ask_for_short_turns() {
        tracing::warn!("a shard waits for the turns of other threads to end: {error}");
    }
    let reactor = match Reactor::new(reactor) {
        Ok(reactor) => reactor,
        Err(error) => {
            // The starting thread waits for exactly this.
            let _ = born.send(Err(error));
            return;
        }
    };
    let _ = born.send(Ok((reactor.waker(), reactor.ring_fd())));
    let Ok((settings, links, listeners, engine)) = given.recv() else { return };
    let number = settings.shard;
    let mut shard = Shard::new(settings, links, reactor, listeners, engine);
    vital("a shard", || {
        if let Err(error) = shard.run() {
            tracing::error!("the ring of shard {number} failed: {error}; the worker stops");
            std::process::abort();
        }
    });
}

/// Runs what the worker cannot do without: a panic in it ends the process, for the others would wait for it in vain.
pub(crate) fn vital(what: &str, run: impl FnOnce()) {
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err() {
        tracing::error!("{what} panicked, which is a bug of Vilya; the worker stops");
        std::process::abort();
    }
}

fn pin(core: usize) {
    let mut set = CpuSet::new();
    let pinned = set.set(core).and_then(|()| sched_setaffinity(nix::unistd::Pid::from_raw(0), &set));
    if let Err(error) = pinned {
        tracing::warn!("a shard could not be pinned to core {core}: {error}");
    }
}

pub(crate) fn reactor_config(config: &Config, shard: usize) -> vilya_reactor::Config {
    let limits = config.limits.of_shard(shard, config.topology.shards.len());
    vilya_reactor::Config {
        entries: 1024,
        completion_entries: 8192,
        buffer_count: RECEIVE_BUFFERS.0,
        buffer_bytes: RECEIVE_BUFFERS.1,
        // A connection receives, sends and is closed; a sandbox has a doorbell, a death and two streams.
        operations: 3 * config.server.connections + 4 * limits.sandboxes + 1024,
        files: descriptors::kept_within(limits.sandboxes),
    }
}

/// Functions that one shard can number: a version that is being replaced is held beside the one that replaces it, and
/// what an earlier run with other limits left is served.
fn most_functions(config: &Config, restored: usize) -> u32 {
    let restored = u32::try_from(restored).unwrap_or(u32::MAX);
    config.limits.functions.max(restored).saturating_mul(2).min(Limits::MOST_FUNCTIONS)
}

/// Every shard's settings and engine, made before any shard serves.
fn engines(config: &Config, most_functions: u32, wire_ports: &[u16]) -> Result<Vec<(Settings, Engine)>, StartError> {
    let run_id = random_u64();
    let made = (0..config.topology.shards.len()).map(|shard| {
        let mut settings = settings(config, shard, run_id);
        settings.wire_ports = wire_ports.into();
        settings.engine.limits.functions = most_functions;
        let engine = Engine::new(settings.engine).map_err(|error| StartError::Limits(error.to_string()))?;
        Ok((settings, engine))
    });
    made.collect()
}

fn settings(config: &Config, shard: usize, run_id: u64) -> Settings {
    let limits = config.limits.of_shard(shard, config.topology.shards.len());
    Settings {
        shard,
        engine: vilya_engine::Config {
            limits: Limits {
                functions: limits.functions,
                invocations: limits.invocations,
                queue_per_function: limits.queue_per_function,
                sandboxes: limits.sandboxes,
                sandboxes_per_function: limits.sandboxes_per_function,
                starting: limits.starting,
                memory: Bytes::from_bytes(limits.memory_bytes),
                start_timeout: Nanos::from_nanos(config.limits.start_timeout_ns),
                drain_timeout: Nanos::from_nanos(config.server.drain_timeout_ns),
            },
            policies: policies(&config.policies, shard, config.topology.shards.len()),
        },
        http: vilya_protocol::http::Limits {
            body_bytes: config.server.max_payload_bytes,
            ..vilya_protocol::http::Limits::default()
        },
        connections: config.server.connections as usize,
        // A share that no largest body fits into would refuse it for ever.
        bodies_bytes: (config.limits.bodies_bytes / config.topology.shards.len() as u64)
            .max(config.server.max_payload_bytes),
        timeouts: Timeouts {
            header_ns: config.server.header_timeout_ns,
            idle_ns: config.server.idle_timeout_ns,
            body_ns: config.server.body_timeout_ns,
        },
        sandbox_cores: if config.topology.pin {
            config.topology.shards[shard].sandbox_cores.clone()
        } else {
            Vec::new()
        },
        spin_cap: spin_cap(config),
        run_id,
        wire_ports: Arc::default(),
        trim_after_ns: config.policies.trim_after_ns,
        freeze_after_ns: config.policies.freeze_after_ns,
        spreads: spread(config) == SpreadPolicy::Auto,
    }
}

/// A shard with a core of its own may look for work there before it sleeps; on a shared one it would keep from running what
/// it waits for.
fn spin_cap(config: &Config) -> Duration {
    match config.cores.spin {
        config::Spin::Fixed(ns) => Duration::from_nanos(ns),
        config::Spin::Auto if config.topology.is_dedicated() => SPIN_CAP,
        config::Spin::Auto => Duration::ZERO,
    }
}

/// One shard has nobody to spread to.
fn spread(config: &Config) -> SpreadPolicy {
    match config.policies.spread {
        config::SpreadPolicy::Auto if config.topology.shards.len() > 1 => SpreadPolicy::Auto,
        config::SpreadPolicy::Everywhere => SpreadPolicy::Everywhere,
        _ => SpreadPolicy::Off,
    }
}

fn policies(config: &config::Policies, shard: usize, shards: usize) -> Policies {
    Policies {
        queue: match config.queue {
            config::QueuePolicy::Fcfs => QueuePolicy::Fcfs,
            config::QueuePolicy::Sjf => QueuePolicy::Sjf,
        },
        keepalive: match config.keep_alive {
            config::KeepAlivePolicy::Lru => KeepAlivePolicy::Lru,
            config::KeepAlivePolicy::GreedyDual => KeepAlivePolicy::GreedyDual,
            config::KeepAlivePolicy::Ttl => KeepAlivePolicy::Ttl { idle: Nanos::from_nanos(config.keep_alive_ttl_ns) },
        },
        concurrency: ConcurrencyPolicy::Fixed { running: config.concurrency.of_shard(shard, shards) },
        quantum: (config.quantum_ns > 0).then(|| Nanos::from_nanos(config.quantum_ns)),
    }
}

/// `ahead` is how many sandboxes may be made ahead in all.
fn sandbox_defaults(config: &Config, ahead: u64) -> SandboxDefaults {
    let prepared = ahead.min(config.sandbox.prepared.into());
    let loaded = u64::from(config.sandbox.loaded).min(ahead - prepared);
    let of_images = (ahead - prepared - loaded) / vilya_isolate::OF_IMAGE as u64;
    let prepared_images = of_images.min(config.sandbox.prepared_images.into());
    let state = &config.server.state_directory;
    let python = python::prepare(&config.runtimes.python_interpreter, state)
        .inspect_err(|why| tracing::warn!("Python functions cannot run: {why}"))
        .ok();
    let node = node::prepare(&config.runtimes.node, state)
        .inspect_err(|why| tracing::info!("Node functions cannot run: {why}"));
    SandboxDefaults {
        python,
        node,
        bundles: state.clone(),
        payload_limit_bytes: config.server.max_payload_bytes,
        processes: config.limits.processes,
        tmp_bytes: config.limits.tmp_bytes,
        open_files: config.limits.open_files,
        cpu_millis: config.sandbox.cpu_millis,
        spin_us: match config.sandbox.spin {
            config::Spin::Auto => None,
            config::Spin::Fixed(ns) => Some(ns / 1000),
        },
        prepared: prepared as usize,
        node_ahead: config.sandbox.node_ahead as usize,
        prepared_images: prepared_images as usize,
        loaded: loaded as usize,
        zygotes_bytes: config.limits.zygotes_bytes,
        start_timeout: Duration::from_nanos(config.limits.start_timeout_ns),
        makers: config.topology.shards.len().div_ceil(MAKER_SHARDS),
        network: config.sandbox.network.clone(),
    }
}

/// Shards whose starts one maker of sandboxes keeps up with.
const MAKER_SHARDS: usize = 4;
