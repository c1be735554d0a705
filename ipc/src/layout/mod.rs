//! The ABI: where every byte of the two regions lies, and what the numbers in it mean.
//!
//! Invariant: everything here is little endian, fixed in size and alignment (asserted below), and the same for every
//! runtime whatever its language; [`python_module`] prints it for Python. A change of any of it is a change of
//! [`ABI_VERSION`]. This module knows no memory, no ordering and no policy.

mod geometry;
mod python;
mod words;

pub use geometry::{Geometry, GeometryError, RegionSpec};
pub use python::python_module;

use std::mem::{align_of, offset_of, size_of};
#[cfg(not(loom))]
use std::ops::Range;

#[cfg(not(target_endian = "little"))]
compile_error!("the shared-memory ABI is little endian; this target is not");

/// The first eight bytes of the down region, as a little-endian integer.
pub const DOWN_MAGIC: u64 = u64::from_le_bytes(*b"VILYADN1");
/// The first eight bytes of the up region, as a little-endian integer; written by the runtime before it says Ready.
pub const UP_MAGIC: u64 = u64::from_le_bytes(*b"VILYAUP1");
/// The version of this ABI. Worker and runtime must agree exactly.
pub const ABI_VERSION: u32 = 4;

/// The descriptor number of the down region inside a sandbox.
pub const DOWN_FD: i32 = 3;
/// The descriptor number of the up region inside a sandbox.
pub const UP_FD: i32 = 4;
/// The descriptor number of the doorbell (an eventfd) inside a sandbox.
pub const DOORBELL_FD: i32 = 5;

/// The unit of alignment of headers, rings and lanes, in bytes.
pub const PAGE_BYTES: u64 = 4096;
/// The bytes of each region's header: one page.
pub const HEADER_BYTES: u64 = PAGE_BYTES;

/// Down: `u32`, the submission ring's tail. The worker produces; it is also the futex word a parked sandbox waits on.
pub const SUBMISSION_TAIL_OFFSET: u64 = 256;
/// Down: `u32`, the completion ring's head. The worker consumes.
pub const COMPLETION_HEAD_OFFSET: u64 = 384;
/// Down: `u32`, zero while the worker is awake; another number for each sleep, in which it wants its doorbell rung once.
pub const WORKER_PARKED_OFFSET: u64 = 512;
/// Down: a `u32` for each lane, [`parts_taken_offset`]: twice the number of parts that were taken from it, and one more if nobody takes any
/// further part of what runs there. It is also the futex word that who has sent a part waits on.
pub const PARTS_TAKEN_OFFSET: u64 = 1024;
/// Up: `u32`, the completion ring's tail. The sandbox produces.
pub const COMPLETION_TAIL_OFFSET: u64 = 256;
/// Up: `u32`, the submission ring's head. The sandbox consumes, and gives a submission's slot back before it answers it.
pub const SUBMISSION_HEAD_OFFSET: u64 = 384;
/// Up: `u32`, 1 while the sandbox sleeps in `FUTEX_WAIT` and wants to be woken.
pub const SANDBOX_PARKED_OFFSET: u64 = 512;

/// The bytes of a descriptor, at the start of its slot.
pub const DESCRIPTOR_BYTES: u64 = 64;
/// Where a descriptor's sequence lies in it: the last word.
pub const SEQUENCE_OFFSET: u64 = DESCRIPTOR_BYTES - 8;
/// The bytes from one slot of a ring to the next.
pub const SLOT_STRIDE_BYTES: u64 = 1280;
/// The bytes of a slot after its descriptor: small messages ride there.
pub const INLINE_BYTES: u64 = SLOT_STRIDE_BYTES - DESCRIPTOR_BYTES;
/// The alignment of a payload behind its metadata in a slot, in bytes.
pub const PAYLOAD_ALIGN_BYTES: u64 = 16;
/// The bytes reserved for metadata at the start of each lane, and so the most that metadata may take.
pub const METADATA_BYTES: u64 = PAGE_BYTES;

/// The most lanes (invocations at once) of one sandbox.
pub const MAX_LANES: u32 = 256;
/// The most payload bytes a lane may be made for.
pub const MAX_PAYLOAD_BYTES: u64 = 1 << 30;
/// The longest content type a response may name, in bytes.
pub const MAX_CONTENT_TYPE_BYTES: usize = 255;

/// The most bytes of one part of an answer.
pub const PART_BYTES: u64 = 64 << 10;

/// Where the word of a lane lies that says which parts were taken.
#[must_use]
pub fn parts_taken_offset(lane: u32) -> u64 {
    PARTS_TAKEN_OFFSET + 4 * u64::from(lane)
}

/// What a submission asks: the `kind` of a [`SubmissionDescriptor`].
pub mod submission_kind {
    /// Run an invocation.
    pub const INVOKE: u16 = 1;
    /// Advice: nobody waits for this invocation any more.
    pub const CANCEL: u16 = 2;
    /// Finish what runs, then exit.
    pub const STOP: u16 = 3;
    /// Advice: nothing is asked for a while, so memory that is not needed may go back.
    pub const TRIM: u16 = 4;
}

/// What a completion says: the `kind` of a [`CompletionDescriptor`].
pub mod completion_kind {
    /// The runtime is up and the handler loaded.
    pub const READY: u16 = 1;
    /// The invocation returned; the payload is its answer.
    pub const RETURNED: u16 = 2;
    /// The invocation raised; the payload is JSON `{"errorType", "errorMessage", "stackTrace": [..]}`.
    pub const RAISED: u16 = 3;
    /// The runtime could not load the handler; the payload is as for `RAISED`.
    pub const INIT_FAILED: u16 = 4;
    /// What invocations imported that loading had not; the payload, in the slot, is names of modules between spaces. At most once.
    pub const IMPORTED: u16 = 5;
    /// A part of the answer, at most [`PART_BYTES`](super::PART_BYTES) of it; more follow, and `RETURNED` ends it. The next completion of
    /// the lane comes when the part was taken.
    pub const PART: u16 = 6;
}

/// The header of the down region, written once by the worker before the sandbox exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct DownHeader {
    /// [`DOWN_MAGIC`].
    pub magic: u64,
    /// [`ABI_VERSION`].
    pub abi: u32,
    /// [`HEADER_BYTES`].
    pub header_bytes: u32,
    /// The invocations that may run at once.
    pub lanes: u32,
    /// The slots of the submission ring; a power of two.
    pub submission_entries: u32,
    /// Where the submission ring starts, in the down region.
    pub submission_offset: u64,
    /// [`SLOT_STRIDE_BYTES`].
    pub submission_stride: u32,
    /// [`INLINE_BYTES`], of both rings.
    pub inline_bytes: u32,
    /// The slots of the completion ring; a power of two.
    pub completion_entries: u32,
    /// [`SLOT_STRIDE_BYTES`].
    pub completion_stride: u32,
    /// Where the completion ring starts, in the up region.
    pub completion_offset: u64,
    /// Where the first request lane starts, in the down region.
    pub request_offset: u64,
    /// The bytes from one request lane to the next.
    pub request_lane_bytes: u64,
    /// Where the first response lane starts, in the up region.
    pub response_offset: u64,
    /// The bytes from one response lane to the next.
    pub response_lane_bytes: u64,
    /// [`METADATA_BYTES`].
    pub metadata_bytes: u32,
    /// Zero.
    pub reserved: u32,
    /// The most bytes of a request's or a response's payload.
    pub payload_limit: u64,
    /// The size of the down region.
    pub down_bytes: u64,
    /// The size of the up region.
    pub up_bytes: u64,
}

/// The header of the up region, written by the runtime before it says Ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct UpHeader {
    /// [`UP_MAGIC`].
    pub magic: u64,
    /// The ABI version the runtime speaks.
    pub abi: u32,
    /// Zero.
    pub reserved: u32,
}

/// The first 64 bytes of a submission slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct SubmissionDescriptor {
    /// The worker's id of the invocation.
    pub invocation: u64,
    /// One of [`submission_kind`].
    pub kind: u16,
    /// Zero.
    pub flags: u16,
    /// The lane the invocation occupies.
    pub lane: u32,
    /// When the worker gives the invocation up, on `CLOCK_MONOTONIC`.
    pub deadline_ns: u64,
    /// Where the metadata lies, from the start of the down region.
    pub metadata_offset: u64,
    /// The bytes of metadata; its root ends there.
    pub metadata_bytes: u32,
    /// Zero.
    pub reserved: u32,
    /// Where the payload lies, from the start of the down region.
    pub payload_offset: u64,
    /// The bytes of payload.
    pub payload_bytes: u64,
    /// [`crate::ring::sequence`] of the message, written last, after the tail; until then, of the one a lap earlier.
    pub sequence: u64,
}

/// The first 64 bytes of a completion slot. What the worker reads there is a claim until [`crate::claim`] checked it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct CompletionDescriptor {
    /// The invocation it answers; zero for Ready and InitFailed.
    pub invocation: u64,
    /// One of [`completion_kind`].
    pub kind: u16,
    /// Zero.
    pub flags: u16,
    /// The lane the invocation ran on; zero for Ready and InitFailed.
    pub lane: u32,
    /// Where the metadata lies, from the start of the up region; not read when there is none.
    pub metadata_offset: u64,
    /// The bytes of metadata; zero when there is none.
    pub metadata_bytes: u32,
    /// Zero.
    pub reserved: u32,
    /// Where the payload lies, from the start of the up region; not read when there is none.
    pub payload_offset: u64,
    /// The bytes of payload.
    pub payload_bytes: u64,
    /// Zero.
    pub reserved_tail: u64,
    /// As for a submission.
    pub sequence: u64,
}

/// The cache lines behind the descriptor of the slot at `start` that these parts of its message take, if they are so few
/// that fetching them ahead of the next message pays; else none.
#[cfg(not(loom))]
pub(crate) fn inline_lines(start: u64, parts: [&Range<u64>; 2]) -> u64 {
    const LINE_BYTES: u64 = 64;
    const FEW: u64 = 3;
    let slot = start + DESCRIPTOR_BYTES..start + SLOT_STRIDE_BYTES;
    let ends = parts.into_iter().filter(|part| slot.contains(&part.start)).map(|part| part.end);
    let lines = ends.max().map_or(0, |end| (end - slot.start).div_ceil(LINE_BYTES));
    if lines <= FEW { lines } else { 0 }
}

const _: () = {
    assert!(PARTS_TAKEN_OFFSET + 4 * MAX_LANES as u64 <= HEADER_BYTES);
    assert!(size_of::<DownHeader>() == 120 && align_of::<DownHeader>() == 8);
    assert!(offset_of!(DownHeader, lanes) == 16);
    assert!(offset_of!(DownHeader, submission_offset) == 24);
    assert!(offset_of!(DownHeader, completion_entries) == 40);
    assert!(offset_of!(DownHeader, completion_offset) == 48);
    assert!(offset_of!(DownHeader, request_lane_bytes) == 64);
    assert!(offset_of!(DownHeader, response_lane_bytes) == 80);
    assert!(offset_of!(DownHeader, payload_limit) == 96);
    assert!(offset_of!(DownHeader, up_bytes) == 112);
    assert!(size_of::<UpHeader>() == 16 && align_of::<UpHeader>() == 8);

    assert!(size_of::<SubmissionDescriptor>() as u64 == DESCRIPTOR_BYTES);
    assert!(align_of::<SubmissionDescriptor>() == 8);
    assert!(offset_of!(SubmissionDescriptor, kind) == 8);
    assert!(offset_of!(SubmissionDescriptor, flags) == 10);
    assert!(offset_of!(SubmissionDescriptor, lane) == 12);
    assert!(offset_of!(SubmissionDescriptor, deadline_ns) == 16);
    assert!(offset_of!(SubmissionDescriptor, metadata_offset) == 24);
    assert!(offset_of!(SubmissionDescriptor, metadata_bytes) == 32);
    assert!(offset_of!(SubmissionDescriptor, payload_offset) == 40);
    assert!(offset_of!(SubmissionDescriptor, payload_bytes) == 48);
    assert!(offset_of!(SubmissionDescriptor, sequence) as u64 == SEQUENCE_OFFSET);

    assert!(size_of::<CompletionDescriptor>() as u64 == DESCRIPTOR_BYTES);
    assert!(align_of::<CompletionDescriptor>() == 8);
    assert!(offset_of!(CompletionDescriptor, kind) == 8);
    assert!(offset_of!(CompletionDescriptor, flags) == 10);
    assert!(offset_of!(CompletionDescriptor, lane) == 12);
    assert!(offset_of!(CompletionDescriptor, metadata_offset) == 16);
    assert!(offset_of!(CompletionDescriptor, metadata_bytes) == 24);
    assert!(offset_of!(CompletionDescriptor, payload_offset) == 32);
    assert!(offset_of!(CompletionDescriptor, payload_bytes) == 40);
    assert!(offset_of!(CompletionDescriptor, reserved_tail) == 48);
    assert!(offset_of!(CompletionDescriptor, sequence) as u64 == SEQUENCE_OFFSET);

    // A header holds its indices, each on cache lines of its own (128 bytes: adjacent lines are fetched in pairs).
    assert!(size_of::<DownHeader>() as u64 <= SUBMISSION_TAIL_OFFSET);
    assert!(WORKER_PARKED_OFFSET + 4 <= HEADER_BYTES && SANDBOX_PARKED_OFFSET + 4 <= HEADER_BYTES);
    // Slots are aligned for descriptors and for metadata in place. A slot starts a pair of lines, which are fetched
    // together: its descriptor, and what is small and right behind it.
    assert!(SLOT_STRIDE_BYTES.is_multiple_of(128) && HEADER_BYTES.is_multiple_of(128) && DESCRIPTOR_BYTES == 64);
    assert!(METADATA_BYTES.is_multiple_of(PAYLOAD_ALIGN_BYTES));
    assert!(METADATA_BYTES <= u32::MAX as u64 && INLINE_BYTES <= METADATA_BYTES);
    // A slot holds at least a kilobyte of payload behind usual metadata.
    assert!(INLINE_BYTES >= 1024 + 128);
    // Region sizes stay far from overflow, so that checked sums of offsets cannot surprise.
    assert!((MAX_PAYLOAD_BYTES + METADATA_BYTES + PAGE_BYTES) * (MAX_LANES as u64) < 1 << 40);
};
