//! The freezer: threads that freeze and thaw sandboxes and has them give way to others, so that no shard waits for the kernel to do it.
//!
//! Invariant: of one sandbox, what was asked for last is what stays. A thaw that somebody waits for goes before the freezings that wait here,
//! and takes that of its own sandbox out. Every thaw is answered once. What may take long, since a program is asked for it, is done by a thread
//! of its own, so that it delays no other mechanism's sandboxes. It does not know why a sandbox is frozen or gives way.

use std::collections::VecDeque;
use std::io;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, unbounded};
use vilya_engine::SandboxId;
use vilya_isolate::{Freezer, Precedence};

use crate::mesh::{Message, Post};
use crate::process::vital;

/// What a shard asks for.
pub(crate) struct Order<F = Freezer, P = Precedence> {
    pub(crate) shard: usize,
    pub(crate) sandbox: SandboxId,
    pub(crate) wanted: Wanted<F, P>,
}

#[derive(Clone, Debug)]
pub(crate) enum Wanted<F = Freezer, P = Precedence> {
    Frozen(F),
    Thawed(F),
    /// Thawed for it to die: nobody waits for an answer.
    Released(F),
    /// Gives way to others.
    Demoted(P),
    /// Does not any more.
    Promoted(P),
}

impl Order {
    /// Whether a program is asked for it, which may take its time.
    fn takes_long(&self) -> bool {
        match &self.wanted {
            Wanted::Frozen(freezer) | Wanted::Thawed(freezer) | Wanted::Released(freezer) => !freezer.is_prompt(),
            Wanted::Demoted(_) | Wanted::Promoted(_) => false,
        }
    }
}

/// Starts the threads; they end when every sender is dropped.
pub(crate) fn spawn(shards: Vec<Post>) -> io::Result<(Sender<Order>, [JoinHandle<()>; 2])> {
    // Bounded by the engine: of each sandbox one freezing and one thaw at most are under way.
    let (orders, inbox) = unbounded();
    let (long_orders, long_inbox) = unbounded();
    let perform = move |order: &Order| {
        if let Some(message) = perform(order) {
            shards[order.shard].send(message);
        }
    };
    let perform_long = perform.clone();
    let pass_on = move |order: Order| {
        if !order.takes_long() {
            return Some(order);
        }
        // It is there for as long as this end is.
        let _ = long_orders.send(order);
        None
    };
    let thread = |name: &str, work: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new().name(name.into()).spawn(move || vital("the freezer", work))
    };
    let threads = [
        thread("vilya-freezer", Box::new(move || run(&inbox, pass_on, perform)))?,
        thread("vilya-pauser", Box::new(move || run(&long_inbox, Some, perform_long)))?,
    ];
    Ok((orders, threads))
}

/// `pass_on` keeps what is somebody else's to do.
fn run<F, P>(
    inbox: &Receiver<Order<F, P>>,
    pass_on: impl Fn(Order<F, P>) -> Option<Order<F, P>>,
    perform: impl Fn(&Order<F, P>),
) {
    let mut freezings: VecDeque<Order<F, P>> = VecDeque::new();
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
        let Some(order) = pass_on(order) else { continue };
        match order.wanted {
            Wanted::Frozen(_) => freezings.push_back(order),
            Wanted::Demoted(_) | Wanted::Promoted(_) => perform(&order),
            Wanted::Thawed(_) | Wanted::Released(_) => {
                freezings.retain(|other| (other.shard, other.sandbox) != (order.shard, order.sandbox));
                perform(&order);
            }
        }
    }
}

/// What the shard is to be told.
fn perform(order: &Order) -> Option<Message> {
    let sandbox = order.sandbox;
    match &order.wanted {
        Wanted::Frozen(freezer) => freezer.freeze().err().map(|error| {
            // One that has died meanwhile has no group any more.
            tracing::debug!("a sandbox could not be frozen: {error}");
            Message::NotFrozen { sandbox }
        }),
        Wanted::Thawed(freezer) => {
            let outcome = freezer.thaw().map_err(|error| error.to_string());
            Some(Message::Thawed { sandbox, outcome })
        }
        Wanted::Released(freezer) => {
            if let Err(error) = freezer.thaw() {
                tracing::debug!("a sandbox that was killed could not be thawed: {error}");
            }
            None
        }
        Wanted::Demoted(precedence) => said(precedence.yield_to_others()),
        Wanted::Promoted(precedence) => said(precedence.restore()),
    }
}

/// Nobody waits for it: a sandbox that lives could be told, and one that has died meanwhile has no group any more.
fn said(outcome: io::Result<()>) -> Option<Message> {
    if let Err(error) = outcome {
        tracing::debug!("a sandbox could not be told whether to give way: {error}");
    }
    None
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn a_thaw_goes_before_the_freezings_that_wait_and_none_of_its_own_follows() {
        let wanted = |letter| match letter {
            'f' => Wanted::Frozen(()),
            't' => Wanted::Thawed(()),
            'r' => Wanted::Released(()),
            'd' => Wanted::Demoted(()),
            _ => Wanted::Promoted(()),
        };
        let (orders, inbox) = unbounded();
        let asked = [
            (0, 1, 'f'),
            (0, 2, 'f'),
            (0, 4, 'd'),
            (1, 2, 'f'),
            (0, 2, 't'),
            (0, 4, 'p'),
            (0, 3, 'f'),
            (0, 3, 't'),
            (0, 5, 'f'),
            (0, 5, 'r'),
        ];
        for (shard, index, letter) in asked.into_iter().chain([(0, 3, 'f')]) {
            let sandbox = SandboxId { index, generation: 1 };
            orders.send(Order { shard, sandbox, wanted: wanted(letter) }).expect("its other end is here");
        }
        drop(orders);
        let done = RefCell::new(Vec::new());
        run(&inbox, Some, |order| {
            let letter = match order.wanted {
                Wanted::Frozen(()) => 'f',
                Wanted::Thawed(()) => 't',
                Wanted::Released(()) => 'r',
                Wanted::Demoted(()) => 'd',
                Wanted::Promoted(()) => 'p',
            };
            done.borrow_mut().push((order.shard, order.sandbox.index, letter));
        });
        let expected =
            [(0, 4, 'd'), (0, 2, 't'), (0, 4, 'p'), (0, 3, 't'), (0, 5, 'r'), (0, 1, 'f'), (1, 2, 'f'), (0, 3, 'f')];
        assert_eq!(done.into_inner(), expected);
    }
}
