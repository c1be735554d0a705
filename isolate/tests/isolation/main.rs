//! Sandboxes on this host: what they see, what they are refused, how they end, and what they leave.
//!
//! Runs as root and as an ordinary user; what this host cannot enforce is printed, and the tests then demand what takes its place.

mod calls;
mod death;
mod descriptors;
mod egress;
mod failures;
mod frozen;
mod hostile;
mod inside;
mod internet;
mod landlock;
mod leaks;
mod limits;
mod links;
mod loaded;
mod owners;
mod plans;
mod precedence;
mod prepared;
mod prepared_images;
mod processor;
mod programs;
mod reach;
mod regions;
#[path = "../sandboxes/mod.rs"]
mod sandboxes;
mod support;
mod sweeping;
mod unpacking;
mod wards;
