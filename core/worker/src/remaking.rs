//! When the image of a runtime that is gone is made again.
//!
//! Invariant: pure. After each loss it waits, and longer while losses follow on each other, so that an image that never lasts costs little.
//! It does not know why one was lost or how one is made.

use std::time::{Duration, Instant};

/// The first wait: an upgrade changes more than one file.
const FIRST: Duration = Duration::from_secs(1);
/// The longest.
const LONGEST: Duration = Duration::from_mins(10);

/// The waits of one image.
#[derive(Debug)]
pub(crate) struct Remaking {
    /// None while there is an image, or one is made.
    due: Option<Instant>,
    pause: Duration,
    lost: Option<Instant>,
}

impl Remaking {
    /// One is being made.
    pub(crate) fn new() -> Remaking {
        Remaking { due: None, pause: FIRST, lost: None }
    }

    /// There is no image any more, or the one that was begun came to nothing.
    pub(crate) fn lost(&mut self, now: Instant) {
        // Losses that are far apart have nothing to do with each other.
        if self.lost.is_some_and(|before| now.duration_since(before) > 2 * LONGEST) {
            self.pause = FIRST;
        }
        self.lost = Some(now);
        self.due = Some(now + self.pause);
        self.pause = (self.pause * 2).min(LONGEST);
    }

    /// Whether to make one now; it is then taken to be under way.
    pub(crate) fn begins(&mut self, now: Instant) -> bool {
        self.due.take_if(|due| *due <= now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::{FIRST, LONGEST, Remaking};
    use std::time::{Duration, Instant};

    #[test]
    fn one_that_is_lost_is_made_again_once_and_later_each_time() {
        let mut now = Instant::now();
        let mut remaking = Remaking::new();
        assert!(!remaking.begins(now + LONGEST), "the first is being made");
        let mut pause = FIRST;
        for _ in 0..20 {
            remaking.lost(now);
            assert!(!remaking.begins(now + pause - Duration::from_nanos(1)));
            assert!(remaking.begins(now + pause));
            assert!(!remaking.begins(now + LONGEST), "once");
            now += pause;
            pause = (2 * pause).min(LONGEST);
        }
        assert_eq!(pause, LONGEST);
    }

    #[test]
    fn one_that_lasted_is_made_again_soon() {
        let now = Instant::now();
        let mut remaking = Remaking::new();
        for _ in 0..5 {
            remaking.lost(now);
        }
        let later = now + 3 * LONGEST;
        remaking.lost(later);
        assert!(remaking.begins(later + FIRST));
    }
}
