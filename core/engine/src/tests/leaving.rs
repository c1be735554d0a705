//! Functions that are retired, and shards that end.

use std::vec::Vec;

use super::shard::{Shard, limits};
use crate::{Effect, Event, FunctionId, KillReason, Limits, Nanos, Outcome, Policies, Refusal};

#[test]
fn a_retired_function_finishes_what_it_took_and_then_is_gone() {
    let mut shard = Shard::new(Limits { sandboxes: 2, ..limits() }, Policies::default());
    let function = shard.add(64, 1);
    let placed = [shard.cold(function), shard.cold(function)];
    let waiting = shard.arrive(function);
    assert_eq!(shard.step(Event::FunctionRetired { function }), []);
    assert_eq!(shard.refused(function), Refusal::NoSuchFunction);
    shard.complete(placed[0]);
    assert_eq!(shard.placed()[0].invocation, waiting);
    let last = shard.placed()[0];
    shard.complete(placed[1]);
    assert_eq!(shard.kills(), [(placed[1].sandbox, KillReason::Retired)]);
    shard.step(Event::SandboxDied { sandbox: placed[1].sandbox });
    shard.complete(last);
    assert_eq!(shard.step(Event::SandboxDied { sandbox: last.sandbox }), [Effect::FunctionGone { function }]);
    assert_eq!(shard.stats().functions, 0);
}

#[test]
fn the_index_of_a_function_that_is_gone_is_used_again_and_the_old_id_means_nothing() {
    let mut shard = Shard::small();
    let function = shard.add(64, 1);
    assert_eq!(shard.step(Event::FunctionRetired { function }), [Effect::FunctionGone { function }]);
    assert_eq!(shard.step(Event::FunctionRetired { function }), [], "it is told once");
    let next = FunctionId { generation: function.generation + 1, ..function };
    let spec = crate::FunctionSpec {
        memory: crate::Bytes::ZERO,
        timeout: Nanos::from_secs(1),
        concurrency: 1,
        min_warm: 0,
        trim_after: None,
        freeze_after: None,
    };
    shard.step(Event::FunctionAdded { function: next, spec });
    assert_eq!(shard.refused(function), Refusal::NoSuchFunction);
    shard.arrive(next);
}

#[test]
fn a_retired_function_is_still_started_for_what_waits_and_not_for_what_left() {
    let mut shard = Shard::small();
    let function = shard.add(64, 1);
    let stays = shard.arrive(function);
    let mut starting = shard.starts();
    let leaves = shard.arrive(function);
    starting.extend(shard.starts());
    shard.step(Event::FunctionRetired { function });
    assert_eq!(shard.kills(), []);
    shard.step(Event::Cancel { invocation: leaves });
    assert_eq!(shard.kills(), [], "either start may be the first to be ready");
    let placed = shard.ready(starting[1])[0];
    assert_eq!(placed.invocation, stays);
    assert_eq!(shard.kills(), [(starting[0], KillReason::Retired)]);
}

#[test]
fn a_drain_finishes_what_was_admitted() {
    let mut shard = Shard::small();
    let (one, two) = (shard.add(64, 1), shard.add(64, 1));
    let idle = shard.idle(one);
    let running = shard.cold(two);
    let waiting = shard.arrive(two);
    let [starting] = shard.starts()[..] else { panic!("one start was expected") };
    shard.step(Event::Drain);
    assert_eq!(shard.effects, [Effect::Kill { sandbox: idle, reason: KillReason::Drained }]);
    shard.step(Event::SandboxDied { sandbox: idle });
    shard.complete(running);
    assert_eq!(shard.placed()[0].invocation, waiting, "what waits is still run");
    let last = shard.placed()[0];
    assert_eq!(shard.kills(), [(starting, KillReason::Drained)], "and nothing is started for nobody");
    shard.step(Event::SandboxStartFailed { sandbox: starting });
    shard.complete(last);
    assert_eq!(shard.kills(), [(last.sandbox, KillReason::Drained)]);
    assert_eq!(shard.step(Event::SandboxDied { sandbox: last.sandbox }), [Effect::Drained]);
    assert_eq!(shard.pass(limits().drain_timeout), [], "it is said once");
    assert_eq!(shard.step(Event::Drain), []);
    assert_eq!(shard.refused(one), Refusal::Draining);
}

#[test]
fn an_empty_shard_is_drained_at_once() {
    let mut shard = Shard::small();
    shard.add(64, 1);
    assert_eq!(shard.step(Event::Drain), [Effect::Drained]);
}

#[test]
fn a_drain_that_takes_too_long_ends_everything() {
    let small = Limits { sandboxes: 2, drain_timeout: Nanos::from_secs(1), ..limits() };
    let mut shard = Shard::new(small, Policies::default());
    let (one, two) = (shard.add(64, 1), shard.add(64, 1));
    let running = shard.cold(one);
    let mut asked = [running.invocation].to_vec();
    asked.extend((0..200).map(|_| shard.arrive(two)));
    shard.step(Event::Cancel { invocation: asked[1] });
    shard.step(Event::Drain);
    assert_eq!(shard.engine.next_wake(), Some(shard.now.saturating_add(small.drain_timeout)));
    shard.pass(small.drain_timeout);
    assert_eq!(shard.stats().answered(Outcome::Draining), 200);
    assert!(asked.iter().all(|&invocation| shard.outcome(invocation).is_some()));
    let killed: Vec<_> = shard.kills().iter().map(|(sandbox, _)| *sandbox).collect();
    assert_eq!(killed.len(), 2);
    assert_eq!(shard.step(Event::SandboxReady { sandbox: killed[1] }), []);
    assert_eq!(shard.step(Event::SandboxDied { sandbox: killed[0] }), []);
    assert_eq!(shard.step(Event::SandboxDied { sandbox: killed[1] }), [Effect::Drained]);
}

#[test]
fn a_worn_sandbox_is_replaced_when_it_is_idle_and_not_before() {
    let mut shard = Shard::small();
    let function = shard.add(64, 2);
    let run = shard.cold(function);
    let sandbox = run.sandbox;
    assert_eq!(shard.step(Event::Replace { sandbox }), [], "something runs in it");
    shard.complete(run);
    assert_eq!(shard.step(Event::Replace { sandbox }), [Effect::Kill { sandbox, reason: KillReason::Worn }]);
    assert_eq!(shard.step(Event::Replace { sandbox }), [], "it is told once");
    shard.step(Event::SandboxDied { sandbox });
    assert_eq!(shard.step(Event::Replace { sandbox }), [], "its id means nothing any more");
    shard.arrive(function);
    assert_eq!(shard.starts().len(), 1, "another takes its place when it is wanted");
}
