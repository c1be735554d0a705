//! What clients speak to Vilya: bytes in, requests out; responses in, bytes out.
//!
//! Owns the HTTP/1.1 syntax ([`http`]), the binary protocol's frames ([`wire`]), the map from method and path to an operation ([`route`]), the syntax of function
//! names ([`name`]) and the one table of errors that clients see ([`error`]).
//!
//! Invariant: everything here is sans-IO. No sockets, no clock, no threads; the caller brings bytes and takes bytes away.
//! Every buffer has a bound, and a request that two parsers could read differently is refused, never repaired.
//!
//! Does not know: functions that exist, sandboxes, shards, or how bytes travel.

pub mod error;
pub mod http;
pub mod name;
pub mod route;
pub mod wire;
