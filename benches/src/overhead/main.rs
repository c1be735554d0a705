//! What a warm invocation costs over the bare machine: floors, rings, protocols and payloads, interleaved round by round
//! in one run, as ratios of each other.
//!
//! The client runs on core 0. The floors' servers run on core 1, and so do the one shard of the worker under test and its
//! sandboxes; only `beside.default_*` is of a worker as it comes, on whatever cores its configuration chooses.
//!
//! Usage: `overhead [--json] [--quick] [--rounds N] [--requests N] [--only SECTION,...]`.

mod binary;
mod floors;
mod idle;
mod payloads;
mod reactors;
mod report;
mod rings;
mod warm;

use std::time::{Duration, Instant};

use serde_json::json;
use vilya_benches::figures::Figures;
use vilya_benches::options::Options;
use vilya_benches::peer::pin;
use vilya_benches::role::{self, Role};
use vilya_benches::testbed::{RustFunction, Testbed};
use vilya_benches::{CLIENT_CORE, Failure, machine};

/// How much is done in a round.
pub(crate) struct Pace {
    /// Timed requests of one client.
    pub(crate) requests: usize,
    /// How long many clients are kept busy.
    pub(crate) window: Duration,
    /// Bytes echoed for each size of payload, in all.
    pub(crate) payload_bytes: usize,
    /// Times it is looked at how long a hand-over takes, and hand-overs each time.
    pub(crate) batches: (usize, usize),
}

/// What is measured together, and is ready to be measured again.
pub(crate) trait Section {
    /// Measures each figure once.
    fn round(&mut self, pace: &Pace, figures: &mut Figures) -> Result<(), Failure>;
}

/// The functions of the worker under test.
pub(crate) const ECHO: &str = "echo";
/// The same, with as many invocations at once in one sandbox as a manifest may ask for.
pub(crate) const ECHO_MANY: &str = "echo-many";
pub(crate) const HELLO: &str = "hello";
const HELLO_MODULE: &str = "def handler(event, context):\n    return {'hello': event['name']}\n";
/// Of a small request and its answer.
pub(crate) const SMALL_BYTES: usize = 64;

/// On a machine that is busy with other things, no more rounds than these are begun after this time.
const ROUNDS_LEAST: usize = 5;
const ENOUGH: Duration = Duration::from_secs(90);

/// In the order of a round: what is compared is close together.
const SECTIONS: [&str; 7] = ["ring", "floor", "warm", "binary", "payload", "glommio", "idle"];

fn main() -> Result<(), Failure> {
    if role::play()? {
        return Ok(());
    }
    let options = Options::read(&["--json", "--quick"], &["--rounds", "--requests", "--only"])?;
    let quick = options.has("--quick");
    let rounds = options.value("--rounds", if quick { 1 } else { 7 })?;
    let only: String = options.value("--only", SECTIONS.join(","))?;
    if let Some(unknown) = only.split(',').find(|section| !SECTIONS.contains(section)) {
        return Err(format!("{unknown}: the sections are {}", SECTIONS.join(", ")).into());
    }
    let pace = Pace {
        requests: options.value("--requests", if quick { 50 } else { 3000 })?,
        window: Duration::from_millis(if quick { 20 } else { 250 }),
        payload_bytes: if quick { 0 } else { 96 << 20 },
        batches: if quick { (3, 10) } else { (20, 1000) },
    };
    // Before this thread is bound to one core, which is then all it would see.
    let (machine, cores) = (machine::description(), machine::available_cores()?);
    let (mut figures, rounds) = measure(&pace, rounds, &only)?;
    if only.split(',').any(|section| section == "idle") {
        // The worker that is started then is to see them again.
        machine::confine(&cores)?;
        idle::measure(quick, &mut figures)?;
    }
    let facts = json!({ "machine": machine, "rounds": rounds, "requests": pace.requests });
    vilya_benches::report::print(&report::report(figures, &facts), options.has("--json"));
    Ok(())
}

/// The figures, and of how many rounds they are.
fn measure(pace: &Pace, rounds: usize, only: &str) -> Result<(Figures, usize), Failure> {
    let pinned = Testbed::pinned(&[])?;
    let default = Testbed::start(&[])?;
    for worker in [&pinned, &default] {
        worker.deploy_python(HELLO, HELLO_MODULE)?;
    }
    pinned.deploy_rust(RustFunction { name: ECHO, role: Role::Echo, concurrency: 1 })?;
    pinned.deploy_rust(RustFunction { name: ECHO_MANY, role: Role::Echo, concurrency: 64 })?;
    // After the workers have looked at the cores they may use.
    pin(Some(CLIENT_CORE));
    let mut sections: Vec<Box<dyn Section + '_>> = Vec::new();
    for section in only.split(',') {
        match section {
            "floor" => sections.push(Box::new(floors::Floors::start()?)),
            "ring" => sections.push(Box::new(rings::Rings)),
            "warm" => sections.push(Box::new(warm::Warm::start(&pinned, &default)?)),
            "binary" => {
                if let Some(address) = pinned.wire_address() {
                    sections.push(Box::new(binary::Binary::start(&pinned, address)?));
                }
            }
            "payload" => sections.push(Box::new(payloads::Payloads::start(&pinned)?)),
            "glommio" => sections.push(Box::new(reactors::Reactors::start()?)),
            _ => {}
        }
    }
    let mut figures = Figures::default();
    let since = Instant::now();
    let mut done = 0;
    // One round to warm up is thrown away.
    for round in 0..=rounds {
        if done >= ROUNDS_LEAST && since.elapsed() > ENOUGH {
            break;
        }
        let mut thrown_away = Figures::default();
        for section in &mut sections {
            section.round(pace, if round == 0 { &mut thrown_away } else { &mut figures })?;
        }
        done = round;
    }
    Ok((figures, done))
}
