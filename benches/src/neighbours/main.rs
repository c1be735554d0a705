//! What a function feels of a neighbour that takes all it can get: the tail of a quiet function's warm invocations alone, and beside
//! bombs of processes, memory, processor time, private files, output and doorbells.
//!
//! Usage: `neighbours [--json] [--quick] [--rounds N] [--window MILLISECONDS] [--only KIND]`. Each round measures alone and beside, for one
//! bomb after the other, and a ratio is of two halves of the same round. The worker is as it is by default, but that each function stays
//! with one shard. Shards, quiet function and bomb share the cores that there are. So does the client, which goes before everything else, as
//! it would on a machine of its own, and keeps to the last core.
//!
//! Each is measured over a connection to the shard that owns the quiet function, and over one to another shard, from which requests hop
//! (`hop_ratio`): a client cannot choose where its connection is accepted.

mod bomb;

use std::time::{Duration, Instant};

use bomb::{Bomb, KINDS};
use serde_json::{Value, json};
use vilya_benches::client::Client;
use vilya_benches::exchange::Exchange;
use vilya_benches::figures::Figures;
use vilya_benches::options::Options;
use vilya_benches::report::{self, Goal};
use vilya_benches::role::{self, Role};
use vilya_benches::sample::Samples;
use vilya_benches::testbed::{RustFunction, Testbed};
use vilya_benches::{Failure, http, machine};

const QUIET: &str = "quiet";
const PAYLOAD_BYTES: usize = 64;
const ANSWER_BYTES: usize = 4096;
/// From when a bomb is lit until it is at its worst; and from when it is out until nothing of it is left.
const SETTLE: Duration = Duration::from_millis(200);

fn main() -> Result<(), Failure> {
    if role::play()? {
        return Ok(());
    }
    let options = Options::read(&["--json", "--quick"], &["--rounds", "--window", "--only"])?;
    let quick = options.has("--quick");
    let rounds: u32 = options.value("--rounds", if quick { 1 } else { 7 })?;
    let window = Duration::from_millis(options.value("--window", if quick { 300 } else { 1000 })?);
    let only: String = options.value("--only", String::new())?;
    let kinds: Vec<&str> = KINDS.into_iter().filter(|kind| only.is_empty() || only == *kind).collect();
    if kinds.is_empty() {
        return Err(format!("--only {only}: there are {}", KINDS.join(", ")).into());
    }
    // Else the quiet function may get a second shard in the middle of a measurement, and lose it in another.
    let worker = Testbed::start(&[("policies.spread", "off")])?;
    worker.deploy_rust(RustFunction { name: QUIET, role: Role::Echo, concurrency: 1 })?;
    bomb::deploy(&worker)?;
    let message = http::echo(QUIET, PAYLOAD_BYTES);
    let mut ways = ways(&worker, &message)?;
    let stands_apart = machine::stand_apart();
    // Else the kernel leaves it on the core of the function or on another, and whole runs differ by it.
    if let Some(core) = machine::available_cores()?.last() {
        machine::confine(&[*core])?;
    }
    let mut figures = Figures::default();
    let mut lit = json!({});
    for way in &mut ways {
        listen(&mut way.client, &message, window)?;
    }
    for _ in 0..rounds {
        for kind in &kinds {
            for way in &mut ways {
                let mut alone = listen(&mut way.client, &message, window)?;
                let bomb = Bomb::light(&worker, kind)?;
                std::thread::sleep(SETTLE);
                let during = listen(&mut way.client, &message, window);
                let times = bomb.put_out();
                let mut during = during?;
                std::thread::sleep(SETTLE);
                lit[*kind] = (lit[*kind].as_u64().unwrap_or(0) + u64::from(times)).into();
                for (quantile, label, ratio) in [(0.5, "p50", "p50_ratio"), (0.99, "p99", "ratio")] {
                    let (alone_us, during_us) = (alone.percentile_us(quantile), during.percentile_us(quantile));
                    let mut push =
                        |figure: &str, value| figures.push(&format!("bombs.{kind}.{}{figure}", way.prefix), value);
                    push(&format!("alone_{label}_us"), alone_us);
                    push(&format!("during_{label}_us"), during_us);
                    push(ratio, during_us / alone_us);
                }
            }
        }
    }
    let goals: Vec<(String, Goal)> =
        kinds.iter().map(|kind| (format!("bombs.{kind}.ratio"), Goal::AtMost(1.2))).collect();
    let facts = json!({
        "machine": machine::description(),
        "rounds": rounds,
        "invocations_of_bombs": lit,
        "client_goes_first": stands_apart,
    });
    print(&figures, &goals, &facts, options.has("--json"));
    Ok(())
}

/// A connection, and what the names of its figures begin with.
struct Way {
    client: Client,
    prefix: &'static str,
}

/// One to the shard that owns the quiet function, and one to another, if there are several.
fn ways(worker: &Testbed, message: &Exchange) -> Result<Vec<Way>, Failure> {
    /// Which shard accepts a connection is the kernel's choice, by a hash.
    const ATTEMPTS: usize = 64;
    const PROBES: u16 = 50;
    let mut ways: Vec<Way> = Vec::new();
    for _ in 0..ATTEMPTS {
        let mut client = Client::connect(worker.address(), ANSWER_BYTES)?;
        let before = worker.metric("vilya_mesh_sent_total")?;
        for _ in 0..PROBES {
            client.exchange(message)?;
        }
        let hops = worker.metric("vilya_mesh_sent_total")? - before >= f64::from(PROBES);
        let prefix = if hops { "hop_" } else { "" };
        if ways.iter().all(|way| way.prefix != prefix) {
            ways.push(Way { client, prefix });
        }
    }
    ways.sort_by_key(|way| way.prefix);
    match ways.first() {
        Some(way) if way.prefix.is_empty() => Ok(ways),
        _ => Err("no connection was accepted by the shard that owns the function".into()),
    }
}

/// Invokes the quiet function for a while, once after the other.
fn listen(client: &mut Client, message: &Exchange, window: Duration) -> Result<Samples, Failure> {
    let mut samples = Samples::default();
    let since = Instant::now();
    let mut now = since;
    while now - since < window {
        client.exchange(message)?;
        let after = Instant::now();
        samples.push((after - now).as_nanos() as u64);
        now = after;
    }
    Ok(samples)
}

fn print(figures: &Figures, goals: &[(String, Goal)], facts: &Value, as_json: bool) {
    let mut report = report::assemble(figures, &[], goals, facts);
    if let (true, Some(flat)) = (as_json, report["bombs"].as_object_mut()) {
        *flat = report::nest(std::mem::take(flat));
    }
    report::print(&report, as_json);
}
