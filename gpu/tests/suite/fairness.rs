//! How far one function may get ahead of another while both have work.
//!
//! The published bound is `|S_i/w_i − S_j/w_j| ≤ (D − 1)(2T + τ_i/w_i − τ_j/w_j)` with `D` places, over-run `T`, service
//! received `S` and the longest service `τ`. It says nothing for one place (its right side is 0, while a single run
//! already sets two functions apart), and it needs `T` to be at least every `τ/w`. What the formulas of the policy
//! give, for any number of places, is `T + max(τ_i/w_i, τ_j/w_j)` from a common beginning. Both are held here.

use proptest::prelude::*;
use vilya_engine::{FunctionId, Nanos};
use vilya_gpu::device::simulated::Workload;
use vilya_gpu::{Policy, StickySettings};

use crate::world::{LAZY, STICKY, World, costs, limits, spec};

#[derive(Clone, Copy, Debug)]
struct Backlogged {
    service_ms: u64,
    memory_mib: u64,
    weight: u32,
}

fn backlogged() -> impl Strategy<Value = Vec<Backlogged>> {
    let flow = (20u64..3_000, 500u64..6_000, 1u32..4).prop_map(|(service_ms, memory_mib, weight)| Backlogged {
        service_ms,
        memory_mib,
        weight,
    });
    proptest::collection::vec(flow, 2..6)
}

/// Every function with more work than it gets done; they begin together.
fn world(policy: Policy, running: u32, flows: &[Backlogged]) -> (World, Vec<FunctionId>) {
    let mut world = World::new(policy, limits(running, 8), costs(8));
    let functions: Vec<FunctionId> = flows
        .iter()
        .map(|flow| {
            let workload = Workload { service: Nanos::from_millis(flow.service_ms), setup: Nanos::ZERO };
            world.add(spec(flow.memory_mib, flow.weight), workload)
        })
        .collect();
    for _ in 0..BACKLOG {
        functions.iter().for_each(|function| world.arrive(*function));
    }
    (world, functions)
}

const BACKLOG: u32 = 120;

/// The longest charge of a flow for one share: a run beside as many others as there are places, or, before anything is
/// known, a tenth of the over-run.
fn longest(settings: StickySettings, running: u32, flow: &Backlogged) -> i128 {
    let slowed = flow.service_ms * 1_000_000 * (100 + 50 * u64::from(running - 1)) / 100;
    i128::from(slowed.max(settings.overrun.as_nanos() / 10) / u64::from(flow.weight))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_charged_stays_within_the_overrun_and_one_run(
        flows in backlogged(), running in 1u32..5, overrun_s in 1u64..12, lazy: bool,
    ) {
        let settings = StickySettings { overrun: Nanos::from_secs(overrun_s), ..if lazy { LAZY } else { STICKY } };
        let (mut world, functions) = world(Policy::MqfqSticky(settings), running, &flows);
        let overrun = i128::from(settings.overrun.as_nanos());
        loop {
            let views: Vec<_> = functions.iter().map(|function| world.view(*function)).collect();
            if views.iter().any(|view| view.queued == 0) || !world.next(Nanos::MAX) {
                break;
            }
            for (i, ahead) in views.iter().enumerate() {
                for (j, behind) in views.iter().enumerate() {
                    let gap = i128::from(ahead.start_tag.as_nanos()) - i128::from(behind.start_tag.as_nanos());
                    let (own, other) =
                        (longest(settings, running, &flows[i]), longest(settings, running, &flows[j]));
                    prop_assert!(gap <= overrun + own, "{i} is {gap} ns ahead of {j}");
                    if running > 1 && overrun >= other && gap > 0 {
                        let published = i128::from(running - 1) * (2 * overrun + own - other);
                        prop_assert!(gap <= published, "{i} is {gap} ns ahead of {j}, published {published}");
                    }
                }
            }
        }
    }

    /// With measured charges the bound is one on what the device really did: the tags' own, and what the runs in flight
    /// may still have to be corrected by.
    #[test]
    fn what_was_really_had_stays_within_the_overrun_and_what_is_in_flight(
        flows in backlogged(), running in 1u32..5, overrun_s in 1u64..12,
    ) {
        let settings = StickySettings { overrun: Nanos::from_secs(overrun_s), ..STICKY };
        let (mut world, functions) = world(Policy::MqfqStickyMeasured(settings), running, &flows);
        let worst = flows.iter().map(|flow| longest(settings, running, flow)).max().expect("there are flows");
        let bound = i128::from(settings.overrun.as_nanos()) + (3 * i128::from(running) + 1) * worst;
        let is_backlogged = |world: &World| functions.iter().all(|function| world.view(*function).queued > 0);
        while is_backlogged(&world) && world.next(Nanos::MAX) {}
        let had: Vec<i128> = functions
            .iter()
            .zip(&flows)
            .map(|(function, flow)| {
                let own = world.asked.iter().filter(|asked| asked.function == *function);
                let runs = own.filter_map(|asked| Some((asked.started?, asked.answered?.0)));
                let sum: u64 = runs.map(|(from, to)| to.saturating_sub(from).as_nanos()).sum();
                i128::from(sum / u64::from(flow.weight))
            })
            .collect();
        let spread = had.iter().max().expect("flows") - had.iter().min().expect("flows");
        prop_assert!(spread <= bound, "{had:?} are {spread} ns apart, bound {bound}");
    }
}

/// The mistake this guards: charges by estimate let a function that takes more than is expected of it have more than
/// its share for as long as the estimate is behind.
#[test]
fn a_function_that_grows_pays_for_it_at_once_when_it_is_measured() {
    let share_of_the_grown = |policy| {
        let flow = Backlogged { service_ms: 100, memory_mib: 500, weight: 1 };
        let mut world = World::new(policy, limits(1, 8), costs(8));
        let workload = |service_ms| Workload { service: Nanos::from_millis(service_ms), setup: Nanos::ZERO };
        let functions: Vec<FunctionId> =
            [flow; 2].iter().map(|flow| world.add(spec(flow.memory_mib, 1), workload(flow.service_ms))).collect();
        functions.iter().for_each(|function| world.arrive(*function));
        world.run_until(Nanos::from_secs(1));
        // Both are queued at what is known: a tenth of a second. Then one of them takes ten times as long.
        world.device.describe(functions[0], workload(1_000));
        for _ in 0..200 {
            functions.iter().for_each(|function| world.arrive(*function));
        }
        world.run_until(Nanos::from_secs(41));
        let runs = world.asked.iter().filter(|asked| asked.function == functions[0] && asked.answered.is_some());
        runs.count()
    };
    let short = StickySettings { overrun: Nanos::from_secs(1), ..STICKY };
    let estimated = share_of_the_grown(Policy::MqfqSticky(short));
    let measured = share_of_the_grown(Policy::MqfqStickyMeasured(short));
    // Of forty seconds each should have about twenty: twenty runs of the one that has grown.
    assert!((17..=23).contains(&measured), "{measured} runs of a second in a half of forty seconds");
    assert!(estimated > 30, "charging by estimate is expected to give it far more: {estimated}");
}
