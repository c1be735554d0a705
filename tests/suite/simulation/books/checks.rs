//! What each effect is held to.
//!
//! Invariant: a check looks at the record first and then brings it up to date with the effect.

use vilya_engine::{
    Effect, Event, FunctionId, InvocationId, KillReason, Nanos, Origin, Outcome, Refusal, RunResult, SandboxId,
    StartKind,
};

use super::frost::Frost;
use super::{Books, Invocation, Place, Sandbox};

impl Books {
    /// Checks one effect and learns from it. `was_at_rest`: nothing was left over from before this step.
    pub(in crate::simulation) fn check(&mut self, now: Nanos, effect: &Effect, event: &Event, was_at_rest: bool) {
        assert!(
            !self.is_drained
                || matches!(effect, Effect::Refuse { .. } | Effect::FunctionGone { .. } | Effect::DropLayer { .. }),
            "{effect:?} after Drained"
        );
        match *effect {
            Effect::Refuse { origin, reason } => self.check_refusal(origin, reason, event, was_at_rest),
            Effect::Enqueued { invocation, origin } => self.check_admission(now, invocation, origin, event),
            Effect::Start { sandbox, function } => self.check_start(sandbox, function),
            Effect::Dispatch { .. } => self.check_dispatch(now, effect),
            Effect::CancelRun { sandbox, lane, invocation } => {
                assert!(self.works_on(sandbox, lane, invocation), "advice on what does not run");
                assert!(self.invocations[&invocation].has_left, "advice to cancel what is wanted");
            }
            Effect::Trim { sandbox } => self.check_trim(now, sandbox),
            Effect::Freeze { sandbox } => self.check_freeze(now, sandbox),
            Effect::Thaw { sandbox } => self.check_thaw(sandbox),
            Effect::Demote { sandbox } => self.check_demotion(sandbox),
            Effect::Promote { sandbox } => self.check_promotion(sandbox),
            Effect::Kill { sandbox, reason } => self.check_kill(sandbox, reason),
            Effect::Answer { invocation, origin, outcome } => self.check_answer(now, invocation, origin, outcome),
            Effect::KeepLayer { function } => self.check_kept_layer(function),
            Effect::DropLayer { function } => self.check_dropped_layer(function),
            Effect::FunctionGone { function } => {
                assert!(!self.has_layer(function), "a function is gone whose layer is not");
                let gone = self.functions.remove(&function).expect("a function is gone once");
                assert!(gone.is_retired && gone.waiting == 0 && gone.sandboxes == 0, "a function is gone too early");
                self.tally.count("FunctionGone".into());
            }
            Effect::Reserved { .. } => self.check_reservation(now, effect, event),
            Effect::NotReserved { origin } => self.check_no_reservation(origin, event, was_at_rest),
            Effect::Unreserved { invocation, origin } => self.check_unreserved(now, invocation, origin),
            Effect::Reclaim { invocation, sandbox, lane } => self.check_reclaim(sandbox, lane, invocation),
            Effect::Drained => {
                assert!(self.draining.is_some(), "drained without being asked");
                assert!(self.invocations.is_empty() && self.sandboxes.is_empty(), "drained with something left");
                self.is_drained = true;
            }
        }
    }

    fn check_refusal(&mut self, origin: Origin, reason: Refusal, event: &Event, was_at_rest: bool) {
        let (Event::Arrive { origin: asked, function } | Event::Reserve { origin: asked, function }) = *event else {
            panic!("a refusal without an arrival")
        };
        assert_eq!(origin, asked);
        let function = self.functions.get(&function);
        let is_true = match reason {
            Refusal::Draining => self.draining.is_some(),
            Refusal::NoSuchFunction => function.is_none_or(|function| function.is_retired),
            Refusal::TooLarge => function.is_some_and(|function| function.spec.memory > self.limits.memory),
            Refusal::QueueFull => function.is_some_and(|function| function.waiting >= self.limits.queue_per_function),
            Refusal::InvocationsFull => !was_at_rest || self.invocations.len() as u32 >= self.limits.invocations,
        };
        assert!(is_true, "refused for {reason:?}, which is not so");
        self.tally.count(format!("{reason:?}"));
    }

    fn check_admission(&mut self, now: Nanos, id: InvocationId, origin: Origin, event: &Event) {
        let Event::Arrive { origin: asked, function } = *event else { panic!("an admission without an arrival") };
        assert_eq!(origin, asked);
        assert!(self.draining.is_none(), "admitted while draining");
        let known = self.functions.get_mut(&function).expect("admitted for an unknown function");
        assert!(!known.is_retired, "admitted for a retired function");
        known.waiting += 1;
        assert!(known.waiting <= self.limits.queue_per_function, "a queue exceeds its limit");
        let invocation = Invocation {
            origin,
            function,
            arrived: now,
            place: Place::Waiting,
            is_answered: false,
            has_left: false,
            reported: None,
        };
        assert!(self.invocations.insert(id, invocation).is_none(), "an id in use was given again");
        assert!(self.invocations.len() as u32 <= self.limits.invocations, "invocations exceed their limit");
    }

    fn check_start(&mut self, id: SandboxId, of: FunctionId) {
        let function = self.functions.get_mut(&of).expect("a start for an unknown function");
        function.sandboxes += 1;
        assert!(function.sandboxes <= self.limits.sandboxes_per_function, "a function exceeds its sandboxes");
        let sandbox = Sandbox {
            function: of,
            memory: function.spec.memory,
            is_ready: false,
            has_served: false,
            is_condemned: false,
            is_closing: false,
            has_lied: false,
            frost: Frost::since(self.now),
            is_demoted: false,
            lanes: vec![None; usize::from(function.lanes())],
        };
        assert!(self.sandboxes.insert(id, sandbox).is_none(), "an id in use was started again");
        assert!(self.memory_in_use() <= self.limits.memory.as_bytes(), "memory exceeds its limit");
        assert!(self.sandboxes.len() as u32 <= self.limits.sandboxes, "sandboxes exceed their limit");
        let is_starting = |sandbox: &&Sandbox| !sandbox.is_ready && !sandbox.is_condemned;
        let starting = self.sandboxes.values().filter(is_starting).count() as u32;
        assert!(starting <= self.limits.starting, "starts exceed their limit");
    }

    fn check_dispatch(&mut self, now: Nanos, effect: &Effect) {
        let Effect::Dispatch { invocation: id, origin, sandbox, lane, start, queued, starting, deadline } = *effect
        else {
            unreachable!("called for dispatches")
        };
        let is_long = self.has_long_run(sandbox);
        let invocation = self.invocations.get_mut(&id).expect("an unknown invocation was dispatched");
        let is_commit = matches!(invocation.place, Place::Reserved { is_whole: true, .. });
        if is_commit {
            invocation.arrived = now;
            assert_eq!((start, queued), (StartKind::Warm, Nanos::ZERO), "a committed one has waited for nothing");
        }
        let may_run = is_commit || invocation.place == Place::Waiting;
        assert!(!invocation.is_answered && may_run, "dispatched twice, or too late");
        assert_eq!(invocation.origin, origin);
        assert_eq!(queued.saturating_add(starting), now.saturating_sub(invocation.arrived), "its wait is not split");
        let function = self.functions.get_mut(&invocation.function).expect("what waits has a function");
        assert_eq!(deadline, now.saturating_add(function.spec.timeout));
        let sandbox = self.sandboxes.get_mut(&sandbox).expect("dispatched to the dead");
        assert!(!sandbox.is_demoted || is_long, "given work while it gives way to others for nothing");
        assert!(sandbox.takes_more(), "dispatched where nothing runs");
        assert_eq!(sandbox.function, invocation.function, "dispatched to another function's sandbox");
        assert!(start == StartKind::Warm || !sandbox.has_served, "cold in a sandbox that has served");
        sandbox.has_served = true;
        let lane = sandbox.lanes.get_mut(usize::from(lane)).expect("dispatched to a lane that does not exist");
        let before = lane.replace(id);
        assert_eq!(before, is_commit.then_some(id), "a lane is used twice at once, or not the one reserved");
        invocation.place = Place::Running { dispatched: now };
        function.waiting -= u32::from(!is_commit);
        self.tally.count(if is_commit { "Committed".into() } else { format!("{start:?}") });
        assert!(self.places_in_use() <= u64::from(self.running_limit), "runs exceed their limit");
    }

    fn check_kill(&mut self, id: SandboxId, reason: KillReason) {
        let sandbox = self.sandboxes.get_mut(&id).expect("the dead were told to die");
        assert!(!sandbox.is_condemned, "told to die twice");
        sandbox.is_condemned = true;
        let running: Vec<InvocationId> = sandbox.lanes.iter().flatten().copied().collect();
        let function = self.functions.get_mut(&sandbox.function).expect("a function outlives its sandboxes");
        let is_true = match reason {
            KillReason::Idle | KillReason::Evicted | KillReason::Worn => sandbox.is_ready && running.is_empty(),
            KillReason::TimedOut => running.iter().map(|running| &self.invocations[running]).all(|it| match it.place {
                Place::Reserved { .. } => true,
                _ => it.is_answered,
            }),
            KillReason::Broken => sandbox.has_lied,
            KillReason::Retired => function.is_retired && running.is_empty() && function.waiting == 0,
            KillReason::Drained => self.draining.is_some(),
            KillReason::StartTimedOut => !sandbox.is_ready || sandbox.frost == Frost::Thawing,
        };
        assert!(is_true, "killed for {reason:?}, which is not so");
        if matches!(reason, KillReason::StartTimedOut | KillReason::Broken) && !sandbox.is_ready {
            function.learn_failed_start();
        }
        for lost in running {
            self.lose(lost);
        }
        self.tally.count(format!("Kill{reason:?}"));
    }

    fn check_answer(&mut self, now: Nanos, id: InvocationId, origin: Origin, outcome: Outcome) {
        let invocation = self.invocations.get_mut(&id).expect("an unknown invocation was answered");
        assert!(!invocation.is_answered, "answered twice");
        assert_eq!(invocation.origin, origin);
        let function = self.functions.get_mut(&invocation.function).expect("an invocation has a function");
        let timeout = function.spec.timeout;
        let place = invocation.place;
        let is_true = match outcome {
            Outcome::Returned => invocation.reported == Some(RunResult::Returned),
            Outcome::Raised => invocation.reported == Some(RunResult::Raised),
            Outcome::TimedOut => match place {
                Place::Waiting => now >= invocation.arrived.saturating_add(timeout.max(self.limits.start_timeout)),
                Place::Running { dispatched } | Place::Lost { dispatched: Some(dispatched) } => {
                    now >= dispatched.saturating_add(timeout)
                }
                Place::Reserved { .. } | Place::Held { .. } | Place::Lost { dispatched: None } => false,
            },
            Outcome::SandboxDied => matches!(place, Place::Lost { dispatched: Some(_) }),
            Outcome::StartFailed => {
                let may_be_told = place == Place::Waiting && function.start_failures > 0;
                function.start_failures = function.start_failures.saturating_sub(1);
                may_be_told
            }
            Outcome::Cancelled => invocation.has_left,
            Outcome::Draining => {
                self.draining.is_some_and(|since| now >= since.saturating_add(self.limits.drain_timeout))
            }
        };
        assert!(is_true, "answered {outcome:?}, which is not so");
        invocation.is_answered = true;
        match place {
            Place::Waiting => {
                function.waiting -= 1;
                self.invocations.remove(&id);
            }
            Place::Held { .. } => invocation.reported = None,
            Place::Reserved { .. } => self.end_loan(id),
            Place::Running { .. } if invocation.reported.is_none() => {}
            Place::Running { .. } | Place::Lost { .. } => {
                self.invocations.remove(&id);
            }
        }
        self.tally.count(format!("{outcome:?}"));
    }

    /// What must be so when the engine says that nothing is left over. `was_at_rest`: nor was it before this step.
    pub(in crate::simulation) fn check_at_rest(&mut self, now: Nanos, was_at_rest: bool) {
        for invocation in self.invocations.values() {
            assert!(!matches!(invocation.place, Place::Lost { .. }), "nobody was told of a death");
            assert!(invocation.reported.is_none(), "nobody was told of a completion");
            assert!(!invocation.has_left || invocation.is_answered, "one who left was not told so");
            let is_whole = matches!(invocation.place, Place::Reserved { is_whole: true, .. });
            assert!(!is_whole, "nothing came of a whole payload");
        }
        self.learn_overdue(now);
        self.check_contention();
        self.check_frozen_at_rest();
        self.check_demoted_at_rest();
        self.check_layers_at_rest();
        for sandbox in self.sandboxes.values() {
            assert!(!sandbox.has_lied || sandbox.is_condemned, "a liar lives");
        }
        for function in self.functions.values_mut() {
            // Between two steps with work left over, those who were to be told may have left.
            assert!(function.start_failures == 0 || !was_at_rest, "nobody was told of a failed start");
            function.start_failures = 0;
        }
    }
}
