//! A function's queue on the device, and all that is known of it.
//!
//! Invariant: the charges of what waits lie end to end between the two tags, `finish = start + Σ charges`; so the
//! start tag of every waiting invocation is known without storing it, and a correction moves them all at once.
//! Does not know the other flows, or whose turn it is.

use std::collections::VecDeque;

use vilya_engine::{FunctionId, MovingAverage, Nanos, Origin};

use crate::event::FlowSpec;
use crate::ids::SwapId;
use crate::ledger::Memory;

/// How a flow stands with the queueing policy, and so what becomes of its memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Standing {
    /// It may be served, or was served a short while ago: its memory belongs on the device.
    Active,
    /// It has work, and has had more than its share: it waits for the others, off the device.
    Throttled,
    /// It has had no work for a while: its memory leaves.
    Inactive,
}

/// An invocation that waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub(crate) origin: Origin,
    /// Smaller for earlier arrivals, over all flows.
    pub(crate) order: u64,
    /// What it adds to its flow's tags, in nanoseconds of service for one share.
    pub(crate) charge: u64,
}

#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) function: FunctionId,
    pub(crate) spec: FlowSpec,
    pub(crate) queue: VecDeque<Waiting>,
    /// Invocations that hold a place on the device: running, or waiting for the memory.
    pub(crate) in_flight: u32,

    /// Start tag of the first that waits, or the finish tag when none does: nanoseconds of service for one share.
    pub(crate) start: u64,
    /// Finish tag of the last that was queued.
    pub(crate) finish: u64,
    pub(crate) standing: Standing,
    /// Measured from the start of a run to its end.
    pub(crate) service: MovingAverage,
    pub(crate) inter_arrival: MovingAverage,
    last_arrival: Option<Nanos>,
    /// When it last came to have neither waiting nor running invocations.
    pub(crate) idle_since: Nanos,

    pub(crate) memory: Memory,
    /// The move under way.
    pub(crate) swap: Option<SwapId>,
    /// Larger for later uses of the memory, over all flows.
    pub(crate) last_used: u64,
    /// Its room is promised to another: no new run begins on it.
    pub(crate) is_evicted: bool,
    /// It waits in the line of those that want room.
    pub(crate) has_claim: bool,
    /// No arrivals any more.
    pub(crate) is_retired: bool,
}

impl Flow {
    pub(crate) fn new(function: FunctionId, spec: FlowSpec) -> Flow {
        Flow {
            function,
            spec,
            queue: VecDeque::new(),
            in_flight: 0,
            start: 0,
            finish: 0,
            standing: Standing::Inactive,
            service: MovingAverage::default(),
            inter_arrival: MovingAverage::default(),
            last_arrival: None,
            idle_since: Nanos::ZERO,
            memory: Memory::Swapped,
            swap: None,
            last_used: 0,
            is_evicted: false,
            has_claim: false,
            is_retired: false,
        }
    }

    pub(crate) fn note_arrival(&mut self, now: Nanos) {
        if let Some(last) = self.last_arrival {
            self.inter_arrival.record(now.saturating_sub(last));
        }
        self.last_arrival = Some(now);
    }

    /// Queues one whose start tag is `start` if none waits, and the finish tag of the last otherwise.
    pub(crate) fn push(&mut self, origin: Origin, order: u64, tags: Tags) {
        if self.queue.is_empty() {
            self.start = tags.start;
            self.finish = tags.start;
        }
        self.finish = self.finish.saturating_add(tags.charge);
        self.queue.push_back(Waiting { origin, order, charge: tags.charge });
    }

    /// Takes the first that waits; the tag moves to the next.
    pub(crate) fn pop(&mut self) -> Option<Waiting> {
        let head = self.queue.pop_front()?;
        self.start = self.start.saturating_add(head.charge);
        Some(head)
    }

    /// Corrects what was charged once it is known what was used.
    pub(crate) fn correct(&mut self, charged: u64, used: u64) {
        for tag in [&mut self.start, &mut self.finish] {
            *tag = tag.saturating_add(used).saturating_sub(charged);
        }
    }

    /// Service for one share, in nanoseconds of tags.
    pub(crate) fn per_share(&self, service: Nanos) -> u64 {
        service.as_nanos() / u64::from(self.spec.weight.max(1))
    }

    /// Nothing waits and nothing holds a place.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.in_flight == 0
    }
}

/// Where an arrival comes to stand in its flow's virtual time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Tags {
    pub(crate) start: u64,
    pub(crate) charge: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use vilya_engine::Bytes;

    fn flow() -> Flow {
        let spec = FlowSpec { memory: Bytes::from_mebibytes(1), weight: 2 };
        Flow::new(FunctionId { index: 0, generation: 1 }, spec)
    }

    #[test]
    fn the_tags_enclose_what_waits() {
        let mut flow = flow();
        flow.push(Origin(1), 1, Tags { start: 100, charge: 10 });
        flow.push(Origin(2), 2, Tags { start: 100, charge: 7 });
        assert_eq!((flow.start, flow.finish), (100, 117));
        assert_eq!(flow.pop().map(|head| head.origin), Some(Origin(1)));
        assert_eq!((flow.start, flow.finish), (110, 117));
        assert_eq!(flow.pop().map(|head| head.origin), Some(Origin(2)));
        assert_eq!((flow.start, flow.finish), (117, 117));
        assert!(flow.pop().is_none());
    }

    #[test]
    fn a_correction_moves_both_tags_either_way() {
        let mut flow = flow();
        flow.push(Origin(1), 1, Tags { start: 100, charge: 10 });
        flow.correct(10, 35);
        assert_eq!((flow.start, flow.finish), (125, 135));
        flow.correct(35, 5);
        assert_eq!((flow.start, flow.finish), (95, 105));
    }

    #[test]
    fn a_share_divides_and_an_unset_weight_is_one() {
        let mut flow = flow();
        assert_eq!(flow.per_share(Nanos::from_nanos(9)), 4);
        flow.spec.weight = 0;
        assert_eq!(flow.per_share(Nanos::from_nanos(9)), 9);
    }

    #[test]
    fn inter_arrival_is_between_arrivals() {
        let mut flow = flow();
        flow.note_arrival(Nanos::from_secs(10));
        assert_eq!(flow.inter_arrival.value(), None);
        flow.note_arrival(Nanos::from_secs(13));
        assert_eq!(flow.inter_arrival.value(), Some(Nanos::from_secs(3)));
    }
}
