//! First come, first served: the key is the arrival. Nothing waits for ever, and nothing short gets ahead.

use super::Waiting;

pub(super) fn key(waiting: &Waiting<'_>) -> u64 {
    waiting.arrived.as_nanos()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Profile;
    use crate::units::Nanos;

    #[test]
    fn the_earlier_arrival_goes_first_whatever_it_costs() {
        let (mut long, short) = (Profile::default(), Profile::default());
        long.record_warm_run(Nanos::from_secs(9));
        let earlier = key(&Waiting { arrived: Nanos::from_nanos(1), profile: &long });
        let later = key(&Waiting { arrived: Nanos::from_nanos(2), profile: &short });
        assert!(earlier < later);
    }
}
