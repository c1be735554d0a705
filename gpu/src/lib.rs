//! The GPU core's decisions: whose turn it is on a device, and whose memory is there.
//!
//! Owns the queueing policies, the books of the device's memory and the scheduler over both. [`Scheduler::step`] takes
//! the time and one [`Event`] and answers with a bounded list of [`Effect`]s; a driver performs them on a
//! [`device::Device`] and reports back. [`device::simulated`] is a device with a cost model in virtual time.
//!
//! Invariant: every admitted invocation is answered exactly once, memory is never promised twice, and nothing runs
//! whose memory is not on the device.
//!
//! Does not know: clocks, threads, drivers, sandboxes, names of functions, payloads.
//!
//! ```
//! use vilya_engine::{Bytes, FunctionId, Nanos, Origin};
//! use vilya_gpu::*;
//!
//! let limits = Limits {
//!     functions: 8,
//!     queued: 64,
//!     queue_per_function: 16,
//!     running: 2,
//!     memory: Bytes::from_mebibytes(16 << 10),
//! };
//! let policy = Policy::MqfqSticky(StickySettings::default());
//! let mut scheduler = Scheduler::new(Config { limits, policy })?;
//! let mut effects = Effects::new();
//! let function = FunctionId { index: 0, generation: 0 };
//! let spec = FlowSpec { memory: Bytes::from_mebibytes(1 << 10), weight: 1 };
//! scheduler.step(Nanos::ZERO, Event::FunctionAdded { function, spec }, &mut effects);
//! scheduler.step(Nanos::ZERO, Event::Arrive { origin: Origin(7), function }, &mut effects);
//! // Its memory first; the run starts when that is on the device.
//! let Some(Effect::StartSwapIn { swap, .. }) = effects.drain().next() else { unreachable!() };
//! scheduler.step(Nanos::from_millis(20), Event::SwapDone { swap }, &mut effects);
//! assert!(matches!(effects.drain().next(), Some(Effect::StartRun { origin: Origin(7), .. })));
//! # Ok::<(), vilya_engine::LimitError>(())
//! ```

#![forbid(unsafe_code)]

pub mod device;
mod effect;
mod event;
mod flow;
mod ids;
pub mod ledger;
mod limits;
mod order;
mod policy;
mod scheduler;

pub use effect::{Effect, Effects};
pub use event::{Event, FlowSpec};
pub use flow::Standing;
pub use ids::{RunId, SwapId};
pub use ledger::Residency;
pub use limits::Limits;
pub use policy::{Departure, Policy, StickySettings};
pub use scheduler::{Config, FlowView, Scheduler};
