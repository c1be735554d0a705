//! What sandboxes say that their invocations imported.
//!
//! Invariant: it is a claim: names that Python could import, and few of them. A function that lies has its own next zygote import what it could
//! have imported itself. Does not know zygotes.

use std::sync::Arc;

use crate::manifest::is_module_name;
use crate::storage::FunctionRecord;

/// The most that is remembered of a function.
pub(crate) const IMPORTS_MAX: usize = 128;

/// Modules that a function imported after it was ready.
pub(crate) struct Learned {
    pub(crate) record: Arc<FunctionRecord>,
    pub(crate) names: Vec<String>,
}

/// The names in a claim; none if any of it is not one.
pub(crate) fn parse(claim: &[u8]) -> Option<Vec<String>> {
    let names: Vec<&str> = std::str::from_utf8(claim).ok()?.split(' ').take(IMPORTS_MAX + 1).collect();
    let are_names = names.len() <= IMPORTS_MAX && names.iter().all(|name| is_module_name(name));
    are_names.then(|| names.into_iter().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_and_anything_else_refuses_the_whole() {
        assert_eq!(parse(b"json numpy.linalg").unwrap(), ["json", "numpy.linalg"]);
        for wrong in [
            &b""[..],
            b"json  os",
            b" json",
            b"json\nos",
            b"os;exec",
            b"a..b",
            b"-c",
            b"json \xff",
            b"1a",
            &[b'a'; 5000],
        ] {
            assert_eq!(parse(wrong), None, "{}", String::from_utf8_lossy(wrong));
        }
        assert_eq!(parse("a ".repeat(IMPORTS_MAX).trim_end().as_bytes()).unwrap().len(), IMPORTS_MAX);
        assert_eq!(parse("a ".repeat(IMPORTS_MAX + 1).trim_end().as_bytes()), None);
    }
}
