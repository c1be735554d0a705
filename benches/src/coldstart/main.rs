//! What a cold start costs: from request to answer for a new sandbox, over every mechanism and runtime of this machine, beside bare processes
//! of the same run; how many starts a core makes; what an idle sandbox takes; how many are alive at once.
//!
//! Usage: `coldstart [--json] [--quick] [--starts N] [--alive N]`, or `coldstart --cycles N [--seed N]` for so many starts and stops with
//! random kills instead, after which the worker must hold no more than before.

mod alive;
mod cold;
mod engine;
mod floors;
mod report;
mod soak;

use serde_json::json;
use vilya_benches::figures::Figures;
use vilya_benches::options::Options;
use vilya_benches::role;
use vilya_benches::{Failure, machine};

/// How much is done.
pub(crate) struct Pace {
    /// Rounds of the floors and of what is held against them, interleaved.
    pub(crate) rounds: usize,
    /// New sandboxes of each mechanism and runtime, one after the other, in all rounds together.
    pub(crate) starts: usize,
    /// Starts before those that count: until the function has a zygote.
    pub(crate) warm: usize,
    /// Times that many are started at once.
    pub(crate) bursts: usize,
    /// Sandboxes to be alive at once.
    pub(crate) alive: usize,
}

fn main() -> Result<(), Failure> {
    if let Some(floor) = floors::asked_for() {
        return floors::play(&floor);
    }
    if role::play()? {
        return Ok(());
    }
    let options = Options::read(&["--json", "--quick"], &["--starts", "--alive", "--cycles", "--seed"])?;
    let cycles = options.value("--cycles", 0)?;
    if cycles > 0 {
        println!("{:#}", soak::soak(cycles, options.value("--seed", 1)?)?);
        return Ok(());
    }
    let quick = options.has("--quick");
    let pace = Pace {
        rounds: if quick { 1 } else { 3 },
        starts: options.value("--starts", if quick { 5 } else { 300 })?,
        warm: if quick { 3 } else { 10 },
        bursts: if quick { 1 } else { 12 },
        alive: options.value("--alive", if quick { 8 } else { 1000 })?,
    };
    let mut figures = Figures::default();
    let skipped = cold::measure(&pace, &mut figures)?;
    alive::measure(&pace, &mut figures)?;
    let facts = json!({ "machine": machine::description(), "starts": pace.starts, "skipped": skipped });
    vilya_benches::report::print(&report::report(figures, &facts), options.has("--json"));
    Ok(())
}
