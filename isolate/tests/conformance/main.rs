//! What every mechanism must do, run against each that this machine has.
//!
//! A mechanism that is not here is printed as skipped, with the reason.

mod confinement;
mod contract;
mod endings;
mod leaks;
mod limits;
mod support;
mod sweeping;
