//! Lanes lent to the driver: reserved while a payload arrives, held while an answer is sent, and asked for when missed.

use std::vec::Vec;

use super::shard::{Placed, Shard, TIMEOUT, limits};
use crate::{
    Bytes, ConcurrencyPolicy, Effect, Event, InvocationId, KeepAlivePolicy, KillReason, Limits, Nanos, Origin, Outcome,
    Policies, Refusal, RunResult, StartKind,
};

const SECOND: Nanos = Nanos::from_secs(1);

fn one_at_a_time() -> Policies {
    Policies { concurrency: ConcurrencyPolicy::Fixed { running: 1 }, ..Policies::default() }
}

fn commit(placed: Placed) -> Event {
    Event::Commit { invocation: placed.invocation }
}

fn yielded(placed: Placed) -> Event {
    Event::Yield { invocation: placed.invocation }
}

#[test]
fn a_reserved_lane_runs_its_payload_when_it_is_whole_and_time_counts_from_then() {
    let mut shard = Shard::small();
    let function = shard.add(64, 1);
    let sandbox = shard.idle(function);
    let reserved = shard.reserve(function);
    assert_eq!(reserved.sandbox, sandbox);
    assert_eq!((shard.stats().reserved, shard.stats().running, shard.stats().idle), (1, 0, 0));
    assert_eq!(shard.engine.next_wake(), None, "its time is its client's");
    assert_eq!(shard.pass(Nanos::from_secs(3600)), []);
    let deadline = shard.now.saturating_add(TIMEOUT);
    let Placed { sandbox, lane, invocation } = reserved;
    let (start, queued, starting) = (StartKind::Warm, Nanos::ZERO, Nanos::ZERO);
    let origin = Origin(2);
    let dispatch = Effect::Dispatch { invocation, origin, sandbox, lane, start, queued, starting, deadline };
    assert_eq!(shard.step(commit(reserved)), [dispatch]);
    assert_eq!((shard.stats().reserved, shard.stats().running), (0, 1));
    shard.complete(reserved);
    assert_eq!(shard.outcome(invocation), Some(Outcome::Returned));
    assert_eq!(shard.stats().idle, 1);
    for event in [commit(reserved), yielded(reserved)] {
        assert_eq!(shard.step(event), [], "late: it means nothing");
    }
    assert_eq!(shard.stats().stale_events, 2);
}

#[test]
fn a_committed_run_is_overdue_like_any_other() {
    let mut shard = Shard::small();
    let function = shard.add(64, 1);
    shard.idle(function);
    let reserved = shard.reserve(function);
    shard.pass(SECOND);
    shard.step(commit(reserved));
    assert_eq!(shard.pass(TIMEOUT.saturating_sub(Nanos::from_nanos(1))), []);
    shard.pass(Nanos::from_nanos(1));
    assert_eq!(shard.answers(), [(reserved.invocation, Outcome::TimedOut)]);
    assert_eq!(shard.kills(), [(reserved.sandbox, KillReason::TimedOut)]);
}

#[test]
fn nothing_is_reserved_without_a_lane_that_nobody_waits_for() {
    let mut shard = Shard::new(Limits { sandboxes: 1, ..limits() }, Policies::default());
    let function = shard.add(64, 1);
    shard.not_reserved(function);
    let placed = shard.cold(function);
    shard.not_reserved(function);
    assert_eq!(shard.stats().starting, 0, "nothing is remembered");
    shard.arrive(function);
    shard.not_reserved(function);
    shard.complete(placed);
    let last = shard.placed()[0];
    shard.complete(last);
    shard.reserve(function);
    shard.not_reserved(function);
    assert_eq!(shard.stats().arrived, 3, "what is not reserved has not arrived yet");
}

#[test]
fn nothing_is_reserved_beyond_what_may_run_and_what_is_reserved_counts_as_running() {
    let mut shard = Shard::new(limits(), one_at_a_time());
    let (one, two) = (shard.add(64, 1), shard.add(64, 1));
    shard.idle(one);
    shard.idle(two);
    let reserved = shard.reserve(one);
    shard.not_reserved(two);
    shard.step(commit(reserved));
    shard.not_reserved(two);
    shard.complete(reserved);
    shard.reserve(two);
}

#[test]
fn what_would_be_refused_is_refused_before_it_is_uploaded() {
    let mut shard = Shard::new(Limits { queue_per_function: 2, invocations: 3, ..limits() }, Policies::default());
    let (function, large) = (shard.add(64, 1), shard.add(300, 1));
    let refusal = |shard: &mut Shard, function| match shard.step(Event::Reserve { origin: Origin(9), function }) {
        [Effect::Refuse { origin: Origin(9), reason }] => *reason,
        other => panic!("a reservation was not refused: {other:?}"),
    };
    let nobody = crate::FunctionId { index: 5, ..function };
    assert_eq!(refusal(&mut shard, nobody), Refusal::NoSuchFunction);
    assert_eq!(refusal(&mut shard, large), Refusal::TooLarge);
    shard.idle(function);
    shard.reserve(function);
    // The reserved lane is asked for, and not given back.
    shard.arrive(function);
    shard.arrive(function);
    assert_eq!(refusal(&mut shard, function), Refusal::QueueFull);
    let other = shard.add(64, 1);
    assert_eq!(refusal(&mut shard, other), Refusal::InvocationsFull, "what is reserved counts");
    shard.step(Event::Drain);
    assert_eq!(refusal(&mut shard, other), Refusal::Draining);
    assert_eq!(shard.stats().refused(Refusal::NoSuchFunction), 1);
}

#[test]
fn a_yielded_lane_is_free_and_its_payload_comes_again_under_another_id() {
    let mut shard = Shard::small();
    let function = shard.add(64, 1);
    let sandbox = shard.idle(function);
    let reserved = shard.reserve(function);
    assert_eq!(shard.step(yielded(reserved)), []);
    assert_eq!((shard.stats().reserved, shard.stats().idle, shard.stats().withdrawn), (0, 1, 1));
    let again = shard.arrive(function);
    assert_ne!(again, reserved.invocation);
    assert_eq!(shard.placed()[0].sandbox, sandbox);
    assert_eq!(shard.outcome(reserved.invocation), None);
}

#[test]
fn a_client_that_leaves_while_it_uploads_is_told_and_its_lane_is_free() {
    let mut shard = Shard::small();
    let function = shard.add(64, 1);
    shard.idle(function);
    let Placed { invocation, .. } = shard.reserve(function);
    shard.step(Event::Cancel { invocation });
    assert_eq!(shard.answers(), [(invocation, Outcome::Cancelled)]);
    assert_eq!((shard.effects.len(), shard.stats().idle), (1, 1));
    assert_eq!(shard.step(Event::Cancel { invocation }), []);
}

#[test]
fn a_completion_of_what_was_never_dispatched_is_a_lie() {
    let mut shard = Shard::small();
    let function = shard.add(64, 1);
    shard.idle(function);
    let reserved = shard.reserve(function);
    shard.complete(reserved);
    assert_eq!(shard.kills(), [(reserved.sandbox, KillReason::Broken)]);
    assert_eq!(shard.unreserved(), [reserved.invocation]);
    assert_eq!(shard.answers(), []);
}

#[test]
fn a_held_lane_stays_taken_until_it_is_released() {
    let mut shard = Shard::new(Limits { sandboxes: 1, ..limits() }, Policies::default());
    let function = shard.add(64, 1);
    let placed = shard.cold(function);
    shard.complete_held(placed);
    assert_eq!(shard.answers(), [(placed.invocation, Outcome::Returned)]);
    assert_eq!((shard.stats().held, shard.stats().running, shard.stats().idle), (1, 0, 0));
    assert_eq!(shard.engine.next_wake(), None);
    shard.not_reserved(function);
    let InvocationId { index, generation } = placed.invocation;
    for wrong in [
        Placed { lane: 1, ..placed },
        Placed { invocation: InvocationId { index, generation: generation + 1 }, ..placed },
        Placed { invocation: InvocationId { index: u32::MAX, generation }, ..placed },
        Placed { sandbox: crate::SandboxId { index: 3, generation: 1 }, ..placed },
    ] {
        assert_eq!(shard.release(wrong), []);
        assert_eq!(shard.stats().held, 1);
    }
    assert_eq!(shard.release(placed), []);
    assert_eq!((shard.stats().held, shard.stats().idle), (0, 1));
    assert_eq!(shard.release(placed), [], "late");
    assert_eq!(shard.stats().stale_events, 5);
    shard.reserve(function);
}

#[test]
fn a_run_is_not_released_and_a_held_one_not_completed_again() {
    let mut shard = Shard::small();
    let function = shard.add(64, 1);
    let placed = shard.cold(function);
    assert_eq!(shard.release(placed), []);
    assert_eq!((shard.stats().running, shard.stats().stale_events), (1, 1));
    shard.complete_held(placed);
    shard.complete(placed);
    assert_eq!(shard.kills(), [(placed.sandbox, KillReason::Broken)]);
    assert_eq!((shard.answers(), shard.stats().held), (Vec::new(), 0));
}

#[test]
fn a_held_lane_does_not_count_as_running() {
    let mut shard = Shard::new(limits(), one_at_a_time());
    let (one, two) = (shard.add(64, 1), shard.add(64, 1));
    shard.idle(two);
    let placed = shard.cold(one);
    shard.complete_held(placed);
    shard.arrive(two);
    assert_eq!((shard.placed().len(), shard.reclaims()), (1, Vec::new()));
}

#[test]
fn who_waits_for_a_lane_is_served_by_a_lent_one_before_a_sandbox_is_started() {
    let mut shard = Shard::small();
    let function = shard.add(16, 2);
    let first = shard.cold(function);
    let held = {
        shard.complete_held(first);
        first
    };
    let reserved = shard.reserve(function);
    let waiting = shard.arrive(function);
    assert_eq!((shard.reclaims(), shard.starts()), ([held].to_vec(), Vec::new()), "the one lent for longest");
    shard.arrive(function);
    assert_eq!((shard.reclaims(), shard.starts()), ([reserved].to_vec(), Vec::new()));
    shard.arrive(function);
    assert_eq!((shard.reclaims(), shard.starts().len()), (Vec::new(), 1), "none is left to ask for");
    shard.release(held);
    assert_eq!(shard.placed()[0].invocation, waiting);
    // It just became whole: it keeps its lane, and the shortage is met by a start. One sandbox of two lanes will do.
    shard.step(commit(reserved));
    assert_eq!(shard.placed(), [reserved]);
    assert_eq!((shard.starts(), shard.stats().reclaimed), (Vec::new(), 2));
}

#[test]
fn a_lane_asked_for_and_committed_is_replaced_by_a_start() {
    let mut shard = Shard::small();
    let function = shard.add(16, 1);
    shard.idle(function);
    let reserved = shard.reserve(function);
    shard.arrive(function);
    assert_eq!((shard.reclaims(), shard.starts()), ([reserved].to_vec(), Vec::new()));
    shard.step(commit(reserved));
    assert_eq!((shard.placed(), shard.starts().len()), ([reserved].to_vec(), 1));
}

#[test]
fn one_held_while_others_wait_is_asked_for_at_once() {
    let mut shard = Shard::new(Limits { sandboxes: 1, ..limits() }, Policies::default());
    let function = shard.add(64, 1);
    let placed = shard.cold(function);
    let waiting = shard.arrive(function);
    shard.complete_held(placed);
    assert_eq!(shard.reclaims(), [placed]);
    shard.arrive(function);
    assert_eq!(shard.reclaims(), [], "once");
    shard.release(placed);
    assert_eq!(shard.placed()[0].invocation, waiting);
}

#[test]
fn a_slow_upload_gives_the_place_to_run_to_another_function() {
    let mut shard = Shard::new(limits(), one_at_a_time());
    let (slow, ready, cold) = (shard.add(16, 1), shard.add(16, 1), shard.add(16, 1));
    shard.idle(ready);
    shard.idle(slow);
    let reserved = shard.reserve(slow);
    let waiting = shard.arrive(ready);
    assert_eq!(shard.reclaims(), [reserved]);
    shard.step(yielded(reserved));
    let placed = shard.placed()[0];
    assert_eq!(placed.invocation, waiting);
    shard.complete(placed);

    let reserved = shard.reserve(slow);
    shard.arrive(cold);
    assert_eq!((shard.reclaims(), shard.starts()), ([reserved].to_vec(), Vec::new()), "nothing of it could run");
    shard.step(yielded(reserved));
    assert_eq!(shard.starts().len(), 1);
}

#[test]
fn a_slow_client_gives_its_room_to_another_function() {
    for held in [false, true] {
        let mut shard = Shard::small();
        let (slow, whole) = (shard.add(64, 1), shard.add(256, 1));
        let placed = shard.cold(slow);
        let lent = if held {
            shard.complete_held(placed);
            placed
        } else {
            shard.complete(placed);
            shard.reserve(slow)
        };
        shard.arrive(whole);
        assert_eq!((shard.reclaims(), shard.kills()), ([lent].to_vec(), Vec::new()));
        if held {
            shard.release(lent);
        } else {
            shard.step(yielded(lent));
        }
        assert_eq!(shard.kills(), [(lent.sandbox, KillReason::Evicted)]);
    }
}

#[test]
fn a_lent_lane_keeps_its_sandbox_from_being_idle() {
    let keepalive = KeepAlivePolicy::Ttl { idle: SECOND };
    let mut shard = Shard::new(limits(), Policies { keepalive, ..Policies::default() });
    let function = shard.add(64, 1);
    let placed = shard.cold(function);
    shard.complete_held(placed);
    assert_eq!(shard.pass(Nanos::from_secs(9)), []);
    shard.release(placed);
    shard.pass(SECOND);
    assert_eq!(shard.kills(), [(placed.sandbox, KillReason::Idle)]);
}

#[test]
fn a_death_gives_reservations_back_and_frees_what_is_held() {
    let mut shard = Shard::small();
    let function = shard.add(64, 3);
    let running = shard.cold(function);
    shard.arrive(function);
    let held = shard.placed()[0];
    shard.complete_held(held);
    let reserved = shard.reserve(function);
    shard.step(Event::SandboxDied { sandbox: running.sandbox });
    assert_eq!(shard.answers(), [(running.invocation, Outcome::SandboxDied)]);
    assert_eq!(shard.unreserved(), [reserved.invocation]);
    assert_eq!(shard.effects.len(), 2);
    let stats = shard.stats();
    assert_eq!((stats.reserved, stats.held, stats.running, stats.sandboxes), (0, 0, 0, 0));
    assert_eq!(shard.step(commit(reserved)), []);
    assert_eq!(shard.release(held), []);
}

#[test]
fn a_closing_sandbox_does_not_wait_for_its_clients_and_runs_nothing_more() {
    let mut shard = Shard::small();
    let function = shard.add(64, 5);
    let late = shard.cold(function);
    let [first, second] = [shard.reserve(function), shard.reserve(function)];
    shard.pass(SECOND);
    shard.arrive(function);
    let in_time = shard.placed()[0];
    shard.arrive(function);
    let held = shard.placed()[0];
    shard.complete_held(held);
    shard.pass(TIMEOUT.saturating_sub(SECOND));
    assert_eq!((shard.answers(), shard.kills()), ([(late.invocation, Outcome::TimedOut)].to_vec(), Vec::new()));
    // Whole in a sandbox that takes no more: nothing ran, so it may be queued anew.
    shard.step(commit(first));
    assert_eq!((shard.unreserved(), shard.placed()), ([first.invocation].to_vec(), Vec::new()));
    shard.arrive(function);
    assert_eq!((shard.reclaims(), shard.starts().len()), (Vec::new(), 1), "a lane of it would serve nobody");
    shard.complete(in_time);
    assert_eq!(shard.kills(), [(late.sandbox, KillReason::TimedOut)]);
    assert_eq!(shard.unreserved(), [second.invocation]);
    assert_eq!((shard.stats().held, shard.stats().reserved), (0, 0));
}

#[test]
fn a_late_answer_may_be_held_and_its_sandbox_still_goes() {
    let mut shard = Shard::small();
    let function = shard.add(64, 2);
    let late = shard.cold(function);
    shard.pass(SECOND);
    shard.arrive(function);
    let in_time = shard.placed()[0];
    shard.pass(TIMEOUT.saturating_sub(SECOND));
    assert_eq!(shard.complete_held(late), []);
    assert_eq!(shard.stats().held, 1);
    shard.complete(in_time);
    assert_eq!(shard.kills(), [(late.sandbox, KillReason::TimedOut)]);
    assert_eq!(shard.stats().held, 0);
}

#[test]
fn what_is_said_of_a_lane_that_is_about_to_end_is_said_once() {
    let mut shard = Shard::small();
    let function = shard.add(64, 200);
    let first = shard.cold(function);
    shard.complete(first);
    let reserved: Vec<_> = (0..200).map(|_| shard.reserve(function)).collect();
    shard.effects.clear();
    shard.step_once(Event::Broken { sandbox: first.sandbox });
    let is_pending = |shard: &Shard, placed: &Placed| !shard.unreserved().contains(&placed.invocation);
    let pending: Vec<_> = reserved.iter().filter(|placed| is_pending(&shard, placed)).copied().collect();
    assert!(pending.len() > 100, "more than a step may say");
    // Not the ones that end first: those are told within these steps.
    let [whole, elsewhere, left] = pending[pending.len() - 3..] else { panic!("three of them") };
    for event in [commit(whole), yielded(elsewhere), Event::Cancel { invocation: left.invocation }] {
        shard.step_once(event);
    }
    while shard.engine.next_wake() == Some(shard.now) {
        shard.step_once(Event::Tick);
    }
    let unreserved = shard.unreserved();
    assert!(unreserved.contains(&whole.invocation) && !unreserved.contains(&elsewhere.invocation));
    assert_eq!(unreserved.len(), 198);
    assert_eq!(shard.answers(), [(left.invocation, Outcome::Cancelled)]);
    assert_eq!((shard.stats().withdrawn, shard.stats().reserved), (199, 0));
}

#[test]
fn a_retired_function_finishes_its_uploads() {
    let mut shard = Shard::small();
    let function = shard.add(64, 1);
    shard.idle(function);
    let reserved = shard.reserve(function);
    assert_eq!(shard.step(Event::FunctionRetired { function }), []);
    shard.step(commit(reserved));
    shard.complete_held(reserved);
    assert_eq!((shard.answers().len(), shard.kills()), (1, Vec::new()));
    shard.release(reserved);
    assert_eq!(shard.kills(), [(reserved.sandbox, KillReason::Retired)]);
    let gone = Effect::FunctionGone { function };
    assert_eq!(shard.step(Event::SandboxDied { sandbox: reserved.sandbox }), [gone]);
}

#[test]
fn a_drain_waits_for_uploads_and_downloads_and_then_does_not() {
    let mut shard = Shard::small();
    let function = shard.add(16, 3);
    let held = shard.cold(function);
    shard.complete_held(held);
    let [whole, slow] = [shard.reserve(function), shard.reserve(function)];
    assert_eq!(shard.step(Event::Drain), []);
    shard.step(commit(whole));
    shard.complete(whole);
    assert_eq!(shard.outcome(whole.invocation), Some(Outcome::Returned));
    shard.pass(limits().drain_timeout);
    assert_eq!(shard.answers(), [(slow.invocation, Outcome::Draining)]);
    assert_eq!(shard.kills(), [(held.sandbox, KillReason::Drained)]);
    assert_eq!(shard.step(Event::SandboxDied { sandbox: held.sandbox }), [Effect::Drained]);
}

#[test]
fn a_drained_shard_has_sent_its_last_answer() {
    let mut shard = Shard::small();
    let function = shard.add(16, 1);
    let held = shard.cold(function);
    shard.complete_held(held);
    shard.step(Event::Drain);
    shard.release(held);
    assert_eq!(shard.kills(), [(held.sandbox, KillReason::Drained)]);
    assert_eq!(shard.step(Event::SandboxDied { sandbox: held.sandbox }), [Effect::Drained]);
}

#[test]
fn a_held_answer_counts_for_the_profile_when_it_completes() {
    let policies = Policies { queue: crate::QueuePolicy::Sjf, ..one_at_a_time() };
    let mut shard = Shard::new(limits(), policies);
    let (long, short) = (shard.add(64, 1), shard.add(64, 1));
    for (function, millis) in [(long, 50), (short, 5)] {
        shard.idle(function);
        let reserved = shard.reserve(function);
        // The upload is not the function's time, nor is the download.
        shard.pass(SECOND);
        shard.step(commit(reserved));
        shard.pass(Nanos::from_millis(millis));
        let Placed { sandbox, lane, invocation } = reserved;
        shard.step(Event::Completed { sandbox, lane, invocation, result: RunResult::Raised, held: true });
        assert_eq!(shard.outcome(invocation), Some(Outcome::Raised));
        shard.pass(SECOND);
        shard.release(reserved);
    }
    shard.arrive(long);
    let running = shard.placed()[0];
    shard.arrive(long);
    let waiting = shard.arrive(short);
    shard.complete(running);
    assert_eq!(shard.placed()[0].invocation, waiting);
    assert_eq!(shard.stats().memory, Bytes::from_mebibytes(128));
}
