//! How busy a shard's thread is, and with which functions.
//!
//! Invariant: measured by a thread that is awake anyway, and told only when there is something to tell: an idle shard is
//! neither woken nor asked, and silence means that it had time to spare. Busy is every moment in which the thread runs
//! or waits for a core: what the kernel does for it inside `io_uring_enter` counts, sleeping there does not. Does not
//! know what follows from it.

use std::fs::File;
use std::os::unix::fs::FileExt;

use vilya_engine::FunctionId;

/// What is measured at once.
pub(crate) const INTERVAL_NS: u64 = 250_000_000;

/// A shard that is busy for fewer thousandths of an interval says nothing. Below what a policy shrinks at, so that
/// silence is never taken for more room than there is.
const WORTH_TELLING: u32 = 250;

/// Functions told apart. One with more than a ninth of the invocations of an interval is always among them.
const HEAVY: usize = 8;

/// What a shard was busy with in one interval, in thousandths of it.
#[derive(Clone, Debug)]
pub(crate) struct ShardLoad {
    pub(crate) shard: usize,
    pub(crate) busy: u32,
    /// The parts of `busy` that fall to functions, by their share of the invocations.
    pub(crate) work: Vec<(FunctionId, u32)>,
}

/// Measures one thread.
pub(crate) struct LoadMeter {
    shard: usize,
    /// The kernel's account of the thread; none when nothing is measured.
    account: Option<File>,
    began_ns: u64,
    awake_ns: u64,
    invocations: Invocations,
}

impl LoadMeter {
    /// For the thread that makes it.
    pub(crate) fn of_this_thread(shard: usize) -> LoadMeter {
        let opened = File::open("/proc/thread-self/schedstat");
        if let Err(error) = &opened {
            tracing::warn!("functions are not spread over shards: /proc/thread-self/schedstat: {error}");
        }
        LoadMeter { account: opened.ok(), shard, ..LoadMeter::off() }
    }

    pub(crate) fn off() -> LoadMeter {
        LoadMeter { shard: 0, account: None, began_ns: 0, awake_ns: 0, invocations: Invocations::default() }
    }

    /// The shard has run an invocation, or passed one on to an owner.
    pub(crate) fn worked_on(&mut self, function: FunctionId) {
        self.invocations.record(function);
    }

    /// At the end of an interval that is worth telling of, what it was busy with. One small read of the kernel's
    /// account, once an interval.
    ///
    /// `looked_on_ns` is how long, ever, the thread was awake only to look for work.
    pub(crate) fn measure(&mut self, now_ns: u64, looked_on_ns: u64) -> Option<ShardLoad> {
        let elapsed_ns = now_ns.saturating_sub(self.began_ns);
        if elapsed_ns < INTERVAL_NS {
            return None;
        }
        let awake_ns = awake_ns(self.account.as_ref()?)?.saturating_sub(looked_on_ns);
        let busy = per_mille(awake_ns.saturating_sub(self.awake_ns), elapsed_ns);
        let is_first = self.began_ns == 0;
        (self.began_ns, self.awake_ns) = (now_ns, awake_ns);
        let invocations = std::mem::take(&mut self.invocations);
        (busy >= WORTH_TELLING && !is_first).then(|| ShardLoad {
            shard: self.shard,
            busy,
            work: invocations.shares().map(|(function, share)| (function, busy * share / 1000)).collect(),
        })
    }
}

/// Nanoseconds that a thread has run or waited for a core: the first two numbers of the kernel's `schedstat`.
fn awake_ns(account: &File) -> Option<u64> {
    let mut text = [0; 64];
    let read = account.read_at(&mut text, 0).ok()?;
    let mut numbers = std::str::from_utf8(&text[..read]).ok()?.split_ascii_whitespace();
    let (ran, waited): (u64, u64) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
    Some(ran.saturating_add(waited))
}

fn per_mille(part: u64, whole: u64) -> u32 {
    // At most 1000.
    (u128::from(part) * 1000 / u128::from(whole.max(1))).min(1000) as u32
}

/// Counts the most frequent functions in constant space, after Misra and Gries: what is counted of a function is at
/// most `1 / (HEAVY + 1)` of all too little, and never too much.
#[derive(Default)]
struct Invocations {
    all: u64,
    counts: [Option<(FunctionId, u64)>; HEAVY],
}

impl Invocations {
    fn record(&mut self, function: FunctionId) {
        self.all += 1;
        let mut free = None;
        for (place, count) in self.counts.iter_mut().enumerate() {
            match count {
                Some((counted, count)) if *counted == function => {
                    *count += 1;
                    return;
                }
                Some(_) => {}
                None => free = Some(place),
            }
        }
        match free {
            Some(place) => self.counts[place] = Some((function, 1)),
            None => self.counts.iter_mut().for_each(|count| {
                *count = count.and_then(|(function, count)| (count > 1).then_some((function, count - 1)));
            }),
        }
    }

    /// Thousandths of all.
    fn shares(&self) -> impl Iterator<Item = (FunctionId, u32)> + '_ {
        self.counts.iter().flatten().map(|&(function, count)| (function, per_mille(count, self.all)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(index: u32) -> FunctionId {
        FunctionId { index, generation: 1 }
    }

    #[test]
    fn a_heavy_function_is_found_among_many_light_ones_and_never_overstated() {
        let mut invocations = Invocations::default();
        for round in 0..1000 {
            invocations.record(function(7));
            invocations.record(function(100 + round));
            invocations.record(function(5000 + round));
        }
        let share = invocations.shares().find(|(counted, _)| *counted == function(7)).map(|(_, share)| share);
        assert!(share.is_some_and(|share| (222..=333).contains(&share)), "{share:?}");
        assert!(invocations.shares().map(|(_, share)| share).sum::<u32>() <= 1000);
    }

    #[test]
    fn few_functions_are_counted_exactly() {
        let mut invocations = Invocations::default();
        for number in 0..100 {
            invocations.record(function(u32::from(number % 4 == 0)));
        }
        let mut shares: Vec<_> = invocations.shares().collect();
        shares.sort_unstable();
        assert_eq!(shares, [(function(0), 750), (function(1), 250)]);
    }

    #[test]
    fn a_thread_that_works_tells_and_one_that_sleeps_does_not() {
        let mut meter = LoadMeter::of_this_thread(3);
        assert!(meter.measure(INTERVAL_NS, 0).is_none(), "the first only begins");
        meter.worked_on(function(1));
        let before = awake_ns(meter.account.as_ref().expect("Linux has it")).expect("and can be read");
        // The clock is the caller's: however long this takes, it is told that it was one interval.
        while awake_ns(meter.account.as_ref().unwrap()).unwrap() - before < INTERVAL_NS * 3 / 10 {}
        assert!(meter.measure(INTERVAL_NS + 1, 0).is_none(), "the interval is not over");
        let load = meter.measure(2 * INTERVAL_NS, 0).expect("it was busy");
        assert!(load.shard == 3 && load.busy >= 300, "{load:?}");
        assert_eq!(load.work, [(function(1), load.busy)]);
        assert!(meter.measure(1000 * INTERVAL_NS, 0).is_none(), "it has slept");
    }

    #[test]
    fn one_that_is_off_says_nothing() {
        let mut meter = LoadMeter::off();
        meter.worked_on(function(1));
        assert!(meter.measure(INTERVAL_NS, 0).is_none() && meter.measure(9 * INTERVAL_NS, 0).is_none());
    }
}
