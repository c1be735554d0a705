//! What both halves of a guest share: the regions, and the private memory of each lane.
//!
//! Invariant: a lane's private memory is either in its place here or with the lane's invocation, never both.
#![allow(unsafe_code)]

use super::invocation::{Answer, Body, Part};
use crate::layout::{Geometry, INLINE_BYTES, MAX_CONTENT_TYPE_BYTES};
use crate::region::{OwnRegion, PeerRegion};
use rkyv::util::{Align, AlignedVec};
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Bytes of a slot, private and aligned for metadata.
pub(super) type SlotBytes = Align<[u8; INLINE_BYTES as usize]>;

/// The mappings of both regions, and where everything lies in them.
pub(super) struct Regions {
    pub(super) down: PeerRegion,
    pub(super) up: OwnRegion,
    pub(super) geometry: Geometry,
}

/// The private memory of a lane, and what is known of its invocation. What rides in slots is copied here, so that slots
/// are given back at once.
pub(super) struct Lane {
    pub(super) regions: Arc<Regions>,
    pub(super) id: u64,
    pub(super) lane: u32,
    pub(super) deadline_ns: u64,
    /// Where the request lies.
    pub(super) archive: Part,
    pub(super) payload: Part,
    pub(super) request: SlotBytes,
    pub(super) answer: Answer,
    pub(super) response: SlotBytes,
    /// The archive of the response's metadata.
    pub(super) metadata: AlignedVec,
}

/// Every lane's private memory.
pub(super) struct Lanes(
    /// Each from a `Box`; null while it is with the lane's invocation.
    Box<[AtomicPtr<Lane>]>,
);

impl Lane {
    fn new(regions: &Arc<Regions>, lane: u32) -> Lane {
        let empty = || Align([0; INLINE_BYTES as usize]);
        Lane {
            regions: Arc::clone(regions),
            id: 0,
            lane,
            deadline_ns: 0,
            archive: Part::Slot(0..0),
            payload: Part::Slot(0..0),
            request: empty(),
            answer: Answer { body: Body::Private(0), has_metadata: false },
            response: empty(),
            // Room for any, so that naming a content type allocates nothing.
            metadata: AlignedVec::with_capacity(MAX_CONTENT_TYPE_BYTES + 16),
        }
    }
}

impl Lanes {
    pub(super) fn new(regions: &Arc<Regions>) -> Lanes {
        let lanes = 0..regions.geometry.lanes();
        Lanes(lanes.map(|lane| AtomicPtr::new(Box::into_raw(Box::new(Lane::new(regions, lane))))).collect())
    }

    /// Takes a lane for an invocation.
    ///
    /// # Safety
    /// Nobody else takes one at the same time: this belongs to the one receiver.
    pub(super) unsafe fn take(&self, lane: u32) -> Box<Lane> {
        let place = &self.0[lane as usize];
        // Acquire: pairs with the release in `give_back`; the last invocation's use of it is over.
        let taken = place.load(Ordering::Acquire);
        assert!(!taken.is_null(), "the worker gives a lane one invocation at a time");
        // Relaxed: whoever gives it back has it from here.
        place.store(null_mut(), Ordering::Relaxed);
        // SAFETY: it came from `Box::into_raw`, and only this caller takes.
        unsafe { Box::from_raw(taken) }
    }

    /// Puts a lane that was taken back into its place.
    pub(super) fn give_back(&self, lane: Box<Lane>) {
        let place = &self.0[lane.lane as usize];
        // Release: pairs with the acquire in `take`.
        place.store(Box::into_raw(lane), Ordering::Release);
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        for lane in &mut self.0 {
            let lane = std::mem::replace(lane.get_mut(), null_mut());
            if !lane.is_null() {
                // SAFETY: it came from `Box::into_raw` and is in nobody else's hands.
                drop(unsafe { Box::from_raw(lane) });
            }
        }
    }
}
