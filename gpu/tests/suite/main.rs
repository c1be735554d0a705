//! The GPU core from outside: the scheduler against hand-made events, and against the simulated device.

mod comparison;
mod conformance;
mod fairness;
mod load;
mod memory;
mod world;
