//! The sending half of a guest: publishes completions and rings the worker if it parked.
//!
//! Invariant: a lane's private memory is back in its place before the worker can learn that the lane is free.
#![allow(unsafe_code)]

use super::invocation::{Body, Invocation, Outlet, Piece, PieceBytes};
use super::shared::{Lanes, Regions};
use crate::doorbell;
use crate::layout::{
    ABI_VERSION, COMPLETION_HEAD_OFFSET, COMPLETION_TAIL_OFFSET, CompletionDescriptor, DESCRIPTOR_BYTES, INLINE_BYTES,
    METADATA_BYTES, PAYLOAD_ALIGN_BYTES, SEQUENCE_OFFSET, SLOT_STRIDE_BYTES, UP_MAGIC, WORKER_PARKED_OFFSET,
    completion_kind, parts_taken_offset,
};
use crate::ring::Producer;
use nix::errno::Errno;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

/// Publishes completions. One per sandbox.
pub struct Sender {
    regions: Arc<Regions>,
    private: Arc<Lanes>,
    doorbell: OwnedFd,
    ring: Producer,
    /// The free-running index of each lane's last completion. The lane's next invocation shows that the worker took it.
    answered: Box<[Option<u32>]>,
    /// The worker's sleep in which it was last rung.
    rung: u32,
}

/// Where an answer's payload is before it is published.
enum Source<'a> {
    /// Private bytes: copied into the slot, or into the lane.
    Bytes(&'a [u8]),
    /// In the lane's payload area already, at its start.
    InLane { bytes: u64 },
    /// There, from somewhere on.
    Within(Range<usize>),
}

impl Sender {
    pub(super) fn new(regions: Arc<Regions>, private: Arc<Lanes>, doorbell: OwnedFd, start: u32) -> Sender {
        let ring = Producer::new(regions.geometry.completion_entries(), start);
        // Relaxed: the worker learns of this sandbox by the completion that says Ready.
        regions.up.word(COMPLETION_TAIL_OFFSET).store(start, Ordering::Relaxed);
        let answered = (0..regions.geometry.lanes()).map(|_| None).collect();
        Sender { regions, private, doorbell, ring, answered, rung: 0 }
    }

    /// See [`super::Guest::ready`].
    pub fn ready(&mut self) {
        // SAFETY: the worker reads the header only after the completion below is published.
        unsafe { self.regions.up.write_words(0, [UP_MAGIC, u64::from(ABI_VERSION)]) };
        let start = self.fill(completion_kind::READY, 0, 0, &[], Source::Bytes(&[]));
        self.commit(start);
    }

    /// See [`super::Guest::init_failed`].
    ///
    /// # Panics
    /// The text is longer than [`Sender::failure_limit_bytes`].
    pub fn init_failed(&mut self, json: &[u8]) {
        self.assert_fits(json);
        let start = self.fill(completion_kind::INIT_FAILED, 0, 0, &[], Source::Bytes(json));
        self.commit(start);
    }

    /// See [`super::Guest::returned`].
    pub fn returned(&mut self, invocation: Invocation) {
        let lane = invocation.close();
        let metadata = if lane.answer.has_metadata { lane.metadata.as_slice() } else { &[] };
        let payload = match lane.answer.body {
            Body::Private(len) => Source::Bytes(&lane.response.0[..len]),
            Body::Lane(len) => Source::InLane { bytes: len as u64 },
        };
        self.count(lane.lane);
        let start = self.fill(completion_kind::RETURNED, lane.id, lane.lane, metadata, payload);
        self.private.give_back(lane);
        self.commit(start);
    }

    /// See [`super::Guest::raised`].
    ///
    /// # Panics
    /// The text is longer than [`Sender::failure_limit_bytes`].
    pub fn raised(&mut self, invocation: Invocation, json: &[u8]) {
        self.assert_fits(json);
        let lane = invocation.close();
        self.count(lane.lane);
        let start = self.fill(completion_kind::RAISED, lane.id, lane.lane, &[], Source::Bytes(json));
        self.private.give_back(lane);
        self.commit(start);
    }

    /// Sends a part of a response; who waits for it to be taken is to be told by the [`PartWait`].
    pub fn part(&mut self, piece: &Piece<'_>) -> PartWait {
        let regions = Arc::clone(&self.regions);
        // Relaxed: changed by the worker alone, and only after the part is published.
        let before = regions.down.word(parts_taken_offset(piece.lane)).load_relaxed();
        let payload = match &piece.payload {
            PieceBytes::Private(bytes) => Source::Bytes(bytes),
            PieceBytes::Lane(range) => Source::Within(range.clone()),
        };
        self.count(piece.lane);
        let start = self.fill(completion_kind::PART, piece.invocation, piece.lane, piece.metadata, payload);
        self.commit(start);
        PartWait { regions, lane: piece.lane, before }
    }

    /// The longest account of a failure that can be sent, in bytes.
    #[must_use]
    pub fn failure_limit_bytes(&self) -> usize {
        self.regions.geometry.payload_limit_bytes().max(INLINE_BYTES) as usize
    }

    fn assert_fits(&self, json: &[u8]) {
        assert!(json.len() <= self.failure_limit_bytes(), "accounts of failures are shortened to the limit");
    }

    /// Notes that the next completion answers on `lane`, whose last one the worker must have taken.
    fn count(&mut self, lane: u32) {
        if let Some(taken) = self.answered[lane as usize].replace(self.ring.tail()) {
            // The worker may still read that slot; it is done with those before.
            self.ring.infer(taken);
        }
    }

    /// Fills the next slot, and the lane with what does not fit it; where the slot starts. Nothing is published yet.
    fn fill(&mut self, kind: u16, invocation: u64, lane: u32, metadata: &[u8], payload: Source<'_>) -> u64 {
        let head = self.regions.down.word(COMPLETION_HEAD_OFFSET);
        let reserved = self.ring.reserve(head).expect("the worker's head is one that a worker writes");
        let slot = reserved.expect("the ring has room for an answer of every lane");
        let start = self.regions.geometry.completion_slot(slot);
        let lane_start = self.regions.geometry.response_lane(lane).start;
        let in_slot = start + DESCRIPTOR_BYTES;
        let behind = (in_slot + metadata.len() as u64).next_multiple_of(PAYLOAD_ALIGN_BYTES);
        let (metadata_offset, payload_offset, payload_bytes) = match payload {
            Source::Bytes(bytes) if behind + bytes.len() as u64 <= start + SLOT_STRIDE_BYTES => {
                (in_slot, behind, bytes.len() as u64)
            }
            Source::Bytes(bytes) => (lane_start, lane_start + METADATA_BYTES, bytes.len() as u64),
            Source::InLane { bytes } => (lane_start, lane_start + METADATA_BYTES, bytes),
            Source::Within(ref range) => {
                (lane_start, lane_start + METADATA_BYTES + range.start as u64, range.len() as u64)
            }
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
        let [body @ .., _] = descriptor.to_words();
        // SAFETY: the slot is reserved and the lane was its invocation's, which ended: both are this sender's alone
        // until they are published.
        unsafe {
            self.regions.up.write(metadata_offset, metadata);
            if let Source::Bytes(bytes) = payload {
                self.regions.up.write(payload_offset, bytes);
            }
            self.regions.up.write_words(start, body);
        }
        start
    }

    /// Publishes the slot last filled, which starts at `start`.
    fn commit(&mut self, start: u64) {
        let sequence = self.regions.up.sequence(start + SEQUENCE_OFFSET);
        self.ring.publish(self.regions.up.word(COMPLETION_TAIL_OFFSET), sequence);
        let sleep = doorbell::sleep_of(self.regions.down.word(WORKER_PARKED_OFFSET));
        if sleep != self.rung {
            self.rung = sleep;
            if sleep != 0 {
                self.ring_doorbell();
            }
        }
    }

    fn ring_doorbell(&self) {
        loop {
            match nix::unistd::write(&self.doorbell, &1u64.to_ne_bytes()) {
                // EAGAIN: the count is at its maximum, so the worker's poll has fired and stays readable.
                Ok(_) | Err(Errno::EAGAIN) => return,
                Err(Errno::EINTR) => {}
                Err(errno) => panic!("ringing the worker failed: {errno}"),
            }
        }
    }
}

/// A part that was sent.
pub struct PartWait {
    regions: Arc<Regions>,
    lane: u32,
    before: u32,
}

impl PartWait {
    /// Sleeps until it was taken. Whether more would be.
    #[must_use]
    pub fn wait(self) -> bool {
        let offset = parts_taken_offset(self.lane);
        let forever = std::ptr::null::<libc::timespec>();
        loop {
            // Acquire: pairs with the worker's release; it reads the lane no more.
            let taken = self.regions.down.word(offset).load_acquire();
            if taken != self.before {
                return taken & 1 == 0;
            }
            let word = self.regions.down.word_address(offset);
            // Not FUTEX_PRIVATE: the waker is another process. The word's page is mapped read-only, which waiting allows.
            // SAFETY: the word lies in a mapping that outlives the call.
            let slept = unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAIT, self.before, forever) };
            let errno = Errno::last();
            assert!(
                slept == 0 || matches!(errno, Errno::EAGAIN | Errno::EINTR),
                "waiting for the worker failed: {errno}"
            );
        }
    }
}

/// For a runtime whose threads share a sender.
impl Outlet for Mutex<Sender> {
    fn send(&self, part: &Piece<'_>) -> bool {
        let sent = self.lock().expect("only a worker that broke the protocol makes a holder panic").part(part);
        // Others send meanwhile.
        sent.wait()
    }
}
