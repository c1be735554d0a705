//! Messages between the threads of a worker: shards, control, starter, reaper and freezer share nothing else.
//!
//! Invariant: a message is delivered once, in the order its sender posted it. The channels are unbounded in type and
//! bounded in use: a shard forwards at most its `invocations` limit, a reply answers a message, and the control thread
//! waits for each change to be taken before it makes the next. The mesh does not know what its messages mean.

use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, unbounded};
use vilya_engine::{FunctionId, FunctionSpec, SandboxId};
use vilya_isolate::{Ended, Started};
use vilya_reactor::Waker;

use crate::arena::Hold;
use crate::control::{FetchEnded, UnpackingEnded};
use crate::load::ShardLoad;
use crate::metrics::{FunctionCounters, ShardReport};
use crate::part::Part;
use crate::request::{AdminCall, Client, Request, RequestId, Source};
use crate::response::Response;
use crate::route::Route;
use crate::shard::Sighting;
use crate::storage::FunctionRecord;

/// What a shard can be told.
// The frequent ones are the large ones: a box for each would be an allocation an invocation.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Message {
    /// A request that arrived on another shard, for a function that this shard owns.
    Invoke(Request),
    /// The client of a forwarded request has gone.
    Cancel(Source),
    /// The answer of another shard to a request that arrived on this one.
    Respond { client: Client, response: Response },
    /// A part of another shard's answer to a request that arrived on this one.
    Part { client: Client, part: Part },
    /// A part of an answer was taken, or nobody takes any more of it.
    PartTaken { hold: Hold, goes_on: bool },
    /// Somebody waits for the lane that an answer to this client is sent from.
    Reclaim { client: Client, hold: Hold },
    /// An answer is sent: its lane is free.
    Released(Hold),
    /// The answer of the control thread, which is done with the body that was charged for.
    Administered { client: Client, response: Box<Response>, charged_bytes: u64 },
    /// A function appeared, moved to another version, or went. `taken` is told when the shard has applied it.
    Route { name: Box<str>, route: Option<Route>, taken: Sender<()> },
    /// This shard now owns a function.
    Own { function: FunctionId, spec: FunctionSpec, record: Arc<FunctionRecord> },
    /// A function this shard owns was removed or replaced, or is left to its other owners.
    Disown { function: FunctionId },
    /// The starter is done with a start that this shard asked for.
    Started { sandbox: SandboxId, outcome: Box<Result<StartedSandbox, String>> },
    /// The freezer could not freeze a sandbox.
    NotFrozen { sandbox: SandboxId },
    /// The freezer has thawed a sandbox, or could not.
    Thawed { sandbox: SandboxId, outcome: Result<(), String> },
    /// There is an image of a function, whose home this shard is, that starts are copies of from now on.
    LayerMade { function: FunctionId, bytes: u64 },
    /// A start of another shard is to be a copy of it.
    LayerUsed { function: FunctionId },
    /// There is none any more.
    LayerGone { function: FunctionId },
    /// A dead sandbox has been cleaned up.
    Reaped { sandbox: SandboxId, ended: Ended },
    /// Asks for the shard's figures.
    Report(Sender<ShardReport>),
    /// Asks for the shard's sandboxes.
    Roster(Sender<Vec<Sighting>>),
    /// Finish what is running and refuse the rest; tell when nothing is left.
    Drain(Sender<()>),
    /// Every shard is drained: send what is owed, and end.
    Stop,
}

/// A sandbox process as the starter hands it to its shard.
pub(crate) struct StartedSandbox {
    pub(crate) host: vilya_ipc::host::Host,
    pub(crate) started: Started,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// What the control thread can be told.
pub(crate) enum ControlMessage {
    /// An administrative request that arrived on a shard, and what its body holds of the shard's budget.
    Call { source: Source, call: AdminCall, body: Vec<u8>, request_id: RequestId, charged_bytes: u64 },
    /// A shard holds nothing any more of a function that it was told to disown, and what it had counted for it.
    FunctionGone { shard: usize, function: FunctionId, counters: Box<FunctionCounters> },
    /// What a shard was busy with, if it was.
    Load(ShardLoad),
    /// A deployment whose archive was unpacked, or was not.
    Unpacked(Box<UnpackingEnded>),
    /// A deployment whose image was fetched, or was not.
    Fetched(Box<FetchEnded>),
    /// The worker stops: give up what is being deployed.
    EndDeployments,
    /// Stop.
    Stop,
}

/// The sending side of a shard's inbox.
#[derive(Clone)]
pub(crate) struct Post {
    sender: Sender<Message>,
    waker: Waker,
    ring_fd: RawFd,
}

impl Post {
    /// An inbox for the shard whose reactor is woken by `waker`.
    pub(crate) fn new(waker: Waker, ring_fd: RawFd) -> (Post, Receiver<Message>) {
        let (sender, receiver) = unbounded();
        (Post { sender, waker, ring_fd }, receiver)
    }

    /// Posts from a thread that has no ring, and wakes the shard if it sleeps. A shard that has stopped takes no more
    /// messages; the message is dropped, as its answer would have no reader.
    pub(crate) fn send(&self, message: Message) -> bool {
        let sent = self.sender.send(message).is_ok();
        if sent {
            self.waker.wake();
        }
        sent
    }

    /// Posts without waking; the caller wakes through its own ring.
    pub(crate) fn leave(&self, message: Message) -> bool {
        self.sender.send(message).is_ok()
    }

    /// The other shard's ring, a target for a ring message.
    pub(crate) fn ring_fd(&self) -> RawFd {
        self.ring_fd
    }

    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }
}
