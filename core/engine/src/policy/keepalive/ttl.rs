//! A fixed time to live: an idle sandbox or layer goes after it, and before it, least recently used first, when room is wanted.

use super::{Idle, Retention, lru};
use crate::units::Nanos;

pub(super) fn retain(idle: &Idle, keep: Nanos) -> Retention {
    Retention { until: Some(idle.since.saturating_add(keep)), ..lru::retain(idle) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_for_the_time_given() {
        let idle = Idle { since: Nanos::from_secs(5), ..Idle::default() };
        let retention = retain(&idle, Nanos::from_secs(600));
        assert_eq!(retention.until, Some(Nanos::from_secs(605)));
        let for_ever = retain(&idle, Nanos::MAX);
        assert_eq!(for_ever.until, Some(Nanos::MAX));
    }
}
