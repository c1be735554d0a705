//! The allow-list as others see it.
//!
//! Owns: the public view of a row. Invariant: it is read from the rows that the program is compiled from. Does not know: programs.

use super::policy::{ROWS, Row};
use super::rules::{Case, Rule};

/// A system call that a sandbox may make.
#[derive(Clone, Copy, Debug)]
pub struct AllowedCall(&'static Row);

/// The allow-list.
pub fn allowed_calls() -> impl Iterator<Item = AllowedCall> {
    ROWS.iter().copied().flatten().map(AllowedCall)
}

impl AllowedCall {
    /// The kernel's name for it, as a constant of libc: `SYS_read`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Its number on this architecture.
    #[must_use]
    pub fn number(self) -> libc::c_long {
        self.0.number
    }

    /// Why a function needs it, or why it is harmless.
    #[must_use]
    pub fn reason(self) -> &'static str {
        self.0.reason
    }

    /// On how many conditions on its arguments it is judged; 0 for a call that is always allowed.
    #[must_use]
    pub fn conditions(self) -> usize {
        self.cases().len()
    }

    /// Whether one of these conditions holds for these arguments.
    ///
    /// # Panics
    /// When there is no such condition.
    #[must_use]
    pub fn holds(self, condition: usize, arguments: &[u64; 6]) -> bool {
        self.cases()[condition].iter().all(|argument| argument.holds(arguments))
    }

    /// Whether it may be made with these arguments.
    #[must_use]
    pub fn allows(self, arguments: &[u64; 6]) -> bool {
        self.0.rule.allows(arguments)
    }

    fn cases(self) -> &'static [Case] {
        match self.0.rule {
            Rule::Always => &[],
            Rule::Only(cases) | Rule::Except(cases) => cases,
        }
    }
}
