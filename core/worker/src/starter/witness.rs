//! Waits for the ends of starts, so that the starter can begin the next.
//!
//! Invariant: every start that has begun is answered once, or made again: one that failed as a copy is started whole. It does not know how
//! a start begins.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};
use vilya_ipc::host::Host;
use vilya_isolate::{Begun, Image, StartError};

use super::Start;
use crate::mesh::{Message, Post, StartedSandbox};
use crate::zygotes::Zygotes;

/// A start that has begun.
pub(super) struct Unfinished {
    pub(super) start: Start,
    pub(super) begun: Begun,
    pub(super) host: Host,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    /// The image that it is to be a copy of.
    pub(super) copied: Option<Arc<Image>>,
}

/// Waits for the ends of starts, in the order in which they began, so that the starter can begin the next.
pub(super) struct Witness {
    pub(super) shards: Vec<Post>,
    pub(super) zygotes: Option<Arc<Zygotes>>,
    /// Starts that failed as copies and are made again.
    pub(super) failed: Sender<Start>,
}

impl Witness {
    pub(super) fn run(&self, inbox: &Receiver<Unfinished>) {
        for Unfinished { start, begun, host, stdout, stderr, copied } in inbox {
            let outcome = match (begun.finish(), copied) {
                (Ok(started), _) => Ok(StartedSandbox { host, started, stdout, stderr }),
                (Err(error), Some(image)) => {
                    tracing::warn!(function = start.record.name, "a copy failed and the program is started: {error}");
                    // One that was killed from outside, or was late on a busy machine, says nothing against its image.
                    if matches!(error, StartError::NotCopied | StartError::Step { .. }) {
                        self.zygotes.iter().for_each(|zygotes| zygotes.failed(&start.record, &image));
                    }
                    match self.failed.send(Start { whole: true, ..start }) {
                        Ok(()) => continue,
                        Err(_) => return,
                    }
                }
                (Err(error), None) => Err(error.to_string()),
            };
            let message = Message::Started { sandbox: start.sandbox, outcome: Box::new(outcome) };
            self.shards[start.shard].send(message);
        }
    }
}
