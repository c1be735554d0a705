//! Zygotes: a runtime that has done its imports, as an image that new sandboxes are made from.
//!
//! Owns: taking the image of a process and making a sandbox a copy of it. Invariant: the process that an image is taken from has no part in
//! making a copy. Its memory is data: it is read from outside, and mapped by our own code inside a sandbox that was confined before
//! (`stub`), with the function's own rights; whatever lies in it can do there what the function could do anyway. Does not know: when an
//! image is worth its memory, or which functions may use it.

#[cfg(target_arch = "x86_64")]
mod capture;
mod image;
pub(crate) mod maps;
#[cfg(target_arch = "x86_64")]
mod pages;
#[cfg(target_arch = "x86_64")]
mod script;
#[cfg(target_arch = "x86_64")]
mod touched;
#[cfg(target_arch = "x86_64")]
mod tracee;

use std::io;

#[cfg(target_arch = "x86_64")]
pub use capture::capture;
pub use image::Image;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// A copy would lack what this process has.
    #[error("it cannot be copied: {0}; its sandboxes are started whole")]
    Unfit(String),
    /// Its heap lies above that of waiting sandboxes, where chance put it: another process of the same program may do.
    #[error("its heap lies where a copy's cannot grow; another zygote is tried")]
    Misplaced,
    /// It could not be looked at.
    #[error("it cannot be looked at: {0}; its sandboxes are started whole")]
    Unseen(#[from] io::Error),
}

/// Takes no image: the code that restores one is written for x86-64.
///
/// # Errors
/// Always.
#[cfg(not(target_arch = "x86_64"))]
pub fn capture(_pid: i32, _working_directory: &str, _limit_bytes: u64) -> Result<Image, CaptureError> {
    Err(CaptureError::Unfit("images are not made on this kind of processor".into()))
}
