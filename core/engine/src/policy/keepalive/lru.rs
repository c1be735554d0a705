//! Least recently used: what is idle stays until room is wanted, and what was idle for longest goes first; sandboxes before
//! layers. What room is wanted for is as large as a sandbox and a layer a fraction of that: by age alone many would go for
//! each sandbox that starts, and with them what makes losing sandboxes cheap.

use super::{Idle, Kind, Retention};

/// Layers begin here; no time is as late.
const LAYERS_FROM: u64 = 1 << 63;

pub(super) fn retain(idle: &Idle) -> Retention {
    let age = idle.since.as_nanos().min(LAYERS_FROM - 1);
    let priority = if idle.kind == Kind::Layer { LAYERS_FROM + age } else { age };
    Retention { priority, until: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Nanos;

    #[test]
    fn kept_without_limit_and_the_longest_idle_goes_first() {
        let idle = |since| Idle { since: Nanos::from_nanos(since), ..Idle::default() };
        let (earlier, later) = (retain(&idle(5)), retain(&idle(6)));
        assert!(earlier.priority < later.priority);
        assert_eq!(earlier.until, None);
    }

    #[test]
    fn layers_go_after_sandboxes_and_among_themselves_by_age() {
        let idle = |kind, since| retain(&Idle { kind, since: Nanos::from_nanos(since), ..Idle::default() }).priority;
        assert!(idle(Kind::Sandbox, u64::MAX) < idle(Kind::Layer, 0));
        assert!(idle(Kind::Layer, 5) < idle(Kind::Layer, 6));
    }
}
