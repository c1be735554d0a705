//! Functions that come and go, and arrivals: what is taken and what is refused.
//!
//! Invariant: every arrival is either queued within the limits or refused with a reason. Does not know whose turn it is.

use vilya_engine::{FunctionId, Origin, Refusal};

use super::Scheduler;
use crate::effect::{Effect, Effects};
use crate::event::FlowSpec;
use crate::flow::Flow;

impl Scheduler {
    pub(super) fn function_added(&mut self, function: FunctionId, spec: FlowSpec, effects: &mut Effects) {
        match self.flows.get_mut(function.index as usize) {
            Some(slot @ None) => *slot = Some(Flow::new(function, spec)),
            _ => effects.push(Effect::FunctionGone { function }),
        }
    }

    pub(super) fn function_retired(&mut self, function: FunctionId) {
        if let Some(number) = self.number_of(function) {
            self.held_mut(number).is_retired = true;
            self.refresh(number);
        }
    }

    pub(super) fn arrive(&mut self, origin: Origin, function: FunctionId, effects: &mut Effects) {
        match self.admit(function) {
            Err(reason) => effects.push(Effect::Refuse { origin, reason }),
            Ok(number) => {
                let (now, order) = (self.now, self.next_order());
                let flow = self.flows[number as usize].as_mut().expect("it was just admitted");
                flow.note_arrival(now);
                let tags = self.queueing.tag(flow);
                flow.push(origin, order, tags);
                self.queued += 1;
                self.refresh(number);
            }
        }
    }

    fn admit(&self, function: FunctionId) -> Result<u32, Refusal> {
        let number = self.number_of(function).ok_or(Refusal::NoSuchFunction)?;
        let flow = self.held(number);
        if flow.is_retired {
            return Err(Refusal::NoSuchFunction);
        }
        if flow.spec.memory > self.limits.memory {
            return Err(Refusal::TooLarge);
        }
        if flow.queue.len() >= self.limits.queue_per_function as usize {
            return Err(Refusal::QueueFull);
        }
        if self.queued >= self.limits.queued {
            return Err(Refusal::InvocationsFull);
        }
        Ok(number)
    }
}
