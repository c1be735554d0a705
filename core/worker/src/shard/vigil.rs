//! How long a shard looks for work before it sleeps.
//!
//! A shard that sleeps is woken by an interrupt, which takes longer than many an invocation; one that looks on takes its
//! core from whatever else would run there. Invariant: without a budget (a core that is shared, or waits that turned out
//! long) nothing is looked at twice and no clock is read for it. It knows no rings: the shard's loop looks.

use std::time::Duration;

use vilya_ipc::spin::SpinBudget;

pub(super) struct Vigil {
    budget: SpinBudget,
    /// Since when there has been nothing to do.
    idle_since_ns: Option<u64>,
    /// Time spent looking, ever.
    looked_on_ns: u64,
}

impl Vigil {
    pub(super) fn new(cap: Duration) -> Vigil {
        Vigil { budget: SpinBudget::new(cap), idle_since_ns: None, looked_on_ns: 0 }
    }

    /// How long, ever, the shard was awake only to look for work.
    pub(super) fn looked_on_ns(&self) -> u64 {
        self.looked_on_ns
    }

    /// There is nothing to do at the moment: whether to look again before sleeping.
    pub(super) fn goes_on(&mut self, now_ns: u64) -> bool {
        if self.budget.never_spins() {
            return false;
        }
        let since_ns = *self.idle_since_ns.get_or_insert(now_ns);
        now_ns.saturating_sub(since_ns) < self.budget.get().as_nanos() as u64
    }

    /// A turn is over, in which the shard `slept` or not, and found something or not.
    pub(super) fn turned(&mut self, slept: bool, found: bool, now_ns: u64) {
        if slept {
            if let Some(since_ns) = self.idle_since_ns.take() {
                let looked_on = self.budget.get().as_nanos() as u64;
                self.looked_on_ns += looked_on.min(now_ns.saturating_sub(since_ns));
                self.budget.slept_after(Duration::from_nanos(now_ns.saturating_sub(since_ns)));
            }
        } else if found && let Some(since_ns) = self.idle_since_ns.take() {
            self.looked_on_ns += now_ns.saturating_sub(since_ns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_looks_on_for_its_budget_and_for_none_when_waits_are_long() {
        let mut vigil = Vigil::new(Duration::from_micros(200));
        assert!(vigil.goes_on(1_000));
        assert!(vigil.goes_on(50_999));
        assert!(!vigil.goes_on(51_000), "fifty microseconds to start with");
        assert_eq!(vigil.looked_on_ns(), 0, "it is counted when it is over");
        // It slept, and work came soon after: next time it looks on for longer.
        vigil.turned(true, true, 101_000);
        assert_eq!(vigil.looked_on_ns(), 50_000);
        assert!(vigil.goes_on(200_000));
        assert!(vigil.goes_on(299_000));
        vigil.turned(false, true, 299_000);
        assert_eq!(vigil.looked_on_ns(), 149_000);
        assert!(vigil.goes_on(300_000), "work begins the count anew");
        for _ in 0..20 {
            let _ = vigil.goes_on(1_000_000);
            vigil.turned(true, false, 1_000_000_000);
        }
        assert!(!vigil.goes_on(1_000_000), "an idle shard sleeps at once");
    }

    #[test]
    fn a_shard_without_a_core_of_its_own_never_looks_on() {
        let mut vigil = Vigil::new(Duration::ZERO);
        assert!(!vigil.goes_on(0));
        vigil.turned(true, true, 1);
        assert!(!vigil.goes_on(2));
    }
}
