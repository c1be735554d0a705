//! The system call filter: the policy compiled once a process and shared by every sandbox.
//!
//! Owns: what each number gets. Invariant: a call that the policy names is judged by its rule; what [`policy::unimplemented`] names answers
//! ENOSYS; everything else is refused with EPERM. Calls of any other architecture end the process. Does not know: who installs it, or when.

mod allowed;
mod compile;
mod policy;
mod profile;
mod rules;
mod unpacking;

use std::collections::BTreeMap;
use std::sync::OnceLock;

pub use allowed::{AllowedCall, allowed_calls};
use compile::{Span, Verdict};
use policy::{ROWS, Row};
pub(crate) use profile::profile;
use rules::Rule;

/// The compiled program.
#[derive(Debug)]
pub struct Filter {
    program: Vec<libc::sock_filter>,
}

/// The policy could not be compiled: an architecture without a table, or a defect in the policy.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the system call filter does not compile: {0}; this build cannot isolate anything, report it")]
pub struct FilterError(&'static str);

/// `AUDIT_ARCH_*` of this build, from `linux/audit.h`.
const ARCHITECTURE: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(0xc000_003e)
} else if cfg!(target_arch = "aarch64") {
    Some(0xc000_00b7)
} else {
    None
};

impl Filter {
    /// The filter of this process, compiled on the first call.
    ///
    /// # Errors
    /// When the policy does not compile for this architecture.
    pub fn shared() -> Result<&'static Filter, FilterError> {
        static SHARED: OnceLock<Result<Filter, FilterError>> = OnceLock::new();
        SHARED.get_or_init(|| Filter::compile(ROWS)).as_ref().map_err(Clone::clone)
    }

    /// The filter of what unpacks hostile archives, which makes files and little else.
    pub(crate) fn unpacking() -> Result<&'static Filter, FilterError> {
        static UNPACKING: OnceLock<Result<Filter, FilterError>> = OnceLock::new();
        UNPACKING.get_or_init(|| Filter::compile(unpacking::ROWS)).as_ref().map_err(Clone::clone)
    }

    /// The program, for `seccomp(2)`.
    #[must_use]
    pub fn program(&self) -> &[libc::sock_filter] {
        &self.program
    }

    fn compile(rows: &[&[Row]]) -> Result<Filter, FilterError> {
        let architecture = ARCHITECTURE.ok_or(FilterError("there is no table for this architecture"))?;
        let program = compile::program(architecture, &spans(rows));
        if program.len() > libc::BPF_MAXINSNS as usize {
            return Err(FilterError("it is longer than the kernel takes"));
        }
        Ok(Filter { program })
    }
}

/// What each number gets, as spans of neighbours that get the same.
fn spans(rows: &[&[Row]]) -> Vec<Span> {
    let mut verdicts: BTreeMap<u32, Verdict> =
        policy::unimplemented().map(|number| (number as u32, Verdict::Absent)).collect();
    verdicts.extend(rows.iter().copied().flatten().map(|row| (row.number as u32, Verdict::Judge(row.rule))));
    let mut spans = vec![Span { first: 0, verdict: Verdict::Refuse }];
    for (number, verdict) in verdicts {
        // What lies between this number and the one before is refused; after this one, too, until the next says otherwise.
        while spans.last().is_some_and(|span| span.first >= number) {
            spans.pop();
        }
        spans.push(Span { first: number, verdict });
        spans.push(Span { first: number + 1, verdict: Verdict::Refuse });
    }
    spans.dedup_by(|later, earlier| alike(later.verdict, earlier.verdict));
    spans
}

/// Whether two verdicts need no instruction between them.
fn alike(one: Verdict, other: Verdict) -> bool {
    matches!(
        (one, other),
        (Verdict::Refuse, Verdict::Refuse)
            | (Verdict::Absent, Verdict::Absent)
            | (Verdict::Judge(Rule::Always), Verdict::Judge(Rule::Always))
    )
}

#[cfg(test)]
mod tests;
