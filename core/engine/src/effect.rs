//! What the engine asks of its driver, and the bounded buffer it is asked through.
//!
//! Invariant: a buffer holds at most [`Effects::CAPACITY`] effects and never grows. Does not know how an effect is
//! performed, nor how long that takes.

use crate::effects::EffectBuffer;
use crate::ids::{FunctionId, InvocationId, Origin, SandboxId};
use crate::units::Nanos;

/// Why an arrival was not admitted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Refusal {
    /// No such function, or it is being retired.
    NoSuchFunction,
    /// One sandbox of it needs more memory than the whole budget of the shard.
    TooLarge,
    /// Too many invocations of this function wait.
    QueueFull,
    /// Too many invocations are unfinished.
    InvocationsFull,
    /// The shard is draining.
    Draining,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Refusal; 5] =
        [Refusal::NoSuchFunction, Refusal::TooLarge, Refusal::QueueFull, Refusal::InvocationsFull, Refusal::Draining];
}

/// Whether an invocation waited for its sandbox to be started.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum StartKind {
    /// The first invocation of its sandbox, and it was already waiting when that sandbox became ready.
    Cold,
    /// Any other.
    Warm,
}

/// How an admitted invocation ended, for the one who asked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// The function returned.
    Returned,
    /// The function raised.
    Raised,
    /// It did not end in time, or waited too long.
    TimedOut,
    /// Its sandbox died, or was killed for a broken claim.
    SandboxDied,
    /// No sandbox could be started for it.
    StartFailed,
    /// Its client left.
    Cancelled,
    /// The drain timeout came first.
    Draining,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Outcome; 7] = [
        Outcome::Returned,
        Outcome::Raised,
        Outcome::TimedOut,
        Outcome::SandboxDied,
        Outcome::StartFailed,
        Outcome::Cancelled,
        Outcome::Draining,
    ];
}

/// Why a sandbox is to be killed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum KillReason {
    /// Idle for as long as the keep-alive policy allows.
    Idle,
    /// Its room is wanted.
    Evicted,
    /// An invocation in it ran out of time.
    TimedOut,
    /// It made a claim that cannot be true.
    Broken,
    /// Its function is retired.
    Retired,
    /// The shard is draining.
    Drained,
    /// It was not ready in time, or not thawed in time.
    StartTimedOut,
    /// It held what only its end gives back.
    Worn,
}

impl KillReason {
    /// Every reason.
    pub const ALL: [KillReason; 8] = [
        KillReason::Idle,
        KillReason::Evicted,
        KillReason::TimedOut,
        KillReason::Broken,
        KillReason::Retired,
        KillReason::Drained,
        KillReason::StartTimedOut,
        KillReason::Worn,
    ];
}

/// Something for the driver to do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Effect {
    /// An arrival was not admitted; nothing more comes of it.
    Refuse {
        /// Who asked.
        origin: Origin,
        /// Why not.
        reason: Refusal,
    },
    /// An arrival was admitted; the driver keeps its payload from now on.
    Enqueued {
        /// Its id from now on.
        invocation: InvocationId,
        /// Who asked.
        origin: Origin,
    },
    /// A lane is lent for a payload that is on its way; the invocation is admitted.
    Reserved {
        /// Its id from now on.
        invocation: InvocationId,
        /// Who asked.
        origin: Origin,
        /// Whose lane.
        sandbox: SandboxId,
        /// Which lane.
        lane: u16,
    },
    /// There is no lane to lend, and nothing is remembered: the driver keeps the payload, and tells of it by
    /// `Event::Arrive` when it is whole.
    NotReserved {
        /// Who asked.
        origin: Origin,
    },
    /// The lane of a reserved invocation is gone and nothing of it has run. It is not answered and its id means nothing
    /// any more: the payload is the driver's again, which tells of it by `Event::Arrive` when it is whole.
    Unreserved {
        /// What its id was.
        invocation: InvocationId,
        /// Who asked.
        origin: Origin,
    },
    /// Somebody waits for what this lent lane takes. The driver answers within its turn: a reserved one by `Yield`, or
    /// by `Commit` or `Cancel` if it has just become whole or nobody's; a held one by `Release`. Asked once for each loan.
    Reclaim {
        /// Which.
        invocation: InvocationId,
        /// Whose lane.
        sandbox: SandboxId,
        /// Which lane.
        lane: u16,
    },
    /// Start a sandbox. Ends in `SandboxReady`, `SandboxStartFailed` or `SandboxDied`.
    Start {
        /// Its id from now on.
        sandbox: SandboxId,
        /// Whose code it runs.
        function: FunctionId,
    },
    /// Hand an invocation to a sandbox.
    Dispatch {
        /// Which.
        invocation: InvocationId,
        /// Who asked.
        origin: Origin,
        /// Where to.
        sandbox: SandboxId,
        /// In which lane.
        lane: u16,
        /// Whether it waited for the sandbox to start.
        start: StartKind,
        /// How long it waited for anything but the start of this sandbox.
        queued: Nanos,
        /// How much of its wait this sandbox was starting.
        starting: Nanos,
        /// When it must have answered.
        deadline: Nanos,
    },
    /// Advice for the runtime: nobody waits for this any more.
    CancelRun {
        /// Where it runs.
        sandbox: SandboxId,
        /// In which lane.
        lane: u16,
        /// Which.
        invocation: InvocationId,
    },
    /// Advice for the runtime of a sandbox that has nothing to do: memory that it can do without may go back.
    Trim {
        /// Which.
        sandbox: SandboxId,
    },
    /// Stop everything in a sandbox that has nothing to do. Nothing follows, unless it cannot be done: then `NotFrozen`.
    Freeze {
        /// Which.
        sandbox: SandboxId,
    },
    /// Let a frozen sandbox run again, or one whose freezing is under way: after it, whatever the order in which they are
    /// done. Ends in `Thawed`, or in `Broken` if it cannot be done.
    Thaw {
        /// Which.
        sandbox: SandboxId,
    },
    /// Have a sandbox run only where nothing else wants to: a run in it takes long. Nothing follows.
    Demote {
        /// Which.
        sandbox: SandboxId,
    },
    /// Have it run like the others again: it is about to be given something else.
    Promote {
        /// Which.
        sandbox: SandboxId,
    },
    /// End a sandbox, whatever it is doing. Its lent lanes end with it: the driver keeps a mapping for as long as it
    /// still reads from it. Its memory and id stay in use until `SandboxDied` or
    /// `SandboxStartFailed`, one of which must follow, also when the start had not got as far as a process.
    Kill {
        /// Which.
        sandbox: SandboxId,
        /// Why.
        reason: KillReason,
    },
    /// Tell the one who asked. Exactly one for each admitted invocation that is not withdrawn, by `Event::Yield` or
    /// `Effect::Unreserved`, to come again.
    Answer {
        /// Which.
        invocation: InvocationId,
        /// Who asked.
        origin: Origin,
        /// How it ended.
        outcome: Outcome,
    },
    /// A layer has its place: it is charged from now on, until `LayerGone`. Nothing follows.
    KeepLayer {
        /// Whose.
        function: FunctionId,
    },
    /// Give up the layer of a function, as far as there is one. `LayerGone` follows if there was; it is charged until then.
    DropLayer {
        /// Whose.
        function: FunctionId,
    },
    /// The engine holds nothing under this id; its index may be used again.
    FunctionGone {
        /// Which.
        function: FunctionId,
    },
    /// Nothing is left: no invocation and no sandbox. Layers that there are end with the driver.
    Drained,
}

/// What one step asks for, in order.
pub type Effects = EffectBuffer<Effect>;
