//! The published formulas of MQFQ-Sticky, word for word and in linear time, to compare the real thing with.
//!
//! Every invocation keeps its own two tags, and every question looks at all flows; nothing is shared with the
//! implementation but the settings.

use std::collections::VecDeque;

use proptest::prelude::*;
use vilya_engine::{Bytes, FunctionId, Nanos, Origin};

use super::{Policy, Queueing, StickySettings};
use crate::event::FlowSpec;
use crate::flow::{Flow, Standing};

#[derive(Default)]
struct Literal {
    overrun: u64,
    virtual_time: u64,
    flows: Vec<LiteralFlow>,
}

#[derive(Default)]
struct LiteralFlow {
    /// Order of arrival, start tag, finish tag.
    queue: VecDeque<(u64, u64, u64)>,
    start: u64,
    finish: u64,
    in_flight: u32,
}

impl Literal {
    fn push(&mut self, number: usize, order: u64, charge: u64) {
        let virtual_time = self.virtual_time;
        let flow = &mut self.flows[number];
        let start = virtual_time.max(flow.finish);
        let end = start + charge;
        if flow.queue.is_empty() {
            flow.start = flow.start.max(start);
        }
        flow.queue.push_back((order, start, end));
        flow.finish = flow.finish.max(end);
        self.advance();
    }

    fn pop(&mut self, number: usize) {
        let flow = &mut self.flows[number];
        flow.queue.pop_front().unwrap();
        flow.in_flight += 1;
        flow.start = flow.queue.front().map_or(flow.finish, |(_, start, _)| *start);
        self.advance();
    }

    fn advance(&mut self) {
        let with_work = self.flows.iter().filter(|flow| !flow.queue.is_empty());
        self.virtual_time = with_work.map(|flow| flow.start).min().unwrap_or(self.virtual_time);
    }

    fn is_active(&self, flow: &LiteralFlow) -> bool {
        !flow.queue.is_empty() && flow.start - self.virtual_time <= self.overrun
    }

    /// Fewest in flight, then the longest queue; what the paper leaves open goes by arrival.
    fn select(&self) -> Option<u32> {
        let active = (0..).zip(&self.flows).filter(|(_, flow)| self.is_active(flow));
        let key = |flow: &LiteralFlow| (flow.in_flight, usize::MAX - flow.queue.len(), flow.queue[0].0);
        active.min_by_key(|(_, flow)| key(flow)).map(|(number, _)| number)
    }
}

proptest! {
    #[test]
    fn the_policy_decides_as_the_formulas_say(
        weights in proptest::collection::vec(1u32..4, 1..6),
        overrun in 10u64..300,
        moves in proptest::collection::vec((0usize..6, 0u8..4, 1u64..100), 0..200),
    ) {
        let settings = StickySettings { overrun: Nanos::from_nanos(overrun), ..StickySettings::default() };
        let mut policy = Queueing::new(Policy::MqfqSticky(settings), weights.len() as u32);
        let flow = |(index, &weight): (usize, &u32)| {
            Flow::new(FunctionId { index: index as u32, generation: 1 }, FlowSpec { memory: Bytes::ZERO, weight })
        };
        let mut flows: Vec<Flow> = weights.iter().enumerate().map(flow).collect();
        let literal_flows = weights.iter().map(|_| LiteralFlow::default()).collect();
        let mut literal = Literal { overrun, virtual_time: 0, flows: literal_flows };
        for (order, (number, change, service)) in (0..).zip(moves) {
            let number = number % flows.len();
            match change {
                0 | 1 => {
                    let expected = flows[number].service.value().map_or(overrun / 10, Nanos::as_nanos);
                    literal.push(number, order, (expected / u64::from(weights[number])).max(1));
                    let tags = policy.tag(&flows[number]);
                    flows[number].push(Origin(order), order, tags);
                }
                2 => {
                    let selected = policy.select();
                    prop_assert_eq!(selected, literal.select());
                    let Some(number) = selected else { continue };
                    literal.pop(number as usize);
                    flows[number as usize].pop();
                    flows[number as usize].in_flight += 1;
                    policy.place(number, &mut flows[number as usize]);
                }
                _ if flows[number].in_flight > 0 => {
                    literal.flows[number].in_flight -= 1;
                    flows[number].in_flight -= 1;
                    flows[number].service.record(Nanos::from_nanos(service));
                }
                _ => {}
            }
            policy.place(number as u32, &mut flows[number]);
            while let Some(due) = policy.due(Nanos::ZERO) {
                policy.turn(&mut flows[due as usize]);
                policy.place(due, &mut flows[due as usize]);
            }
            for (flow, literal_flow) in flows.iter().zip(&literal.flows) {
                prop_assert_eq!((flow.start, flow.finish), (literal_flow.start, literal_flow.finish));
                if !flow.queue.is_empty() {
                    prop_assert_eq!(flow.standing == Standing::Active, literal.is_active(literal_flow));
                }
            }
        }
    }
}
