//! The part of the record that is about frozen sandboxes.
//!
//! Invariant: as for the rest of the record. A sandbox runs again when the driver says so, whatever the engine thinks.

use vilya_engine::{Nanos, SandboxId};

use super::{Books, Sandbox};

/// Whether a sandbox runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Frost {
    Awake { idle_since: Nanos },
    Frozen,
    Thawing,
}

impl Sandbox {
    /// A lane of it became free.
    pub(super) fn rests(&mut self, now: Nanos) {
        if let Frost::Awake { idle_since } = &mut self.frost {
            *idle_since = now;
        }
    }
}

impl Books {
    pub(super) fn learn_thaw(&mut self, now: Nanos, id: SandboxId, from: Frost) {
        if let Some(sandbox) = self.sandboxes.get_mut(&id).filter(|sandbox| sandbox.frost == from) {
            sandbox.frost = Frost::Awake { idle_since: now };
            self.tally.count(if from == Frost::Thawing { "Thawed".into() } else { "NotFrozen".into() });
        }
    }

    pub(super) fn check_freeze(&mut self, now: Nanos, id: SandboxId) {
        let sandbox = self.sandboxes.get_mut(&id).expect("the dead were frozen");
        assert!(sandbox.takes_more() && sandbox.lanes.iter().all(Option::is_none), "frozen with something to do");
        let Frost::Awake { idle_since } = sandbox.frost else { panic!("frozen twice") };
        let after = self.functions[&sandbox.function].spec.freeze_after.expect("frozen though it never may be");
        assert!(now >= idle_since.saturating_add(after), "frozen too early");
        sandbox.frost = Frost::Frozen;
        self.tally.count("Frozen".into());
    }

    pub(super) fn check_thaw(&mut self, id: SandboxId) {
        let sandbox = self.sandboxes.get_mut(&id).expect("the dead were thawed");
        assert!(!sandbox.is_condemned && sandbox.frost == Frost::Frozen, "thawed what is not frozen");
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
            let could = own().any(|sandbox| sandbox.frost == Frost::Frozen) && own().filter(is_lent).count() == 0;
            let is_served = function.waiting as usize <= at_hand || places >= u64::from(self.running_limit);
            assert!(!could || is_served, "somebody waits and a frozen sandbox is not thawed");
        }
    }
}
