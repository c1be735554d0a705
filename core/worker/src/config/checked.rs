//! The checked configuration: plain data in base units, ready to use.
//!
//! Invariant: built only by `rules`, so that every value is in range and agrees with the others.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use vilya_isolate::OciRuntime;

use super::images::Images;
use super::rules;
use super::sources::{Host, Problem, Source, Sources};
use super::topology::Topology;
use crate::mechanisms::MechanismKind;
use crate::network::NetworkSettings;

/// The whole configuration of a worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Listening, state and connections.
    pub server: Server,
    /// Cores asked for; [`Config::topology`] is what came of it.
    pub cores: Cores,
    /// Bounds on everything that could grow, for the whole worker.
    pub limits: Limits,
    /// Scheduling policies.
    pub policies: Policies,
    /// Interpreters on the host.
    pub runtimes: Runtimes,
    /// Container images.
    pub images: Images,
    /// Defaults of every sandbox.
    pub sandbox: Sandbox,
    /// Where shards and sandboxes run on this host.
    pub topology: Topology,
    pub(super) origins: BTreeMap<&'static str, Source>,
}

impl Config {
    /// Reads and checks everything. On failure, every problem there is, in the order of files, lines and names.
    pub fn load(sources: &Sources, host: &Host) -> Result<Config, Vec<Problem>> {
        rules::check(sources, host)
    }

    /// Where the value of a dotted key came from; `None` if there is no such key.
    pub fn origin(&self, key: &str) -> Option<&Source> {
        self.origins.get(key)
    }
}

/// Section `[server]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where to listen. Always a loopback address; port 0 lets the kernel choose.
    pub address: SocketAddr,
    /// Where to listen for the binary protocol; none when it is off. Shard `n` listens on the port `n + 1` above too, or
    /// on one of the kernel's choice where this one is.
    pub wire_address: Option<SocketAddr>,
    /// Directory of the registry, the bundles and the logs.
    pub state_directory: PathBuf,
    /// Largest body of a request or a response.
    pub max_payload_bytes: u64,
    /// From the first byte of a request's head to its last.
    pub header_timeout_ns: u64,
    /// Between requests on a connection.
    pub idle_timeout_ns: u64,
    /// Without progress on a request's body.
    pub body_timeout_ns: u64,
    /// How long a stopping worker waits for running invocations.
    pub drain_timeout_ns: u64,
    /// Open connections at once, each shard.
    pub connections: u32,
}

impl Server {
    /// The ports that it will listen at, as far as the kernel does not choose them.
    pub(super) fn ports(&self, shards: usize) -> impl Iterator<Item = u16> {
        let own = shards as u64;
        let wire = self.wire_address.map(|address| u64::from(address.port())).filter(|port| *port != 0);
        let wire =
            wire.into_iter().flat_map(move |common| common..=common + own).filter_map(|port| port.try_into().ok());
        Some(self.address.port()).filter(|port| *port != 0).into_iter().chain(wire)
    }
}

/// Section `[cores]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores {
    /// How many shards, or on which cores.
    pub shards: Shards,
    /// Where sandboxes run.
    pub sandboxes: SandboxCores,
    /// Whether threads and sandboxes are bound to their cores.
    pub pin: bool,
    /// How long a shard looks for work before it sleeps.
    pub spin: Spin,
}

/// `cores.shards`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shards {
    /// By the rule of [`topology`](super::topology()).
    Auto,
    /// This many, spread evenly.
    Count(usize),
    /// One on each of these cores.
    Cores(Vec<usize>),
}

/// `cores.sandboxes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SandboxCores {
    /// Any core without a shard, or any core on a small machine.
    Auto,
    /// As `Auto`, but only the neighbours of the shard.
    Near,
    /// The core of their shard.
    Shard,
    /// These cores.
    Cores(Vec<usize>),
}

/// Section `[limits]`: for the whole worker unless a field says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sum of the memory limits of all sandboxes, of the images that they are copied from, and of what is made ahead.
    pub memory_bytes: u64,
    /// The part of it for sandboxes, processes and images that are made before a function needs them.
    pub ahead_bytes: u64,
    /// Deployed functions.
    pub functions: u32,
    /// Invocations admitted and unfinished.
    pub invocations: u32,
    /// Invocations waiting, each function.
    pub queue_per_function: u32,
    /// Sandboxes alive.
    pub sandboxes: u32,
    /// Sandboxes alive, each function.
    pub sandboxes_per_function: u32,
    /// Sandbox starts under way at once.
    pub starting: u32,
    /// Processes and threads, each sandbox.
    pub processes: u32,
    /// Size of `/tmp`, each sandbox.
    pub tmp_bytes: u64,
    /// Open files, each process of a sandbox.
    pub open_files: u32,
    /// From the start of a sandbox to its readiness.
    pub start_timeout_ns: u64,
    /// Size of the kept log, each function.
    pub log_bytes: u64,
    /// Memory of the images that sandboxes are copied from; 0 makes none.
    pub zygotes_bytes: u64,
    /// Bytes of bodies held by the worker at once: of requests until they are answered, of large answers until they are sent.
    pub bodies_bytes: u64,
}

/// The part of [`Limits`] that one shard enforces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardLimits {
    /// Sum of the memory limits of the shard's sandboxes and of the images of its functions.
    pub memory_bytes: u64,
    /// Functions the shard may own: all of them, since ownership is by name and may be uneven. The whole worker's
    /// bound is enforced at deployment.
    pub functions: u32,
    /// Invocations admitted and unfinished.
    pub invocations: u32,
    /// Invocations waiting, each function.
    pub queue_per_function: u32,
    /// Sandboxes alive.
    pub sandboxes: u32,
    /// Sandboxes alive, each function.
    pub sandboxes_per_function: u32,
    /// Sandbox starts under way at once.
    pub starting: u32,
}

impl Limits {
    /// The share of shard number `shard` of `shards`. The shares of all shards add up to the whole, and each is at
    /// least 1. A function lives on one shard, so that what is bounded per function is never more than the shard's share.
    ///
    /// # Panics
    ///
    /// If `shard` is not below `shards`.
    pub fn of_shard(&self, shard: usize, shards: usize) -> ShardLimits {
        // A share is no more than the whole, which is a u32.
        let count = |whole: u32| share(u64::from(whole), shard, shards) as u32;
        let (invocations, sandboxes) = (count(self.invocations), count(self.sandboxes));
        ShardLimits {
            memory_bytes: share(self.functions_bytes(), shard, shards),
            functions: self.functions,
            invocations,
            queue_per_function: self.queue_per_function.min(invocations),
            sandboxes,
            sandboxes_per_function: self.sandboxes_per_function.min(sandboxes),
            starting: count(self.starting),
        }
    }

    /// The most memory one sandbox may ask for when there are this many shards: the smallest share.
    pub fn function_memory_bytes(&self, shards: usize) -> u64 {
        self.functions_bytes() / shards.max(1) as u64
    }

    /// What functions have of the memory.
    fn functions_bytes(&self) -> u64 {
        self.memory_bytes.saturating_sub(self.ahead_bytes)
    }
}

/// The part of `whole` that falls to one shard; the first shards take the remainder.
fn share(whole: u64, shard: usize, shards: usize) -> u64 {
    assert!(shard < shards, "shard {shard} of {shards}");
    whole / shards as u64 + u64::from((shard as u64) < whole % shards as u64)
}

/// Section `[policies]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policies {
    /// Order of waiting invocations.
    pub queue: QueuePolicy,
    /// Which idle sandbox or image of a function goes first.
    pub keep_alive: KeepAlivePolicy,
    /// For [`KeepAlivePolicy::Ttl`]: how long a sandbox may be idle.
    pub keep_alive_ttl_ns: u64,
    /// How long a sandbox is idle before it is advised to give memory back; 0: it never is.
    pub trim_after_ns: u64,
    /// How long a sandbox is idle before it is frozen; 0: it never is.
    pub freeze_after_ns: u64,
    /// How long an invocation runs before its sandbox gives way to others; 0: it never does.
    pub quantum_ns: u64,
    /// How many invocations run at once.
    pub concurrency: ConcurrencyPolicy,
    /// How many shards own a function.
    pub spread: SpreadPolicy,
}

/// `policies.queue`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueuePolicy {
    /// First come, first served.
    Fcfs,
    /// Shortest expected run first.
    Sjf,
}

/// `policies.keep_alive`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAlivePolicy {
    /// Kept until memory is needed; the least recently used goes first.
    Lru,
    /// As `Lru`, and none is idle for longer than the time to live.
    Ttl,
    /// Kept until memory is needed; what spares the least start time for its memory goes first.
    GreedyDual,
}

/// `policies.spread`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpreadPolicy {
    /// More than one while one is not enough.
    Auto,
    /// One, always.
    Off,
    /// Every shard owns every function.
    Everywhere,
}

/// `policies.concurrency`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConcurrencyPolicy {
    /// As many as the sandboxes can take.
    Unlimited,
    /// At most this many over the whole worker.
    Fixed(u32),
}

impl ConcurrencyPolicy {
    /// Invocations that shard number `shard` of `shards` runs at once; `u32::MAX` is no bound of its own.
    pub fn of_shard(self, shard: usize, shards: usize) -> u32 {
        match self {
            ConcurrencyPolicy::Unlimited => u32::MAX,
            // A share is no more than the whole, which is a u32.
            ConcurrencyPolicy::Fixed(running) => share(u64::from(running), shard, shards) as u32,
        }
    }
}

/// Sections `[runtimes.*]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtimes {
    /// `runtimes.python.interpreter`.
    pub python_interpreter: Interpreter,
    /// `runtimes.node.*`.
    pub node: NodeSettings,
}

/// Section `[runtimes.node]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSettings {
    /// `runtimes.node.interpreter`.
    pub interpreter: Interpreter,
    /// `runtimes.node.addon`: the shared object that Node's runtime is linked from.
    pub addon: Interpreter,
}

/// An interpreter, or what one needs, on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interpreter {
    /// The usual one, looked for at start.
    Auto,
    /// This one; an absolute path.
    Path(PathBuf),
}

/// Section `[sandbox]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// What makes the sandboxes of functions that do not say.
    pub mechanism: MechanismKind,
    /// The program behind [`MechanismKind::Oci`]; `None` is the first of them that works.
    pub oci_runtime: Option<OciRuntime>,
    /// Where the engine behind [`MechanismKind::Docker`] listens.
    pub docker_socket: PathBuf,
    /// Whether what sandboxes share in the processor is turned off, where the kernel can.
    pub mitigations: bool,
    /// Processor time, in thousandths of a core; `None` is no limit.
    pub cpu_millis: Option<u32>,
    /// How long a runtime spins for its next invocation before it sleeps.
    pub spin: Spin,
    /// Sandboxes made before they are needed.
    pub prepared: u32,
    /// Images of functions for which some more are made, once there was a start in one.
    pub prepared_images: u32,
    /// What functions may reach.
    pub network: NetworkSettings,
    /// Node processes started before their function is known.
    pub node_ahead: u32,
    /// Those of them, besides, that have loaded the image which a start will ask for.
    pub loaded: u32,
}

/// `sandbox.spin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spin {
    /// Adapted by the runtime to what it sees.
    Auto,
    /// This long, in nanoseconds; 0 is never.
    Fixed(u64),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::units::GIB;

    fn limits() -> Limits {
        let host = Host { cores: (0..16).collect(), memory_bytes: 64 * GIB, state_directory: "/s".into() };
        Config::load(&Sources::default(), &host).unwrap().limits
    }

    #[test]
    fn shares_add_up_to_the_whole() {
        let mut limits = limits();
        limits.invocations = 1001;
        limits.memory_bytes = 7 * GIB + 5;
        for shards in [1, 2, 3, 7, 16] {
            let parts: Vec<ShardLimits> = (0..shards).map(|shard| limits.of_shard(shard, shards)).collect();
            assert_eq!(parts.iter().map(|part| part.invocations).sum::<u32>(), 1001);
            let memory = parts.iter().map(|part| part.memory_bytes).sum::<u64>();
            assert_eq!(memory + limits.ahead_bytes, limits.memory_bytes);
            assert_eq!(parts.iter().map(|part| part.sandboxes).sum::<u32>(), limits.sandboxes);
            assert!(parts.iter().all(|part| part.memory_bytes >= limits.function_memory_bytes(shards)));
            assert!(parts.iter().all(|part| part.sandboxes_per_function <= part.sandboxes));
            assert!(parts.iter().all(|part| part.queue_per_function <= part.invocations));
            let fixed = ConcurrencyPolicy::Fixed(100);
            assert_eq!((0..shards).map(|shard| fixed.of_shard(shard, shards)).sum::<u32>(), 100);
        }
    }
}
