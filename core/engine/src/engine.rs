//! The state machine itself: one event in, what follows from it out.
//!
//! Invariant: after a step, either nothing is left to do before the next event or deadline, or `next_wake` is now.
//! An event's own function changes the books and emits what answers it; everything that follows (answers of a dead
//! sandbox, deadlines, dispatch, starting) is derived from the books in `settle`, a unit at a time, so that a step
//! can stop anywhere when its effects are full. Does not know how effects are performed.

use alloc::collections::VecDeque;

use crate::complete::Completion;
use crate::drain::DrainPhase;
use crate::effect::Effects;
use crate::event::{Event, Lane};
use crate::heap::Heap;
use crate::invocation::Invocation;
use crate::limits::{LimitError, Limits};
use crate::list::List;
use crate::policy::Policies;
use crate::policy::queue::Waiting;
use crate::route::Routes;
use crate::sandboxes::Sandbox;
use crate::slab::Slab;
use crate::stats::Stats;
use crate::units::Nanos;

/// The most effects that an event's own function, or one unit of following work, emits.
pub(crate) const UNIT_EFFECTS: usize = 3;

/// Units of following work a step does before it leaves the rest to the next: bounds its time also when the work
/// emits nothing.
const UNITS_PER_STEP: usize = 4 * Effects::CAPACITY;

const _: () = assert!(Effects::CAPACITY >= 2 * UNIT_EFFECTS, "an event and one unit of work must fit in a step");

/// What an engine is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// How much it may hold.
    pub limits: Limits,
    /// How it decides.
    pub policies: Policies,
}

/// The state machine of one shard.
#[derive(Debug)]
pub struct Engine {
    pub(crate) limits: Limits,
    pub(crate) policies: Policies,
    pub(crate) now: Nanos,
    /// Numbers admissions and idle times, so that every order is total.
    order: u64,
    /// The last step stopped before its work was done.
    has_backlog: bool,

    pub(crate) functions: Routes,
    pub(crate) invocations: Slab<Invocation>,
    pub(crate) sandboxes: Slab<Sandbox>,

    /// Functions with an invocation waiting and a lane free, by the queue policy.
    pub(crate) runnable: Heap,
    /// Functions that want another sandbox and may have one, by the queue policy. The first is served first: none
    /// behind it takes the room it waits for.
    pub(crate) starved: Heap,
    /// Functions short of lanes that have lent some, by the queue policy.
    pub(crate) wanting: Heap,
    /// Invocations whose lanes are lent and not asked for: the reserved first, each kind lent for longest first.
    pub(crate) lent_order: Heap,
    /// Lanes asked for and not given back, over all functions.
    pub(crate) asked: u32,
    /// Invocations waiting or running, by when their time passes; a run leaves it then, its lane perhaps later.
    pub(crate) invocation_deadlines: Heap,
    /// Starting, thawing and idle sandboxes, by when their time passes.
    pub(crate) sandbox_deadlines: Heap,
    /// Sandboxes that may be idle for long enough to be trimmed or frozen, by when that is looked at.
    pub(crate) idle_looks: Heap,
    /// Runs within the policy's quantum, the first to be past it first.
    pub(crate) fresh: List,
    /// Functions that are short of lanes and have frozen sandboxes, by the queue policy.
    pub(crate) frosted: Heap,
    /// Idle sandboxes, the frozen included, the first to be evicted first.
    pub(crate) idle_order: Heap,
    /// Idle sandboxes within their function's warm target, in the same order.
    pub(crate) kept_order: Heap,
    /// Layers that no sandbox was started from, by function, the first to be dropped first.
    pub(crate) layer_order: Heap,
    /// The same, by when their time passes.
    pub(crate) layer_deadlines: Heap,
    /// Layers that have no place yet, by when they are refused one: the first to come first.
    pub(crate) offered: Heap,
    /// The largest priority that was evicted: what time is to policies that weigh use against age.
    pub(crate) clock: u64,
    /// Functions below their warm targets, the first to be served first.
    pub(crate) short_of_warm: Heap,
    /// Functions below their warm targets that pause, by when that is over.
    pub(crate) warm_pauses: Heap,
    /// Dying sandboxes with invocations still to answer.
    pub(crate) ending: List,
    /// Functions with failed starts to answer, sandboxes to kill, or an end to tell.
    pub(crate) chores: VecDeque<u32>,
    pub(crate) drain: DrainPhase,
    pub(crate) stats: Stats,
}

impl Engine {
    /// An engine that holds nothing, with all its tables allocated.
    ///
    /// # Errors
    /// A limit or a policy's setting is out of range: the error names it.
    pub fn new(config: Config) -> Result<Engine, LimitError> {
        let Config { limits, policies } = config;
        limits.check()?;
        policies.concurrency.check()?;
        Ok(Engine {
            limits,
            policies,
            now: Nanos::ZERO,
            order: 0,
            has_backlog: false,
            functions: Routes::new(limits.functions),
            invocations: Slab::new(limits.invocations),
            sandboxes: Slab::new(limits.sandboxes),
            runnable: Heap::new(limits.functions),
            starved: Heap::new(limits.functions),
            wanting: Heap::new(limits.functions),
            lent_order: Heap::new(limits.invocations),
            asked: 0,
            invocation_deadlines: Heap::new(limits.invocations),
            sandbox_deadlines: Heap::new(limits.sandboxes),
            idle_looks: Heap::new(limits.sandboxes),
            fresh: List::EMPTY,
            frosted: Heap::new(limits.functions),
            idle_order: Heap::new(limits.sandboxes),
            kept_order: Heap::new(limits.sandboxes),
            layer_order: Heap::new(limits.functions),
            layer_deadlines: Heap::new(limits.functions),
            offered: Heap::new(limits.functions),
            clock: 0,
            short_of_warm: Heap::new(limits.functions),
            warm_pauses: Heap::new(limits.functions),
            ending: List::EMPTY,
            chores: VecDeque::with_capacity(limits.functions as usize),
            drain: DrainPhase::Off,
            stats: Stats::default(),
        })
    }

    /// Takes one event at one time and asks for what follows. Time that goes backwards is taken as standing still.
    ///
    /// # Panics
    /// When `effects` is not empty: the driver has not performed what the last step asked for.
    pub fn step(&mut self, now: Nanos, event: Event, effects: &mut Effects) {
        assert!(effects.is_empty(), "perform the effects of one step before the next");
        self.now = self.now.max(now);
        match event {
            Event::FunctionAdded { function, spec } => self.function_added(function, spec, effects),
            Event::FunctionRetired { function } => self.function_retired(function),
            Event::Arrive { origin, function } => self.arrive(origin, function, effects),
            Event::Reserve { origin, function } => self.reserve(origin, function, effects),
            Event::Commit { invocation } => self.commit(invocation, effects),
            Event::Yield { invocation } => self.yielded(invocation, effects),
            Event::Cancel { invocation } => self.cancel(invocation, effects),
            Event::SandboxStarted { sandbox, from_layer } => self.sandbox_started(sandbox, from_layer),
            Event::SandboxReady { sandbox } => self.sandbox_ready(sandbox, effects),
            Event::SandboxStartFailed { sandbox } | Event::SandboxDied { sandbox } => self.sandbox_gone(sandbox),
            Event::Completed { sandbox, lane, invocation, result, held } => {
                let place = Lane { sandbox, lane, invocation };
                self.completed(Completion { place, result, held }, effects);
            }
            Event::Release { sandbox, lane, invocation } => {
                self.released(Lane { sandbox, lane, invocation }, effects);
            }
            Event::Broken { sandbox } => self.sandbox_broken(sandbox, effects),
            Event::Replace { sandbox } => self.replace(sandbox, effects),
            Event::Thawed { sandbox } => self.thawed(sandbox),
            Event::NotFrozen { sandbox } => self.not_frozen(sandbox),
            Event::LayerMade { function, memory } => self.layer_made(function, memory, effects),
            Event::LayerUsed { function } => self.layer_used(function),
            Event::LayerGone { function } => self.layer_gone(function),
            Event::Tick => {}
            Event::Drain => self.start_draining(),
        }
        self.settle(effects);
    }

    /// When the driver must step again at the latest, with [`Event::Tick`] if nothing else happens. The time of the
    /// last step when work was left over; `None` when nothing has a deadline.
    pub fn next_wake(&self) -> Option<Nanos> {
        if self.has_backlog {
            return Some(self.now);
        }
        let first = |heap: &Heap| heap.first().map(|((at, _), _)| Nanos::from_nanos(at));
        [
            first(&self.invocation_deadlines),
            first(&self.sandbox_deadlines),
            first(&self.idle_looks),
            first(&self.layer_deadlines),
            first(&self.offered),
            first(&self.warm_pauses),
            self.turn_over(),
            self.drain.deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// What the shard holds and has done.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Does what follows, a unit at a time. The order matters: what is due is told and freed before anything new is
    /// begun with it.
    fn settle(&mut self, effects: &mut Effects) {
        self.has_backlog = true;
        for _ in 0..UNITS_PER_STEP {
            if effects.room() < UNIT_EFFECTS {
                return;
            }
            let has_worked = self.end_one_lane(effects)
                || self.do_one_chore(effects)
                || self.expire_one(effects)
                || self.sweep_one(effects)
                || self.stats.queued > 0 && self.serve_one_waiting(effects)
                || self.warm_one(effects)
                || self.place_one_layer(effects);
            if !has_worked {
                self.finish_draining(effects);
                self.has_backlog = false;
                return;
            }
        }
    }

    /// Does one thing for those that wait.
    fn serve_one_waiting(&mut self, effects: &mut Effects) -> bool {
        self.dispatch_one(effects) || self.recall_one(effects) || self.thaw_one(effects) || self.provision_one(effects)
    }

    pub(crate) fn next_order(&mut self) -> u64 {
        self.order += 1;
        self.order
    }

    /// Brings the orders that a function is in up to date with its books. Called after every change of them.
    pub(crate) fn refresh(&mut self, slot: u32) {
        if self.functions[slot].warm.target > 0 {
            self.note_warm(slot);
        }
        // Most functions have none, and most changes are of invocations.
        if self.functions[slot].layer.is_some() {
            self.note_layer(slot);
        }
        let function = &mut self.functions[slot];
        // Most changes are of functions of which nothing waits, and they are in none of the heaps.
        let is_ordered = !function.waiting.is_empty();
        if !is_ordered && !function.is_ordered {
            return self.note_chore(slot);
        }
        function.is_ordered = is_ordered;
        let key = function.waiting.front().map(|index| {
            let head = &self.invocations[index];
            let waiting = Waiting { arrived: head.arrived, profile: &function.profile };
            (self.policies.queue.key(&waiting), head.order)
        });
        let may_run = function.free_lanes > 0;
        let is_short = function.is_short_of_lanes();
        let may_thaw = is_short && !function.frozen.is_empty();
        let may_start = is_short && !may_thaw && function.sandboxes < self.limits.sandboxes_per_function;
        let may_recall = function.wants_lanes_back();
        self.runnable.put(slot, key.filter(|_| may_run));
        self.wanting.put(slot, key.filter(|_| may_recall));
        self.frosted.put(slot, key.filter(|_| may_thaw));
        self.starved.put(slot, key.filter(|_| may_start));
        self.note_chore(slot);
    }
}
