//! Many starts and stops with processes killed at random moments: what the worker then holds is no more than what it held before.
//!
//! Invariant: the cycles, moments and victims follow from the seed; what is still under way at a moment does not.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use vilya_benches::role::Role;
use vilya_benches::testbed::{RustFunction, Testbed};
use vilya_benches::{Failure, process};

use super::cold::{ColdClient, PYTHON};

/// Cycles before counting: what is made once is made then.
const WARM: u64 = 60;
/// How long what a worker holds must stay the same to be looked at, and how long it may take until it is what it was.
const STILL: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(60);
/// The latest moment of a kill after the request: about when the first answer of a copied sandbox is there.
const LATEST_US: u64 = 3000;
/// What allocators keep: resident memory that grew by no more than this is back.
const MEMORY_SLACK_KIB: u64 = 8 * 1024;

/// More than wait to be taken, by default.
const WAITING_MOST: usize = 40;

/// The functions, and how each is told to end its process.
const FUNCTIONS: [(&str, &[u8]); 2] = [("rust", b"exit"), ("python", b"\"exit\"")];

/// What is counted of a worker and its processes.
type Held = BTreeMap<&'static str, u64>;

/// The report: what was held before and after, and what happened between.
pub(crate) fn soak(cycles: u64, seed: u64) -> Result<Value, Failure> {
    let worker = Testbed::start(&[("cores.shards", "1"), ("limits.start_timeout", "1m")])?;
    let function = RustFunction { name: FUNCTIONS[0].0, role: Role::Mortal, concurrency: 1 };
    worker.deploy_rust(function)?;
    worker.deploy_python(FUNCTIONS[1].0, PYTHON)?;
    let mut soak = Soak { worker, random: seed, told: 0, killed: 0, failed: 0 };
    soak.cycles(WARM)?;
    let before = soak.settled()?;
    let memory_before_kib = process::resident_bytes(soak.worker.process())? / 1024;
    (soak.told, soak.killed, soak.failed) = (0, 0, 0);
    let since = Instant::now();
    soak.cycles(cycles)?;
    let seconds = since.elapsed().as_secs_f64();
    let after = soak.back_to(&before)?;
    let memory_after_kib = process::resident_bytes(soak.worker.process())? / 1024;
    let grew = memory_after_kib > memory_before_kib + MEMORY_SLACK_KIB;
    let report = json!({
        "cycles": cycles, "seed": seed, "seconds": seconds,
        "told_to_end": soak.told, "killed": soak.killed, "failed_invocations": soak.failed,
        "before": before, "after": after,
        "memory_before_kib": memory_before_kib, "memory_after_kib": memory_after_kib,
    });
    if grew || is_more(&after, &before) {
        return Err(format!("more is held than before the cycles: {report:#}").into());
    }
    Ok(report)
}

struct Soak {
    worker: Testbed,
    /// The state of a splitmix64 generator.
    random: u64,
    told: u64,
    killed: u64,
    /// Invocations that were answered with an error, since their sandbox was killed.
    failed: u64,
}

impl Soak {
    /// Each: a function is invoked, and its sandbox is told to end or a process is killed around then. Every request is answered.
    fn cycles(&mut self, count: u64) -> Result<(), Failure> {
        let mut client = ColdClient::connect(self.worker.address())?;
        for _ in 0..count {
            let (name, end) = FUNCTIONS[usize::from(self.below(4) == 0)];
            client.send(name, b"1")?;
            if self.below(2) == 0 {
                self.answer(&mut client)?;
                client.send(name, end)?;
                client.read()?;
                self.told += 1;
            } else {
                std::thread::sleep(Duration::from_micros(self.below(LATEST_US)));
                self.kill_one()?;
                self.answer(&mut client)?;
            }
        }
        Ok(())
    }

    fn answer(&mut self, client: &mut ColdClient) -> Result<(), Failure> {
        let is_success = client.read()?.as_bytes().starts_with(vilya_benches::http::SUCCESS);
        self.failed += u64::from(!is_success);
        Ok(())
    }

    /// Kills a process of a sandbox: one that runs a function, or one that waits to.
    fn kill_one(&mut self) -> Result<(), Failure> {
        let family = process::family(self.worker.process())?;
        let own = depth(self.worker.process());
        // Sandboxes are two namespaces of process ids further in, or one where there is no keeper; the keeper and the maker are one.
        let is_inside = |id: &u32| depth(*id) >= own + 2 || (depth(*id) > own && is_function(*id));
        let inside: Vec<u32> = family.into_iter().filter(is_inside).collect();
        let running: Vec<u32> = inside.iter().copied().filter(|id| is_function(*id)).collect();
        let candidates = if running.is_empty() || self.below(4) == 0 { inside } else { running };
        if candidates.is_empty() {
            return Ok(());
        }
        let victim = candidates[self.below(candidates.len() as u64) as usize];
        match kill(Pid::from_raw(victim.cast_signed()), Signal::SIGKILL) {
            Ok(()) => self.killed += 1,
            Err(Errno::ESRCH) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// What is held once nothing changes any more.
    fn settled(&self) -> Result<Held, Failure> {
        // What died while it waited is found when it is taken.
        let mut client = ColdClient::connect(self.worker.address())?;
        for turn in 0..WAITING_MOST {
            // Both, in the end: the image of what was started last is loaded ahead.
            let (name, end) = FUNCTIONS[usize::from(turn % 8 == 7)];
            client.send(name, end)?;
            client.read()?;
        }
        drop(client);
        self.end_all()?;
        let since = Instant::now();
        let (mut last, mut same_since) = (self.held()?, Instant::now());
        // One that died while it had loaded an image is found a moment later.
        while same_since.elapsed() < STILL || last["zombies"] > 0 {
            if since.elapsed() > PATIENCE {
                return Err(format!("what the worker holds does not come to rest: {last:?}").into());
            }
            std::thread::sleep(STILL / 10);
            let now = self.held()?;
            if now != last {
                (last, same_since) = (now, Instant::now());
            }
        }
        Ok(last)
    }

    /// What is held once it is no more than before, or at the end of patience.
    fn back_to(&self, before: &Held) -> Result<Held, Failure> {
        let since = Instant::now();
        loop {
            let now = self.settled()?;
            if !is_more(&now, before) || since.elapsed() > PATIENCE {
                return Ok(now);
            }
        }
    }

    /// Tells sandboxes to end until there are none.
    fn end_all(&self) -> Result<(), Failure> {
        let since = Instant::now();
        let mut client = ColdClient::connect(self.worker.address())?;
        while self.worker.metric("vilya_sandboxes")? > 0.0 {
            if since.elapsed() > PATIENCE {
                return Err("sandboxes that are told to end stay".into());
            }
            for (name, end) in FUNCTIONS {
                client.send(name, end)?;
                client.read()?;
            }
            std::thread::sleep(STILL / 50);
        }
        Ok(())
    }

    fn held(&self) -> Result<Held, Failure> {
        let worker = self.worker.process();
        let family = process::family(worker)?;
        let distinct = |kind: &str| {
            let links = family.iter().filter_map(|id| fs::read_link(format!("/proc/{id}/ns/{kind}")).ok());
            links.collect::<HashSet<_>>().len() as u64
        };
        let stat = |id: &u32| fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let is_zombie = |id: &&u32| stat(id).rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" Z"));
        let groups = worker_groups(&family).map_or(0, |name| groups(Path::new("/sys/fs/cgroup"), &name));
        Ok(BTreeMap::from([
            ("descriptors", fs::read_dir(format!("/proc/{worker}/fd"))?.count() as u64),
            ("threads", fs::read_dir(format!("/proc/{worker}/task"))?.count() as u64),
            ("processes", family.len() as u64),
            ("zombies", family.iter().filter(is_zombie).count() as u64),
            ("mounts", fs::read_to_string(format!("/proc/{worker}/mountinfo"))?.lines().count() as u64),
            ("groups", groups),
            ("mount_namespaces", distinct("mnt")),
            ("network_namespaces", distinct("net")),
            ("pid_namespaces", distinct("pid")),
        ]))
    }

    /// A number below a bound.
    fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// Whether a process runs a function, rather than waiting to.
fn is_function(id: u32) -> bool {
    let name = fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
    name.starts_with("function") || name.starts_with("python")
}

/// How many namespaces of process ids a process has an id in; 0 for one that has gone.
fn depth(id: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix("NSpid:")).map_or(0, |ids| ids.split_whitespace().count())
}

fn is_more(now: &Held, before: &Held) -> bool {
    now.iter().any(|(name, count)| before.get(name).is_none_or(|before| count > before))
}

/// The directory of control groups that is this worker's: the one below `vilya` that its sandboxes are in.
fn worker_groups(family: &[u32]) -> Option<String> {
    family.iter().find_map(|id| {
        let text = fs::read_to_string(format!("/proc/{id}/cgroup")).ok()?;
        let mut parts = text.lines().find_map(|line| line.split_once("/vilya/"))?.1.split('/');
        parts.next().map(str::to_owned)
    })
}

/// Control groups at or below one of this name.
fn groups(path: &Path, name: &str) -> u64 {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let is_named = |path: &Path| path.ancestors().any(|part| part.ends_with(name));
    directories.map(|entry| u64::from(is_named(&entry.path())) + groups(&entry.path(), name)).sum()
}
