//! What both halves of a guest share: the mappings, the geometry, and a private buffer a lane.

use crate::layout::{Geometry, INLINE_BYTES, MAX_CONTENT_TYPE_BYTES};
use crate::region::{OwnRegion, PeerRegion};
use rkyv::util::{Align, AlignedVec};
use std::os::fd::OwnedFd;
use std::sync::Mutex;

/// Bytes of a slot, private and aligned for metadata.
pub(super) type SlotBytes = Align<[u8; INLINE_BYTES as usize]>;

pub(super) struct Shared {
    pub(super) down: PeerRegion,
    pub(super) up: OwnRegion,
    pub(super) geometry: Geometry,
    pub(super) doorbell: OwnedFd,
    /// One a lane; with the lane's invocation while there is one. A lock is only ever held for a move.
    scratch: Box<[Mutex<Option<Box<Scratch>>>]>,
}

/// The private memory of a lane: what rides in slots is copied here, so that slots are given back at once.
pub(super) struct Scratch {
    pub(super) request: SlotBytes,
    pub(super) response: SlotBytes,
    /// The archive of the response's metadata.
    pub(super) metadata: AlignedVec,
}

impl Shared {
    pub(super) fn new(down: PeerRegion, up: OwnRegion, geometry: Geometry, doorbell: OwnedFd) -> Shared {
        let empty = || Align([0; INLINE_BYTES as usize]);
        let scratch = || Scratch {
            request: empty(),
            response: empty(),
            // Room for any, so that naming a content type allocates nothing.
            metadata: AlignedVec::with_capacity(MAX_CONTENT_TYPE_BYTES + 16),
        };
        let scratch = (0..geometry.lanes()).map(|_| Mutex::new(Some(Box::new(scratch())))).collect();
        Shared { down, up, geometry, doorbell, scratch }
    }

    /// Takes a lane for an invocation.
    pub(super) fn take(&self, lane: u32) -> Box<Scratch> {
        let mut scratch = self.scratch[lane as usize].lock().expect("nothing panics while it holds this lock");
        scratch.take().expect("the worker gives a lane one invocation at a time")
    }

    /// Gives a lane back.
    pub(super) fn give_back(&self, lane: u32, scratch: Box<Scratch>) {
        *self.scratch[lane as usize].lock().expect("nothing panics while it holds this lock") = Some(scratch);
    }
}
