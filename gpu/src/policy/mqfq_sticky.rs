//! Multi-queue fair queueing with a bounded over-run (MQFQ-Sticky; arXiv 2507.08954).
//!
//! With flow `f` of weight `w`, virtual time `VT`, tags `S` (start) and `F` (finish), over-run `T`:
//!
//! ```text
//! push:      s = max(VT, F); e = s + service / w; F = e; if f was empty: S = s      unknown service: T / 10
//! VT:        the least S over flows with work; keeps its last value when there is none
//! standing:  with work: active if S - VT <= T, else throttled
//!            without, none in flight, and idle for ttl = a * inter-arrival time: inactive
//! select:    among active flows with work the one with the fewest in flight, then with the longest queue
//! pop:       S = the start tag of the next that waits, or F
//! complete:  (measured) S and F move by (measured - charged) / w
//! ```
//!
//! Invariant: `VT` never falls, and some flow with work is active: the one with the least `S`. While work waits, every
//! start tag is in `[VT, VT + T + charge]`; hence over any time in which two flows both have work, what was charged to
//! them differs by at most `2T + charge_i + charge_j`, for any number of places. Corrections by measurement may put a
//! tag outside by what is in flight. Does not know memory.

use std::cmp::Reverse;

use vilya_engine::Nanos;

use super::{Completed, Departure, StickySettings};
use crate::flow::{Flow, Standing, Tags};
use crate::order::Order;

/// What a run costs its flow in the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Charge {
    /// What was expected when it was queued.
    Estimated,
    /// What it took.
    Measured,
}

/// Fewest in flight, then longest queue, then the first to have arrived.
type Turn = (u32, Reverse<usize>, u64);

#[derive(Debug)]
pub(crate) struct MqfqSticky {
    settings: StickySettings,
    charge: Charge,
    /// Nanoseconds of service for one share.
    virtual_time: u64,
    /// Flows with work, by start tag.
    starts: Order<u64>,
    /// Those of them that are active, by turn.
    active: Order<Turn>,
    /// The others, by start tag.
    throttled: Order<u64>,
    /// Active flows without work or runs, by when they become inactive.
    idle: Order<Nanos>,
}

impl MqfqSticky {
    pub(super) fn new(settings: StickySettings, charge: Charge, functions: u32) -> MqfqSticky {
        MqfqSticky {
            settings,
            charge,
            virtual_time: 0,
            starts: Order::new(functions),
            active: Order::new(functions),
            throttled: Order::new(functions),
            idle: Order::new(functions),
        }
    }

    pub(super) fn tag(&self, flow: &Flow) -> Tags {
        let unknown = Nanos::from_nanos(self.settings.overrun.as_nanos() / 10);
        let service = flow.service.value().unwrap_or(unknown);
        // A charge of nothing would let a flow run for ever at one tag.
        Tags { start: self.virtual_time.max(flow.finish), charge: flow.per_share(service).max(1) }
    }

    pub(super) fn complete(&self, flow: &mut Flow, completed: Completed) {
        if self.charge == Charge::Measured {
            let used = flow.per_share(completed.took.unwrap_or(Nanos::ZERO));
            flow.correct(completed.charge, used);
        }
    }

    pub(super) fn place(&mut self, number: u32, flow: &mut Flow) {
        let head = flow.queue.front().map(|head| head.order);
        self.starts.place(number, head.map(|_| flow.start));
        if let Some((least, _)) = self.starts.first() {
            self.virtual_time = self.virtual_time.max(least);
        }
        match head {
            Some(_) if self.is_within_overrun(flow.start) => flow.standing = Standing::Active,
            Some(_) => flow.standing = Standing::Throttled,
            None if flow.standing == Standing::Throttled => flow.standing = Standing::Active,
            None => {}
        }
        let turn = head.map(|order| (flow.in_flight, Reverse(flow.queue.len()), order));
        let is_active = flow.standing == Standing::Active;
        self.active.place(number, turn.filter(|_| is_active));
        self.throttled.place(number, head.filter(|_| !is_active).map(|_| flow.start));
        let leaves = flow.idle_since.saturating_add(self.ttl(flow));
        self.idle.place(number, (is_active && flow.is_idle()).then_some(leaves));
    }

    pub(super) fn select(&self) -> Option<u32> {
        self.active.first().map(|(_, number)| number)
    }

    pub(super) fn due(&self, now: Nanos) -> Option<u32> {
        let promoted = self.throttled.first().filter(|(start, _)| self.is_within_overrun(*start));
        let expired = self.idle.first().filter(|(leaves, _)| *leaves <= now);
        promoted.map(|(_, number)| number).or(expired.map(|(_, number)| number))
    }

    pub(super) fn turn(&mut self, flow: &mut Flow) {
        // One with work stands by its tag, which `place` compares; only the passing of time needs saying.
        if flow.queue.is_empty() {
            flow.standing = Standing::Inactive;
        }
    }

    pub(super) fn next_due(&self) -> Option<Nanos> {
        self.idle.first().map(|(leaves, _)| leaves)
    }

    pub(super) fn forget(&mut self, number: u32) {
        self.starts.place(number, None);
        self.active.place(number, None);
        self.throttled.place(number, None);
        self.idle.place(number, None);
    }

    pub(super) fn departure(&self) -> Departure {
        self.settings.departure
    }

    fn is_within_overrun(&self, start: u64) -> bool {
        start.saturating_sub(self.virtual_time) <= self.settings.overrun.as_nanos()
    }

    fn ttl(&self, flow: &Flow) -> Nanos {
        let StickySettings { ttl_percent, ttl_least, ttl_most, .. } = self.settings;
        flow.inter_arrival.value().map_or(ttl_most, |mean| {
            let share = u128::from(mean.as_nanos()) * u128::from(ttl_percent) / 100;
            Nanos::from_nanos(u64::try_from(share).unwrap_or(u64::MAX)).max(ttl_least).min(ttl_most)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::FlowSpec;
    use vilya_engine::{Bytes, FunctionId, Origin};

    const SETTINGS: StickySettings = StickySettings {
        overrun: Nanos::from_nanos(100),
        ttl_percent: 150,
        ttl_least: Nanos::from_nanos(5),
        ttl_most: Nanos::from_nanos(1_000),
        departure: Departure::AtOnce,
    };

    struct Bench {
        mqfq: MqfqSticky,
        flows: Vec<Flow>,
        order: u64,
    }

    impl Bench {
        fn new(charge: Charge, weights: &[u32]) -> Bench {
            let flow = |(index, &weight): (usize, &u32)| {
                let spec = FlowSpec { memory: Bytes::ZERO, weight };
                Flow::new(FunctionId { index: index as u32, generation: 1 }, spec)
            };
            let mqfq = MqfqSticky::new(SETTINGS, charge, weights.len() as u32);
            Bench { mqfq, flows: weights.iter().enumerate().map(flow).collect(), order: 0 }
        }

        fn push(&mut self, number: usize) {
            let flow = &mut self.flows[number];
            self.order += 1;
            flow.push(Origin(self.order), self.order, self.mqfq.tag(flow));
            self.mqfq.place(number as u32, flow);
        }

        fn pop(&mut self) -> (usize, u64) {
            let number = self.mqfq.select().expect("some flow with work is active") as usize;
            let flow = &mut self.flows[number];
            let charge = flow.pop().expect("it has work").charge;
            flow.in_flight += 1;
            self.mqfq.place(number as u32, flow);
            (number, charge)
        }

        fn complete(&mut self, number: usize, charge: u64, took: u64) {
            let flow = &mut self.flows[number];
            flow.in_flight -= 1;
            flow.service.record(Nanos::from_nanos(took));
            self.mqfq.complete(flow, Completed { charge, took: Some(Nanos::from_nanos(took)) });
            self.mqfq.place(number as u32, flow);
        }

        fn promote(&mut self) {
            while let Some(number) = self.mqfq.due(Nanos::ZERO) {
                let flow = &mut self.flows[number as usize];
                self.mqfq.turn(flow);
                self.mqfq.place(number, flow);
            }
        }
    }

    #[test]
    fn an_arrival_starts_at_virtual_time_or_behind_its_flow() {
        let mut bench = Bench::new(Charge::Estimated, &[1, 1]);
        bench.push(0);
        bench.push(0);
        // Unknown service is charged a tenth of the over-run.
        assert_eq!((bench.flows[0].start, bench.flows[0].finish), (0, 20));
        bench.pop();
        assert_eq!((bench.flows[0].start, bench.mqfq.virtual_time), (10, 10));
        bench.push(1);
        assert_eq!((bench.flows[1].start, bench.flows[1].finish), (10, 20), "no credit for having been idle");
        bench.pop();
        bench.pop();
        assert_eq!(bench.mqfq.virtual_time, 10, "the virtual time stands while nothing waits");
        bench.push(0);
        assert_eq!((bench.flows[0].start, bench.flows[0].finish), (20, 30), "no forgetting of what was had");
    }

    #[test]
    fn a_weight_divides_the_charge() {
        let mut bench = Bench::new(Charge::Estimated, &[5]);
        bench.push(0);
        assert_eq!(bench.flows[0].finish, 2);
    }

    #[test]
    fn a_flow_ahead_by_more_than_the_overrun_is_throttled_until_the_others_follow() {
        let mut bench = Bench::new(Charge::Estimated, &[1, 1]);
        bench.push(1);
        for _ in 0..15 {
            bench.push(0);
        }
        let mut served = 0;
        while bench.flows[0].standing == Standing::Active {
            let (number, charge) = bench.pop();
            assert_eq!(number, 0, "the longest queue goes first");
            bench.complete(number, charge, 10);
            served += 1;
        }
        // Start tags 0 to 100 are within the over-run, 110 is not.
        assert_eq!((served, bench.flows[0].start), (11, 110));
        assert_eq!(bench.pop().0, 1, "the least served is always active");
        bench.promote();
        assert_eq!(bench.flows[0].standing, Standing::Active);
        assert_eq!(bench.mqfq.virtual_time, 110);
    }

    #[test]
    fn fewest_in_flight_comes_before_the_longest_queue() {
        let mut bench = Bench::new(Charge::Estimated, &[1, 1]);
        for number in [0, 0, 0, 1] {
            bench.push(number);
        }
        assert_eq!(bench.pop().0, 0);
        assert_eq!(bench.pop().0, 1);
        assert_eq!(bench.pop().0, 0);
    }

    /// Virtual time must be corrected by what was measured, or a function that takes more than expected gets more
    /// than its share.
    #[test]
    fn what_was_measured_is_charged_in_the_end() {
        for (charge, start) in [(Charge::Estimated, 10), (Charge::Measured, 70)] {
            let mut bench = Bench::new(charge, &[1]);
            bench.push(0);
            let (number, charge) = bench.pop();
            bench.complete(number, charge, 70);
            assert_eq!((bench.flows[0].start, bench.flows[0].finish), (start, start));
        }
    }

    #[test]
    fn a_refund_lets_a_flow_catch_up_and_virtual_time_stand() {
        let mut bench = Bench::new(Charge::Measured, &[1, 1]);
        for number in [0, 0, 1, 1] {
            bench.push(number);
        }
        let (first, charge) = bench.pop();
        bench.pop();
        assert_eq!(bench.mqfq.virtual_time, 10);
        bench.complete(first, charge, 3);
        assert_eq!((bench.flows[first].start, bench.mqfq.virtual_time), (3, 10));
        assert_eq!(bench.flows[first].standing, Standing::Active);
    }

    /// The time to live follows the time between arrivals, never the time of a run.
    #[test]
    fn the_time_to_live_is_of_inter_arrival_time() {
        let mut bench = Bench::new(Charge::Estimated, &[1]);
        let flow = &mut bench.flows[0];
        flow.service.record(Nanos::from_nanos(900));
        assert_eq!(bench.mqfq.ttl(flow), SETTINGS.ttl_most, "one arrival says nothing");
        flow.inter_arrival.record(Nanos::from_nanos(40));
        assert_eq!(bench.mqfq.ttl(flow), Nanos::from_nanos(60));
        flow.inter_arrival = Default::default();
        flow.inter_arrival.record(Nanos::from_nanos(1));
        assert_eq!(bench.mqfq.ttl(flow), SETTINGS.ttl_least);
        flow.inter_arrival = Default::default();
        flow.inter_arrival.record(Nanos::MAX);
        assert_eq!(bench.mqfq.ttl(flow), SETTINGS.ttl_most);
    }

    #[test]
    fn a_flow_without_work_is_inactive_after_its_time() {
        let mut bench = Bench::new(Charge::Estimated, &[1]);
        bench.push(0);
        let (number, charge) = bench.pop();
        assert_eq!(bench.mqfq.next_due(), None, "not while it runs");
        bench.flows[0].idle_since = Nanos::from_nanos(50);
        bench.complete(number, charge, 10);
        let leaves = Nanos::from_nanos(50).saturating_add(SETTINGS.ttl_most);
        assert_eq!(bench.mqfq.next_due(), Some(leaves));
        assert_eq!(bench.mqfq.due(leaves.saturating_sub(Nanos::from_nanos(1))), None);
        assert_eq!(bench.mqfq.due(leaves), Some(0));
        bench.mqfq.turn(&mut bench.flows[0]);
        bench.mqfq.place(0, &mut bench.flows[0]);
        assert_eq!((bench.flows[0].standing, bench.mqfq.next_due()), (Standing::Inactive, None));
    }
}
