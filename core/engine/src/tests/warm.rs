//! Sandboxes that a function shall have whether or not anybody asks.

use super::shard::{Shard, limits};
use crate::policy::keepalive::KeepAlivePolicy;
use crate::{Event, KillReason, Limits, Nanos, Outcome, Policies};

const SECOND: Nanos = Nanos::from_secs(1);

fn with_ttl(idle: Nanos) -> Shard {
    Shard::new(limits(), Policies { keepalive: KeepAlivePolicy::Ttl { idle }, ..Policies::default() })
}

#[test]
fn a_target_is_met_at_once_and_again_after_a_death_and_ends_with_the_function() {
    let mut shard = Shard::small();
    let function = shard.add_warm(64, 2);
    let started = shard.starts();
    assert_eq!((started.len(), shard.stats().warm_missing), (2, 0), "those starting count");
    shard.run_to_rest();
    let placed = {
        shard.arrive(function);
        shard.placed()[0]
    };
    assert_eq!(shard.starts(), [], "a busy one counts");
    shard.step(Event::SandboxDied { sandbox: placed.sandbox });
    assert_eq!(shard.starts().len(), 1, "one that was of use is replaced at once");
    shard.run_to_rest();
    shard.step(Event::FunctionRetired { function });
    let killed = shard.kills();
    assert_eq!(killed.len(), 2);
    for (sandbox, _) in killed {
        shard.step(Event::SandboxDied { sandbox });
    }
    assert_eq!((shard.stats().sandboxes, shard.stats().functions, shard.starts()), (0, 0, [].to_vec()));
}

#[test]
fn what_is_within_the_target_does_not_expire_and_what_is_beyond_does() {
    let mut shard = with_ttl(SECOND);
    let function = shard.add_warm(64, 1);
    shard.run_to_rest();
    assert_eq!(shard.pass(Nanos::from_secs(3600)), []);
    shard.arrive(function);
    let placed = shard.placed()[0];
    for _ in 0..2 {
        shard.arrive(function);
    }
    shard.run_to_rest();
    shard.complete(placed);
    assert_eq!((shard.stats().idle, shard.stats().kept), (3, 0));
    shard.pass(Nanos::from_secs(2));
    let killed = shard.kills();
    assert_eq!(killed.len(), 2);
    for (sandbox, _) in killed {
        shard.step(Event::SandboxDied { sandbox });
    }
    assert_eq!((shard.stats().idle, shard.stats().kept), (1, 1));
    assert_eq!(shard.pass(Nanos::from_secs(3600)), []);
}

#[test]
fn a_function_that_never_starts_is_tried_ever_later() {
    let mut shard = Shard::small();
    shard.add_warm(64, 1);
    let mut sandbox = shard.starts()[0];
    let mut ready = false;
    let mut pauses = std::vec::Vec::new();
    for _ in 0..12 {
        // It fails to start, or it starts and dies at once: neither may be repeated without a pause.
        if ready {
            shard.ready(sandbox);
            shard.step(Event::SandboxDied { sandbox });
        } else {
            shard.step(Event::SandboxStartFailed { sandbox });
        }
        ready = !ready;
        assert_eq!((shard.starts().len(), shard.stats().warm_missing), (0, 1));
        let wake = shard.engine.next_wake().expect("it is tried again");
        let pause = wake.saturating_sub(shard.now);
        pauses.push(pause);
        shard.pass(pause.saturating_sub(Nanos::from_nanos(1)));
        assert_eq!(shard.starts(), []);
        shard.pass(Nanos::from_nanos(1));
        sandbox = shard.starts()[0];
    }
    assert_eq!(
        (pauses[0], pauses[1], pauses[11]),
        (Nanos::from_millis(250), Nanos::from_millis(500), Nanos::from_secs(64))
    );
    assert!(pauses.is_sorted());
}

#[test]
fn room_is_made_of_what_no_target_needs_and_of_a_target_only_when_nothing_else_can_serve() {
    let mut shard = Shard::small();
    let other = shard.add(64, 1);
    let idle = shard.idle(other);
    shard.add_warm(64, 4);
    let [first, second] = shard.starts()[..] else { panic!("half of the starts: {:?}", shard.effects) };
    shard.ready(first);
    shard.ready(second);
    assert_eq!(shard.kills(), [(idle, KillReason::Evicted)], "a warm start evicts what nobody needs");
    shard.step(Event::SandboxDied { sandbox: idle });
    shard.run_to_rest();
    assert_eq!(shard.stats().kept, 4);
    // All four places are within the target and none of them would ever be free: one goes.
    let waiting = shard.arrive(other);
    let [(victim, KillReason::Evicted)] = shard.kills()[..] else { panic!("{:?}", shard.effects) };
    shard.step(Event::SandboxDied { sandbox: victim });
    shard.run_to_rest();
    assert_eq!(shard.outcome(waiting), Some(Outcome::Returned));
    // The warm function takes it back later, from what is idle.
    shard.pass(SECOND);
    let [(victim, KillReason::Evicted)] = shard.kills()[..] else { panic!("{:?}", shard.effects) };
    shard.step(Event::SandboxDied { sandbox: victim });
    shard.run_to_rest();
    assert_eq!((shard.stats().kept, shard.stats().warm_missing), (4, 0));

    let mut shard = Shard::small();
    shard.add_warm(64, 2);
    shard.run_to_rest();
    let other = shard.add(64, 1);
    let first = shard.cold(other);
    shard.cold(other);
    let waiting = shard.arrive(other);
    assert_eq!((shard.kills(), shard.starts()), ([].to_vec(), [].to_vec()), "a busy one will end: the target stays");
    assert_ne!(shard.complete(first), []);
    assert_eq!(shard.placed()[0].invocation, waiting);
}

#[test]
fn warm_starts_leave_room_and_starts_to_who_waits() {
    let mut shard = Shard::new(Limits { starting: 2, ..limits() }, Policies::default());
    shard.add_warm(64, 4);
    assert_eq!(shard.starts().len(), 1, "half of the starts");
    let other = shard.add(64, 1);
    shard.arrive(other);
    assert_eq!(shard.starts().len(), 1);
    shard.arrive(other);
    assert_eq!(shard.starts(), [], "no start is free");
    // The start that becomes free goes to who waits.
    let first = crate::SandboxId { index: 0, generation: 1 };
    shard.ready(first);
    assert!(
        shard
            .effects
            .iter()
            .any(|effect| matches!(effect, crate::Effect::Start { function, .. } if *function == other))
    );
    shard.run_to_rest();
}

#[test]
fn a_target_without_room_waits_and_keeps_nobody_else_from_theirs() {
    let mut shard = Shard::small();
    shard.add_warm(256, 1);
    shard.run_to_rest();
    shard.add_warm(256, 1);
    assert_eq!(shard.starts(), []);
    assert!(shard.engine.next_wake().is_some_and(|wake| wake > shard.now));
    let mut small = Shard::small();
    small.add_warm(200, 1);
    small.run_to_rest();
    small.add_warm(200, 1);
    small.add_warm(10, 1);
    assert_eq!(small.starts().len(), 1, "a smaller one behind it is started");
}
