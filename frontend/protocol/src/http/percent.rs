//! Percent-decoding (RFC 3986, section 2.1) for the parts of a target that carry arguments.
//!
//! Invariant: what is decoded is UTF-8 without NUL, and a decoded path segment holds no separator, so decoding never
//! changes which segments a path has.
//!
//! Does not know: routes; those compare paths undecoded.

use std::borrow::Cow;

/// Why a text cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PercentError {
    /// A `%` is not followed by two hexadecimal digits.
    BrokenEscape,
    /// It decodes to a NUL or another control character.
    Control,
    /// A path segment decodes to a slash or backslash.
    Separator,
    /// It decodes to bytes that are not UTF-8.
    NotUtf8,
}

impl core::fmt::Display for PercentError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            PercentError::BrokenEscape => "a '%' is not followed by two hexadecimal digits",
            PercentError::Control => "an escape stands for a control character",
            PercentError::Separator => "an escape in a path segment stands for a slash or backslash",
            PercentError::NotUtf8 => "the escapes do not decode to UTF-8",
        })
    }
}

impl core::error::Error for PercentError {}

/// Decodes one segment of a path (without slashes).
///
/// ```
/// use vilya_protocol::http::percent::{PercentError, decode_segment};
/// assert_eq!(decode_segment("a%20b").as_deref(), Ok("a b"));
/// assert_eq!(decode_segment("a%2Fb"), Err(PercentError::Separator));
/// ```
pub fn decode_segment(segment: &str) -> Result<Cow<'_, str>, PercentError> {
    let decoded = decode(segment, false)?;
    if decoded.contains(['/', '\\']) {
        return Err(PercentError::Separator);
    }
    Ok(decoded)
}

/// The first value under `key` in a query of `key=value` pairs joined by `&`, decoded, with `+` for a space. A key without
/// `=` has the empty value. `None` if the key is not there.
pub fn query_value<'a>(query: &'a str, key: &str) -> Option<Result<Cow<'a, str>, PercentError>> {
    query.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let is_key = decode(name, true).is_ok_and(|name| name == key);
        is_key.then(|| decode(value, true))
    })
}

fn decode(text: &str, plus_is_space: bool) -> Result<Cow<'_, str>, PercentError> {
    let escaped = |byte: u8| byte == b'%' || (plus_is_space && byte == b'+');
    let decoded = if text.bytes().any(escaped) {
        let bytes = decode_bytes(text.as_bytes(), plus_is_space)?;
        Cow::Owned(String::from_utf8(bytes).map_err(|_| PercentError::NotUtf8)?)
    } else {
        Cow::Borrowed(text)
    };
    if decoded.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(PercentError::Control);
    }
    Ok(decoded)
}

fn decode_bytes(mut text: &[u8], plus_is_space: bool) -> Result<Vec<u8>, PercentError> {
    let digit = |byte: u8| (byte as char).to_digit(16).ok_or(PercentError::BrokenEscape);
    let mut bytes = Vec::with_capacity(text.len());
    loop {
        text = match text {
            [] => return Ok(bytes),
            [b'%', high, low, rest @ ..] => {
                bytes.push((digit(*high)? << 4 | digit(*low)?) as u8);
                rest
            }
            [b'%', ..] => return Err(PercentError::BrokenEscape),
            [b'+', rest @ ..] if plus_is_space => {
                bytes.push(b' ');
                rest
            }
            [byte, rest @ ..] => {
                bytes.push(*byte);
                rest
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments() {
        let cases = [
            ("", Ok("")),
            ("plain", Ok("plain")),
            ("a+b", Ok("a+b")),
            ("%41%c3%A9", Ok("A\u{e9}")),
            ("%2525", Ok("%25")),
            ("%", Err(PercentError::BrokenEscape)),
            ("%4", Err(PercentError::BrokenEscape)),
            ("%4g", Err(PercentError::BrokenEscape)),
            ("%+1", Err(PercentError::BrokenEscape)),
            ("%00", Err(PercentError::Control)),
            ("a%0d%0ab", Err(PercentError::Control)),
            ("%7f", Err(PercentError::Control)),
            ("%2f", Err(PercentError::Separator)),
            ("%5C", Err(PercentError::Separator)),
            ("%ff", Err(PercentError::NotUtf8)),
            ("%c0%af", Err(PercentError::NotUtf8)),
        ];
        for (segment, expected) in cases {
            assert_eq!(decode_segment(segment).as_deref(), expected.as_ref().map(|text| *text), "{segment}");
        }
    }

    #[test]
    fn query_values() {
        let query = "tail=100&name=a%20b+c&flag&x=%zz&tail=7&path=a/b%2Fc";
        let value = |key| query_value(query, key).map(|value| value.map(Cow::into_owned));
        assert_eq!(value("tail"), Some(Ok("100".into())));
        assert_eq!(value("name"), Some(Ok("a b c".into())));
        assert_eq!(value("flag"), Some(Ok(String::new())));
        assert_eq!(value("x"), Some(Err(PercentError::BrokenEscape)));
        assert_eq!(value("path"), Some(Ok("a/b/c".into())));
        assert_eq!(value("absent"), None);
    }
}
