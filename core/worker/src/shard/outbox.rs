//! What a connection still has to send, and the one send under way.
//!
//! Invariant: bytes leave in the order they were put in. A lane that is sent from stays taken until its bytes are sent or
//! copied out. It knows no protocol.

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::Arc;

use vilya_reactor::{Op, OpId, Outcome, Reactor, SendData};

use super::connection::BodyBudget;
use crate::arena::{Hold, LaneBytes, Lent};
use crate::pool::Pool;

/// A body up to this size rides in the same send as its head.
pub(super) const JOINED_BYTES: usize = 16 * 1024;

/// Of an answer in a lane so much is sent at once, so that a slow client shows progress.
const LANE_SEND_BYTES: usize = 1024 * 1024;

/// Bytes to be sent.
#[derive(Debug)]
enum Piece {
    /// And what they hold of the shard's body budget until they are.
    Bytes { bytes: Vec<u8>, charged_bytes: u64 },
    /// From the lane they were written in.
    Lane(LaneBytes),
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Piece::Bytes { bytes, .. } => bytes.len(),
            Piece::Lane(lane) => lane.slice.len(),
        }
    }
}

/// A copy of a lane's bytes, if the budget has room for it.
fn copied(lane: &LaneBytes, budget: &mut BodyBudget) -> Option<Piece> {
    let charged_bytes = lane.slice.len() as u64;
    budget.take(charged_bytes).then(|| Piece::Bytes { bytes: lane.copy(), charged_bytes })
}

/// The send under way.
#[derive(Debug)]
struct Flight {
    op: OpId,
    bytes: usize,
    charged_bytes: u64,
    lane: Option<LaneBytes>,
    by_ns: u64,
    is_quiet: bool,
}

/// The ring takes no send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RingFull;

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    queue: VecDeque<Piece>,
    /// Bytes of the pieces before the last, which is the one that may grow: a client that makes many small ones is not to
    /// have them counted again for each of its frames.
    settled_bytes: usize,
    flight: Option<Flight>,
}

impl Outbox {
    /// The buffer at the end, for heads and small bodies: several small answers leave in one send.
    pub(super) fn text(&mut self, pool: &mut Pool) -> &mut Vec<u8> {
        let joins = match self.queue.back() {
            Some(Piece::Bytes { bytes, charged_bytes: 0 }) => bytes.len() < JOINED_BYTES,
            _ => false,
        };
        if !joins {
            self.append(Piece::Bytes { bytes: pool.take(), charged_bytes: 0 });
        }
        match self.queue.back_mut() {
            Some(Piece::Bytes { bytes, .. }) => bytes,
            _ => unreachable!("a piece of bytes is at the end"),
        }
    }

    /// A large body, and what it holds of the budget.
    pub(super) fn push(&mut self, bytes: Vec<u8>, charged_bytes: u64) {
        self.append(Piece::Bytes { bytes, charged_bytes });
    }

    /// An answer that is sent from its lane, or a part of one.
    pub(super) fn push_lane(&mut self, bytes: LaneBytes) {
        self.append(Piece::Lane(bytes));
    }

    /// Bytes that the client has not taken yet.
    pub(super) fn unsent_bytes(&self) -> usize {
        let queued = self.settled_bytes + self.queue.back().map_or(0, Piece::len);
        queued + self.flight.as_ref().map_or(0, |flight| flight.bytes)
    }

    fn append(&mut self, piece: Piece) {
        self.settled_bytes += self.queue.back().map_or(0, Piece::len);
        self.queue.push_back(piece);
    }

    fn take_first(&mut self) -> Option<Piece> {
        let piece = self.queue.pop_front()?;
        // The last of all was not counted.
        if !self.queue.is_empty() {
            self.settled_bytes -= piece.len();
        }
        Some(piece)
    }

    /// Puts a piece before all others.
    fn put_first(&mut self, piece: Piece) {
        if !self.queue.is_empty() {
            self.settled_bytes += piece.len();
        }
        self.queue.push_front(piece);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.flight.is_none()
    }

    pub(super) fn is_sending(&self) -> bool {
        self.flight.is_some()
    }

    /// When the client must have taken what is being sent; `u64::MAX` when nothing is.
    pub(super) fn by_ns(&self) -> u64 {
        self.flight.as_ref().map_or(u64::MAX, |flight| flight.by_ns)
    }

    /// Whether something waits behind a send whose end wakes nobody: the shard must not sleep.
    pub(super) fn waits_behind_quiet(&self) -> bool {
        !self.queue.is_empty() && self.flight.as_ref().is_some_and(|flight| flight.is_quiet)
    }

    /// Begins to send the next piece if none is under way. The bytes that were begun. With `may_be_quiet` nothing hangs on
    /// when the send is over; then the last small piece is sent so that its end wakes nobody.
    ///
    /// # Errors
    /// The ring takes no send; the connection is to be closed.
    pub(super) fn start(
        &mut self,
        reactor: &mut Reactor,
        socket: RawFd,
        token: u64,
        by_ns: u64,
        may_be_quiet: bool,
    ) -> Result<usize, RingFull> {
        if self.flight.is_some() {
            return Ok(0);
        }
        let Some(mut piece) = self.take_first() else { return Ok(0) };
        if let Piece::Lane(lane) = &piece
            && lane.slice.len() > LANE_SEND_BYTES
        {
            // Each part has a deadline of its own.
            let rest = lane.part(LANE_SEND_BYTES, lane.slice.len());
            let first = lane.part(0, LANE_SEND_BYTES);
            self.put_first(Piece::Lane(rest));
            piece = Piece::Lane(first);
        }
        let bytes = piece.len();
        let (data, charged_bytes, lane) = match piece {
            Piece::Bytes { bytes, charged_bytes } => (SendData::Owned(bytes), charged_bytes, None),
            Piece::Lane(lane) => (SendData::Window(lane.slice.window()), 0, Some(lane)),
        };
        // A small answer is nearly always taken at once, and then the client is whom the shard waits for.
        let is_quiet = may_be_quiet && bytes <= JOINED_BYTES && lane.is_none() && self.queue.is_empty();
        let op = if is_quiet { Op::SendQuietly { socket, data } } else { Op::Send { socket, data } };
        match reactor.submit(token, op) {
            Ok(op) => self.flight = Some(Flight { op, bytes, charged_bytes, lane, by_ns, is_quiet }),
            Err(_) => {
                self.put_first(Piece::Bytes { bytes: Vec::new(), charged_bytes });
                return Err(RingFull);
            }
        }
        Ok(bytes)
    }

    /// The send under way has ended. Whether the connection goes on.
    pub(super) fn ended(&mut self, outcome: Outcome, budget: &mut BodyBudget, pool: &mut Pool) -> bool {
        let Some(Flight { charged_bytes, lane, .. }) = self.flight.take() else { return true };
        budget.give_back(charged_bytes);
        match (outcome, lane) {
            (Outcome::Sent(SendData::Owned(data)), _) => {
                pool.give(data);
                true
            }
            (Outcome::Sent(_), _) => true,
            // Interrupted because its lane is wanted: what is left is sent from a copy.
            (Outcome::Failed { errno: libc::ECANCELED, sent_bytes, .. }, Some(lane)) => {
                let piece = copied(&lane.part(sent_bytes, lane.slice.len()), budget);
                let has_room = piece.is_some();
                if let Some(piece) = piece {
                    self.put_first(piece);
                }
                has_room
            }
            _ => false,
        }
    }

    /// Somebody waits for a lane: its bytes are copied out. Those under way are interrupted, and copied in
    /// [`Outbox::ended`]. False: the budget has no room for them, and the connection is to be closed.
    #[must_use]
    pub(super) fn reclaim(&mut self, hold: Hold, reactor: &mut Reactor, budget: &mut BodyBudget) -> bool {
        let is_of = |lane: &LaneBytes| lane.lent.hold == hold;
        if let Some(flight) = self.flight.as_ref().filter(|flight| flight.lane.as_ref().is_some_and(is_of)) {
            reactor.interrupt(flight.op);
        }
        for piece in &mut self.queue {
            if let Piece::Lane(lane) = piece
                && is_of(lane)
            {
                match copied(lane, budget) {
                    Some(copy) => *piece = copy,
                    None => return false,
                }
            }
        }
        true
    }

    /// Forgets everything, for a connection that is closed. A send that reads a lane is interrupted and returned: the
    /// lane must stay taken until that has ended.
    pub(super) fn close(&mut self, reactor: &mut Reactor, budget: &mut BodyBudget) -> Option<(OpId, Arc<Lent>)> {
        self.settled_bytes = 0;
        for piece in self.queue.drain(..) {
            if let Piece::Bytes { charged_bytes, .. } = piece {
                budget.give_back(charged_bytes);
            }
        }
        let Flight { op, charged_bytes, lane, .. } = self.flight.take()?;
        budget.give_back(charged_bytes);
        let Some(lane) = lane else {
            reactor.abandon(op);
            return None;
        };
        reactor.interrupt(op);
        Some((op, lane.lent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unsent_is_known_without_counting() {
        let (mut outbox, mut pool) = (Outbox::default(), Pool::new());
        let counted = |outbox: &Outbox| outbox.queue.iter().map(Piece::len).sum::<usize>();
        let mut seed = 7_u32;
        for _ in 0..10_000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let bytes = seed as usize % 20_000;
            match seed >> 29 {
                0 | 1 => outbox.push(vec![0; bytes], bytes as u64),
                2..=4 => outbox.text(&mut pool).extend_from_slice(&vec![0; bytes]),
                5 => outbox.put_first(Piece::Bytes { bytes: vec![0; bytes], charged_bytes: 0 }),
                _ => drop(outbox.take_first()),
            }
            assert_eq!(outbox.unsent_bytes(), counted(&outbox));
        }
        while outbox.take_first().is_some() {
            assert_eq!(outbox.unsent_bytes(), counted(&outbox));
        }
        assert!(outbox.is_empty());
    }
}
