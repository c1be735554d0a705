//! A fixed number: predictable, and right when the load is known.

use crate::limits::LimitError;

pub(super) fn check(running: u32) -> Result<(), LimitError> {
    if running == 0 {
        return Err(LimitError::Zero { name: "running" });
    }
    Ok(())
}

pub(super) fn limit(running: u32) -> u32 {
    running
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_refused_and_anything_else_is_the_limit() {
        assert_eq!(check(0), Err(LimitError::Zero { name: "running" }));
        assert_eq!(check(3), Ok(()));
        assert_eq!(limit(3), 3);
    }
}
