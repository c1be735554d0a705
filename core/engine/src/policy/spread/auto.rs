//! More owners while those there are saturated, doubling; fewer, one at a time, when one fewer would do.
//!
//! Invariant: a load that stays the same comes to rest. It grows to `n` owners only with more work than `n - 1` owners
//! are left with when it shrinks again, and both only after several intervals that say the same. Work that cannot move
//! (clients that sit on one owner) gives the others nothing to do, so that the owners together are not saturated, and
//! no more are added.

use super::{Demand, Owners, Spreading};

/// Owners as busy as this, on average, are too few.
const SATURATED: u32 = 800;
/// A shard busier than this with other things has nothing to spare.
const SPARE: u32 = 750;
/// Work of the function that must be there for each owner beyond the first, to add it.
const GROW: u32 = 600;
/// Work for each owner beyond the first, at or below which one is taken away.
const SHRINK: u32 = 500;
const HOT_INTERVALS: u32 = 2;
const COOL_INTERVALS: u32 = 8;

const _: () = assert!(SHRINK < GROW, "what has grown would shrink at once");
const _: () = assert!(GROW <= 1000, "one shard alone could never show enough work for a second");

pub(super) fn next(spreading: &Spreading, demand: &Demand<'_>) -> Spreading {
    let Spreading { home, owners, hot, cool } = *spreading;
    let sum = |of: &[u32]| owners.iter().map(|shard| at(of, shard)).fold(0, u32::saturating_add);
    let (count, work) = (owners.len(), sum(demand.work));
    let wanted = (1 + work / GROW).min(2 * count);
    if wanted > count && sum(demand.busy) >= SATURATED * count {
        let hot = hot + 1;
        if hot < HOT_INTERVALS {
            return Spreading { home, owners, hot, cool: 0 };
        }
        return Spreading { home, owners: grown(spreading, demand, wanted - count), hot: 0, cool: 0 };
    }
    if count > 1 && work <= SHRINK * (count - 1) {
        let cool = cool + 1;
        if cool < COOL_INTERVALS {
            return Spreading { home, owners, hot: 0, cool };
        }
        return Spreading { home, owners: shrunk(spreading, demand), hot: 0, cool: 0 };
    }
    Spreading { home, owners, hot: 0, cool: 0 }
}

fn at(of: &[u32], shard: u32) -> u32 {
    of.get(shard as usize).copied().unwrap_or(0)
}

/// With up to `more` of the shards that have most to spare.
fn grown(spreading: &Spreading, demand: &Demand<'_>, more: u32) -> Owners {
    let mut owners = spreading.owners;
    let shards = (demand.busy.len() as u32).min(Owners::MOST);
    // A shard that only passes the function's invocations on does less of that once it owns it.
    let others = |shard: u32| at(demand.busy, shard).saturating_sub(at(demand.work, shard));
    for _ in 0..more {
        let is_free =
            |shard: &u32| !owners.contains(*shard) && !demand.barred.contains(*shard) && others(*shard) <= SPARE;
        // Of equals the next after home, so that functions with other homes choose others.
        let distance = |shard: u32| (shard + shards - spreading.home % shards) % shards;
        let Some(best) = (0..shards).filter(is_free).min_by_key(|&shard| (others(shard), distance(shard))) else {
            break;
        };
        owners.insert(best);
    }
    owners
}

/// Without the one that has least to do with it; never without home.
fn shrunk(spreading: &Spreading, demand: &Demand<'_>) -> Owners {
    let mut owners = spreading.owners;
    let others = owners.iter().filter(|&shard| shard != spreading.home);
    if let Some(least) = others.min_by_key(|&shard| at(demand.work, shard)) {
        owners.remove(least);
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    /// Steps through intervals that say the same.
    fn after(intervals: u32, spreading: Spreading, busy: &[u32], work: &[u32]) -> Spreading {
        let demand = Demand { busy, work, barred: Owners::NONE };
        (0..intervals).fold(spreading, |spreading, _| next(&spreading, &demand))
    }

    fn owners(spreading: Spreading) -> Vec<u32> {
        spreading.owners.iter().collect()
    }

    #[test]
    fn a_saturated_owner_gets_the_shard_with_most_to_spare_after_two_intervals() {
        let (busy, work) = ([100, 950, 400, 50], [0, 900, 0, 0]);
        let once = after(1, Spreading::at(1), &busy, &work);
        assert_eq!(owners(once), [1]);
        assert_eq!(owners(after(1, once, &busy, &work)), [1, 3]);
    }

    #[test]
    fn one_interval_that_is_not_hot_starts_the_count_anew() {
        let (busy, work) = ([950, 0], [900, 0]);
        let hot = after(1, Spreading::at(0), &busy, &work);
        let calm = after(1, hot, &[500, 0], &work);
        assert_eq!(owners(after(1, calm, &busy, &work)), [0]);
    }

    #[test]
    fn owners_double_as_far_as_there_is_work_and_room() {
        let two = Spreading { owners: Owners::only(0).with(Owners::only(1)), ..Spreading::at(0) };
        let full = [1000, 1000, 0, 0, 0, 0];
        assert_eq!(owners(after(2, two, &full, &full)), [0, 1, 2, 3]);
        // Work for three, as the others are busy with something else.
        assert_eq!(owners(after(2, two, &full, &[700, 700, 0, 0, 0, 0])), [0, 1, 2]);
        assert_eq!(owners(after(2, two, &[1000, 1000, 751, 300, 800, 800], &full)), [0, 1, 3]);
        assert_eq!(owners(after(9, two, &[1000; 6], &full)), [0, 1], "nobody has anything to spare");
    }

    #[test]
    fn a_shard_that_is_busy_passing_it_on_is_as_good_as_free() {
        assert_eq!(owners(after(2, Spreading::at(0), &[1000, 950], &[1000, 900])), [0, 1]);
        assert_eq!(owners(after(2, Spreading::at(0), &[1000, 950], &[1000, 100])), [0]);
    }

    #[test]
    fn a_shard_busy_with_many_small_functions_spreads_none_of_them() {
        assert_eq!(owners(after(9, Spreading::at(0), &[1000, 0], &[400, 0])), [0]);
    }

    #[test]
    fn work_that_does_not_move_is_given_no_third_owner() {
        let two = Spreading { owners: Owners::only(0).with(Owners::only(1)), ..Spreading::at(0) };
        let stays = after(50, two, &[1000, 0, 0, 0], &[1000, 0, 0, 0]);
        assert_eq!(owners(stays), [0, 1]);
    }

    #[test]
    fn shards_that_are_not_done_with_it_are_not_chosen() {
        let demand = Demand { busy: &[1000, 0, 10], work: &[1000, 0, 0], barred: Owners::only(1) };
        let hot = next(&Spreading::at(0), &demand);
        assert_eq!(owners(next(&hot, &demand)), [0, 2]);
    }

    #[test]
    fn it_goes_home_one_owner_at_a_time_when_the_load_ends() {
        let four =
            Spreading { owners: (0..4).map(Owners::only).fold(Owners::NONE, |a, b| a.with(b)), ..Spreading::at(2) };
        let idle = [0; 4];
        assert_eq!(owners(after(COOL_INTERVALS - 1, four, &idle, &idle)).len(), 4);
        assert_eq!(owners(after(COOL_INTERVALS, four, &idle, &idle)).len(), 3);
        assert_eq!(owners(after(3 * COOL_INTERVALS, four, &idle, &idle)), [2]);
        assert_eq!(owners(after(99, four, &[], &[])), [2], "what is not measured did nothing");
        let least = after(COOL_INTERVALS, four, &[300; 4], &[300, 300, 100, 20]);
        assert_eq!(owners(least), [0, 1, 2], "the one with least to do with it");
    }

    #[test]
    fn what_two_owners_share_is_not_taken_from_them_while_one_would_be_crowded() {
        let two = Spreading { owners: Owners::only(0).with(Owners::only(1)), ..Spreading::at(0) };
        assert_eq!(owners(after(50, two, &[300, 300], &[251, 250])), [0, 1]);
        assert_eq!(owners(after(50, two, &[300, 300], &[250, 250])), [0]);
    }

    /// A machine on which clients want `demand` thousandths of a shard, split evenly over the owners.
    fn run(demand: u32, base: &[u32], noise: &[u32], intervals: usize) -> Vec<Spreading> {
        let mut spreading = Spreading::at(0);
        let mut seen = Vec::new();
        for interval in 0..intervals {
            let mut work = vec![0; base.len()];
            let part = demand / spreading.owners.len();
            for shard in spreading.owners.iter() {
                let wanted = part * (100 + noise[(interval + shard as usize) % noise.len()]) / 100;
                work[shard as usize] = wanted.min(1000 - base[shard as usize]);
            }
            let busy: Vec<u32> = work.iter().zip(base).map(|(work, base)| work + base).collect();
            spreading = next(&spreading, &Demand { busy: &busy, work: &work, barred: Owners::NONE });
            seen.push(spreading);
        }
        seen
    }

    proptest! {
        /// Whatever is measured: home owns, nobody beyond the shards does, and an interval changes little.
        #[test]
        fn any_facts_are_answered_with_a_small_step(
            facts in prop::collection::vec((prop::collection::vec((0u32..=1000, 0u32..=1000), 8), any::<u8>()), 1..120),
            home in 0u32..8,
        ) {
            let mut spreading = Spreading::at(home);
            for (shards, barred) in facts {
                let (busy, work): (Vec<u32>, Vec<u32>) = shards.into_iter().unzip();
                let barred = (0..8).filter(|shard| barred >> shard & 1 == 1).map(Owners::only);
                let barred = barred.fold(Owners::NONE, |a, b| a.with(b));
                let after = next(&spreading, &Demand { busy: &busy, work: &work, barred });
                let (added, taken) = (after.owners.without(spreading.owners), spreading.owners.without(after.owners));
                prop_assert!(after.owners.contains(home));
                prop_assert!(after.owners.iter().all(|shard| shard < 8));
                prop_assert!(added.len() <= spreading.owners.len() && taken.len() <= 1);
                prop_assert!(added.is_empty() || taken.is_empty());
                prop_assert!(added.without(barred) == added);
                spreading = after;
            }
        }

        /// A load that stays the same, but for noise, comes to rest, and rests where the owners carry it if they can.
        #[test]
        fn a_constant_load_does_not_flap(
            demand in 0u32..9000,
            base in prop::collection::vec(0u32..700, 2..10),
            noise in prop::collection::vec(0u32..4, 1..20),
        ) {
            let seen = run(demand, &base, &noise, 400);
            let (settled, last) = (seen[200].owners, seen[399].owners);
            prop_assert!(seen[200..].iter().all(|spreading| spreading.owners == settled), "still moving after 200");
            if demand <= 500 {
                prop_assert_eq!(last.len(), 1, "one would do");
            }
        }

        /// With shards that have nothing else to do, the owners come to be enough.
        #[test]
        fn enough_shards_are_used(demand in 0u32..9000, shards in 1usize..12) {
            let seen = run(demand, &vec![0; shards], &[0], 200);
            let count = seen[199].owners.len();
            prop_assert!(count as usize == shards || demand / count <= 1000, "{count} owners of {shards} for {demand}");
        }
    }
}
