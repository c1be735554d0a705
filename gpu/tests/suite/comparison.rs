//! The policies on one load with less memory than functions: what fairness and locality are worth.
//!
//! Times are virtual, so the numbers depend on no clock and on nothing else that runs; `--nocapture` shows them. The
//! load is bursty and heavy enough that there is something to choose between. That matters: on a lighter load there is
//! next to nothing to reorder, and where a swap-in starts a process, first come, first served with the least recently
//! used memory leaving can be ahead of a policy that moves memory off before its room is wanted.

use vilya_engine::{Nanos, Outcome};
use vilya_gpu::Policy;

use crate::load::{Load, mixed};
use crate::world::{Asked, GIB, LAZY, STICKY, World, costs, limits, spec};

const HALF_AN_HOUR: Nanos = Nanos::from_secs(1_800);

const COMPARED: [(&str, Policy); 5] = [
    ("fcfs", Policy::Fcfs),
    ("sticky, leaves at once", Policy::MqfqSticky(STICKY)),
    ("sticky, leaves when wanted", Policy::MqfqSticky(LAZY)),
    ("measured, leaves at once", Policy::MqfqStickyMeasured(STICKY)),
    ("measured, leaves when wanted", Policy::MqfqStickyMeasured(LAZY)),
];

struct Summary {
    mean_s: f64,
    p99_s: f64,
    /// Standard deviation of the means of the functions.
    between_s: f64,
    swap_ins: u32,
}

fn replay(policy: Policy, load: &Load) -> World {
    let mut world = World::new(policy, limits(2, 16), costs(16));
    let specs = load.memory_mib.iter().map(|mib| spec(*mib, 1));
    let functions: Vec<_> = specs.zip(&load.workloads).map(|(spec, work)| world.add(spec, *work)).collect();
    for (at, number) in &load.arrivals {
        world.run_until(*at);
        world.arrive(functions[*number]);
    }
    world.run_to_rest();
    world
}

fn latency_s(asked: &Asked) -> f64 {
    let (answered, outcome) = asked.answered.expect("all of it is answered in the end");
    assert_eq!(outcome, Outcome::Returned);
    answered.saturating_sub(asked.arrived).as_nanos() as f64 / 1e9
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn summarise(world: &World, functions: usize) -> Summary {
    let mut per_function = vec![Vec::new(); functions];
    for asked in &world.asked {
        per_function[asked.function.index as usize].push(latency_s(asked));
    }
    per_function.retain(|latencies| !latencies.is_empty());
    let means: Vec<f64> = per_function.iter().map(|latencies| mean(latencies)).collect();
    let centre = mean(&means);
    let squares: Vec<f64> = means.iter().map(|value| (value - centre).powi(2)).collect();
    let mut all = per_function.concat();
    all.sort_by(f64::total_cmp);
    Summary {
        mean_s: mean(&all),
        p99_s: all[all.len() * 99 / 100],
        between_s: mean(&squares).sqrt(),
        swap_ins: world.swap_ins,
    }
}

/// In the order of [`COMPARED`].
fn compare(name: &str, load: &Load) -> Vec<Summary> {
    let runs = load.arrivals.len();
    let gib = load.memory_mib.iter().sum::<u64>() * (1 << 20) / GIB;
    println!("{name}: {runs} runs, {} functions of {gib} GiB on 16", load.workloads.len());
    let summary = |(label, policy)| {
        let summary = summarise(&replay(policy, load), load.workloads.len());
        let Summary { mean_s, p99_s, between_s, swap_ins } = summary;
        println!(
            "  {label:<29} mean {mean_s:6.2} s   p99 {p99_s:6.1} s   between functions {between_s:5.2} s   \
             {swap_ins} swap-ins"
        );
        summary
    };
    COMPARED.map(summary).into()
}

fn hold(name: &str, load: &Load) {
    let summaries = compare(name, load);
    let (fcfs, sticky) = summaries.split_first().expect("several are compared");
    for ours in sticky {
        assert!(ours.mean_s < fcfs.mean_s, "{name}: {} s against {} s", ours.mean_s, fcfs.mean_s);
    }
    let [_, at_once, when_wanted, ..] = &summaries[..] else { unreachable!("five are compared") };
    assert!(when_wanted.swap_ins < at_once.swap_ins, "{name}: memory that stays until it is wanted is moved less");
}

#[test]
fn sticky_answers_sooner_where_a_swap_in_starts_a_process() {
    for (seed, busy_percent) in [(1, 60), (2, 60), (3, 60), (1, 75)] {
        let load = mixed(seed, HALF_AN_HOUR, busy_percent, false);
        hold(&format!("processes start anew, seed {seed}, {busy_percent} % busy"), &load);
    }
}

#[test]
fn sticky_answers_sooner_where_a_swap_is_only_its_transfer() {
    for (seed, busy_percent) in [(4, 100), (5, 100), (4, 115)] {
        let load = mixed(seed, HALF_AN_HOUR, busy_percent, true);
        hold(&format!("processes are kept, seed {seed}, {busy_percent} % busy"), &load);
    }
}
