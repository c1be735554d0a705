//! The pure state machine of one shard: which invocation runs where, and when.
//!
//! Owns every decision a shard makes: admission, queueing, which sandbox runs an invocation, when sandboxes are
//! started, kept and killed, and who is told what. [`Engine::step`] takes the time and one [`Event`] and answers with
//! a bounded list of [`Effect`]s; a *driver* (the worker's loop, or a simulator) performs them and reports back.
//!
//! Invariant: every admitted invocation is answered exactly once, unless its payload is given back to the driver before
//! anything of it has run, and no limit is ever exceeded, whatever the order
//! of events and whatever a sandbox claims.
//!
//! Does not know: clocks, threads, sockets, memory mappings, processes, names of functions, payloads. It has no
//! dependencies and no unsafe code, so nothing can reach it but its events.
//!
//! ```
//! use vilya_engine::*;
//!
//! let limits = Limits {
//!     functions: 8,
//!     invocations: 64,
//!     queue_per_function: 16,
//!     sandboxes: 4,
//!     sandboxes_per_function: 2,
//!     starting: 2,
//!     memory: Bytes::from_mebibytes(512),
//!     start_timeout: Nanos::from_secs(10),
//!     drain_timeout: Nanos::from_secs(30),
//! };
//! let mut engine = Engine::new(Config { limits, policies: Policies::default() })?;
//! let mut effects = Effects::new();
//! let function = FunctionId { index: 0, generation: 0 };
//! let spec = FunctionSpec { memory: Bytes::from_mebibytes(128), timeout: Nanos::from_secs(3), concurrency: 1, min_warm: 0, trim_after: None, freeze_after: None };
//! engine.step(Nanos::ZERO, Event::FunctionAdded { function, spec }, &mut effects);
//! engine.step(Nanos::ZERO, Event::Arrive { origin: Origin(7), function }, &mut effects);
//! let kinds: Vec<Effect> = effects.drain().collect();
//! assert!(matches!(kinds[..], [Effect::Enqueued { .. }, Effect::Start { .. }]));
//! # Ok::<(), LimitError>(())
//! ```

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod admit;
mod average;
mod complete;
mod dispatch;
mod drain;
mod effect;
mod effects;
mod engine;
mod event;
mod evict;
mod expire;
mod frost;
mod heap;
mod ids;
mod invariants;
mod invocation;
mod layers;
mod limits;
mod list;
mod loan;
pub mod policy;
mod provision;
mod quantum;
mod queue;
mod route;
mod sandboxes;
mod slab;
mod stats;
#[cfg(test)]
mod tests;
mod units;
mod warm;

pub use average::MovingAverage;
pub use effect::{Effect, Effects, KillReason, Outcome, Refusal, StartKind};
pub use effects::EffectBuffer;
pub use engine::{Config, Engine};
pub use event::{Event, FunctionSpec, RunResult};
pub use ids::{FunctionId, InvocationId, Origin, SandboxId};
pub use limits::{LimitError, Limits};
pub use policy::Policies;
pub use policy::balance::BalancePolicy;
pub use policy::concurrency::ConcurrencyPolicy;
pub use policy::keepalive::KeepAlivePolicy;
pub use policy::queue::QueuePolicy;
pub use policy::spread::{Owners, SpreadPolicy};
pub use stats::Stats;
pub use units::{Bytes, Nanos};
