//! The engine's own tests: what each event does, and that no order of events breaks it.

mod admission;
mod failures;
mod frost;
mod hostile;
mod layers;
mod leaving;
mod lending;
mod placement;
mod quantum;
pub(crate) mod shard;
mod warm;
