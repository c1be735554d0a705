//! What layers are worth: the same arrivals at the same memory, with and without.
//!
//! Invariant: a world without faults or chance but for the order of arrivals, which follows from a seed. Starts take what was
//! measured of a Python function with its imports: whole, or as a copy.

use std::collections::{BTreeMap, BTreeSet};

use vilya_engine::{
    Bytes, Config, Effect, Effects, Engine, Event, FunctionId, FunctionSpec, KeepAlivePolicy, Limits, Nanos, Origin,
    Policies, RunResult,
};

use super::random::Random;

const FUNCTIONS: u32 = 60;
const ARRIVALS: u64 = 20_000;
const GAP: Nanos = Nanos::from_millis(20);
const RUN: Nanos = Nanos::from_millis(5);
const SANDBOX: Bytes = Bytes::from_mebibytes(128);
const LAYER: Bytes = Bytes::from_mebibytes(10);
const WHOLE_START: Nanos = Nanos::from_millis(60);
const LAYER_START: Nanos = Nanos::from_millis(2);
const DEATH: Nanos = Nanos::from_millis(1);
/// As in the worker: the second start has a layer made, which takes a while.
const LAYER_AFTER: u32 = 2;
const LAYER_MADE: Nanos = Nanos::from_millis(200);

const LIMITS: Limits = Limits {
    functions: FUNCTIONS,
    invocations: 1000,
    queue_per_function: 1000,
    sandboxes: 1000,
    sandboxes_per_function: 4,
    starting: 8,
    memory: Bytes::from_mebibytes(2048),
    start_timeout: Nanos::from_secs(10),
    drain_timeout: Nanos::from_secs(10),
};

#[derive(Clone, Copy, Debug, Default)]
struct Starts {
    whole: u64,
    from_layer: u64,
    time: Nanos,
}

struct Trial {
    engine: Engine,
    now: Nanos,
    ahead: BTreeMap<(Nanos, u64), Event>,
    scheduled: u64,
    makes_layers: bool,
    /// Whole starts of a function since it last had a layer.
    begun: BTreeMap<FunctionId, u32>,
    layers: BTreeSet<FunctionId>,
    starts: Starts,
}

impl Trial {
    fn new(keepalive: KeepAlivePolicy, makes_layers: bool) -> Trial {
        let policies = Policies { keepalive, ..Policies::default() };
        Trial {
            engine: Engine::new(Config { limits: LIMITS, policies }).expect("these limits are valid"),
            now: Nanos::ZERO,
            ahead: BTreeMap::new(),
            scheduled: 0,
            makes_layers,
            begun: BTreeMap::new(),
            layers: BTreeSet::new(),
            starts: Starts::default(),
        }
    }

    fn after(&mut self, delay: Nanos, event: Event) {
        self.scheduled += 1;
        self.ahead.insert((self.now.saturating_add(delay), self.scheduled), event);
    }

    /// The same arrivals in every trial.
    fn plan(&mut self) {
        let mut random = Random::new(7);
        let function = |index| FunctionId { index, generation: 1 };
        let spec = FunctionSpec {
            memory: SANDBOX,
            timeout: Nanos::from_secs(10),
            concurrency: 1,
            min_warm: 0,
            trim_after: None,
            freeze_after: None,
        };
        for index in 0..FUNCTIONS {
            self.after(Nanos::ZERO, Event::FunctionAdded { function: function(index), spec });
        }
        for number in 0..ARRIVALS {
            // The product of two draws: some are asked for much more often than others.
            let drawn = random.between(0, 1000) * random.between(0, 1000);
            let index = u32::try_from(drawn * u64::from(FUNCTIONS) / 1_000_000).expect("below their number");
            let at = Nanos::from_nanos((number + 1) * GAP.as_nanos());
            self.after(at, Event::Arrive { origin: Origin(number), function: function(index) });
        }
    }

    /// What happens next; nothing when everybody is served.
    fn next(&mut self) -> Option<Event> {
        let planned = self.ahead.first_key_value().map(|((at, _), _)| *at);
        let wake = self.engine.next_wake().filter(|wake| planned.is_some_and(|at| *wake < at));
        if let Some(wake) = wake {
            self.now = self.now.max(wake);
            return Some(Event::Tick);
        }
        let ((at, _), event) = self.ahead.pop_first()?;
        self.now = self.now.max(at);
        Some(event)
    }

    fn run(mut self) -> Starts {
        self.plan();
        let mut effects = Effects::new();
        while let Some(event) = self.next() {
            match event {
                Event::LayerMade { function, .. } => drop(self.layers.insert(function)),
                Event::LayerGone { function } => {
                    self.layers.remove(&function);
                    self.begun.remove(&function);
                }
                _ => {}
            }
            self.engine.step(self.now, event, &mut effects);
            for effect in effects.drain() {
                self.perform(effect);
            }
        }
        self.engine.check_invariants();
        assert_eq!(self.engine.stats().admitted, ARRIVALS);
        self.starts
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Start { sandbox, function } => {
                let from_layer = self.layers.contains(&function);
                let takes = if from_layer { LAYER_START } else { WHOLE_START };
                *(if from_layer { &mut self.starts.from_layer } else { &mut self.starts.whole }) += 1;
                self.starts.time = self.starts.time.saturating_add(takes);
                self.after(Nanos::ZERO, Event::SandboxStarted { sandbox, from_layer });
                self.after(takes, Event::SandboxReady { sandbox });
                let begun = self.begun.entry(function).or_insert(0);
                *begun += u32::from(!from_layer);
                if self.makes_layers && !from_layer && *begun == LAYER_AFTER {
                    self.after(LAYER_MADE, Event::LayerMade { function, memory: LAYER });
                }
            }
            Effect::Dispatch { sandbox, lane, invocation, .. } => {
                let result = RunResult::Returned;
                self.after(RUN, Event::Completed { sandbox, lane, invocation, result, held: false });
            }
            Effect::Kill { sandbox, .. } => self.after(DEATH, Event::SandboxDied { sandbox }),
            Effect::DropLayer { function } => self.after(Nanos::ZERO, Event::LayerGone { function }),
            _ => {}
        }
    }
}

#[test]
fn keeping_layers_gives_fewer_whole_starts_at_the_same_memory() {
    let idle = Nanos::from_secs(30);
    for keepalive in [KeepAlivePolicy::Lru, KeepAlivePolicy::Ttl { idle }, KeepAlivePolicy::GreedyDual] {
        let (with, without) = (Trial::new(keepalive, true).run(), Trial::new(keepalive, false).run());
        println!("{keepalive:?}: with layers {with:?}, without {without:?}");
        assert_eq!(without.from_layer, 0);
        assert!(with.whole * 4 < without.whole, "{keepalive:?}: {with:?} against {without:?}");
        assert!(with.time.as_nanos() * 2 < without.time.as_nanos(), "{keepalive:?}: {with:?} against {without:?}");
    }
}
