//! The agreement between one sleeper and any number of wakers about who must ring the bell.
//!
//! Two flags, each written by one side and read by the other (Dekker):
//!
//! - a waker sets `pending`, fences, then looks at `parked`;
//! - the sleeper sets `parked`, fences, then looks at `pending`.
//!
//! Invariant: with both fences sequentially consistent, at least one side sees the other's flag. So either the sleeper
//! does not sleep, or a waker rings; never neither. Modelled in loom at the end of this file
//! (`RUSTFLAGS="--cfg loom" cargo test -p vilya-reactor --release gate`).
//!
//! Does not know what the bell is.

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Gate {
    /// A wake that the sleeper has not taken yet.
    pending: AtomicBool,
    /// The sleeper is about to sleep or asleep, and nobody has rung for it yet.
    parked: AtomicBool,
}

impl Gate {
    pub(crate) fn new() -> Gate {
        Gate { pending: AtomicBool::new(false), parked: AtomicBool::new(false) }
    }

    /// Waker: records a wake. True: the caller must ring the bell.
    pub(crate) fn wake(&self) -> bool {
        // Release pairs with the Acquire in `take`: what the waker wrote before is visible to the sleeper after. A swap
        // and not a store, so that the wakes of several threads stay in one release sequence.
        self.pending.swap(true, Ordering::Release);
        // Pairs with the fence in `park`.
        fence(Ordering::SeqCst);
        // The swap elects one ringer of several; Relaxed because the fences order the flags and the bell carries no data.
        self.parked.load(Ordering::Relaxed) && self.parked.swap(false, Ordering::Relaxed)
    }

    /// Sleeper: announces sleep. False: a wake is pending, do not sleep.
    pub(crate) fn park(&self) -> bool {
        self.parked.store(true, Ordering::Relaxed);
        // Pairs with the fence in `wake`.
        fence(Ordering::SeqCst);
        // Relaxed: `take` is what synchronizes with the waker.
        if self.pending.load(Ordering::Relaxed) {
            self.unpark();
            return false;
        }
        true
    }

    /// Sleeper: awake again. A waker that saw the flag before this rings once too often, which costs one empty turn.
    pub(crate) fn unpark(&self) {
        self.parked.store(false, Ordering::Relaxed);
    }

    /// Sleeper: takes the wakes recorded so far, as one.
    pub(crate) fn take(&self) -> bool {
        // The load keeps the usual turn free of a read-modify-write. Acquire pairs with the Release in `wake`.
        self.pending.load(Ordering::Relaxed) && self.pending.swap(false, Ordering::Acquire)
    }

    /// Whether a wake waits to be taken.
    pub(crate) fn pending(&self) -> bool {
        self.pending.load(Ordering::Relaxed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn wakes_are_taken_once_and_ring_only_for_a_sleeper() {
        let gate = Gate::new();
        assert!(!gate.wake(), "nobody sleeps");
        assert!(!gate.wake());
        assert!(!gate.park(), "a wake is pending");
        assert!(gate.take());
        assert!(!gate.take(), "coalesced");
        assert!(gate.park());
        assert!(gate.wake(), "the sleeper needs the bell");
        assert!(!gate.wake(), "one ring is enough");
        gate.unpark();
        assert!(gate.take());
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicUsize;
    use loom::thread;

    /// One sleeper, `wakers` wakers, each publishing a word before its wake. Once all wakers are done, a sleeper that
    /// went to sleep must have been rung for, and one that did not must find the wake and the words.
    fn no_wake_is_lost(wakers: usize, preemptions: Option<usize>) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = preemptions;
        model.check(move || {
            let gate = Arc::new(Gate::new());
            let rings = Arc::new(AtomicUsize::new(0));
            let words: Arc<Vec<AtomicUsize>> = Arc::new((0..wakers).map(|_| AtomicUsize::new(0)).collect());
            let threads: Vec<_> = (0..wakers)
                .map(|waker| {
                    let (gate, rings, words) = (gate.clone(), rings.clone(), words.clone());
                    thread::spawn(move || {
                        words[waker].store(1, Ordering::Relaxed);
                        if gate.wake() {
                            rings.fetch_add(1, Ordering::Relaxed);
                        }
                    })
                })
                .collect();
            let slept = gate.park();
            if !slept {
                assert!(gate.take(), "park saw a wake, so take must");
                let seen: usize = words.iter().map(|word| word.load(Ordering::Relaxed)).sum();
                assert!(seen >= 1, "the word of the wake that was taken is visible");
            }
            for thread in threads {
                thread.join().unwrap();
            }
            if slept {
                assert_eq!(rings.load(Ordering::Relaxed), 1, "asleep and rung for exactly once");
                gate.unpark();
                assert!(gate.take());
            }
        });
    }

    #[test]
    fn one_waker() {
        no_wake_is_lost(1, None);
    }

    /// Bounded: every schedule of three threads is too many.
    #[test]
    fn two_wakers() {
        no_wake_is_lost(2, Some(2));
    }

    /// Two rounds of sleeping against one wake: the second sleep sees a wake that the first round did not take.
    #[test]
    fn a_wake_between_two_sleeps_is_not_lost() {
        loom::model(|| {
            let gate = Arc::new(Gate::new());
            let rings = Arc::new(AtomicUsize::new(0));
            let waker = {
                let (gate, rings) = (gate.clone(), rings.clone());
                thread::spawn(move || {
                    if gate.wake() {
                        rings.fetch_add(1, Ordering::Relaxed);
                    }
                })
            };
            // The first sleep ends for another reason (a completion), so it takes whatever is there.
            if gate.park() {
                gate.unpark();
            }
            let mut taken = gate.take();
            let slept = gate.park();
            waker.join().unwrap();
            if slept {
                assert!(taken || rings.load(Ordering::Relaxed) == 1, "asleep for good with a wake untaken");
            }
            gate.unpark();
            taken |= gate.take();
            assert!(taken);
        });
    }
}
