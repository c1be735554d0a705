//! Which images sandboxes load ahead: those that starts have asked for last.
//!
//! Invariant: there are no more wishes than sandboxes that may have loaded an image, and each is given up after so many tries. It does not
//! know how an image is loaded.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vilya_isolate::{CopyOf, Image, Spec};

/// What the next start like one before will ask for.
pub(crate) struct Wish {
    pub(crate) spec: Spec,
    pub(crate) image: Arc<Image>,
    pub(crate) is_runtime: bool,
    tries: u32,
}

impl Wish {
    pub(crate) fn new(spec: Spec, image: Arc<Image>, is_runtime: bool) -> Wish {
        Wish { spec, image, is_runtime, tries: 0 }
    }

    pub(crate) fn copy(&self) -> CopyOf<'_> {
        CopyOf { image: &self.image, tells_environment: self.is_runtime }
    }
}

/// How long after a start an image is loaded: the processor belongs to what starts.
const QUIET: Duration = Duration::from_millis(2);
/// Between two tries, while no sandbox is to spare.
const PAUSE: Duration = Duration::from_millis(10);
/// How often a wish is tried.
const TRIES: u32 = 100;
/// How often it is looked whether what is loaded is still wanted, and alive.
const INSPECTION: Duration = Duration::from_secs(2);
/// While nothing is loaded, there is nothing to look at.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// The wishes of one worker.
pub(crate) struct Loading {
    wishes: VecDeque<Wish>,
    most: usize,
    was_refused: bool,
    /// Sandboxes that may have loaded an image.
    loaded: usize,
    inspected: Instant,
}

impl Loading {
    pub(crate) fn new(most: usize) -> Loading {
        Loading {
            wishes: VecDeque::with_capacity(most),
            most,
            was_refused: false,
            loaded: 0,
            inspected: Instant::now(),
        }
    }

    /// A start has asked for an image: another may.
    pub(crate) fn wish(&mut self, wish: Wish) {
        if self.most == 0 {
            return;
        }
        if self.wishes.len() == self.most {
            self.wishes.pop_front();
        }
        self.was_refused = false;
        self.wishes.push_back(wish);
    }

    /// It was looked what is loaded, and so much is left.
    pub(crate) fn inspected(&mut self, left: usize) {
        self.loaded = left;
        self.inspected = Instant::now();
    }

    /// Whether there is nothing to look at yet.
    pub(crate) fn is_inspected(&self) -> bool {
        self.loaded == 0 || self.inspected.elapsed() < INSPECTION
    }

    /// The wish of the longest standing.
    pub(crate) fn next(&mut self) -> Option<Wish> {
        self.wishes.pop_front()
    }

    /// No sandbox was to spare.
    pub(crate) fn refuse(&mut self, mut wish: Wish) {
        self.was_refused = true;
        wish.tries += 1;
        if wish.tries < TRIES {
            self.wishes.push_front(wish);
        }
    }

    /// One was: there are so many.
    pub(crate) fn done(&mut self) {
        self.was_refused = false;
        self.loaded = (self.loaded + 1).min(self.most);
    }

    /// How long to wait for starts before something is to be done.
    pub(crate) fn pause(&self) -> Duration {
        match (self.wishes.is_empty(), self.was_refused) {
            (false, false) => QUIET,
            (false, true) => PAUSE,
            (true, _) if self.loaded > 0 => INSPECTION.saturating_sub(self.inspected.elapsed()),
            (true, _) => NEVER,
        }
    }
}
