//! Streams for tests of this and of other packages: valid ones, hostile ones, and what a decoder read in owned form.
//!
//! Does not know: how a test brings bytes to a server.

mod malformed;
mod reading;
mod valid;

pub use malformed::{Malformed, malformed_from_client, malformed_from_server};
pub use reading::{ClientEvent, Reading, ServerEvent, read_client, read_server};
pub use valid::{from_client, from_server, hello};
