//! Events in any order, true or not: the books stay right, the limits hold, everybody is answered once.

use std::collections::{BTreeMap, BTreeSet};
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::shard::{Placed, Shard};
use crate::{
    Bytes, ConcurrencyPolicy, Effect, Event, FunctionId, FunctionSpec, InvocationId, KeepAlivePolicy, Limits, Nanos,
    Origin, Policies, QueuePolicy, RunResult, SandboxId,
};

/// One move of a driver that may report anything. A `u8` picks among the newest ids ever seen, live or not.
#[derive(Clone, Debug)]
enum Move {
    Add { index: u32, memory: u64, concurrency: u16, min_warm: u32, idle_millis: [Option<u64>; 2] },
    Retire { index: u32 },
    Arrive { index: u32 },
    Reserve { index: u32 },
    Commit { invocation: u8 },
    Yield { invocation: u8 },
    Release { run: u8 },
    Cancel { invocation: u8 },
    Started { sandbox: u8, from_layer: bool },
    LayerMade { index: u32, memory: u64 },
    LayerGone { index: u32 },
    LayerUsed { index: u32 },
    Ready { sandbox: u8 },
    StartFailed { sandbox: u8 },
    Died { sandbox: u8 },
    Complete { run: u8, raised: bool, held: bool },
    Claim { sandbox: u8, lane: u16, invocation: u8 },
    Broken { sandbox: u8 },
    Replace { sandbox: u8 },
    Thawed { sandbox: u8 },
    NotFrozen { sandbox: u8 },
    Pass { millis: u64 },
    Drain,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let index = 0..6u32;
    let one = prop_oneof![
        8 => (index.clone(), 0..300u64, 0..5u16, 0..3u32, [prop::option::of(0..600u64), prop::option::of(0..600u64)]).prop_map(
            |(index, memory, concurrency, min_warm, idle_millis)| {
                Move::Add { index, memory, concurrency, min_warm, idle_millis }
            }
        ),
        3 => index.clone().prop_map(|index| Move::Retire { index }),
        40 => index.clone().prop_map(|index| Move::Arrive { index }),
        12 => (index.clone(), 0..200u64).prop_map(|(index, memory)| Move::LayerMade { index, memory }),
        6 => index.clone().prop_map(|index| Move::LayerGone { index }),
        3 => index.clone().prop_map(|index| Move::LayerUsed { index }),
        25 => index.prop_map(|index| Move::Reserve { index }),
        12 => any::<u8>().prop_map(|invocation| Move::Commit { invocation }),
        6 => any::<u8>().prop_map(|invocation| Move::Yield { invocation }),
        12 => any::<u8>().prop_map(|run| Move::Release { run }),
        6 => any::<u8>().prop_map(|invocation| Move::Cancel { invocation }),
        6 => (any::<u8>(), any::<bool>()).prop_map(|(sandbox, from_layer)| Move::Started { sandbox, from_layer }),
        24 => any::<u8>().prop_map(|sandbox| Move::Ready { sandbox }),
        3 => any::<u8>().prop_map(|sandbox| Move::StartFailed { sandbox }),
        10 => any::<u8>().prop_map(|sandbox| Move::Died { sandbox }),
        30 => (any::<u8>(), any::<bool>(), any::<bool>())
            .prop_map(|(run, raised, held)| Move::Complete { run, raised, held }),
        2 => (any::<u8>(), 0..6u16, any::<u8>())
            .prop_map(|(sandbox, lane, invocation)| Move::Claim { sandbox, lane, invocation }),
        1 => any::<u8>().prop_map(|sandbox| Move::Broken { sandbox }),
        4 => any::<u8>().prop_map(|sandbox| Move::Replace { sandbox }),
        12 => any::<u8>().prop_map(|sandbox| Move::Thawed { sandbox }),
        2 => any::<u8>().prop_map(|sandbox| Move::NotFrozen { sandbox }),
        12 => (0..900u64).prop_map(|millis| Move::Pass { millis }),
    ];
    (prop::collection::vec(one, 1..250), prop::option::of(any::<prop::sample::Index>())).prop_map(|(mut all, drain)| {
        if let Some(drain) = drain {
            let at = drain.index(all.len());
            all.insert(at, Move::Drain);
        }
        all
    })
}

fn policies() -> impl Strategy<Value = Policies> {
    let queue = prop_oneof![Just(QueuePolicy::Fcfs), Just(QueuePolicy::Sjf)];
    let keepalive = prop_oneof![
        Just(KeepAlivePolicy::Lru),
        Just(KeepAlivePolicy::Ttl { idle: Nanos::from_millis(700) }),
        Just(KeepAlivePolicy::GreedyDual)
    ];
    let running = prop_oneof![Just(u32::MAX), 1..6u32];
    let quantum = prop_oneof![Just(None), Just(Some(Nanos::from_millis(20)))];
    (queue, keepalive, running, quantum).prop_map(|(queue, keepalive, running, quantum)| Policies {
        queue,
        keepalive,
        concurrency: ConcurrencyPolicy::Fixed { running },
        quantum,
    })
}

fn limits() -> impl Strategy<Value = Limits> {
    (1..40u32, 1..12u32, 1..9u32, 1..5u32, 1..4u32).prop_map(
        |(invocations, queue_per_function, sandboxes, sandboxes_per_function, starting)| Limits {
            functions: 5,
            invocations,
            queue_per_function,
            sandboxes,
            sandboxes_per_function,
            starting,
            memory: Bytes::from_mebibytes(512),
            start_timeout: Nanos::from_millis(1500),
            drain_timeout: Nanos::from_millis(4000),
        },
    )
}

/// What the driver has seen, to lie about and to check against.
struct Hostile {
    shard: Shard,
    generations: BTreeMap<u32, u32>,
    sandboxes: Vec<SandboxId>,
    invocations: Vec<InvocationId>,
    runs: Vec<Placed>,
    /// Alive as far as the driver has said, with their function.
    alive: BTreeMap<SandboxId, FunctionId>,
    killed: BTreeSet<SandboxId>,
    /// Frozen, and whether a thaw was asked for.
    frozen: BTreeMap<SandboxId, bool>,
    demoted: BTreeSet<SandboxId>,
    /// Functions that the engine has.
    known: BTreeSet<FunctionId>,
    /// Layers made and not gone, and what the engine wants of each.
    layers: BTreeMap<FunctionId, Wish>,
    /// Reserved, and not yet dispatched, answered or withdrawn.
    reserved: BTreeSet<InvocationId>,
    withdrawn: BTreeSet<InvocationId>,
    reclaimed: BTreeSet<InvocationId>,
    is_drained: bool,
}

/// What became of a layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wish {
    None,
    Kept,
    Dropped,
}

/// One of the sixteen newest, so that live ones are hit often and stale ones too.
fn pick<T: Copy>(from: &[T], number: u8) -> Option<T> {
    let newest = from.len().min(16);
    (newest > 0).then(|| from[from.len() - 1 - usize::from(number) % newest])
}

impl Hostile {
    fn function(&self, index: u32) -> FunctionId {
        FunctionId { index, generation: self.generations.get(&index).copied().unwrap_or(0) }
    }

    fn event(&mut self, a_move: &Move) -> Option<Event> {
        Some(match *a_move {
            Move::Add { index, memory, concurrency, min_warm, idle_millis } => {
                let timeout = Nanos::from_millis(1000);
                let memory = Bytes::from_mebibytes(memory);
                let [trim_after, freeze_after] = idle_millis.map(|millis| millis.map(Nanos::from_millis));
                let spec = FunctionSpec { memory, timeout, concurrency, min_warm, trim_after, freeze_after };
                let next = self.function(index).generation + 1;
                Event::FunctionAdded { function: FunctionId { index, generation: next }, spec }
            }
            Move::Retire { index } => Event::FunctionRetired { function: self.function(index) },
            Move::Arrive { index } => Event::Arrive { origin: Origin(1), function: self.function(index) },
            Move::Reserve { index } => Event::Reserve { origin: Origin(1), function: self.function(index) },
            Move::Commit { invocation } => Event::Commit { invocation: pick(&self.invocations, invocation)? },
            Move::Yield { invocation } => Event::Yield { invocation: pick(&self.invocations, invocation)? },
            Move::Release { run } => {
                let Placed { sandbox, lane, invocation } = pick(&self.runs, run)?;
                Event::Release { sandbox, lane, invocation }
            }
            Move::Cancel { invocation } => Event::Cancel { invocation: pick(&self.invocations, invocation)? },
            Move::Started { sandbox, from_layer } => {
                Event::SandboxStarted { sandbox: pick(&self.sandboxes, sandbox)?, from_layer }
            }
            Move::LayerMade { index, memory } => {
                Event::LayerMade { function: self.function(index), memory: Bytes::from_mebibytes(memory) }
            }
            Move::LayerUsed { index } => Event::LayerUsed { function: self.function(index) },
            Move::LayerGone { index } => Event::LayerGone { function: self.function(index) },
            Move::Ready { sandbox } => Event::SandboxReady { sandbox: pick(&self.sandboxes, sandbox)? },
            Move::StartFailed { sandbox } => {
                let sandbox = pick(&self.sandboxes, sandbox)?;
                self.alive.remove(&sandbox);
                Event::SandboxStartFailed { sandbox }
            }
            Move::Died { sandbox } => {
                let sandbox = pick(&self.sandboxes, sandbox)?;
                self.alive.remove(&sandbox);
                Event::SandboxDied { sandbox }
            }
            Move::Complete { run, raised, held } => {
                let Placed { sandbox, lane, invocation } = pick(&self.runs, run)?;
                let result = if raised { RunResult::Raised } else { RunResult::Returned };
                Event::Completed { sandbox, lane, invocation, result, held }
            }
            Move::Claim { sandbox, lane, invocation } => Event::Completed {
                sandbox: pick(&self.sandboxes, sandbox)?,
                lane,
                invocation: pick(&self.invocations, invocation)?,
                result: RunResult::Returned,
                held: false,
            },
            Move::Broken { sandbox } => Event::Broken { sandbox: pick(&self.sandboxes, sandbox)? },
            Move::Thawed { sandbox } => Event::Thawed { sandbox: pick(&self.sandboxes, sandbox)? },
            Move::NotFrozen { sandbox } => Event::NotFrozen { sandbox: pick(&self.sandboxes, sandbox)? },
            Move::Replace { sandbox } => Event::Replace { sandbox: pick(&self.sandboxes, sandbox)? },
            Move::Pass { millis } => {
                self.shard.now = self.shard.now.saturating_add(Nanos::from_millis(millis));
                Event::Tick
            }
            Move::Drain => Event::Drain,
        })
    }

    fn step(&mut self, event: Event) {
        self.shard.step(event);
        if let Event::FunctionAdded { function, .. } = event
            && self.shard.effects.is_empty()
        {
            self.generations.insert(function.index, function.generation);
            self.known.insert(function);
        }
        if let Event::Yield { invocation } = event
            && self.reserved.remove(&invocation)
        {
            self.withdrawn.insert(invocation);
        }
        match event {
            Event::Thawed { sandbox } if self.frozen.get(&sandbox) == Some(&true) => drop(self.frozen.remove(&sandbox)),
            Event::NotFrozen { sandbox } if self.frozen.get(&sandbox) == Some(&false) => {
                self.frozen.remove(&sandbox);
            }
            _ => {}
        }
        match event {
            Event::LayerMade { function, .. } => drop(self.layers.entry(function).or_insert(Wish::None)),
            Event::LayerGone { function } => drop(self.layers.remove(&function)),
            _ => {}
        }
        for effect in self.shard.effects.clone() {
            let is_late =
                matches!(effect, Effect::Refuse { .. } | Effect::FunctionGone { .. } | Effect::DropLayer { .. });
            assert!(!self.is_drained || is_late);
            match effect {
                Effect::Enqueued { invocation, .. } => self.invocations.push(invocation),
                Effect::Reserved { invocation, sandbox, lane, .. } => {
                    assert!(self.alive.contains_key(&sandbox) && !self.killed.contains(&sandbox));
                    assert!(!self.frozen.contains_key(&sandbox), "a lane of a frozen sandbox was lent");
                    self.invocations.push(invocation);
                    self.runs.push(Placed { sandbox, lane, invocation });
                    self.reserved.insert(invocation);
                }
                Effect::Unreserved { invocation, .. } => {
                    assert!(self.reserved.remove(&invocation), "given back what was not reserved");
                    self.withdrawn.insert(invocation);
                }
                Effect::Reclaim { invocation, sandbox, .. } => {
                    assert!(!self.killed.contains(&sandbox), "the condemned were asked for a lane");
                    assert!(self.reclaimed.insert(invocation), "asked for twice");
                }
                Effect::Start { sandbox, function } => {
                    assert_eq!(self.alive.insert(sandbox, function), None, "an id in use was started again");
                    self.sandboxes.push(sandbox);
                }
                Effect::Dispatch { invocation, sandbox, lane, .. } => {
                    assert!(self.alive.contains_key(&sandbox), "the dead were given work");
                    assert!(!self.killed.contains(&sandbox), "the condemned were given work");
                    assert!(!self.frozen.contains_key(&sandbox), "the frozen were given work");
                    self.reserved.remove(&invocation);
                    // What was asked for as reserved may be asked for as held.
                    self.reclaimed.remove(&invocation);
                    self.runs.push(Placed { sandbox, lane, invocation });
                }
                Effect::Trim { sandbox } => {
                    assert!(!self.killed.contains(&sandbox) && !self.frozen.contains_key(&sandbox), "trimmed in vain");
                }
                Effect::Freeze { sandbox } => {
                    assert!(!self.killed.contains(&sandbox), "the condemned were frozen");
                    assert_eq!(self.frozen.insert(sandbox, false), None, "frozen twice");
                }
                Effect::Thaw { sandbox } => {
                    assert!(!self.killed.contains(&sandbox), "the condemned were thawed");
                    assert_eq!(self.frozen.insert(sandbox, true), Some(false), "what is not frozen was thawed");
                }
                Effect::Demote { sandbox } => {
                    assert!(!self.killed.contains(&sandbox), "the condemned were demoted");
                    assert!(self.demoted.insert(sandbox), "demoted twice");
                }
                Effect::Promote { sandbox } => {
                    assert!(self.demoted.remove(&sandbox), "what was not demoted was promoted");
                }
                Effect::Kill { sandbox, .. } => {
                    assert!(self.killed.insert(sandbox), "killed twice")
                }
                Effect::KeepLayer { function } => {
                    let before = self.layers.insert(function, Wish::Kept);
                    assert_eq!(before, Some(Wish::None), "kept what was not there, or twice");
                }
                Effect::DropLayer { function } => {
                    let is_known = self.known.contains(&function);
                    let before = self.layers.insert(function, Wish::Dropped);
                    assert!(!is_known || matches!(before, Some(Wish::None | Wish::Kept)), "dropped in vain");
                    let is_used = self.alive.values().any(|&of| of == function);
                    assert!(!is_used || before == Some(Wish::None), "dropped what sandboxes are made of");
                }
                Effect::FunctionGone { function } => {
                    let is_left = self.alive.values().any(|&of| of == function);
                    assert!(!is_left, "a function is gone whose sandboxes are not");
                    assert!(!self.layers.contains_key(&function), "a function is gone whose layer is not");
                    self.known.remove(&function);
                }
                Effect::Drained => self.is_drained = true,
                Effect::Answer { invocation, .. } => {
                    self.reserved.remove(&invocation);
                }
                Effect::Refuse { .. } | Effect::NotReserved { .. } | Effect::CancelRun { .. } => {}
            }
        }
    }

    /// From here on the driver tells the truth: everything ends in bounded time, whatever came before.
    fn end(&mut self) {
        self.step(Event::Drain);
        for _ in 0..3 {
            for &sandbox in &self.killed.clone() {
                self.alive.remove(&sandbox);
                self.step(Event::SandboxDied { sandbox });
            }
            for &function in self.layers.clone().keys() {
                self.step(Event::LayerGone { function });
            }
            self.shard.now = self.shard.now.saturating_add(Nanos::from_millis(4000));
            self.step(Event::Tick);
        }
        assert!(self.is_drained, "not drained: {:?}", self.shard.stats());
        for &invocation in &self.invocations {
            let is_answered = self.shard.outcome(invocation).is_some();
            let is_withdrawn = self.withdrawn.contains(&invocation);
            assert!(is_answered != is_withdrawn, "{invocation:?} must be answered or withdrawn");
        }
    }
}

proptest! {
    #[test]
    fn nothing_that_is_reported_breaks_the_books(moves in moves(), policies in policies(), limits in limits()) {
        let mut hostile = Hostile {
            shard: Shard::new(limits, policies),
            generations: BTreeMap::new(),
            sandboxes: Vec::new(),
            invocations: Vec::new(),
            runs: Vec::new(),
            alive: BTreeMap::new(),
            killed: BTreeSet::new(),
            frozen: BTreeMap::new(),
            demoted: BTreeSet::new(),
            known: BTreeSet::new(),
            layers: BTreeMap::new(),
            reserved: BTreeSet::new(),
            withdrawn: BTreeSet::new(),
            reclaimed: BTreeSet::new(),
            is_drained: false,
        };
        for index in 0..4 {
            let add = Move::Add { index, memory: 96, concurrency: index as u16, min_warm: 0, idle_millis: [None; 2] };
            let event = hostile.event(&add).expect("adding picks nothing");
            hostile.step(event);
        }
        for a_move in &moves {
            if let Some(event) = hostile.event(a_move) {
                hostile.step(event);
            }
        }
        hostile.end();
    }
}
