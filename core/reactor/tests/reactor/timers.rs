//! Timers through turns. Their order alone is tested beside their heap.

use vilya_reactor::{OpId, Outcome, Reactor, TimerId, Wait};

use crate::support::{Rig, scene, small};

fn fired(rig: &mut Rig) -> (u64, TimerId) {
    let completion = rig.next();
    assert!(!completion.more && completion.op == OpId::NONE);
    match completion.outcome {
        Outcome::Timer(timer) => (completion.owner, timer),
        other => panic!("{other:?}"),
    }
}

#[test]
fn due_timers_fire_in_order_without_a_system_call() {
    scene(|| {
        let mut rig = Rig::new(&small());
        rig.turn(Wait::No);
        let enters = rig.reactor.counters().enters;
        let now_ns = Reactor::now_ns();
        let third = rig.reactor.set_timer(3, now_ns - 1);
        let first = rig.reactor.set_timer(1, now_ns - 3);
        let cleared = rig.reactor.set_timer(9, now_ns - 2);
        let second = rig.reactor.set_timer(2, now_ns - 2);
        rig.reactor.clear_timer(cleared);
        assert_eq!(rig.reactor.timers_live(), 3);
        assert_eq!([fired(&mut rig), fired(&mut rig), fired(&mut rig)], [(1, first), (2, second), (3, third)]);
        assert!(rig.poll().is_none());
        rig.reactor.clear_timer(first);
        assert_eq!(rig.reactor.counters().enters, enters);
    });
}

#[test]
fn a_sleeping_turn_ends_at_the_timer_and_not_before() {
    scene(|| {
        let mut rig = Rig::new(&small());
        let at_ns = Reactor::now_ns() + 2_000_000;
        let timer = rig.reactor.set_timer(4, at_ns);
        let later = rig.reactor.set_timer(5, u64::MAX);
        assert_eq!(fired(&mut rig), (4, timer));
        assert!(Reactor::now_ns() >= at_ns);
        rig.reactor.clear_timer(later);
        assert_eq!(rig.reactor.timers_live(), 0);
    });
}

#[test]
fn a_wait_ends_at_its_own_time_with_nothing() {
    scene(|| {
        let mut rig = Rig::new(&small());
        let until_ns = Reactor::now_ns() + 1_000_000;
        let mut out = Vec::new();
        while Reactor::now_ns() < until_ns {
            rig.reactor.turn(Wait::Until(until_ns), &mut out).unwrap();
        }
        assert!(out.is_empty());
    });
}
