//! The sandboxes of a shard: their states, their lanes, and the lists they are found through.
//!
//! Invariant: a sandbox is in exactly the list its state and lanes call for (`enlist`), and the gauges of what is
//! starting, idle, dying and charged follow from the same place. Memory is charged from the decision to start until
//! death is reported. Does not know what a sandbox is made of.

use alloc::vec::Vec;

use crate::effect::{Effect, Effects, KillReason, Outcome};
use crate::engine::Engine;
use crate::ids::SandboxId;
use crate::invocation::{Invocation, Phase};
use crate::list::{Linked, Links};
use crate::policy::keepalive::{Idle, Kind, Retention};
use crate::units::{Bytes, Nanos};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// Not ready yet. In its function's `starting` list.
    Starting,
    /// Takes invocations. In its function's `idle` or `partial` list, or in none when every lane is in use.
    Ready,
    /// Every lane is free and nothing in it runs. In its function's `frozen` list.
    Frozen,
    /// Is to run again, and takes invocations when it does. In its function's `thawing` list.
    Thawing,
    /// An invocation in it is overdue: takes no more, and is killed when the others are done. In no list.
    Closing,
    /// Told to die, or dead (`dead`). In the engine's `ending` list while invocations in its lanes are to be answered
    /// with `outcome`.
    Dying { dead: bool, outcome: Outcome },
}

#[derive(Debug)]
pub(crate) struct Sandbox {
    /// The slot of its function.
    pub(crate) function: u32,
    pub(crate) memory: Bytes,
    pub(crate) state: State,
    pub(crate) lanes: Lanes,
    /// Lanes in use whose invocation is overdue.
    pub(crate) overdue: u16,
    /// Lanes in use that are lent.
    pub(crate) lent: u16,
    /// Lanes in use whose run is past the quantum.
    pub(crate) long: u16,
    /// It was to give way, and has been given nothing since that found no run past the quantum in it.
    pub(crate) is_demoted: bool,
    pub(crate) started: Nanos,
    /// When it became ready, and the admission order at that moment; meaningless while starting.
    pub(crate) ready: Nanos,
    pub(crate) ready_order: u64,
    /// Whether it was started from its function's layer, once that was told.
    pub(crate) from_layer: Option<bool>,
    /// When its last lane became free, and the keep-alive policy's clock then; meaningless while one is in use.
    pub(crate) idle_since: Nanos,
    pub(crate) idle_clock: u64,
    /// It was advised to give memory back since then.
    pub(crate) is_trimmed: bool,
    /// Until freezing it has failed.
    pub(crate) may_freeze: bool,
    /// Whether it has been given an invocation.
    pub(crate) has_served: bool,
    /// While dying: lanes below this one are free. Makes ending all lanes linear in their number.
    pub(crate) ended_lanes: u16,
    pub(crate) links: Links,
}

impl Sandbox {
    pub(crate) fn new(function: u32, memory: Bytes, lanes: u16, started: Nanos) -> Sandbox {
        Sandbox {
            function,
            memory,
            state: State::Starting,
            lanes: Lanes::new(lanes),
            overdue: 0,
            lent: 0,
            long: 0,
            is_demoted: false,
            started,
            ready: Nanos::ZERO,
            ready_order: 0,
            from_layer: None,
            idle_since: Nanos::ZERO,
            idle_clock: 0,
            is_trimmed: false,
            may_freeze: true,
            has_served: false,
            ended_lanes: 0,
            links: Links::ALONE,
        }
    }

    /// A lane of it became free, or it is ready.
    pub(crate) fn rest(&mut self, now: Nanos, clock: u64) {
        self.idle_since = now;
        self.idle_clock = clock;
        self.is_trimmed = false;
    }

    fn is_idle(&self) -> bool {
        matches!(self.state, State::Ready | State::Frozen) && self.lanes.in_use == 0
    }
}

impl Linked for Sandbox {
    fn links(&self) -> &Links {
        &self.links
    }

    fn links_mut(&mut self) -> &mut Links {
        &mut self.links
    }
}

#[derive(Clone, Copy, Debug)]
enum Lane {
    Free {
        next: Option<u16>,
    },
    /// The slot of the invocation that runs here, or that it is lent for.
    InUse {
        invocation: u32,
    },
}

/// What runs where inside one sandbox.
#[derive(Debug)]
pub(crate) struct Lanes {
    lanes: Vec<Lane>,
    free: Option<u16>,
    pub(crate) in_use: u16,
}

impl Lanes {
    fn new(count: u16) -> Lanes {
        let lanes = (1..=count).map(|next| Lane::Free { next: (next < count).then_some(next) }).collect();
        Lanes { lanes, free: (count > 0).then_some(0), in_use: 0 }
    }

    pub(crate) fn count(&self) -> u16 {
        // Made from a u16.
        self.lanes.len() as u16
    }

    pub(crate) fn free(&self) -> u16 {
        self.count() - self.in_use
    }

    /// The invocation in a lane; `None` for a free lane and for one that does not exist.
    pub(crate) fn invocation(&self, lane: u16) -> Option<u32> {
        match self.lanes.get(usize::from(lane))? {
            Lane::InUse { invocation } => Some(*invocation),
            Lane::Free { .. } => None,
        }
    }

    pub(crate) fn take(&mut self, invocation: u32) -> u16 {
        let lane = self.free.expect("a listed sandbox has a free lane");
        let slot = &mut self.lanes[usize::from(lane)];
        let Lane::Free { next } = *slot else { unreachable!("the free list names free lanes") };
        self.free = next;
        *slot = Lane::InUse { invocation };
        self.in_use += 1;
        lane
    }

    pub(crate) fn release(&mut self, lane: u16) {
        self.lanes[usize::from(lane)] = Lane::Free { next: self.free };
        self.free = Some(lane);
        self.in_use -= 1;
    }

    /// A lane in use at or after `from`, and its invocation.
    pub(crate) fn next_in_use(&self, from: u16) -> Option<(u16, u32)> {
        (from..self.count()).find_map(|lane| Some((lane, self.invocation(lane)?)))
    }
}

impl Engine {
    /// The slot of exactly this sandbox, generation included; a report on any other is stale.
    pub(crate) fn resolve_sandbox(&mut self, id: SandboxId) -> Option<u32> {
        if self.sandboxes.holds(id.index, id.generation) {
            return Some(id.index);
        }
        self.stats.stale_events += 1;
        None
    }

    pub(crate) fn sandbox_id(&self, index: u32) -> SandboxId {
        SandboxId { index, generation: self.sandboxes.generation(index) }
    }

    /// Puts a sandbox where its state and lanes call for. Every change of either is made between `delist` and this.
    pub(crate) fn enlist(&mut self, index: u32) {
        let sandbox = &self.sandboxes[index];
        let (state, free, is_idle, memory) = (sandbox.state, sandbox.lanes.free(), sandbox.is_idle(), sandbox.memory);
        let slot = sandbox.function;
        let function = &mut self.functions[slot];
        match state {
            State::Starting => {
                function.warm.alive += 1;
                function.starting.push_back(&mut self.sandboxes, index);
                self.stats.starting += 1;
            }
            State::Ready => {
                function.warm.alive += 1;
                function.free_lanes += u64::from(free);
                if is_idle {
                    function.idle.push_front(&mut self.sandboxes, index);
                    self.count_idle(index);
                    self.watch_idle(index);
                } else if free > 0 {
                    function.partial.push_front(&mut self.sandboxes, index);
                }
            }
            State::Frozen => {
                function.warm.alive += 1;
                function.frozen.push_front(&mut self.sandboxes, index);
                self.stats.frozen += 1;
                self.count_idle(index);
            }
            State::Thawing => {
                function.warm.alive += 1;
                function.thawing.push_back(&mut self.sandboxes, index);
                self.stats.thawing += 1;
            }
            State::Closing => {}
            State::Dying { .. } => {
                function.settled += 1;
                self.stats.dying += 1;
                self.stats.dying_memory = self.stats.dying_memory.saturating_add(memory);
                if self.sandboxes[index].lanes.in_use > 0 {
                    self.ending.push_back(&mut self.sandboxes, index);
                }
            }
        }
    }

    /// The inverse of `enlist`, for states that are left again.
    pub(crate) fn delist(&mut self, index: u32) {
        let sandbox = &self.sandboxes[index];
        let (state, free, is_idle) = (sandbox.state, sandbox.lanes.free(), sandbox.is_idle());
        let slot = sandbox.function;
        let function = &mut self.functions[slot];
        match state {
            State::Starting => {
                function.warm.alive -= 1;
                function.starting.remove(&mut self.sandboxes, index);
                self.sandbox_deadlines.remove(index);
                self.stats.starting -= 1;
            }
            State::Ready => {
                function.warm.alive -= 1;
                function.free_lanes -= u64::from(free);
                if is_idle {
                    function.idle.remove(&mut self.sandboxes, index);
                    self.uncount_idle(index);
                } else if free > 0 {
                    function.partial.remove(&mut self.sandboxes, index);
                }
            }
            State::Frozen => {
                function.warm.alive -= 1;
                function.frozen.remove(&mut self.sandboxes, index);
                self.stats.frozen -= 1;
                self.uncount_idle(index);
            }
            State::Thawing => {
                function.warm.alive -= 1;
                function.thawing.remove(&mut self.sandboxes, index);
                self.sandbox_deadlines.remove(index);
                self.stats.thawing -= 1;
            }
            State::Closing => {}
            State::Dying { .. } => unreachable!("a dying sandbox only ends"),
        }
    }

    fn count_idle(&mut self, index: u32) {
        self.stats.idle += 1;
        self.stats.idle_memory = self.stats.idle_memory.saturating_add(self.sandboxes[index].memory);
        self.functions[self.sandboxes[index].function].settled += 1;
        self.retain(index);
    }

    /// The inverse.
    fn uncount_idle(&mut self, index: u32) {
        self.stats.idle -= 1;
        self.stats.idle_memory = self.stats.idle_memory.saturating_sub(self.sandboxes[index].memory);
        self.functions[self.sandboxes[index].function].settled -= 1;
        self.idle_order.remove(index);
        self.unkeep(index);
        self.sandbox_deadlines.remove(index);
    }

    /// Asks the keep-alive policy about a sandbox that has become idle, or that was and is frozen or is not any more.
    fn retain(&mut self, index: u32) {
        let retention = self.weigh_sandbox(index);
        let order = self.next_order();
        self.idle_order.set(index, (retention.priority, order));
        if let Some(until) = retention.until {
            self.sandbox_deadlines.set(index, (until.as_nanos(), order));
        }
        if self.functions[self.sandboxes[index].function].warm.needs_all() {
            self.keep(index);
        }
    }

    /// What the keep-alive policy thinks of an idle sandbox: losing it costs a start from the layer where there is one.
    pub(crate) fn weigh_sandbox(&self, index: u32) -> Retention {
        let sandbox = &self.sandboxes[index];
        let function = &self.functions[sandbox.function];
        self.policies.keepalive.retain(&Idle {
            kind: Kind::Sandbox,
            since: sandbox.idle_since,
            clock: sandbox.idle_clock,
            uses: function.uses,
            cost: function.profile.start(function.is_layered),
            memory: sandbox.memory,
        })
    }

    /// Moves a living sandbox to another state.
    pub(crate) fn become_state(&mut self, index: u32, state: State) {
        self.delist(index);
        self.sandboxes[index].state = state;
        self.enlist(index);
        self.refresh(self.sandboxes[index].function);
    }

    /// Tells a living sandbox to die; what runs in it is answered with `outcome`.
    pub(crate) fn kill(&mut self, index: u32, reason: KillReason, outcome: Outcome, effects: &mut Effects) {
        self.stats.count_killed(reason);
        effects.push(Effect::Kill { sandbox: self.sandbox_id(index), reason });
        self.become_state(index, State::Dying { dead: false, outcome });
    }

    /// Ends an idle sandbox, whatever the keep-alive policy says.
    pub(crate) fn replace(&mut self, id: SandboxId, effects: &mut Effects) {
        if let Some(index) = self.resolve_sandbox(id)
            && self.sandboxes[index].is_idle()
        {
            self.kill(index, KillReason::Worn, Outcome::SandboxDied, effects);
        }
    }

    /// Frees the slot of a dead sandbox with no lane in use, and what it was charged.
    pub(crate) fn bury(&mut self, index: u32) {
        let sandbox = self.sandboxes.remove(index);
        self.idle_looks.remove(index);
        self.stats.dying -= 1;
        self.stats.dying_memory = self.stats.dying_memory.saturating_sub(sandbox.memory);
        self.stats.sandboxes -= 1;
        self.stats.memory = self.stats.memory.saturating_sub(sandbox.memory);
        self.stats.ended += 1;
        let function = &mut self.functions[sandbox.function];
        function.sandboxes -= 1;
        function.settled -= 1;
        function.forget_uses();
        self.refresh(sandbox.function);
    }

    /// Ends one lane of a sandbox that is dying or dead, and says so to whom it concerns. Whether there was one.
    pub(crate) fn end_one_lane(&mut self, effects: &mut Effects) -> bool {
        let Some(index) = self.ending.front() else {
            return false;
        };
        let sandbox = &self.sandboxes[index];
        let State::Dying { dead, outcome } = sandbox.state else { unreachable!("only dying sandboxes are ending") };
        let (lane, invocation) =
            sandbox.lanes.next_in_use(sandbox.ended_lanes).expect("an ending sandbox has a lane in use");
        let Invocation { answered, phase, function, .. } = self.invocations[invocation];
        // Nothing of a reserved one has run, so it may be queued anew; unless nothing is queued any more.
        let may_come_again = matches!(phase, Phase::Reserved(_)) && outcome != Outcome::Draining;
        match (answered, may_come_again) {
            (true, _) => {}
            (false, true) => self.unreserve(invocation, effects),
            (false, false) => self.answer(invocation, outcome, effects),
        }
        if let Phase::Running(run) = phase {
            self.end_turn(invocation, run);
            self.stats.running -= 1;
        } else {
            self.unlend(invocation);
            self.refresh(function);
        }
        self.forget(invocation);
        let sandbox = &mut self.sandboxes[index];
        sandbox.lanes.release(lane);
        // The last lane there can be is u16::MAX - 1: their number is a u16.
        sandbox.ended_lanes = lane + 1;
        if self.sandboxes[index].lanes.in_use == 0 {
            self.ending.remove(&mut self.sandboxes, index);
            if dead {
                self.bury(index);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_given_once_until_released() {
        let mut lanes = Lanes::new(3);
        let taken = [lanes.take(10), lanes.take(11), lanes.take(12)];
        assert_eq!(taken, [0, 1, 2]);
        assert_eq!((lanes.in_use, lanes.free()), (3, 0));
        lanes.release(1);
        assert_eq!(lanes.invocation(1), None);
        assert_eq!(lanes.take(13), 1);
        assert_eq!(lanes.invocation(1), Some(13));
        assert_eq!(lanes.invocation(3), None, "a lane that does not exist holds nothing");
        assert_eq!(lanes.next_in_use(2), Some((2, 12)));
    }

    #[test]
    fn the_most_lanes_there_can_be() {
        let lanes = Lanes::new(u16::MAX);
        assert_eq!((lanes.count(), lanes.free()), (u16::MAX, u16::MAX));
    }
}
