//! The syntax of function names, in its one place: `[a-z0-9][a-z0-9-]{0,62}`.
//!
//! Such a name is at once a path segment that needs no escaping, a DNS label, a cgroup name and a file name: it has no
//! dot, no slash, no capital that a file system could fold, and exactly one spelling.
//!
//! Does not know: which functions exist.

use core::fmt;

/// Longest function name, in bytes.
pub const MAX_BYTES: usize = 63;

/// Why a string is not a function name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// It has no characters.
    Empty,
    /// It has more than [`MAX_BYTES`] bytes.
    TooLong {
        /// Length of what was given.
        bytes: usize,
    },
    /// It starts with a dash.
    StartsWithDash,
    /// A byte is none of `a-z`, `0-9`, `-`.
    InvalidByte {
        /// Position of the first such byte.
        index: usize,
    },
}

impl NameError {
    /// The message without the particulars, for answers that carry no formatting.
    pub const fn message(self) -> &'static str {
        match self {
            NameError::Empty => "the function name is empty",
            NameError::TooLong { .. } => "the function name is longer than 63 characters",
            NameError::StartsWithDash => "the function name starts with '-'; start it with a-z or 0-9",
            NameError::InvalidByte { .. } => "the function name may hold only a-z, 0-9 and '-', unescaped",
        }
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())?;
        match self {
            NameError::TooLong { bytes } => write!(f, " (it has {bytes})"),
            NameError::InvalidByte { index } => write!(f, " (see position {index})"),
            NameError::Empty | NameError::StartsWithDash => Ok(()),
        }
    }
}

impl core::error::Error for NameError {}

/// Checks that `name` is a function name.
///
/// ```
/// assert!(vilya_protocol::name::check("thumbnail-2").is_ok());
/// assert!(vilya_protocol::name::check("Thumbnail").is_err());
/// ```
pub fn check(name: &str) -> Result<(), NameError> {
    let bytes = name.as_bytes();
    if bytes.len() > MAX_BYTES {
        return Err(NameError::TooLong { bytes: bytes.len() });
    }
    match bytes.first() {
        None => return Err(NameError::Empty),
        Some(b'-') => return Err(NameError::StartsWithDash),
        Some(_) => {}
    }
    match bytes.iter().position(|byte| !matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-')) {
        Some(index) => Err(NameError::InvalidByte { index }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_the_whole_alphabet_at_every_length() {
        let longest = "a".repeat(MAX_BYTES);
        for name in ["a", "0", "a-", "echo", "0-9", "abcdefghijklmnopqrstuvwxyz-0123456789", longest.as_str()] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn refuses_every_other_shape_with_its_reason() {
        let long = "a".repeat(MAX_BYTES + 1);
        let cases = [
            ("", NameError::Empty),
            ("-a", NameError::StartsWithDash),
            (long.as_str(), NameError::TooLong { bytes: 64 }),
            ("aB", NameError::InvalidByte { index: 1 }),
            ("a.b", NameError::InvalidByte { index: 1 }),
            ("..", NameError::InvalidByte { index: 0 }),
            ("a/b", NameError::InvalidByte { index: 1 }),
            ("a_b", NameError::InvalidByte { index: 1 }),
            ("a%62", NameError::InvalidByte { index: 1 }),
            ("caf\u{e9}", NameError::InvalidByte { index: 3 }),
            ("a\0", NameError::InvalidByte { index: 1 }),
        ];
        for (name, expected) in cases {
            assert_eq!(check(name), Err(expected), "{name:?}");
        }
    }

    #[test]
    fn messages_name_the_place() {
        assert!(NameError::InvalidByte { index: 7 }.to_string().ends_with("(see position 7)"));
        assert!(NameError::TooLong { bytes: 80 }.to_string().ends_with("(it has 80)"));
    }
}
