//! Cleans up after sandboxes that have died, on a thread of its own.
//!
//! Invariant: every one that it is given is answered once. It does not know why a sandbox died.

use crossbeam_channel::Receiver;
use vilya_engine::SandboxId;
use vilya_ipc::host::Host;
use vilya_isolate::Remains;

use crate::mesh::{Message, Post};

/// A dead sandbox to clean up.
pub(crate) struct Reap {
    pub(crate) shard: usize,
    pub(crate) sandbox: SandboxId,
    pub(crate) remains: Remains,
    /// Unmapping what a large payload touched takes a while, so it is done here.
    pub(crate) host: Host,
}

pub(super) fn reap(inbox: &Receiver<Reap>, shards: &[Post]) {
    for Reap { shard, sandbox, remains, host } in inbox {
        drop(host);
        let ended = remains.reap();
        shards[shard].send(Message::Reaped { sandbox, ended });
    }
}
