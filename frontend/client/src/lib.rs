//! A client of Vilya's binary protocol: blocking, on the standard library alone.
//!
//! | what | for |
//! |---|---|
//! | [`Client`] | one invocation at a time, each sent to a shard that owns its function |
//! | [`Connection`] | many requests at once on one connection, answers in any order |
//! | [`Session`] | the same without a socket, for an event loop of the caller's own |
//! | [`Parts`] | an answer as it comes, of any size |
//!
//! ```no_run
//! # fn main() -> Result<(), vilya_client::Error> {
//! let mut client = vilya_client::Client::connect("127.0.0.1:7879")?;
//! let answer = client.invoke("hello", b"{\"name\": \"you\"}")?;
//! println!("{} {}", answer.status, String::from_utf8_lossy(&answer.body));
//! # Ok(())
//! # }
//! ```
//!
//! A function may answer in parts. [`Client::invoke`] puts them together; as they come they are taken so:
//!
//! ```no_run
//! # fn main() -> Result<(), vilya_client::Error> {
//! # let mut client = vilya_client::Client::connect("127.0.0.1:7879")?;
//! let request = vilya_client::Request::new("ticks", b"{\"count\": 3}");
//! let mut parts = client.invoke_for_parts(&request)?;
//! // An error here says that what came is not whole.
//! while let Some(bytes) = parts.next()? {
//!     print!("{}", String::from_utf8_lossy(bytes));
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Invariant: what a server says is a claim. It cannot make a client keep more than its [`Options`] allow, and what breaks
//! the protocol ends the connection with an error. A request is sent once: nothing here sends one again by itself.
//!
//! Does not know: how functions are deployed, which is HTTP's.

mod client;
mod connection;
mod error;
mod event;
mod exchange;
mod map;
mod options;
mod request;
mod session;

#[cfg(feature = "peer")]
pub mod peer;

pub use client::{Builder, Client};
pub use connection::{Connection, Parts};
pub use error::Error;
pub use event::Event;
pub use map::FunctionMap;
pub use options::Options;
pub use request::{Answer, Request};
pub use session::{Session, Started};
pub use vilya_protocol::wire::{Report, ResponseHead, Start, Welcome, WireError};
