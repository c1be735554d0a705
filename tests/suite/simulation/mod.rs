//! The engine driven from a seed: modelled sandboxes that fail, lie and hang, clients that leave, functions that come
//! and go, and an observer that checks every effect.
//!
//! Invariant: a seed is a whole run, repeatable to the last effect. `VILYA_SEED=<number>` runs that one alone.

mod books;
mod layers;
mod random;
mod scenario;
mod world;

use std::collections::BTreeMap;

use vilya_engine::{KillReason, Outcome, Refusal, StartKind};

/// Seeds of one run of the suite.
const SEEDS: u64 = 300;

/// Says which seed it was, when what it watches over panics.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the failing seed: run it alone with VILYA_SEED={}", self.0);
        }
    }
}

fn run(seed: u64) -> world::Summary {
    let _told = Told(seed);
    world::run(seed)
}

fn seed_asked_for() -> Option<u64> {
    let text = std::env::var("VILYA_SEED").ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("VILYA_SEED must be a number, and is `{text}`")))
}

#[test]
fn every_seed_ends_with_everybody_answered_once() {
    if let Some(seed) = seed_asked_for() {
        let summary = run(seed);
        println!("seed {seed}: {} steps, trace {:016x}: {:?}", summary.steps, summary.trace, summary.tally.counts);
        return;
    }
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    let mut steps = 0;
    for seed in 0..SEEDS {
        let summary = run(seed);
        steps += summary.steps;
        for (what, count) in summary.tally.counts {
            *seen.entry(what).or_insert(0) += count;
        }
    }
    println!("{SEEDS} seeds, {steps} steps: {seen:?}");
    // A simulation in which something never happens says nothing about it.
    let kills = KillReason::ALL.map(|reason| format!("Kill{reason:?}"));
    let outcomes = Outcome::ALL.map(|outcome| format!("{outcome:?}"));
    let refusals = Refusal::ALL.map(|reason| format!("{reason:?}"));
    let starts = [StartKind::Cold, StartKind::Warm].map(|start| format!("{start:?}"));
    let all = kills.iter().chain(&outcomes).chain(&refusals).chain(&starts);
    let loans = ["Reserved", "NotReserved", "Committed", "Yielded", "Unreserved", "Released"];
    let reclaims = ["ReclaimedReserved", "ReclaimedHeld"];
    let frost = ["Trimmed", "Frozen", "NotFrozen", "Thaw", "Thawed", "Demoted", "Promoted"];
    let layers = ["LayerKept", "LayerRefused", "LayerDropped", "StartedFromLayer"];
    let others = loans
        .iter()
        .chain(&layers)
        .chain(&reclaims)
        .chain(&frost)
        .chain(&["FunctionGone", "LeftOver"])
        .map(|&what| what.to_owned());
    for what in all.cloned().chain(others) {
        assert!(seen.get(&what).is_some_and(|&count| count >= 10), "{what} hardly ever happened: {seen:?}");
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let seeds = seed_asked_for().map_or(0..20, |seed| seed..seed + 1);
    for seed in seeds {
        let (first, second) = (run(seed), run(seed));
        assert_eq!(first.trace, second.trace, "seed {seed} went two ways");
        assert_eq!(first.steps, second.steps);
    }
    assert_ne!(run(1).trace, run(2).trace, "the seed does not matter");
}
