//! What the worker gives a sandbox, and why it may not.

use crate::claim::Poison;
use crate::layout::METADATA_BYTES;
use thiserror::Error;

/// One invocation for a sandbox.
#[derive(Clone, Copy, Debug)]
pub struct Submission<'a> {
    /// The worker's id of it; the claim that answers it must name it.
    pub invocation: u64,
    /// An idle lane.
    pub lane: u16,
    /// When the worker gives it up, on `CLOCK_MONOTONIC`.
    pub deadline_ns: u64,
    /// An encoded [`crate::metadata::RequestMetadata`].
    pub metadata: &'a [u8],
    /// The request's bytes.
    pub payload: Payload<'a>,
}

/// Where a request's bytes are.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// Elsewhere: they are copied.
    Bytes(&'a [u8]),
    /// In the lane already, from the start of its [`super::Host::request_window`].
    InLane {
        /// How many.
        bytes: u64,
    },
}

impl Payload<'_> {
    /// How many bytes there are.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Payload::Bytes(bytes) => bytes.len() as u64,
            Payload::InLane { bytes } => *bytes,
        }
    }
}

/// Why a submission was refused. Nothing was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SubmitError {
    /// The sandbox has no such lane.
    #[error("lane {lane} asked for in a sandbox of {lanes}")]
    NoSuchLane {
        /// What was asked for.
        lane: u16,
        /// What there is.
        lanes: u32,
    },
    /// The lane carries an invocation.
    #[error("lane {0} is busy; wait for its claim")]
    LaneBusy(u16),
    /// The invocation does not run on the lane.
    #[error("invocation {invocation:#x} does not run on lane {lane}; nothing to cancel")]
    NotRunning {
        /// What was asked for.
        invocation: u64,
        /// Where.
        lane: u16,
    },
    /// The payload is larger than the lane.
    #[error("a payload of {bytes} bytes for a lane of {limit}; refuse such requests before they are queued")]
    PayloadTooLarge {
        /// What was asked for.
        bytes: u64,
        /// What fits.
        limit: u64,
    },
    /// The metadata is larger than the bytes reserved for it.
    #[error("{0} bytes of metadata; it is limited to {METADATA_BYTES}")]
    MetadataTooLong(usize),
    /// The sandbox was told to stop.
    #[error("the sandbox is stopping; start another")]
    Stopping,
    /// The runtime does not take what it is given; no correct one lets its ring fill up.
    #[error("the submission ring is full: the runtime takes nothing; kill the sandbox")]
    Full,
    /// The sandbox is not to be believed any more.
    #[error("{0}; kill the sandbox")]
    Poisoned(#[from] Poison),
}
