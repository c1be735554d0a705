//! Many sandboxes alive at once, each of which has answered, and what they take when they rest.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use vilya_benches::figures::Figures;
use vilya_benches::role::Role;
use vilya_benches::testbed::{RustFunction, Testbed};
use vilya_benches::{Failure, process};
use vilya_client::{Answer, Connection, Options, Request};

use super::Pace;

const FUNCTION: &str = "rust";
/// A shared limit of descriptors a process, on most hosts, is not for so many at once: they come in waves.
const WAVE: usize = 250;
/// Of invocations and connections: what a worker allows by itself.
const OPEN_LEAST: usize = 4096;
/// Past the second after which each is told to give memory back.
const SETTLE: Duration = Duration::from_secs(4);
const WINDOW: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn measure(pace: &Pace, figures: &mut Figures) -> Result<(), Failure> {
    let most = (pace.alive + 100).to_string();
    let open = (pace.alive + 100).max(OPEN_LEAST).to_string();
    let before_kib = available_kib()?;
    let worker = Testbed::start(&[
        ("cores.shards", "1"),
        ("limits.sandboxes", &most),
        ("limits.sandboxes_per_function", &most),
        ("limits.queue_per_function", &most),
        ("limits.invocations", &open),
        ("server.connections", &open),
        ("limits.invocations", &most),
        ("policies.concurrency", &most),
        ("limits.starting", "256"),
        ("limits.start_timeout", "1m"),
        // A promise of 16 MiB each, of which one at rest takes little.
        ("limits.memory", "1024GiB"),
    ])?;
    worker.deploy_rust_with(
        RustFunction { name: FUNCTION, role: Role::Mortal, concurrency: 1 },
        "memory = \"16MiB\"\n",
    )?;
    fill(&worker, pace.alive)?;
    let alive = worker.metric("vilya_sandboxes")?;
    let answered = everyone_answers(&worker, pace.alive)?;
    std::thread::sleep(SETTLE);
    let family = process::family(worker.process())?;
    let cpu_ns = || family.iter().map(|id| process::cpu_ns(*id).unwrap_or(0)).sum::<u64>();
    let (before_ns, since) = (cpu_ns(), Instant::now());
    std::thread::sleep(WINDOW);
    let share = (cpu_ns() - before_ns) as f64 / since.elapsed().as_nanos() as f64;
    figures.push("alive_max", alive.min(answered as f64));
    figures.push("alive_idle_cpu_percent", 100.0 * share);
    figures.push("alive_memory_kib_each", (before_kib - available_kib()?) / alive.max(1.0));
    Ok(())
}

/// Starts so many: an invocation that holds its sandbox until the others have theirs.
fn fill(worker: &Testbed, wanted: usize) -> Result<(), Failure> {
    let mut holders = Askers::new(worker)?;
    let mut asked = 0;
    while asked < wanted {
        let wave = WAVE.min(wanted - asked);
        holders.ask(wave, b"until-told")?;
        asked += wave;
        worker.await_metric("vilya_sandboxes", |alive| alive >= asked as f64)?;
    }
    worker.await_metric("vilya_invocations_queued", |queued| queued == 0.0)?;
    // Their sandboxes are told that nobody waits any more.
    drop(holders);
    worker.await_metric("vilya_invocations_open", |open| open == 0.0)
}

/// Has each of them answer once, all at the same time, so that none answers for another; how many did.
fn everyone_answers(worker: &Testbed, wanted: usize) -> Result<usize, Failure> {
    let mut askers = Askers::new(worker)?;
    askers.ask(wanted, b"hold-long")?;
    askers.answered()
}

/// Invocations that are open at once, over the binary protocol, since a connection each would take as many descriptors as the worker has
/// sandboxes.
struct Askers {
    address: SocketAddr,
    connections: Vec<Connection>,
}

impl Askers {
    fn new(worker: &Testbed) -> Result<Askers, Failure> {
        let address = worker.wire_address().ok_or("the worker does not speak the binary protocol")?;
        Ok(Askers { address, connections: Vec::new() })
    }

    fn ask(&mut self, count: usize, word: &[u8]) -> Result<(), Failure> {
        for _ in 0..count {
            if !self.connections.last().is_some_and(Connection::is_ready) {
                self.connections
                    .push(Connection::connect(self.address, &Options { timeout: PATIENCE, ..Options::DEFAULT })?);
            }
            let connection = self.connections.last_mut().expect("one was added");
            connection.send(&Request::new(FUNCTION, word))?;
        }
        Ok(self.connections.iter_mut().try_for_each(Connection::flush)?)
    }

    /// Waits for every answer; how many were good.
    fn answered(&mut self) -> Result<usize, Failure> {
        let (mut good, mut answer) = (0, Answer::default());
        for connection in &mut self.connections {
            while connection.in_flight() > 0 {
                connection.receive(&mut answer)?;
                good += usize::from(answer.status == 200);
            }
        }
        Ok(good)
    }
}

fn available_kib() -> Result<f64, Failure> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).ok_or("no MemAvailable")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
