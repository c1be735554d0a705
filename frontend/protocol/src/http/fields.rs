//! Header fields: where they lie in a head, and which bytes they may hold.
//!
//! Does not know: what any field means.

/// Place of one field in the head's bytes. Sixteen bits reach everything: a head is at most 65,535 bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    name_start: u16,
    name_bytes: u16,
    value_start: u16,
    value_bytes: u16,
}

impl Field {
    /// `name` and `value` must be parts of `head`, as a parser of it returned them.
    pub(crate) fn locate(head: &[u8], name: &str, value: &[u8]) -> Field {
        let place = |part: &[u8]| {
            // An empty value may point anywhere; it lies at 0 as well as elsewhere.
            if part.is_empty() { 0 } else { (part.as_ptr().addr() - head.as_ptr().addr()) as u16 }
        };
        Field {
            name_start: place(name.as_bytes()),
            name_bytes: name.len() as u16,
            value_start: place(value),
            value_bytes: value.len() as u16,
        }
    }

    pub(crate) fn name<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        &head[usize::from(self.name_start)..][..usize::from(self.name_bytes)]
    }

    pub(crate) fn value<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        &head[usize::from(self.value_start)..][..usize::from(self.value_bytes)]
    }
}

/// First value under `name`, compared without case.
pub(crate) fn find<'a>(head: &'a [u8], fields: &[Field], name: &str) -> Option<&'a [u8]> {
    fields.iter().find(|field| field.name(head).eq_ignore_ascii_case(name.as_bytes())).map(|field| field.value(head))
}

/// True if one of the comma-separated members of `value` is `token`, compared without case.
pub(crate) fn lists(value: &[u8], token: &str) -> bool {
    value.split(|byte| *byte == b',').any(|member| member.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// The fields that frame a message or its connection. A trailer may not carry them (RFC 9110, section 6.5.1), nor may the
/// caller of a writer, which sets them itself.
pub(crate) fn frames_message(name: &[u8]) -> bool {
    ["content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "trailer", "te"]
        .iter()
        .any(|framing| name.eq_ignore_ascii_case(framing.as_bytes()))
}

/// A field name, or another token of RFC 9110, section 5.6.2.
pub(crate) fn valid_token(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// True if `value` can stand as a field's value: no CR, LF, NUL or other control character but tab, and no white space at
/// either end, where a reader would drop it (RFC 9110, section 5.5).
pub fn valid_header_value(value: &[u8]) -> bool {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    !blank(value.first())
        && !blank(value.last())
        && value.iter().all(|byte| *byte == b'\t' || (*byte >= 0x20 && *byte != 0x7f))
}

/// A `Content-Length` value: decimal digits and nothing else, without a leading zero (read as octal by some).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    Bytes(u64),
    /// All digits, and more than a `u64` holds.
    Huge,
    Malformed,
}

pub(crate) fn parse_length(value: &[u8]) -> Length {
    if value.is_empty() || (value.len() > 1 && value[0] == b'0') || !value.iter().all(u8::is_ascii_digit) {
        return Length::Malformed;
    }
    let mut length: u64 = 0;
    for digit in value {
        let next = length.checked_mul(10).and_then(|length| length.checked_add(u64::from(digit - b'0')));
        match next {
            Some(next) => length = next,
            None => return Length::Huge,
        }
    }
    Length::Bytes(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_values() {
        for value in [&b""[..], b"a", b"a b", b"a\tb", b"text/html; charset=utf-8", b"\xc3\xa9"] {
            assert!(valid_header_value(value), "{value:?}");
        }
        for value in [&b" "[..], b" a", b"a ", b"\ta", b"a\r\nb", b"a\nb", b"a\rb", b"a\0", b"a\x7f", b"\x0b"] {
            assert!(!valid_header_value(value), "{value:?}");
        }
    }

    #[test]
    fn lengths() {
        assert_eq!(parse_length(b"0"), Length::Bytes(0));
        assert_eq!(parse_length(b"18446744073709551615"), Length::Bytes(u64::MAX));
        assert_eq!(parse_length(b"18446744073709551616"), Length::Huge);
        assert_eq!(parse_length(b"99999999999999999999999999"), Length::Huge);
        for value in [&b""[..], b"00", b"01", b"+1", b"-1", b"0x1", b"1,1", b"1 1", b" 1", b"1_0", b"1.0", b"\xb2"] {
            assert_eq!(parse_length(value), Length::Malformed, "{value:?}");
        }
    }

    #[test]
    fn tokens_and_lists() {
        assert!(valid_token(b"x-request-id") && valid_token(b"!#$%&'*+-.^_`|~"));
        assert!(!valid_token(b"") && !valid_token(b"a b") && !valid_token(b"a:") && !valid_token(b"a\xe9"));
        assert!(lists(b"keep-alive, Close", "close") && lists(b",,close", "close"));
        assert!(!lists(b"closed", "close") && !lists(b"", "close"));
    }
}
