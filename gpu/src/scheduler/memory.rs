//! Whose memory comes and goes.
//!
//! Three things move memory: a *claim* (a flow was given a place and its memory is away), which may push others out; a
//! flow that is not active any more, whose memory goes if the policy says so; and prefetching, which takes only room that is free.
//! Claims get room in the order in which they were made, and what is marked for one is given no new runs, so a claim
//! waits at most for the runs that are under way.
//!
//! Invariant: memory leaves only when no run uses it; memory enters only into room reserved for it. Does not know
//! whose turn it is.

use vilya_engine::Bytes;

use super::Scheduler;
use crate::effect::{Effect, Effects};
use crate::flow::{Flow, Standing};
use crate::ids::SwapId;
use crate::ledger::{Incoming, Memory, Residency, Resident};
use crate::policy::Departure;

/// In use last; then the inactive, the throttled, the active without work, the active with work; then the least
/// recently used.
pub(super) type EvictionRank = (bool, u8, u64);

/// When the flow's memory is to leave for another's, if it may.
pub(super) fn eviction_rank(flow: &Flow) -> Option<EvictionRank> {
    let Memory::Resident(resident) = &flow.memory else { return None };
    let class = match flow.standing {
        Standing::Inactive => 0,
        Standing::Throttled => 1,
        Standing::Active if flow.queue.is_empty() => 2,
        Standing::Active => 3,
    };
    (!flow.is_evicted).then_some((resident.runs() > 0, class, flow.last_used))
}

/// Whether its memory is to leave now, or the flow is to be forgotten.
pub(super) fn has_chore(flow: &Flow, departure: Departure) -> bool {
    let is_over = flow.is_retired && flow.is_idle();
    match &flow.memory {
        Memory::Swapped => is_over,
        Memory::Resident(resident) if flow.is_evicted => resident.runs() == 0,
        Memory::Resident(_) => {
            let departs = departure == Departure::AtOnce && flow.standing != Standing::Active;
            flow.in_flight == 0 && (is_over || departs)
        }
        Memory::SwappingIn(_) | Memory::SwappingOut(_) => false,
    }
}

/// Whether its memory would be of use before its turn.
pub(super) fn may_prefetch(flow: &Flow) -> bool {
    let is_away = flow.memory.residency() == Residency::Swapped && !flow.has_claim;
    is_away && flow.standing == Standing::Active && !flow.queue.is_empty()
}

impl Scheduler {
    /// Lets one flow's memory leave, or forgets one flow.
    pub(super) fn do_one_chore(&mut self, effects: &mut Effects) -> bool {
        let Some(((), number)) = self.chores.first() else { return false };
        let flow = self.held_mut(number);
        let function = flow.function;
        let is_over = flow.is_retired && flow.is_idle();
        match flow.memory.take() {
            Memory::Resident(resident) => {
                let swap = self.begin_leaving(number, resident);
                let memory = self.held(number).spec.memory;
                effects.push(match is_over {
                    true => Effect::Discard { function },
                    false => Effect::StartSwapOut { swap, function, memory },
                });
                self.refresh(number);
            }
            _ => {
                self.flows[number as usize] = None;
                self.forget(number);
                effects.push(Effect::FunctionGone { function });
            }
        }
        true
    }

    fn begin_leaving(&mut self, number: u32, resident: Resident) -> SwapId {
        let outgoing = self.ledger.leave(resident).expect("a chore is only due when no run uses the memory");
        let swap = self.next_swap(number);
        self.clear_eviction(number);
        let flow = self.held_mut(number);
        flow.memory = Memory::SwappingOut(outgoing);
        flow.swap = Some(swap);
        swap
    }

    fn forget(&mut self, number: u32) {
        self.queueing.forget(number);
        self.evictable.place(number, None);
        self.chores.place(number, None);
        self.prefetchable.place(number, None);
    }

    /// Gives room to the first claim, or makes some.
    pub(super) fn serve_one_claim(&mut self, effects: &mut Effects) -> bool {
        let Some(&number) = self.claims.front() else { return false };
        let flow = self.held(number);
        match flow.memory.residency() {
            // It was to leave for a claim before this one, and a run held it until that claim had found other room.
            Residency::Resident => {
                self.end_claim(number);
                self.clear_eviction(number);
                self.start_waiting(number, effects);
                self.refresh(number);
                true
            }
            Residency::Swapped => match self.ledger.reserve(flow.spec.memory) {
                Ok(incoming) => {
                    self.end_claim(number);
                    self.start_swap_in(number, incoming, effects);
                    true
                }
                Err(shortage) => self.evict_one(shortage.missing),
            },
            Residency::SwappingIn | Residency::SwappingOut => false,
        }
    }

    fn end_claim(&mut self, number: u32) {
        self.claims.retain(|&claim| claim != number);
        self.held_mut(number).has_claim = false;
    }

    /// Marks one more flow to leave, unless enough is on its way already.
    fn evict_one(&mut self, missing: Bytes) -> bool {
        let promised = self.ledger.outgoing().as_bytes() + self.evicted_bytes;
        if promised >= missing.as_bytes() {
            return false;
        }
        let Some((_, number)) = self.evictable.first() else { return false };
        let flow = self.held_mut(number);
        flow.is_evicted = true;
        self.evicted_bytes += flow.spec.memory.as_bytes();
        self.refresh(number);
        true
    }

    fn clear_eviction(&mut self, number: u32) {
        let flow = self.held_mut(number);
        if flow.is_evicted {
            flow.is_evicted = false;
            let bytes = flow.spec.memory.as_bytes();
            self.evicted_bytes -= bytes;
        }
    }

    /// Moves in what may be served next, one flow at a time, and only into room that nobody waits for.
    pub(super) fn prefetch_one(&mut self, effects: &mut Effects) -> bool {
        if self.prefetching.is_some() || !self.claims.is_empty() {
            return false;
        }
        let Some((_, number)) = self.prefetchable.first() else { return false };
        let Ok(incoming) = self.ledger.reserve(self.held(number).spec.memory) else { return false };
        self.prefetching = Some(number);
        self.start_swap_in(number, incoming, effects);
        true
    }

    fn start_swap_in(&mut self, number: u32, incoming: Incoming, effects: &mut Effects) {
        let (swap, order) = (self.next_swap(number), self.next_order());
        let flow = self.held_mut(number);
        flow.memory = Memory::SwappingIn(incoming);
        flow.swap = Some(swap);
        flow.last_used = order;
        effects.push(Effect::StartSwapIn { swap, function: flow.function, memory: flow.spec.memory });
        self.refresh(number);
    }

    pub(super) fn swap_done(&mut self, swap: SwapId, effects: &mut Effects) {
        let number = swap.index;
        let Some(Some(flow)) = self.flows.get_mut(number as usize) else { return };
        if flow.swap != Some(swap) {
            return;
        }
        flow.swap = None;
        match flow.memory.take() {
            Memory::SwappingIn(incoming) => {
                flow.memory = Memory::Resident(self.ledger.arrive(incoming));
                self.end_prefetch(number);
                self.start_waiting(number, effects);
            }
            Memory::SwappingOut(outgoing) => self.ledger.release(outgoing),
            memory @ (Memory::Swapped | Memory::Resident(_)) => unreachable!("no swap moves {memory:?}"),
        }
        self.refresh(number);
    }

    /// Everything of a flow that was on the device is gone.
    pub(super) fn write_off(&mut self, number: u32) {
        self.clear_eviction(number);
        self.end_claim(number);
        self.end_prefetch(number);
        let flow = self.flows[number as usize].as_mut().expect("the caller found it");
        flow.swap = None;
        self.ledger.write_off(flow.memory.take());
    }

    fn end_prefetch(&mut self, number: u32) {
        if self.prefetching == Some(number) {
            self.prefetching = None;
        }
    }

    fn next_swap(&mut self, number: u32) -> SwapId {
        self.swaps = self.swaps.wrapping_add(1).max(1);
        SwapId { index: number, generation: self.swaps }
    }
}
