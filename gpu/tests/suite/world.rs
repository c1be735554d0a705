//! A scheduler and a simulated device in one virtual time, with everything that is asked of either written down.
//!
//! Invariant, checked after every step: the scheduler's books of the memory are the device's, nothing waits beside a
//! free place, and nobody is answered twice. A device that refuses what the scheduler asks fails the test.

use std::collections::VecDeque;

use vilya_engine::{Bytes, FunctionId, Nanos, Origin, Outcome, Refusal};
use vilya_gpu::device::simulated::{CostModel, SimulatedDevice, Workload};
use vilya_gpu::device::{Device, Direction, Swap};
use vilya_gpu::{
    Config, Departure, Effect, Effects, Event, FlowSpec, FlowView, Limits, Policy, Scheduler, StickySettings,
};

pub(crate) const GIB: u64 = 1 << 30;

/// Every policy, and every way of each that decides differently.
pub(crate) const POLICIES: [Policy; 5] = [
    Policy::Fcfs,
    Policy::MqfqSticky(STICKY),
    Policy::MqfqStickyMeasured(STICKY),
    Policy::MqfqSticky(LAZY),
    Policy::MqfqStickyMeasured(LAZY),
];

pub(crate) const STICKY: StickySettings = StickySettings {
    overrun: Nanos::from_secs(10),
    ttl_percent: 150,
    ttl_least: Nanos::from_millis(100),
    ttl_most: Nanos::from_secs(60),
    departure: Departure::AtOnce,
};

pub(crate) const LAZY: StickySettings = StickySettings { departure: Departure::WhenWanted, ..STICKY };

pub(crate) fn limits(running: u32, memory_gib: u64) -> Limits {
    let memory = Bytes::from_bytes(memory_gib * GIB);
    Limits { functions: 32, queued: 1 << 20, queue_per_function: 1 << 20, running, memory }
}

pub(crate) fn costs(memory_gib: u64) -> CostModel {
    CostModel {
        memory: Bytes::from_bytes(memory_gib * GIB),
        contention_percent: 50,
        swap_latency: Nanos::from_millis(2),
        bandwidth: 12_000_000_000,
    }
}

pub(crate) fn spec(memory_mib: u64, weight: u32) -> FlowSpec {
    FlowSpec { memory: Bytes::from_mebibytes(memory_mib), weight }
}

/// What became of one arrival.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) function: FunctionId,
    pub(crate) arrived: Nanos,
    pub(crate) started: Option<Nanos>,
    pub(crate) answered: Option<(Nanos, Outcome)>,
    pub(crate) refused: Option<Refusal>,
}

pub(crate) struct World {
    pub(crate) scheduler: Scheduler,
    pub(crate) device: SimulatedDevice,
    pub(crate) now: Nanos,
    pub(crate) asked: Vec<Asked>,
    /// Everything asked for, and when.
    pub(crate) log: Vec<(Nanos, Effect)>,
    pub(crate) swap_ins: u32,
    running_limit: u32,
    functions: u32,
    /// Facts that performing an effect brought about at once.
    facts: VecDeque<Event>,
    effects: Effects,
}

impl World {
    pub(crate) fn new(policy: Policy, limits: Limits, costs: CostModel) -> World {
        World {
            scheduler: Scheduler::new(Config { limits, policy }).expect("the limits and the policy are in range"),
            device: SimulatedDevice::new(costs),
            now: Nanos::ZERO,
            asked: Vec::new(),
            log: Vec::new(),
            swap_ins: 0,
            running_limit: limits.running,
            functions: 0,
            facts: VecDeque::new(),
            effects: Effects::new(),
        }
    }

    pub(crate) fn add(&mut self, spec: FlowSpec, workload: Workload) -> FunctionId {
        let function = FunctionId { index: self.functions, generation: 1 };
        self.functions += 1;
        self.device.describe(function, workload);
        self.step(Event::FunctionAdded { function, spec });
        function
    }

    pub(crate) fn arrive(&mut self, function: FunctionId) {
        let origin = Origin(self.asked.len() as u64);
        self.asked.push(Asked { function, arrived: self.now, started: None, answered: None, refused: None });
        self.step(Event::Arrive { origin, function });
    }

    /// The sandbox of a function dies, whatever it is doing.
    pub(crate) fn kill(&mut self, function: FunctionId) {
        self.device.discard(function);
        self.step(Event::SandboxDied { function });
    }

    pub(crate) fn view(&self, function: FunctionId) -> FlowView {
        self.scheduler.flow(function).expect("the function is held")
    }

    /// One event, and all that follows from it at this moment.
    pub(crate) fn step(&mut self, event: Event) {
        self.take(event);
        self.check();
    }

    fn take(&mut self, event: Event) {
        self.facts.push_back(event);
        while let Some(event) = self.facts.pop_front() {
            self.scheduler.step(self.now, event, &mut self.effects);
            let asked: Vec<Effect> = self.effects.drain().collect();
            asked.into_iter().for_each(|effect| self.perform(effect));
            if self.facts.is_empty() && self.scheduler.next_wake().is_some_and(|wake| wake <= self.now) {
                self.facts.push_back(Event::Tick);
            }
        }
    }

    /// Lets the next thing happen, if there is one no later than `until`.
    pub(crate) fn next(&mut self, until: Nanos) -> bool {
        let next = self.device.next_completion().into_iter().chain(self.scheduler.next_wake()).min();
        let Some(at) = next.filter(|at| *at <= until) else { return false };
        self.now = self.now.max(at);
        self.device.advance(self.now);
        self.take(Event::Tick);
        // What ends at one moment is all freed on the device before the first of it is reported.
        while let Some(completion) = self.device.poll() {
            self.take(completion.into());
        }
        self.check();
        true
    }

    pub(crate) fn run_until(&mut self, until: Nanos) {
        while self.next(until) {}
        self.now = self.now.max(until);
        self.device.advance(until);
    }

    pub(crate) fn run_to_rest(&mut self) {
        while self.next(Nanos::MAX) {}
    }

    fn perform(&mut self, effect: Effect) {
        self.log.push((self.now, effect));
        match effect {
            Effect::Refuse { origin, reason } => self.asked[origin.0 as usize].refused = Some(reason),
            Effect::StartRun { run, origin, function } => {
                self.device.start_run(run, function).unwrap();
                assert_eq!(self.asked[origin.0 as usize].started.replace(self.now), None, "{origin:?} ran twice");
            }
            Effect::StartSwapIn { swap: id, function, memory } => {
                self.swap_ins += 1;
                self.device.start_swap(Swap { id, function, memory, direction: Direction::In }).unwrap();
            }
            Effect::StartSwapOut { swap: id, function, memory } => {
                self.device.start_swap(Swap { id, function, memory, direction: Direction::Out }).unwrap();
            }
            Effect::Discard { function } => {
                self.device.discard(function);
                self.facts.push_back(Event::SandboxDied { function });
            }
            Effect::Answer { origin, outcome } => {
                let before = self.asked[origin.0 as usize].answered.replace((self.now, outcome));
                assert_eq!(before, None, "{origin:?} was answered twice");
            }
            Effect::FunctionGone { .. } => {}
        }
    }

    fn check(&self) {
        let ledger = self.scheduler.ledger();
        let booked = ledger.incoming().saturating_add(ledger.resident()).saturating_add(ledger.outgoing());
        assert_eq!(booked, self.device.used(), "the books are not the device's");
        assert!(booked <= ledger.capacity());
        let is_full = self.scheduler.in_flight() == self.running_limit;
        assert!(is_full || self.scheduler.queued() == 0, "a place is free while something waits");
    }
}
