//! What a function feels of a neighbour that takes all it can get: the tail of a quiet function's warm invocations alone, and beside
//! bombs of processes, memory, processor time, private files, output and doorbells.
//!
//! Usage: `neighbours [--json] [--quick] [--rounds N] [--window MILLISECONDS] [--only KIND]`. Each round measures alone and beside, for one
//! bomb after the other, and a ratio is of two halves of the same round. The worker is as it is by default; client, shards, quiet function
//! and bomb share the cores that there are.

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
    let worker = Testbed::start(&[])?;
    worker.deploy_rust(RustFunction { name: QUIET, role: Role::Echo, concurrency: 1 })?;
    bomb::deploy(&worker)?;
    let mut client = Client::connect(worker.address(), ANSWER_BYTES)?;
    let message = http::echo(QUIET, PAYLOAD_BYTES);
    listen(&mut client, &message, window)?;
    let mut figures = Figures::default();
    let mut lit = json!({});
    for _ in 0..rounds {
        for kind in &kinds {
            let name = |figure: &str| format!("bombs.{kind}.{figure}");
            let mut alone = listen(&mut client, &message, window)?;
            let bomb = Bomb::light(&worker, kind)?;
            std::thread::sleep(SETTLE);
            let during = listen(&mut client, &message, window);
            let times = bomb.put_out();
            let mut during = during?;
            std::thread::sleep(SETTLE);
            lit[*kind] = (lit[*kind].as_u64().unwrap_or(0) + u64::from(times)).into();
            for (quantile, label) in [(0.5, "p50"), (0.99, "p99")] {
                let (alone_us, during_us) = (alone.percentile_us(quantile), during.percentile_us(quantile));
                figures.push(&name(&format!("alone_{label}_us")), alone_us);
                figures.push(&name(&format!("during_{label}_us")), during_us);
                let ratio = if label == "p99" { "ratio".to_owned() } else { format!("{label}_ratio") };
                figures.push(&name(&ratio), during_us / alone_us);
            }
        }
    }
    let goals: Vec<(String, Goal)> =
        kinds.iter().map(|kind| (format!("bombs.{kind}.ratio"), Goal::AtMost(1.2))).collect();
    let facts = json!({ "machine": machine::description(), "rounds": rounds, "invocations_of_bombs": lit });
    print(&figures, &goals, &facts, options.has("--json"));
    Ok(())
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
