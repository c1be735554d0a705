//! The request target and the authority: which bytes they may hold and what their parts are (RFC 9112, section 3.2; RFC
//! 3986).
//!
//! Invariant: a path and a query that pass are visible ASCII, with every `%` followed by two hexadecimal digits. They are
//! not decoded and dot segments are not resolved.
//!
//! Does not know: routes.

use super::Reject;
use super::head::Method;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
    /// Of an absolute-form target: must equal the `Host`.
    pub(crate) authority: Option<&'a str>,
}

const PATH: u8 = 1;
const QUERY: u8 = 2;

/// Which part each byte may stand in. A path takes RFC 3986's `pchar` and the slash; a query also takes the question mark
/// and what browsers leave unescaped there.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 128 {
        classes[byte] = match byte as u8 {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => PATH | QUERY,
            b'-' | b'.' | b'_' | b'~' | b':' | b'@' | b'/' | b'%' => PATH | QUERY,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' => PATH | QUERY,
            b'?' | b'[' | b']' | b'{' | b'}' | b'|' | b'^' | b'`' => QUERY,
            _ => 0,
        };
        byte += 1;
    }
    classes
};

/// Takes a target apart. `CONNECT`, the one method with a target of another kind, is refused before.
pub(crate) fn parse(method: Method, target: &str) -> Result<Target<'_>, Reject> {
    if target.starts_with('/') {
        return split(target, None);
    }
    if target == "*" && method == Method::Options {
        return Ok(Target { path: target, query: None, authority: None });
    }
    let Some(rest) = strip_http_scheme(target) else {
        return Err(Reject::malformed("the target is neither a path nor an http:// address"));
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    if !valid_authority(authority) {
        return Err(Reject::malformed("the target's host is not valid"));
    }
    split(rest, Some(authority))
}

fn strip_http_scheme(target: &str) -> Option<&str> {
    const SCHEME: &str = "http://";
    let (scheme, rest) = target.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then_some(rest)
}

fn split<'a>(text: &'a str, authority: Option<&'a str>) -> Result<Target<'a>, Reject> {
    let (path, query) = match text.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (text, None),
    };
    if !valid(path, PATH) {
        return Err(Reject::malformed("the target's path holds a character that must be escaped, or a broken escape"));
    }
    if !query.is_none_or(|query| valid(query, QUERY)) {
        return Err(Reject::malformed("the target's query holds a character that must be escaped, or a broken escape"));
    }
    // RFC 9112, section 3.2.1: the empty path of an absolute form is the root.
    let path = if path.is_empty() { "/" } else { path };
    Ok(Target { path, query, authority })
}

fn valid(text: &str, part: u8) -> bool {
    let bytes = text.as_bytes();
    let mut seen = part;
    let mut escapes = false;
    for byte in bytes {
        seen &= CLASSES[usize::from(*byte)];
        escapes |= *byte == b'%';
    }
    seen & part != 0 && (!escapes || valid_escapes(bytes))
}

fn valid_escapes(bytes: &[u8]) -> bool {
    let hex = |index: usize| bytes.get(index).is_some_and(u8::is_ascii_hexdigit);
    bytes.iter().enumerate().all(|(index, byte)| *byte != b'%' || (hex(index + 1) && hex(index + 2)))
}

/// `host [":" port]` with a name, an IPv4 address or a bracketed IPv6 address. Narrower than RFC 3986: no user
/// information, no escapes and no sub-delimiters, none of which a host that resolves has, and a comma of which would be
/// two hosts joined.
pub(crate) fn valid_authority(authority: &str) -> bool {
    let (host_is_valid, port) = match authority.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) => (address.parse::<core::net::Ipv6Addr>().is_ok(), port),
            None => return false,
        },
        None => {
            let end = authority.find(':').unwrap_or(authority.len());
            let (name, port) = authority.split_at(end);
            (valid_name(name), port)
        }
    };
    host_is_valid && valid_port(port)
}

fn valid_name(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~'))
}

/// Nothing, or a colon and a port; the port may be empty (RFC 3986, section 3.2.3).
fn valid_port(port: &str) -> bool {
    match port.strip_prefix(':') {
        None => port.is_empty(),
        Some("") => true,
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(target: &str) -> Option<(&str, Option<&str>, Option<&str>)> {
        parse(Method::Get, target).ok().map(|target| (target.path, target.query, target.authority))
    }

    #[test]
    fn forms() {
        assert_eq!(parts("/"), Some(("/", None, None)));
        assert_eq!(parts("/a?"), Some(("/a", Some(""), None)));
        assert_eq!(parts("/a?b?c=/"), Some(("/a", Some("b?c=/"), None)));
        assert_eq!(parts("//a//b/../c"), Some(("//a//b/../c", None, None)));
        assert_eq!(parts("http://h/p?q"), Some(("/p", Some("q"), Some("h"))));
        assert_eq!(parts("HTTP://h:1"), Some(("/", None, Some("h:1"))));
        assert_eq!(parts("http://h?q"), Some(("/", Some("q"), Some("h"))));
        assert_eq!(parts("/%41%zz"), None);
        for target in ["a", "*", "", "http:/h", "https://h/", "http://", "http:///a", "http://u@h/", "ftp://h/", "h:80"]
        {
            assert_eq!(parts(target), None, "{target}");
        }
        assert!(parse(Method::Options, "*").is_ok());
    }

    #[test]
    fn bytes_that_need_escaping() {
        for byte in ["#", "\"", "<", ">", "\\", "{", "}", "|", "^", "`", "[", "]", "\u{e9}", "\u{7f}"] {
            assert_eq!(parts(&format!("/a{byte}b")), None, "{byte}");
        }
        for byte in ["#", "\"", "<", ">", "\\", "\u{e9}"] {
            assert_eq!(parts(&format!("/a?{byte}b")), None, "{byte}");
        }
        assert!(parts("/a?f[0]={x|y}^`").is_some());
        assert!(parts("/%").is_none() && parts("/%4").is_none() && parts("/%4g").is_none() && parts("/?%").is_none());
        assert!(parts("/%4g?").is_none() && parts("/a%?41").is_none());
        assert!(parts("/%00%2f%ff").is_some());
    }

    #[test]
    fn authorities() {
        for authority in
            ["h", "a.b-c_d~e", "127.0.0.1:80", "h:", "h:0", "h:65535", "[::1]", "[::1]:80", "[2001:db8::]:"]
        {
            assert!(valid_authority(authority), "{authority}");
        }
        for authority in [
            "",
            ":80",
            "h:65536",
            "h:+1",
            "h:1a",
            "h:1:2",
            "h,i",
            "h i",
            "u@h",
            "h/",
            "h%41",
            "[::1",
            "[::g]",
            "[::1]a",
            "[::1%eth0]",
            "::1",
            "h?",
            "\u{e9}",
            "[]",
        ] {
            assert!(!valid_authority(authority), "{authority}");
        }
    }
}
