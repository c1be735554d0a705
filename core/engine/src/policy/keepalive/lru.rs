//! Least recently used: idle sandboxes stay until room is wanted, and the one idle for longest goes first.

use super::{Idle, Retention};

pub(super) fn retain(idle: &Idle) -> Retention {
    Retention { priority: idle.since.as_nanos(), until: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Nanos;

    #[test]
    fn kept_without_limit_and_the_longest_idle_goes_first() {
        let earlier = retain(&Idle { since: Nanos::from_nanos(5) });
        let later = retain(&Idle { since: Nanos::from_nanos(6) });
        assert!(earlier.priority < later.priority);
        assert_eq!(earlier.until, None);
    }
}
