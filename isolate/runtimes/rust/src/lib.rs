//! The runtime of functions written in Rust.
//!
//! A function is a program whose `main` hands its handler to [`run`]. A Vilya worker starts the program inside a
//! sandbox; requests come over shared memory, and answers are written where the worker reads them.
//!
//! ```no_run
//! use vilya_runtime::{Request, Response, TooLarge};
//!
//! fn shout(request: &Request<'_>, response: &mut Response<'_>) -> Result<(), TooLarge> {
//!     let payload = request.payload();
//!     response.reserve(payload.len())?.copy_from_slice(payload);
//!     response.reserve(payload.len())?.make_ascii_uppercase();
//!     Ok(())
//! }
//!
//! fn main() {
//!     vilya_runtime::run(shout)
//! }
//! ```
//!
//! Invariant: every invocation that is taken is answered, whatever the handler does, unless the process dies. This
//! crate knows no sandboxes and no worker beyond `vilya-ipc`.

pub mod events;
mod failure;
mod request;
mod serve;

pub use failure::Failure;
pub use request::Request;
pub use vilya_ipc::guest::{HandshakeError, NotTaken, Response, TooLarge};
pub use vilya_ipc::metadata::EncodeError;

use std::fmt;
use std::time::Duration;
use vilya_ipc::guest::Guest;

/// The environment variable that caps, in microseconds, how long an idle runtime spins before it sleeps; 0 never
/// spins. Without it: 200 where there are more than two cores to use, 0 elsewhere.
pub const SPIN_VARIABLE: &str = "VILYA_SPIN_US";

/// The environment variable that tells a program to wait until it is copied: what [`run`] was called after, it need not do
/// again in the copies.
pub const ZYGOTE_VARIABLE: &str = "VILYA_ZYGOTE";

/// Why a runtime could not start.
#[derive(Debug)]
pub enum StartError {
    /// This process is not a sandbox of a worker that this runtime can serve.
    Handshake(HandshakeError),
    /// The value of [`SPIN_VARIABLE`] is not a number of microseconds.
    SpinCap(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Handshake(error) => error.fmt(f),
            StartError::SpinCap(value) => {
                write!(f, "{SPIN_VARIABLE} is {value:?}; set it to a number of microseconds, or unset it")
            }
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StartError::Handshake(error) => Some(error),
            StartError::SpinCap(_) => None,
        }
    }
}

/// Serves invocations until the worker says stop; then returns, so that `main` ends and the process exits with 0.
///
/// The handler is called once an invocation, from as many threads as the function's `concurrency`. Its error becomes
/// the invocation's failure, with the error's type and message; so does a panic (as type `Panic`), and the sandbox
/// lives on.
///
/// When the process cannot serve at all, this prints why and exits with 1; see [`try_run`].
pub fn run<F, E>(handler: F)
where
    F: Fn(&Request<'_>, &mut Response<'_>) -> Result<(), E> + Sync,
    E: fmt::Display,
{
    if let Err(error) = try_run(handler) {
        eprintln!("vilya-runtime: {error}");
        std::process::exit(1);
    }
}

/// [`run`], for programs that report for themselves why they cannot serve.
///
/// # Errors
/// The process is not a sandbox of a worker that this runtime can serve.
pub fn try_run<F, E>(handler: F) -> Result<(), StartError>
where
    F: Fn(&Request<'_>, &mut Response<'_>) -> Result<(), E> + Sync,
    E: fmt::Display,
{
    try_run_named(|request, response| handler(request, response).map_err(|error| Failure::of_error(&error)))
}

/// [`try_run`] for a handler that names the types of its errors itself, as runtimes of other languages do.
///
/// # Errors
/// The process is not a sandbox of a worker that this runtime can serve.
pub fn try_run_named<F>(handler: F) -> Result<(), StartError>
where
    F: Fn(&Request<'_>, &mut Response<'_>) -> Result<(), Failure> + Sync,
{
    let cap = spin_cap(std::env::var(SPIN_VARIABLE).ok())?;
    if std::env::var_os(ZYGOTE_VARIABLE).is_some() {
        vilya_ipc::guest::become_copy().map_err(StartError::Handshake)?;
    }
    serve::serve(join_with(cap)?, &handler);
    Ok(())
}

/// Joins the worker of this process.
fn join() -> Result<Guest, StartError> {
    join_with(spin_cap(std::env::var(SPIN_VARIABLE).ok())?)
}

fn join_with(spin_cap: Option<Duration>) -> Result<Guest, StartError> {
    let mut guest = Guest::from_standard_fds().map_err(StartError::Handshake)?;
    if let Some(cap) = spin_cap {
        guest.set_spin_cap(cap);
    }
    Ok(guest)
}

/// The spin cap asked for, if any.
fn spin_cap(value: Option<String>) -> Result<Option<Duration>, StartError> {
    let Some(value) = value else { return Ok(None) };
    match value.parse() {
        Ok(micros) => Ok(Some(Duration::from_micros(micros))),
        Err(_) => Err(StartError::SpinCap(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spin_cap_is_microseconds_or_an_error_that_says_so() {
        assert!(matches!(spin_cap(None), Ok(None)));
        assert!(matches!(spin_cap(Some("0".into())), Ok(Some(Duration::ZERO))));
        let error = spin_cap(Some("fast".into())).unwrap_err();
        assert!(error.to_string().contains("VILYA_SPIN_US is \"fast\""));
    }
}
