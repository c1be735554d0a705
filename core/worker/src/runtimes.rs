//! The folder of the runtimes' own files, which every sandbox is shown at `/vilya`.
//!
//! Invariant: a file that is the same is left alone, so that what was made from it stays valid. It does not know which
//! languages there are.

use std::io;
use std::path::{Path, PathBuf};

/// The folder below the state directory.
pub(crate) const RUNTIMES: &str = "runtimes";
/// Where it is inside.
pub(crate) const RUNTIMES_INSIDE: &str = "/vilya";

/// Writes a runtime's files, given as path and text, into its folder.
pub(crate) fn lay_out(folder: &Path, files: &[(&str, &str)]) -> io::Result<()> {
    files.iter().try_for_each(|(name, text)| put(&folder.join(name), text.as_bytes()))
}

/// Writes a file. A sandbox that is shown an earlier one keeps it.
pub(crate) fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if std::fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut incoming = path.as_os_str().to_owned();
    incoming.push(".incoming");
    let incoming = PathBuf::from(incoming);
    std::fs::write(&incoming, bytes)?;
    std::fs::rename(&incoming, path)
}
