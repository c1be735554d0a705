//! Every setting's key, type, default and range, and what must hold between them.
//!
//! Invariant: a key appears here once. Defaults that follow the machine are derived from [`Host`] alone, so that
//! the same sources on the same host give the same configuration.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use vilya_isolate::OciRuntime;

use super::ahead;
use super::checked::{
    ConcurrencyPolicy, Config, Cores, Interpreter, KeepAlivePolicy, Limits, NodeSettings, Policies, QueuePolicy,
    Runtimes, Sandbox, SandboxCores, Server, Shards, Spin, SpreadPolicy,
};
use super::images::Images;
use super::network;
use super::raw::Value;
use super::reader::{Reader, duration_ns, in_range, text, wrong_type};
use super::sources::{Host, Problem, Sources};
use super::topology::{SHARDS_MAX, Topology, TopologyError, topology};
use super::units::{GIB, KIB, MIB, MILLISECOND_NS, MINUTE_NS, SECOND_NS, format_bytes};
use crate::mechanisms::MechanismKind;

/// Least memory of a sandbox, which the budget of every shard must hold.
const SANDBOX_MEMORY_MIN_BYTES: u64 = 16 * MIB;
const MAX_PAYLOAD_BYTES: u64 = 64 * MIB;
const MAX_PAYLOAD_LIMIT_BYTES: u64 = GIB;
const SPIN_MAX_NS: u64 = 10 * MILLISECOND_NS;
const DEFAULT_PORT: u16 = 7878;
/// Of the machine's memory, the part that sandboxes may take; the rest is for the worker, its buffers and the system.
const MEMORY_SHARE: (u64, u64) = (3, 4);
const QUEUE_PER_FUNCTION: u32 = 1024;
const INVOCATIONS_PER_CORE: u32 = 1024;
const INVOCATIONS_MIN: u32 = 4096;
const SANDBOXES_PER_CORE: u32 = 64;
const SANDBOXES_MIN: u32 = 128;

// The defaults agree with each other on the smallest machine.
const _: () = assert!(QUEUE_PER_FUNCTION <= INVOCATIONS_MIN);
const _: () = assert!(MAX_PAYLOAD_BYTES <= MAX_PAYLOAD_LIMIT_BYTES);
const _: () = assert!(MEMORY_SHARE.0 < MEMORY_SHARE.1);
const _: () = assert!(INVOCATIONS_MIN as usize >= SHARDS_MAX);
// A route names its owners in a set of this size.
const _: () = assert!(SHARDS_MAX <= vilya_engine::Owners::MOST as usize);

/// Reads, types and cross-checks everything.
pub(super) fn check(sources: &Sources, host: &Host) -> Result<Config, Vec<Problem>> {
    let (raw, problems) = sources.gather();
    let mut reader = Reader::new(raw, problems);
    let server = server(&mut reader, host);
    let cores = cores(&mut reader);
    let limits = limits(&mut reader, host);
    let policies = policies(&mut reader);
    let images = Images::read(&mut reader);
    let runtimes = Runtimes {
        python_interpreter: interpreter(&mut reader, "runtimes.python.interpreter"),
        node: NodeSettings {
            interpreter: interpreter(&mut reader, "runtimes.node.interpreter"),
            addon: interpreter(&mut reader, "runtimes.node.addon"),
        },
    };
    let sandbox = sandbox(&mut reader);
    let limits = Limits { ahead_bytes: ahead::kept_back_bytes(&sandbox, limits.zygotes_bytes), ..limits };
    for problem in sources.near_misses(reader.known()) {
        reader.problem_at(problem);
    }
    let topology = place(&mut reader, host, &cores);
    if let Some(topology) = &topology {
        contradictions(&mut reader, &limits, &policies, topology.shards.len() as u32);
        if let Err(message) = sandbox.network.keep_off(server.ports(topology.shards.len())) {
            reader.problem(network::PORTS_KEY, message);
        }
    }
    let origins = reader.finish()?;
    let topology = topology.expect("cores that cannot be placed are a problem, and there are none");
    Ok(Config { server, cores, limits, policies, runtimes, images, sandbox, topology, origins })
}

fn server(reader: &mut Reader, host: &Host) -> Server {
    let (second, minute) = (SECOND_NS, MINUTE_NS);
    let default_address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), DEFAULT_PORT);
    let state_directory = reader.read("server.state_directory", |value| absolute_path(text(value)?));
    let address = reader.read("server.address", address).unwrap_or(default_address);
    let wire_address = reader.read("server.wire_address", wire_address);
    Server {
        address,
        wire_address: wire_address.unwrap_or_else(|| Some(next_port(address))),
        state_directory: state_directory.unwrap_or_else(|| host.state_directory.clone()),
        max_payload_bytes: reader.bytes("server.max_payload", MAX_PAYLOAD_BYTES, KIB..=MAX_PAYLOAD_LIMIT_BYTES),
        header_timeout_ns: reader.duration_ns("server.header_timeout", 10 * second, 100 * MILLISECOND_NS..=10 * minute),
        idle_timeout_ns: reader.duration_ns(
            "server.idle_timeout",
            75 * second,
            100 * MILLISECOND_NS..=24 * 60 * minute,
        ),
        body_timeout_ns: reader.duration_ns("server.body_timeout", 30 * second, 100 * MILLISECOND_NS..=60 * minute),
        drain_timeout_ns: reader.duration_ns("server.drain_timeout", 30 * second, 0..=60 * minute),
        connections: reader.count("server.connections", 4096, 1..=1_000_000),
    }
}

fn cores(reader: &mut Reader) -> Cores {
    Cores {
        shards: reader.read("cores.shards", shards).unwrap_or(Shards::Auto),
        sandboxes: reader.read("cores.sandboxes", sandbox_cores).unwrap_or(SandboxCores::Auto),
        pin: reader.boolean("cores.pin", true),
        spin: reader.read("cores.spin", spin).unwrap_or(Spin::Auto),
    }
}

fn limits(reader: &mut Reader, host: &Host) -> Limits {
    let cores = u32::try_from(host.cores.len()).unwrap_or(u32::MAX).clamp(1, 1024);
    let memory = host.memory_bytes / MEMORY_SHARE.1 * MEMORY_SHARE.0 / MIB * MIB;
    let invocations = (cores * INVOCATIONS_PER_CORE).clamp(INVOCATIONS_MIN, 1 << 17);
    let invocations = reader.count("limits.invocations", invocations, 1..=1 << 20);
    let sandboxes = (cores * SANDBOXES_PER_CORE).clamp(SANDBOXES_MIN, 8192);
    let sandboxes = reader.count("limits.sandboxes", sandboxes, 1..=1 << 15);
    // What is bounded per function follows the whole, so that lowering the whole alone is no contradiction.
    let per_function = (cores * 4).clamp(16, 512).min(sandboxes);
    Limits {
        memory_bytes: reader.bytes("limits.memory", memory, SANDBOX_MEMORY_MIN_BYTES..=1 << 50),
        // Follows from settings of other sections.
        ahead_bytes: 0,
        functions: reader.count("limits.functions", 4096, 1..=1 << 16),
        invocations,
        queue_per_function: reader.count("limits.queue_per_function", QUEUE_PER_FUNCTION.min(invocations), 1..=1 << 20),
        sandboxes,
        sandboxes_per_function: reader.count("limits.sandboxes_per_function", per_function, 1..=1 << 15),
        starting: reader.count("limits.starting", cores.clamp(4, 256), 1..=1024),
        processes: reader.count("limits.processes", 64, 1..=1 << 15),
        tmp_bytes: reader.bytes("limits.tmp", 64 * MIB, 64 * KIB..=64 * GIB),
        open_files: reader.count("limits.open_files", 1024, 32..=1 << 20),
        start_timeout_ns: reader.duration_ns(
            "limits.start_timeout",
            10 * SECOND_NS,
            100 * MILLISECOND_NS..=10 * MINUTE_NS,
        ),
        log_bytes: reader.bytes("limits.log_bytes", 8 * MIB, 256 * KIB..=64 * GIB),
        zygotes_bytes: reader.bytes("limits.zygotes", host.memory_bytes / 16, 0..=1024 * GIB),
        bodies_bytes: reader.bytes("limits.bodies", (host.memory_bytes / 8).max(MAX_PAYLOAD_BYTES), MIB..=1024 * GIB),
    }
}

fn policies(reader: &mut Reader) -> Policies {
    use {KeepAlivePolicy as KeepAlive, QueuePolicy as Queue, SpreadPolicy as Spread};
    Policies {
        queue: reader.choice("policies.queue", Queue::Fcfs, &[("fcfs", Queue::Fcfs), ("sjf", Queue::Sjf)]),
        keep_alive: reader.choice(
            "policies.keep_alive",
            KeepAlive::Lru,
            &[("lru", KeepAlive::Lru), ("ttl", KeepAlive::Ttl), ("greedy-dual", KeepAlive::GreedyDual)],
        ),
        keep_alive_ttl_ns: reader.duration_ns(
            "policies.keep_alive_ttl",
            10 * MINUTE_NS,
            SECOND_NS..=24 * 60 * MINUTE_NS,
        ),
        trim_after_ns: reader.read("policies.trim_after", idle_step_ns).unwrap_or(TRIM_AFTER_NS),
        freeze_after_ns: reader.read("policies.freeze_after", idle_step_ns).unwrap_or(FREEZE_AFTER_NS),
        quantum_ns: reader.read("policies.quantum", quantum_ns).unwrap_or(QUANTUM_NS),
        concurrency: reader.read("policies.concurrency", concurrency).unwrap_or(ConcurrencyPolicy::Unlimited),
        spread: reader.choice(
            "policies.spread",
            Spread::Auto,
            &[("auto", Spread::Auto), ("off", Spread::Off), ("everywhere", Spread::Everywhere)],
        ),
    }
}

/// As with the memory of large payloads: what is asked for again and again need not be taken again and again.
const TRIM_AFTER_NS: u64 = SECOND_NS;
/// Long enough that a function under load is never frozen, and that thaws are rare beside what they save.
const FREEZE_AFTER_NS: u64 = 10 * SECOND_NS;

/// Longer than most functions take, so that few are noticed; and short of what the kernel lets a process run on while another waits.
const QUANTUM_NS: u64 = 2 * MILLISECOND_NS;

/// `"off"` is 0.
fn quantum_ns(value: &Value) -> Result<u64, String> {
    match value {
        Value::Text(text) | Value::Bare(text) if text == "off" => Ok(0),
        other => {
            let range = MILLISECOND_NS..=MINUTE_NS;
            let ns = duration_ns(other).and_then(|ns| in_range(ns, &range, super::units::format_duration));
            ns.map_err(|error| format!("{error}, or \"off\""))
        }
    }
}

/// How long a sandbox is idle before something is done with it, in the configuration and in manifests; 0 is never.
pub fn idle_step_ns(value: &Value) -> Result<u64, String> {
    match value {
        Value::Text(text) | Value::Bare(text) if text == "off" => Ok(0),
        other => {
            let ns = duration_ns(other).map_err(|error| format!("{error}, or \"off\""))?;
            let range = MILLISECOND_NS..=24 * 60 * MINUTE_NS;
            in_range(ns, &range, super::units::format_duration).map_err(|error| format!("{error}, or \"off\""))
        }
    }
}

fn concurrency(value: &Value) -> Result<ConcurrencyPolicy, String> {
    let bare = |text: &str| text.parse().map_err(|_| wrong_type("\"unlimited\" or a whole number", value));
    let running = match value {
        Value::Text(text) | Value::Bare(text) if text == "unlimited" => {
            return Ok(ConcurrencyPolicy::Unlimited);
        }
        Value::Bare(text) => bare(text)?,
        Value::Integer(running) => *running,
        other => return Err(wrong_type("\"unlimited\" or a whole number", other)),
    };
    match u32::try_from(running) {
        Ok(running) if running > 0 => Ok(ConcurrencyPolicy::Fixed(running)),
        _ => Err(format!("{running} is out of range: write 1 or more, or \"unlimited\"")),
    }
}

fn interpreter(reader: &mut Reader, key: &'static str) -> Interpreter {
    let read = reader.read(key, |value| match text(value)? {
        "auto" => Ok(Interpreter::Auto),
        path => absolute_path(path).map(Interpreter::Path),
    });
    read.unwrap_or(Interpreter::Auto)
}

fn sandbox(reader: &mut Reader) -> Sandbox {
    Sandbox {
        mechanism: reader.choice("sandbox.mechanism", MechanismKind::Native, &MechanismKind::CHOICES),
        docker_socket: reader
            .read("sandbox.docker_socket", |value| absolute_path(text(value)?))
            .unwrap_or_else(|| DOCKER_SOCKET.into()),
        oci_runtime: reader.choice("sandbox.oci_runtime", None, &oci_runtimes()),
        mitigations: reader.choice("sandbox.mitigations", true, &MITIGATIONS),
        cpu_millis: reader.read("sandbox.cpu", cpu_millis).unwrap_or(None),
        spin: reader.read("sandbox.spin", spin).unwrap_or(Spin::Auto),
        prepared: reader.count("sandbox.prepared", PREPARED, 0..=1024),
        prepared_images: reader.count("sandbox.prepared_images", PREPARED_IMAGES, 0..=64),
        network: network::read(reader),
        node_ahead: reader.count("sandbox.node_ahead", NODE_AHEAD, 0..=64),
        loaded: reader.count("sandbox.loaded", LOADED, 0..=1024),
    }
}

/// As many as start at once after a quiet moment; each takes a few hundred KiB of the kernel's memory.
const PREPARED: u32 = 16;

/// Each has a process that makes them, and up to three sandboxes.
const PREPARED_IMAGES: u32 = 4;

const MITIGATIONS: [(&str, bool); 2] = [("on", true), ("off", false)];

/// Each has some 6 MiB of its own, which `ahead` keeps back; none is started before a function of Node was.
const NODE_AHEAD: u32 = 2;
/// Functions that are started one after the other; each takes what a copy touches by itself, in Python 1 to 2 MiB.
const LOADED: u32 = 8;

const DOCKER_SOCKET: &str = "/var/run/docker.sock";

fn oci_runtimes() -> [(&'static str, Option<OciRuntime>); 4] {
    let [first, second, third] = OciRuntime::ALL.map(|runtime| (runtime.name(), Some(runtime)));
    [("auto", None), first, second, third]
}

fn spin(value: &Value) -> Result<Spin, String> {
    match value {
        Value::Text(text) | Value::Bare(text) if text == "auto" => Ok(Spin::Auto),
        other => in_range(duration_ns(other)?, &(0..=SPIN_MAX_NS), super::units::format_duration).map(Spin::Fixed),
    }
}

fn place(reader: &mut Reader, host: &Host, cores: &Cores) -> Option<Topology> {
    match topology(&host.cores, cores) {
        Ok(topology) => return Some(topology),
        Err(TopologyError::Shards(message)) => reader.problem("cores.shards", message),
        Err(TopologyError::Sandboxes(message)) => reader.problem("cores.sandboxes", message),
    }
    None
}

/// What must hold between settings. Each is reported at the setting that is easier to change.
fn contradictions(reader: &mut Reader, limits: &Limits, policies: &Policies, shards: u32) {
    let running = match policies.concurrency {
        ConcurrencyPolicy::Unlimited => u32::MAX,
        ConcurrencyPolicy::Fixed(running) => running,
    };
    let whole = [
        ("policies.concurrency", running),
        ("limits.invocations", limits.invocations),
        ("limits.sandboxes", limits.sandboxes),
        ("limits.starting", limits.starting),
    ];
    for (key, value) in whole {
        if value < shards {
            reader.problem(key, format!("{value} cannot be divided among {shards} shards: write at least {shards}"));
        }
    }
    let least = SANDBOX_MEMORY_MIN_BYTES * u64::from(shards) + limits.ahead_bytes;
    if limits.memory_bytes < least {
        let message = format!(
            "{} is too little for {shards} shards and {} of what is made ahead: write at least {}, or fewer cores.shards, \
             sandbox.prepared, sandbox.loaded or sandbox.node_ahead",
            format_bytes(limits.memory_bytes),
            format_bytes(limits.ahead_bytes),
            format_bytes(least)
        );
        reader.problem("limits.memory", message);
    }
    let within = [
        ("limits.sandboxes_per_function", limits.sandboxes_per_function, "limits.sandboxes", limits.sandboxes),
        ("limits.queue_per_function", limits.queue_per_function, "limits.invocations", limits.invocations),
    ];
    for (part, value, whole, bound) in within {
        if value > bound {
            reader.problem(part, format!("{value} is more than {whole} = {bound}: lower the one or raise the other"));
        }
    }
}

fn address(value: &Value) -> Result<SocketAddr, String> {
    let text = text(value)?;
    let literal = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    let address: SocketAddr = literal.parse().map_err(|_| {
        format!("\"{text}\" is not an address and a port: write for example \"127.0.0.1:7878\" or \"[::1]:7878\"")
    })?;
    if !address.ip().is_loopback() {
        return Err(format!(
            "{} can be reached from other machines and there are no credentials yet: listen on 127.0.0.1 or [::1], and \
             put a proxy that authenticates in front",
            address.ip()
        ));
    }
    Ok(address)
}

/// None when it is off.
fn wire_address(value: &Value) -> Result<Option<SocketAddr>, String> {
    if text(value)? == "off" { Ok(None) } else { address(value).map(Some) }
}

/// The same address with the port above; a port of the kernel's choice stays one.
fn next_port(address: SocketAddr) -> SocketAddr {
    let port = if address.port() == 0 { 0 } else { address.port().saturating_add(1) };
    SocketAddr::new(address.ip(), port)
}

pub(super) fn absolute_path(path: &str) -> Result<PathBuf, String> {
    if path.contains('\0') {
        return Err("a path cannot hold a NUL".to_owned());
    }
    match Path::new(path).is_absolute() {
        true => Ok(PathBuf::from(path)),
        false => Err(format!("\"{path}\" is not an absolute path: start it with /")),
    }
}

fn shards(value: &Value) -> Result<Shards, String> {
    let example = "\"auto\", a number of shards, or a list of cores such as [0, 8] or \"0-3,8\"";
    match value {
        Value::Text(text) | Value::Bare(text) if text == "auto" => Ok(Shards::Auto),
        Value::Integer(count) => usize::try_from(*count).map(Shards::Count).map_err(|_| format!("{count} is negative")),
        Value::Bare(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            text.parse().map(Shards::Count).map_err(|_| format!("\"{text}\" is not {example}"))
        }
        other => core_list(other, example).map(Shards::Cores),
    }
}

fn sandbox_cores(value: &Value) -> Result<SandboxCores, String> {
    match value {
        Value::Text(text) | Value::Bare(text) if text == "auto" => Ok(SandboxCores::Auto),
        Value::Text(text) | Value::Bare(text) if text == "near" => Ok(SandboxCores::Near),
        Value::Text(text) | Value::Bare(text) if text == "shard" => Ok(SandboxCores::Shard),
        other => {
            let example = "\"auto\", \"near\", \"shard\", or a list of cores such as [1, 2] or \"1-7,9\"";
            core_list(other, example).map(SandboxCores::Cores)
        }
    }
}

/// A list of core numbers, or the kernel's notation for one: `0-3,8`.
fn core_list(value: &Value, example: &str) -> Result<Vec<usize>, String> {
    let number = |value: &Value| match value {
        Value::Integer(core) => usize::try_from(*core).map_err(|_| format!("{core} is not a core number")),
        other => Err(wrong_type("a core number", other)),
    };
    match value {
        Value::List(items) => items.iter().map(number).collect(),
        Value::Text(text) | Value::Bare(text) => {
            core_ranges(text).ok_or_else(|| format!("\"{text}\" is not understood: write {example}"))
        }
        other => Err(wrong_type(example, other)),
    }
}

/// The kernel's notation for a list of cores: `0-3,8`.
pub(crate) fn core_ranges(text: &str) -> Option<Vec<usize>> {
    const CORE_MAX: usize = 1 << 16;
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let mut cores = Vec::new();
    for part in inner.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last > CORE_MAX || cores.len() > CORE_MAX {
            return None;
        }
        cores.extend(first..=last);
    }
    Some(cores)
}

fn cpu_millis(value: &Value) -> Result<Option<u32>, String> {
    const CORES_MAX: f64 = 1024.0;
    let cores = match value {
        Value::Text(text) | Value::Bare(text) if text == "none" => return Ok(None),
        Value::Text(text) | Value::Bare(text) => text.parse().ok(),
        Value::Integer(cores) => Some(*cores as f64),
        Value::Float(cores) => Some(*cores),
        other => {
            return Err(wrong_type("a number of cores such as \"1.0\", or \"none\"", other));
        }
    };
    match cores {
        // At least a hundredth of a core, the least the kernel schedules sensibly. A NaN fails the comparison.
        Some(cores) if (0.01..=CORES_MAX).contains(&cores) => Ok(Some((cores * 1000.0).round() as u32)),
        _ => Err(format!("write 0.01 to {CORES_MAX} cores, for example \"1.0\", or \"none\"")),
    }
}

#[cfg(test)]
mod tests;
