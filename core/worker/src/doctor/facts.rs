//! The facts: what this host answered.
//!
//! Owns: every trial. Invariant: each is one that a start makes too (a ring, a sandbox of the configured mechanism, a listening socket, the
//! state directory), under names of this process's own, and is taken back. It does not know what an answer means.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use vilya_isolate::{Hierarchy, Protection};
use vilya_reactor::Reactor;

use crate::config::{Config, ShardPlacement};
use crate::descriptors::{self, Wanted};
use crate::mechanisms::{MechanismKind, MechanismSettings, Mechanisms};
use crate::process::reactor_config;
use crate::{node, python};

/// Files of one line or one number that are facts as they are; absent where the kernel has none.
pub(super) const SETTINGS: [&str; 18] = [
    "/proc/sys/kernel/unprivileged_userns_clone",
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
    "/proc/sys/user/max_user_namespaces",
    "/proc/sys/kernel/io_uring_disabled",
    "/proc/sys/kernel/yama/ptrace_scope",
    "/proc/sys/vm/memfd_noexec",
    "/proc/sys/vm/max_map_count",
    "/proc/sys/kernel/pid_max",
    "/sys/kernel/mm/ksm/run",
    "/sys/devices/system/cpu/smt/active",
    "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
    "/sys/devices/system/clocksource/clocksource0/current_clocksource",
    "/proc/swaps",
    "/proc/sys/kernel/osrelease",
    "/sys/kernel/security/lsm",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/devices/system/cpu/isolated",
    "/sys/devices/system/cpu/nohz_full",
];

/// How long a port of this host may take to answer; one whose queue is full does not.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);

/// What was answered.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) is_root: bool,
    pub(super) mechanism: MechanismKind,
    /// What protects a trial sandbox, or why there was none.
    pub(super) sandboxes: Result<Vec<Protection>, String>,
    /// Whether a shard's ring could be made.
    pub(super) ring: Result<(), String>,
    /// Calls that every sandbox needs: the name, the first Linux that has it, and what the kernel answered.
    pub(super) calls: Vec<(&'static str, &'static str, Result<(), String>)>,
    /// The interface of Landlock; 0 is none.
    pub(super) landlock: u32,
    /// The control groups that are mounted.
    pub(super) groups: Result<Vec<Hierarchy>, String>,
    /// Where shards and sandboxes are bound to; none where nothing is bound.
    pub(super) shard_cores: Vec<usize>,
    pub(super) sandbox_cores: Vec<usize>,
    /// Each port of the loopback that functions may reach, and whether anybody listens there.
    pub(super) ports: Vec<(u16, Result<(), String>)>,
    /// Those of [`SETTINGS`] that there are.
    pub(super) settings: BTreeMap<&'static str, String>,
    /// The hard limit of open files, and what the configuration wants them for.
    pub(super) open_files: u64,
    pub(super) wanted: Wanted,
    /// Processes that each sandbox may have.
    pub(super) processes: u64,
    /// The processor's weaknesses by name, and what the kernel does about each.
    pub(super) vulnerabilities: Vec<(String, String)>,
    /// The interpreters and whether every user may run them.
    pub(super) python: Result<(PathBuf, bool), String>,
    pub(super) node: Result<(PathBuf, bool), String>,
    pub(super) oci: Result<(), String>,
    pub(super) docker: Result<(), String>,
    /// What containers are frozen by, or why by no control group.
    pub(super) container_freezer: Result<&'static str, &'static str>,
    /// Whether functions can reach other machines, where they may.
    pub(super) egress: Option<Result<(), String>>,
    /// Bytes free where the state is kept.
    pub(super) state: Result<u64, String>,
    pub(super) state_directory: PathBuf,
    /// Each address to listen on, and whether that is possible.
    pub(super) addresses: Vec<(SocketAddr, Result<(), String>)>,
}

pub(super) fn gather(config: &Config) -> Facts {
    let state_directory = config.server.state_directory.clone();
    let settings = |scratch: &Path| MechanismSettings {
        chosen: config.sandbox.mechanism,
        state_directory: scratch.to_owned(),
        worker_id: format!("doctor-{}", std::process::id()),
        oci_runtime: config.sandbox.oci_runtime,
        mitigations: config.sandbox.mitigations,
        docker_socket: config.sandbox.docker_socket.clone(),
        network: config.sandbox.network.clone(),
    };
    let scratch = Scratch::below(&state_directory);
    let sandboxes = match &scratch {
        Ok(scratch) => trial(settings(&scratch.path)),
        Err(_) => Err("it was not tried: the state directory cannot be used".into()),
    };
    let offered = settings(&state_directory);
    Facts {
        is_root: nix::unistd::geteuid().is_root(),
        mechanism: config.sandbox.mechanism,
        sandboxes,
        ring: Reactor::new(&reactor_config(config, 0)).map(drop).map_err(|error| error.to_string()),
        calls: calls(),
        landlock: vilya_isolate::landlock_interface(),
        groups: vilya_isolate::hierarchies(),
        shard_cores: bound(config, |shard| std::slice::from_ref(&shard.core)),
        sandbox_cores: bound(config, |shard| &shard.sandbox_cores),
        ports: config.sandbox.network.host_loopback_ports.iter().map(|port| (*port, is_served(*port))).collect(),
        settings: SETTINGS.into_iter().filter_map(|path| Some((path, read(Path::new(path))?))).collect(),
        open_files: descriptors::limit().map_or(0, |(_, hard)| hard),
        wanted: Wanted::by(config),
        processes: config.limits.processes.into(),
        vulnerabilities: vulnerabilities(),
        python: python::find(&config.runtimes.python_interpreter).map(|(path, _)| is_for_all(path)),
        node: node::interpreter(&config.runtimes.node).map(is_for_all),
        oci: offered.check(MechanismKind::Oci),
        docker: offered.check(MechanismKind::Docker),
        container_freezer: vilya_isolate::container_freezer(),
        egress: config.sandbox.network.egress.trial(),
        state: scratch.as_ref().map_err(ToString::to_string).and_then(|scratch| free_bytes(&scratch.path)),
        addresses: addresses(config).into_iter().map(|address| (address, can_listen(address))).collect(),
        state_directory,
    }
}

fn trial(settings: MechanismSettings) -> Result<Vec<Protection>, String> {
    let mut mechanisms = Mechanisms::new(settings).map_err(|error| error.to_string())?;
    Ok(mechanisms.chosen().protections().iter().cloned().collect())
}

fn calls() -> Vec<(&'static str, &'static str, Result<(), String>)> {
    let offers = vilya_isolate::offers().into_iter();
    offers.map(|offer| (offer.call, offer.since, offer.answer.map_err(|error| error.to_string()))).collect()
}

/// Each core of a kind once.
fn bound(config: &Config, of: impl Fn(&ShardPlacement) -> &[usize]) -> Vec<usize> {
    let shards = config.topology.shards.iter().filter(|_| config.topology.pin);
    shards.flat_map(of).copied().collect::<BTreeSet<usize>>().into_iter().collect()
}

/// A connection that is closed again; a port of this host answers at once, one way or the other.
fn is_served(port: u16) -> Result<(), String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect_timeout(&address, CONNECT_PATIENCE).map(drop).map_err(|error| error.to_string())
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn vulnerabilities() -> Vec<(String, String)> {
    let entries = fs::read_dir("/sys/devices/system/cpu/vulnerabilities").into_iter().flatten().flatten();
    let mut found: Vec<(String, String)> =
        entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, read(&entry.path())?))).collect();
    found.sort();
    found
}

/// A sandbox runs it as a user of its own: it, and every folder on the way, must let everybody in.
fn is_for_all(interpreter: PathBuf) -> (PathBuf, bool) {
    const OTHERS_EXECUTE: u32 = 0o001;
    let real = interpreter.canonicalize().unwrap_or_else(|_| interpreter.clone());
    let lets = |path: &Path| fs::metadata(path).is_ok_and(|found| found.permissions().mode() & OTHERS_EXECUTE != 0);
    let all = real.ancestors().all(lets);
    (interpreter, all)
}

fn free_bytes(path: &Path) -> Result<u64, String> {
    let found = nix::sys::statvfs::statvfs(path).map_err(|error| error.to_string())?;
    Ok(found.blocks_available() as u64 * found.fragment_size() as u64)
}

fn addresses(config: &Config) -> Vec<SocketAddr> {
    let mut addresses = vec![config.server.address];
    if let Some(common) = config.server.wire_address {
        addresses.push(common);
        let shards = if common.port() == 0 { 0 } else { config.topology.shards.len() };
        let ports = (1..=shards).map_while(|above| common.port().checked_add(u16::try_from(above).ok()?));
        addresses.extend(ports.map(|port| SocketAddr::new(common.ip(), port)));
    }
    addresses
}

fn can_listen(address: SocketAddr) -> Result<(), String> {
    TcpListener::bind(address).map(drop).map_err(|error| error.to_string())
}

/// A directory of this process's own below the state directory, which goes with it; and so does that one if it was not there before.
struct Scratch {
    path: PathBuf,
    made: Option<PathBuf>,
}

impl Scratch {
    fn below(state: &Path) -> io::Result<Scratch> {
        let made = (!state.exists()).then(|| state.to_owned());
        fs::create_dir_all(state)?;
        let path = state.join(format!("doctor-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Scratch { path, made })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed here could not be used either; the findings say so.
        let _ = fs::remove_dir_all(&self.path);
        self.made.iter().for_each(|made| drop(fs::remove_dir(made)));
    }
}
