//! A driver for tests: steps the engine by hand, keeps what it was asked for, and can play the sandboxes' part.
//!
//! Invariant: after each step the engine's books are checked, and work left over is continued until none is.

use std::collections::{BTreeMap, VecDeque};
use std::vec::Vec;

use crate::sandboxes::State;
use crate::{
    Bytes, Config, Effect, Effects, Engine, Event, FunctionId, FunctionSpec, InvocationId, KillReason, Limits, Nanos,
    Origin, Outcome, Policies, Refusal, RunResult, SandboxId, Stats,
};

/// Small enough that every limit is met soon.
pub(crate) fn limits() -> Limits {
    Limits {
        functions: 8,
        invocations: 400,
        queue_per_function: 300,
        sandboxes: 4,
        sandboxes_per_function: 4,
        starting: 4,
        memory: Bytes::from_mebibytes(256),
        start_timeout: Nanos::from_secs(10),
        drain_timeout: Nanos::from_secs(60),
    }
}

/// The timeout of every function that `Shard::add` adds.
pub(crate) const TIMEOUT: Nanos = Nanos::from_secs(3);

/// An invocation handed to a sandbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Placed {
    pub(crate) sandbox: SandboxId,
    pub(crate) lane: u16,
    pub(crate) invocation: InvocationId,
}

pub(crate) struct Shard {
    pub(crate) engine: Engine,
    pub(crate) now: Nanos,
    /// What the last call asked for, all of its steps together.
    pub(crate) effects: Vec<Effect>,
    buffer: Effects,
    added: u32,
    asked: u64,
    outcomes: BTreeMap<InvocationId, Outcome>,
}

impl Shard {
    pub(crate) fn new(limits: Limits, policies: Policies) -> Shard {
        Shard {
            engine: Engine::new(Config { limits, policies }).expect("limits of a test are valid"),
            now: Nanos::from_secs(1000),
            effects: Vec::new(),
            buffer: Effects::new(),
            added: 0,
            asked: 0,
            outcomes: BTreeMap::new(),
        }
    }

    pub(crate) fn small() -> Shard {
        Shard::new(limits(), Policies::default())
    }

    /// Steps once and then ticks until nothing is left over.
    pub(crate) fn step(&mut self, event: Event) -> &[Effect] {
        self.effects.clear();
        self.step_once(event);
        while self.engine.next_wake() == Some(self.now) {
            self.step_once(Event::Tick);
        }
        &self.effects
    }

    pub(crate) fn step_once(&mut self, event: Event) {
        self.engine.step(self.now, event, &mut self.buffer);
        self.engine.check_invariants();
        for effect in self.buffer.drain() {
            if let Effect::Answer { invocation, outcome, .. } = effect {
                assert_eq!(self.outcomes.insert(invocation, outcome), None, "answered twice");
            }
            self.effects.push(effect);
        }
    }

    pub(crate) fn pass(&mut self, time: Nanos) -> &[Effect] {
        self.now = self.now.saturating_add(time);
        self.step(Event::Tick)
    }

    pub(crate) fn stats(&self) -> &Stats {
        self.engine.stats()
    }

    pub(crate) fn add(&mut self, memory_mebibytes: u64, concurrency: u16) -> FunctionId {
        let memory = Bytes::from_mebibytes(memory_mebibytes);
        let function = self.add_spec(FunctionSpec {
            memory,
            timeout: TIMEOUT,
            concurrency,
            min_warm: 0,
            trim_after: None,
            freeze_after: None,
        });
        assert_eq!(self.effects, []);
        function
    }

    /// A function with a warm target; its starts are in `effects`.
    pub(crate) fn add_warm(&mut self, memory_mebibytes: u64, min_warm: u32) -> FunctionId {
        let memory = Bytes::from_mebibytes(memory_mebibytes);
        self.add_spec(FunctionSpec {
            memory,
            timeout: TIMEOUT,
            concurrency: 1,
            min_warm,
            trim_after: None,
            freeze_after: None,
        })
    }

    /// A function whose idle sandboxes are frozen.
    pub(crate) fn add_freezing(&mut self, memory_mebibytes: u64, freeze_after: Nanos) -> FunctionId {
        let memory = Bytes::from_mebibytes(memory_mebibytes);
        let freeze_after = Some(freeze_after);
        self.add_spec(FunctionSpec {
            memory,
            timeout: TIMEOUT,
            concurrency: 1,
            min_warm: 0,
            trim_after: None,
            freeze_after,
        })
    }

    pub(crate) fn add_spec(&mut self, spec: FunctionSpec) -> FunctionId {
        let function = FunctionId { index: self.added, generation: 7 };
        self.added += 1;
        self.step(Event::FunctionAdded { function, spec });
        function
    }

    /// A reservation that must be granted.
    pub(crate) fn reserve(&mut self, function: FunctionId) -> Placed {
        self.asked += 1;
        self.step(Event::Reserve { origin: Origin(self.asked), function });
        match self.effects[..] {
            [Effect::Reserved { invocation, origin, sandbox, lane }] if origin == Origin(self.asked) => {
                Placed { sandbox, lane, invocation }
            }
            ref other => panic!("a lane was not reserved: {other:?}"),
        }
    }

    /// One that must not be, and nothing more comes of it.
    pub(crate) fn not_reserved(&mut self, function: FunctionId) {
        self.asked += 1;
        self.step(Event::Reserve { origin: Origin(self.asked), function });
        assert_eq!(self.effects, [Effect::NotReserved { origin: Origin(self.asked) }]);
    }

    fn ask(&mut self, function: FunctionId) {
        self.asked += 1;
        self.step(Event::Arrive { origin: Origin(self.asked), function });
    }

    pub(crate) fn arrive(&mut self, function: FunctionId) -> InvocationId {
        self.ask(function);
        match self.effects[0] {
            Effect::Enqueued { invocation, origin } if origin == Origin(self.asked) => invocation,
            other => panic!("an arrival was not admitted: {other:?}"),
        }
    }

    pub(crate) fn refused(&mut self, function: FunctionId) -> Refusal {
        self.ask(function);
        match self.effects[..] {
            [Effect::Refuse { reason, origin }] if origin == Origin(self.asked) => reason,
            ref other => panic!("an arrival was not refused: {other:?}"),
        }
    }

    /// Sandboxes that the last call asked to start.
    pub(crate) fn starts(&self) -> Vec<SandboxId> {
        let start = |effect: &Effect| match effect {
            Effect::Start { sandbox, .. } => Some(*sandbox),
            _ => None,
        };
        self.effects.iter().filter_map(start).collect()
    }

    /// Sandboxes that the last call asked to freeze.
    pub(crate) fn freezes(&self) -> Vec<SandboxId> {
        let freeze = |effect: &Effect| match effect {
            Effect::Freeze { sandbox } => Some(*sandbox),
            _ => None,
        };
        self.effects.iter().filter_map(freeze).collect()
    }

    /// Sandboxes that the last call asked to thaw.
    pub(crate) fn thaws(&self) -> Vec<SandboxId> {
        let thaw = |effect: &Effect| match effect {
            Effect::Thaw { sandbox } => Some(*sandbox),
            _ => None,
        };
        self.effects.iter().filter_map(thaw).collect()
    }

    /// Invocations that the last call handed to sandboxes.
    pub(crate) fn placed(&self) -> Vec<Placed> {
        self.effects.iter().filter_map(placed).collect()
    }

    /// Lent lanes that the last call asked for.
    pub(crate) fn reclaims(&self) -> Vec<Placed> {
        let reclaim = |effect: &Effect| match *effect {
            Effect::Reclaim { invocation, sandbox, lane } => Some(Placed { sandbox, lane, invocation }),
            _ => None,
        };
        self.effects.iter().filter_map(reclaim).collect()
    }

    /// Reservations that the last call gave back to the driver.
    pub(crate) fn unreserved(&self) -> Vec<InvocationId> {
        let unreserved = |effect: &Effect| match effect {
            Effect::Unreserved { invocation, .. } => Some(*invocation),
            _ => None,
        };
        self.effects.iter().filter_map(unreserved).collect()
    }

    /// Sandboxes that the last call told to die.
    pub(crate) fn kills(&self) -> Vec<(SandboxId, KillReason)> {
        let kill = |effect: &Effect| match effect {
            Effect::Kill { sandbox, reason } => Some((*sandbox, *reason)),
            _ => None,
        };
        self.effects.iter().filter_map(kill).collect()
    }

    /// Invocations that the last call answered.
    pub(crate) fn answers(&self) -> Vec<(InvocationId, Outcome)> {
        let answer = |effect: &Effect| match effect {
            Effect::Answer { invocation, outcome, .. } => Some((*invocation, *outcome)),
            _ => None,
        };
        self.effects.iter().filter_map(answer).collect()
    }

    pub(crate) fn outcome(&self, invocation: InvocationId) -> Option<Outcome> {
        self.outcomes.get(&invocation).copied()
    }

    pub(crate) fn ready(&mut self, sandbox: SandboxId) -> Vec<Placed> {
        self.step(Event::SandboxReady { sandbox });
        self.placed()
    }

    pub(crate) fn complete(&mut self, placed: Placed) -> &[Effect] {
        let Placed { sandbox, lane, invocation } = placed;
        self.step(Event::Completed { sandbox, lane, invocation, result: RunResult::Returned, held: false })
    }

    /// Completes, and keeps the lane.
    pub(crate) fn complete_held(&mut self, placed: Placed) -> &[Effect] {
        let Placed { sandbox, lane, invocation } = placed;
        self.step(Event::Completed { sandbox, lane, invocation, result: RunResult::Returned, held: true })
    }

    pub(crate) fn release(&mut self, placed: Placed) -> &[Effect] {
        let Placed { sandbox, lane, invocation } = placed;
        self.step(Event::Release { sandbox, lane, invocation })
    }

    /// One invocation, cold, up to its dispatch.
    pub(crate) fn cold(&mut self, function: FunctionId) -> Placed {
        self.arrive(function);
        let [sandbox] = self.starts()[..] else { panic!("one start was expected: {:?}", self.effects) };
        self.ready(sandbox)[0]
    }

    /// A sandbox of the function, idle.
    pub(crate) fn idle(&mut self, function: FunctionId) -> SandboxId {
        let placed = self.cold(function);
        self.complete(placed);
        placed.sandbox
    }

    /// Does what was asked, as sandboxes without fault would, until nothing is asked any more.
    pub(crate) fn run_to_rest(&mut self) {
        let mut to_do: VecDeque<Event> = VecDeque::new();
        // What was asked for before this call.
        for index in 0..self.engine.sandboxes.end() {
            if self.engine.sandboxes.get(index).is_some_and(|sandbox| sandbox.state == State::Starting) {
                to_do.push_back(Event::SandboxReady { sandbox: self.engine.sandbox_id(index) });
            }
        }
        while let Some(event) = to_do.pop_front() {
            self.now = self.now.saturating_add(Nanos::from_micros(100));
            self.step(event);
            to_do.extend(self.effects.iter().filter_map(|effect| match *effect {
                Effect::Start { sandbox, .. } => Some(Event::SandboxReady { sandbox }),
                Effect::Dispatch { sandbox, lane, invocation, .. } => {
                    Some(Event::Completed { sandbox, lane, invocation, result: RunResult::Returned, held: false })
                }
                Effect::Kill { sandbox, .. } => Some(Event::SandboxDied { sandbox }),
                Effect::Thaw { sandbox } => Some(Event::Thawed { sandbox }),
                _ => None,
            }));
        }
    }
}

fn placed(effect: &Effect) -> Option<Placed> {
    match *effect {
        Effect::Dispatch { sandbox, lane, invocation, .. } => Some(Placed { sandbox, lane, invocation }),
        _ => None,
    }
}
