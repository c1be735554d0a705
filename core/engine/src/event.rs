//! What a driver tells the engine.
//!
//! Invariant: an event is plain data, and any event is acceptable at any time. One that makes no sense (an id of a
//! slot used again, a death reported twice) changes nothing and is counted as stale; one that only a lying sandbox
//! can cause kills that sandbox.

use crate::ids::{FunctionId, InvocationId, Origin, SandboxId};
use crate::units::{Bytes, Nanos};

/// What the engine must know of a function.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FunctionSpec {
    /// What one sandbox of it is charged.
    pub memory: Bytes,
    /// From dispatch until it must have answered.
    pub timeout: Nanos,
    /// Invocations one sandbox runs at once: its lanes. 0 is taken as 1.
    pub concurrency: u16,
    /// Sandboxes that are kept ready whether or not anybody asks.
    pub min_warm: u32,
    /// From becoming idle until a sandbox of it is asked for what memory it can do without; `None`: never.
    pub trim_after: Option<Nanos>,
    /// From becoming idle until a sandbox of it is frozen; `None`: never.
    pub freeze_after: Option<Nanos>,
}

/// How a run ended, as its sandbox tells it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RunResult {
    /// The function returned a value.
    Returned,
    /// The function raised an error; its sandbox goes on.
    Raised,
}

/// Something that happened.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// A function may be invoked from now on. One that cannot be taken (its index is beyond the limit, or still in
    /// use) is answered with [`Effect::FunctionGone`](crate::Effect::FunctionGone).
    FunctionAdded {
        /// The driver's number for it.
        function: FunctionId,
        /// What it needs.
        spec: FunctionSpec,
    },
    /// Removed or replaced: no new arrivals; queued, reserved and running ones finish; idle sandboxes are killed; then
    /// [`Effect::FunctionGone`](crate::Effect::FunctionGone), after which the index may be used again.
    FunctionRetired {
        /// Which.
        function: FunctionId,
    },
    /// Somebody wants a function invoked.
    Arrive {
        /// Handed back with whatever comes of it.
        origin: Origin,
        /// Which.
        function: FunctionId,
    },
    /// Somebody wants a function invoked and its payload is still on its way. With a lane at hand that nobody waits
    /// for, it is lent to the driver, which receives the payload where it will be read, and answers with
    /// [`Event::Commit`], [`Event::Yield`] or [`Event::Cancel`]. A reservation has no deadline of the engine's: it lasts
    /// as long as the driver lets its client take.
    Reserve {
        /// Handed back with whatever comes of it.
        origin: Origin,
        /// Which.
        function: FunctionId,
    },
    /// The payload of a reserved invocation is whole: it is dispatched in its lane. Its arrival is this moment, and so
    /// is the beginning of its timeout.
    Commit {
        /// Which.
        invocation: InvocationId,
    },
    /// The driver gives a reservation up and has the payload elsewhere; it will come again as [`Event::Arrive`], when it
    /// is whole, under another id.
    Yield {
        /// Which.
        invocation: InvocationId,
    },
    /// The client is gone. Answered at once; a running one keeps its lane until it completes or times out, a reserved
    /// one frees it.
    Cancel {
        /// Which.
        invocation: InvocationId,
    },
    /// The process of a sandbox exists. May also come after [`Event::SandboxReady`]: two paths report them.
    SandboxStarted {
        /// Which.
        sandbox: SandboxId,
        /// Whether it was started from its function's layer, and not from the beginning.
        from_layer: bool,
    },
    /// The runtime in a sandbox takes invocations.
    SandboxReady {
        /// Which.
        sandbox: SandboxId,
    },
    /// A start came to nothing; no process runs under this id, and the id is free afterwards.
    SandboxStartFailed {
        /// Which.
        sandbox: SandboxId,
    },
    /// A sandbox claims to have finished an invocation. A claim that does not fit the engine's own table kills it.
    Completed {
        /// Whose claim.
        sandbox: SandboxId,
        /// Where it ran.
        lane: u16,
        /// What ran.
        invocation: InvocationId,
        /// How it ended.
        result: RunResult,
        /// The driver's word, not the sandbox's: the lane stays taken until [`Event::Release`], because the answer is
        /// read from its memory.
        held: bool,
    },
    /// The driver reads a held lane's memory no more.
    Release {
        /// Whose lane.
        sandbox: SandboxId,
        /// Which lane.
        lane: u16,
        /// What was completed there.
        invocation: InvocationId,
    },
    /// A sandbox made an impossible claim on its ring.
    Broken {
        /// Which.
        sandbox: SandboxId,
    },
    /// A sandbox holds what only its end gives back. It is killed if it is idle; one that is not stays as it is, and may be
    /// named again later.
    Replace {
        /// Which.
        sandbox: SandboxId,
    },
    /// A sandbox that [`Effect::Thaw`](crate::Effect::Thaw) named runs again.
    Thawed {
        /// Which.
        sandbox: SandboxId,
    },
    /// A sandbox that [`Effect::Freeze`](crate::Effect::Freeze) named cannot be frozen: it runs, and is not tried again. One that
    /// cannot be thawed is [`Event::Broken`].
    NotFrozen {
        /// Which.
        sandbox: SandboxId,
    },
    /// The process of a sandbox is gone; the id is free afterwards.
    SandboxDied {
        /// Which.
        sandbox: SandboxId,
    },
    /// There is a layer of a function: something that starts of it are quicker from, and that outlives its sandboxes. Told to
    /// the one shard that is charged for it; answered with [`Effect::KeepLayer`](crate::Effect::KeepLayer) or
    /// [`Effect::DropLayer`](crate::Effect::DropLayer). One that takes the place of another comes after that one's
    /// [`Event::LayerGone`].
    LayerMade {
        /// Whose.
        function: FunctionId,
        /// What it takes, once for all sandboxes that are started from it.
        memory: Bytes,
    },
    /// A sandbox of the function was started from the layer on another shard.
    LayerUsed {
        /// Whose.
        function: FunctionId,
    },
    /// A layer is not there any more, dropped or for the driver's own reasons. Nothing is started from it afterwards.
    LayerGone {
        /// Whose.
        function: FunctionId,
    },
    /// Time has passed, or work was left over.
    Tick,
    /// Refuse arrivals, finish what is queued, reserved and running, kill what is idle; after the drain timeout kill
    /// everything; then [`Effect::Drained`](crate::Effect::Drained).
    Drain,
}

/// What ran in a lane, as a report names it.
#[derive(Clone, Copy)]
pub(crate) struct Lane {
    pub(crate) sandbox: SandboxId,
    pub(crate) lane: u16,
    pub(crate) invocation: InvocationId,
}
