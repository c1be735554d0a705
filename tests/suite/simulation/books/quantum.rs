//! The part of the record that is about sandboxes that give way to others.
//!
//! Invariant: as for the rest of the record. A run is long when its quantum has passed, whatever the engine has noticed.

use vilya_engine::{Nanos, SandboxId};

use super::{Books, Place};

impl Books {
    /// Whether something in it has run for longer than the quantum.
    pub(super) fn has_long_run(&self, id: SandboxId) -> bool {
        let Some(quantum) = self.quantum else { return false };
        let runs = self.sandboxes[&id].lanes.iter().flatten().map(|invocation| self.invocations[invocation].place);
        let is_long = |dispatched: Nanos| self.now >= dispatched.saturating_add(quantum);
        runs.into_iter().any(|place| matches!(place, Place::Running { dispatched } if is_long(dispatched)))
    }

    pub(super) fn check_demotion(&mut self, id: SandboxId) {
        assert!(self.has_long_run(id), "demoted though nothing in it takes long");
        let sandbox = self.sandboxes.get_mut(&id).expect("the dead were demoted");
        assert!(!sandbox.is_condemned, "the condemned were demoted");
        assert!(!std::mem::replace(&mut sandbox.is_demoted, true), "demoted twice");
        self.tally.count("Demoted".into());
    }

    pub(super) fn check_promotion(&mut self, id: SandboxId) {
        let sandbox = self.sandboxes.get_mut(&id).expect("the dead were promoted");
        assert!(std::mem::replace(&mut sandbox.is_demoted, false), "promoted though it gives way to nobody");
        self.tally.count("Promoted".into());
    }

    /// What takes long gives way.
    pub(super) fn check_demoted_at_rest(&self) {
        for (id, sandbox) in &self.sandboxes {
            let is_overlooked = !sandbox.is_condemned && !sandbox.is_demoted && self.has_long_run(*id);
            assert!(!is_overlooked, "a run takes long and its sandbox gives way to nobody");
        }
    }
}
