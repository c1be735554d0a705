//! The lanes of a host: what runs on each, where its payloads lie, and giving back the memory that large ones took.
//!
//! Invariant: memory is only ever given back while its lane is idle, and never the first [`KEPT_PAYLOAD_BYTES`] of an
//! area. What a sandbox makes resident of its own accord is counted by its control group, not here.

use super::{Host, Mapping, ReadOnlyBy};
use crate::claim::Claim;
use crate::layout::{METADATA_BYTES, PAGE_BYTES};
use std::ops::Range;

/// The bytes at the start of a lane's payload areas that stay resident when the rest is given back.
pub const KEPT_PAYLOAD_BYTES: u64 = 64 << 10;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lane {
    pub(super) running: Option<u64>,
    pub(super) cancelled: bool,
    /// A part of its answer was popped and not taken.
    pub(super) has_part: bool,
    /// Twice the parts that were taken.
    pub(super) parts: u32,
    /// The free-running index of the submission of what runs, or ran last.
    pub(super) index: u32,
    /// How far the payload areas may be resident, from their starts.
    request_bytes: u64,
    response_bytes: u64,
    /// The system refused to take memory of the request area back.
    stuck: bool,
}

impl Lane {
    pub(super) fn begin(&mut self, invocation: u64, index: u32) {
        (self.running, self.cancelled, self.index) = (Some(invocation), false, index);
    }

    pub(super) fn end(&mut self) {
        (self.running, self.cancelled, self.has_part) = (None, false, false);
    }

    /// Notes how far into the response area a payload reaches.
    pub(super) fn response_reaches(&mut self, bytes: u64) {
        self.response_bytes = self.response_bytes.max(bytes);
    }
}

/// The bytes beyond those that are kept.
fn excess(bytes: u64) -> u64 {
    bytes.saturating_sub(KEPT_PAYLOAD_BYTES)
}

impl Host {
    /// The down region's memory: requests are received into it ([`Host::request_window`]).
    #[must_use]
    pub fn down_mapping(&self) -> Mapping {
        self.down.mapping().clone()
    }

    /// The up region's memory: responses are sent from it ([`Host::response_window`]). It is mapped read-only.
    #[must_use]
    pub fn up_mapping(&self) -> Mapping {
        self.up.mapping().clone()
    }

    /// Where the payload area of `lane` lies in the down region. It may be written while the lane is idle; then submit
    /// [`super::Payload::InLane`].
    ///
    /// # Panics
    /// The sandbox has no such lane.
    #[must_use]
    pub fn request_window(&self, lane: u16) -> Range<u64> {
        assert!(u32::from(lane) < self.geometry.lanes(), "lanes come from the engine's own table");
        let start = self.geometry.request_lane(u32::from(lane)) + METADATA_BYTES;
        start..start + self.geometry.payload_limit_bytes()
    }

    /// Where the claim's payload lies in the up region. The sandbox may write there: make no reference of it. A payload
    /// in its slot is good until the next [`Host::pop`]; one in its lane until the lane's next [`Host::submit`].
    ///
    /// # Panics
    /// The payload rode in its slot, and another claim was popped since.
    #[must_use]
    pub fn response_window(&self, claim: &Claim) -> Range<u64> {
        self.assert_held(claim);
        claim.payload.clone()
    }

    /// Tells that the first `bytes` of a lane's payload area were written without a submission that says so (a client
    /// left in the middle of its request), so that [`Host::trim`] gives them back.
    ///
    /// # Panics
    /// The sandbox has no such lane.
    pub fn request_written(&mut self, lane: u16, bytes: u64) {
        let lane = &mut self.lanes[usize::from(lane)];
        lane.request_bytes = lane.request_bytes.max(bytes.min(self.geometry.payload_limit_bytes()));
    }

    /// Gives back to the system what large payloads made resident in an idle lane, but for the first
    /// [`KEPT_PAYLOAD_BYTES`] of the request and of the response. Makes no system call when there is nothing to give;
    /// does nothing to a busy lane. Nothing may be receiving into the lane or sending from it.
    ///
    /// A request area that is read-only by [`ReadOnlyBy::Seal`] stays as it is: see [`Host::retained_bytes`].
    ///
    /// # Panics
    /// The sandbox has no such lane.
    pub fn trim(&mut self, lane: u16) {
        let index = usize::from(lane);
        if self.lanes[index].running.is_some() {
            return;
        }
        let Lane { request_bytes, response_bytes, stuck, .. } = self.lanes[index];
        if excess(request_bytes) > 0 && !stuck && self.read_only_by == ReadOnlyBy::Permission {
            let window = self.request_window(lane);
            match self.down.discard(
                &(window.start + KEPT_PAYLOAD_BYTES..window.start + request_bytes.next_multiple_of(PAGE_BYTES)),
            ) {
                Ok(()) => self.lanes[index].request_bytes = KEPT_PAYLOAD_BYTES,
                // Nothing is lost but memory, which `retained_bytes` then counts.
                Err(_) => self.lanes[index].stuck = true,
            }
        }
        if excess(response_bytes) > 0 {
            let start = self.geometry.response_lane(u32::from(lane)).start + METADATA_BYTES;
            let range = start + KEPT_PAYLOAD_BYTES..start + response_bytes.next_multiple_of(PAGE_BYTES);
            // Refused, it stays resident, where the sandbox's own memory limit counts it.
            if self.up.discard(&range).is_ok() {
                self.lanes[index].response_bytes = KEPT_PAYLOAD_BYTES;
            }
        }
    }

    /// An upper bound of the bytes that stay resident in the request areas and cannot be given back as long as the
    /// sandbox lives; a sandbox that holds too many of them is best replaced when it is idle.
    #[must_use]
    pub fn retained_bytes(&self) -> u64 {
        let sealed = self.read_only_by == ReadOnlyBy::Seal;
        self.lanes.iter().filter(|lane| sealed || lane.stuck).map(|lane| excess(lane.request_bytes)).sum()
    }
}
