//! How often the machine takes the processor away from a thread that never sleeps: the floor of every tail.

use std::time::{Duration, Instant};

use crate::peer::pin;

/// A shorter gap between two looks at the clock is an interrupt, not a stall.
const STALL: Duration = Duration::from_micros(100);

/// What was taken from a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stalls {
    /// Of the time watched, in thousandths.
    pub per_mille: f64,
    /// The longest at once.
    pub longest: Duration,
}

/// Looks at the clock on each of these cores at once, for so long; the worst of them.
#[must_use]
pub fn watch(cores: &[usize], time: Duration) -> Stalls {
    std::thread::scope(|scope| {
        let watchers: Vec<_> = cores.iter().map(|&core| scope.spawn(move || watch_one(core, time))).collect();
        let seen = watchers.into_iter().filter_map(|watcher| watcher.join().ok());
        seen.fold(Stalls::default(), |worst, stalls| Stalls {
            per_mille: worst.per_mille.max(stalls.per_mille),
            longest: worst.longest.max(stalls.longest),
        })
    })
}

fn watch_one(core: usize, time: Duration) -> Stalls {
    pin(Some(core));
    let began = Instant::now();
    let (mut last, mut stalled, mut longest) = (began, Duration::ZERO, Duration::ZERO);
    while last - began < time {
        let now = Instant::now();
        let gap = now - last;
        if gap >= STALL {
            stalled += gap;
            longest = longest.max(gap);
        }
        last = now;
    }
    Stalls { per_mille: 1000.0 * stalled.as_secs_f64() / (last - began).as_secs_f64(), longest }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_there_was() {
        let stalls = watch(&[0], Duration::from_millis(20));
        assert!((0.0..=1000.0).contains(&stalls.per_mille), "{stalls:?}");
    }
}
