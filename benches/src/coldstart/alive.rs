//! Many sandboxes alive at once, each of which has answered, and what they take when they rest.

use std::time::{Duration, Instant};

use vilya_benches::figures::Figures;
use vilya_benches::role::Role;
use vilya_benches::testbed::{RustFunction, Testbed};
use vilya_benches::{Failure, process};

use super::Pace;
use super::cold::ColdClient;

const FUNCTION: &str = "rust";
/// A shared limit of descriptors a process, on most hosts, is not for so many at once: they come in waves.
const WAVE: usize = 250;
/// Of invocations and connections: what a worker allows by itself.
const OPEN_LEAST: usize = 4096;
/// Past the second after which each is told to give memory back.
const SETTLE: Duration = Duration::from_secs(4);
const WINDOW: Duration = Duration::from_secs(3);

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
    let mut holders = Vec::new();
    while holders.len() < wanted {
        let wave = WAVE.min(wanted - holders.len());
        for _ in 0..wave {
            let mut client = ColdClient::connect(worker.address())?;
            client.send(FUNCTION, b"until-told")?;
            holders.push(client);
        }
        let there = holders.len() as f64;
        worker.await_metric("vilya_sandboxes", |alive| alive >= there)?;
    }
    worker.await_metric("vilya_invocations_queued", |queued| queued == 0.0)?;
    drop(holders);
    worker.await_metric("vilya_invocations_open", |open| open == 0.0)
}

/// Has each of them answer once, all at the same time, so that none answers for another; how many did.
fn everyone_answers(worker: &Testbed, wanted: usize) -> Result<usize, Failure> {
    let mut clients = Vec::with_capacity(wanted);
    for _ in 0..wanted {
        let mut client = ColdClient::connect(worker.address())?;
        client.send(FUNCTION, b"hold-long")?;
        clients.push(client);
    }
    let mut answered = 0;
    for mut client in clients {
        answered += usize::from(client.read()?.as_bytes().starts_with(vilya_benches::http::SUCCESS));
    }
    Ok(answered)
}

fn available_kib() -> Result<f64, Failure> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).ok_or("no MemAvailable")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
