//! Layers: charged, weighed against idle sandboxes, and dropped.

use std::vec;
use std::vec::Vec;

use super::shard::{Placed, Shard, limits};
use crate::policy::keepalive::KeepAlivePolicy;
use crate::{Bytes, Effect, Event, FunctionId, KillReason, Limits, Nanos, Policies, SandboxId};

const SECOND: Nanos = Nanos::from_secs(1);

/// Room for four sandboxes of 64 MiB, by any number of them.
fn shard(keepalive: KeepAlivePolicy) -> Shard {
    let limits = Limits { sandboxes: 64, sandboxes_per_function: 16, ..limits() };
    Shard::new(limits, Policies { keepalive, ..Policies::default() })
}

impl Shard {
    fn made(&mut self, function: FunctionId, mebibytes: u64) -> &[Effect] {
        self.step(Event::LayerMade { function, memory: Bytes::from_mebibytes(mebibytes) })
    }

    fn drops(&self) -> Vec<FunctionId> {
        let dropped = |effect: &Effect| match effect {
            Effect::DropLayer { function } => Some(*function),
            _ => None,
        };
        self.effects.iter().filter_map(dropped).collect()
    }

    /// A sandbox that became ready so long after its start was decided, and is idle.
    fn idle_after(&mut self, function: FunctionId, takes: Nanos, from_layer: bool) -> SandboxId {
        self.arrive(function);
        let [sandbox] = self.starts()[..] else { panic!("one start was expected: {:?}", self.effects) };
        self.step(Event::SandboxStarted { sandbox, from_layer });
        self.now = self.now.saturating_add(takes);
        let [placed] = self.ready(sandbox)[..] else { panic!("it was started for somebody") };
        self.complete(placed);
        sandbox
    }

    /// Ends a sandbox from outside.
    fn end(&mut self, sandbox: SandboxId) {
        self.step(Event::SandboxDied { sandbox });
    }

    fn use_once(&mut self, function: FunctionId) {
        self.arrive(function);
        let [placed] = self.placed()[..] else { panic!("an idle sandbox was expected") };
        self.complete(placed);
    }
}

#[test]
fn a_layer_is_charged_from_its_place_to_its_end_and_leaves_less_for_sandboxes() {
    let mut shard = shard(KeepAlivePolicy::Lru);
    let (one, other) = (shard.add(64, 1), shard.add(64, 1));
    assert_eq!(shard.made(one, 100), [Effect::KeepLayer { function: one }]);
    assert_eq!((shard.stats().layers, shard.stats().layer_memory), (1, Bytes::from_mebibytes(100)));
    let busy: Vec<Placed> = (0..2).map(|_| shard.cold(one)).collect();
    // 100 + 2 * 64 of 256: the layer is in use, and a third sandbox has no room.
    shard.arrive(other);
    assert_eq!((shard.starts(), shard.kills(), shard.drops()), (vec![], vec![], vec![]));
    shard.step(Event::LayerGone { function: one });
    assert_eq!(shard.starts().len(), 1, "what is gone is not charged");
    assert_eq!(shard.stats().layer_memory, Bytes::ZERO);
    drop(busy);
}

#[test]
fn an_idle_sandbox_goes_and_its_small_layer_stays() {
    for keepalive in [KeepAlivePolicy::Lru, KeepAlivePolicy::GreedyDual] {
        let mut shard = shard(keepalive);
        let functions: Vec<FunctionId> = (0..5).map(|_| shard.add(64, 1)).collect();
        let first = shard.idle_after(functions[0], Nanos::from_millis(60), false);
        assert_eq!(shard.made(functions[0], 8), [Effect::KeepLayer { function: functions[0] }]);
        for &function in &functions[1..3] {
            shard.idle_after(function, Nanos::from_millis(60), false);
        }
        // 3 * 64 + 8 of 256: another has no room.
        shard.arrive(functions[3]);
        assert_eq!(shard.kills(), [(first, KillReason::Evicted)], "{keepalive:?}");
        shard.end(first);
        assert_eq!((shard.starts().len(), shard.drops()), (1, vec![]), "{keepalive:?}");
        assert_eq!(shard.stats().layers, 1, "{keepalive:?}: the layer outlives the sandbox");
    }
}

/// Losing an idle sandbox costs a start from the layer where there is one.
#[test]
fn the_sandbox_that_is_quick_to_start_again_goes_first() {
    let mut shard = shard(KeepAlivePolicy::GreedyDual);
    let (quick, slow, third) = (shard.add(100, 1), shard.add(100, 1), shard.add(100, 1));
    let first = shard.idle_after(quick, Nanos::from_millis(60), false);
    shard.made(quick, 8);
    shard.end(first);
    // Both sandboxes were started in their own time; the one from the layer is used much more often.
    shard.idle_after(slow, Nanos::from_millis(60), false);
    let cheap = shard.idle_after(quick, Nanos::from_millis(2), true);
    for _ in 0..10 {
        shard.use_once(quick);
    }
    shard.arrive(third);
    assert_eq!(shard.kills(), [(cheap, KillReason::Evicted)], "11 uses of 2 ms weigh less than one of 60");
    shard.end(cheap);
    assert_eq!((shard.starts().len(), shard.stats().layers), (1, 1));
    shard.use_once(slow);
}

/// The idle sandboxes of a function were put in order before its layer was made.
#[test]
fn a_layer_that_comes_or_goes_changes_what_the_sandboxes_of_its_function_are_worth() {
    for goes in [false, true] {
        let mut shard = shard(KeepAlivePolicy::GreedyDual);
        let (layered, other, third) = (shard.add(100, 1), shard.add(100, 1), shard.add(100, 1));
        let first = shard.idle_after(layered, Nanos::from_millis(60), false);
        shard.end(first);
        shard.idle_after(layered, Nanos::from_millis(2), true);
        shard.step(Event::LayerGone { function: layered });
        let sandbox = shard.idle_after(other, Nanos::from_millis(40), false);
        let layered_sandbox = SandboxId { index: 1 - sandbox.index, ..sandbox };
        shard.made(layered, 8);
        if goes {
            shard.step(Event::LayerGone { function: layered });
        }
        shard.arrive(third);
        let [(victim, KillReason::Evicted)] = shard.kills()[..] else { panic!("{:?}", shard.effects) };
        assert_eq!(victim == sandbox, goes, "{victim:?} of {sandbox:?} and {layered_sandbox:?}");
    }
}

/// By Greedy-Dual; by age alone it goes last.
#[test]
fn a_layer_nobody_uses_goes_before_sandboxes_or_after_them_as_the_policy_says() {
    for (keepalive, goes) in [(KeepAlivePolicy::GreedyDual, true), (KeepAlivePolicy::Lru, false)] {
        let mut shard = shard(keepalive);
        let (unused, used, third) = (shard.add(60, 1), shard.add(60, 1), shard.add(90, 1));
        let first = shard.idle_after(unused, Nanos::from_millis(20), false);
        shard.made(unused, 70);
        shard.end(first);
        let sandbox = shard.idle_after(used, Nanos::from_millis(20), false);
        for _ in 0..10 {
            shard.use_once(used);
        }
        // 70 and 60 of 256, and 90 for each of two more.
        shard.cold(third);
        shard.arrive(third);
        let expected = if goes { (vec![unused], vec![]) } else { (vec![], vec![(sandbox, KillReason::Evicted)]) };
        assert_eq!((shard.drops(), shard.kills()), expected, "{keepalive:?}");
        assert_eq!(shard.starts(), [], "its memory is there when it is gone");
        if goes {
            shard.step(Event::LayerGone { function: unused });
            assert_eq!(shard.starts().len(), 1);
        }
    }
}

#[test]
fn the_layer_that_a_start_is_to_be_made_from_goes_last() {
    let mut shard = shard(KeepAlivePolicy::GreedyDual);
    let (own, other) = (shard.add(150, 1), shard.add(100, 1));
    let first = shard.idle_after(own, Nanos::from_millis(20), false);
    shard.made(own, 50);
    shard.end(first);
    let sandbox = shard.idle_after(other, Nanos::from_millis(900), false);
    // Worth more than the layer, and goes for the function whose layer it is.
    shard.arrive(own);
    assert_eq!((shard.drops(), shard.kills()), (vec![], vec![(sandbox, KillReason::Evicted)]));
}

#[test]
fn a_time_to_live_holds_for_layers_from_the_end_of_their_last_sandbox() {
    let mut shard = shard(KeepAlivePolicy::Ttl { idle: SECOND });
    let function = shard.add(64, 1);
    let sandbox = shard.idle_after(function, Nanos::from_millis(5), false);
    shard.made(function, 8);
    shard.pass(SECOND);
    assert_eq!(shard.kills(), [(sandbox, KillReason::Idle)]);
    shard.end(sandbox);
    shard.pass(Nanos::from_millis(999));
    assert_eq!(shard.drops(), []);
    shard.pass(Nanos::from_millis(1));
    assert_eq!((shard.drops(), shard.stats().layers_expired), (vec![function], 1));
}

/// A function that is spread: its image is this shard's to keep, and used elsewhere.
#[test]
fn a_layer_that_other_shards_start_from_is_in_use() {
    let mut shard = shard(KeepAlivePolicy::Ttl { idle: SECOND });
    let function = shard.add(64, 1);
    shard.made(function, 8);
    for _ in 0..3 {
        shard.pass(Nanos::from_millis(900));
        assert_eq!(shard.step(Event::LayerUsed { function }), []);
    }
    shard.pass(Nanos::from_millis(999));
    assert_eq!(shard.drops(), []);
    shard.pass(Nanos::from_millis(1));
    assert_eq!(shard.drops(), [function]);
    assert_eq!(shard.step(Event::LayerUsed { function }), [], "it is being dropped");
}

#[test]
fn a_layer_waits_for_its_place_as_long_as_a_start_may_take() {
    // Shorter than the timeout of what runs.
    let mut shard = Shard::new(Limits { start_timeout: SECOND, ..limits() }, Policies::default());
    let (busy, waiting, own) = (shard.add(240, 1), shard.add(64, 1), shard.add(64, 1));
    shard.cold(busy);
    shard.arrive(waiting);
    assert_eq!(shard.made(own, 8), [], "somebody waits for room");
    assert_eq!(shard.stats().layers, 0);
    shard.pass(Nanos::from_millis(999));
    assert_eq!(shard.drops(), []);
    shard.pass(Nanos::from_millis(1));
    assert_eq!((shard.drops(), shard.stats().layer_memory), (vec![own], Bytes::ZERO));
}

/// A start takes what it needs, from its own function's layer if nothing else is left.
#[test]
fn a_layer_is_never_in_the_way_of_its_own_functions_start() {
    let mut shard = shard(KeepAlivePolicy::Lru);
    let function = shard.add(256, 1);
    shard.made(function, 8);
    assert_eq!(shard.stats().layers, 1);
    shard.arrive(function);
    assert_eq!(shard.drops(), [function]);
    shard.step(Event::LayerGone { function });
    assert_eq!(shard.starts().len(), 1);
}

/// The room that an eviction frees may come in two steps: the sandbox dies, then its layer can go.
#[test]
fn what_idle_sandboxes_are_in_the_way_of_counts_as_room() {
    let mut shard = shard(KeepAlivePolicy::Lru);
    let (small, large) = (shard.add(64, 1), shard.add(250, 1));
    let sandbox = shard.idle_after(small, SECOND, false);
    shard.made(small, 100);
    shard.arrive(large);
    assert_eq!(shard.kills(), [(sandbox, KillReason::Evicted)]);
    shard.end(sandbox);
    assert_eq!(shard.drops(), [small]);
    shard.step(Event::LayerGone { function: small });
    assert_eq!(shard.starts().len(), 1);
}

#[test]
fn a_layer_without_a_place_takes_what_is_worth_less_and_nothing_of_its_own_function() {
    let mut shard = shard(KeepAlivePolicy::Lru);
    let (own, other) = (shard.add(120, 1), shard.add(120, 1));
    let oldest = shard.idle_after(other, SECOND, false);
    shard.idle_after(own, SECOND, false);
    shard.made(own, 32);
    assert_eq!((shard.kills(), shard.drops()), (vec![(oldest, KillReason::Evicted)], vec![]));
    shard.end(oldest);
    assert_eq!(shard.effects, [Effect::KeepLayer { function: own }]);

    let mut shard = self::shard(KeepAlivePolicy::Lru);
    let own = shard.add(250, 1);
    shard.idle_after(own, SECOND, false);
    shard.made(own, 32);
    assert_eq!((shard.kills(), shard.drops()), (vec![], vec![own]), "the sandbox is worth more");
    shard.step(Event::LayerGone { function: own });
    let large = shard.made(own, 300).to_vec();
    assert_eq!(large, [Effect::DropLayer { function: own }], "more than there is");
}

#[test]
fn a_warm_target_is_kept_before_a_layer_is() {
    let mut shard = shard(KeepAlivePolicy::Lru);
    let warm = shard.add_warm(200, 1);
    shard.run_to_rest();
    let other = shard.add(64, 1);
    assert_eq!(shard.made(other, 100), [Effect::DropLayer { function: other }]);
    assert_eq!(shard.stats().idle, 1);
    shard.made(warm, 40);
    assert_eq!(shard.stats().kept_layer_memory, Bytes::from_mebibytes(40));
    // Would find room with everything else gone: nothing is done.
    let fits = shard.add(10, 1);
    shard.arrive(fits);
    assert_eq!(shard.starts().len(), 1);
    shard.run_to_rest();
    let large = shard.add(250, 1);
    let invocation = shard.arrive(large);
    let killed = shard.kills();
    assert_eq!(killed.len(), 2, "the idle one that is in no target, then the other: {:?}", shard.effects);
    killed.into_iter().for_each(|(sandbox, _)| shard.end(sandbox));
    assert_eq!(shard.drops(), [warm]);
    shard.step(Event::LayerGone { function: warm });
    let [sandbox] = shard.starts()[..] else { panic!("there is room") };
    assert_eq!(shard.ready(sandbox)[0].invocation, invocation);
}

#[test]
fn a_function_is_gone_when_its_layer_is() {
    let mut shard = shard(KeepAlivePolicy::Lru);
    let function = shard.add(64, 1);
    let sandbox = shard.idle_after(function, SECOND, false);
    shard.made(function, 8);
    shard.step(Event::FunctionRetired { function });
    assert_eq!(shard.kills(), [(sandbox, KillReason::Retired)]);
    shard.end(sandbox);
    assert_eq!(shard.effects, [Effect::DropLayer { function }]);
    assert_eq!(shard.step(Event::LayerGone { function }), [Effect::FunctionGone { function }]);
    // What was under way is dropped too.
    assert_eq!(shard.made(function, 8), [Effect::DropLayer { function }]);
}

#[test]
fn a_layer_that_is_offered_twice_or_gone_twice_changes_nothing() {
    let mut shard = shard(KeepAlivePolicy::Lru);
    let function = shard.add(64, 1);
    shard.made(function, 8);
    assert_eq!(shard.made(function, 9), []);
    assert_eq!(shard.stats().layer_memory, Bytes::from_mebibytes(8));
    assert_eq!(shard.step(Event::LayerGone { function }), []);
    assert_eq!(shard.step(Event::LayerGone { function }), []);
    assert_eq!((shard.stats().layers, shard.stats().stale_events), (0, 2));
}

#[test]
fn draining_takes_no_layer_and_waits_for_none() {
    let mut shard = shard(KeepAlivePolicy::Lru);
    let (held, late) = (shard.add(64, 1), shard.add(64, 1));
    shard.made(held, 8);
    assert_eq!(shard.step(Event::Drain), [Effect::Drained]);
    assert_eq!(shard.made(late, 8), [Effect::DropLayer { function: late }]);
}
