//! SHA-256 digests, as text and as they grow.
//!
//! Invariant: the digits of a [`Digest`] are 64 lower-case hexadecimal ones, so that it can be a file's name. Does not know: whose.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// A checked `sha256:<64 digits>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(String);

impl Digest {
    /// Reads one; `None` if it is not one, or of another algorithm.
    #[must_use]
    pub fn parse(text: &str) -> Option<Digest> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let digits = text.strip_prefix("sha256:")?;
        (digits.len() == 64 && digits.bytes().all(is_digit)).then(|| Digest(digits.to_owned()))
    }

    /// That of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Digest {
        Digest::finish(Sha256::new_with_prefix(bytes))
    }

    pub(crate) fn finish(hash: Sha256) -> Digest {
        let digit = |digit: u8| char::from(b"0123456789abcdef"[usize::from(digit)]);
        Digest(hash.finalize().iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect())
    }

    /// The digits alone.
    #[must_use]
    pub fn hexadecimal(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sha256_in_lower_case_is_one() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").to_string(), empty);
        assert_eq!(Digest::parse(empty), Some(Digest::of(b"")));
        let bad = [&empty[..70], "sha256:../../etc/passwd", &empty.to_uppercase(), &empty.replace("256", "512")];
        for text in bad {
            assert_eq!(Digest::parse(text), None, "{text}");
        }
    }
}
