//! What the worker believes of what a sandbox wrote.
//!
//! [`check`] is pure: a private copy of a descriptor and the geometry of the regions go in; a [`Checked`] claim, whose
//! every offset lies where this sandbox may answer from, or a [`Poison`] comes out. Invariant: nothing that a sandbox
//! writes can make it panic, overflow or point outside that sandbox's own slot and lane.

use crate::layout::{
    ABI_VERSION, CompletionDescriptor, DESCRIPTOR_BYTES, Geometry, METADATA_BYTES, PART_BYTES, SLOT_STRIDE_BYTES,
    completion_kind,
};
use crate::metadata::{DecodeError, ResponseMetadata};
use crate::ring::IndexError;
use std::ops::Range;
use thiserror::Error;

/// What a sandbox says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimKind {
    /// The runtime is up and the handler loaded.
    Ready,
    /// The invocation returned; the payload is its answer.
    Returned,
    /// The invocation raised; the payload is the runtime's account of it, in JSON.
    Raised,
    /// The handler could not be loaded; the payload is the runtime's account of it, in JSON.
    InitFailed,
    /// The payload is a part of the invocation's answer; more follow.
    Part,
    /// Invocations have imported modules that loading had not; the payload names them.
    Imported,
}

/// Why a sandbox is not to be believed any more. It is killed and replaced; only its own invocations suffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Poison {
    /// An index of the completion ring that no correct runtime writes.
    #[error("the sandbox broke its completion ring: {0}")]
    CompletionTail(IndexError),
    /// An index of the submission ring that no correct runtime writes.
    #[error("the sandbox broke its submission ring: {0}")]
    SubmissionHead(IndexError),
    /// A kind that this ABI does not have.
    #[error("the sandbox sent a completion of the unknown kind {0}")]
    UnknownKind(u16),
    /// A lane that the sandbox does not have.
    #[error("the sandbox answered on lane {lane}, but has {lanes}")]
    LaneOutOfRange {
        /// What it wrote.
        lane: u32,
        /// What there is.
        lanes: u32,
    },
    /// Bits that must be zero are not.
    #[error("the sandbox set reserved bits of a completion")]
    Reserved,
    /// The payload is neither in the completion's slot nor in its lane.
    #[error("the sandbox put a payload of {bytes} bytes at {offset}, outside its slot and lane")]
    PayloadOutOfBounds {
        /// What it wrote.
        offset: u64,
        /// What it wrote.
        bytes: u64,
    },
    /// The metadata is neither in the completion's slot nor in its lane.
    #[error("the sandbox put {bytes} bytes of metadata at {offset}, outside its slot and lane")]
    MetadataOutOfBounds {
        /// What it wrote.
        offset: u64,
        /// What it wrote.
        bytes: u32,
    },
    /// Metadata and payload share bytes.
    #[error("the sandbox sent metadata and a payload that overlap")]
    Overlap,
    /// The metadata is not what it should be.
    #[error("the sandbox sent bad metadata: {0}")]
    Metadata(DecodeError),
    /// Ready or InitFailed from a sandbox that is ready.
    #[error("the sandbox said twice how its start ended")]
    StartedTwice,
    /// Imported a second time.
    #[error("the sandbox said twice what it imported")]
    ImportedTwice,
    /// More of an answer before the part of it that was sent was taken.
    #[error("the sandbox sent more on lane {0} before the part there was taken")]
    PartNotTaken(u16),
    /// An answer before Ready.
    #[error("the sandbox answered before it was ready")]
    NotReady,
    /// An answer on a lane where nothing runs.
    #[error("the sandbox answered on lane {0}, where nothing runs")]
    LaneIdle(u16),
    /// An answer to another invocation than the one that runs on the lane.
    #[error("the sandbox answered invocation {claimed:#x} on lane {lane}, where {running:#x} runs")]
    WrongInvocation {
        /// Where.
        lane: u16,
        /// What it wrote.
        claimed: u64,
        /// What runs there.
        running: u64,
    },
    /// The up header is not a runtime's of this ABI.
    #[error(
        "the runtime speaks ABI {abi} (magic number {magic:#018x}), the worker {ABI_VERSION}; deploy with a runtime of this release"
    )]
    UpHeader {
        /// What it wrote.
        magic: u64,
        /// What it wrote.
        abi: u32,
    },
}

/// A claim whose indices and places were checked; its metadata is still to be copied out and read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// What is said.
    pub kind: ClaimKind,
    /// Of which invocation; zero for Ready, InitFailed and Imported.
    pub invocation: u64,
    /// On which lane; below the geometry's lanes.
    pub lane: u16,
    /// Where the metadata lies in the up region; empty when there is none.
    pub metadata: Range<u64>,
    /// Where the payload lies in the up region; empty when there is none.
    pub payload: Range<u64>,
    /// Whether the payload lies in the slot, which the sandbox reuses after the next pop.
    pub payload_in_slot: bool,
}

/// A claim that the worker believes, as far as it can know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What is said.
    pub kind: ClaimKind,
    /// Of which invocation; zero for Ready, InitFailed and Imported.
    pub invocation: u64,
    /// On which lane.
    pub lane: u16,
    /// The response's metadata, checked and owned.
    pub metadata: ResponseMetadata,
    pub(crate) payload: Range<u64>,
    pub(crate) payload_in_slot: bool,
    /// The free-running index of the slot it came from.
    pub(crate) index: u32,
}

impl Claim {
    /// The size of the payload.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        (self.payload.end - self.payload.start) as usize
    }

    /// Whether the payload rides in the ring's slot, so that it must be copied before the next pop. Otherwise it lies
    /// in the lane and stays until the lane is given its next invocation.
    #[must_use]
    pub fn payload_in_slot(&self) -> bool {
        self.payload_in_slot
    }
}

/// Checks the descriptor found in slot `slot` of a completion ring.
///
/// # Errors
/// The descriptor is none that a correct runtime writes.
pub fn check(raw: &CompletionDescriptor, slot: u32, geometry: &Geometry) -> Result<Checked, Poison> {
    let kind = match raw.kind {
        completion_kind::READY => ClaimKind::Ready,
        completion_kind::RETURNED => ClaimKind::Returned,
        completion_kind::RAISED => ClaimKind::Raised,
        completion_kind::INIT_FAILED => ClaimKind::InitFailed,
        completion_kind::IMPORTED => ClaimKind::Imported,
        completion_kind::PART => ClaimKind::Part,
        unknown => return Err(Poison::UnknownKind(unknown)),
    };
    if raw.flags != 0 || raw.reserved != 0 || raw.reserved_tail != 0 {
        return Err(Poison::Reserved);
    }
    let of_none = matches!(kind, ClaimKind::Ready | ClaimKind::InitFailed | ClaimKind::Imported);
    if of_none && (raw.invocation != 0 || raw.lane != 0 || raw.metadata_bytes != 0) {
        return Err(Poison::Reserved);
    }
    if kind == ClaimKind::Ready && raw.payload_bytes != 0 {
        return Err(Poison::Reserved);
    }
    if raw.lane >= geometry.lanes() {
        return Err(Poison::LaneOutOfRange { lane: raw.lane, lanes: geometry.lanes() });
    }

    let start = geometry.completion_slot(slot);
    let in_slot = start + DESCRIPTOR_BYTES..start + SLOT_STRIDE_BYTES;
    let lane = geometry.response_lane(raw.lane);
    let in_lane = lane.start..lane.start + METADATA_BYTES;
    let (metadata, _) = place(raw.metadata_offset, u64::from(raw.metadata_bytes), &in_slot, &in_lane)
        .ok_or(Poison::MetadataOutOfBounds { offset: raw.metadata_offset, bytes: raw.metadata_bytes })?;
    let in_lane = lane.start + METADATA_BYTES..lane.end;
    let (payload, payload_in_slot) = place(raw.payload_offset, raw.payload_bytes, &in_slot, &in_lane)
        .ok_or(Poison::PayloadOutOfBounds { offset: raw.payload_offset, bytes: raw.payload_bytes })?;
    // Its lane is another invocation's by then.
    let is_misplaced = kind == ClaimKind::Imported && !payload_in_slot;
    if is_misplaced || kind == ClaimKind::Part && raw.payload_bytes > PART_BYTES {
        return Err(Poison::PayloadOutOfBounds { offset: raw.payload_offset, bytes: raw.payload_bytes });
    }
    let apart = metadata.end <= payload.start || payload.end <= metadata.start;
    if !metadata.is_empty() && !payload.is_empty() && !apart {
        return Err(Poison::Overlap);
    }
    let lane = u16::try_from(raw.lane).expect("lanes are at most 256");
    Ok(Checked { kind, invocation: raw.invocation, lane, metadata, payload, payload_in_slot })
}

/// The range of `bytes` at `offset` if it lies wholly in the slot or wholly in the lane, and whether it is the slot.
/// An empty range lies nowhere: its offset is not looked at.
fn place(offset: u64, bytes: u64, in_slot: &Range<u64>, in_lane: &Range<u64>) -> Option<(Range<u64>, bool)> {
    if bytes == 0 {
        return Some((0..0, false));
    }
    let range = offset..offset.checked_add(bytes)?;
    let within = |outer: &Range<u64>| outer.start <= range.start && range.end <= outer.end;
    match (within(in_slot), within(in_lane)) {
        (true, _) => Some((range, true)),
        (false, true) => Some((range, false)),
        (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::RegionSpec;
    use proptest::prelude::*;

    fn geometry() -> Geometry {
        Geometry::new(&RegionSpec { lanes: 3, payload_limit_bytes: 100_000 }).unwrap()
    }

    fn returned(lane: u32) -> CompletionDescriptor {
        CompletionDescriptor { invocation: 77, kind: completion_kind::RETURNED, lane, ..Default::default() }
    }

    #[test]
    fn a_payload_may_fill_its_lane_and_not_a_byte_more() {
        let geometry = geometry();
        let start = geometry.response_lane(1).start + METADATA_BYTES;
        let full = CompletionDescriptor { payload_offset: start, payload_bytes: 100_000, ..returned(1) };
        assert_eq!(check(&full, 0, &geometry).unwrap().payload, start..start + 100_000);
        let outside = |offset, bytes| {
            let raw = CompletionDescriptor { payload_offset: offset, payload_bytes: bytes, ..returned(1) };
            assert_eq!(check(&raw, 0, &geometry), Err(Poison::PayloadOutOfBounds { offset, bytes }));
        };
        outside(start, 100_001);
        outside(start - 1, 10);
        outside(start + 1, 100_000);
        outside(geometry.response_lane(2).start + METADATA_BYTES, 1);
        outside(start, u64::MAX);
        outside(u64::MAX, 1);
        outside(0, 1);
    }

    #[test]
    fn inline_parts_stay_in_their_own_slot_and_apart() {
        let geometry = geometry();
        let start = geometry.completion_slot(2) + DESCRIPTOR_BYTES;
        let raw = CompletionDescriptor {
            metadata_offset: start,
            metadata_bytes: 16,
            payload_offset: start + 16,
            payload_bytes: 1200,
            ..returned(0)
        };
        let checked = check(&raw, 2, &geometry).unwrap();
        assert!(checked.payload_in_slot && checked.payload == (start + 16..start + 1216));
        assert!(matches!(check(&raw, 1, &geometry), Err(Poison::MetadataOutOfBounds { .. })));
        let longer = CompletionDescriptor { payload_bytes: 1201, ..raw };
        assert!(matches!(check(&longer, 2, &geometry), Err(Poison::PayloadOutOfBounds { .. })));
        let overlapping = CompletionDescriptor { payload_offset: start + 15, ..raw };
        assert_eq!(check(&overlapping, 2, &geometry), Err(Poison::Overlap));
    }

    #[test]
    fn each_impossible_descriptor_has_its_reason() {
        let geometry = geometry();
        let reason = |raw: CompletionDescriptor| check(&raw, 0, &geometry).unwrap_err();
        assert_eq!(reason(CompletionDescriptor { kind: 9, ..returned(0) }), Poison::UnknownKind(9));
        assert_eq!(reason(returned(3)), Poison::LaneOutOfRange { lane: 3, lanes: 3 });
        assert_eq!(reason(returned(u32::MAX)), Poison::LaneOutOfRange { lane: u32::MAX, lanes: 3 });
        assert_eq!(reason(CompletionDescriptor { flags: 1, ..returned(0) }), Poison::Reserved);
        assert_eq!(reason(CompletionDescriptor { reserved: 1, ..returned(0) }), Poison::Reserved);
        assert_eq!(reason(CompletionDescriptor { reserved_tail: 1, ..returned(0) }), Poison::Reserved);
        let ready = CompletionDescriptor { kind: completion_kind::READY, ..Default::default() };
        assert_eq!(check(&ready, 0, &geometry).unwrap().kind, ClaimKind::Ready);
        assert_eq!(reason(CompletionDescriptor { invocation: 1, ..ready }), Poison::Reserved);
        assert_eq!(reason(CompletionDescriptor { payload_bytes: 1, ..ready }), Poison::Reserved);
        let offset = geometry.completion_slot(0) + DESCRIPTOR_BYTES;
        let imported =
            CompletionDescriptor { kind: completion_kind::IMPORTED, payload_offset: offset, payload_bytes: 9, ..ready };
        assert_eq!(check(&imported, 0, &geometry).unwrap().kind, ClaimKind::Imported);
        assert_eq!(reason(CompletionDescriptor { invocation: 1, ..imported }), Poison::Reserved);
        assert_eq!(reason(CompletionDescriptor { lane: 1, ..imported }), Poison::Reserved);
        let start = geometry.response_lane(1).start + METADATA_BYTES;
        let part = |bytes| CompletionDescriptor {
            kind: completion_kind::PART,
            payload_offset: start + 7,
            payload_bytes: bytes,
            ..returned(1)
        };
        assert_eq!(check(&part(PART_BYTES), 0, &geometry).unwrap().payload, start + 7..start + 7 + PART_BYTES);
        let bytes = PART_BYTES + 1;
        assert_eq!(reason(part(bytes)), Poison::PayloadOutOfBounds { offset: start + 7, bytes });
        let offset = geometry.response_lane(0).start + METADATA_BYTES;
        let in_lane = CompletionDescriptor { payload_offset: offset, ..imported };
        assert_eq!(reason(in_lane), Poison::PayloadOutOfBounds { offset, bytes: 9 });
    }

    proptest! {
        /// Any 64 bytes, biased towards plausible ones: a claim lies inside its slot or lane, or it is refused.
        #[test]
        fn a_claim_is_in_bounds_or_refused(
            invocation in any::<u64>(),
            kind in prop_oneof![0u16..8, any::<u16>()],
            flags in prop_oneof![9 => Just(0u16), 1 => any::<u16>()],
            lane in prop_oneof![0u32..5, any::<u32>()],
            metadata_offset in prop_oneof![0u64..400_000, any::<u64>()],
            metadata_bytes in prop_oneof![0u32..5000, any::<u32>()],
            payload_offset in prop_oneof![0u64..400_000, any::<u64>()],
            payload_bytes in prop_oneof![0u64..110_000, any::<u64>()],
            slot in 0u32..8,
        ) {
            let geometry = geometry();
            let raw = CompletionDescriptor {
                invocation, kind, flags, lane, metadata_offset, metadata_bytes, payload_offset, payload_bytes,
                ..Default::default()
            };
            if let Ok(checked) = check(&raw, slot, &geometry) {
                let own = geometry.response_lane(lane);
                let slot = geometry.completion_slot(slot);
                for part in [checked.metadata, checked.payload] {
                    let in_slot = part.start >= slot + DESCRIPTOR_BYTES && part.end <= slot + SLOT_STRIDE_BYTES;
                    let in_lane = part.start >= own.start && part.end <= own.end;
                    prop_assert!(part.is_empty() || in_slot || in_lane);
                }
            }
        }
    }
}
