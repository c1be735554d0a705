//! Giving hot functions to more shards, and taking them back.
//!
//! Invariant: a shard owns a function before any route names it, and until no route does; a function is given to no
//! shard that has not finished with it from before. Looks only while shards tell of load or a function is spread, so
//! that an idle worker sleeps. Who owns what is decided by `vilya_engine::policy::spread`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vilya_engine::policy::spread::{Demand, Owners, SpreadPolicy, Spreading};

use super::{Control, Live};
use crate::load::{INTERVAL_NS, ShardLoad};
use crate::mesh::Message;
use crate::metrics::FunctionCounters;
use crate::storage::FunctionRecord;

const INTERVAL: Duration = Duration::from_nanos(INTERVAL_NS);

/// What a shard told is believed for as long as this: intervals of different threads do not end together.
const BELIEVED: Duration = Duration::from_nanos(2 * INTERVAL_NS);

/// A version that was removed or replaced, and the shards that still have sandboxes of it.
pub(super) struct Leaving {
    pub(super) record: Arc<FunctionRecord>,
    pub(super) shards: Owners,
}

/// What is known of the shards' loads.
pub(super) struct Loads {
    policy: SpreadPolicy,
    /// By shard: what it told last, and when.
    told: Vec<Option<(Instant, ShardLoad)>>,
    /// When to look next; none while there is nothing to look at.
    next_look: Option<Instant>,
}

impl Loads {
    pub(super) fn new(policy: SpreadPolicy, shards: usize) -> Loads {
        Loads { policy, told: vec![None; shards], next_look: None }
    }

    pub(super) fn policy(&self) -> SpreadPolicy {
        self.policy
    }

    pub(super) fn next_look(&self) -> Option<Instant> {
        self.next_look
    }

    pub(super) fn take(&mut self, load: ShardLoad, now: Instant) {
        let shard = load.shard;
        self.told[shard] = Some((now, load));
        self.next_look.get_or_insert(now + INTERVAL);
    }

    fn forget_old(&mut self, now: Instant) {
        for told in &mut self.told {
            if told.as_ref().is_some_and(|(since, _)| now.duration_since(*since) >= BELIEVED) {
                *told = None;
            }
        }
    }

    fn present(&self) -> impl Iterator<Item = &ShardLoad> {
        self.told.iter().flatten().map(|(_, load)| load)
    }
}

impl Control {
    /// Decides anew about every function that is hot or spread.
    pub(super) fn rebalance(&mut self, now: Instant) {
        self.loads.forget_old(now);
        let mut busy = vec![0; self.shards.len()];
        for load in self.loads.present() {
            busy[load.shard] = load.busy;
        }
        let mut hot: Vec<(u32, Box<str>, Vec<u32>)> = Vec::new();
        for (name, live) in &self.functions {
            let work = self.work_on(live);
            let sum = work.iter().sum();
            if sum > 0 || live.is_spread() {
                hot.push((sum, name.clone(), work));
            }
        }
        // The hottest first, and the same order for the same loads.
        hot.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        for (sum, name, work) in hot {
            let live = &self.functions[&name];
            let demand = Demand { busy: &busy, work: &work, barred: live.returning };
            let next = self.loads.policy.next(&live.spreading, &demand);
            // What the new owners are about to be given is not spare for the next function.
            for shard in next.owners.without(live.route.owners).iter() {
                busy[shard as usize] += sum / next.owners.len();
            }
            self.move_to(&name, next);
        }
        let is_needed = self.loads.present().next().is_some() || self.functions.values().any(Live::is_spread);
        self.loads.next_look = is_needed.then(|| now + INTERVAL);
    }

    /// By shard, the thousandths of its time that it spends on a function.
    fn work_on(&self, live: &Live) -> Vec<u32> {
        let mut work = vec![0; self.shards.len()];
        for load in self.loads.present() {
            let found = load.work.iter().find(|(function, _)| *function == live.route.function);
            work[load.shard] = found.map_or(0, |&(_, work)| work);
        }
        work
    }

    fn move_to(&mut self, name: &str, next: Spreading) {
        let Some(live) = self.functions.get_mut(name) else { return };
        let before = live.route.owners;
        live.spreading = next;
        let (added, taken) = (next.owners.without(before), before.without(next.owners));
        if added.is_empty() && taken.is_empty() {
            return;
        }
        live.route.owners = next.owners;
        live.returning = live.returning.with(taken);
        live.moves += u64::from(added.len() + taken.len());
        let (route, record) = (live.route, Arc::clone(&live.record));
        tracing::info!(function = name, owners = next.owners.len(), "spread");
        self.give(added, route.function, &record);
        self.publish(name, Some(route));
        for shard in taken.iter() {
            self.shards[shard as usize].send(Message::Disown { function: route.function });
        }
    }

    /// A shard has finished with a function: with a version that left, whose bundle goes with the last; or with one
    /// that lives on elsewhere, whose figures stay.
    pub(super) fn forget(&mut self, shard: usize, function: vilya_engine::FunctionId, counters: &FunctionCounters) {
        if let Some(leaving) = self.leaving.get_mut(&function) {
            leaving.shards.remove(shard as u32);
            if leaving.shards.is_empty() {
                self.discard(function);
            }
        } else if let Some(live) = self.functions.values_mut().find(|live| live.route.function == function) {
            live.returning.remove(shard as u32);
            live.earlier.add(counters);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_nothing_to_look_at_until_a_shard_tells_and_what_it_told_grows_old() {
        let mut loads = Loads::new(SpreadPolicy::Auto, 3);
        assert_eq!(loads.next_look(), None);
        let began = Instant::now();
        loads.take(ShardLoad { shard: 2, busy: 900, work: Vec::new() }, began);
        assert_eq!(loads.next_look(), Some(began + INTERVAL));
        loads.take(ShardLoad { shard: 0, busy: 700, work: Vec::new() }, began + INTERVAL);
        assert_eq!(loads.next_look(), Some(began + INTERVAL), "one look for all");
        let shards = |loads: &Loads| loads.present().map(|load| load.shard).collect::<Vec<_>>();
        loads.forget_old(began + INTERVAL);
        assert_eq!(shards(&loads), [0, 2]);
        loads.forget_old(began + BELIEVED);
        assert_eq!(shards(&loads), [0], "it has been silent for longer than an interval");
    }
}
