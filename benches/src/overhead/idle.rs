//! A thousand parked sandboxes at rest: the processor time of the worker and of everything below it.
//!
//! They are made by as many invocations at once of a function that runs until nobody waits for it; then the clients
//! leave, and the sandboxes park.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use vilya_benches::figures::Figures;
use vilya_benches::role::Role;
use vilya_benches::testbed::{RustFunction, Testbed};
use vilya_benches::{Failure, http, process};

const FUNCTION: &str = "park";
/// What was under way when the clients left is over by then.
const SETTLE: Duration = Duration::from_secs(1);

pub(crate) fn measure(quick: bool, figures: &mut Figures) -> Result<(), Failure> {
    let (sandboxes, windows, window) =
        if quick { (4, 1, Duration::from_millis(50)) } else { (1000, 5, Duration::from_secs(2)) };
    let worker = Testbed::pinned(&[
        ("limits.sandboxes", "1100"),
        ("limits.sandboxes_per_function", "1100"),
        ("limits.queue_per_function", "1100"),
        ("limits.starting", "16"),
        ("limits.start_timeout", "1m"),
        // A promise of 128 MiB each, of which a parked one touches little.
        ("limits.memory", "256GiB"),
    ])?;
    worker.deploy_rust(RustFunction { name: FUNCTION, role: Role::Park, concurrency: 1 })?;
    let request = http::request("POST", &format!("/fn/{FUNCTION}"), b"");
    let mut clients = Vec::with_capacity(sandboxes);
    for _ in 0..sandboxes {
        let mut client = TcpStream::connect(worker.address())?;
        client.write_all(&request)?;
        clients.push(client);
    }
    worker.await_metric("vilya_sandboxes", |alive| alive >= sandboxes as f64)?;
    drop(clients);
    worker.await_metric("vilya_invocations_open", |open| open == 0.0)?;
    std::thread::sleep(SETTLE);
    let family = process::family(worker.process())?;
    if family.len() < sandboxes {
        return Err(format!("{} processes are not {sandboxes} parked sandboxes", family.len()).into());
    }
    for _ in 0..windows {
        let (before_ns, since) = (cpu_ns(&family)?, Instant::now());
        std::thread::sleep(window);
        let (after_ns, elapsed) = (cpu_ns(&family)?, since.elapsed());
        let share = (after_ns - before_ns) as f64 / elapsed.as_nanos() as f64;
        figures.push("idle_cpu_percent_1000_parked", 100.0 * share);
    }
    Ok(())
}

fn cpu_ns(family: &[u32]) -> Result<u64, Failure> {
    let mut sum_ns = 0;
    for &member in family {
        sum_ns += process::cpu_ns(member).map_err(|error| format!("a sandbox has gone while it was idle: {error}"))?;
    }
    Ok(sum_ns)
}
