//! How modelled sandboxes start and run, rightly and wrongly.
//!
//! Invariant: what goes wrong is drawn once, when a sandbox is started or given work; a kill comes on top of it.

use vilya_engine::{FunctionId, InvocationId, Nanos, SandboxId};

use super::{Happening, World};

impl World {
    pub(super) fn begin_start(&mut self, sandbox: SandboxId, function: FunctionId) {
        let faults = self.faults;
        let from_layer = self.started_from_layer(function);
        let spawns = self.micros(50, 2000);
        let readies = spawns.saturating_add(self.micros(100, if from_layer { 1000 } else { 20_000 }));
        if self.random.chance(faults.start_fails) {
            return self.after(spawns, Happening::StartFails(sandbox));
        }
        // The process is reported before the runtime, or just after it.
        let is_reported_late = self.random.chance(100);
        self.after(if is_reported_late { readies } else { spawns }, Happening::Spawned { sandbox, from_layer });
        if self.random.chance(faults.start_hangs) {
            return;
        }
        if self.random.chance(faults.start_dies) {
            return self.after(readies, Happening::Dies(sandbox));
        }
        if self.random.chance(faults.start_lies) {
            return self.after(readies, Happening::BreaksRing(sandbox));
        }
        let is_late = self.random.chance(faults.start_is_late);
        let late = if is_late { self.scenario.limits.start_timeout } else { Nanos::ZERO };
        self.after(readies.saturating_add(late), Happening::Ready(sandbox));
        if self.random.chance(faults.dies_when_ready) {
            let lives = self.micros(0, 500_000);
            self.after(readies.saturating_add(lives), Happening::Dies(sandbox));
        }
    }

    pub(super) fn begin_freeze(&mut self, sandbox: SandboxId) {
        if self.random.chance(self.faults.freeze_fails) {
            let takes = self.micros(10, 3000);
            self.after(takes, Happening::StaysAwake(sandbox));
        }
    }

    pub(super) fn begin_thaw(&mut self, sandbox: SandboxId) {
        let takes = self.micros(10, 3000);
        if self.random.chance(self.faults.thaw_fails) {
            return self.after(takes, Happening::BreaksRing(sandbox));
        }
        let is_late = self.random.chance(self.faults.thaw_is_late);
        let late = if is_late { self.scenario.limits.start_timeout } else { Nanos::ZERO };
        self.after(takes.saturating_add(late), Happening::Thaws(sandbox));
    }

    pub(super) fn begin_run(&mut self, sandbox: SandboxId, lane: u16, invocation: InvocationId, timeout: Nanos) {
        let faults = self.faults;
        let longest = self.scenario.longest_run.as_nanos();
        let takes = Nanos::from_nanos(self.random.between(longest / 100, longest));
        if self.random.chance(faults.run_hangs) {
            return;
        }
        if self.random.chance(faults.run_kills) {
            return self.after(takes, Happening::Dies(sandbox));
        }
        if self.random.chance(faults.breaks_ring) {
            return self.after(takes, Happening::BreaksRing(sandbox));
        }
        if self.random.chance(faults.answers_wrongly) {
            let InvocationId { index, generation } = invocation;
            let wrong = self.random.pick(&[
                Happening::Claims { sandbox, lane: lane.wrapping_add(1), invocation },
                Happening::Claims { sandbox, lane: u16::MAX, invocation },
                Happening::Claims { sandbox, lane, invocation: InvocationId { index, generation: generation + 1 } },
                Happening::Claims { sandbox, lane, invocation: InvocationId { index: index + 1, generation } },
            ]);
            return self.after(takes, wrong);
        }
        let late = if self.random.chance(faults.run_is_late) { timeout } else { Nanos::ZERO };
        let takes = takes.saturating_add(late);
        let is_raised = self.random.chance(100);
        self.after(takes, Happening::Finishes { sandbox, lane, invocation, is_raised });
        if self.random.chance(faults.answers_twice) {
            let again = takes.saturating_add(self.micros(0, 2000));
            self.after(again, Happening::Claims { sandbox, lane, invocation });
        }
    }
}
