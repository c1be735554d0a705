//! What a shard holds now and has done so far.
//!
//! Invariant: the gauges are the engine's own books, not a copy of them: limits are checked against these very
//! numbers. Counters only grow. Does not know how they are published.

use crate::effect::{KillReason, Outcome, Refusal};
use crate::units::Bytes;

/// Gauges and counters of one shard.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Functions known, the ones being retired included.
    pub functions: u32,
    /// Invocations waiting.
    pub queued: u32,
    /// Lanes in which something runs, the ones whose invocation is already answered included.
    pub running: u32,
    /// Lanes lent for a payload that is still arriving.
    pub reserved: u32,
    /// Lanes lent while an answer is being sent.
    pub held: u32,
    /// Sandboxes alive, from the decision to start until death.
    pub sandboxes: u32,
    /// Sandboxes starting.
    pub starting: u32,
    /// Sandboxes ready with every lane free, the frozen included.
    pub idle: u32,
    /// Idle sandboxes that are frozen.
    pub frozen: u32,
    /// Sandboxes being thawed.
    pub thawing: u32,
    /// Sandboxes told to die, or dead with answers still to give.
    pub dying: u32,
    /// Memory of the sandboxes alive.
    pub memory: Bytes,
    /// The part of `memory` that is idle.
    pub idle_memory: Bytes,
    /// Idle sandboxes that are within their function's warm target.
    pub kept: u32,
    /// The part of `idle_memory` that they have.
    pub kept_memory: Bytes,
    /// Sandboxes that functions lack of their warm targets.
    pub warm_missing: u32,
    /// The part of `memory` that is dying.
    pub dying_memory: Bytes,
    /// Layers that have their place, those being dropped included.
    pub layers: u32,
    /// Memory of those layers, which is not in `memory`.
    pub layer_memory: Bytes,
    /// The part of `layer_memory` that nothing is in the way of dropping but idle and dying sandboxes.
    pub loose_layer_memory: Bytes,
    /// The part of `layer_memory` that idle sandboxes within their function's warm target are in the way of dropping.
    pub kept_layer_memory: Bytes,
    /// The part of `layer_memory` that is being dropped.
    pub dropping_memory: Bytes,

    /// Arrivals and reservations, admitted or not. One withdrawn comes again, and is counted again.
    pub arrived: u64,
    /// Invocations admitted.
    pub admitted: u64,
    /// Reservations that ended unanswered, to come again.
    pub withdrawn: u64,
    /// Lent lanes asked for.
    pub reclaimed: u64,
    /// Dispatches of kind cold.
    pub dispatched_cold: u64,
    /// Dispatches of kind warm.
    pub dispatched_warm: u64,
    /// Sandboxes asked to be started.
    pub started: u64,
    /// Sandboxes that became ready.
    pub ready: u64,
    /// Sandboxes that were started from their function's layer.
    pub started_from_layer: u64,
    /// Layers that were given a place.
    pub layers_kept: u64,
    /// Layers that had none, or had to leave it for want of room.
    pub layers_evicted: u64,
    /// Layers that were idle for as long as the keep-alive policy allows.
    pub layers_expired: u64,
    /// Sandboxes advised to give memory back.
    pub trimmed: u64,
    /// Sandboxes asked to be frozen.
    pub froze: u64,
    /// Sandboxes that could not be.
    pub not_frozen: u64,
    /// Sandboxes asked to be thawed.
    pub thawed: u64,
    /// Sandboxes that were to give way to others.
    pub demoted: u64,
    /// Starts that failed, died or took too long.
    pub start_failures: u64,
    /// Sandboxes gone, for whatever reason.
    pub ended: u64,
    /// Events that named nothing the engine holds, or what it knew already.
    pub stale_events: u64,
    refused: [u64; Refusal::ALL.len()],
    answered: [u64; Outcome::ALL.len()],
    killed: [u64; KillReason::ALL.len()],
}

impl Stats {
    /// Arrivals refused for `reason`.
    pub fn refused(&self, reason: Refusal) -> u64 {
        self.refused[reason as usize]
    }

    /// Invocations answered with `outcome`.
    pub fn answered(&self, outcome: Outcome) -> u64 {
        self.answered[outcome as usize]
    }

    /// Sandboxes told to die for `reason`.
    pub fn killed(&self, reason: KillReason) -> u64 {
        self.killed[reason as usize]
    }

    pub(crate) fn count_refused(&mut self, reason: Refusal) {
        self.refused[reason as usize] += 1;
    }

    pub(crate) fn count_answered(&mut self, outcome: Outcome) {
        self.answered[outcome as usize] += 1;
    }

    pub(crate) fn count_killed(&mut self, reason: KillReason) {
        self.killed[reason as usize] += 1;
    }
}
