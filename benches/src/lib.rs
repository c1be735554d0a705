//! What the measuring programs share: samples and their summary.
//!
//! Invariant: a figure is a median over interleaved rounds with its spread, and a comparison is a ratio of two figures
//! of the same run. It knows nothing of what is measured.

pub mod peer;
pub mod sample;
