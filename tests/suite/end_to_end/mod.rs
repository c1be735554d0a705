//! A real worker process, driven over its sockets as its users drive it.

mod administration;
mod adversarial;
mod between;
mod bounds;
mod client;
mod descriptors;
mod doctor;
mod egress;
mod frozen;
mod functions;
mod hostile_clients;
mod images;
mod inside;
#[path = "../../../isolate/tests/isolation/internet.rs"]
mod internet;
mod lifecycle;
mod links;
mod mechanisms;
mod misbehaviour;
mod network;
mod node;
mod payloads;
mod precedence;
mod pulls;
mod readme;
mod runtimes;
mod shards;
mod survival;
mod system_calls;
mod trimming;
mod unpacking;
mod wire;
mod wire_client;
mod wire_limits;
mod worker;
mod zygotes;
