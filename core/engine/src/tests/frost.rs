//! Sandboxes that are frozen while nobody asks, and thawed for who does.

use std::vec::Vec;

use super::shard::{Shard, TIMEOUT, limits};
use crate::policy::keepalive::KeepAlivePolicy;
use crate::{
    Bytes, ConcurrencyPolicy, Effect, Event, FunctionSpec, KillReason, Limits, Nanos, Outcome, Policies, SandboxId,
    StartKind,
};

const SECOND: Nanos = Nanos::from_secs(1);
const MILLI: Nanos = Nanos::from_millis(1);

/// A shard and a frozen sandbox of its only function, of 64 MiB.
fn frozen(mut shard: Shard) -> (Shard, crate::FunctionId, SandboxId) {
    let function = shard.add_freezing(64, SECOND);
    let sandbox = shard.idle(function);
    shard.pass(SECOND);
    assert_eq!(shard.freezes(), [sandbox]);
    (shard, function, sandbox)
}

#[test]
fn a_sandbox_is_frozen_once_when_it_has_been_idle_for_so_long_and_not_before() {
    let mut shard = Shard::small();
    let function = shard.add_freezing(64, SECOND);
    let sandbox = shard.idle(function);
    shard.pass(SECOND.saturating_sub(MILLI));
    assert_eq!(shard.effects, []);
    // Used again: its second begins anew.
    shard.arrive(function);
    let again = shard.placed()[0];
    assert_eq!(shard.pass(MILLI.saturating_add(MILLI)), [], "a busy one is not frozen");
    shard.complete(again);
    shard.pass(SECOND.saturating_sub(MILLI));
    assert_eq!(shard.effects, []);
    shard.pass(MILLI);
    assert_eq!(shard.effects, [Effect::Freeze { sandbox }]);
    assert_eq!((shard.stats().idle, shard.stats().frozen, shard.stats().froze), (1, 1, 1));
    assert_eq!(shard.engine.next_wake(), None, "nothing is due while it is frozen");
    assert_eq!(shard.pass(Nanos::from_secs(3600)), []);
}

#[test]
fn one_that_is_never_to_be_frozen_is_not() {
    let mut shard = Shard::small();
    let function = shard.add(64, 1);
    shard.idle(function);
    assert_eq!(shard.engine.next_wake(), None);
    assert_eq!(shard.pass(Nanos::from_secs(3600)), []);
}

#[test]
fn an_invocation_waits_for_the_thaw_and_is_warm() {
    let (mut shard, function, sandbox) = frozen(Shard::small());
    shard.arrive(function);
    assert_eq!((shard.thaws(), shard.starts(), shard.placed()), ([sandbox].to_vec(), Vec::new(), Vec::new()));
    shard.now = shard.now.saturating_add(MILLI);
    shard.step(Event::Thawed { sandbox });
    let [Effect::Dispatch { sandbox: to, start: StartKind::Warm, queued: MILLI, starting: Nanos::ZERO, .. }] =
        shard.effects[..]
    else {
        panic!("{:?}", shard.effects)
    };
    assert_eq!(to, sandbox);
    assert_eq!((shard.stats().frozen, shard.stats().thawing, shard.stats().thawed), (0, 0, 1));
}

#[test]
fn a_free_lane_is_taken_before_a_frozen_sandbox_and_that_before_a_start() {
    let mut shard = Shard::small();
    let function = shard.add_freezing(64, SECOND);
    let first = shard.cold(function);
    let second = shard.cold(function);
    shard.complete(first);
    shard.pass(SECOND);
    assert_eq!(shard.freezes(), [first.sandbox]);
    shard.complete(second);
    shard.arrive(function);
    assert_eq!(shard.placed()[0].sandbox, second.sandbox, "the one that is awake");
    shard.arrive(function);
    assert_eq!((shard.thaws(), shard.starts().len()), ([first.sandbox].to_vec(), 0));
    shard.arrive(function);
    assert_eq!((shard.thaws(), shard.starts().len()), (Vec::new(), 1), "the lane that is coming is spoken for");
}

#[test]
fn a_thaw_that_is_wanted_no_more_leaves_an_idle_sandbox_that_is_frozen_again() {
    let (mut shard, function, sandbox) = frozen(Shard::small());
    let invocation = shard.arrive(function);
    shard.step(Event::Cancel { invocation });
    shard.step(Event::Thawed { sandbox });
    assert_eq!((shard.stats().idle, shard.stats().frozen), (1, 0));
    shard.pass(SECOND);
    assert_eq!(shard.freezes(), [sandbox]);
}

#[test]
fn one_that_cannot_be_frozen_goes_on_and_is_not_tried_again() {
    let (mut shard, function, sandbox) = frozen(Shard::small());
    shard.step(Event::NotFrozen { sandbox });
    assert_eq!((shard.stats().frozen, shard.stats().not_frozen), (0, 1));
    shard.arrive(function);
    let placed = shard.placed()[0];
    assert_eq!(placed.sandbox, sandbox);
    shard.complete(placed);
    assert_eq!(shard.pass(Nanos::from_secs(3600)), []);
}

#[test]
fn one_whose_freezing_fails_while_it_is_asked_for_waits_for_its_thaw() {
    let (mut shard, function, sandbox) = frozen(Shard::small());
    shard.arrive(function);
    shard.step(Event::NotFrozen { sandbox });
    assert_eq!(shard.placed(), []);
    assert_eq!(shard.ready_again(sandbox), 1);
}

#[test]
fn one_that_cannot_be_thawed_is_killed_and_another_is_started() {
    let (mut shard, function, sandbox) = frozen(Shard::small());
    let invocation = shard.arrive(function);
    shard.step(Event::Broken { sandbox });
    assert_eq!(shard.kills(), [(sandbox, KillReason::Broken)]);
    let started = shard.starts();
    assert_eq!(started.len(), 1);
    assert_eq!(shard.ready(started[0])[0].invocation, invocation);
}

#[test]
fn a_thaw_that_does_not_end_has_a_deadline() {
    let (mut shard, function, sandbox) = frozen(Shard::small());
    shard.arrive(function);
    let wake = shard.engine.next_wake().expect("a thaw has a deadline");
    assert_eq!(wake.saturating_sub(shard.now), TIMEOUT.max(limits().start_timeout));
    // The invocation's patience ends at the same time.
    shard.pass(limits().start_timeout);
    assert_eq!(shard.kills(), [(sandbox, KillReason::StartTimedOut)]);
    assert_eq!(shard.stats().thawing, 0);
}

#[test]
fn a_frozen_one_expires_and_is_evicted_as_if_it_were_awake() {
    let keepalive = KeepAlivePolicy::Ttl { idle: Nanos::from_secs(3) };
    let (mut shard, _, sandbox) = frozen(Shard::new(limits(), Policies { keepalive, ..Policies::default() }));
    shard.pass(SECOND);
    assert_eq!(shard.kills(), []);
    shard.pass(SECOND);
    assert_eq!(shard.kills(), [(sandbox, KillReason::Idle)], "three seconds after it became idle");

    let (mut shard, _, longest_idle) = frozen(Shard::small());
    let other = shard.add(96, 1);
    let awake = shard.idle(other);
    let large = shard.add(160, 1);
    shard.arrive(large);
    assert_eq!(shard.kills(), [(longest_idle, KillReason::Evicted)], "and not {awake:?}");
}

#[test]
fn frozen_ones_count_for_a_warm_target() {
    let mut shard = Shard::small();
    let memory = Bytes::from_mebibytes(64);
    let freeze_after = Some(SECOND);
    let function = shard.add_spec(FunctionSpec {
        memory,
        timeout: TIMEOUT,
        concurrency: 1,
        min_warm: 2,
        trim_after: None,
        freeze_after,
    });
    shard.run_to_rest();
    shard.pass(SECOND);
    assert_eq!(shard.freezes().len(), 2, "{:?}", shard.effects);
    assert_eq!((shard.stats().kept, shard.stats().warm_missing), (2, 0));
    shard.arrive(function);
    let sandbox = shard.thaws()[0];
    assert_eq!((shard.starts(), shard.stats().warm_missing), (Vec::new(), 0), "nor does one lack while it is thawed");
    assert_eq!(shard.ready_again(sandbox), 1);
}

#[test]
fn an_idle_sandbox_is_advised_once_to_give_memory_back_and_then_frozen() {
    let mut shard = Shard::small();
    let memory = Bytes::from_mebibytes(64);
    let (trim_after, freeze_after) = (Some(SECOND), Some(Nanos::from_secs(3)));
    let spec = FunctionSpec { memory, timeout: TIMEOUT, concurrency: 1, min_warm: 0, trim_after, freeze_after };
    let function = shard.add_spec(spec);
    let sandbox = shard.idle(function);
    assert_eq!(shard.pass(SECOND.saturating_sub(MILLI)), []);
    assert_eq!(shard.pass(MILLI), [Effect::Trim { sandbox }]);
    assert_eq!(shard.pass(MILLI), []);
    // Used again: what it took since then may go back, and its time begins anew.
    shard.pass(Nanos::from_millis(500));
    shard.arrive(function);
    let again = shard.placed()[0];
    shard.complete(again);
    assert_eq!(shard.pass(SECOND.saturating_sub(MILLI)), []);
    assert_eq!(shard.pass(MILLI), [Effect::Trim { sandbox }]);
    assert_eq!(shard.pass(SECOND), []);
    assert_eq!(shard.pass(SECOND), [Effect::Freeze { sandbox }]);
    assert_eq!((shard.stats().trimmed, shard.stats().froze), (2, 1));
    // One that cannot be frozen is still trimmed.
    shard.step(Event::NotFrozen { sandbox });
    shard.arrive(function);
    let again = shard.placed()[0];
    shard.complete(again);
    assert_eq!(shard.pass(Nanos::from_secs(9)), [Effect::Trim { sandbox }]);
    assert_eq!(shard.engine.next_wake(), None);
}

#[test]
fn what_is_due_at_once_is_done_in_order() {
    let mut shard = Shard::small();
    let memory = Bytes::from_mebibytes(64);
    let (trim_after, freeze_after) = (Some(SECOND), Some(SECOND));
    let spec = FunctionSpec { memory, timeout: TIMEOUT, concurrency: 1, min_warm: 0, trim_after, freeze_after };
    let function = shard.add_spec(spec);
    let sandbox = shard.idle(function);
    assert_eq!(shard.pass(Nanos::from_secs(5)), [Effect::Trim { sandbox }, Effect::Freeze { sandbox }]);
}

#[test]
fn retiring_and_draining_end_the_frozen_and_the_thawing() {
    for is_thawing in [false, true] {
        for event in [0, 1] {
            let (mut shard, function, sandbox) = frozen(Shard::small());
            if is_thawing {
                let invocation = shard.arrive(function);
                shard.step(Event::Cancel { invocation });
            }
            let (event, reason) = match event {
                0 => (Event::FunctionRetired { function }, KillReason::Retired),
                _ => (Event::Drain, KillReason::Drained),
            };
            shard.step(event);
            assert_eq!(shard.kills(), [(sandbox, reason)]);
            shard.step(Event::SandboxDied { sandbox });
            assert_eq!(shard.stats().sandboxes, 0);
        }
    }
}

#[test]
fn a_retired_function_thaws_for_what_still_waits() {
    let (mut shard, function, sandbox) = frozen(Shard::small());
    let invocation = shard.arrive(function);
    shard.step(Event::FunctionRetired { function });
    assert_eq!(shard.kills(), [], "it is being thawed for somebody");
    shard.step(Event::Thawed { sandbox });
    let placed = shard.placed()[0];
    shard.complete(placed);
    assert_eq!(shard.outcome(invocation), Some(Outcome::Returned));
    assert_eq!(shard.kills(), [(sandbox, KillReason::Retired)]);
}

#[test]
fn no_more_are_thawed_than_may_run() {
    let policies = Policies { concurrency: ConcurrencyPolicy::Fixed { running: 2 }, ..Policies::default() };
    let mut shard = Shard::new(Limits { sandboxes: 4, ..limits() }, policies);
    let function = shard.add_freezing(32, SECOND);
    let [first, second] = [shard.cold(function), shard.cold(function)];
    shard.complete(first);
    shard.complete(second);
    shard.pass(SECOND);
    assert_eq!(shard.freezes().len(), 2);
    let other = shard.add(32, 1);
    let busy = shard.cold(other);
    let thaws: Vec<usize> = (0..2).map(|_| (shard.arrive(function), shard.thaws().len()).1).collect();
    assert_eq!(thaws, [1, 0]);
    shard.complete(busy);
    assert_eq!(shard.thaws().len(), 1);
}

#[test]
fn what_a_frozen_sandbox_claims_kills_it() {
    let (mut shard, _, sandbox) = frozen(Shard::small());
    shard.step(Event::SandboxReady { sandbox });
    assert_eq!(shard.kills(), [(sandbox, KillReason::Broken)]);
}

impl Shard {
    /// A sandbox runs again: how many invocations it is given.
    fn ready_again(&mut self, sandbox: SandboxId) -> usize {
        self.step(Event::Thawed { sandbox });
        self.placed().iter().filter(|placed| placed.sandbox == sandbox).count()
    }
}
