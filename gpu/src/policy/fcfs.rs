//! First come, first served: the flow whose first invocation came first. Every flow is always active: its memory stays
//! until another's needs the room.

use crate::flow::{Flow, Standing};
use crate::order::Order;

#[derive(Debug)]
pub(crate) struct Fcfs {
    /// Flows with work, by the arrival of the first that waits.
    waiting: Order<u64>,
}

impl Fcfs {
    pub(super) fn new(functions: u32) -> Fcfs {
        Fcfs { waiting: Order::new(functions) }
    }

    pub(super) fn place(&mut self, number: u32, flow: &mut Flow) {
        flow.standing = Standing::Active;
        self.waiting.place(number, flow.queue.front().map(|head| head.order));
    }

    pub(super) fn select(&self) -> Option<u32> {
        self.waiting.first().map(|(_, number)| number)
    }

    pub(super) fn forget(&mut self, number: u32) {
        self.waiting.place(number, None);
    }
}
