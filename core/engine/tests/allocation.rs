//! The warm path allocates nothing: counted by an allocator of this binary's own, which is why it is a binary.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use vilya_engine::{
    Bytes, Config, Effect, Effects, Engine, Event, FunctionId, FunctionSpec, KeepAlivePolicy, Limits, Nanos, Origin,
    Policies, QueuePolicy, RunResult,
};

thread_local! {
    /// Per thread, because the test harness allocates on others.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed on unchanged to the system's allocator; counting touches a thread-local cell that is
// initialised at compile time, so it neither allocates nor runs a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises about `layout` are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises about `at` and `layout` are passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

const FUNCTIONS: u32 = 4;

/// Every function is asked for more often than it has lanes, then all of it completes.
fn one_round(engine: &mut Engine, now: &mut Nanos, effects: &mut Effects, runs: &mut Vec<Event>) {
    for number in 0..FUNCTIONS * 3 {
        *now = now.saturating_add(Nanos::from_micros(3));
        let function = FunctionId { index: number % FUNCTIONS, generation: 0 };
        step(engine, *now, Event::Arrive { origin: Origin(u64::from(number)), function }, effects, runs);
    }
    while let Some(event) = runs.pop() {
        *now = now.saturating_add(Nanos::from_micros(7));
        step(engine, *now, event, effects, runs);
    }
    large_payloads(engine, now, effects, runs);
}

/// Both lanes of a function are reserved and another invocation wants one; then answers are held until it is released.
fn large_payloads(engine: &mut Engine, now: &mut Nanos, effects: &mut Effects, runs: &mut Vec<Event>) {
    let (origin, function) = (Origin(0), FunctionId { index: 0, generation: 0 });
    for event in [Event::Reserve { origin, function }, Event::Reserve { origin, function }] {
        step(engine, *now, event, effects, runs);
    }
    assert_eq!(engine.stats().reserved, 2, "every lane is reserved");
    step(engine, *now, Event::Arrive { origin, function }, effects, runs);
    while let Some(mut event) = runs.pop() {
        *now = now.saturating_add(Nanos::from_micros(7));
        if let Event::Completed { sandbox, lane, invocation, held, .. } = &mut event {
            *held = true;
            runs.push(Event::Release { sandbox: *sandbox, lane: *lane, invocation: *invocation });
        }
        step(engine, *now, event, effects, runs);
    }
}

fn step(engine: &mut Engine, now: Nanos, event: Event, effects: &mut Effects, runs: &mut Vec<Event>) {
    engine.step(now, event, effects);
    for effect in effects.drain() {
        match effect {
            Effect::Start { sandbox, .. } => runs.push(Event::SandboxReady { sandbox }),
            Effect::Reserved { invocation, .. } => runs.push(Event::Commit { invocation }),
            Effect::Dispatch { sandbox, lane, invocation, .. } => {
                runs.push(Event::Completed { sandbox, lane, invocation, result: RunResult::Returned, held: false });
            }
            _ => {}
        }
    }
}

#[test]
fn serving_with_warm_sandboxes_allocates_nothing() {
    let limits = Limits {
        functions: FUNCTIONS,
        invocations: 64,
        queue_per_function: 16,
        sandboxes: FUNCTIONS,
        sandboxes_per_function: 1,
        starting: FUNCTIONS,
        memory: Bytes::from_mebibytes(1024),
        start_timeout: Nanos::from_secs(10),
        drain_timeout: Nanos::from_secs(10),
    };
    let keepalive = KeepAlivePolicy::Ttl { idle: Nanos::from_secs(600) };
    let policies = Policies { queue: QueuePolicy::Sjf, keepalive, ..Policies::default() };
    let mut engine = Engine::new(Config { limits, policies }).expect("these limits are valid");
    let (mut now, mut effects, mut runs) = (Nanos::ZERO, Effects::new(), Vec::with_capacity(64));
    for index in 0..FUNCTIONS {
        let spec = FunctionSpec {
            memory: Bytes::from_mebibytes(64),
            timeout: Nanos::from_secs(3),
            concurrency: 2,
            min_warm: 0,
            trim_after: Some(Nanos::from_micros(500)),
            freeze_after: Some(Nanos::from_millis(1)),
        };
        let function = FunctionId { index, generation: 0 };
        step(&mut engine, now, Event::FunctionAdded { function, spec }, &mut effects, &mut runs);
    }
    one_round(&mut engine, &mut now, &mut effects, &mut runs);
    assert_eq!(engine.stats().idle, FUNCTIONS, "the sandboxes are started and idle");

    let before = allocations();
    for _ in 0..1000 {
        one_round(&mut engine, &mut now, &mut effects, &mut runs);
    }
    assert_eq!(allocations() - before, 0);
    assert_eq!(engine.stats().dispatched_warm, 1001 * (u64::from(FUNCTIONS) * 3 + 3) - u64::from(FUNCTIONS));
    assert!(engine.stats().reclaimed >= 1001, "lent lanes were wanted back");
    drop(Vec::<u8>::with_capacity(1));
    assert_eq!(allocations() - before, 1, "the counter counts");
}
