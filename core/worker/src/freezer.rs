//! The freezer: a thread that freezes and thaws sandboxes, so that no shard waits for the kernel to do it.
//!
//! Invariant: of one sandbox, what was asked for last is what stays. A thaw that somebody waits for goes before the freezings that wait here,
//! and takes that of its own sandbox out. Every thaw is answered once. It does not know why a sandbox is frozen.

use std::collections::VecDeque;
use std::io;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, unbounded};
use vilya_engine::SandboxId;
use vilya_isolate::Freezer;

use crate::mesh::{Message, Post};
use crate::process::vital;

/// What a shard asks for.
pub(crate) struct Order<F = Freezer> {
    pub(crate) shard: usize,
    pub(crate) sandbox: SandboxId,
    pub(crate) freezer: F,
    pub(crate) wanted: Wanted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Frozen,
    Thawed,
}

/// Starts the thread; it ends when every sender is dropped.
pub(crate) fn spawn(shards: Vec<Post>) -> io::Result<(Sender<Order>, JoinHandle<()>)> {
    // Bounded by the engine: of each sandbox one freezing and one thaw at most are under way.
    let (orders, inbox) = unbounded();
    let perform = move |order: &Order| {
        if let Some(message) = perform(order) {
            shards[order.shard].send(message);
        }
    };
    let thread = std::thread::Builder::new()
        .name("vilya-freezer".into())
        .spawn(move || vital("the freezer", || run(&inbox, perform)))?;
    Ok((orders, thread))
}

fn run<F>(inbox: &Receiver<Order<F>>, perform: impl Fn(&Order<F>)) {
    let mut freezings: VecDeque<Order<F>> = VecDeque::new();
    loop {
        let order = match (inbox.try_recv(), freezings.is_empty()) {
            (Ok(order), _) => order,
            (Err(_), true) => match inbox.recv() {
                Ok(order) => order,
                Err(_) => return,
            },
            (Err(_), false) => {
                freezings.pop_front().iter().for_each(&perform);
                continue;
            }
        };
        match order.wanted {
            Wanted::Frozen => freezings.push_back(order),
            Wanted::Thawed => {
                freezings.retain(|other| (other.shard, other.sandbox) != (order.shard, order.sandbox));
                perform(&order);
            }
        }
    }
}

/// What the shard is to be told.
fn perform(order: &Order) -> Option<Message> {
    let sandbox = order.sandbox;
    match order.wanted {
        Wanted::Frozen => order.freezer.freeze().err().map(|error| {
            // One that has died meanwhile has no group any more.
            tracing::debug!("a sandbox could not be frozen: {error}");
            Message::NotFrozen { sandbox }
        }),
        Wanted::Thawed => {
            let outcome = order.freezer.thaw().map_err(|error| error.to_string());
            Some(Message::Thawed { sandbox, outcome })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn a_thaw_goes_before_the_freezings_that_wait_and_none_of_its_own_follows() {
        use Wanted::{Frozen, Thawed};
        let (orders, inbox) = unbounded();
        let asked = [(0, 1, Frozen), (0, 2, Frozen), (1, 2, Frozen), (0, 2, Thawed), (0, 3, Frozen), (0, 3, Thawed)];
        for (shard, index, wanted) in asked.into_iter().chain([(0, 3, Frozen)]) {
            let sandbox = SandboxId { index, generation: 1 };
            orders.send(Order { shard, sandbox, freezer: (), wanted }).expect("its other end is here");
        }
        drop(orders);
        let done = RefCell::new(Vec::new());
        run(&inbox, |order| done.borrow_mut().push((order.shard, order.sandbox.index, order.wanted)));
        let expected = [(0, 2, Thawed), (0, 3, Thawed), (0, 1, Frozen), (1, 2, Frozen), (0, 3, Frozen)];
        assert_eq!(done.into_inner(), expected);
    }
}
