//! The part of the record that is about lent lanes: what the driver does with them, and what the engine says of them.
//!
//! Invariant: as for the rest of the record.

use vilya_engine::{Effect, Event, InvocationId, Nanos, Origin, SandboxId};

use super::frost::Frost;
use super::{Books, Invocation, Place, Sandbox};

impl Place {
    /// Whether its lane is the driver's.
    pub(super) fn is_lent(self) -> bool {
        matches!(self, Place::Reserved { .. } | Place::Held { .. })
    }
}

impl Sandbox {
    pub(super) fn takes_more(&self) -> bool {
        self.is_ready && !self.is_condemned && !self.is_closing && matches!(self.frost, Frost::Awake(_))
    }

    fn has_free_lane(&self) -> bool {
        self.takes_more() && self.lanes.contains(&None)
    }
}

impl Books {
    /// Who asked for this reservation, while it is one.
    pub(in crate::simulation) fn reserved_for(&self, invocation: InvocationId) -> Option<Origin> {
        let found = self.invocations.get(&invocation)?;
        matches!(found.place, Place::Reserved { .. }).then_some(found.origin)
    }

    /// Places that the concurrency policy counts; the condemned ones' processes are as good as dead.
    pub(super) fn places_in_use(&self) -> u64 {
        let living = self.sandboxes.values().filter(|sandbox| !sandbox.is_condemned);
        let is_counted = |id: &&InvocationId| !matches!(self.invocations[*id].place, Place::Held { .. });
        living.map(|sandbox| sandbox.lanes.iter().flatten().filter(is_counted).count() as u64).sum()
    }

    /// The sandbox that an invocation has a lane of.
    pub(super) fn sandbox_of(&mut self, id: InvocationId) -> &mut Sandbox {
        let has_it = |sandbox: &&mut Sandbox| sandbox.lanes.contains(&Some(id));
        self.sandboxes.values_mut().find(has_it).expect("what has a lane has a sandbox")
    }

    /// Frees the lane of a loan and forgets its invocation.
    pub(super) fn end_loan(&mut self, id: InvocationId) {
        let now = self.now;
        let sandbox = self.sandbox_of(id);
        for lane in &mut sandbox.lanes {
            if *lane == Some(id) {
                *lane = None;
            }
        }
        sandbox.rests(now);
        self.invocations.remove(&id);
    }

    pub(super) fn learn_commit(&mut self, id: InvocationId) {
        if let Some(Invocation { place: Place::Reserved { is_whole, .. }, .. }) = self.invocations.get_mut(&id) {
            *is_whole = true;
        }
    }

    pub(super) fn learn_yield(&mut self, id: InvocationId) {
        match self.invocations.get(&id).map(|invocation| invocation.place) {
            Some(Place::Reserved { .. }) => {
                self.tally.count("Yielded".into());
                self.end_loan(id);
            }
            // Its end is being told; this says that nobody need be told.
            Some(Place::Lost { dispatched: None }) => {
                self.invocations.remove(&id);
            }
            _ => {}
        }
    }

    pub(super) fn learn_release(&mut self, sandbox: SandboxId, lane: u16, id: InvocationId) {
        let is_held = self.invocations.get(&id).is_some_and(|it| matches!(it.place, Place::Held { .. }));
        if is_held && self.is_in_lane(sandbox, lane, id) {
            self.tally.count("Released".into());
            self.end_loan(id);
        }
    }

    pub(super) fn check_reservation(&mut self, now: Nanos, effect: &Effect, event: &Event) {
        let Effect::Reserved { invocation: id, origin, sandbox, lane } = *effect else {
            unreachable!("called for reservations")
        };
        let Event::Reserve { origin: asked, function } = *event else { panic!("a reservation that nobody asked for") };
        assert_eq!(origin, asked);
        assert!(self.draining.is_none(), "reserved while draining");
        let known = self.functions.get(&function).expect("reserved for an unknown function");
        assert!(!known.is_retired && known.waiting == 0, "reserved for a retired function, or before those that wait");
        let sandbox = self.sandboxes.get_mut(&sandbox).expect("reserved in the dead");
        assert!(sandbox.takes_more() && sandbox.function == function, "reserved where it cannot run");
        let lane = sandbox.lanes.get_mut(usize::from(lane)).expect("a lane that does not exist was reserved");
        assert!(lane.replace(id).is_none(), "a lane in use was reserved");
        let invocation = Invocation {
            origin,
            function,
            arrived: now,
            place: Place::Reserved { is_whole: false, is_asked: false },
            is_answered: false,
            has_left: false,
            reported: None,
        };
        assert!(self.invocations.insert(id, invocation).is_none(), "an id in use was given again");
        assert!(self.invocations.len() as u32 <= self.limits.invocations, "invocations exceed their limit");
        assert!(self.places_in_use() <= u64::from(self.running_limit), "reservations exceed the limit of runs");
        self.tally.count("Reserved".into());
    }

    pub(super) fn check_no_reservation(&mut self, origin: Origin, event: &Event, was_at_rest: bool) {
        let Event::Reserve { origin: asked, function } = *event else { panic!("a reservation that nobody asked for") };
        assert_eq!(origin, asked);
        let known = &self.functions[&function];
        let has_lane = self.sandboxes.values().any(|sandbox| sandbox.function == function && sandbox.has_free_lane());
        let has_place = self.places_in_use() < u64::from(self.running_limit);
        let could_be = known.waiting == 0 && has_lane && has_place;
        assert!(!could_be || !was_at_rest, "a lane was at hand and not reserved");
        self.tally.count("NotReserved".into());
    }

    /// Sandboxes of runs whose time has passed take no more. Of a run whose client left before, nobody is told so.
    pub(super) fn learn_overdue(&mut self, now: Nanos) {
        let (functions, invocations) = (&self.functions, &self.invocations);
        for sandbox in self.sandboxes.values_mut() {
            let timeout = functions[&sandbox.function].spec.timeout;
            let is_overdue = |id: &InvocationId| match invocations.get(id).map(|it| it.place) {
                Some(Place::Running { dispatched }) => now >= dispatched.saturating_add(timeout),
                _ => false,
            };
            sandbox.is_closing |= sandbox.lanes.iter().flatten().any(is_overdue);
        }
    }

    pub(super) fn check_unreserved(&mut self, now: Nanos, id: InvocationId, origin: Origin) {
        self.learn_overdue(now);
        let invocation = self.invocations.get(&id).expect("an unknown reservation was taken back");
        assert_eq!(invocation.origin, origin);
        assert!(!invocation.is_answered, "taken back and answered");
        match invocation.place {
            Place::Lost { dispatched: None } => {
                self.invocations.remove(&id);
            }
            Place::Reserved { is_whole: true, .. } => {
                assert!(self.sandbox_of(id).is_closing, "taken back from a sandbox that takes more");
                self.end_loan(id);
            }
            _ => panic!("taken back without a reason"),
        }
        self.tally.count("Unreserved".into());
    }

    pub(super) fn check_reclaim(&mut self, sandbox: SandboxId, lane: u16, id: InvocationId) {
        assert!(self.is_in_lane(sandbox, lane, id), "asked for a lane that is not lent");
        assert!(self.sandboxes[&sandbox].takes_more(), "asked for a lane that would serve nobody");
        assert!(self.functions.values().any(|function| function.waiting > 0), "asked for what nobody waits for");
        let invocation = self.invocations.get_mut(&id).expect("asked for the lane of an unknown invocation");
        let (Place::Reserved { is_asked, .. } | Place::Held { is_asked }) = &mut invocation.place else {
            panic!("asked for a lane in which something runs")
        };
        assert!(!std::mem::replace(is_asked, true), "asked for twice");
        let kind = if matches!(invocation.place, Place::Held { .. }) { "Held" } else { "Reserved" };
        self.tally.count(format!("Reclaimed{kind}"));
    }

    /// Nobody waits for a lane that could be asked for.
    pub(super) fn check_contention(&self) {
        for (id, function) in &self.functions {
            let own = || self.sandboxes.values().filter(|sandbox| sandbox.function == *id && !sandbox.is_condemned);
            let lanes = || own().flat_map(|sandbox| sandbox.lanes.iter().map(move |lane| (sandbox, lane)));
            let (mut coming, mut idle_loans) = (0, 0);
            for (sandbox, lane) in lanes() {
                match lane.map(|invocation| self.invocations[&invocation].place) {
                    None if sandbox.takes_more() => coming += 1,
                    Some(Place::Reserved { is_asked: true, .. } | Place::Held { is_asked: true }) => coming += 1,
                    Some(Place::Reserved { .. } | Place::Held { .. }) if sandbox.takes_more() => idle_loans += 1,
                    _ => {}
                }
            }
            assert!(function.waiting <= coming || idle_loans == 0, "a lent lane is missed and not asked for");
        }
    }
}
