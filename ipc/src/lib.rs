//! The ABI that both sides of a sandbox's boundary compile: two shared-memory regions, a ring in each, and the
//! doorbells that let either side sleep.
//!
//! Invariant: each side writes only its own region, and the kernel enforces it. Whatever the worker reads from the up
//! region is a *claim* until checked, and the worker never forms a reference to memory that a sandbox can write.
//! This crate knows no functions, no queues, no sandboxes' lives and no I/O beyond the doorbells.
//!
//! - [`layout`]: where every byte lies, for every runtime. [`metadata`]: what travels beside a payload.
//! - [`ring`], [`doorbell`]: index arithmetic and the sleep/wake protocol, over atomics alone; modelled in loom.
//! - [`spin`]: how long either side waits awake before it sleeps. Pure.
//! - [`claim`]: what the worker believes of what a sandbox wrote. Pure.
//! - [`host`]: the worker's side. [`guest`]: the sandbox's side.

pub mod claim;
pub mod doorbell;
pub mod layout;
pub mod metadata;
pub mod ring;
pub mod spin;
mod sync;

// The models swap the atomics for loom's, which cannot live in mapped memory.
#[cfg(not(loom))]
pub mod guest;
#[cfg(not(loom))]
pub mod host;
#[cfg(not(loom))]
mod region;

#[cfg(all(not(loom), any(test, fuzzing, feature = "fuzzing")))]
mod hostile;
#[cfg(all(not(loom), any(test, fuzzing, feature = "fuzzing")))]
pub use hostile::fuzz_claims;
