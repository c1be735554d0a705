//! The part of the record that is about frozen sandboxes.
//!
//! Invariant: as for the rest of the record. A sandbox runs again when the driver says so, whatever the engine thinks.

use vilya_engine::{Nanos, SandboxId};

use super::{Books, Sandbox};

/// Whether a sandbox runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Frost {
    Awake(Rest),
    Frozen(Rest),
    Thawing,
}

/// What is known of an idle time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Rest {
    since: Nanos,
    is_trimmed: bool,
}

impl Frost {
    pub(super) fn since(now: Nanos) -> Frost {
        Frost::Awake(Rest { since: now, is_trimmed: false })
    }
}

impl Sandbox {
    /// A lane of it became free.
    pub(super) fn rests(&mut self, now: Nanos) {
        if matches!(self.frost, Frost::Awake(_)) {
            self.frost = Frost::since(now);
        }
    }
}

impl Books {
    pub(super) fn learn_thawed(&mut self, now: Nanos, id: SandboxId) {
        if let Some(sandbox) = self.sandboxes.get_mut(&id).filter(|sandbox| sandbox.frost == Frost::Thawing) {
            sandbox.frost = Frost::since(now);
            self.tally.count("Thawed".into());
        }
    }

    pub(super) fn learn_not_frozen(&mut self, id: SandboxId) {
        if let Some(sandbox) = self.sandboxes.get_mut(&id)
            && let Frost::Frozen(rest) = sandbox.frost
        {
            sandbox.frost = Frost::Awake(rest);
            self.tally.count("NotFrozen".into());
        }
    }

    pub(super) fn check_trim(&mut self, now: Nanos, id: SandboxId) {
        let sandbox = self.sandboxes.get_mut(&id).expect("the dead were trimmed");
        assert!(sandbox.takes_more() && sandbox.lanes.iter().all(Option::is_none), "trimmed with something to do");
        let Frost::Awake(Rest { since, is_trimmed }) = &mut sandbox.frost else { panic!("trimmed while frozen") };
        let after = self.functions[&sandbox.function].spec.trim_after.expect("trimmed though it never may be");
        assert!(now >= since.saturating_add(after), "trimmed too early");
        assert!(!std::mem::replace(is_trimmed, true), "trimmed twice");
        self.tally.count("Trimmed".into());
    }

    pub(super) fn check_freeze(&mut self, now: Nanos, id: SandboxId) {
        let sandbox = self.sandboxes.get_mut(&id).expect("the dead were frozen");
        assert!(sandbox.takes_more() && sandbox.lanes.iter().all(Option::is_none), "frozen with something to do");
        let Frost::Awake(rest) = sandbox.frost else { panic!("frozen twice") };
        let after = self.functions[&sandbox.function].spec.freeze_after.expect("frozen though it never may be");
        assert!(now >= rest.since.saturating_add(after), "frozen too early");
        sandbox.frost = Frost::Frozen(rest);
        self.tally.count("Frozen".into());
    }

    pub(super) fn check_thaw(&mut self, id: SandboxId) {
        let sandbox = self.sandboxes.get_mut(&id).expect("the dead were thawed");
        assert!(!sandbox.is_condemned && matches!(sandbox.frost, Frost::Frozen(_)), "thawed what is not frozen");
        assert!(self.functions[&sandbox.function].waiting > 0, "thawed for nobody");
        sandbox.frost = Frost::Thawing;
        self.tally.count("Thaw".into());
    }

    /// Nobody waits for a start, or for nothing, with a frozen sandbox at hand.
    pub(super) fn check_frozen_at_rest(&self) {
        let living = || self.sandboxes.values().filter(|sandbox| !sandbox.is_condemned);
        let is_coming = |sandbox: &&Sandbox| !sandbox.is_ready || sandbox.frost == Frost::Thawing;
        let places = self.places_in_use() + living().filter(is_coming).count() as u64;
        for (id, function) in &self.functions {
            let own = || living().filter(|sandbox| sandbox.function == *id);
            let lanes = own().filter(|sandbox| is_coming(sandbox) || sandbox.takes_more());
            let at_hand: usize = lanes.map(|sandbox| sandbox.lanes.iter().filter(|lane| lane.is_none()).count()).sum();
            let is_lent =
                |sandbox: &&Sandbox| sandbox.lanes.iter().flatten().any(|it| self.invocations[it].place.is_lent());
            let could =
                own().any(|sandbox| matches!(sandbox.frost, Frost::Frozen(_))) && own().filter(is_lent).count() == 0;
            let is_served = function.waiting as usize <= at_hand || places >= u64::from(self.running_limit);
            assert!(!could || is_served, "somebody waits and a frozen sandbox is not thawed");
        }
    }
}
