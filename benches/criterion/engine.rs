//! One warm invocation through the engine: arrive, dispatch, complete, answer; and one whose payload is received into
//! its lane and whose answer is sent from it: reserve, commit, complete, release.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vilya_engine::policy::Policies;
use vilya_engine::{
    Bytes, Config, Effect, Effects, Engine, Event, FunctionId, FunctionSpec, Limits, Nanos, Origin, RunResult,
};

fn engine() -> Engine {
    let limits = Limits {
        functions: 4096,
        invocations: 4096,
        queue_per_function: 1024,
        sandboxes: 4096,
        sandboxes_per_function: 64,
        starting: 64,
        memory: Bytes::from_bytes(1 << 40),
        start_timeout: Nanos::from_secs(10),
        drain_timeout: Nanos::from_secs(10),
    };
    Engine::new(Config { limits, policies: Policies::default() }).expect("the limits are good")
}

/// Adds functions and brings one sandbox of each to life.
fn warm(engine: &mut Engine, functions: u32, effects: &mut Effects) -> u64 {
    let mut now = 0;
    for index in 0..functions {
        let function = FunctionId { index, generation: 1 };
        let spec = FunctionSpec {
            memory: Bytes::from_bytes(1 << 20),
            timeout: Nanos::from_secs(3),
            concurrency: 1,
            min_warm: 0,
            trim_after: None,
            freeze_after: None,
        };
        engine.step(Nanos::from_nanos(now), Event::FunctionAdded { function, spec }, effects);
        effects.clear();
        invoke(engine, &mut now, function, effects);
    }
    now
}

/// One invocation, whatever it takes.
fn invoke(engine: &mut Engine, now: &mut u64, function: FunctionId, effects: &mut Effects) {
    let mut next = Some(Event::Arrive { origin: Origin(7), function });
    while let Some(event) = next.take() {
        *now += 100;
        engine.step(Nanos::from_nanos(*now), event, effects);
        for effect in effects.drain() {
            match effect {
                Effect::Start { sandbox, .. } => next = Some(Event::SandboxReady { sandbox }),
                Effect::Dispatch { sandbox, lane, invocation, .. } => {
                    next =
                        Some(Event::Completed { sandbox, lane, invocation, result: RunResult::Returned, held: false });
                }
                other => {
                    black_box(other);
                }
            }
        }
    }
}

fn warm_invocation(c: &mut Criterion) {
    let mut group = c.benchmark_group("engine_warm_invocation");
    group.throughput(Throughput::Elements(1));
    for functions in [1_u32, 1000] {
        group.bench_function(format!("{functions}_functions"), |bencher| {
            let (mut engine, mut effects) = (engine(), Effects::new());
            let mut now = warm(&mut engine, functions, &mut effects);
            let mut index = 0;
            bencher.iter(|| {
                index = (index + 1) % functions;
                invoke(&mut engine, &mut now, FunctionId { index, generation: 1 }, &mut effects);
            });
        });
    }
    group.finish();
}

/// One invocation in a lent lane; the function's sandbox is idle.
fn invoke_in_place(engine: &mut Engine, now: &mut u64, function: FunctionId, effects: &mut Effects) {
    let mut next = Some(Event::Reserve { origin: Origin(7), function });
    while let Some(event) = next.take() {
        *now += 100;
        engine.step(Nanos::from_nanos(*now), event, effects);
        next = match event {
            Event::Completed { sandbox, lane, invocation, .. } => Some(Event::Release { sandbox, lane, invocation }),
            _ => None,
        };
        for effect in effects.drain() {
            match effect {
                Effect::Reserved { invocation, .. } => next = Some(Event::Commit { invocation }),
                Effect::Dispatch { sandbox, lane, invocation, .. } => {
                    next =
                        Some(Event::Completed { sandbox, lane, invocation, result: RunResult::Returned, held: true });
                }
                other => {
                    black_box(other);
                }
            }
        }
    }
}

fn invocation_in_place(c: &mut Criterion) {
    let mut group = c.benchmark_group("engine_invocation_in_place");
    group.throughput(Throughput::Elements(1));
    group.bench_function("1_functions", |bencher| {
        let (mut engine, mut effects) = (engine(), Effects::new());
        let mut now = warm(&mut engine, 1, &mut effects);
        let function = FunctionId { index: 0, generation: 1 };
        bencher.iter(|| invoke_in_place(&mut engine, &mut now, function, &mut effects));
        assert_eq!((engine.stats().reserved, engine.stats().held), (0, 0), "every lane is given back");
    });
    group.finish();
}

criterion_group!(benches, warm_invocation, invocation_in_place);
criterion_main!(benches);
