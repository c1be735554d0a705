//! One request of a connection of the binary protocol, from its head to the end of its answer.
//!
//! Invariant: a stream is in its connection's table until its answer is sent whole and its client has sent all that it
//! will; the credit granted is never exceeded, either way. It performs no input or output.

use crate::arena::LaneBytes;
use crate::part::Awaited;
use crate::request::{RequestId, RequestText};
use crate::route::CurrentRoute;
use crate::slots::Key;

/// Where a request stands.
#[derive(Debug)]
pub(in crate::shard) enum Phase {
    /// Its payload is coming in.
    Receiving(Incoming),
    /// A shard has it.
    Serving { owner: usize },
    /// It is answered.
    Answered,
}

/// A payload on its way.
#[derive(Debug)]
pub(in crate::shard) struct Incoming {
    /// Where it goes when it is whole: the version that is deployed by then.
    pub(super) route: CurrentRoute,
    pub(super) request_id: RequestId,
    pub(super) received_unix_ms: u64,
    pub(super) text: RequestText,
    /// The lane that it goes to.
    pub(super) upload: Option<Key>,
    /// A lane has been asked for, and there is no word yet.
    pub(super) asks: bool,
}

/// The part of an answer that has not been put into frames.
#[derive(Debug)]
pub(super) enum Rest {
    Bytes { bytes: Vec<u8>, at: usize },
    Lane(LaneBytes),
}

impl Rest {
    pub(super) fn len(&self) -> usize {
        match self {
            Rest::Bytes { bytes, at } => bytes.len() - at,
            Rest::Lane(lane) => lane.slice.len(),
        }
    }
}

/// See the module's description.
#[derive(Debug)]
pub(in crate::shard) struct Stream {
    pub(super) serial: u32,
    pub(super) phase: Phase,
    pub(super) total_bytes: u64,
    pub(super) received_bytes: u64,
    pub(super) granted_bytes: u64,
    /// What it holds of the shard's body budget.
    pub(super) charged_bytes: u64,
    /// The client has sent END or CANCEL.
    pub(super) is_sent: bool,
    /// When the client stops waiting for an answer, or for the end of one in parts. `u64::MAX`: never.
    pub(super) deadline_ns: u64,
    /// Bytes of the answer that the client takes.
    pub(super) credit_bytes: u64,
    /// When it must have taken more, of an answer that waits for it. `u64::MAX`: it does not.
    pub(super) credit_by_ns: u64,
    /// Its answer comes in parts, and has begun.
    pub(super) begun: bool,
    pub(super) rest: Option<Rest>,
    /// Who waits for the rest to be in frames, of an answer in parts that goes on. A block for each part that must wait, so that
    /// the streams of other answers are no larger for it.
    pub(super) part: Option<Box<Awaited>>,
}

impl Stream {
    /// Counts payload that a frame announces. What is wrong with it, if anything is.
    pub(super) fn announce(&mut self, bytes: u64, end: bool) -> Result<(), &'static str> {
        if self.is_sent {
            return Err("DATA comes after the END of its request");
        }
        let received = self.received_bytes.saturating_add(bytes);
        if received > self.total_bytes || (received == self.total_bytes) != end {
            return Err("the payload of a request does not have the size that REQUEST announced");
        }
        if received > self.granted_bytes {
            return Err("more payload was sent than CREDIT was granted for");
        }
        self.received_bytes = received;
        self.is_sent = end;
        Ok(())
    }

    pub(super) fn incoming(&mut self) -> Option<&mut Incoming> {
        match &mut self.phase {
            Phase::Receiving(incoming) => Some(incoming),
            _ => None,
        }
    }

    /// Nothing more comes of it, either way.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Answered) && self.rest.is_none() && self.is_sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(total_bytes: u64, granted_bytes: u64) -> Stream {
        Stream {
            serial: 1,
            phase: Phase::Answered,
            total_bytes,
            received_bytes: 0,
            granted_bytes,
            charged_bytes: 0,
            is_sent: false,
            deadline_ns: u64::MAX,
            credit_bytes: 0,
            credit_by_ns: u64::MAX,
            begun: false,
            rest: None,
            part: None,
        }
    }

    #[test]
    fn a_payload_has_the_size_it_announced_and_stays_within_its_credit() {
        let mut exact = stream(10, 10);
        assert_eq!(exact.announce(4, false), Ok(()));
        assert!(exact.announce(6, false).is_err(), "the end is not said");
        assert!(exact.announce(5, true).is_err(), "the end is said too early");
        assert!(exact.announce(7, true).is_err());
        assert!(exact.announce(u64::MAX, true).is_err());
        assert_eq!(exact.announce(6, true), Ok(()));
        assert!(exact.announce(0, true).is_err(), "it has ended");
        assert!(exact.is_over());
        let mut poor = stream(10, 5);
        assert!(poor.announce(6, false).unwrap_err().contains("CREDIT"));
    }
}
