//! A part of an answer on its way to a client, and word to its sandbox that it was taken.
//!
//! Invariant: who has sent a part hears exactly once what became of it: that it was taken, or, if it was dropped anywhere on the way, that nobody
//! takes any more. Does not know connections.

use crate::arena::Hold;
use crate::mesh::{Message, Post};
use crate::response::Response;

/// A part of an answer.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) bytes: Vec<u8>,
    /// What the answer begins with, before its first part.
    pub(crate) head: Option<Box<Response>>,
    pub(crate) awaited: Awaited,
}

/// Who waits for a part to be taken.
pub(crate) struct Awaited {
    hold: Hold,
    owner: Post,
    is_taken: bool,
}

impl Awaited {
    pub(crate) fn new(hold: Hold, owner: Post) -> Awaited {
        Awaited { hold, owner, is_taken: false }
    }

    /// The client has it, and takes more.
    pub(crate) fn taken(mut self) {
        self.is_taken = true;
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        // A shard that has stopped has no sandboxes any more.
        self.owner.send(Message::PartTaken { hold: self.hold, goes_on: self.is_taken });
    }
}

impl std::fmt::Debug for Awaited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Awaited").field("hold", &self.hold).finish_non_exhaustive()
    }
}
