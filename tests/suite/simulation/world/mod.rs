//! The driver: plays the worker, the sandboxes and the clients, over a heap of what will happen.
//!
//! Invariant: everything follows from the seed; virtual time is the only time. What a sandbox does wrong is drawn when
//! it is started or given work, and stops when faults do.

mod faults;
mod layers;
mod transfers;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::hash::{Hash, Hasher};

use vilya_engine::{
    ConcurrencyPolicy, Config, Effect, Effects, Engine, Event, FunctionId, InvocationId, Nanos, Origin, RunResult,
    SandboxId,
};

use super::books::{Books, Tally};
use super::random::Random;
use super::scenario::{Ending, Faults, LONGEST_TIMEOUT, LONGEST_TRANSFER, SLOWEST_DEATH, Scenario};

/// Something that will happen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Happening {
    Arrivals,
    Leave(InvocationId),
    /// The starter reports a process, or the runtime itself.
    Spawned {
        sandbox: SandboxId,
        from_layer: bool,
    },
    Ready(SandboxId),
    StartFails(SandboxId),
    /// The process ends, by itself or killed.
    Dies(SandboxId),
    /// An honest completion, if the sandbox still works on it.
    Finishes {
        sandbox: SandboxId,
        lane: u16,
        invocation: InvocationId,
        is_raised: bool,
    },
    /// A completion that is claimed whatever is true.
    Claims {
        sandbox: SandboxId,
        lane: u16,
        invocation: InvocationId,
    },
    BreaksRing(SandboxId),
    /// The driver could not freeze it.
    StaysAwake(SandboxId),
    Thaws(SandboxId),
    IsWorn(SandboxId),
    LayerMade(FunctionId),
    /// By a start on another shard.
    LayerUsed(FunctionId),
    LayerGone(FunctionId),
    /// A payload that no lane was lent for is whole.
    Arrives(Origin),
    /// A payload in a reserved lane is.
    Uploaded(InvocationId),
    Yields(InvocationId),
    /// An answer in a held lane has gone out.
    Sent {
        sandbox: SandboxId,
        lane: u16,
        invocation: InvocationId,
    },
    /// The driver answers the engine's wish for a lane.
    GivesBack {
        sandbox: SandboxId,
        lane: u16,
        invocation: InvocationId,
    },
    Churn,
    LoadStops,
    End,
    MustBeQuiet,
    MustBeDrained,
}

/// What a run amounts to.
pub(super) struct Summary {
    /// Of every event and every effect, in order.
    pub(super) trace: u64,
    pub(super) tally: Tally,
    pub(super) steps: u64,
}

/// FNV-1a, so that a trace has the same hash in every build.
struct Trace(u64);

impl Hasher for Trace {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

struct World {
    scenario: Scenario,
    random: Random,
    engine: Engine,
    effects: Effects,
    books: Books,
    trace: Trace,
    now: Nanos,
    ahead: BinaryHeap<Reverse<(Nanos, u64, Happening)>>,
    scheduled: u64,
    steps: u64,
    steps_at_this_time: u32,
    /// By index: the function there, or the generation that the next one gets.
    functions: Vec<Result<FunctionId, u32>>,
    /// Sandboxes of a function that were started since it last had no layer.
    starts: BTreeMap<FunctionId, u32>,
    /// Functions that sandboxes can be started from a layer of.
    layers: BTreeSet<FunctionId>,
    asked: u64,
    /// Payloads that are not whole, in a lane or not.
    uploads: BTreeMap<Origin, FunctionId>,
    has_load: bool,
    faults: Faults,
}

/// Runs one seed to its end; panics where anything is wrong.
pub(super) fn run(seed: u64) -> Summary {
    let mut random = Random::new(seed);
    let scenario = Scenario::draw(&mut random);
    let ConcurrencyPolicy::Fixed { running } = scenario.policies.concurrency;
    let config = Config { limits: scenario.limits, policies: scenario.policies };
    let mut world = World {
        engine: Engine::new(config).expect("drawn limits are valid"),
        effects: Effects::new(),
        books: Books::new(scenario.limits, running, scenario.policies.quantum),
        trace: Trace(0xcbf2_9ce4_8422_2325),
        now: Nanos::ZERO,
        ahead: BinaryHeap::new(),
        scheduled: 0,
        steps: 0,
        steps_at_this_time: 0,
        functions: vec![Err(0); scenario.limits.functions as usize],
        starts: BTreeMap::new(),
        layers: BTreeSet::new(),
        asked: 0,
        uploads: BTreeMap::new(),
        has_load: true,
        faults: scenario.faults,
        random,
        scenario,
    };
    world.run();
    Summary { trace: world.trace.finish(), tally: world.books.tally, steps: world.steps }
}

impl World {
    fn run(&mut self) {
        for index in 0..self.functions.len() {
            if self.random.chance(700) {
                self.add(index);
            }
        }
        self.after(Nanos::ZERO, Happening::Arrivals);
        self.after(self.scenario.churn, Happening::Churn);
        self.after(self.scenario.ends_at, Happening::End);
        loop {
            let next = self.ahead.peek().map(|Reverse((at, ..))| *at);
            let wake = self.engine.next_wake();
            // Work left over and other events at the same time come in either order.
            let is_wake_first = match (wake, next) {
                (Some(wake), Some(next)) => wake < next || wake == next && self.random.chance(500),
                (wake, _) => wake.is_some(),
            };
            if is_wake_first {
                self.pass_to(wake.expect("compared above"));
                self.step(Event::Tick);
            } else {
                let Some(Reverse((at, _, happening))) = self.ahead.pop() else {
                    break;
                };
                self.pass_to(at);
                self.happen(happening);
            }
        }
        assert!(self.books.is_drained(), "the world has ended and the shard is not drained");
    }

    fn pass_to(&mut self, at: Nanos) {
        if at > self.now {
            self.now = at;
            self.steps_at_this_time = 0;
        }
    }

    fn after(&mut self, delay: Nanos, happening: Happening) {
        self.scheduled += 1;
        self.ahead.push(Reverse((self.now.saturating_add(delay), self.scheduled, happening)));
    }

    fn micros(&mut self, from: u64, to: u64) -> Nanos {
        Nanos::from_nanos(self.random.between(from * 1000, to * 1000))
    }

    /// One step of the engine, checked.
    fn step(&mut self, event: Event) {
        self.steps += 1;
        self.steps_at_this_time += 1;
        assert!(self.steps_at_this_time < 100_000, "time stands still: the engine always has work left over");
        let was_at_rest = self.engine.next_wake() != Some(self.now);
        event.hash(&mut self.trace);
        self.now.hash(&mut self.trace);
        self.books.learn(self.now, &event);
        self.engine.step(self.now, event, &mut self.effects);
        let effects: Vec<Effect> = self.effects.drain().collect();
        assert!(effects.len() <= Effects::CAPACITY);
        for effect in &effects {
            effect.hash(&mut self.trace);
            self.books.check(self.now, effect, &event, was_at_rest);
        }
        if self.engine.next_wake() == Some(self.now) {
            self.books.tally.count("LeftOver".to_owned());
        } else {
            self.books.check_at_rest(self.now, was_at_rest);
        }
        if self.steps.is_multiple_of(32) {
            self.engine.check_invariants();
        }
        for effect in effects {
            self.perform(effect);
        }
    }

    /// A report that may come twice.
    fn report(&mut self, event: Event) {
        self.step(event);
        if self.random.chance(self.faults.report_repeats) {
            self.step(event);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Enqueued { invocation, .. } => {
                if self.random.chance(self.faults.client_leaves) {
                    let patience = self.micros(0, 50_000);
                    self.after(patience, Happening::Leave(invocation));
                }
            }
            Effect::Start { sandbox, function } => self.begin_start(sandbox, function),
            Effect::DropLayer { function } => {
                let takes = self.micros(1, 2000);
                self.after(takes, Happening::LayerGone(function));
            }
            Effect::Freeze { sandbox } => self.begin_freeze(sandbox),
            Effect::Thaw { sandbox } => self.begin_thaw(sandbox),
            Effect::Dispatch { invocation, sandbox, lane, deadline, .. } => {
                self.begin_run(sandbox, lane, invocation, deadline.saturating_sub(self.now));
            }
            Effect::CancelRun { sandbox, lane, invocation } => {
                if self.random.chance(500) {
                    let takes = self.micros(1, 1000);
                    self.after(takes, Happening::Finishes { sandbox, lane, invocation, is_raised: true });
                }
            }
            Effect::Kill { sandbox, .. } => {
                let is_slow = self.random.chance(self.faults.dies_slowly);
                let takes = if is_slow { SLOWEST_DEATH } else { self.micros(20, 3000) };
                self.after(takes, Happening::Dies(sandbox));
            }
            Effect::FunctionGone { function } => {
                self.functions[function.index as usize] = Err(function.generation + 1);
            }
            Effect::Reserved { invocation, .. } => self.begin_upload(invocation),
            Effect::NotReserved { origin } | Effect::Unreserved { origin, .. } => self.buffer(origin),
            Effect::Reclaim { invocation, sandbox, lane } => self.is_asked_for(sandbox, lane, invocation),
            Effect::Refuse { .. }
            | Effect::Answer { .. }
            | Effect::Trim { .. }
            | Effect::KeepLayer { .. }
            | Effect::Drained => {}
            // What it changes is when things happen, which is drawn.
            Effect::Demote { .. } | Effect::Promote { .. } => {}
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Arrivals => self.arrivals(),
            Happening::Leave(invocation) => self.report(Event::Cancel { invocation }),
            Happening::Spawned { sandbox, from_layer } => {
                self.report_on(sandbox, Event::SandboxStarted { sandbox, from_layer });
            }
            Happening::LayerMade(function) => self.layer_made(function),
            Happening::LayerUsed(function) => self.report(Event::LayerUsed { function }),
            Happening::LayerGone(function) => self.layer_gone(function),
            Happening::Ready(sandbox) => self.report_on(sandbox, Event::SandboxReady { sandbox }),
            Happening::StartFails(sandbox) => self.report_on(sandbox, Event::SandboxStartFailed { sandbox }),
            Happening::Dies(sandbox) => self.report_on(sandbox, Event::SandboxDied { sandbox }),
            Happening::StaysAwake(sandbox) => self.report_on(sandbox, Event::NotFrozen { sandbox }),
            Happening::Thaws(sandbox) => self.report_on(sandbox, Event::Thawed { sandbox }),
            Happening::BreaksRing(sandbox) => self.report_on(sandbox, Event::Broken { sandbox }),
            Happening::Finishes { sandbox, lane, invocation, is_raised } => {
                if self.books.works_on(sandbox, lane, invocation) {
                    let result = if is_raised { RunResult::Raised } else { RunResult::Returned };
                    let held = self.holds(sandbox, lane, invocation);
                    self.step(Event::Completed { sandbox, lane, invocation, result, held });
                }
            }
            Happening::Claims { sandbox, lane, invocation } => {
                let held = self.holds(sandbox, lane, invocation);
                let result = RunResult::Returned;
                self.report_on(sandbox, Event::Completed { sandbox, lane, invocation, result, held });
            }
            Happening::Arrives(origin) => self.arrives(origin),
            Happening::Uploaded(invocation) => self.uploaded(invocation),
            Happening::Yields(invocation) => self.yields(invocation),
            Happening::Sent { sandbox, lane, invocation } => {
                self.report(Event::Release { sandbox, lane, invocation });
                if self.random.chance(100) {
                    let later = self.micros(0, 50_000);
                    self.after(later, Happening::IsWorn(sandbox));
                }
            }
            Happening::IsWorn(sandbox) => self.report_on(sandbox, Event::Replace { sandbox }),
            Happening::GivesBack { sandbox, lane, invocation } => self.gives_back(sandbox, lane, invocation),
            Happening::Churn => self.churn(),
            Happening::LoadStops => self.has_load = false,
            Happening::End => self.end(),
            Happening::MustBeQuiet => {
                assert!(!self.books.has_unfinished(), "load and faults have stopped and something is still unfinished");
                self.drain();
            }
            Happening::MustBeDrained => assert!(self.books.is_drained(), "the drain takes longer than it may"),
        }
    }

    /// A report on a sandbox; on one already dead it may still come, having been on its way.
    fn report_on(&mut self, sandbox: SandboxId, event: Event) {
        if self.books.is_alive(sandbox) || self.random.chance(300) {
            self.report(event);
        }
    }

    fn arrivals(&mut self) {
        if !self.has_load {
            return;
        }
        let is_burst = self.random.chance(self.scenario.bursts);
        let count = if is_burst { self.random.count(1, self.scenario.largest_burst) } else { 1 };
        let function = self.wanted();
        for _ in 0..count {
            self.ask(function);
        }
        let gap = Nanos::from_nanos(self.random.between(0, 2 * self.scenario.gap.as_nanos()));
        self.after(gap, Happening::Arrivals);
    }

    /// A function to invoke: mostly one that is there, now and then one that is not.
    fn wanted(&mut self) -> FunctionId {
        let there: Vec<FunctionId> = self.functions.iter().filter_map(|slot| slot.ok()).collect();
        if !there.is_empty() && !self.random.chance(20) {
            return self.random.pick(&there);
        }
        let index = self.random.count(0, self.scenario.limits.functions + 1);
        FunctionId { index, generation: self.random.count(0, 4) }
    }

    fn add(&mut self, index: usize) {
        let Err(generation) = self.functions[index] else {
            return;
        };
        let function = FunctionId { index: index as u32, generation };
        let spec = self.scenario.function(&mut self.random);
        self.functions[index] = Ok(function);
        self.step(Event::FunctionAdded { function, spec });
    }

    fn churn(&mut self) {
        if !self.has_load {
            return;
        }
        let index = self.random.between(0, self.functions.len() as u64) as usize;
        match self.functions[index] {
            Ok(function) => self.step(Event::FunctionRetired { function }),
            Err(_) => self.add(index),
        }
        self.after(self.scenario.churn, Happening::Churn);
    }

    fn end(&mut self) {
        if self.scenario.ending == Ending::UnderLoad {
            return self.drain();
        }
        self.has_load = false;
        self.faults = Faults::default();
        let waits = LONGEST_TIMEOUT.max(self.scenario.limits.start_timeout);
        // A run may begin as its patience ends; a closing sandbox waits for one run more; then it must still die.
        let runs = LONGEST_TIMEOUT.saturating_add(LONGEST_TIMEOUT);
        // Taken out of a lane, a payload is still on its way, and then waits; its answer is sent at last.
        let transfers = Nanos::from_nanos(3 * LONGEST_TRANSFER.as_nanos());
        let bound = waits.saturating_add(runs).saturating_add(transfers).saturating_add(SLOWEST_DEATH);
        self.after(bound, Happening::MustBeQuiet);
    }

    fn drain(&mut self) {
        self.step(Event::Drain);
        let bound = self.scenario.limits.drain_timeout.saturating_add(SLOWEST_DEATH);
        self.after(bound.saturating_add(SLOWEST_DEATH), Happening::MustBeDrained);
        // Load goes on a while to be refused.
        self.after(Nanos::from_millis(50), Happening::LoadStops);
    }
}
