//! The worker's side of one sandbox's regions.
//!
//! Invariant: nothing read from the up region is believed before it was copied out and checked, and after the first
//! [`Poison`] nothing is read at all. A lane carries one invocation from [`Host::submit`] to the claim that answers it.
//! This module knows neither processes nor policies, and makes no system call but the futex's wake.
#![allow(unsafe_code)]

mod create;
mod futex;
mod lanes;
#[cfg(test)]
mod parts;
mod submission;
#[cfg(test)]
mod tests;

pub use crate::region::Mapping;
pub use create::{CreateError, GuestFds, ReadOnlyBy};
pub use lanes::KEPT_PAYLOAD_BYTES;
pub use submission::{Payload, Submission, SubmitError};

use crate::claim::{self, Checked, Claim, ClaimKind, Poison};
use crate::doorbell;
use crate::layout::{
    ABI_VERSION, COMPLETION_HEAD_OFFSET, COMPLETION_TAIL_OFFSET, CompletionDescriptor, DESCRIPTOR_BYTES, Geometry,
    METADATA_BYTES, PAYLOAD_ALIGN_BYTES, SANDBOX_PARKED_OFFSET, SEQUENCE_OFFSET, SLOT_STRIDE_BYTES,
    SUBMISSION_HEAD_OFFSET, SUBMISSION_TAIL_OFFSET, SubmissionDescriptor, UP_MAGIC, WORKER_PARKED_OFFSET, inline_lines,
    parts_taken_offset, submission_kind,
};
use crate::metadata::{self, ContentType, PrivateCopy, ResponseMetadata};
use crate::region::{OwnRegion, PeerRegion};
use crate::ring::{Consumer, Producer};
use lanes::Lane;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

/// How far the sandbox's start got, by its own account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Starting,
    Ready,
    Failed,
}

/// The worker's half of a sandbox: both mappings, both rings and the doorbell.
pub struct Host {
    down: OwnRegion,
    up: PeerRegion,
    doorbell: OwnedFd,
    geometry: Geometry,
    submissions: Producer,
    completions: Consumer,
    lanes: Box<[Lane]>,
    read_only_by: ReadOnlyBy,
    stage: Stage,
    /// It has said what its invocations imported.
    has_imported: bool,
    stopping: bool,
    /// Whether the sandbox was told that the worker sleeps.
    parked: bool,
    /// The number of the worker's last sleep.
    sleep: u32,
    /// The lines behind the descriptor that the last claim took, up to a few: the next will likely take as many.
    lines: u64,
    poisoned: Option<Poison>,
    metadata: PrivateCopy,
}

impl Host {
    /// A host over regions and a doorbell; its indices start at `start`.
    fn assemble(geometry: Geometry, down: OwnRegion, up: PeerRegion, doorbell: OwnedFd, start: u32) -> Host {
        // SAFETY: nobody else knows the region yet.
        unsafe { down.write_words(0, geometry.header().to_words()) };
        let host = Host {
            down,
            up,
            doorbell,
            geometry,
            submissions: Producer::new(geometry.submission_entries(), start),
            completions: Consumer::new(geometry.completion_entries(), start),
            lanes: vec![Lane::default(); geometry.lanes() as usize].into_boxed_slice(),
            read_only_by: ReadOnlyBy::Seal,
            stage: Stage::Starting,
            has_imported: false,
            stopping: false,
            parked: false,
            sleep: 0,
            lines: 0,
            poisoned: None,
            metadata: PrivateCopy::new(),
        };
        // Relaxed: the sandbox does not exist yet.
        host.down.word(SUBMISSION_TAIL_OFFSET).store(start, Ordering::Relaxed);
        host.down.word(COMPLETION_HEAD_OFFSET).store(start, Ordering::Relaxed);
        host
    }

    /// Where everything lies.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The eventfd that the sandbox writes when the worker parked. Never read it: poll it for each ring.
    #[must_use]
    pub fn doorbell(&self) -> BorrowedFd<'_> {
        self.doorbell.as_fd()
    }

    /// Gives the sandbox an invocation. The sandbox may sleep: call [`Host::wake_if_parked`] after the last one.
    ///
    /// # Errors
    /// See [`SubmitError`]; nothing was published.
    pub fn submit(&mut self, submission: &Submission<'_>) -> Result<(), SubmitError> {
        self.check_open()?;
        self.check_idle(submission.lane)?;
        if submission.metadata.len() as u64 > METADATA_BYTES {
            return Err(SubmitError::MetadataTooLong(submission.metadata.len()));
        }
        let bytes = submission.payload.bytes();
        self.check_payload(bytes)?;
        let slot = self.reserve()?;
        let index = self.submissions.tail();
        let (metadata_offset, payload_offset) = self.place(submission, slot);
        self.publish(
            slot,
            &SubmissionDescriptor {
                invocation: submission.invocation,
                kind: submission_kind::INVOKE,
                lane: u32::from(submission.lane),
                deadline_ns: submission.deadline_ns,
                metadata_offset,
                metadata_bytes: submission.metadata.len() as u32,
                payload_offset,
                payload_bytes: bytes,
                ..SubmissionDescriptor::default()
            },
        );
        self.lanes[usize::from(submission.lane)].begin(submission.invocation, index);
        Ok(())
    }

    /// Writes a piece of a payload into an idle lane, `at` bytes from its start; then submit [`Payload::InLane`].
    ///
    /// # Errors
    /// The lane does not exist or is busy, or the piece ends beyond it.
    pub fn fill_request(&mut self, lane: u16, at: u64, piece: &[u8]) -> Result<(), SubmitError> {
        self.check_idle(lane)?;
        self.check_payload(at.saturating_add(piece.len() as u64))?;
        let offset = self.geometry.request_lane(u32::from(lane)) + METADATA_BYTES + at;
        // SAFETY: the lane is idle, so the sandbox was not given it, and `&mut self` is the worker's only writer.
        unsafe { self.down.write(offset, piece) };
        self.request_written(lane, at + piece.len() as u64);
        Ok(())
    }

    /// Advises the sandbox that nobody waits for an invocation any more. Its lane stays busy until its claim. Advising
    /// twice is advising once.
    ///
    /// # Errors
    /// See [`SubmitError`]; nothing was published.
    pub fn cancel(&mut self, invocation: u64, lane: u16) -> Result<(), SubmitError> {
        self.check_open()?;
        match self.lane(lane)? {
            Lane { running: Some(running), cancelled, .. } if running == invocation => {
                if cancelled {
                    return Ok(());
                }
            }
            _ => return Err(SubmitError::NotRunning { invocation, lane }),
        }
        let slot = self.reserve()?;
        let kind = submission_kind::CANCEL;
        self.publish(slot, &SubmissionDescriptor { invocation, kind, lane: u32::from(lane), ..Default::default() });
        self.lanes[usize::from(lane)].cancelled = true;
        Ok(())
    }

    /// Says that the part on a lane was taken, so that the next may come; or, with `goes_on` false, that nobody takes any more of the answer.
    /// Nothing happens where no part waits.
    pub fn part_taken(&mut self, lane: u16, goes_on: bool) {
        let Some(state) = self.lanes.get_mut(usize::from(lane)) else { return };
        if !std::mem::take(&mut state.has_part) {
            return;
        }
        state.parts = state.parts.wrapping_add(2);
        let offset = parts_taken_offset(u32::from(lane));
        // Release: whoever sees it may write the lane's response area again.
        self.down.word(offset).store(state.parts | u32::from(!goes_on), Ordering::Release);
        futex::wake_one(self.down.word_address(offset));
    }

    /// Advises a sandbox in which nothing runs to give memory back. It may take its time; what is submitted next waits for it.
    ///
    /// # Errors
    /// See [`SubmitError`]; nothing was published. It is `Full` while anything that was said before has not been taken.
    pub fn advise_trim(&mut self) -> Result<(), SubmitError> {
        self.check_open()?;
        let drained = self.submissions.is_drained(self.up.word(SUBMISSION_HEAD_OFFSET));
        if !drained.map_err(|error| self.poisoned_head(error))? {
            return Err(SubmitError::Full);
        }
        let slot = self.reserve()?;
        self.publish(slot, &SubmissionDescriptor { kind: submission_kind::TRIM, ..Default::default() });
        Ok(())
    }

    /// Asks the sandbox to finish what runs and exit. Nothing can be submitted afterwards.
    ///
    /// # Errors
    /// See [`SubmitError`]; nothing was published.
    pub fn stop(&mut self) -> Result<(), SubmitError> {
        self.check_open()?;
        let slot = self.reserve()?;
        self.publish(slot, &SubmissionDescriptor { kind: submission_kind::STOP, ..Default::default() });
        self.stopping = true;
        Ok(())
    }

    /// Wakes the sandbox if it said that it sleeps; whether it did. Call it after submissions, once for all of them.
    pub fn wake_if_parked(&self) -> bool {
        let parked = doorbell::must_ring(self.up.word(SANDBOX_PARKED_OFFSET));
        if parked {
            futex::wake_one(self.down.word_address(SUBMISSION_TAIL_OFFSET));
        }
        parked
    }

    /// Whether [`Host::pop`] would find something (a claim, or poison). It costs no more than a look at the next slot.
    #[must_use]
    pub fn pending(&self) -> bool {
        let start = self.geometry.completion_slot(self.completions.slot());
        // Before the look, so that the message's lines are fetched together.
        self.up.prefetch(start + DESCRIPTOR_BYTES, self.lines);
        self.poisoned.is_none() && self.completions.is_filled(self.up.sequence(start + SEQUENCE_OFFSET))
    }

    /// Whether the sandbox is not believed any more.
    #[cfg(any(test, fuzzing, feature = "fuzzing"))]
    pub(crate) fn is_poisoned(&self) -> bool {
        self.poisoned.is_some()
    }

    /// Whether the tail tells of a message that was not popped.
    #[cfg(any(test, fuzzing, feature = "fuzzing"))]
    pub(crate) fn tail_is_ahead(&self) -> bool {
        self.up.word(COMPLETION_TAIL_OFFSET).load_acquire() != self.completions.head()
    }

    /// Says that the worker is about to sleep on the doorbell; true when nothing is pending, so that it may. When
    /// false, the worker is awake again.
    pub fn announce_park(&mut self) -> bool {
        if self.poisoned.is_some() {
            return true;
        }
        let may_sleep = self.begin_sleep().unwrap_or_else(|poison| {
            self.poisoned = Some(poison);
            false
        });
        if !may_sleep {
            self.announce_unpark();
        }
        may_sleep
    }

    /// Tells the sandbox of a sleep that it was not rung in yet; whether the ring is empty afterwards.
    fn begin_sleep(&mut self) -> Result<bool, Poison> {
        // Never zero. A number comes again only after four thousand million sleeps, in one of which the sandbox rang or
        // published nothing.
        self.sleep = self.sleep.checked_add(1).unwrap_or(1);
        self.parked = true;
        doorbell::announce(self.down.word(WORKER_PARKED_OFFSET), self.sleep);
        self.completions.look(self.up.word(COMPLETION_TAIL_OFFSET)).map_err(Poison::CompletionTail)
    }

    /// Says that the worker is awake. Touches nothing when that was said before: the sandbox shares the word's line.
    pub fn announce_unpark(&mut self) {
        if std::mem::take(&mut self.parked) {
            doorbell::retract(self.down.word(WORKER_PARKED_OFFSET));
        }
    }

    /// The next claim; none means that the doorbell is rung for the next one, if the worker said that it sleeps and not
    /// that it is awake. The slot of the one popped before is the sandbox's again: copy a payload that rides in its slot
    /// ([`Claim::payload_in_slot`]) before popping the next.
    ///
    /// # Errors
    /// The sandbox wrote what no correct runtime writes, now or earlier; kill it.
    pub fn pop(&mut self) -> Result<Option<Claim>, Poison> {
        if let Some(poison) = self.poisoned {
            return Err(poison);
        }
        self.try_pop().inspect_err(|poison| self.poisoned = Some(*poison))
    }

    /// Appends the claim's payload to `out`.
    ///
    /// # Panics
    /// The payload rode in its slot, and another claim was popped since.
    pub fn copy_payload(&self, claim: &Claim, out: &mut Vec<u8>) {
        self.assert_held(claim);
        self.up.append_to(&claim.payload, out);
    }

    fn try_pop(&mut self) -> Result<Option<Claim>, Poison> {
        let start = self.geometry.completion_slot(self.completions.slot());
        let sequence = self.up.sequence(start + SEQUENCE_OFFSET);
        self.completions.release(self.down.word(COMPLETION_HEAD_OFFSET));
        let slot = match self.completions.poll(sequence) {
            Some(slot) => slot,
            // The worker was not said to be awake and will sleep on: it is rung anew for what comes from here on.
            None if self.parked && !self.begin_sleep()? => self.completions.slot(),
            None => return Ok(None),
        };
        let words = self.up.read_words(start);
        let checked = claim::check(&CompletionDescriptor::from_words(words), slot, &self.geometry)?;
        self.check_expected(&checked)?;
        self.copy_metadata(&checked)?;
        let content_type = metadata::content_type(&self.metadata).map_err(Poison::Metadata)?;
        self.lines = inline_lines(start, [&checked.metadata, &checked.payload]);
        let index = self.completions.head();
        self.completions.advance();
        let Checked { kind, invocation, lane, payload, payload_in_slot, .. } = checked;
        match kind {
            ClaimKind::Ready => self.stage = Stage::Ready,
            ClaimKind::InitFailed => self.stage = Stage::Failed,
            ClaimKind::Imported => self.has_imported = true,
            ClaimKind::Part => {
                let area = self.geometry.response_lane(u32::from(lane)).start + METADATA_BYTES;
                let lane = &mut self.lanes[usize::from(lane)];
                lane.has_part = true;
                if !payload_in_slot {
                    lane.response_reaches(payload.end.saturating_sub(area));
                }
            }
            ClaimKind::Returned | ClaimKind::Raised => {
                let area = self.geometry.response_lane(u32::from(lane)).start + METADATA_BYTES;
                let lane = &mut self.lanes[usize::from(lane)];
                lane.end();
                if !payload_in_slot {
                    lane.response_reaches(payload.end.saturating_sub(area));
                }
                // A runtime gives a submission's slot back before it answers; one that did not loses what lies there.
                self.submissions.infer(lane.index.wrapping_add(1));
            }
        }
        let metadata = ResponseMetadata { content_type: ContentType::of_checked(content_type) };
        Ok(Some(Claim { kind, invocation, lane, metadata, payload, payload_in_slot, index }))
    }

    /// Whether the sandbox may say this now.
    fn check_expected(&self, checked: &Checked) -> Result<(), Poison> {
        match (checked.kind, self.stage) {
            (ClaimKind::Ready, Stage::Starting) => self.check_up_header(),
            (ClaimKind::InitFailed, Stage::Starting) => Ok(()),
            (ClaimKind::Ready | ClaimKind::InitFailed, _) => Err(Poison::StartedTwice),
            (_, Stage::Starting | Stage::Failed) => Err(Poison::NotReady),
            (ClaimKind::Imported, Stage::Ready) if self.has_imported => Err(Poison::ImportedTwice),
            (ClaimKind::Imported, Stage::Ready) => Ok(()),
            (_, Stage::Ready) => match self.lanes[usize::from(checked.lane)].running {
                None => Err(Poison::LaneIdle(checked.lane)),
                Some(running) if running != checked.invocation => {
                    Err(Poison::WrongInvocation { lane: checked.lane, claimed: checked.invocation, running })
                }
                Some(_) if self.lanes[usize::from(checked.lane)].has_part => Err(Poison::PartNotTaken(checked.lane)),
                Some(_) => Ok(()),
            },
        }
    }

    /// The worker's half of the handshake.
    fn check_up_header(&self) -> Result<(), Poison> {
        let [magic, abi] = self.up.read_words(0);
        if magic != UP_MAGIC || abi != u64::from(ABI_VERSION) {
            return Err(Poison::UpHeader { magic, abi: abi as u32 });
        }
        Ok(())
    }

    /// Copies the metadata out.
    fn copy_metadata(&mut self, checked: &Checked) -> Result<(), Poison> {
        let len = (checked.metadata.end - checked.metadata.start) as usize;
        let copy = self.metadata.resize(len).map_err(Poison::Metadata)?;
        if len > 0 {
            self.up.copy_out(checked.metadata.start, copy);
        }
        Ok(())
    }

    fn assert_held(&self, claim: &Claim) {
        let last = self.completions.head().wrapping_sub(1);
        assert!(!claim.payload_in_slot || claim.index == last, "copy a payload in its slot before the next pop");
    }

    fn check_open(&self) -> Result<(), SubmitError> {
        match self.poisoned {
            Some(poison) => Err(SubmitError::Poisoned(poison)),
            None if self.stopping => Err(SubmitError::Stopping),
            None => Ok(()),
        }
    }

    fn lane(&self, lane: u16) -> Result<Lane, SubmitError> {
        let lanes = self.geometry.lanes();
        self.lanes.get(usize::from(lane)).copied().ok_or(SubmitError::NoSuchLane { lane, lanes })
    }

    fn check_idle(&self, lane: u16) -> Result<(), SubmitError> {
        match self.lane(lane)?.running {
            Some(_) => Err(SubmitError::LaneBusy(lane)),
            None => Ok(()),
        }
    }

    fn check_payload(&self, bytes: u64) -> Result<(), SubmitError> {
        let limit = self.geometry.payload_limit_bytes();
        if bytes > limit { Err(SubmitError::PayloadTooLarge { bytes, limit }) } else { Ok(()) }
    }

    fn reserve(&mut self) -> Result<u32, SubmitError> {
        match self.submissions.reserve(self.up.word(SUBMISSION_HEAD_OFFSET)) {
            Ok(Some(slot)) => Ok(slot),
            Ok(None) => Err(SubmitError::Full),
            Err(error) => Err(self.poisoned_head(error)),
        }
    }

    fn poisoned_head(&mut self, error: crate::ring::IndexError) -> SubmitError {
        let poison = Poison::SubmissionHead(error);
        self.poisoned = Some(poison);
        SubmitError::Poisoned(poison)
    }

    /// Writes metadata and payload where they belong: both in the slot if they fit, else both in the lane. Their
    /// offsets.
    fn place(&mut self, submission: &Submission<'_>, slot: u32) -> (u64, u64) {
        let start = self.geometry.submission_slot(slot);
        let end = start + SLOT_STRIDE_BYTES;
        let lane = self.geometry.request_lane(u32::from(submission.lane));
        let in_slot = start + DESCRIPTOR_BYTES;
        let behind = (in_slot + submission.metadata.len() as u64).next_multiple_of(PAYLOAD_ALIGN_BYTES);
        let (metadata_offset, payload_offset) = match submission.payload {
            Payload::Bytes(bytes) if behind + bytes.len() as u64 <= end => (in_slot, behind),
            _ => (lane, lane + METADATA_BYTES),
        };
        if payload_offset == lane + METADATA_BYTES {
            self.request_written(submission.lane, submission.payload.bytes());
        }
        // SAFETY: the slot is reserved and the lane idle, so the sandbox was given neither; `&mut self` is the
        // worker's only writer.
        unsafe {
            self.down.write(metadata_offset, submission.metadata);
            if let Payload::Bytes(bytes) = submission.payload {
                self.down.write(payload_offset, bytes);
            }
        }
        (metadata_offset, payload_offset)
    }

    fn publish(&mut self, slot: u32, descriptor: &SubmissionDescriptor) {
        let start = self.geometry.submission_slot(slot);
        let [body @ .., _] = descriptor.to_words();
        // SAFETY: the slot is reserved, so the sandbox was not given it; `&mut self` is the worker's only writer.
        unsafe { self.down.write_words(start, body) };
        let sequence = self.down.sequence(start + SEQUENCE_OFFSET);
        self.submissions.publish(self.down.word(SUBMISSION_TAIL_OFFSET), sequence);
    }
}
