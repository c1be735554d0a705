//! What this host can do for a worker of a configuration, what it cannot, and how to mend it.
//!
//! Invariant: facts are gathered by trying, as a start would (`facts`); what they mean is decided without looking (`findings`). Nothing is left
//! of a trial. It does not know how findings are shown.

mod facts;
mod findings;

use serde::Serialize;

use crate::config::Config;

/// How well something is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// A worker cannot serve without it.
    Missing,
    /// A worker serves, with less.
    Limited,
    /// As it should be.
    Ok,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How well it is served.
    pub status: Status,
    /// What it belongs to: `sandboxes`, `kernel`, `limits`, `neighbours`, `runtimes`, `mechanisms`, `idle`, `network`, `worker`.
    pub group: &'static str,
    /// What was looked at.
    pub name: String,
    /// What was found, and what it means.
    pub detail: String,
    /// What mends it; empty if nothing needs to be, or the detail says it.
    pub mend: String,
}

/// Everything that was found, in the order of the groups.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether a worker can serve.
    pub ready: bool,
    /// One of each thing that was looked at.
    pub findings: Vec<Finding>,
}

/// Looks at this host as a worker of this configuration would find it.
#[must_use]
pub fn examine(config: &Config) -> Report {
    let findings = findings::decide(&facts::gather(config));
    Report { ready: findings.iter().all(|finding| finding.status != Status::Missing), findings }
}
