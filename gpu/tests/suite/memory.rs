//! Whose memory comes and goes, event by event.

use vilya_engine::{FunctionId, Nanos, Origin, Outcome, Refusal, RunResult};
use vilya_gpu::{
    Config, Departure, Effect, Effects, Event, Policy, Residency, RunId, Scheduler, Standing, StickySettings, SwapId,
};

use crate::world::{STICKY, limits, spec};

/// A scheduler driven by hand: every event at its time, every effect seen.
struct Hand {
    scheduler: Scheduler,
    now: Nanos,
    next: u64,
}

impl Hand {
    /// 16 GiB, and as many functions as there are sizes, in MiB.
    fn new(policy: Policy, running: u32, sizes: &[u64]) -> Hand {
        let config = Config { limits: limits(running, 16), policy };
        let scheduler = Scheduler::new(config).unwrap();
        let mut hand = Hand { scheduler, now: Nanos::ZERO, next: 0 };
        for (index, size) in sizes.iter().enumerate() {
            assert_eq!(hand.event(Event::FunctionAdded { function: id(index as u32), spec: spec(*size, 1) }), []);
        }
        hand
    }

    fn event(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Effects::new();
        self.scheduler.step(self.now, event, &mut effects);
        effects.drain().collect()
    }

    fn arrive(&mut self, index: u32) -> Vec<Effect> {
        self.next += 1;
        self.event(Event::Arrive { origin: Origin(self.next), function: id(index) })
    }

    fn swapped(&mut self, swap: SwapId) -> Vec<Effect> {
        self.event(Event::SwapDone { swap })
    }

    fn done(&mut self, run: RunId) -> Vec<Effect> {
        self.event(Event::RunDone { run, result: RunResult::Returned })
    }

    fn wait(&mut self, time: Nanos) -> Vec<Effect> {
        self.now = self.now.saturating_add(time);
        self.event(Event::Tick)
    }

    /// One arrival of a function that is away and has room: in, run, done.
    fn bring_in(&mut self, index: u32) {
        let swap = swap_in(&self.arrive(index), index);
        let run = run_of(&self.swapped(swap), index);
        self.done(run);
        assert_eq!(self.residency(index), Residency::Resident);
    }

    fn residency(&self, index: u32) -> Residency {
        self.scheduler.flow(id(index)).unwrap().residency
    }

    fn standing(&self, index: u32) -> Standing {
        self.scheduler.flow(id(index)).unwrap().standing
    }
}

fn id(index: u32) -> FunctionId {
    FunctionId { index, generation: 1 }
}

/// The only effect must be a swap-in of this function.
fn swap_in(effects: &[Effect], index: u32) -> SwapId {
    match effects {
        [Effect::StartSwapIn { swap, function, .. }] if *function == id(index) => *swap,
        other => panic!("not one swap-in of {index}: {other:?}"),
    }
}

/// The only effect must be a swap-out of this function.
fn swap_out(effects: &[Effect], index: u32) -> SwapId {
    match effects {
        [Effect::StartSwapOut { swap, function, .. }] if *function == id(index) => *swap,
        other => panic!("not one swap-out of {index}: {other:?}"),
    }
}

/// The only effect but answers must be a run of this function.
fn run_of(effects: &[Effect], index: u32) -> RunId {
    let rest: Vec<&Effect> = effects.iter().filter(|effect| !matches!(effect, Effect::Answer { .. })).collect();
    match rest[..] {
        [Effect::StartRun { run, function, .. }] if *function == id(index) => *run,
        ref other => panic!("not one run of {index}: {other:?}"),
    }
}

const STICKY_POLICY: Policy = Policy::MqfqSticky(STICKY);

/// What makes room moves memory off the device, and the one who wants it waits until it is off.
#[test]
fn eviction_moves_memory_off_and_the_room_is_used_after_that() {
    for policy in [Policy::Fcfs, STICKY_POLICY] {
        let mut hand = Hand::new(policy, 1, &[10_000, 10_000]);
        hand.bring_in(0);
        let out = swap_out(&hand.arrive(1), 0);
        assert_eq!(hand.residency(0), Residency::SwappingOut);
        assert_eq!(hand.wait(Nanos::from_millis(1)), [], "not before it is off");
        let swap = swap_in(&hand.swapped(out), 1);
        assert_eq!(hand.residency(0), Residency::Swapped);
        run_of(&hand.swapped(swap), 1);
    }
}

/// Memory that is there is not touched before a run.
#[test]
fn a_warm_run_moves_nothing() {
    for policy in [Policy::Fcfs, STICKY_POLICY] {
        let mut hand = Hand::new(policy, 1, &[1_000]);
        hand.bring_in(0);
        assert!(matches!(hand.arrive(0)[..], [Effect::StartRun { .. }]));
    }
}

#[test]
fn memory_that_a_run_uses_stays_until_it_ends_and_gets_no_new_run_then() {
    let mut hand = Hand::new(Policy::Fcfs, 2, &[10_000, 10_000]);
    let swap = swap_in(&hand.arrive(0), 0);
    let run = run_of(&hand.swapped(swap), 0);
    assert_eq!(hand.arrive(1), [], "its room is in use");
    assert_eq!(hand.arrive(0), [], "no place is free");
    // The place goes to function 0, whose memory must leave for function 1 all the same.
    let effects = hand.done(run);
    assert!(matches!(effects[..], [Effect::Answer { .. }, Effect::StartSwapOut { function, .. }] if function == id(0)));
    let Effect::StartSwapOut { swap: out, .. } = effects[1] else { unreachable!() };
    let swap = swap_in(&hand.swapped(out), 1);
    let run = run_of(&hand.swapped(swap), 1);
    let effects = hand.done(run);
    assert!(matches!(effects[..], [Effect::Answer { .. }, Effect::StartSwapOut { function, .. }] if function == id(1)));
}

#[test]
fn the_least_recently_used_leaves_and_only_as_many_as_needed() {
    let mut hand = Hand::new(Policy::Fcfs, 1, &[5_000, 5_000, 5_000, 6_000]);
    hand.bring_in(0);
    hand.bring_in(1);
    hand.bring_in(2);
    let run = run_of(&hand.arrive(0), 0);
    hand.done(run);
    let effects = hand.arrive(3);
    swap_out(&effects, 1);
    assert_eq!([hand.residency(0), hand.residency(2)], [Residency::Resident; 2]);
}

/// Memory is fetched ahead of its turn when there is room for it, and not when there is none.
#[test]
fn prefetching_uses_free_room_and_makes_none() {
    let mut hand = Hand::new(STICKY_POLICY, 1, &[4_000, 4_000, 10_000]);
    let swap = swap_in(&hand.arrive(0), 0);
    let run = run_of(&hand.swapped(swap), 0);
    let ahead = swap_in(&hand.arrive(1), 1);
    hand.swapped(ahead);
    assert_eq!(hand.arrive(2), [], "there is not so much free");
    run_of(&hand.done(run), 1);

    let mut hand = Hand::new(Policy::Fcfs, 1, &[4_000, 4_000]);
    let swap = swap_in(&hand.arrive(0), 0);
    hand.swapped(swap);
    assert_eq!(hand.arrive(1), [], "first come, first served fetches nothing ahead");
}

#[test]
fn a_place_given_during_the_prefetch_starts_when_that_ends() {
    let mut hand = Hand::new(STICKY_POLICY, 1, &[4_000, 4_000]);
    let swap = swap_in(&hand.arrive(0), 0);
    let run = run_of(&hand.swapped(swap), 0);
    let ahead = swap_in(&hand.arrive(1), 1);
    assert!(matches!(hand.done(run)[..], [Effect::Answer { .. }]));
    run_of(&hand.swapped(ahead), 1);
}

#[test]
fn the_memory_of_an_idle_function_leaves_after_its_time() {
    let mut hand = Hand::new(STICKY_POLICY, 1, &[1_000]);
    hand.bring_in(0);
    hand.now = Nanos::from_secs(2);
    let run = run_of(&hand.arrive(0), 0);
    hand.done(run);
    // 1.5 times the two seconds between its arrivals.
    assert_eq!(hand.scheduler.next_wake(), Some(Nanos::from_secs(5)));
    assert_eq!(hand.wait(Nanos::from_millis(2_999)), []);
    let effects = hand.wait(Nanos::from_millis(1));
    swap_out(&effects, 0);
    assert_eq!((hand.standing(0), hand.scheduler.next_wake()), (Standing::Inactive, None));
}

#[test]
fn the_memory_of_a_throttled_function_leaves_at_once_or_when_wanted() {
    for departure in [Departure::AtOnce, Departure::WhenWanted] {
        let settings = StickySettings { overrun: Nanos::from_nanos(10), departure, ..STICKY };
        let mut hand = Hand::new(Policy::MqfqSticky(settings), 1, &[6_000, 6_000]);
        hand.bring_in(1);
        let swap = swap_in(&hand.arrive(0), 0);
        let run = run_of(&hand.swapped(swap), 0);
        hand.now = Nanos::from_nanos(8);
        hand.done(run);
        // From now on function 0 is charged 8 ns a run, and function 1, which takes no time, 1 ns.
        let run = run_of(&hand.arrive(0), 0);
        for index in [0, 0, 0, 0, 1, 1, 1] {
            assert_eq!(hand.arrive(index), []);
        }
        let run = run_of(&hand.done(run), 0);
        assert_eq!(hand.standing(0), Standing::Active, "8 ns ahead");
        let run = run_of(&hand.done(run), 0);
        assert_eq!(hand.standing(0), Standing::Throttled, "16 ns ahead");
        assert_eq!(hand.residency(0), Residency::Resident, "a run uses it");
        let effects = hand.done(run);
        run_of(&effects[..2], 1);
        match departure {
            Departure::AtOnce => drop(swap_out(&effects[2..], 0)),
            Departure::WhenWanted => assert_eq!(effects[2..], []),
        }
    }
}

#[test]
fn late_and_repeated_reports_change_nothing() {
    let mut hand = Hand::new(Policy::Fcfs, 1, &[1_000, 16_000]);
    let swap = swap_in(&hand.arrive(0), 0);
    assert_eq!(hand.done(RunId { index: 0, generation: 1 }), [], "it has not started");
    let run = run_of(&hand.swapped(swap), 0);
    assert_eq!(hand.swapped(swap), []);
    assert_eq!(hand.done(run).len(), 1);
    assert_eq!(hand.done(run), []);
    assert_eq!(hand.done(RunId { index: 99, generation: 1 }), []);
    assert_eq!(hand.swapped(SwapId { index: 99, generation: 1 }), []);
    assert_eq!(hand.event(Event::SandboxDied { function: id(9) }), []);
    let out = swap_out(&hand.arrive(1), 0);
    assert_eq!(hand.swapped(swap), [], "a swap that ended long ago");
    swap_in(&hand.swapped(out), 1);
}

#[test]
fn a_death_answers_every_run_and_frees_the_room_in_whatever_state() {
    let died = |effects: &[Effect]| {
        let is_death = |effect: &&Effect| matches!(effect, Effect::Answer { outcome: Outcome::SandboxDied, .. });
        effects.iter().filter(is_death).count()
    };
    let mut hand = Hand::new(Policy::Fcfs, 2, &[10_000, 10_000]);
    let swap = swap_in(&hand.arrive(0), 0);
    hand.arrive(0);
    // Half-way in: both wait for the memory.
    let effects = hand.event(Event::SandboxDied { function: id(0) });
    assert_eq!(died(&effects), 2);
    assert_eq!(hand.scheduler.ledger().free(), hand.scheduler.ledger().capacity());
    assert_eq!(hand.swapped(swap), [], "that swap is no more");
    // Resident and running, with another waiting for its room.
    let swap = swap_in(&hand.arrive(0), 0);
    hand.swapped(swap);
    hand.arrive(1);
    let effects = hand.event(Event::SandboxDied { function: id(0) });
    assert_eq!(died(&effects), 1);
    let last = swap_in(&effects[1..], 1);
    // While it waits for room, which another holds.
    assert_eq!(hand.arrive(0), []);
    assert_eq!(died(&hand.event(Event::SandboxDied { function: id(0) })), 1);
    assert_eq!(hand.scheduler.in_flight(), 1);
    let run = run_of(&hand.swapped(last), 1);
    assert!(matches!(hand.done(run)[..], [Effect::Answer { .. }]), "nobody wants the room any more");
}

#[test]
fn a_death_during_a_prefetch_does_not_end_prefetching() {
    let mut hand = Hand::new(STICKY_POLICY, 1, &[4_000, 4_000]);
    let swap = swap_in(&hand.arrive(0), 0);
    hand.swapped(swap);
    swap_in(&hand.arrive(1), 1);
    let effects = hand.event(Event::SandboxDied { function: id(1) });
    swap_in(&effects, 1);
}

#[test]
fn a_retired_function_finishes_is_discarded_and_gone() {
    let mut hand = Hand::new(Policy::Fcfs, 1, &[1_000]);
    let swap = swap_in(&hand.arrive(0), 0);
    hand.arrive(0);
    let run = run_of(&hand.swapped(swap), 0);
    assert_eq!(hand.event(Event::FunctionRetired { function: id(0) }), []);
    let refused = hand.arrive(0);
    assert!(matches!(refused[..], [Effect::Refuse { reason: Refusal::NoSuchFunction, .. }]));
    let run = run_of(&hand.done(run), 0);
    let effects = hand.done(run);
    assert!(matches!(effects[..], [Effect::Answer { .. }, Effect::Discard { .. }]));
    let effects = hand.event(Event::SandboxDied { function: id(0) });
    assert_eq!(effects, [Effect::FunctionGone { function: id(0) }]);
    let again = FunctionId { index: 0, generation: 2 };
    assert_eq!(hand.event(Event::FunctionAdded { function: again, spec: spec(1, 1) }), []);
    assert!(hand.scheduler.flow(id(0)).is_none() && hand.scheduler.flow(again).is_some());
}

#[test]
fn what_does_not_fit_is_refused_with_the_reason() {
    let small = vilya_gpu::Limits { queue_per_function: 2, queued: 3, ..limits(1, 16) };
    let mut hand = Hand::new(Policy::Fcfs, 1, &[17 << 10, 1, 1]);
    hand.scheduler = Scheduler::new(Config { limits: small, policy: Policy::Fcfs }).unwrap();
    for (index, size) in [17 << 10, 1, 1].into_iter().enumerate() {
        hand.event(Event::FunctionAdded { function: id(index as u32), spec: spec(size, 1) });
    }
    let mut reason = |index| match hand.arrive(index)[..] {
        [Effect::Refuse { reason, .. }] => Some(reason),
        _ => None,
    };
    assert_eq!(reason(0), Some(Refusal::TooLarge));
    assert_eq!(reason(7), Some(Refusal::NoSuchFunction));
    // One takes the place, two wait.
    assert_eq!([reason(1), reason(1), reason(1)], [None; 3]);
    assert_eq!(reason(1), Some(Refusal::QueueFull));
    assert_eq!(reason(2), None);
    assert_eq!(reason(2), Some(Refusal::InvocationsFull));
    let gone = hand.event(Event::FunctionAdded { function: id(99), spec: spec(1, 1) });
    assert_eq!(gone, [Effect::FunctionGone { function: id(99) }]);
}
