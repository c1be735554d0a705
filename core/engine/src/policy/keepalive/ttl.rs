//! A fixed time to live: an idle sandbox goes after it, and before it, least recently used first, when room is wanted.

use super::{Idle, Retention};
use crate::units::Nanos;

pub(super) fn retain(idle: &Idle, keep: Nanos) -> Retention {
    Retention { priority: idle.since.as_nanos(), until: Some(idle.since.saturating_add(keep)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_for_the_time_given() {
        let retention = retain(&Idle { since: Nanos::from_secs(5) }, Nanos::from_secs(600));
        assert_eq!(retention.until, Some(Nanos::from_secs(605)));
        let for_ever = retain(&Idle { since: Nanos::from_secs(5) }, Nanos::MAX);
        assert_eq!(for_ever.until, Some(Nanos::MAX));
    }
}
