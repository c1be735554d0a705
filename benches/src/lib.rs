//! What the measuring programs share: samples and figures, floors, a worker under test and its clients.
//!
//! Invariant: a figure is a median over interleaved rounds with its spread, and a comparison is a ratio of two figures
//! of the same run. The client runs on the first core, what is measured on the second, so that every ratio has the
//! client on both sides.

pub mod bundle;
pub mod client;
#[path = "../compare/mod.rs"]
pub mod compare;
pub mod echo;
pub mod exchange;
pub mod executable;
pub mod figures;
pub mod generator;
pub mod http;
pub mod machine;
pub mod mesh;
pub mod options;
pub mod park;
pub mod peer;
pub mod pipeline;
pub mod process;
pub mod report;
pub mod role;
pub mod sample;
pub mod stall;
pub mod syscalls;
pub mod testbed;
pub mod wire;

/// What ends a measuring program; its text says what could not be done.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Where the client runs.
pub const CLIENT_CORE: usize = 0;
/// Where what is measured runs: a floor's server, or a shard with its sandboxes.
pub const SERVER_CORE: usize = 1;
