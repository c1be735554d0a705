//! One suite for every policy: a new one adds its line to the list and is held to the rest.
//!
//! What must hold after every single step (books, work conservation, no second answer) is checked by the world itself.

use proptest::prelude::*;
use vilya_engine::{FunctionId, Nanos, Outcome};
use vilya_gpu::device::simulated::Workload;
use vilya_gpu::{Effect, Event, Policy};

use crate::load::Random;
use crate::world::{POLICIES, World, costs, limits, spec};

const FUNCTIONS: u64 = 7;

/// Bursts over functions that do not fit together, deaths at any moment, everything retired in the end. 8 GiB.
fn troubled(policy: Policy, running: u32, seed: u64) -> (World, Vec<FunctionId>) {
    let mut random = Random(seed);
    let mut world = World::new(policy, limits(running, 8), costs(8));
    let functions: Vec<FunctionId> = (0..FUNCTIONS)
        .map(|_| {
            let workload = Workload {
                service: Nanos::from_millis(random.below(900)),
                setup: Nanos::from_millis(random.below(300)),
            };
            world.add(spec(random.below(8 << 10), 1 + random.below(3) as u32), workload)
        })
        .collect();
    for _ in 0..150 {
        let at = world.now.saturating_add(Nanos::from_millis(random.below(600)));
        world.run_until(at);
        let function = functions[random.below(FUNCTIONS) as usize];
        match random.below(20) {
            0 => world.kill(function),
            _ => (0..1 + random.below(3)).for_each(|_| world.arrive(function)),
        }
    }
    for function in &functions {
        world.step(Event::FunctionRetired { function: *function });
    }
    world.run_to_rest();
    (world, functions)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn everything_is_answered_once_and_nothing_is_left(seed: u64, running in 1u32..6) {
        for policy in POLICIES {
            let (world, functions) = troubled(policy, running, seed);
            for asked in &world.asked {
                let (at, outcome) = asked.answered.expect("an admitted invocation is answered");
                prop_assert!(matches!(outcome, Outcome::Returned | Outcome::SandboxDied));
                prop_assert!(outcome == Outcome::SandboxDied || asked.started.is_some());
                prop_assert!(at >= asked.arrived);
            }
            let ledger = world.scheduler.ledger();
            prop_assert_eq!(ledger.free(), ledger.capacity(), "{:?} keeps a reservation", policy);
            prop_assert_eq!(world.scheduler.in_flight(), 0);
            let is_gone = |function: &FunctionId| world.scheduler.flow(*function).is_none();
            prop_assert!(functions.iter().all(is_gone), "{:?} keeps a function", policy);
            prop_assert_eq!(world.scheduler.next_wake(), None);
        }
    }

    #[test]
    fn within_a_function_nobody_overtakes(seed: u64, running in 1u32..6) {
        for policy in POLICIES {
            let (world, functions) = troubled(policy, running, seed);
            for function in functions {
                let mut last = None;
                for (_, effect) in &world.log {
                    if let Effect::StartRun { origin, function: started, .. } = effect
                        && *started == function
                    {
                        prop_assert!(last < Some(*origin), "{:?}: {:?} after {:?}", policy, origin, last);
                        last = Some(*origin);
                    }
                }
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_decisions(seed: u64) {
        for policy in POLICIES {
            let (first, again) = (troubled(policy, 2, seed).0, troubled(policy, 2, seed).0);
            prop_assert!(first.log == again.log, "{:?} depends on something that it is not given", policy);
        }
    }
}

/// A large burst is worked off without a step that goes on for ever, whatever is left over between.
#[test]
fn a_burst_over_every_function_is_served_to_the_end() {
    for policy in POLICIES {
        let mut world = World::new(policy, limits(16, 8), costs(8));
        let work = Workload { service: Nanos::from_millis(10), setup: Nanos::ZERO };
        let functions: Vec<FunctionId> = (0..32).map(|_| world.add(spec(700, 1), work)).collect();
        for _ in 0..20 {
            functions.iter().for_each(|function| world.arrive(*function));
        }
        world.run_to_rest();
        let returned = |asked: &crate::world::Asked| asked.answered.map(|(_, outcome)| outcome);
        assert!(world.asked.iter().all(|asked| returned(asked) == Some(Outcome::Returned)), "{policy:?}");
    }
}
