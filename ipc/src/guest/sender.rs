//! The sending half of a guest: publishes completions and rings the worker if it parked.
//!
//! Invariant: a lane's private memory is back in its place before the worker can learn that the lane is free.
#![allow(unsafe_code)]

use super::invocation::{Body, Invocation};
use super::shared::Shared;
use crate::doorbell;
use crate::layout::{
    ABI_VERSION, COMPLETION_HEAD_OFFSET, COMPLETION_TAIL_OFFSET, CompletionDescriptor, DESCRIPTOR_BYTES, INLINE_BYTES,
    METADATA_BYTES, PAYLOAD_ALIGN_BYTES, SLOT_STRIDE_BYTES, UP_MAGIC, WORKER_PARKED_OFFSET, completion_kind,
};
use crate::ring::Producer;
use nix::errno::Errno;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Publishes completions. One per sandbox.
pub struct Sender {
    shared: Arc<Shared>,
    ring: Producer,
}

/// Where an answer's payload is before it is published.
enum Source<'a> {
    /// Private bytes: copied into the slot, or into the lane.
    Bytes(&'a [u8]),
    /// In the lane's payload area already.
    InLane { bytes: u64 },
}

impl Sender {
    pub(super) fn new(shared: Arc<Shared>, start: u32) -> Sender {
        let ring = Producer::new(shared.geometry.completion_entries(), start);
        // Relaxed: the worker learns of this sandbox by the completion that says Ready.
        shared.up.word(COMPLETION_TAIL_OFFSET).store(start, Ordering::Relaxed);
        Sender { shared, ring }
    }

    /// See [`super::Guest::ready`].
    pub fn ready(&mut self) {
        // SAFETY: the worker reads the header only after the completion below is published.
        unsafe { self.shared.up.write_words(0, [UP_MAGIC, u64::from(ABI_VERSION)]) };
        self.fill(completion_kind::READY, 0, 0, &[], Source::Bytes(&[]));
        self.commit();
    }

    /// See [`super::Guest::init_failed`].
    ///
    /// # Panics
    /// The text is longer than [`Sender::failure_limit_bytes`].
    pub fn init_failed(&mut self, json: &[u8]) {
        self.assert_fits(json);
        self.fill(completion_kind::INIT_FAILED, 0, 0, &[], Source::Bytes(json));
        self.commit();
    }

    /// See [`super::Guest::returned`].
    pub fn returned(&mut self, invocation: Invocation) {
        let (id, lane, scratch, answer) = invocation.close();
        let metadata = if answer.has_metadata { scratch.metadata.as_slice() } else { &[] };
        let payload = match answer.body {
            Body::Private(len) => Source::Bytes(&scratch.response.0[..len]),
            Body::Lane(len) => Source::InLane { bytes: len as u64 },
        };
        self.fill(completion_kind::RETURNED, id, lane, metadata, payload);
        self.shared.give_back(lane, scratch);
        self.commit();
    }

    /// See [`super::Guest::raised`].
    ///
    /// # Panics
    /// The text is longer than [`Sender::failure_limit_bytes`].
    pub fn raised(&mut self, invocation: Invocation, json: &[u8]) {
        self.assert_fits(json);
        let (id, lane, scratch, _) = invocation.close();
        self.fill(completion_kind::RAISED, id, lane, &[], Source::Bytes(json));
        self.shared.give_back(lane, scratch);
        self.commit();
    }

    /// The longest account of a failure that can be sent, in bytes.
    #[must_use]
    pub fn failure_limit_bytes(&self) -> usize {
        self.shared.geometry.payload_limit_bytes().max(INLINE_BYTES) as usize
    }

    fn assert_fits(&self, json: &[u8]) {
        assert!(json.len() <= self.failure_limit_bytes(), "accounts of failures are shortened to the limit");
    }

    /// Fills the next slot, and the lane with what does not fit it. Nothing is published yet.
    fn fill(&mut self, kind: u16, invocation: u64, lane: u32, metadata: &[u8], payload: Source<'_>) {
        let head = self.shared.down.word(COMPLETION_HEAD_OFFSET);
        let reserved = self.ring.reserve(head).expect("the worker's head is one that a worker writes");
        let slot = reserved.expect("the ring has room for an answer of every lane");
        let start = self.shared.geometry.completion_slot(slot);
        let lane_start = self.shared.geometry.response_lane(lane).start;
        let in_slot = start + DESCRIPTOR_BYTES;
        let behind = (in_slot + metadata.len() as u64).next_multiple_of(PAYLOAD_ALIGN_BYTES);
        let (metadata_offset, payload_offset, payload_bytes) = match payload {
            Source::Bytes(bytes) if behind + bytes.len() as u64 <= start + SLOT_STRIDE_BYTES => {
                (in_slot, behind, bytes.len() as u64)
            }
            Source::Bytes(bytes) => (lane_start, lane_start + METADATA_BYTES, bytes.len() as u64),
            Source::InLane { bytes } => (lane_start, lane_start + METADATA_BYTES, bytes),
        };
        let descriptor = CompletionDescriptor {
            invocation,
            kind,
            lane,
            metadata_offset,
            metadata_bytes: metadata.len() as u32,
            payload_offset,
            payload_bytes,
            ..CompletionDescriptor::default()
        };
        // SAFETY: the slot is reserved and the lane was its invocation's, which ended: both are this sender's alone
        // until they are published.
        unsafe {
            self.shared.up.write(metadata_offset, metadata);
            if let Source::Bytes(bytes) = payload {
                self.shared.up.write(payload_offset, bytes);
            }
            self.shared.up.write_words(start, descriptor.to_words());
        }
    }

    /// Publishes the slot last filled.
    fn commit(&mut self) {
        self.ring.publish(self.shared.up.word(COMPLETION_TAIL_OFFSET));
        if doorbell::must_ring(self.shared.down.word(WORKER_PARKED_OFFSET)) {
            self.ring_doorbell();
        }
    }

    fn ring_doorbell(&self) {
        loop {
            match nix::unistd::write(&self.shared.doorbell, &1u64.to_ne_bytes()) {
                // EAGAIN: the count is at its maximum, so the worker's poll has fired and stays readable.
                Ok(_) | Err(Errno::EAGAIN) => return,
                Err(Errno::EINTR) => {}
                Err(errno) => panic!("ringing the worker failed: {errno}"),
            }
        }
    }
}
