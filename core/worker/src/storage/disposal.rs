//! Directories that nobody refers to any more, removed by a thread of its own: a large one takes seconds.
//!
//! Invariant: what was taken is out of sight of everybody at once, and durably so is nobody's business: what is left of it when the process
//! ends goes after the next start. It does not know what is in them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, unbounded};

/// Where they wait, in the state directory.
const GONE: &str = "gone";
const MODE: u32 = 0o700;

/// The thread, and where it finds what is to be removed. Dropping it ends the thread after the directory that it is at.
#[derive(Debug)]
pub(super) struct Disposal {
    directory: PathBuf,
    taken: AtomicU64,
    /// As many at most as there are versions and layers.
    sender: Option<Sender<PathBuf>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Disposal {
    /// Starts it, with what an earlier one left.
    pub(super) fn start(state_directory: &Path) -> io::Result<Disposal> {
        let directory = state_directory.join(GONE);
        super::ensure_directory(&directory, MODE)?;
        let (sender, inbox) = unbounded::<PathBuf>();
        let mut last = 0;
        for entry in std::fs::read_dir(&directory)? {
            let path = entry?.path();
            let number = path.file_name().and_then(|name| name.to_str()?.parse::<u64>().ok());
            last = last.max(number.map_or(0, |number| number + 1));
            let _ = sender.send(path);
        }
        let ends = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&ends);
        let remove = move || {
            for path in inbox {
                // Pairs with nothing: a directory more or less.
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                if let Err(error) = std::fs::remove_dir_all(&path) {
                    tracing::warn!("{} could not be removed: {error}; the next start tries again", path.display());
                }
            }
        };
        let thread = std::thread::Builder::new().name("vilya-disposal".into()).spawn(remove)?;
        Ok(Disposal { directory, taken: AtomicU64::new(last), sender: Some(sender), ends, thread: Some(thread) })
    }

    /// Takes a directory away, if it is there.
    pub(super) fn take(&self, path: &Path) -> io::Result<()> {
        let place = self.directory.join(self.taken.fetch_add(1, Ordering::Relaxed).to_string());
        match std::fs::rename(path, &place) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        // The thread ends when this does.
        self.sender.iter().for_each(|sender| drop(sender.send(place.clone())));
        Ok(())
    }
}

impl Drop for Disposal {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        drop(self.sender.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

#[cfg(test)]
mod tests {
    use super::{Disposal, GONE};
    use std::time::{Duration, Instant};

    #[test]
    fn what_is_taken_is_gone_at_once_and_what_is_left_goes_after_the_next_start() {
        let state = tempfile::tempdir().unwrap();
        let left = state.path().join(GONE).join("7/deep");
        std::fs::create_dir_all(left).unwrap();
        let disposal = Disposal::start(state.path()).unwrap();
        let path = state.path().join("image");
        std::fs::create_dir_all(path.join("etc")).unwrap();
        disposal.take(&path).unwrap();
        assert!(!path.exists());
        disposal.take(&path).unwrap();
        let since = Instant::now();
        while std::fs::read_dir(state.path().join(GONE)).unwrap().count() > 0 {
            assert!(since.elapsed() < Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
