//! Layers of images, unpacked once each, however many images have them.
//!
//! Invariant: a layer that has its final name is complete and durable and never changes. Its name is made of its digest as the worker read it
//! and the one of its tar, so the bytes that it came from are proven by whoever asks for it. It is made by one thread at a time; the others
//! that want it wait. It is removed only while nobody holds a [`Pin`] on it. It does not know images.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use vilya_image::ImageError;

use crate::storage::disposal::Disposal;
use crate::storage::sync_directory;
use crate::storage::unpacking::UnpackError;

/// Where layers are, in the state directory.
const LAYERS: &str = "layers";
const MODE: u32 = 0o700;

/// The layers of a state directory.
#[derive(Debug)]
pub(super) struct Layers {
    directory: PathBuf,
    held: Mutex<Held>,
    made: Condvar,
}

#[derive(Debug, Default)]
struct Held {
    /// Which are being made.
    making: HashSet<String>,
    /// How many pins there are on each.
    pins: HashMap<String, usize>,
}

/// Keeps a layer from being removed.
#[derive(Debug)]
pub struct Pin {
    layers: Arc<Layers>,
    name: String,
}

impl Pin {
    pub(super) fn path(&self) -> PathBuf {
        self.layers.directory.join(&self.name)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut held = self.layers.held();
        if let Some(pins) = held.pins.get_mut(&self.name) {
            *pins -= 1;
            if *pins == 0 {
                held.pins.remove(&self.name);
            }
        }
    }
}

/// Says that a layer is being made no more, whatever became of it.
struct Making<'a>(&'a Pin);

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.0.layers.held().making.remove(&self.0.name);
        self.0.layers.made.notify_all();
    }
}

impl Layers {
    pub(super) fn open(state_directory: &Path) -> io::Result<Layers> {
        let directory = state_directory.join(LAYERS);
        crate::storage::ensure_directory(&directory, MODE)?;
        Ok(Layers { directory, held: Mutex::default(), made: Condvar::new() })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The layer of this name: the one that is there, or the one that `make` makes durably in the directory that it returns, which becomes it.
    pub(super) fn obtain(
        self: &Arc<Layers>,
        name: &str,
        make: impl FnOnce() -> Result<PathBuf, UnpackError>,
    ) -> Result<Pin, UnpackError> {
        let mut held = self.held();
        *held.pins.entry(name.to_owned()).or_default() += 1;
        let pin = Pin { layers: Arc::clone(self), name: name.to_owned() };
        while held.making.contains(name) {
            held = self.made.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        if pin.path().is_dir() {
            drop(held);
            return Ok(pin);
        }
        held.making.insert(name.to_owned());
        drop(held);
        {
            let _making = Making(&pin);
            let made = make()?;
            let kept = std::fs::rename(made, pin.path()).and_then(|()| sync_directory(&self.directory));
            kept.map_err(|source| ImageError::Disk { path: pin.path(), source })?;
        }
        Ok(pin)
    }

    /// Removes every layer that is not named here and that nobody holds.
    pub(super) fn sweep(&self, named: &HashSet<&str>, disposal: &Disposal) -> io::Result<()> {
        // Held until the last is out of sight, so that nobody takes one that goes.
        let held = self.held();
        for entry in std::fs::read_dir(&self.directory)? {
            let entry = entry?;
            let is_used = |name: &str| named.contains(name) || held.pins.contains_key(name);
            if !entry.file_name().to_str().is_some_and(is_used) {
                disposal.take(&entry.path())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn bench() -> (tempfile::TempDir, Arc<Layers>, Disposal) {
        let state = tempfile::tempdir().unwrap();
        let layers = Arc::new(Layers::open(state.path()).unwrap());
        let disposal = Disposal::start(state.path()).unwrap();
        (state, layers, disposal)
    }

    fn count(state: &Path) -> usize {
        std::fs::read_dir(state.join(LAYERS)).unwrap().count()
    }

    #[test]
    fn a_layer_that_many_want_at_once_is_made_once() {
        let (state, layers, disposal) = bench();
        let made = AtomicUsize::new(0);
        let pins: Vec<Pin> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|number| {
                    let (state, layers, made) = (&state, &layers, &made);
                    scope.spawn(move || {
                        let place = state.path().join(number.to_string());
                        layers.obtain("one", || {
                            made.fetch_add(1, Ordering::Relaxed);
                            std::fs::create_dir(&place).unwrap();
                            Ok(place)
                        })
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect()
        });
        assert_eq!(made.load(Ordering::Relaxed), 1);
        layers.sweep(&HashSet::new(), &disposal).unwrap();
        assert_eq!(count(state.path()), 1, "it is held");
        drop(pins);
        layers.sweep(&HashSet::from(["one"]), &disposal).unwrap();
        assert_eq!(count(state.path()), 1, "it is named");
        layers.sweep(&HashSet::new(), &disposal).unwrap();
        assert_eq!(count(state.path()), 0);
    }

    #[test]
    fn one_that_could_not_be_made_is_tried_by_the_next() {
        let (state, layers, _) = bench();
        let failed = layers.obtain("one", || Err(UnpackError::Never));
        assert!(matches!(failed, Err(UnpackError::Never)));
        let place = state.path().join("place");
        std::fs::create_dir(&place).unwrap();
        let pin = layers.obtain("one", || Ok(place)).unwrap();
        assert!(pin.path().is_dir());
    }
}
