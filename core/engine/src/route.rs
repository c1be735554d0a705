//! The function table: what the shard knows of each function, by the driver's index.
//!
//! Invariant: a function stays in its slot until it is retired, nothing of it waits and no sandbox of it is alive.
//! Does not know names: those are the driver's.

use alloc::vec::Vec;
use core::ops::{Index, IndexMut};

use crate::event::FunctionSpec;
use crate::ids::FunctionId;
use crate::layers::Layer;
use crate::list::List;
use crate::policy::Profile;
use crate::warm::Warm;

#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) id: FunctionId,
    pub(crate) spec: FunctionSpec,
    pub(crate) retired: bool,
    /// Invocations waiting, oldest first.
    pub(crate) waiting: List,
    /// Sandboxes starting, oldest first.
    pub(crate) starting: List,
    /// Sandboxes ready with some lanes free and some in use, most recently used first.
    pub(crate) partial: List,
    /// Sandboxes ready with every lane free, most recently used first.
    pub(crate) idle: List,
    /// Sandboxes frozen, most recently frozen first.
    pub(crate) frozen: List,
    /// Sandboxes being thawed.
    pub(crate) thawing: List,
    /// Sandboxes alive, in whatever state.
    pub(crate) sandboxes: u32,
    /// Free lanes over `partial` and `idle`.
    pub(crate) free_lanes: u64,
    /// Invocations whose lanes are lent and not asked for, lent for longest first.
    pub(crate) lent: List,
    /// Lanes asked for and not given back.
    pub(crate) asked: u32,
    /// Oldest waiting invocations to be told that a start failed, among those admitted before `failing_before`.
    pub(crate) failing: u32,
    pub(crate) failing_before: u64,
    /// Whether it may be in one of the engine's orders of functions.
    pub(crate) is_ordered: bool,
    /// Whether it is in the engine's list of chores.
    pub(crate) has_chore: bool,
    pub(crate) profile: Profile,
    pub(crate) warm: Warm,
    /// What this shard is charged for, or asked to be.
    pub(crate) layer: Option<Layer>,
    /// The next start is expected to be from a layer, whichever shard is charged for it.
    pub(crate) is_layered: bool,
    /// Invocations dispatched since the shard had neither sandbox nor layer of it.
    pub(crate) uses: u64,
    /// Sandboxes idle or dying.
    pub(crate) settled: u32,
    /// Idle sandboxes that are within the warm target.
    pub(crate) kept: u32,
}

impl Function {
    pub(crate) fn new(id: FunctionId, spec: FunctionSpec) -> Function {
        Function {
            id,
            spec: FunctionSpec { concurrency: spec.concurrency.max(1), ..spec },
            retired: false,
            waiting: List::EMPTY,
            starting: List::EMPTY,
            partial: List::EMPTY,
            idle: List::EMPTY,
            frozen: List::EMPTY,
            thawing: List::EMPTY,
            sandboxes: 0,
            free_lanes: 0,
            lent: List::EMPTY,
            asked: 0,
            failing: 0,
            failing_before: 0,
            is_ordered: false,
            has_chore: false,
            profile: Profile::default(),
            warm: Warm::new(spec.min_warm),
            layer: None,
            is_layered: false,
            uses: 0,
            settled: 0,
            kept: 0,
        }
    }

    /// Whether more wait than the lanes free now, those asked for and those coming will take.
    pub(crate) fn is_short_of_lanes(&self) -> bool {
        let sandboxes = u64::from(self.starting.len()) + u64::from(self.thawing.len());
        let coming = sandboxes * u64::from(self.spec.concurrency);
        u64::from(self.waiting.len()) > self.free_lanes + u64::from(self.asked) + coming
    }

    /// Whether more wait than the lanes free now and those asked for will take, and there are lent ones to ask for.
    pub(crate) fn wants_lanes_back(&self) -> bool {
        !self.lent.is_empty() && u64::from(self.waiting.len()) > self.free_lanes + u64::from(self.asked)
    }

    /// A sandbox that nothing runs in.
    pub(crate) fn first_unneeded(&self) -> Option<u32> {
        [&self.idle, &self.frozen, &self.thawing, &self.starting].into_iter().find_map(|list| list.front())
    }

    /// The sandbox that the next invocation goes to: a partly used one before an idle one, the most recently used first.
    pub(crate) fn next_sandbox(&self) -> Option<u32> {
        self.partial.front().or(self.idle.front())
    }
}

/// Slots by `FunctionId::index`.
#[derive(Debug)]
pub(crate) struct Routes {
    slots: Vec<Option<Function>>,
}

impl Routes {
    pub(crate) fn new(capacity: u32) -> Routes {
        Routes { slots: (0..capacity).map(|_| None).collect() }
    }

    pub(crate) fn capacity(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Whether a function with this index could be put in.
    pub(crate) fn is_vacant(&self, index: u32) -> bool {
        self.slots.get(index as usize).is_some_and(Option::is_none)
    }

    pub(crate) fn put(&mut self, function: Function) {
        let index = function.id.index as usize;
        self.slots[index] = Some(function);
    }

    pub(crate) fn take(&mut self, index: u32) {
        self.slots[index as usize] = None;
    }

    /// The slot of exactly this function, generation included.
    pub(crate) fn resolve(&self, id: FunctionId) -> Option<u32> {
        self.get(id.index).is_some_and(|function| function.id == id).then_some(id.index)
    }

    pub(crate) fn get(&self, index: u32) -> Option<&Function> {
        self.slots.get(index as usize)?.as_ref()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Function> {
        self.slots.iter().flatten()
    }
}

impl Index<u32> for Routes {
    type Output = Function;

    fn index(&self, index: u32) -> &Function {
        self.slots[index as usize].as_ref().expect("an index kept by the engine names a function it knows")
    }
}

impl IndexMut<u32> for Routes {
    fn index_mut(&mut self, index: u32) -> &mut Function {
        self.slots[index as usize].as_mut().expect("an index kept by the engine names a function it knows")
    }
}
