//! Who is admitted, and how the others are told why not.

use super::shard::{Shard, limits};
use crate::{
    Bytes, ConcurrencyPolicy, Config, Effect, Engine, Event, FunctionId, FunctionSpec, InvocationId, LimitError,
    Limits, Nanos, Outcome, Policies, Refusal,
};

#[test]
fn limits_that_stop_all_work_are_refused_by_name() {
    let make = |change: fn(&mut Limits)| {
        let mut limits = limits();
        change(&mut limits);
        Engine::new(Config { limits, policies: Policies::default() }).map(|_| ())
    };
    assert_eq!(make(|_| {}), Ok(()));
    assert_eq!(make(|limits| limits.starting = 0), Err(LimitError::Zero { name: "starting" }));
    assert_eq!(make(|limits| limits.memory = Bytes::ZERO), Err(LimitError::Zero { name: "memory" }));
    assert_eq!(make(|limits| limits.start_timeout = Nanos::ZERO), Err(LimitError::Zero { name: "start_timeout" }));
    let most = Limits::MOST_SANDBOXES;
    assert_eq!(
        make(|limits| limits.sandboxes = u32::MAX),
        Err(LimitError::TooLarge { name: "sandboxes", value: u32::MAX, most })
    );
    let policies = Policies { concurrency: ConcurrencyPolicy::Fixed { running: 0 }, ..Policies::default() };
    let refused = Engine::new(Config { limits: limits(), policies }).map(|_| ());
    assert_eq!(refused, Err(LimitError::Zero { name: "running" }));
}

#[test]
fn a_function_nobody_added_is_not_found() {
    let mut shard = Shard::small();
    let function = shard.add(64, 1);
    assert_eq!(shard.refused(FunctionId { index: 5, ..function }), Refusal::NoSuchFunction);
    assert_eq!(shard.refused(FunctionId { index: u32::MAX, ..function }), Refusal::NoSuchFunction);
    assert_eq!(shard.refused(FunctionId { generation: 8, ..function }), Refusal::NoSuchFunction);
}

#[test]
fn a_full_queue_refuses_and_takes_again_when_one_leaves() {
    let mut shard = Shard::new(Limits { queue_per_function: 3, ..limits() }, Policies::default());
    let (function, other) = (shard.add(64, 1), shard.add(64, 1));
    let first = shard.arrive(function);
    shard.arrive(function);
    shard.arrive(function);
    assert_eq!(shard.refused(function), Refusal::QueueFull);
    shard.arrive(other);
    shard.step(Event::Cancel { invocation: first });
    shard.arrive(function);
    assert_eq!(shard.refused(function), Refusal::QueueFull);
    assert_eq!(shard.stats().refused(Refusal::QueueFull), 2);
}

#[test]
fn too_many_unfinished_refuses_whichever_function() {
    let mut shard = Shard::new(Limits { invocations: 2, ..limits() }, Policies::default());
    let (one, two) = (shard.add(64, 1), shard.add(64, 1));
    let placed = shard.cold(one);
    shard.arrive(two);
    assert_eq!(shard.refused(one), Refusal::InvocationsFull);
    // Answered, but its lane is still in use: it counts.
    shard.step(Event::Cancel { invocation: placed.invocation });
    assert_eq!(shard.refused(one), Refusal::InvocationsFull);
    shard.complete(placed);
    shard.arrive(one);
}

#[test]
fn a_function_larger_than_the_whole_budget_is_refused_and_one_as_large_is_not() {
    let mut shard = Shard::small();
    let (too_large, as_large) = (shard.add(257, 1), shard.add(256, 1));
    assert_eq!(shard.refused(too_large), Refusal::TooLarge);
    shard.arrive(as_large);
    assert_eq!(shard.starts().len(), 1);
}

#[test]
fn a_draining_shard_refuses() {
    let mut shard = Shard::small();
    let function = shard.add(64, 1);
    shard.step(Event::Drain);
    assert_eq!(shard.refused(function), Refusal::Draining);
}

#[test]
fn a_function_that_cannot_be_taken_is_gone_at_once() {
    let mut shard = Shard::small();
    let function = shard.add(64, 1);
    let spec = FunctionSpec {
        memory: Bytes::ZERO,
        timeout: Nanos::ZERO,
        concurrency: 0,
        min_warm: 0,
        trim_after: None,
        freeze_after: None,
    };
    let in_use = FunctionId { generation: 8, ..function };
    let gone = [Effect::FunctionGone { function: in_use }];
    assert_eq!(shard.step(Event::FunctionAdded { function: in_use, spec }), gone);
    let beyond = FunctionId { index: limits().functions, generation: 0 };
    let gone = [Effect::FunctionGone { function: beyond }];
    assert_eq!(shard.step(Event::FunctionAdded { function: beyond, spec }), gone);
    // The same one again is no news, and does not disturb the first.
    assert_eq!(shard.step(Event::FunctionAdded { function, spec }), []);
    assert_eq!(shard.stats().stale_events, 1);
    shard.arrive(function);
}

#[test]
fn a_concurrency_of_nothing_is_taken_as_one() {
    let mut shard = Shard::small();
    let function = shard.add(64, 0);
    let placed = shard.cold(function);
    shard.complete(placed);
    assert_eq!(shard.outcome(placed.invocation), Some(Outcome::Returned));
}

#[test]
fn a_waiting_client_that_leaves_is_told_once_and_frees_its_place() {
    let mut shard = Shard::small();
    let function = shard.add(64, 1);
    let invocation = shard.arrive(function);
    let [sandbox] = shard.starts()[..] else { panic!("one start was expected") };
    shard.step(Event::Cancel { invocation });
    assert_eq!(shard.answers(), [(invocation, Outcome::Cancelled)]);
    assert_eq!(shard.stats().queued, 0);
    assert_eq!(shard.step(Event::Cancel { invocation }), []);
    // The sandbox that nobody waits for any more becomes idle.
    assert_eq!(shard.ready(sandbox), []);
    assert_eq!(shard.stats().idle, 1);
}

#[test]
fn a_running_client_that_leaves_keeps_its_lane_until_the_run_ends() {
    let mut shard = Shard::new(Limits { sandboxes: 1, ..limits() }, Policies::default());
    let function = shard.add(64, 1);
    let placed = shard.cold(function);
    shard.step(Event::Cancel { invocation: placed.invocation });
    let cancel_run = Effect::CancelRun { sandbox: placed.sandbox, lane: placed.lane, invocation: placed.invocation };
    assert_eq!(shard.answers(), [(placed.invocation, Outcome::Cancelled)]);
    assert!(shard.effects.contains(&cancel_run));
    assert_eq!(shard.step(Event::Cancel { invocation: placed.invocation }), []);
    let next = shard.arrive(function);
    assert_eq!(shard.placed(), []);
    shard.complete(placed);
    assert_eq!(shard.answers(), []);
    assert_eq!(shard.placed()[0].invocation, next);
}

#[test]
fn leaving_twice_or_never_having_come_is_stale() {
    let mut shard = Shard::small();
    for bits in [0, 1, u64::MAX] {
        assert_eq!(shard.step(Event::Cancel { invocation: InvocationId::from_bits(bits) }), []);
    }
    assert_eq!(shard.stats().stale_events, 3);
}
