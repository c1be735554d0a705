//! Requests that look odd and are right: what a strict decoder must still take.

use super::super::Method;

/// A sequence of requests on one connection that must all be taken.
#[derive(Clone, Copy, Debug)]
pub struct ValidCase {
    /// What is odd about it; unique.
    pub name: &'static str,
    /// What to send.
    pub bytes: &'static [u8],
    /// What must be read, in order.
    pub requests: &'static [Expected],
}

/// What must be read from one request.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// The method.
    pub method: Method,
    /// The path, undecoded.
    pub path: &'static str,
    /// The query, undecoded.
    pub query: Option<&'static str>,
    /// The body, without its chunks.
    pub body: &'static [u8],
    /// Whether the connection stays open.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue`.
    pub expects_continue: bool,
    /// Some of the fields: the first value under each name.
    pub headers: &'static [(&'static str, &'static [u8])],
}

const POST: Expected = Expected {
    method: Method::Post,
    path: "/fn/echo",
    query: None,
    body: b"",
    keep_alive: true,
    expects_continue: false,
    headers: &[],
};
const GET: Expected = Expected { method: Method::Get, path: "/", ..POST };
const HELLO: Expected = Expected { body: b"hello", ..POST };

const fn valid(name: &'static str, bytes: &'static [u8], requests: &'static [Expected]) -> ValidCase {
    ValidCase { name, bytes, requests }
}

macro_rules! post {
    ($rest:expr) => {
        concat!("POST /fn/echo HTTP/1.1\r\nHost: h\r\n", $rest).as_bytes()
    };
}

macro_rules! chunked {
    ($body:expr) => {
        concat!("POST /fn/echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", $body).as_bytes()
    };
}

/// The table.
#[rustfmt::skip]
pub const VALID: &[ValidCase] = &[
    valid("smallest", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", &[GET]),
    valid("smallest of HTTP/1.0", b"GET / HTTP/1.0\r\n\r\n", &[Expected { keep_alive: false, ..GET }]),
    valid("HTTP/1.0 that stays", b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", &[GET]),
    valid("HTTP/1.0 with a body", b"POST /fn/echo HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello", &[Expected { keep_alive: false, ..HELLO }]),
    valid("HTTP/1.0 with an expectation to ignore", b"POST /fn/echo HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", &[Expected { keep_alive: false, ..HELLO }]),
    valid("empty line before", b"\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", &[GET]),
    valid("empty line between", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", &[GET, GET]),
    valid("empty line after a body", b"POST /fn/echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", &[HELLO, GET]),
    valid("three in a pipeline", b"POST /fn/echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\nHost: h\r\n\r\nPOST /fn/echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", &[HELLO, GET, HELLO]),
    valid("body that looks like a request", post!("Content-Length: 28\r\n\r\nGET /x HTTP/1.1\r\nHost: h\r\n\r\n"), &[Expected { body: b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n", ..POST }]),
    valid("body of line ends and NUL", post!("Content-Length: 7\r\n\r\n\n\r\0\r\n\r\n"), &[Expected { body: b"\n\r\0\r\n\r\n", ..POST }]),
    valid("body on a GET", b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello", &[Expected { body: b"hello", ..GET }]),
    valid("zero length", post!("Content-Length: 0\r\n\r\n"), &[POST]),
    valid("zero length and an expectation", post!("Expect: 100-continue\r\nContent-Length: 0\r\n\r\n"), &[POST]),
    valid("no length on a POST", post!("\r\n"), &[POST]),
    valid("expectation", post!("Expect: 100-Continue\r\nContent-Length: 5\r\n\r\nhello"), &[Expected { expects_continue: true, ..HELLO }]),
    valid("expectation of a chunked body", b"POST /fn/echo HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", &[Expected { expects_continue: true, ..HELLO }]),
    valid("white space around a length", post!("Content-Length: \t 5 \t\r\n\r\nhello"), &[HELLO]),
    valid("no white space before a length", post!("Content-Length:5\r\n\r\nhello"), &[HELLO]),
    valid("CHUNKED in capitals", b"POST /fn/echo HTTP/1.1\r\nHOST: h\r\nTRANSFER-ENCODING: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n", &[HELLO]),
    valid("chunk of every size of digit", chunked!("1\r\nh\r\n01\r\ne\r\n0000000000000003\r\nllo\r\n0\r\n\r\n"), &[HELLO]),
    valid("chunk size in both cases", chunked!("a\r\nhellohello\r\nA\r\nhellohello\r\n0\r\n\r\n"), &[Expected { body: b"hellohellohellohello", ..POST }]),
    valid("chunk extensions", chunked!("5;a\r\nhello\r\n0;a=b;c=\"d;\te\"\r\n\r\n"), &[HELLO]),
    valid("chunk data that looks like framing", chunked!("5\r\n0\r\n\r\n\r\n0\r\n\r\n"), &[Expected { body: b"0\r\n\r\n", ..POST }]),
    valid("empty chunked body", chunked!("0\r\n\r\n"), &[POST]),
    valid("last chunk of many zeros", chunked!("0000\r\n\r\n"), &[POST]),
    valid("trailers", chunked!("5\r\nhello\r\n0\r\nX-Checksum: abc\r\nExpires: never\r\n\r\n"), &[HELLO]),
    valid("empty trailer value", chunked!("5\r\nhello\r\n0\r\nX:\r\n\r\n"), &[HELLO]),
    valid("request after trailers", b"POST /fn/echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", &[POST, GET]),
    valid("TE is not Transfer-Encoding", post!("TE: trailers\r\nContent-Length: 5\r\n\r\nhello"), &[HELLO]),
    valid("names that nearly frame", post!("Content_Length: 9\r\nX-Transfer-Encoding: chunked\r\nContent-Lengt: 1\r\n\r\n"), &[POST]),
    valid("Connection closes", post!("Connection: close\r\n\r\n"), &[Expected { keep_alive: false, ..POST }]),
    valid("Connection closes among others", post!("Connection: foo, CLOSE ,bar\r\n\r\n"), &[Expected { keep_alive: false, ..POST }]),
    valid("Connection closes in a second field", post!("Connection: keep-alive\r\nConnection: close\r\n\r\n"), &[Expected { keep_alive: false, ..POST }]),
    valid("HTTP/1.0 that asks for both", b"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", &[Expected { keep_alive: false, ..GET }]),
    valid("Connection of an upgrade that is ignored", b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n", &[GET]),
    valid("absolute form", b"POST http://h/fn/echo HTTP/1.1\r\nHost: h\r\n\r\n", &[POST]),
    valid("absolute form in other case", b"POST HTTP://H:80/fn/echo HTTP/1.1\r\nHost: h:80\r\n\r\n", &[POST]),
    valid("absolute form without a path", b"GET http://h HTTP/1.1\r\nHost: h\r\n\r\n", &[GET]),
    valid("absolute form of a query alone", b"GET http://h?q HTTP/1.1\r\nHost: h\r\n\r\n", &[Expected { query: Some("q"), ..GET }]),
    valid("absolute form in HTTP/1.0 without Host", b"GET http://h/ HTTP/1.0\r\n\r\n", &[Expected { keep_alive: false, ..GET }]),
    valid("asterisk", b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", &[Expected { method: Method::Options, path: "*", ..GET }]),
    valid("escapes are kept", b"GET /a%2Fb%00%ff?x=%20 HTTP/1.1\r\nHost: h\r\n\r\n", &[Expected { path: "/a%2Fb%00%ff", query: Some("x=%20"), ..GET }]),
    valid("dots and slashes are kept", b"GET //a/./b/../c// HTTP/1.1\r\nHost: h\r\n\r\n", &[Expected { path: "//a/./b/../c//", ..GET }]),
    valid("every mark of a path", b"GET /-._~!$&'()*+,;=:@ HTTP/1.1\r\nHost: h\r\n\r\n", &[Expected { path: "/-._~!$&'()*+,;=:@", ..GET }]),
    valid("query of marks", b"GET /?a[0]=b|c&{}^`?/ HTTP/1.1\r\nHost: h\r\n\r\n", &[Expected { query: Some("a[0]=b|c&{}^`?/"), ..GET }]),
    valid("empty query", b"GET /? HTTP/1.1\r\nHost: h\r\n\r\n", &[Expected { query: Some(""), ..GET }]),
    valid("lower-case method is another method", b"get / HTTP/1.1\r\nHost: h\r\n\r\n", &[Expected { method: Method::Other, ..GET }]),
    valid("method of odd token characters", b"!#$%&'*+-.^_`|~09 / HTTP/1.1\r\nHost: h\r\n\r\n", &[Expected { method: Method::Other, ..GET }]),
    valid("name of odd token characters", b"GET / HTTP/1.1\r\nHost: h\r\n!#$%&'*+-.^_`|~09: x\r\n\r\n", &[Expected { headers: &[("!#$%&'*+-.^_`|~09", b"x")], ..GET }]),
    valid("values of every allowed byte", b"GET / HTTP/1.1\r\nHost: h\r\nA: \t!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ \t \x80\xff \r\nB:\r\nC:\t \r\n\r\n", &[Expected { headers: &[("a", b"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ \t \x80\xff"), ("b", b""), ("c", b"")], ..GET }]),
    valid("same name twice", b"GET / HTTP/1.1\r\nHost: h\r\nX: 1\r\nx: 2\r\n\r\n", &[Expected { headers: &[("X", b"1")], ..GET }]),
    valid("Host of IPv6", b"GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", &[Expected { headers: &[("host", b"[::1]:8080")], ..GET }]),
    valid("Host with an empty port", b"GET / HTTP/1.1\r\nHost: h:\r\n\r\n", &[GET]),
    valid("Host with an underscore", b"GET / HTTP/1.1\r\nHost: my_service\r\n\r\n", &[GET]),
    valid("Host last", b"GET / HTTP/1.1\r\nX: y\r\nHost: h\r\n\r\n", &[GET]),
];
