//! Shortest job first: the key is the average warm run of the function. Good on a stationary mix; a long function
//! waits for as long as short ones keep coming, up to the time it may spend in the queue.

use super::Waiting;

pub(super) fn key(waiting: &Waiting<'_>) -> u64 {
    // A function not yet measured is run, so that it is measured.
    waiting.profile.warm_run().map_or(0, |average| average.as_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Profile;
    use crate::units::Nanos;

    #[test]
    fn the_shorter_function_goes_first_and_the_unmeasured_before_both() {
        let (mut long, mut short, unmeasured) = (Profile::default(), Profile::default(), Profile::default());
        long.record_warm_run(Nanos::from_millis(9));
        short.record_warm_run(Nanos::from_millis(3));
        let key = |arrived, profile| key(&Waiting { arrived: Nanos::from_nanos(arrived), profile });
        assert!(key(3, &short) < key(1, &long));
        assert!(key(9, &unmeasured) < key(1, &short));
    }
}
