//! Which sandbox runs what, when one is started, and which one makes room.

use std::vec::Vec;

use super::shard::{Shard, TIMEOUT, limits};
use crate::{
    Bytes, ConcurrencyPolicy, Effect, Event, KeepAlivePolicy, KillReason, Limits, Nanos, Outcome, Policies,
    QueuePolicy, StartKind,
};

fn dispatch(shard: &Shard) -> (StartKind, Nanos, Nanos, Nanos) {
    let found = shard.effects.iter().find_map(|effect| match *effect {
        Effect::Dispatch { start, queued, starting, deadline, .. } => Some((start, queued, starting, deadline)),
        _ => None,
    });
    found.expect("a dispatch was expected")
}

#[test]
fn a_cold_start_splits_the_wait_and_the_next_is_warm() {
    let mut shard = Shard::small();
    let function = shard.add(64, 1);
    shard.arrive(function);
    let [sandbox] = shard.starts()[..] else { panic!("one start was expected") };
    assert_eq!(shard.pass(Nanos::from_millis(5)), []);
    assert_eq!(shard.step(Event::SandboxStarted { sandbox, from_layer: false }), []);
    shard.now = shard.now.saturating_add(Nanos::from_millis(2));
    let placed = shard.ready(sandbox)[0];
    let deadline = shard.now.saturating_add(TIMEOUT);
    assert_eq!(dispatch(&shard), (StartKind::Cold, Nanos::ZERO, Nanos::from_millis(7), deadline));
    shard.complete(placed);
    shard.arrive(function);
    assert_eq!(shard.placed()[0].sandbox, sandbox);
    assert_eq!(dispatch(&shard), (StartKind::Warm, Nanos::ZERO, Nanos::ZERO, deadline));
}

#[test]
fn only_the_first_in_a_sandbox_is_cold_and_each_is_told_its_own_wait() {
    let mut shard = Shard::small();
    let function = shard.add(64, 2);
    shard.arrive(function);
    let [sandbox] = shard.starts()[..] else { panic!("one start was expected") };
    shard.pass(Nanos::from_millis(3));
    shard.arrive(function);
    assert_eq!(shard.starts(), [], "the sandbox starting has a lane for it");
    shard.pass(Nanos::from_millis(1));
    assert_eq!(shard.ready(sandbox).len(), 2);
    let waited = |effect: &Effect| match *effect {
        Effect::Dispatch { start, starting, .. } => Some((start, starting)),
        _ => None,
    };
    let waits: Vec<_> = shard.effects.iter().filter_map(waited).collect();
    let expected = [(StartKind::Cold, Nanos::from_millis(4)), (StartKind::Warm, Nanos::from_millis(1))];
    assert_eq!(waits, expected);
}

#[test]
fn waiting_for_a_place_to_run_is_queued_and_not_starting() {
    let policies = Policies { concurrency: ConcurrencyPolicy::Fixed { running: 1 }, ..Policies::default() };
    let mut shard = Shard::new(limits(), policies);
    let (one, two) = (shard.add(64, 1), shard.add(64, 1));
    shard.idle(two);
    let running = shard.cold(one);
    shard.arrive(two);
    assert_eq!(shard.placed(), []);
    shard.now = shard.now.saturating_add(Nanos::from_millis(9));
    shard.complete(running);
    let (start, queued, starting, _) = dispatch(&shard);
    assert_eq!((start, queued, starting), (StartKind::Warm, Nanos::from_millis(9), Nanos::ZERO));
}

#[test]
fn a_sandbox_started_for_one_that_left_is_warm_for_the_next() {
    let mut shard = Shard::small();
    let function = shard.add(64, 1);
    let invocation = shard.arrive(function);
    let [sandbox] = shard.starts()[..] else { panic!("one start was expected") };
    shard.step(Event::Cancel { invocation });
    shard.ready(sandbox);
    shard.arrive(function);
    assert_eq!(dispatch(&shard).0, StartKind::Warm);
}

#[test]
fn the_most_recently_used_idle_sandbox_goes_first() {
    let mut shard = Shard::small();
    let function = shard.add(64, 1);
    let placed: Vec<_> = (0..3).map(|_| shard.cold(function)).collect();
    for at in [1, 2, 0] {
        shard.pass(Nanos::from_millis(1));
        shard.complete(placed[at]);
    }
    for at in [0, 2, 1] {
        shard.arrive(function);
        assert_eq!(shard.placed()[0].sandbox, placed[at].sandbox);
    }
}

#[test]
fn a_partly_used_sandbox_goes_before_an_idle_one() {
    let mut shard = Shard::small();
    let function = shard.add(64, 2);
    let first = shard.cold(function);
    shard.arrive(function);
    let second = shard.placed()[0];
    assert_eq!(second.sandbox, first.sandbox);
    assert_ne!(second.lane, first.lane);
    let third = shard.cold(function);
    shard.complete(second);
    shard.complete(third);
    shard.arrive(function);
    assert_eq!(shard.placed()[0].sandbox, first.sandbox, "the idle one is left to grow old");
}

#[test]
fn sandboxes_are_started_for_what_no_lane_is_free_or_coming_for() {
    let mut shard = Shard::new(Limits { starting: 2, sandboxes_per_function: 3, ..limits() }, Policies::default());
    let function = shard.add(16, 2);
    let mut starts = Vec::new();
    for expected in [1, 0, 1, 0, 0, 0, 0] {
        shard.arrive(function);
        assert_eq!(shard.starts().len(), expected);
        starts.extend(shard.starts());
    }
    // One of the two places for starts is free again: the third and last that the function may have.
    assert_eq!(shard.ready(starts[0]).len(), 2);
    let [third] = shard.starts()[..] else { panic!("one start was expected") };
    shard.ready(starts[1]);
    assert_eq!(shard.starts(), []);
    shard.ready(third);
    assert_eq!((shard.stats().running, shard.stats().queued, shard.starts().len()), (6, 1, 0));
}

#[test]
fn no_more_are_started_than_may_run() {
    let policies = Policies { concurrency: ConcurrencyPolicy::Fixed { running: 2 }, ..Policies::default() };
    let mut shard = Shard::new(limits(), policies);
    let function = shard.add(16, 1);
    for _ in 0..4 {
        shard.arrive(function);
    }
    assert_eq!(shard.stats().sandboxes, 2);
    shard.run_to_rest();
    assert_eq!(shard.stats().answered(Outcome::Returned), 4);
    assert_eq!(shard.stats().started, 2);
}

#[test]
fn the_least_recently_used_idle_sandbox_makes_room_and_its_memory_counts_until_it_is_dead() {
    let mut shard = Shard::small();
    let (a, b, c) = (shard.add(128, 1), shard.add(128, 1), shard.add(128, 1));
    let (idle_a, idle_b) = (shard.idle(a), shard.idle(b));
    // Used again: now the other is the older.
    shard.pass(Nanos::from_millis(1));
    shard.arrive(a);
    let again = shard.placed()[0];
    shard.complete(again);
    shard.arrive(c);
    assert_eq!(shard.kills(), [(idle_b, KillReason::Evicted)]);
    assert_eq!((shard.starts(), shard.stats().memory), (Vec::new(), Bytes::from_mebibytes(256)));
    // What is dying is counted on: nothing more is evicted for it.
    assert_eq!(shard.pass(Nanos::from_millis(1)), []);
    shard.step(Event::SandboxDied { sandbox: idle_b });
    assert_eq!(shard.starts().len(), 1);
    assert_eq!(shard.stats().idle, 1);
    assert_eq!(again.sandbox, idle_a);
}

#[test]
fn a_sandbox_count_that_is_short_evicts_too() {
    let mut shard = Shard::new(Limits { sandboxes: 1, ..limits() }, Policies::default());
    let (a, b) = (shard.add(1, 1), shard.add(1, 1));
    let victim = shard.idle(a);
    shard.arrive(b);
    assert_eq!(shard.kills(), [(victim, KillReason::Evicted)]);
    shard.step(Event::SandboxDied { sandbox: victim });
    assert_eq!(shard.starts().len(), 1);
}

#[test]
fn nothing_is_evicted_that_would_not_help() {
    let mut shard = Shard::small();
    let (small, large, whole) = (shard.add(64, 1), shard.add(128, 1), shard.add(256, 1));
    let idle = shard.idle(small);
    let busy = shard.cold(large);
    shard.arrive(whole);
    assert_eq!(shard.kills(), [], "the busy one leaves too little room whatever is evicted");
    shard.complete(busy);
    assert_eq!(shard.kills(), [(idle, KillReason::Evicted), (busy.sandbox, KillReason::Evicted)]);
    shard.step(Event::SandboxDied { sandbox: busy.sandbox });
    assert_eq!(shard.starts(), []);
    shard.step(Event::SandboxDied { sandbox: idle });
    assert_eq!(shard.starts().len(), 1);
}

#[test]
fn room_goes_to_starved_functions_in_the_order_of_their_arrivals() {
    let mut shard = Shard::small();
    // Not in the order of their slots.
    let (small, whole, busy) = (shard.add(64, 1), shard.add(256, 1), shard.add(128, 1));
    let running = [shard.cold(busy), shard.cold(busy)];
    shard.arrive(whole);
    shard.pass(Nanos::from_millis(1));
    shard.arrive(small);
    for placed in running {
        shard.complete(placed);
        shard.step(Event::SandboxDied { sandbox: placed.sandbox });
    }
    // The small one would have fitted after the first; the large one would then have waited for ever.
    let started = shard.effects.iter().find_map(|effect| match effect {
        Effect::Start { function, .. } => Some(*function),
        _ => None,
    });
    assert_eq!(started, Some(whole));
    assert_eq!(shard.stats().started, 3);
}

#[test]
fn the_shortest_job_gets_the_free_place_where_the_first_to_come_would() {
    for (queue, expects_short) in [(QueuePolicy::Fcfs, false), (QueuePolicy::Sjf, true)] {
        let concurrency = ConcurrencyPolicy::Fixed { running: 1 };
        let mut shard = Shard::new(limits(), Policies { queue, concurrency, ..Policies::default() });
        let (long, short) = (shard.add(64, 1), shard.add(64, 1));
        for (function, millis) in [(long, 50), (short, 5)] {
            shard.idle(function);
            shard.arrive(function);
            let placed = shard.placed()[0];
            shard.pass(Nanos::from_millis(millis));
            shard.complete(placed);
        }
        shard.arrive(long);
        let running = shard.placed()[0];
        let waiting_long = shard.arrive(long);
        shard.pass(Nanos::from_millis(1));
        let waiting_short = shard.arrive(short);
        shard.complete(running);
        let next = shard.placed()[0].invocation;
        assert_eq!(next, if expects_short { waiting_short } else { waiting_long }, "{queue:?}");
    }
}

#[test]
fn idle_sandboxes_stay_or_go_after_their_time() {
    let hour = Nanos::from_secs(3600);
    let mut shard = Shard::small();
    let function = shard.add(64, 1);
    shard.idle(function);
    assert_eq!(shard.engine.next_wake(), None);
    assert_eq!(shard.pass(hour), []);

    let keepalive = KeepAlivePolicy::Ttl { idle: Nanos::from_secs(600) };
    let mut shard = Shard::new(limits(), Policies { keepalive, ..Policies::default() });
    let function = shard.add(64, 1);
    let sandbox = shard.idle(function);
    shard.pass(Nanos::from_secs(599));
    shard.arrive(function);
    let placed = shard.placed()[0];
    assert_eq!(shard.pass(Nanos::from_secs(2)), [], "in use: its time as an idle one is forgotten");
    shard.complete(placed);
    assert_eq!(shard.engine.next_wake(), Some(shard.now.saturating_add(Nanos::from_secs(600))));
    assert_eq!(shard.pass(Nanos::from_secs(599)), []);
    shard.pass(Nanos::from_secs(1));
    assert_eq!(shard.kills(), [(sandbox, KillReason::Idle)]);
}
