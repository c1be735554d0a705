//! Sandboxes that fail, die, lie, or say nothing.

use std::vec::Vec;

use super::shard::{Placed, Shard, TIMEOUT, limits};
use crate::{Effect, Effects, Event, InvocationId, KillReason, Limits, Nanos, Outcome, Policies, RunResult, SandboxId};

const MILLISECOND: Nanos = Nanos::from_millis(1);

#[test]
fn a_failed_start_is_told_to_as_many_as_waited_for_it_and_the_rest_go_on() {
    for died in [false, true] {
        let mut shard = Shard::new(Limits { starting: 1, ..limits() }, Policies::default());
        let function = shard.add(64, 2);
        let asked: Vec<_> = (0..5).map(|_| (shard.arrive(function), shard.starts())).collect();
        let sandbox = asked[0].1[0];
        shard.step(if died { Event::SandboxDied { sandbox } } else { Event::SandboxStartFailed { sandbox } });
        let failed: Vec<_> = asked[..2].iter().map(|(invocation, _)| (*invocation, Outcome::StartFailed)).collect();
        assert_eq!(shard.answers(), failed);
        assert_eq!(shard.starts().len(), 1, "the others are tried again");
        shard.run_to_rest();
        assert_eq!(shard.stats().answered(Outcome::Returned), 3);
        assert_eq!(shard.stats().start_failures, 1);
    }
}

#[test]
fn a_start_that_takes_too_long_is_killed_and_told_at_once_and_its_death_later_tells_nobody() {
    let mut shard = Shard::small();
    let function = shard.add(256, 1);
    let invocation = shard.arrive(function);
    let [sandbox] = shard.starts()[..] else { panic!("one start was expected") };
    let other = {
        shard.now = shard.now.saturating_add(MILLISECOND);
        shard.arrive(function)
    };
    assert_eq!(shard.pass(limits().start_timeout.saturating_sub(Nanos::from_millis(2))), []);
    shard.pass(MILLISECOND);
    assert_eq!(shard.kills(), [(sandbox, KillReason::StartTimedOut)]);
    // Its patience ends at the same instant: either answer is true, and the deadline is looked at first.
    assert_eq!(shard.answers().len(), 2);
    assert!(shard.outcome(invocation).is_some() && shard.outcome(other).is_some());
    assert_eq!(shard.step(Event::SandboxReady { sandbox }), []);
    assert_eq!(shard.step(Event::SandboxStartFailed { sandbox }), []);
    assert_eq!(shard.stats().sandboxes, 0);
    assert_eq!(shard.stats().stale_events, 1);
}

#[test]
fn a_death_is_told_to_every_lane_and_to_no_other() {
    let mut shard = Shard::small();
    let function = shard.add(64, 3);
    let first = shard.cold(function);
    let mut asked = [first.invocation].to_vec();
    asked.extend((0..2).map(|_| shard.arrive(function)));
    let elsewhere = shard.cold(function);
    shard.step(Event::SandboxDied { sandbox: first.sandbox });
    let told: Vec<_> = asked.iter().map(|&invocation| (invocation, Outcome::SandboxDied)).collect();
    assert_eq!(shard.answers(), told);
    assert_eq!((shard.stats().sandboxes, shard.stats().running), (1, 1));
    // Reports under the id that is free now, and a second death, change nothing.
    assert_eq!(shard.complete(first), []);
    assert_eq!(shard.step(Event::SandboxDied { sandbox: first.sandbox }), []);
    shard.complete(elsewhere);
    assert_eq!(shard.outcome(elsewhere.invocation), Some(Outcome::Returned));
}

#[test]
fn more_answers_than_a_step_may_give_are_continued() {
    let mut shard = Shard::small();
    let function = shard.add(64, 200);
    shard.cold(function);
    for _ in 0..199 {
        shard.arrive(function);
    }
    let sandbox = SandboxId { index: 0, generation: 1 };
    shard.effects.clear();
    shard.step_once(Event::SandboxDied { sandbox });
    assert!(shard.effects.len() <= Effects::CAPACITY);
    assert_eq!(shard.engine.next_wake(), Some(shard.now));
    assert_eq!(shard.stats().sandboxes, 1, "its slot is kept for its answers");
    // Other events may come in between.
    shard.step_once(Event::SandboxDied { sandbox });
    shard.step_once(Event::Cancel { invocation: InvocationId { index: 150, generation: 1 } });
    shard.step(Event::Tick);
    assert_eq!(shard.stats().answered(Outcome::SandboxDied), 199);
    assert_eq!(shard.stats().answered(Outcome::Cancelled), 1);
    assert_eq!((shard.stats().sandboxes, shard.stats().running), (0, 0));
}

#[test]
fn an_overdue_run_costs_a_sandbox_of_one_lane_its_life() {
    let mut shard = Shard::small();
    let function = shard.add(64, 1);
    let placed = shard.cold(function);
    assert_eq!(shard.engine.next_wake(), Some(shard.now.saturating_add(TIMEOUT)));
    assert_eq!(shard.pass(TIMEOUT.saturating_sub(Nanos::from_nanos(1))), []);
    shard.pass(Nanos::from_nanos(1));
    assert_eq!(shard.answers(), [(placed.invocation, Outcome::TimedOut)]);
    assert_eq!(shard.kills(), [(placed.sandbox, KillReason::TimedOut)]);
    assert_eq!(shard.complete(placed), [], "too late");
    assert_eq!(shard.step(Event::SandboxDied { sandbox: placed.sandbox }), []);
}

#[test]
fn an_overdue_run_among_others_closes_its_sandbox_and_lets_them_finish() {
    let mut shard = Shard::small();
    let function = shard.add(64, 3);
    let late = shard.cold(function);
    shard.pass(Nanos::from_secs(1));
    shard.arrive(function);
    let in_time = shard.placed()[0];
    assert_eq!(in_time.sandbox, late.sandbox);
    shard.pass(Nanos::from_secs(2));
    assert_eq!(shard.effects, [answer(late.invocation, Outcome::TimedOut)]);
    shard.arrive(function);
    assert_eq!((shard.placed(), shard.starts().len()), (Vec::new(), 1), "it takes no more");
    shard.complete(in_time);
    assert_eq!(shard.answers(), [(in_time.invocation, Outcome::Returned)]);
    assert_eq!(shard.kills(), [(late.sandbox, KillReason::TimedOut)]);
}

#[test]
fn a_late_completion_is_taken_silently_and_its_sandbox_still_goes() {
    let mut shard = Shard::small();
    let function = shard.add(64, 2);
    let late = shard.cold(function);
    shard.pass(Nanos::from_secs(1));
    shard.arrive(function);
    let in_time = shard.placed()[0];
    shard.pass(Nanos::from_secs(2));
    assert_eq!(shard.complete(late), []);
    shard.complete(in_time);
    assert_eq!(shard.kills(), [(late.sandbox, KillReason::TimedOut)]);
}

#[test]
fn a_cancelled_run_that_never_ends_is_overdue_without_a_second_answer() {
    let mut shard = Shard::small();
    let function = shard.add(64, 1);
    let placed = shard.cold(function);
    shard.step(Event::Cancel { invocation: placed.invocation });
    shard.pass(TIMEOUT);
    assert_eq!(shard.effects, [Effect::Kill { sandbox: placed.sandbox, reason: KillReason::TimedOut }]);
}

#[test]
fn waiting_ends_after_the_longer_of_the_timeout_and_a_start() {
    for (start_timeout, patience) in [(Nanos::from_secs(2), TIMEOUT), (Nanos::from_secs(9), Nanos::from_secs(9))] {
        let mut shard = Shard::new(Limits { sandboxes: 1, start_timeout, ..limits() }, Policies::default());
        let (one, two) = (shard.add(64, 1), shard.add(64, 1));
        let evicted = shard.idle(one);
        let waiting = shard.arrive(two);
        assert_eq!(shard.kills(), [(evicted, KillReason::Evicted)]);
        assert_eq!(shard.pass(patience.saturating_sub(MILLISECOND)), []);
        shard.pass(MILLISECOND);
        assert_eq!(shard.answers(), [(waiting, Outcome::TimedOut)], "its room never came");
        shard.step(Event::SandboxDied { sandbox: evicted });
        assert_eq!(shard.starts(), [], "and nobody wants it any more");
    }
}

#[test]
fn a_claim_that_does_not_fit_kills_and_is_told_to_what_ran() {
    let wrong: [fn(Placed) -> Placed; 4] = [
        |placed| Placed { lane: 1, ..placed },
        |placed| Placed { lane: u16::MAX, ..placed },
        |placed| Placed { invocation: InvocationId { generation: 9, ..placed.invocation }, ..placed },
        |placed| Placed { invocation: InvocationId { index: u32::MAX, ..placed.invocation }, ..placed },
    ];
    for change in wrong {
        let mut shard = Shard::small();
        let function = shard.add(64, 2);
        let placed = shard.cold(function);
        shard.complete(change(placed));
        assert_eq!(shard.kills(), [(placed.sandbox, KillReason::Broken)]);
        assert_eq!(shard.answers(), [(placed.invocation, Outcome::SandboxDied)]);
        assert_eq!(shard.complete(placed), [], "nothing it says is believed any more");
    }
}

#[test]
fn answering_twice_kills_and_never_answers_another() {
    let mut shard = Shard::small();
    let function = shard.add(64, 1);
    let placed = shard.cold(function);
    let next = shard.arrive(function);
    shard.complete(placed);
    assert_eq!(shard.placed()[0].invocation, next);
    shard.complete(placed);
    assert_eq!(shard.kills(), [(placed.sandbox, KillReason::Broken)]);
    assert_eq!(shard.answers(), [(next, Outcome::SandboxDied)]);
}

#[test]
fn one_sandbox_cannot_complete_what_runs_in_another() {
    let mut shard = Shard::small();
    let (one, two) = (shard.add(64, 1), shard.add(64, 1));
    let (honest, liar) = (shard.cold(one), shard.cold(two));
    shard.complete(Placed { sandbox: liar.sandbox, ..honest });
    assert_eq!(shard.kills(), [(liar.sandbox, KillReason::Broken)]);
    shard.complete(honest);
    assert_eq!(shard.outcome(honest.invocation), Some(Outcome::Returned));
    assert_eq!(shard.outcome(liar.invocation), Some(Outcome::SandboxDied));
}

#[test]
fn a_sandbox_that_lies_before_it_is_ready_is_a_failed_start() {
    let mut shard = Shard::small();
    let function = shard.add(64, 1);
    let invocation = shard.arrive(function);
    let [sandbox] = shard.starts()[..] else { panic!("one start was expected") };
    shard.step(Event::Completed { sandbox, lane: 0, invocation, result: RunResult::Returned, held: false });
    assert_eq!(shard.kills(), [(sandbox, KillReason::Broken)]);
    assert_eq!(shard.answers(), [(invocation, Outcome::StartFailed)]);
}

#[test]
fn ready_twice_is_a_lie_and_broken_is_believed() {
    for event in [|sandbox| Event::SandboxReady { sandbox }, |sandbox| Event::Broken { sandbox }] {
        let mut shard = Shard::small();
        let function = shard.add(64, 1);
        let sandbox = shard.idle(function);
        shard.step(event(sandbox));
        assert_eq!(shard.kills(), [(sandbox, KillReason::Broken)]);
        assert_eq!(shard.step(event(sandbox)), []);
        shard.step(Event::SandboxDied { sandbox });
        assert_eq!(shard.stats().sandboxes, 0);
    }
}

#[test]
fn a_raised_error_is_told_and_the_sandbox_goes_on() {
    let mut shard = Shard::small();
    let function = shard.add(64, 1);
    let Placed { sandbox, lane, invocation } = shard.cold(function);
    shard.step(Event::Completed { sandbox, lane, invocation, result: RunResult::Raised, held: false });
    assert_eq!(shard.effects, [answer(invocation, Outcome::Raised)]);
    shard.arrive(function);
    assert_eq!(shard.placed()[0].sandbox, sandbox);
}

#[test]
fn time_that_goes_backwards_stands_still() {
    let mut shard = Shard::small();
    let function = shard.add(64, 1);
    let placed = shard.cold(function);
    shard.now = Nanos::ZERO;
    shard.engine.check_invariants();
    assert_eq!(shard.complete(placed).len(), 1);
}

fn answer(invocation: InvocationId, outcome: Outcome) -> Effect {
    Effect::Answer { invocation, origin: crate::Origin(u64::from(invocation.index) + 1), outcome }
}
