//! What every mechanism must do, run against each that this machine has.
//!
//! A mechanism that is not here is printed as skipped, with the reason.

mod bombs;
mod confinement;
mod contract;
mod endings;
mod escape;
mod frozen;
mod groups;
#[path = "../isolation/internet.rs"]
mod internet;
mod leaks;
mod limits;
mod neighbour;
#[path = "../sandboxes/mod.rs"]
mod sandboxes;
mod support;
mod sweeping;
