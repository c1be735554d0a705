//! What copies are made from: a file of memory that nobody can change any more.
//!
//! Owns: writing it, and knowing when it no longer fits the host. Invariant: sealed before anybody else sees it; it holds a script and pages,
//! and names the files whose other pages belong to it. Does not know: whose memory it was.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};
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
    taken: Instant,
    checked: Mutex<Instant>,
    resume: u64,
    #[cfg(target_arch = "x86_64")]
    places: super::touched::Places,
    touched: OnceLock<Vec<(Range<u64>, i32)>>,
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
        places: super::touched::Places,
        pages: impl FnOnce(&mut File) -> io::Result<u64>,
    ) -> io::Result<Image> {
        let mut memory = File::from(sys::memory_file(c"vilya-zygote")?);
        memory.write_all(&script.bytes)?;
        let script_bytes = script.bytes.len() as u64;
        let bytes = script_bytes + pages(&mut memory)?;
        sys::seal_contents(memory.as_raw_fd())?;
        let taken = Instant::now();
        let checked = Mutex::new(taken);
        let super::script::Script { address, resume, .. } = *script;
        let memory = memory.into();
        Ok(Image {
            memory,
            address,
            script_bytes,
            bytes,
            files,
            taken,
            checked,
            resume,
            places,
            touched: OnceLock::new(),
        })
    }

    /// The memory that it takes, once for all of its copies.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When it was taken.
    #[must_use]
    pub fn taken(&self) -> Instant {
        self.taken
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

    /// Looks at a copy that has got to where it waits for work: from here on, the pages that it touched are provided to others at once.
    ///
    /// # Errors
    /// When the process cannot be looked at.
    #[cfg(target_arch = "x86_64")]
    pub fn learn_from(&self, copy: &crate::mechanism::Started) -> io::Result<()> {
        let touched = self.places.touched_by(copy.pid)?;
        // A process id may be another's by now.
        if sys::poll_readable(copy.pidfd(), Duration::ZERO)? {
            return Err(io::ErrorKind::NotFound.into());
        }
        let _ = self.touched.set(touched);
        Ok(())
    }

    /// What copies are known to touch by themselves; nothing before [`Image::learn_from`].
    pub(crate) fn touched(&self) -> &[(Range<u64>, i32)] {
        self.touched.get().map_or(&[], Vec::as_slice)
    }

    /// Where a copy that has loaded it goes on.
    pub(crate) fn resume(&self) -> u64 {
        self.resume
    }

    pub(crate) fn memory(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }

    /// Where its script belongs, and how long that is.
    pub(crate) fn script(&self) -> (u64, u64) {
        (self.address, self.script_bytes)
    }
}
