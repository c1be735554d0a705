//! Wake-ups from other threads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use vilya_reactor::{Outcome, Wait};

use crate::support::{Rig, scene, small, yield_until};

/// The waker writes a number, wakes, and now and then waits until the reactor has seen it; the reactor sleeps whenever
/// it has nothing. A lost wake leaves both waiting.
#[test]
fn no_wake_is_lost_over_many_sleeps() {
    const WAKES: u64 = 100_000;
    scene(|| {
        let mut rig = Rig::new(&small());
        let waker = rig.reactor.waker();
        let (written, seen) = (AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                for number in 1..=WAKES {
                    // Relaxed: ordered by the wake, which is what is tested.
                    written.store(number, Ordering::Relaxed);
                    waker.wake();
                    // A different phase each time against the reactor's way to sleep.
                    for _ in 0..number % 61 {
                        std::hint::spin_loop();
                    }
                    // Acquire pairs with the Release below.
                    yield_until(|| number % 3 == 0 || seen.load(Ordering::Acquire) >= number);
                }
            });
            let mut last = 0;
            while last < WAKES {
                assert!(matches!(rig.next().outcome, Outcome::Woken));
                last = written.load(Ordering::Relaxed);
                seen.store(last, Ordering::Release);
            }
        });
        assert!(rig.reactor.counters().parks > 0);
        assert!(waker.system_calls() <= rig.reactor.counters().parks, "one ring a sleep at most");
    });
}

#[test]
fn wakes_of_an_awake_reactor_are_one_completion_and_no_system_call() {
    scene(|| {
        let mut rig = Rig::new(&small());
        let waker = rig.reactor.waker();
        for _ in 0..1000 {
            waker.clone().wake();
        }
        assert_eq!(waker.system_calls(), 0);
        assert!(rig.reactor.work_pending());
        rig.turn(Wait::Forever);
        assert!(matches!(rig.poll().unwrap().outcome, Outcome::Woken));
        assert!(rig.poll().is_none());
        assert_eq!(rig.reactor.counters().woken, 1);
    });
}

/// Several wakers at once, each waiting for its own number to be seen.
#[test]
fn wakes_of_several_threads_are_all_seen() {
    const THREADS: usize = 4;
    const WAKES: u64 = 5_000;
    scene(|| {
        let mut rig = Rig::new(&small());
        let waker = rig.reactor.waker();
        let written: [AtomicU64; THREADS] = Default::default();
        let seen: [AtomicU64; THREADS] = Default::default();
        thread::scope(|scope| {
            for (written, seen) in written.iter().zip(&seen) {
                let waker = waker.clone();
                scope.spawn(move || {
                    for number in 1..=WAKES {
                        written.store(number, Ordering::Relaxed);
                        waker.wake();
                        yield_until(|| seen.load(Ordering::Acquire) >= number);
                    }
                });
            }
            while seen.iter().any(|seen| seen.load(Ordering::Relaxed) < WAKES) {
                assert!(matches!(rig.next().outcome, Outcome::Woken));
                for (written, seen) in written.iter().zip(&seen) {
                    seen.store(written.load(Ordering::Relaxed), Ordering::Release);
                }
            }
        });
    });
}
