//! What outlives the process: deployed functions and their logs, all under one state directory.
//!
//! ```text
//! registry.redb              names to records, and the worker's id
//! bundles/<name>.<version>/  unpacked code, never changed once it has this name
//! bundles/.incoming-<n>/     a deployment under way, or what a crash left of one
//! images/<identity>/         images: hard links to the files of their layers, never changed once they have this name
//! images/.incoming-<n>/      one that is being pulled or unpacked, or what a crash left of it
//! layers/<name>/             layers, never changed once they have this name
//! gone/<n>/                  what nobody refers to, being removed
//! logs/<name>.log[.1]        output of the functions
//! ```
//!
//! Invariant: a deployment that was acknowledged is durable, and a bundle that a record names is complete. The
//! registry's lock makes one worker the owner of the whole directory. Nothing here runs on a shard: every call may block.

pub mod catalog;
mod disposal;
pub mod images;
mod inspection;
pub mod log_writer;
pub mod logs;
pub mod registry;
mod timestamp;
pub mod unpacking;

pub use catalog::{Asked, Catalog, CatalogError, CatalogLimits, Deployed, Fault, Fetched, Opened, Prepared, Wanted};
pub use images::ImageRecord;
pub use log_writer::{LogControl, LogSender, LogWriter, Output};
pub use logs::{LogEntry, LogFiles};
pub use registry::{FunctionRecord, Registry, RegistryError};
pub use timestamp::timestamp;
pub use unpacking::UnpackError;

use std::io;
use std::path::Path;

/// Whether the disk, or the user's part of it, is full.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Makes the names in a directory durable.
fn sync_directory(path: &Path) -> io::Result<()> {
    std::fs::File::open(path)?.sync_all()
}

/// Makes a directory with exactly these permissions, whatever the process's mask; one that exists is left as it is.
fn ensure_directory(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if path.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

/// Bytes as hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)]))
        .collect()
}
