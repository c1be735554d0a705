//! A real worker process, driven over its sockets as its users drive it.

mod administration;
mod adversarial;
mod bounds;
mod client;
mod frozen;
mod functions;
mod hostile_clients;
mod images;
mod inside;
mod lifecycle;
mod links;
mod mechanisms;
mod misbehaviour;
mod node;
mod payloads;
mod readme;
mod runtimes;
mod shards;
mod survival;
mod system_calls;
mod trimming;
mod wire;
mod wire_client;
mod wire_limits;
mod worker;
mod zygotes;
