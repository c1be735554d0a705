//! Payloads that take time: received into a reserved lane, sent from a held one.
//!
//! Invariant: every reservation ends in a commit, a yield, a cancellation or the engine's taking it back; a payload that
//! is not the lane's any more arrives when it is whole; every held lane is released.

use vilya_engine::{Event, FunctionId, InvocationId, Nanos, Origin, SandboxId};

use super::{Happening, World};

impl World {
    fn transfer(&mut self) -> Nanos {
        let longest = self.scenario.longest_transfer.as_nanos();
        Nanos::from_nanos(self.random.between(longest / 100, longest))
    }

    /// One arrival: a small payload is whole at once, for a large one a lane is asked for.
    pub(super) fn ask(&mut self, function: FunctionId) {
        self.asked += 1;
        let origin = Origin(self.asked);
        if self.random.chance(self.scenario.large) {
            self.uploads.insert(origin, function);
            self.step(Event::Reserve { origin, function });
        } else {
            self.step(Event::Arrive { origin, function });
        }
    }

    pub(super) fn begin_upload(&mut self, invocation: InvocationId) {
        let takes = self.transfer();
        self.after(takes, Happening::Uploaded(invocation));
        let until = self.transfer();
        if self.random.chance(self.faults.client_leaves) {
            self.after(until, Happening::Leave(invocation));
        }
        if self.random.chance(self.faults.driver_yields) {
            self.after(until, Happening::Yields(invocation));
        }
    }

    /// A payload that is in no lane arrives when it is whole.
    pub(super) fn buffer(&mut self, origin: Origin) {
        let takes = self.transfer();
        self.after(takes, Happening::Arrives(origin));
    }

    pub(super) fn arrives(&mut self, origin: Origin) {
        let function = self.uploads.remove(&origin).expect("what arrives late was kept");
        self.step(Event::Arrive { origin, function });
    }

    /// The payload is whole; of one taken back meanwhile the report may have been on its way.
    pub(super) fn uploaded(&mut self, invocation: InvocationId) {
        if self.books.reserved_for(invocation).is_some() || self.random.chance(300) {
            self.report(Event::Commit { invocation });
        }
    }

    pub(super) fn yields(&mut self, invocation: InvocationId) {
        let origin = self.books.reserved_for(invocation);
        if origin.is_some() || self.random.chance(300) {
            self.report(Event::Yield { invocation });
        }
        if let Some(origin) = origin {
            self.buffer(origin);
        }
    }

    /// Whether the answer to this run is sent from its lane.
    pub(super) fn holds(&mut self, sandbox: SandboxId, lane: u16, invocation: InvocationId) -> bool {
        let is_held = self.random.chance(self.scenario.large);
        if is_held {
            let takes = self.transfer();
            self.after(takes, Happening::Sent { sandbox, lane, invocation });
        }
        is_held
    }

    pub(super) fn is_asked_for(&mut self, sandbox: SandboxId, lane: u16, invocation: InvocationId) {
        let is_late = self.random.chance(self.faults.returns_late);
        let takes = if is_late { self.micros(0, 5000) } else { Nanos::ZERO };
        self.after(takes, Happening::GivesBack { sandbox, lane, invocation });
    }

    pub(super) fn gives_back(&mut self, sandbox: SandboxId, lane: u16, invocation: InvocationId) {
        if self.books.reserved_for(invocation).is_none() {
            self.report(Event::Release { sandbox, lane, invocation });
        } else if self.random.chance(100) {
            self.report(Event::Commit { invocation });
        } else if self.random.chance(50) {
            self.report(Event::Cancel { invocation });
        } else {
            self.yields(invocation);
        }
    }
}
