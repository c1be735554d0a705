//! The integration suite: one binary, a module a concern.

mod end_to_end;
mod simulation;
mod tidy;
