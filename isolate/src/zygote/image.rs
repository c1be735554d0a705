//! What copies are made from: a file of memory that nobody can change any more.
//!
//! Owns: writing it, and knowing when it no longer fits the host. Invariant: sealed before anybody else sees it; it holds a script and pages,
//! and names the files whose other pages belong to it. Does not know: whose memory it was.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::sys;

/// How long files that were found unchanged are taken to be so. An upgrade of the system's libraries takes longer.
const TRUSTED: Duration = Duration::from_secs(1);

/// An image.
#[derive(Debug)]
pub struct Image {
    memory: OwnedFd,
    address: u64,
    script_bytes: u64,
    bytes: u64,
    files: Vec<Identity>,
    checked: Mutex<Instant>,
}

/// A file of the host as it was when the image was taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    path: PathBuf,
    facts: (u64, u64, i64, i64, u64),
}

impl Identity {
    /// What a path of the host names, if it is there.
    pub(crate) fn of(path: &Path) -> Option<Identity> {
        let found = std::fs::metadata(path).ok()?;
        let facts = (found.dev(), found.ino(), found.mtime(), found.mtime_nsec(), found.size());
        Some(Identity { path: path.to_owned(), facts })
    }

    /// Whether both name one file, whatever its path.
    pub(crate) fn is_same_file(&self, other: &Identity) -> bool {
        self.facts == other.facts
    }

    fn is_unchanged(&self) -> bool {
        Identity::of(&self.path).as_ref() == Some(self)
    }
}

impl Image {
    /// Writes a script and lets `pages` write the pages behind it.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn write(
        script: &super::script::Script,
        files: Vec<Identity>,
        pages: impl FnOnce(&mut File) -> io::Result<u64>,
    ) -> io::Result<Image> {
        let mut memory = File::from(sys::memory_file(c"vilya-zygote")?);
        memory.write_all(&script.bytes)?;
        let script_bytes = script.bytes.len() as u64;
        let bytes = script_bytes + pages(&mut memory)?;
        sys::seal_contents(memory.as_raw_fd())?;
        let checked = Mutex::new(Instant::now());
        Ok(Image { memory: memory.into(), address: script.address, script_bytes, bytes, files, checked })
    }

    /// The memory that it takes, once for all of its copies.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the files that belong to it are still those of when it was taken.
    #[must_use]
    pub fn is_current(&self) -> bool {
        let mut checked = self.checked.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if checked.elapsed() > TRUSTED {
            if !self.files.iter().all(Identity::is_unchanged) {
                return false;
            }
            *checked = Instant::now();
        }
        true
    }

    pub(crate) fn memory(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }

    /// Where its script belongs, and how long that is.
    pub(crate) fn script(&self) -> (u64, u64) {
        (self.address, self.script_bytes)
    }
}
