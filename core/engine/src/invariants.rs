//! What must hold between any two steps, checked by looking at everything.
//!
//! Invariant: nothing here changes the engine. Costs time in proportion to all that it holds: for tests, not for the
//! path of an invocation.

use crate::drain::DrainPhase;
use crate::engine::Engine;
use crate::invocation::{Invocation, Loan, Phase, Recall, Run};
use crate::layers::{Grip, Standing};
use crate::list::List;
use crate::provision::{Room, Wanted};
use crate::quantum::Turn;
use crate::route::Function;
use crate::sandboxes::{Sandbox, State};
use crate::units::Bytes;

/// Counted anew from the tables.
#[derive(Default)]
struct Recount {
    queued: u32,
    running: u32,
    reserved: u32,
    held: u32,
    asked: u32,
    starting: u32,
    idle: u32,
    frozen: u32,
    thawing: u32,
    dying: u32,
    memory: Bytes,
    idle_memory: Bytes,
    dying_memory: Bytes,
    ending: u32,
    timed_sandboxes: u32,
    kept: u32,
    kept_memory: Bytes,
    warm_missing: u32,
    fresh: u32,
    layers: u32,
    layer_memory: Bytes,
    loose_layer_memory: Bytes,
    kept_layer_memory: Bytes,
    dropping_memory: Bytes,
    offered: u32,
    unused_layers: u32,
}

impl Engine {
    /// Checks the engine's books against each other and against its limits.
    ///
    /// # Panics
    /// When they disagree, which is a defect of the engine, whatever its driver did.
    pub fn check_invariants(&self) {
        let mut seen = Recount::default();
        for (index, invocation) in self.invocations.iter() {
            self.check_invocation(index, invocation, &mut seen);
        }
        for (index, sandbox) in self.sandboxes.iter() {
            self.check_sandbox(index, sandbox, &mut seen);
        }
        for function in self.functions.iter() {
            self.check_function(function);
            self.check_warm(function, &mut seen);
            self.check_layer(function, &mut seen);
        }
        self.check_gauges(&seen);
        self.check_limits();
        if self.next_wake() != Some(self.now) {
            self.check_at_rest();
        }
    }

    fn check_invocation(&self, index: u32, invocation: &Invocation, seen: &mut Recount) {
        let has_deadline = self.invocation_deadlines.contains(index);
        match invocation.phase {
            Phase::Queued => {
                seen.queued += 1;
                assert!(!invocation.answered && has_deadline, "a waiting invocation is unanswered and has a deadline");
            }
            Phase::Running(run) => {
                seen.running += 1;
                let sandbox = &self.sandboxes[run.sandbox];
                assert_eq!(sandbox.lanes.invocation(run.lane), Some(index), "a run is in the lane it was given");
                assert_eq!(sandbox.function, invocation.function, "a run is in a sandbox of its function");
                assert!(has_deadline != run.overdue, "a run has a deadline until it passes");
                assert!(!run.overdue || invocation.answered, "an overdue run is answered");
                let is_fresh = self.fresh.iter(&self.invocations).any(|other| other == index);
                assert_eq!(is_fresh, run.turn == Turn::Fresh, "the runs within their quantum are watched");
                assert_eq!(run.turn == Turn::Unwatched, self.policies.quantum.is_none());
                seen.fresh += u32::from(is_fresh);
            }
            Phase::Reserved(loan) => {
                seen.reserved += 1;
                let state = self.sandboxes[loan.sandbox].state;
                let is_dying = matches!(state, State::Dying { .. });
                assert!(!invocation.answered || is_dying, "a reservation that is over has no lane");
                self.check_loan(index, invocation, loan, seen);
            }
            Phase::Held(loan) => {
                seen.held += 1;
                assert!(invocation.answered, "a held invocation is answered");
                self.check_loan(index, invocation, loan, seen);
            }
        }
    }

    fn check_loan(&self, index: u32, invocation: &Invocation, loan: Loan, seen: &mut Recount) {
        seen.asked += u32::from(loan.recall == Recall::Asked);
        let sandbox = &self.sandboxes[loan.sandbox];
        assert_eq!(sandbox.lanes.invocation(loan.lane), Some(index), "a loan is of the lane it names");
        assert_eq!(sandbox.function, invocation.function, "a loan is of a sandbox of its function");
        assert!(!self.invocation_deadlines.contains(index), "a lent lane has no deadline");
        let is_open = loan.recall == Recall::Open;
        let is_listed = self.functions[invocation.function].lent.iter(&self.invocations).any(|other| other == index);
        assert_eq!(
            (is_listed, self.lent_order.contains(index)),
            (is_open, is_open),
            "only open loans can be asked for"
        );
    }

    fn check_sandbox(&self, index: u32, sandbox: &Sandbox, seen: &mut Recount) {
        seen.memory = seen.memory.saturating_add(sandbox.memory);
        let function = &self.functions[sandbox.function];
        let (frozen, thawing) = (&function.frozen, &function.thawing);
        let lists = [&function.starting, &function.partial, &function.idle, frozen, thawing, &self.ending];
        let is_listed = lists.map(|list| list.iter(&self.sandboxes).any(|other| other == index));
        let in_use = sandbox.lanes.in_use;
        let counted = (0..sandbox.lanes.count()).filter(|&lane| sandbox.lanes.invocation(lane).is_some()).count();
        assert_eq!(counted, usize::from(in_use), "the lanes in use are counted");
        let is_lent = |lane: &u16| {
            let invocation = sandbox.lanes.invocation(*lane);
            invocation.is_some_and(|it| matches!(self.invocations[it].phase, Phase::Reserved(_) | Phase::Held(_)))
        };
        let lent = (0..sandbox.lanes.count()).filter(is_lent).count();
        assert_eq!(lent, usize::from(sandbox.lent), "the lanes lent are counted");
        let is_long = |lane: &u16| {
            let phase = sandbox.lanes.invocation(*lane).map(|invocation| self.invocations[invocation].phase);
            matches!(phase, Some(Phase::Running(Run { turn: Turn::Long, .. })))
        };
        let long = (0..sandbox.lanes.count()).filter(is_long).count();
        assert_eq!(long, usize::from(sandbox.long), "the runs past their quantum are counted");
        assert!(long == 0 || sandbox.is_demoted, "a sandbox with a run past its quantum gives way");
        let is_frozen = sandbox.state == State::Frozen;
        let is_idle = is_frozen || sandbox.state == State::Ready && in_use == 0;
        let expected = match sandbox.state {
            State::Starting => {
                seen.starting += 1;
                [true, false, false, false, false, false]
            }
            State::Ready => [false, in_use > 0 && sandbox.lanes.free() > 0, is_idle, false, false, false],
            State::Frozen | State::Thawing => {
                assert_eq!(in_use, 0, "nothing runs in a frozen sandbox");
                seen.frozen += u32::from(is_frozen);
                seen.thawing += u32::from(!is_frozen);
                [false, false, false, is_frozen, !is_frozen, false]
            }
            State::Closing => {
                assert!(sandbox.overdue + sandbox.lent < in_use, "a closing sandbox waits for a run in time");
                [false; 6]
            }
            State::Dying { dead, .. } => {
                seen.dying += 1;
                seen.dying_memory = seen.dying_memory.saturating_add(sandbox.memory);
                assert!(in_use > 0 || !dead, "a dead sandbox is kept only for its answers");
                [false, false, false, false, false, in_use > 0]
            }
        };
        assert_eq!(is_listed, expected, "a sandbox in state {:?} is in the list of that state", sandbox.state);
        seen.ending += u32::from(expected[5]);
        self.check_frost(index, sandbox);
        if is_idle {
            seen.idle += 1;
            seen.idle_memory = seen.idle_memory.saturating_add(sandbox.memory);
        }
        let is_kept = self.kept_order.contains(index);
        assert_eq!(self.idle_order.contains(index), is_idle && !is_kept, "exactly the idle sandboxes can be evicted");
        assert!(is_idle || !is_kept, "only idle sandboxes are kept");
        if is_kept {
            seen.kept += 1;
            seen.kept_memory = seen.kept_memory.saturating_add(sandbox.memory);
        }
        let is_timed = self.sandbox_deadlines.contains(index);
        let is_coming = matches!(sandbox.state, State::Starting | State::Thawing);
        assert!(is_timed || !is_coming, "a start and a thaw have deadlines");
        assert!(!is_timed || is_idle && !is_kept || is_coming, "only starts, thaws and idleness have deadlines");
        seen.timed_sandboxes += u32::from(is_timed);
    }

    fn check_frost(&self, index: u32, sandbox: &Sandbox) {
        let spec = &self.functions[sandbox.function].spec;
        let watched = self.idle_looks.key(index).map(|(at, _)| at);
        let is_watchable = spec.trim_after.is_some() || spec.freeze_after.is_some();
        assert!(watched.is_none() || is_watchable, "a function that is left alone is not watched");
        let is_awake = sandbox.state == State::Ready && sandbox.lanes.in_use == 0;
        let due = self.idle_step(index).filter(|_| is_awake).map(|due| due.at.as_nanos());
        assert!(due.is_none_or(|due| watched.is_some_and(|at| at <= due)), "an idle sandbox is looked at in time");
    }

    fn check_function(&self, function: &Function) {
        let slot = function.id.index;
        let own = |(_, sandbox): &(u32, &Sandbox)| sandbox.function == slot;
        assert_eq!(function.sandboxes as usize, self.sandboxes.iter().filter(own).count());
        for list in [&function.starting, &function.partial, &function.idle, &function.frozen, &function.thawing] {
            assert_eq!(list.iter(&self.sandboxes).count(), list.len() as usize, "a list knows its length");
        }
        let available = |list: &List| {
            list.iter(&self.sandboxes).map(|index| u64::from(self.sandboxes[index].lanes.free())).sum::<u64>()
        };
        assert_eq!(function.free_lanes, available(&function.partial) + available(&function.idle));
        let orders = || function.waiting.iter(&self.invocations).map(|index| self.invocations[index].order);
        assert!(orders().is_sorted(), "a queue is in order of admission");
        let head = orders().next();
        assert_eq!(function.waiting.iter(&self.invocations).count(), function.waiting.len() as usize);
        assert!(function.waiting.len() <= self.limits.queue_per_function, "a queue exceeds its limit");
        assert!(function.sandboxes <= self.limits.sandboxes_per_function, "a function exceeds its sandboxes");

        let may_thaw = function.is_short_of_lanes() && !function.frozen.is_empty();
        let has_room = function.sandboxes < self.limits.sandboxes_per_function;
        let may_start = function.is_short_of_lanes() && !may_thaw && has_room;
        assert_eq!(self.frosted.contains(slot), head.is_some() && may_thaw);
        assert_eq!(self.runnable.contains(slot), head.is_some() && function.free_lanes > 0);
        assert_eq!(self.starved.contains(slot), head.is_some() && may_start);
        assert_eq!(self.wanting.contains(slot), function.wants_lanes_back());
        assert_eq!(function.is_ordered, head.is_some(), "a function is ordered by what waits of it");
        let is_asked = |(_, invocation): &(u32, &Invocation)| {
            let (Phase::Reserved(loan) | Phase::Held(loan)) = invocation.phase else { return false };
            invocation.function == slot && loan.recall == Recall::Asked
        };
        assert_eq!(function.asked as usize, self.invocations.iter().filter(is_asked).count(), "asked");
        for heap in [&self.runnable, &self.starved, &self.wanting, &self.frosted] {
            assert!(heap.key(slot).is_none_or(|(_, order)| Some(order) == head), "an order knows the present head");
        }
        assert_eq!(function.has_chore, self.chores.contains(&slot), "a chore is noted once");
    }

    fn check_warm(&self, function: &Function, seen: &mut Recount) {
        let (slot, warm) = (function.id.index, &function.warm);
        let own = || self.sandboxes.iter().filter(|(_, sandbox)| sandbox.function == slot);
        let alive = own().filter(|(_, sandbox)| {
            matches!(sandbox.state, State::Starting | State::Ready | State::Frozen | State::Thawing)
        });
        assert_eq!(alive.count(), warm.alive as usize, "starting and ready sandboxes are counted");
        assert_eq!(warm.missing, warm.target.saturating_sub(warm.alive), "what lacks of the target is known");
        seen.warm_missing += warm.missing;
        let kept = own().filter(|&(index, _)| self.kept_order.contains(index)).count();
        let is_leaving = function.retired || self.drain.is_on();
        assert!(is_leaving || kept <= warm.target as usize, "no more are kept than the target");
        let is_listed = [self.short_of_warm.contains(slot), self.warm_pauses.contains(slot)];
        assert!(is_listed != [true, true], "a function that pauses is not served");
        assert_eq!(is_listed.contains(&true), self.may_start_warm(slot), "exactly who may start is in an order");
    }

    fn check_layer(&self, function: &Function, seen: &mut Recount) {
        let slot = function.id.index;
        let own = || self.sandboxes.iter().filter(|(_, sandbox)| sandbox.function == slot);
        let is_kept = |&(index, _): &(u32, &Sandbox)| self.kept_order.contains(index);
        let is_settled = |&(_, sandbox): &(u32, &Sandbox)| match sandbox.state {
            State::Ready => sandbox.lanes.in_use == 0,
            State::Frozen | State::Dying { .. } => true,
            State::Starting | State::Thawing | State::Closing => false,
        };
        assert_eq!(function.settled as usize, own().filter(is_settled).count(), "idle and dying sandboxes are counted");
        assert_eq!(function.kept as usize, own().filter(is_kept).count(), "kept sandboxes are counted");
        let standing = function.layer.map(|layer| layer.standing);
        let memory = function.layer.map_or(Bytes::ZERO, |layer| layer.memory);
        assert_eq!(self.offered.contains(slot), standing == Some(Standing::Offered), "what has no place is in order");
        let is_unused = standing == Some(Standing::Held(Grip::None));
        assert_eq!(self.layer_order.contains(slot), is_unused, "exactly the idle layers can be evicted");
        assert!(is_unused || !self.layer_deadlines.contains(slot), "only idle layers have a deadline");
        seen.offered += u32::from(self.offered.contains(slot));
        seen.unused_layers += u32::from(is_unused);
        match standing {
            Some(Standing::Held(grip)) => {
                let others = own().filter(|one| !is_settled(one)).count();
                let expected = match (own().count(), others, own().filter(is_kept).count()) {
                    (0, ..) => Grip::None,
                    (_, 0, 0) => Grip::Loose,
                    (_, 0, _) => Grip::Kept,
                    _ => Grip::InUse,
                };
                assert_eq!(grip, expected, "it is known what is in the way of dropping a layer");
                let gauge = match grip {
                    Grip::InUse => None,
                    Grip::Kept => Some(&mut seen.kept_layer_memory),
                    Grip::Loose | Grip::None => Some(&mut seen.loose_layer_memory),
                };
                gauge.into_iter().for_each(|gauge| *gauge = gauge.saturating_add(memory));
            }
            Some(Standing::Dropping { is_charged: true }) => {
                seen.dropping_memory = seen.dropping_memory.saturating_add(memory);
            }
            Some(Standing::Dropping { is_charged: false } | Standing::Offered) | None => return,
        }
        seen.layers += 1;
        seen.layer_memory = seen.layer_memory.saturating_add(memory);
    }

    fn check_gauges(&self, seen: &Recount) {
        let stats = &self.stats;
        assert_eq!(stats.functions as usize, self.functions.iter().count(), "functions");
        assert_eq!(stats.queued, seen.queued, "queued");
        assert_eq!(stats.running, seen.running, "running");
        assert_eq!(self.fresh.len(), seen.fresh, "runs within their quantum");
        assert_eq!(stats.reserved, seen.reserved, "reserved");
        assert_eq!(stats.held, seen.held, "held");
        assert_eq!(self.asked, seen.asked, "asked");
        assert!(self.asked + self.lent_order.len() <= seen.reserved + seen.held, "a loan that is none");
        assert_eq!(stats.sandboxes, self.sandboxes.len(), "sandboxes");
        assert_eq!(stats.starting, seen.starting, "starting");
        assert_eq!(stats.idle, seen.idle, "idle");
        assert_eq!((stats.frozen, stats.thawing), (seen.frozen, seen.thawing), "frozen and thawing");
        assert_eq!(stats.dying, seen.dying, "dying");
        assert_eq!(stats.memory, seen.memory, "memory");
        assert_eq!(stats.idle_memory, seen.idle_memory, "idle memory");
        assert_eq!(stats.dying_memory, seen.dying_memory, "dying memory");
        assert_eq!(self.ending.len(), seen.ending, "ending");
        assert_eq!(self.idle_order.len() + self.kept_order.len(), seen.idle, "idle order");
        assert_eq!((stats.kept, stats.kept_memory), (seen.kept, seen.kept_memory), "kept");
        assert_eq!(stats.warm_missing, seen.warm_missing, "missing of warm targets");
        assert_eq!((stats.layers, stats.layer_memory), (seen.layers, seen.layer_memory), "layers");
        assert_eq!(stats.loose_layer_memory, seen.loose_layer_memory, "memory of layers that could go");
        assert_eq!(stats.kept_layer_memory, seen.kept_layer_memory, "memory of layers that could go last");
        assert_eq!(stats.dropping_memory, seen.dropping_memory, "memory of layers that go");
        assert_eq!(self.offered.len(), seen.offered, "layers without a place");
        assert_eq!(self.layer_order.len(), seen.unused_layers, "layer order");
        assert_eq!(self.sandbox_deadlines.len(), seen.timed_sandboxes, "sandbox deadlines");
        let placed = seen.running + seen.reserved + seen.held;
        assert_eq!(seen.queued + placed, self.invocations.len(), "an invocation waits or has a lane");
        let waiting: u32 = self.functions.iter().map(|function| function.waiting.len()).sum();
        assert_eq!(waiting, seen.queued, "every waiting invocation is in a queue");
        let ended = crate::Outcome::ALL.map(|outcome| stats.answered(outcome)).iter().sum::<u64>();
        let unanswered = self.invocations.iter().filter(|(_, invocation)| !invocation.answered).count();
        let over = ended + stats.withdrawn;
        assert_eq!(stats.admitted, over + unanswered as u64, "every admitted invocation is answered or withdrawn once");
    }

    fn check_limits(&self) {
        let (stats, limits) = (&self.stats, &self.limits);
        assert!(stats.functions <= limits.functions, "functions exceed their limit");
        assert!(self.invocations.len() <= limits.invocations, "invocations exceed their limit");
        assert!(stats.sandboxes <= limits.sandboxes, "sandboxes exceed their limit");
        assert!(stats.starting <= limits.starting, "starts exceed their limit");
        assert!(stats.memory.saturating_add(stats.layer_memory) <= limits.memory, "memory exceeds its limit");
        assert!(stats.running + stats.reserved <= self.policies.concurrency.limit(), "runs exceed their limit");
    }

    /// What must hold when no work is left over: nothing that could be done is not.
    fn check_at_rest(&self) {
        assert!(self.ending.is_empty() && self.chores.is_empty(), "work was left over silently");
        assert!(self.functions.iter().all(|function| function.failing == 0), "a failed start was not told");
        assert!(!self.has_place() || self.runnable.first().is_none(), "a lane and a place are free and work waits");
        assert!(self.wanting.first().is_none(), "a lane is wanted back and not asked for");
        if let Some((_, slot)) = self.starved.first() {
            let stats = &self.stats;
            let may_start = stats.starting < self.limits.starting
                && self.has_place_for_another()
                && stats.sandboxes < self.limits.sandboxes
                && self.room_for(Wanted::Sandbox(self.functions[slot].spec.memory)) == Room::Free;
            assert!(!may_start, "there is room for a sandbox that is wanted");
        }
        assert!(
            self.frosted.first().is_none() || !self.has_place_for_another(),
            "a frozen sandbox could be thawed for who waits"
        );
        let looks = &self.idle_looks;
        let (layers, offered) = (&self.layer_deadlines, &self.offered);
        for heap in [&self.invocation_deadlines, &self.sandbox_deadlines, &self.warm_pauses, looks, layers, offered] {
            assert!(heap.first().is_none_or(|((at, _), _)| at > self.now.as_nanos()), "a deadline has passed");
        }
        if let Some((_, slot)) = self.short_of_warm.first() {
            let may_start = self.starved.first().is_none()
                && self.stats.starting < self.limits.warm_starting()
                && !self.is_awaited(Wanted::Sandbox(self.functions[slot].spec.memory));
            assert!(!may_start, "a warm start could begin");
        }
        if let Some((_, slot)) = self.offered.first() {
            let memory = self.functions[slot].layer.map_or(Bytes::ZERO, |layer| layer.memory);
            let may_wait = self.somebody_lacks_room() || self.is_awaited(Wanted::Layer(memory));
            assert!(may_wait, "a layer could be given a place, or refused one");
        }
        let is_empty = self.invocations.len() == 0 && self.sandboxes.len() == 0;
        assert!(!is_empty || matches!(self.drain, DrainPhase::Off | DrainPhase::Done), "drained, and not said");
    }

    /// Whether there will be room by what is ending alone.
    fn is_awaited(&self, wanted: Wanted) -> bool {
        let has_victim = self.idle_order.len() > 0 || self.layer_order.len() > 0 && self.is_short_of_memory(wanted);
        match self.room_for(wanted) {
            Room::Coming => true,
            // Layers that dying sandboxes are in the way of dropping.
            Room::Evictable => !has_victim,
            Room::Free | Room::Kept | Room::None => false,
        }
    }
}
