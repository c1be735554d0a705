//! Sandboxes that give way to others while a run in them takes long.

use std::vec::Vec;

use super::shard::{Placed, Shard, TIMEOUT, limits};
use crate::{Effect, Nanos, Policies, SandboxId};

const QUANTUM: Nanos = Nanos::from_millis(2);
const MILLI: Nanos = Nanos::from_millis(1);

fn shard() -> Shard {
    Shard::new(limits(), Policies { quantum: Some(QUANTUM), ..Policies::default() })
}

/// What the last call said about giving way, in order.
fn said(shard: &Shard) -> Vec<(SandboxId, bool)> {
    let said = |effect: &Effect| match *effect {
        Effect::Demote { sandbox } => Some((sandbox, true)),
        Effect::Promote { sandbox } => Some((sandbox, false)),
        _ => None,
    };
    shard.effects.iter().filter_map(said).collect()
}

/// An invocation of a function that has an idle sandbox or a free lane.
fn warm(shard: &mut Shard, function: crate::FunctionId) -> Placed {
    shard.arrive(function);
    shard.placed()[0]
}

#[test]
fn a_sandbox_gives_way_when_its_run_is_past_the_quantum_and_no_longer_with_the_next_run() {
    let mut shard = shard();
    let function = shard.add(64, 1);
    let first = shard.cold(function);
    assert_eq!(shard.pass(MILLI), [], "within the quantum");
    assert_eq!(shard.engine.next_wake(), Some(shard.now.saturating_add(MILLI)), "that is when it is looked at");
    assert_eq!(shard.pass(MILLI), [Effect::Demote { sandbox: first.sandbox }]);
    assert_eq!(shard.pass(TIMEOUT.saturating_sub(Nanos::from_secs(1))), [], "once");
    shard.complete(first);
    assert_eq!(said(&shard), [], "one that has nothing to do gives way all the same: what it left may run on");
    let next = warm(&mut shard, function);
    let [Effect::Enqueued { .. }, Effect::Promote { sandbox }, Effect::Dispatch { .. }] = shard.effects[..] else {
        panic!("{:?}", shard.effects)
    };
    assert_eq!((sandbox, next.sandbox), (first.sandbox, first.sandbox));
    assert_eq!(shard.pass(QUANTUM), [Effect::Demote { sandbox }], "the next run has a quantum of its own");
    assert_eq!(shard.stats().demoted, 2);
}

#[test]
fn short_runs_are_not_noticed_however_many_follow_each_other() {
    let mut shard = shard();
    let function = shard.add(64, 1);
    let mut placed = shard.cold(function);
    for _ in 0..50 {
        assert_eq!(shard.pass(MILLI), []);
        shard.complete(placed);
        assert_eq!(said(&shard), []);
        assert_eq!(shard.engine.next_wake(), None, "nothing is watched between runs");
        placed = warm(&mut shard, function);
        assert_eq!(said(&shard), []);
    }
    assert_eq!(shard.stats().demoted, 0);
}

#[test]
fn a_sandbox_with_several_runs_gives_way_while_one_of_them_is_long() {
    let mut shard = shard();
    let function = shard.add(64, 3);
    let long = shard.cold(function);
    shard.pass(MILLI);
    let short = warm(&mut shard, function);
    shard.pass(MILLI);
    assert_eq!(said(&shard), [(long.sandbox, true)]);
    shard.complete(short);
    let beside = warm(&mut shard, function);
    assert_eq!(said(&shard), [], "the long one is still there");
    shard.pass(QUANTUM);
    assert_eq!(said(&shard), [], "it gives way already");
    shard.complete(long);
    warm(&mut shard, function);
    assert_eq!(said(&shard), [], "and another has become long");
    shard.complete(beside);
    warm(&mut shard, function);
    assert_eq!(said(&shard), [(long.sandbox, false)]);
}

#[test]
fn a_long_run_in_a_reserved_lane_counts_from_when_its_payload_was_whole() {
    let mut shard = shard();
    let function = shard.add(64, 1);
    shard.idle(function);
    let reserved = shard.reserve(function);
    assert_eq!(shard.pass(Nanos::from_secs(1)), [], "a payload that takes long to arrive is no run");
    shard.step(crate::Event::Commit { invocation: reserved.invocation });
    assert_eq!(said(&shard), []);
    assert_eq!(shard.pass(QUANTUM), [Effect::Demote { sandbox: reserved.sandbox }]);
}

#[test]
fn a_sandbox_that_dies_in_a_long_run_leaves_nothing_behind() {
    let mut shard = shard();
    let function = shard.add(64, 2);
    let long = shard.cold(function);
    shard.pass(QUANTUM);
    warm(&mut shard, function);
    shard.step(crate::Event::SandboxDied { sandbox: long.sandbox });
    assert_eq!(shard.answers().len(), 2);
    assert_eq!((shard.stats().sandboxes, shard.engine.next_wake()), (0, None));
}

#[test]
fn without_a_quantum_nothing_gives_way() {
    let mut shard = Shard::small();
    let function = shard.add(64, 1);
    shard.cold(function);
    assert_eq!(shard.pass(Nanos::from_secs(2)), []);
    assert_eq!(shard.stats().demoted, 0);
}
