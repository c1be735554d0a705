//! The integration suite: one binary, a module a concern.

mod end_to_end;
mod homes;
mod simulation;
mod tidy;
