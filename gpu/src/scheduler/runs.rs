//! The places to run: who holds one, and what becomes of it.
//!
//! Invariant: a place is free or held by one invocation; its run has started only if its function's memory was on the
//! device, and a report on it counts once. Does not know how room is made for memory.

use vilya_engine::{FunctionId, Nanos, Origin, Outcome, RunResult};

use super::Scheduler;
use crate::effect::{Effect, Effects};
use crate::flow::Waiting;
use crate::ids::RunId;
use crate::ledger::Memory;
use crate::policy::Completed;

/// One of the device's places.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// Which use of it: 0 before the first.
    generation: u32,
    run: Option<Run>,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    flow: u32,
    origin: Origin,
    /// Of its arrival.
    order: u64,
    charge: u64,
    /// `None` while the memory is not on the device.
    started: Option<Nanos>,
}

impl Scheduler {
    /// Gives a free place to the flow whose turn it is.
    pub(super) fn dispatch_one(&mut self, effects: &mut Effects) -> bool {
        if self.free_places.is_empty() {
            return false;
        }
        let Some(number) = self.queueing.select() else { return false };
        let place = self.free_places.pop().expect("one is free");
        let flow = self.held_mut(number);
        let head = flow.pop().expect("a selected flow has work");
        flow.in_flight += 1;
        self.queued -= 1;
        let slot = &mut self.places[place as usize];
        slot.generation = slot.generation.wrapping_add(1).max(1);
        let Waiting { origin, order, charge } = head;
        slot.run = Some(Run { flow: number, origin, order, charge, started: None });
        self.start_or_claim(number, place, effects);
        self.refresh(number);
        true
    }

    fn start_or_claim(&mut self, number: u32, place: u32, effects: &mut Effects) {
        let flow = self.held_mut(number);
        match flow.memory {
            Memory::Resident(_) if !flow.is_evicted => self.start_run(place, effects),
            // It starts when the swap is done.
            Memory::SwappingIn(_) => {}
            _ if flow.has_claim => {}
            _ => {
                flow.has_claim = true;
                self.claims.push_back(number);
            }
        }
    }

    /// Starts every run of a flow that waited for its memory, which is there now, in the order of arrival.
    pub(super) fn start_waiting(&mut self, number: u32, effects: &mut Effects) {
        while let Some(place) = self.first_waiting(number) {
            self.start_run(place, effects);
        }
    }

    fn first_waiting(&self, number: u32) -> Option<u32> {
        let held = (0..).zip(&self.places).filter_map(|(place, slot)| Some((place, slot.run?)));
        let waiting = held.filter(|(_, run)| run.flow == number && run.started.is_none());
        waiting.min_by_key(|(_, run)| run.order).map(|(place, _)| place)
    }

    fn start_run(&mut self, place: u32, effects: &mut Effects) {
        let (now, order) = (self.now, self.next_order());
        let slot = &mut self.places[place as usize];
        let run = slot.run.as_mut().expect("a run starts in a place that is held");
        run.started = Some(now);
        let flow = self.flows[run.flow as usize].as_mut().expect("a run's flow is held");
        let Memory::Resident(resident) = &mut flow.memory else { unreachable!("a run starts on resident memory") };
        resident.begin_run();
        flow.last_used = order;
        let id = RunId { index: place, generation: slot.generation };
        effects.push(Effect::StartRun { run: id, origin: run.origin, function: flow.function });
    }

    pub(super) fn run_done(&mut self, run: RunId, result: RunResult, effects: &mut Effects) {
        let Some(place) = self.places.get(run.index as usize) else { return };
        let has_started = place.run.is_some_and(|held| held.started.is_some());
        if place.generation != run.generation || !has_started {
            return;
        }
        let outcome = match result {
            RunResult::Returned => Outcome::Returned,
            RunResult::Raised => Outcome::Raised,
        };
        let number = self.vacate(run.index, outcome, effects);
        let order = self.next_order();
        let flow = self.held_mut(number);
        let Memory::Resident(resident) = &mut flow.memory else { unreachable!("a run keeps its memory where it is") };
        resident.end_run();
        flow.last_used = order;
        self.refresh(number);
    }

    pub(super) fn sandbox_died(&mut self, function: FunctionId, effects: &mut Effects) {
        let Some(number) = self.number_of(function) else { return };
        for place in 0..self.places.len() as u32 {
            if self.places[place as usize].run.is_some_and(|run| run.flow == number) {
                self.vacate(place, Outcome::SandboxDied, effects);
            }
        }
        self.write_off(number);
        self.refresh(number);
    }

    /// Answers for a run, charges it and frees its place. The flow's number.
    fn vacate(&mut self, place: u32, outcome: Outcome, effects: &mut Effects) -> u32 {
        let run = self.places[place as usize].run.take().expect("a place that is held is vacated");
        self.free_places.push(place);
        let flow = self.flows[run.flow as usize].as_mut().expect("a run's flow is held");
        flow.in_flight -= 1;
        if flow.is_idle() {
            flow.idle_since = self.now;
        }
        let took = run.started.map(|started| self.now.saturating_sub(started));
        self.queueing.complete(flow, Completed { charge: run.charge, took });
        effects.push(Effect::Answer { origin: run.origin, outcome });
        run.flow
    }
}
