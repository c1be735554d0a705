//! What the operator asked for: files, environment and flags in; one checked [`Config`] out, or every problem at once.
//!
//! `sources` gathers the texts, `raw` turns them into keys and untyped values that remember where they were written,
//! `reader` gives them types, `rules`
//! names every setting with its default and range, `checked` is the result, `topology` places shards on cores,
//! `network` and `egress` read what functions may reach, `ahead` reckons what is kept back for what is made ahead,
//! `print` writes the effective configuration back. `units` is the only place that reads or writes sizes and durations.
//!
//! Invariant: a [`Config`] that exists is consistent: every value is in range and no two contradict each other.
//! It does not know what the values are used for: nothing here opens a socket or starts a thread.

mod ahead;
mod checked;
mod egress;
mod images;
mod network;
mod print;
mod raw;
mod reader;
mod rules;
mod sources;
mod topology;
pub mod units;

pub use checked::{
    ConcurrencyPolicy, Config, Cores, Interpreter, KeepAlivePolicy, Limits, NodeSettings, Policies, QueuePolicy,
    Runtimes, Sandbox, SandboxCores, Server, ShardLimits, Shards, Spin, SpreadPolicy,
};
pub use images::Images;
pub use raw::{Entry, Raw, Value};
pub use reader::{Reader, nearest};
pub(crate) use rules::core_ranges;
pub use rules::idle_step_ns;
pub use sources::{Host, Problem, Source, Sources};
pub use topology::{ShardPlacement, Topology, TopologyError, topology};
