//! One suite for every policy of a kind: a new policy adds its line to the list of its kind and is held to the rest.

use std::format;
use std::vec;
use std::vec::Vec;

use super::balance::BalancePolicy;
use super::concurrency::ConcurrencyPolicy;
use super::keepalive::{Idle, KeepAlivePolicy};
use super::queue::{QueuePolicy, Waiting};
use super::spread::{Demand, Owners, SpreadPolicy, Spreading};
use super::{Policies, Profile};
use crate::effect::Outcome;
use crate::tests::shard::{Shard, limits};
use crate::units::{Bytes, Nanos};

const QUEUE: [QueuePolicy; 2] = [QueuePolicy::Fcfs, QueuePolicy::Sjf];

const KEEPALIVE: [KeepAlivePolicy; 3] =
    [KeepAlivePolicy::Lru, KeepAlivePolicy::Ttl { idle: Nanos::from_secs(600) }, KeepAlivePolicy::GreedyDual];

const CONCURRENCY: [ConcurrencyPolicy; 2] =
    [ConcurrencyPolicy::Fixed { running: 1 }, ConcurrencyPolicy::Fixed { running: u32::MAX }];

const SPREAD: [SpreadPolicy; 2] = [SpreadPolicy::Off, SpreadPolicy::Auto];

const BALANCE: [BalancePolicy; 1] = [BalancePolicy::Home];

#[test]
fn a_queue_never_puts_the_later_of_two_equals_first() {
    let mut profile = Profile::default();
    for measured in [false, true] {
        if measured {
            profile.record_warm_run(Nanos::from_millis(4));
        }
        for policy in QUEUE {
            let key = |arrived| policy.key(&Waiting { arrived: Nanos::from_nanos(arrived), profile: &profile });
            assert!(key(10) <= key(20), "{policy:?} puts the later arrival of one function first");
            assert_eq!(key(10), key(10), "{policy:?} depends on something that it is not given");
        }
    }
}

#[test]
fn keepalive_never_expires_before_the_sandbox_is_idle_and_is_repeatable() {
    for policy in KEEPALIVE {
        for since in [Nanos::ZERO, Nanos::from_secs(1), Nanos::MAX] {
            let idle = Idle { since, ..Idle::default() };
            let retention = policy.retain(&idle);
            assert!(retention.until.is_none_or(|until| until >= since), "{policy:?} expires before it is idle");
            assert_eq!(retention, policy.retain(&idle), "{policy:?} changes its mind");
        }
    }
}

/// The engine weighs again what it evicts when it was used meanwhile, and relies on it that this only raises what it is worth.
#[test]
fn keepalive_never_holds_use_or_cost_against_anything() {
    for policy in KEEPALIVE {
        let priority = |since, clock, uses, cost| {
            let (since, cost, memory) = (Nanos::from_secs(since), Nanos::from_millis(cost), Bytes::from_mebibytes(64));
            policy.retain(&Idle { since, clock, uses, cost, memory, ..Idle::default() }).priority
        };
        let least = priority(5, 100, 3, 20);
        for more in [priority(6, 100, 3, 20), priority(5, 101, 3, 20), priority(5, 100, 4, 20), priority(5, 100, 3, 21)]
        {
            assert!(more >= least, "{policy:?}");
        }
    }
}

#[test]
fn concurrency_lets_something_run() {
    for policy in CONCURRENCY {
        assert_eq!(policy.check(), Ok(()));
        assert!(policy.limit() >= 1, "{policy:?} stops all work");
    }
}

#[test]
fn balance_stays_in_range_and_spreads_names() {
    for policy in BALANCE {
        for shards in [1, 2, 3, 7, 64] {
            let mut owned = vec![0u32; shards as usize];
            for number in 0..6400 {
                owned[policy.shard(format!("function-{number}").as_bytes(), shards) as usize] += 1;
            }
            let fair = 6400 / shards;
            let (least, most) = (owned.iter().min().unwrap(), owned.iter().max().unwrap());
            assert!(*least > fair / 2 && *most < fair * 2, "{policy:?} over {shards} shards: {owned:?}");
        }
    }
}

#[test]
fn spread_always_leaves_a_function_with_its_home_and_lets_an_idle_one_go_there() {
    for policy in SPREAD {
        for (busy, work) in [(1000, 1000), (900, 700), (0, 0), (1000, 0), (0, 1000)] {
            let mut spreading = Spreading::at(3);
            for _ in 0..50 {
                let (busy, work) = ([0, 0, 0, busy, 0], [work; 5]);
                let demand = Demand { busy: &busy, work: &work, barred: Owners::NONE };
                let next = policy.next(&spreading, &demand);
                assert_eq!(next, policy.next(&spreading, &demand), "{policy:?} changes its mind");
                assert!(next.owners.contains(3) && next.owners.iter().all(|shard| shard < 5), "{policy:?}: {next:?}");
                spreading = next;
            }
            for _ in 0..100 {
                let demand = Demand { busy: &[], work: &[], barred: Owners::NONE };
                spreading = policy.next(&spreading, &demand);
            }
            assert_eq!(spreading.owners, Owners::only(3), "{policy:?} keeps what nobody needs");
        }
    }
}

/// Whatever the policies, a burst over more functions than there is room for is served to the last invocation.
#[test]
fn every_combination_serves_a_burst_to_the_end() {
    for queue in QUEUE {
        for keepalive in KEEPALIVE {
            for concurrency in CONCURRENCY {
                let policies = Policies { queue, keepalive, concurrency, quantum: None };
                let mut shard = Shard::new(limits(), policies);
                let functions: Vec<_> = (0..6).map(|_| shard.add(64, 1)).collect();
                let asked: Vec<_> = (0..60).map(|number| shard.arrive(functions[number % 6])).collect();
                shard.run_to_rest();
                for invocation in asked {
                    assert_eq!(shard.outcome(invocation), Some(Outcome::Returned), "{policies:?}");
                }
            }
        }
    }
}
