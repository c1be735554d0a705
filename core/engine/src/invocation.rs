//! An admitted invocation: what the engine remembers of it, and the one place where it is answered.
//!
//! Invariant: answered exactly once, or withdrawn while it is reserved; its slot is kept until nothing refers to it,
//! which for one that has a lane is when that is free, answered or not. Does not know its payload or who asked beyond the driver's word.

use crate::effect::{Effect, Effects, Outcome, StartKind};
use crate::engine::Engine;
use crate::ids::{InvocationId, Origin};
use crate::list::{Linked, Links};
use crate::quantum::Turn;
use crate::units::Nanos;

#[derive(Debug)]
pub(crate) struct Invocation {
    pub(crate) origin: Origin,
    /// The slot of its function.
    pub(crate) function: u32,
    /// Place in the order of all admissions of the shard.
    pub(crate) order: u64,
    pub(crate) arrived: Nanos,
    /// Answered or withdrawn: nothing more is said of it.
    pub(crate) answered: bool,
    pub(crate) phase: Phase,
    /// In its function's `waiting` list while queued, in its `lent` list while its lane is lent and not asked for, in the engine's `fresh`
    /// list while its run is within the quantum.
    pub(crate) links: Links,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Phase {
    Queued,
    /// Its payload is still arriving, in a lane lent for it.
    Reserved(Loan),
    Running(Run),
    /// Answered; its lane is lent while the answer is sent.
    Held(Loan),
}

/// A lane lent to the driver.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loan {
    /// The slot of its sandbox.
    pub(crate) sandbox: u32,
    pub(crate) lane: u16,
    pub(crate) recall: Recall,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Recall {
    /// Not asked for. In its function's `lent` list and in the engine's `lent_order`.
    Open,
    /// Asked for: it is about to be given back. Counted in `asked`.
    Asked,
    /// Not asked for, because its sandbox takes no more.
    Pointless,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// The slot of its sandbox.
    pub(crate) sandbox: u32,
    pub(crate) lane: u16,
    pub(crate) dispatched: Nanos,
    pub(crate) start: StartKind,
    /// Its time has passed; its lane is not free yet.
    pub(crate) overdue: bool,
    pub(crate) turn: Turn,
}

impl Linked for Invocation {
    fn links(&self) -> &Links {
        &self.links
    }

    fn links_mut(&mut self) -> &mut Links {
        &mut self.links
    }
}

impl Engine {
    pub(crate) fn invocation_id(&self, index: u32) -> InvocationId {
        InvocationId { index, generation: self.invocations.generation(index) }
    }

    /// Tells the one who asked.
    pub(crate) fn answer(&mut self, index: u32, outcome: Outcome, effects: &mut Effects) {
        let id = self.invocation_id(index);
        let invocation = &mut self.invocations[index];
        assert!(!invocation.answered, "an invocation was about to be answered twice");
        invocation.answered = true;
        self.stats.count_answered(outcome);
        effects.push(Effect::Answer { invocation: id, origin: invocation.origin, outcome });
    }

    /// Frees the slot of an answered invocation that is in no queue and no lane.
    pub(crate) fn forget(&mut self, index: u32) {
        self.invocation_deadlines.remove(index);
        let invocation = self.invocations.remove(index);
        assert!(invocation.answered, "an invocation was about to be forgotten unanswered");
    }
}
