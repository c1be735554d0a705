//! The worker process: shards on their cores, the mesh between them, and the threads off the path.
//!
//! Owns: threads, sockets, sandboxes' lives, the catalogue of functions. Invariant: what to do next is decided by
//! `vilya_engine`; this package does it. It is the only one that knows all the others.

mod ahead;
mod arena;
pub mod config;
mod control;
pub mod descriptors;
pub mod doctor;
mod egress;
mod freezer;
mod imports;
mod load;
mod loading;
pub mod manifest;
mod mechanisms;
mod mesh;
mod metrics;
mod network;
mod node;
mod part;
mod pool;
mod process;
mod python;
mod rehearsal;
mod remaking;
mod request;
mod response;
mod ring;
mod route;
mod runtimes;
mod shard;
mod slots;
mod starter;
pub mod storage;
mod waiting;
mod zygotes;

pub use egress::EgressSettings;
pub use mechanisms::MechanismKind;
pub use network::{Network, NetworkSettings};
pub use process::{Running, StartError, Worker};
