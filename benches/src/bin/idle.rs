//! Sandboxes that nobody asks for: what the first invocation after a freezing pays, what functions that never rest cost while they
//! are frozen, and how much memory a sandbox gives back.
//!
//! Usage: `idle [--json] [--quick] [--rounds N] [--sandboxes N]`.

use std::time::{Duration, Instant};

use serde_json::json;
use vilya_benches::client::Client;
use vilya_benches::figures::Figures;
use vilya_benches::options::Options;
use vilya_benches::peer::pin;
use vilya_benches::report::{self, Goal};
use vilya_benches::role::{self, Role};
use vilya_benches::sample::Samples;
use vilya_benches::testbed::{RustFunction, Testbed};
use vilya_benches::{CLIENT_CORE, Failure, http, machine, process};

const ANSWER_BYTES: usize = 16 * 1024;
const MESSAGE_BYTES: usize = 64;
/// Longer than it takes until a sandbox is frozen here.
const PAUSE: Duration = Duration::from_millis(30);
const FROZEN: &str = "vilya_sandboxes_frozen";

/// A thread that wakes two hundred times a second, as a heartbeat or a poll would.
const RESTLESS: &str = "\
import threading, time
def beat():
    while True:
        time.sleep(0.005)
threading.Thread(target=beat, daemon=True).start()
def handler(event, context): return event
";

/// Leaves so many MiB that nothing refers to.
const LEAVES: &str = "\
def handler(event, context):
    for _ in range(event):
        cycle = {'bytes': bytearray(1 << 20)}
        cycle['self'] = cycle
    return event
";
const LEFT: &[u8] = b"64";

fn main() -> Result<(), Failure> {
    if role::play()? {
        return Ok(());
    }
    let options = Options::read(&["--json", "--quick"], &["--rounds", "--sandboxes"])?;
    let quick = options.has("--quick");
    let rounds = options.value("--rounds", if quick { 3 } else { 200 })?;
    let sandboxes = options.value("--sandboxes", if quick { 2 } else { 100 })?;
    let machine = machine::description();
    let mut figures = Figures::default();
    pin(Some(CLIENT_CORE));
    let freezes = first_after_thaw(rounds, &mut figures)?;
    restless(sandboxes, freezes, if quick { 1 } else { 3 }, &mut figures)?;
    for _ in 0..if quick { 1 } else { 5 } {
        memory(&mut figures)?;
    }
    let goals = [("restless.frozen_cpu_percent".to_owned(), Goal::AtMost(0.5))];
    let facts = json!({ "machine": machine, "rounds": rounds, "sandboxes": sandboxes, "freezes": freezes });
    report::print(&report::assemble(&figures, &[], if freezes { &goals } else { &[] }, &facts), options.has("--json"));
    Ok(())
}

/// An invocation after a pause: of a sandbox that is awake, and of one that has been frozen. Whether it can be.
fn first_after_thaw(rounds: usize, figures: &mut Figures) -> Result<bool, Failure> {
    for (state, freeze_after) in [("awake", "off"), ("frozen", "20ms")] {
        let worker = Testbed::pinned(&[("policies.freeze_after", freeze_after), ("policies.trim_after", "off")])?;
        worker.deploy_rust(RustFunction { name: "echo", role: Role::Echo, concurrency: 1 })?;
        let mut client = Client::connect(worker.address(), ANSWER_BYTES)?;
        let message = http::echo("echo", MESSAGE_BYTES);
        client.time(&message, 100)?;
        let mut samples = Samples::default();
        for _ in 0..rounds {
            std::thread::sleep(PAUSE);
            // Asked of both, since the question wakes the core that the answer comes from.
            while worker.metric(FROZEN)? == 0.0 && state == "frozen" {
                if worker.metric("vilya_sandbox_freezes_failed_total")? > 0.0 {
                    return Ok(false);
                }
            }
            let since = Instant::now();
            client.exchange(&message)?;
            samples.push(since.elapsed().as_nanos() as u64);
        }
        figures.push(&format!("first.{state}_p50_us"), samples.percentile_us(0.5));
        figures.push(&format!("first.{state}_p99_us"), samples.percentile_us(0.99));
    }
    Ok(true)
}

/// The processor time of so many functions that never rest: awake, and frozen.
fn restless(sandboxes: usize, freezes: bool, windows: usize, figures: &mut Figures) -> Result<(), Failure> {
    let most = (sandboxes + 10).to_string();
    let worker = Testbed::start(&[
        ("cores.shards", "1"),
        ("limits.sandboxes", &most),
        ("limits.sandboxes_per_function", &most),
        ("limits.memory", "64GiB"),
        ("policies.trim_after", "off"),
    ])?;
    for (state, freeze_after) in [("awake", "off"), ("frozen", "100ms")] {
        if state == "frozen" && !freezes {
            break;
        }
        let settings = format!("memory = \"32MiB\"\nfreeze_after = \"{freeze_after}\"\nmin_warm = {sandboxes}\n");
        worker.deploy_python_with("restless", RESTLESS, &settings)?;
        let there = if state == "frozen" { FROZEN } else { "vilya_sandboxes_idle" };
        worker.await_metric(there, |count| count >= sandboxes as f64)?;
        worker.await_metric("vilya_sandboxes", |alive| alive <= sandboxes as f64)?;
        // The kernel stops them a moment after it was asked.
        std::thread::sleep(Duration::from_secs(1));
        let family = process::family(worker.process())?;
        let cpu_ns = || family.iter().map(|id| process::cpu_ns(*id).unwrap_or(0)).sum::<u64>();
        for _ in 0..windows {
            let (before_ns, since) = (cpu_ns(), Instant::now());
            std::thread::sleep(Duration::from_secs(1));
            let share = (cpu_ns() - before_ns) as f64 / since.elapsed().as_nanos() as f64;
            figures.push(&format!("restless.{state}_cpu_percent"), 100.0 * share);
        }
    }
    Ok(())
}

/// What a Python sandbox has for itself after a large invocation, and after it was told to give back; and what the next pays.
fn memory(figures: &mut Figures) -> Result<(), Failure> {
    let worker = Testbed::pinned(&[("policies.trim_after", "300ms"), ("policies.freeze_after", "off")])?;
    worker.deploy_python("leaves", LEAVES)?;
    let call = |event: &[u8]| {
        let since = Instant::now();
        http::ask(worker.address(), &http::request("POST", "/fn/leaves", event))?;
        Ok::<f64, Failure>(since.elapsed().as_nanos() as f64 / 1000.0)
    };
    let private = || -> Result<f64, Failure> {
        let family = process::family(worker.process())?.into_iter().filter(|id| *id != worker.process());
        // The one that has run the function is the largest.
        Ok(family.filter_map(|id| process::private_kib(id).ok()).max().unwrap_or(0) as f64)
    };
    call(b"0")?;
    figures.push("memory.first_kib", private()?);
    let told = worker.metric("vilya_sandbox_trims_total")?;
    call(LEFT)?;
    figures.push("memory.left_kib", private()?);
    worker.await_metric("vilya_sandbox_trims_total", |trims| trims > told)?;
    std::thread::sleep(Duration::from_millis(100));
    figures.push("memory.trimmed_kib", private()?);
    figures.push("memory.next_us", call(b"0")?);
    figures.push("memory.after_it_us", call(b"0")?);
    Ok(())
}
