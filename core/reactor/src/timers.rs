//! Deadlines, kept in user space so that setting and clearing one costs no system call.
//!
//! A binary heap of deadlines over a slab of timers. Clearing a timer only gives its slab entry back; its heap entry
//! stays behind and is recognised by its generation. Invariant: such garbage never outnumbers the live timers by more
//! than [`GARBAGE_MIN`], so a clear costs O(1) amortised and memory follows the live timers.
//!
//! Does not know the clock: the time comes in as an argument.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Dead heap entries that are always tolerated.
const GARBAGE_MIN: usize = 64;

/// Names one timer. Clearing a timer that has fired or was cleared does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerId {
    index: u32,
    generation: u32,
}

/// Ordered by deadline, then by the order in which they were set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    at_ns: u64,
    sequence: u64,
    index: u32,
    generation: u32,
}

#[derive(Debug)]
struct Timer {
    generation: u32,
    owner: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<Entry>>,
    slab: Vec<Timer>,
    free: Vec<u32>,
    sequence: u64,
}

impl Timers {
    pub(crate) fn live(&self) -> usize {
        self.slab.len() - self.free.len()
    }

    pub(crate) fn set(&mut self, owner: u64, at_ns: u64) -> TimerId {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                let index = u32::try_from(self.slab.len()).expect("four billion live timers do not fit in memory");
                self.slab.push(Timer { generation: 0, owner });
                index
            }
        };
        let timer = &mut self.slab[index as usize];
        timer.owner = owner;
        let generation = timer.generation;
        self.sequence += 1;
        self.heap.push(Reverse(Entry { at_ns, sequence: self.sequence, index, generation }));
        TimerId { index, generation }
    }

    /// False: it had fired or was cleared before.
    pub(crate) fn clear(&mut self, id: TimerId) -> bool {
        let timer = self.slab.get(id.index as usize);
        if timer.is_none_or(|timer| timer.generation != id.generation) {
            return false;
        }
        self.release(id.index);
        if self.heap.len() - self.live() > self.live() + GARBAGE_MIN {
            let slab = &self.slab;
            self.heap.retain(|Reverse(entry)| slab[entry.index as usize].generation == entry.generation);
        }
        true
    }

    /// The earliest deadline.
    pub(crate) fn next_ns(&mut self) -> Option<u64> {
        self.drop_dead_top();
        self.heap.peek().map(|Reverse(entry)| entry.at_ns)
    }

    /// Takes the earliest timer if it is due at `now_ns`.
    pub(crate) fn pop_due(&mut self, now_ns: u64) -> Option<(TimerId, u64)> {
        self.drop_dead_top();
        let Reverse(entry) = *self.heap.peek()?;
        if entry.at_ns > now_ns {
            return None;
        }
        self.heap.pop();
        let owner = self.slab[entry.index as usize].owner;
        self.release(entry.index);
        Some((TimerId { index: entry.index, generation: entry.generation }, owner))
    }

    fn drop_dead_top(&mut self) {
        while let Some(Reverse(entry)) = self.heap.peek() {
            if self.slab[entry.index as usize].generation == entry.generation {
                return;
            }
            self.heap.pop();
        }
    }

    /// The generation moves on when a timer ends, so an id and a heap entry die at the same moment.
    fn release(&mut self, index: u32) {
        let timer = &mut self.slab[index as usize];
        timer.generation = timer.generation.wrapping_add(1);
        self.free.push(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owners_due(timers: &mut Timers, now_ns: u64) -> Vec<u64> {
        std::iter::from_fn(|| timers.pop_due(now_ns)).map(|(_, owner)| owner).collect()
    }

    #[test]
    fn fire_in_order_of_deadline_then_of_setting() {
        let mut timers = Timers::default();
        for (owner, at_ns) in [(1, 30), (2, 10), (3, 20), (4, 10), (5, 40)] {
            timers.set(owner, at_ns);
        }
        assert_eq!(timers.next_ns(), Some(10));
        assert_eq!(owners_due(&mut timers, 9), []);
        assert_eq!(owners_due(&mut timers, 30), [2, 4, 3, 1]);
        assert_eq!(timers.next_ns(), Some(40));
        assert_eq!(timers.live(), 1);
    }

    #[test]
    fn a_cleared_timer_never_fires_and_its_id_stays_dead() {
        let mut timers = Timers::default();
        let first = timers.set(1, 10);
        assert!(timers.clear(first));
        let second = timers.set(2, 20);
        assert_eq!(first.index, second.index, "the entry is used again");
        assert!(!timers.clear(first), "the old id does not clear the new timer");
        assert_eq!(timers.next_ns(), Some(20));
        assert_eq!(owners_due(&mut timers, u64::MAX), [2]);
        assert!(!timers.clear(second), "it has fired");
    }

    #[test]
    fn garbage_is_bounded_and_memory_follows_the_live_timers() {
        let mut timers = Timers::default();
        let keep: Vec<_> = (0..10).map(|owner| timers.set(owner, 1_000_000 + owner)).collect();
        for round in 0..100_000 {
            let id = timers.set(99, round);
            assert!(timers.clear(id));
            assert!(timers.heap.len() <= 2 * timers.live() + GARBAGE_MIN + 1);
        }
        assert_eq!(timers.slab.len(), keep.len() + 1);
        assert_eq!(owners_due(&mut timers, u64::MAX), (0..10).collect::<Vec<_>>());
    }

    /// The heap against a sorted list, over a fixed pseudo-random run of sets, clears and due times.
    #[test]
    fn agrees_with_a_sorted_list() {
        let mut random = 0x9E37_79B9_7F4A_7C15_u64;
        let mut next = move |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let mut timers = Timers::default();
        let mut model: Vec<(u64, u64, TimerId)> = Vec::new();
        let mut now_ns = 0;
        for owner in 0..20_000 {
            match next(4) {
                0 | 1 => {
                    let at_ns = now_ns + next(500);
                    model.push((at_ns, owner, timers.set(owner, at_ns)));
                }
                2 if !model.is_empty() => {
                    let (_, _, id) = model.swap_remove(next(model.len() as u64) as usize);
                    assert!(timers.clear(id));
                }
                _ => {
                    now_ns += next(100);
                    let mut due: Vec<_> = model.extract_if(.., |entry| entry.0 <= now_ns).collect();
                    due.sort_by_key(|&(at_ns, owner, _)| (at_ns, owner));
                    let due: Vec<_> = due.into_iter().map(|(_, owner, _)| owner).collect();
                    assert_eq!(owners_due(&mut timers, now_ns), due);
                }
            }
            assert_eq!(timers.live(), model.len());
            assert_eq!(timers.next_ns(), model.iter().map(|entry| entry.0).min());
        }
    }
}
