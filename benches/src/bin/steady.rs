//! Steady load: requests due by a schedule at a share of the throughput that was measured just before, for a minute. How
//! far the tail is from the middle, whether anything fails, and whether the worker's memory stays where it was.
//!
//! The load is `vilya load`, which counts latency from when a request was due. It runs on the first core, the shard and
//! its sandboxes on the second.
//!
//! Usage: `steady [--json] [--quick] [--clients N] [--share PERCENT] [--seconds N]`.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use vilya_benches::figures::Figures;
use vilya_benches::options::Options;
use vilya_benches::peer::pin;
use vilya_benches::report::{self, Goal};
use vilya_benches::role::{self, Role};
use vilya_benches::sample::Rounds;
use vilya_benches::testbed::{RustFunction, Testbed};
use vilya_benches::{CLIENT_CORE, Failure, SERVER_CORE, machine, process, stall};

const ECHO: &str = "echo";
const MIB: f64 = 1024.0 * 1024.0;
/// Of resident memory: what counts as flat.
const FLAT: f64 = 1.05;

fn main() -> Result<(), Failure> {
    if role::play()? {
        return Ok(());
    }
    let options = Options::read(&["--json", "--quick"], &["--clients", "--share", "--seconds"])?;
    let quick = options.has("--quick");
    let clients = options.value("--clients", 16_usize)?;
    let share_percent = options.value("--share", 70.0)?;
    let seconds = options.value("--seconds", if quick { 1 } else { 60 })?;
    let machine = machine::description();
    // What no server could be better than: a thousandth of the time taken is a thousandth of the requests late.
    let stalls = stall::watch(&[CLIENT_CORE, SERVER_CORE], Duration::from_secs(if quick { 1 } else { 5 }));
    let worker = Testbed::pinned(&[])?;
    worker.deploy_rust(RustFunction { name: ECHO, role: Role::Echo, concurrency: 64 })?;
    pin(Some(CLIENT_CORE));
    let server = format!("http://{}", worker.address());
    let load = |pace: &[String]| load(&server, pace);
    let peak_seconds = seconds.min(5);
    let peak = load(&["--clients".into(), clients.to_string(), "--duration".into(), format!("{peak_seconds}s")])?;
    let peak_per_s = number(&peak["throughput_per_s"])?;
    let rate_per_s = peak_per_s * share_percent / 100.0;
    let pace = |seconds| ["--rate".into(), format!("{rate_per_s:.0}"), "--duration".into(), format!("{seconds}s")];
    // As many connections as the schedule needs have been open once, and their buffers made.
    load(&pace(peak_seconds))?;
    let mut figures = Figures::default();
    let mut note = |name: &str, value: f64| figures.push(name, value);
    let before = process::resident_bytes(worker.process())? as f64 / MIB;
    let step = load(&pace(seconds))?;
    // What the last requests held has been given back.
    std::thread::sleep(Duration::from_millis(200));
    let after = process::resident_bytes(worker.process())? as f64 / MIB;
    note("floor.stalled_per_mille", stalls.per_mille);
    note("floor.longest_stall_us", 1e6 * stalls.longest.as_secs_f64());
    note("steady.peak_per_s", peak_per_s);
    note("steady.rate_per_s", rate_per_s);
    note("steady.throughput_per_s", number(&step["throughput_per_s"])?);
    for (name, of) in [("p50_us", "p50_s"), ("p99_us", "p99_s"), ("p999_us", "p99.9_s"), ("max_us", "max_s")] {
        note(&format!("steady.{name}"), 1e6 * number(&step["latency"][of])?);
    }
    note("steady.failed", number(&step["failed"])?);
    note("steady.memory_before_mib", before);
    note("steady.memory_after_mib", after);
    let over = |of: &str, to: &str| -> Option<Rounds> { Some(figures.get(of)?.over(figures.get(to)?)) };
    let tail = over("steady.p999_us", "steady.p50_us").ok_or("there is a latency")?;
    let growth = over("steady.memory_after_mib", "steady.memory_before_mib").ok_or("there is memory")?;
    figures.insert("ratio.p999_to_p50", tail);
    figures.insert("ratio.memory_after_to_before", growth);
    let goals = [
        ("ratio.p999_to_p50".to_owned(), Goal::AtMost(10.0)),
        ("steady.failed".to_owned(), Goal::AtMost(0.0)),
        ("ratio.memory_after_to_before".to_owned(), Goal::AtMost(FLAT)),
    ];
    // The generator's word on itself: whether it was late, or all of its core was used.
    let facts = json!({
        "machine": machine, "seconds": seconds, "share_percent": share_percent, "generator": step["generator"],
    });
    report::print(&report::assemble(&figures, &[], &goals, &facts), options.has("--json"));
    Ok(())
}

/// One step of `vilya load`.
fn load(server: &str, pace: &[String]) -> Result<Value, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(role::VARIABLE, Role::Command.word()).args(["--server", server, "load", ECHO, "--payload", "64"]);
    command.args(["--threads", "1", "--json"]).args(pace).stderr(Stdio::inherit());
    let output = command.output()?;
    let summary: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("vilya load ended with {} and no summary: {error}", output.status))?;
    Ok(summary["steps"][0].clone())
}

fn number(value: &Value) -> Result<f64, Failure> {
    value.as_f64().ok_or_else(|| format!("vilya load gave {value} for a number").into())
}
