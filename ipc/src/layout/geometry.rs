//! Where the rings and lanes of one sandbox lie: derived from its [`RegionSpec`] by the worker, read back from the
//! header and checked by the runtime. Pure arithmetic.

use super::{
    ABI_VERSION, DOWN_MAGIC, DownHeader, HEADER_BYTES, INLINE_BYTES, MAX_LANES, MAX_PAYLOAD_BYTES, METADATA_BYTES,
    PAGE_BYTES, SLOT_STRIDE_BYTES,
};
use std::ops::Range;
use thiserror::Error;

/// What the worker wants of a sandbox's regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionSpec {
    /// The invocations that may run at once, from 1 to [`MAX_LANES`].
    pub lanes: u16,
    /// The most bytes of a request's or a response's payload, up to [`MAX_PAYLOAD_BYTES`].
    pub payload_limit_bytes: u64,
}

/// Why a spec or a header describes no regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum GeometryError {
    /// Too few or too many lanes.
    #[error("{0} lanes asked for; set the function's concurrency between 1 and {MAX_LANES}")]
    Lanes(u32),
    /// A payload limit beyond what regions are made for.
    #[error("a payload limit of {0} bytes asked for; set it to at most {MAX_PAYLOAD_BYTES}")]
    PayloadLimit(u64),
    /// The down region does not start with the magic number.
    #[error("descriptor 3 is not a region of a worker (its magic number is {0:#018x}); start the runtime through one")]
    Magic(u64),
    /// Worker and runtime were built from different ABIs.
    #[error("the worker speaks ABI {worker}, this runtime {ABI_VERSION}; use a runtime of the worker's release")]
    Abi {
        /// The version in the header.
        worker: u32,
    },
    /// The header's fields contradict each other.
    #[error("the region's header contradicts itself; use a runtime of the worker's release")]
    Inconsistent,
}

/// Where everything lies in the two regions of one sandbox. Offsets are from the start of the region named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    pub(crate) lanes: u32,
    pub(crate) payload_limit: u64,
    pub(crate) submission_entries: u32,
    pub(crate) completion_entries: u32,
    /// Down.
    pub(crate) request_offset: u64,
    /// Up.
    pub(crate) response_offset: u64,
    /// Of request and response lanes alike.
    pub(crate) lane_bytes: u64,
}

impl Geometry {
    /// The regions of a sandbox made to `spec`.
    ///
    /// # Errors
    /// The spec is outside the limits of this ABI.
    pub fn new(spec: &RegionSpec) -> Result<Geometry, GeometryError> {
        Geometry::of(u32::from(spec.lanes), spec.payload_limit_bytes)
    }

    fn of(lanes: u32, payload_limit: u64) -> Result<Geometry, GeometryError> {
        if lanes == 0 || lanes > MAX_LANES {
            return Err(GeometryError::Lanes(lanes));
        }
        if payload_limit > MAX_PAYLOAD_BYTES {
            return Err(GeometryError::PayloadLimit(payload_limit));
        }
        // A lane may have in the submission ring the cancel of the invocation that just ended, the next invoke and
        // its cancel; and there is one stop. Advice to trim comes only into an empty ring, where no such cancel is. So a correct runtime never leaves the worker without a free slot.
        let submission_entries = (lanes * 3 + 1).next_power_of_two();
        // One answer a lane, and the slot of the claim the worker still reads (which may be the one that said Ready).
        let completion_entries = (lanes + 2).next_power_of_two().max(4);
        let ring_bytes = |entries: u32| (u64::from(entries) * SLOT_STRIDE_BYTES).next_multiple_of(PAGE_BYTES);
        Ok(Geometry {
            lanes,
            payload_limit,
            submission_entries,
            completion_entries,
            request_offset: HEADER_BYTES + ring_bytes(submission_entries),
            response_offset: HEADER_BYTES + ring_bytes(completion_entries),
            lane_bytes: METADATA_BYTES + payload_limit.next_multiple_of(PAGE_BYTES),
        })
    }

    /// The geometry a worker's header describes.
    ///
    /// # Errors
    /// The header is not one of this ABI, or is not what this ABI derives from its lanes and payload limit.
    pub fn from_header(header: &DownHeader) -> Result<Geometry, GeometryError> {
        if header.magic != DOWN_MAGIC {
            return Err(GeometryError::Magic(header.magic));
        }
        if header.abi != ABI_VERSION {
            return Err(GeometryError::Abi { worker: header.abi });
        }
        let geometry = Geometry::of(header.lanes, header.payload_limit)?;
        if geometry.header() != *header {
            return Err(GeometryError::Inconsistent);
        }
        Ok(geometry)
    }

    /// The header that describes this geometry.
    #[must_use]
    pub fn header(&self) -> DownHeader {
        DownHeader {
            magic: DOWN_MAGIC,
            abi: ABI_VERSION,
            header_bytes: HEADER_BYTES as u32,
            lanes: self.lanes,
            submission_entries: self.submission_entries,
            submission_offset: HEADER_BYTES,
            submission_stride: SLOT_STRIDE_BYTES as u32,
            inline_bytes: INLINE_BYTES as u32,
            completion_entries: self.completion_entries,
            completion_stride: SLOT_STRIDE_BYTES as u32,
            completion_offset: HEADER_BYTES,
            request_offset: self.request_offset,
            request_lane_bytes: self.lane_bytes,
            response_offset: self.response_offset,
            response_lane_bytes: self.lane_bytes,
            metadata_bytes: METADATA_BYTES as u32,
            reserved: 0,
            payload_limit: self.payload_limit,
            down_bytes: self.down_bytes(),
            up_bytes: self.up_bytes(),
        }
    }

    /// The invocations that may run at once.
    #[must_use]
    pub fn lanes(&self) -> u32 {
        self.lanes
    }

    /// The most bytes of a payload.
    #[must_use]
    pub fn payload_limit_bytes(&self) -> u64 {
        self.payload_limit
    }

    /// The slots of the submission ring.
    #[must_use]
    pub fn submission_entries(&self) -> u32 {
        self.submission_entries
    }

    /// The slots of the completion ring.
    #[must_use]
    pub fn completion_entries(&self) -> u32 {
        self.completion_entries
    }

    /// The size of the down region.
    #[must_use]
    pub fn down_bytes(&self) -> u64 {
        self.request_offset + u64::from(self.lanes) * self.lane_bytes
    }

    /// The size of the up region.
    #[must_use]
    pub fn up_bytes(&self) -> u64 {
        self.response_offset + u64::from(self.lanes) * self.lane_bytes
    }

    /// Where slot `slot` of the submission ring starts, in the down region.
    #[must_use]
    pub fn submission_slot(&self, slot: u32) -> u64 {
        debug_assert!(slot < self.submission_entries);
        HEADER_BYTES + u64::from(slot) * SLOT_STRIDE_BYTES
    }

    /// Where slot `slot` of the completion ring starts, in the up region.
    #[must_use]
    pub fn completion_slot(&self, slot: u32) -> u64 {
        debug_assert!(slot < self.completion_entries);
        HEADER_BYTES + u64::from(slot) * SLOT_STRIDE_BYTES
    }

    /// Where `lane` starts in the down region.
    #[must_use]
    pub fn request_lane(&self, lane: u32) -> u64 {
        debug_assert!(lane < self.lanes);
        self.request_offset + u64::from(lane) * self.lane_bytes
    }

    /// The bytes of the up region that belong to `lane`: metadata, then payload.
    #[must_use]
    pub fn response_lane(&self, lane: u32) -> Range<u64> {
        debug_assert!(lane < self.lanes);
        let start = self.response_offset + u64::from(lane) * self.lane_bytes;
        start..start + METADATA_BYTES + self.payload_limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_accepted_spec_has_disjoint_aligned_parts_that_fill_its_regions() {
        for lanes in [1, 2, 3, 7, 16, 255, 256] {
            for payload_limit_bytes in [0, 1, 4096, 4097, 6 << 20, MAX_PAYLOAD_BYTES] {
                let geometry = Geometry::new(&RegionSpec { lanes, payload_limit_bytes }).unwrap();
                let last = geometry.submission_entries() - 1;
                assert!(geometry.submission_entries().is_power_of_two());
                assert!(geometry.submission_entries() > 3 * u32::from(lanes));
                assert!(geometry.completion_entries() > u32::from(lanes) + 1);
                assert!(geometry.submission_slot(last) + SLOT_STRIDE_BYTES <= geometry.request_offset);
                let last = geometry.completion_entries() - 1;
                assert!(geometry.completion_slot(last) + SLOT_STRIDE_BYTES <= geometry.response_offset);
                for lane in 0..u32::from(lanes) {
                    assert_eq!(geometry.request_lane(lane) % PAGE_BYTES, 0);
                    assert_eq!(geometry.response_lane(lane).start % PAGE_BYTES, 0);
                    assert!(geometry.response_lane(lane).end <= geometry.up_bytes());
                }
                assert_eq!(Geometry::from_header(&geometry.header()), Ok(geometry));
            }
        }
    }

    #[test]
    fn specs_and_headers_outside_the_limits_are_refused() {
        let refuse = |lanes, payload_limit_bytes| Geometry::new(&RegionSpec { lanes, payload_limit_bytes });
        assert_eq!(refuse(0, 1), Err(GeometryError::Lanes(0)));
        assert_eq!(refuse(257, 1), Err(GeometryError::Lanes(257)));
        assert_eq!(refuse(1, MAX_PAYLOAD_BYTES + 1), Err(GeometryError::PayloadLimit(MAX_PAYLOAD_BYTES + 1)));

        let good = refuse(2, 4096).unwrap().header();
        assert_eq!(Geometry::from_header(&DownHeader { magic: 7, ..good }), Err(GeometryError::Magic(7)));
        assert_eq!(Geometry::from_header(&DownHeader { abi: 99, ..good }), Err(GeometryError::Abi { worker: 99 }));
        let crooked = DownHeader { response_offset: good.response_offset + 8, ..good };
        assert_eq!(Geometry::from_header(&crooked), Err(GeometryError::Inconsistent));
    }
}
