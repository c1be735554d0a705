//! The state machine of one device: one event in, what follows from it out.
//!
//! Owns admission, the places to run, and which function's memory is on the device. An event's own function changes the
//! books and emits what answers it; everything that follows (memory that leaves, dispatch, claims on room, prefetching)
//! is derived from the books in `settle`, a unit at a time, so that a step can stop anywhere when its effects are full.
//!
//! Invariant: every admitted invocation is answered exactly once; a run starts only on memory that is on the device;
//! memory moves in only after its room is reserved; after a step without backlog no place is free while anything waits.
//! A step is logarithmic in the functions. Does not know clocks, devices, payloads, or how anything is performed.

mod admission;
mod memory;
mod runs;

use std::collections::VecDeque;

use vilya_engine::{FunctionId, LimitError, Nanos};

use crate::effect::Effects;
use crate::event::{Event, FlowSpec};
use crate::flow::{Flow, Standing};
use crate::ledger::{Ledger, Residency};
use crate::limits::{Limits, UNIT_EFFECTS};
use crate::order::Order;
use crate::policy::{Policy, Queueing};
use memory::EvictionRank;
use runs::Place;

/// Units of following work a step does before it leaves the rest to the next: bounds its time also when the work
/// emits nothing.
const UNITS_PER_STEP: usize = 4 * Effects::CAPACITY;

/// What a scheduler is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// How much it may hold.
    pub limits: Limits,
    /// Whose turn it is.
    pub policy: Policy,
}

/// The scheduler of one device.
#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    now: Nanos,
    /// Numbers arrivals and uses of memory, so that every order is total.
    order: u64,
    /// Numbers swaps.
    swaps: u32,
    /// The last step stopped before its work was done.
    has_backlog: bool,

    flows: Vec<Option<Flow>>,
    queueing: Queueing,
    queued: u32,
    places: Vec<Place>,
    free_places: Vec<u32>,

    ledger: Ledger,
    /// Flows that hold a place and have no memory on the device, in the order in which they get room.
    claims: VecDeque<u32>,
    /// The flow whose memory is moved in before its turn.
    prefetching: Option<u32>,
    /// Memory still there of flows that are to leave for a claim.
    evicted_bytes: u64,
    /// Flows whose memory may leave, the first to go first.
    evictable: Order<EvictionRank>,
    /// Flows whose memory is to leave now, or that are to be forgotten.
    chores: Order<()>,
    /// Flows that may be served and are not on the device, by start tag.
    prefetchable: Order<u64>,
}

impl Scheduler {
    /// A scheduler that holds nothing.
    ///
    /// # Errors
    /// A limit or a setting of the policy is out of range: the error names it.
    pub fn new(config: Config) -> Result<Scheduler, LimitError> {
        let Config { limits, policy } = config;
        limits.check()?;
        policy.check()?;
        Ok(Scheduler {
            limits,
            now: Nanos::ZERO,
            order: 0,
            swaps: 0,
            has_backlog: false,
            flows: (0..limits.functions).map(|_| None).collect(),
            queueing: Queueing::new(policy, limits.functions),
            queued: 0,
            places: (0..limits.running).map(|_| Place::default()).collect(),
            free_places: (0..limits.running).rev().collect(),
            ledger: Ledger::new(limits.memory),
            claims: VecDeque::with_capacity(limits.running as usize),
            prefetching: None,
            evicted_bytes: 0,
            evictable: Order::new(limits.functions),
            chores: Order::new(limits.functions),
            prefetchable: Order::new(limits.functions),
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
            Event::RunDone { run, result } => self.run_done(run, result, effects),
            Event::SwapDone { swap } => self.swap_done(swap, effects),
            Event::SandboxDied { function } => self.sandbox_died(function, effects),
            Event::Tick => {}
        }
        self.settle(effects);
    }

    /// When the driver must step again at the latest, with [`Event::Tick`] if nothing else happens. The time of the
    /// last step when work was left over; `None` when only an event can change anything.
    pub fn next_wake(&self) -> Option<Nanos> {
        if self.has_backlog { Some(self.now) } else { self.queueing.next_due() }
    }

    /// The books of the device's memory.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Invocations waiting for a place.
    pub fn queued(&self) -> u32 {
        self.queued
    }

    /// Invocations that hold a place.
    pub fn in_flight(&self) -> u32 {
        self.limits.running - self.free_places.len() as u32
    }

    /// What is known of one function; `None` for one that is not held.
    pub fn flow(&self, function: FunctionId) -> Option<FlowView> {
        let flow = &self.flows[self.number_of(function)? as usize].as_ref()?;
        Some(FlowView {
            spec: flow.spec,
            standing: flow.standing,
            residency: flow.memory.residency(),
            queued: flow.queue.len() as u32,
            in_flight: flow.in_flight,
            start_tag: Nanos::from_nanos(flow.start),
            service: flow.service.value(),
            inter_arrival: flow.inter_arrival.value(),
        })
    }

    /// Does what follows, a unit at a time. The order matters: a dispatch lets virtual time rise and may make a flow
    /// active whose memory would leave; what is fetched ahead takes only the room that is left.
    fn settle(&mut self, effects: &mut Effects) {
        self.has_backlog = true;
        for _ in 0..UNITS_PER_STEP {
            if effects.room() < UNIT_EFFECTS {
                return;
            }
            let has_worked = self.turn_one()
                || self.dispatch_one(effects)
                || self.serve_one_claim(effects)
                || self.do_one_chore(effects)
                || self.prefetch_one(effects);
            if !has_worked {
                self.has_backlog = false;
                return;
            }
        }
    }

    /// Lets one flow stand as it should by now.
    fn turn_one(&mut self) -> bool {
        let Some(number) = self.queueing.due(self.now) else { return false };
        let flow = self.flows[number as usize].as_mut().expect("an order names flows that are held");
        self.queueing.turn(flow);
        self.refresh(number);
        true
    }

    /// Brings the orders that a flow is in up to date with its books. Called after every change of them.
    fn refresh(&mut self, number: u32) {
        let flow = self.flows[number as usize].as_mut().expect("only a flow that is held changes");
        let departure = self.queueing.departure();
        self.queueing.place(number, flow);
        self.evictable.place(number, memory::eviction_rank(flow));
        self.chores.place(number, memory::has_chore(flow, departure).then_some(()));
        let is_next = memory::may_prefetch(flow) && self.queueing.prefetches();
        self.prefetchable.place(number, is_next.then_some(flow.start));
    }

    fn next_order(&mut self) -> u64 {
        self.order += 1;
        self.order
    }

    fn held(&self, number: u32) -> &Flow {
        self.flows[number as usize].as_ref().expect("a number kept by the scheduler names a flow that is held")
    }

    fn held_mut(&mut self, number: u32) -> &mut Flow {
        self.flows[number as usize].as_mut().expect("a number kept by the scheduler names a flow that is held")
    }

    /// The number of a function that is held under exactly this id.
    fn number_of(&self, function: FunctionId) -> Option<u32> {
        let flow = self.flows.get(function.index as usize)?.as_ref()?;
        (flow.function == function).then_some(function.index)
    }
}

/// What is known of one function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowView {
    /// What it needs.
    pub spec: FlowSpec,
    /// How it stands with the policy.
    pub standing: Standing,
    /// Where its memory is.
    pub residency: Residency,
    /// Invocations waiting.
    pub queued: u32,
    /// Invocations that hold a place.
    pub in_flight: u32,
    /// Where it is in virtual time: service for one share, so divided by its weight. [`Nanos::ZERO`] under a policy
    /// that keeps none.
    pub start_tag: Nanos,
    /// Moving average of the time of its runs; `None` before the first has ended.
    pub service: Option<Nanos>,
    /// Moving average of the time between its arrivals; `None` before the second.
    pub inter_arrival: Option<Nanos>,
}
