//! What an observer knows who sees every event and every effect, and nothing of the engine's tables.
//!
//! Invariant: each effect is checked against it. One terminal answer an invocation, and only one that is true; limits
//! never exceeded; no sandbox runs another function's invocation; no lane is used twice at once.

mod checks;
mod frost;
mod layers;
mod loans;
mod quantum;

use std::collections::BTreeMap;

use frost::Frost;
use layers::Layer;
use vilya_engine::{Bytes, Event, FunctionId, FunctionSpec, InvocationId, Limits, Nanos, Origin, RunResult, SandboxId};

struct Function {
    spec: FunctionSpec,
    is_retired: bool,
    waiting: u32,
    sandboxes: u32,
    /// Invocations that may be told of a failed start within this step.
    start_failures: u32,
}

impl Function {
    fn lanes(&self) -> u16 {
        self.spec.concurrency.max(1)
    }

    /// As many of those waiting as would have run in the sandbox are to be told.
    fn learn_failed_start(&mut self) {
        self.start_failures = (self.start_failures + u32::from(self.lanes())).min(self.waiting);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Waiting,
    /// Its payload is arriving in a lane.
    Reserved {
        /// The driver has said that it is whole, in this step.
        is_whole: bool,
        is_asked: bool,
    },
    Running {
        dispatched: Nanos,
    },
    /// Answered, or about to be; its lane is the driver's until released.
    Held {
        is_asked: bool,
    },
    /// Its sandbox died, or was told to, before it was dispatched or after.
    Lost {
        dispatched: Option<Nanos>,
    },
}

struct Invocation {
    origin: Origin,
    function: FunctionId,
    arrived: Nanos,
    place: Place,
    is_answered: bool,
    has_left: bool,
    reported: Option<RunResult>,
}

struct Sandbox {
    function: FunctionId,
    memory: Bytes,
    is_ready: bool,
    has_served: bool,
    is_condemned: bool,
    /// A run in it was overdue: it takes no more.
    is_closing: bool,
    has_lied: bool,
    frost: Frost,
    is_demoted: bool,
    lanes: Vec<Option<InvocationId>>,
}

/// How often what was seen, so that a suite can tell that it saw everything.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) counts: BTreeMap<String, u64>,
}

impl Tally {
    pub(super) fn count(&mut self, what: String) {
        *self.counts.entry(what).or_insert(0) += 1;
    }
}

/// The observer's own record.
pub(super) struct Books {
    limits: Limits,
    running_limit: u32,
    quantum: Option<Nanos>,
    functions: BTreeMap<FunctionId, Function>,
    invocations: BTreeMap<InvocationId, Invocation>,
    sandboxes: BTreeMap<SandboxId, Sandbox>,
    layers: BTreeMap<FunctionId, Layer>,
    now: Nanos,
    /// When the shard was told to drain.
    draining: Option<Nanos>,
    is_drained: bool,
    pub(super) tally: Tally,
}

impl Books {
    pub(super) fn new(limits: Limits, running_limit: u32, quantum: Option<Nanos>) -> Books {
        Books {
            limits,
            running_limit,
            quantum,
            functions: BTreeMap::new(),
            invocations: BTreeMap::new(),
            sandboxes: BTreeMap::new(),
            layers: BTreeMap::new(),
            now: Nanos::ZERO,
            draining: None,
            is_drained: false,
            tally: Tally::default(),
        }
    }

    pub(super) fn is_alive(&self, sandbox: SandboxId) -> bool {
        self.sandboxes.contains_key(&sandbox)
    }

    /// Whether this sandbox's process still works on this invocation in this lane.
    pub(super) fn works_on(&self, sandbox: SandboxId, lane: u16, invocation: InvocationId) -> bool {
        let is_lent = self.invocations.get(&invocation).is_some_and(|it| it.place.is_lent());
        self.is_in_lane(sandbox, lane, invocation) && !is_lent
    }

    /// Whether a lane is used for this invocation, whatever for.
    fn is_in_lane(&self, sandbox: SandboxId, lane: u16, invocation: InvocationId) -> bool {
        self.sandboxes.get(&sandbox).is_some_and(|it| it.lanes.get(usize::from(lane)) == Some(&Some(invocation)))
    }

    pub(super) fn is_drained(&self) -> bool {
        self.is_drained
    }

    pub(super) fn has_unfinished(&self) -> bool {
        !self.invocations.is_empty()
    }

    /// What an event tells, before the engine is told.
    pub(super) fn learn(&mut self, now: Nanos, event: &Event) {
        self.now = now;
        match *event {
            Event::FunctionAdded { function, spec } => {
                let added = Function { spec, is_retired: false, waiting: 0, sandboxes: 0, start_failures: 0 };
                assert!(self.functions.insert(function, added).is_none());
            }
            Event::FunctionRetired { function } => {
                if let Some(function) = self.functions.get_mut(&function) {
                    function.is_retired = true;
                }
            }
            Event::Cancel { invocation } => {
                if let Some(invocation) = self.invocations.get_mut(&invocation) {
                    invocation.has_left = true;
                }
            }
            Event::SandboxReady { sandbox } => {
                if let Some(sandbox) = self.sandboxes.get_mut(&sandbox) {
                    sandbox.has_lied |= sandbox.is_ready;
                    sandbox.is_ready = true;
                    sandbox.rests(now);
                }
            }
            Event::Broken { sandbox } => {
                if let Some(sandbox) = self.sandboxes.get_mut(&sandbox) {
                    sandbox.has_lied = true;
                }
            }
            Event::SandboxStartFailed { sandbox } | Event::SandboxDied { sandbox } => self.learn_death(sandbox),
            Event::Thawed { sandbox } => self.learn_thawed(now, sandbox),
            Event::NotFrozen { sandbox } => self.learn_not_frozen(sandbox),
            Event::Commit { invocation } => self.learn_commit(invocation),
            Event::Yield { invocation } => self.learn_yield(invocation),
            Event::Release { sandbox, lane, invocation } => self.learn_release(sandbox, lane, invocation),
            Event::Completed { sandbox, lane, invocation, result, held } => {
                self.learn_completion(sandbox, lane, invocation, result, held);
            }
            Event::LayerMade { function, memory } => self.learn_layer(function, memory),
            Event::LayerGone { function } => self.learn_layer_gone(function),
            Event::Drain => self.draining = self.draining.or(Some(now)),
            Event::Arrive { .. }
            | Event::Reserve { .. }
            | Event::Replace { .. }
            | Event::SandboxStarted { .. }
            | Event::LayerUsed { .. }
            | Event::Tick => {}
        }
    }

    /// What sandboxes and layers take together.
    fn memory_in_use(&self) -> u64 {
        self.sandboxes.values().map(|sandbox| sandbox.memory.as_bytes()).sum::<u64>() + self.layer_memory()
    }

    fn learn_death(&mut self, id: SandboxId) {
        let Some(sandbox) = self.sandboxes.remove(&id) else {
            return;
        };
        let function = self.functions.get_mut(&sandbox.function).expect("a function outlives its sandboxes");
        function.sandboxes -= 1;
        if !sandbox.is_ready && !sandbox.is_condemned {
            function.learn_failed_start();
        }
        for lost in sandbox.lanes.into_iter().flatten() {
            self.lose(lost);
        }
    }

    /// An invocation whose lane will never complete.
    fn lose(&mut self, id: InvocationId) {
        // Not there: it was lost before, when its sandbox was told to die, and answered.
        let Some(invocation) = self.invocations.get_mut(&id) else {
            return;
        };
        let dispatched = match invocation.place {
            Place::Running { dispatched } => Some(dispatched),
            Place::Reserved { .. } | Place::Held { .. } => None,
            Place::Waiting | Place::Lost { .. } => return,
        };
        invocation.place = Place::Lost { dispatched };
        if invocation.is_answered {
            self.invocations.remove(&id);
        }
    }

    fn learn_completion(
        &mut self,
        id: SandboxId,
        lane: u16,
        invocation: InvocationId,
        result: RunResult,
        is_held: bool,
    ) {
        let is_true = self.works_on(id, lane, invocation);
        let Some(sandbox) = self.sandboxes.get_mut(&id) else {
            return;
        };
        if sandbox.is_condemned {
            return;
        }
        if !is_true {
            sandbox.has_lied = true;
            return;
        }
        let running = self.invocations.get_mut(&invocation).expect("what runs is known");
        if is_held {
            running.place = Place::Held { is_asked: false };
            running.reported = (!running.is_answered).then_some(result);
            return;
        }
        sandbox.lanes[usize::from(lane)] = None;
        sandbox.rests(self.now);
        running.reported = Some(result);
        if running.is_answered {
            self.invocations.remove(&invocation);
        }
    }
}
