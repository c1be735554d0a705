//! Requests meant to be misread, with what must happen to them; for tests here and against a live server.
//!
//! Owns four sources: [`MALFORMED`], a table written by hand; [`oversized`], requests just over given limits;
//! [`Mutations`], as many distinct broken requests as wanted from a seed; and [`VALID`], requests that look odd and must be
//! taken.
//!
//! Invariant: every request in the first three is refused with its status from the bytes given alone: no more bytes and no
//! end of the connection are needed, and nothing before the fault is a whole request. They address
//! `POST /fn/echo`, so a server that has that function meets the fault and not an unknown name.
//!
//! Does not know, but for [`read`]: the decoder. The statuses are those the specifications and the project's policy give.

mod generator;
mod malformed_body;
mod malformed_head;
mod reading;
mod valid;

pub use generator::{Generated, Mutations, oversized};
pub use reading::{Read, Reading, read};
pub use valid::{Expected, VALID, ValidCase};

/// A request that must be refused.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What is wrong with it; unique.
    pub name: &'static str,
    /// Status of the refusal under [`Limits::DEFAULT`](super::Limits::DEFAULT).
    pub status: u16,
    /// What to send.
    pub bytes: &'static [u8],
}

const fn case(name: &'static str, status: u16, bytes: &'static [u8]) -> Case {
    Case { name, status, bytes }
}

/// The tables of requests that must be refused: faults of the head, then faults of the body's framing.
pub const MALFORMED: [&[Case]; 2] = [malformed_head::CASES, malformed_body::CASES];

/// Every case of [`MALFORMED`].
pub fn malformed() -> impl Iterator<Item = &'static Case> {
    MALFORMED.into_iter().flatten()
}
