//! Broken requests from a seed: a right request is made at random, then broken in one way whose outcome is certain.
//!
//! Invariant: the same seed gives the same requests, and no two are equal: each carries its number.
//!
//! Does not know: the decoder.

use super::super::Limits;

/// A request made here, and what must happen to it.
#[derive(Clone, Debug)]
pub struct Generated {
    /// What was done to it.
    pub mutation: &'static str,
    /// Status of the refusal.
    pub status: u16,
    /// What to send.
    pub bytes: Vec<u8>,
}

/// SplitMix64: enough chance for tests, and the same everywhere.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// The parts of a request, right until something is done to them.
#[derive(Clone, Debug)]
struct Parts {
    method: Vec<u8>,
    target: Vec<u8>,
    version: Vec<u8>,
    /// Whole lines without CRLF. The first is the `Host`.
    fields: Vec<Vec<u8>>,
    /// The line that frames the body, if there is one, and the body as sent.
    framing: Option<Vec<u8>>,
    body: Body,
}

#[derive(Clone, Debug)]
enum Body {
    None,
    Plain(Vec<u8>),
    /// Size lines (without CRLF) and data.
    Chunks(Vec<(Vec<u8>, Vec<u8>)>),
}

impl Parts {
    fn random(random: &mut Random, number: u64) -> Parts {
        let mut fields = vec![b"Host: vilya.test".to_vec(), format!("X-Number: {number}").into_bytes()];
        const NAMES: [&str; 6] = ["Accept", "User-Agent", "Content-Type", "traceparent", "X-Data", "Cache-Control"];
        const VALUES: [&str; 5] = ["*/*", "vilya-test/1", "text/plain; charset=utf-8", "a, b;q=0.5", ""];
        for _ in 0..random.below(6) {
            fields.push(format!("{}: {}", random.pick(&NAMES), random.pick(&VALUES)).into_bytes());
        }
        let (framing, body) = match random.below(3) {
            0 => (None, Body::None),
            1 => {
                let body = random_data(random, 40);
                (Some(format!("Content-Length: {}", body.len()).into_bytes()), Body::Plain(body))
            }
            _ => (Some(b"Transfer-Encoding: chunked".to_vec()), random_chunks(random)),
        };
        Parts {
            method: random.pick(&["GET", "POST", "PUT", "DELETE", "PATCH"]).as_bytes().to_vec(),
            target: format!("/fn/echo?n={number}").into_bytes(),
            version: b"HTTP/1.1".to_vec(),
            fields,
            framing,
            body,
        }
    }

    /// Makes the body chunked, for what is done to chunks.
    fn make_chunked(&mut self, random: &mut Random) -> &mut Vec<(Vec<u8>, Vec<u8>)> {
        if !matches!(self.body, Body::Chunks(_)) {
            self.framing = Some(b"Transfer-Encoding: chunked".to_vec());
            self.body = random_chunks(random);
        }
        match &mut self.body {
            Body::Chunks(chunks) => chunks,
            Body::None | Body::Plain(_) => unreachable!("it was made chunked above"),
        }
    }

    /// Puts a line among the fields, anywhere after the `Host`.
    fn add_field(&mut self, random: &mut Random, line: &[u8]) {
        let place = 1 + random.below(self.fields.len());
        self.fields.insert(place, line.to_vec());
    }

    fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for part in [&self.method, &b" ".to_vec(), &self.target, &b" ".to_vec(), &self.version, &b"\r\n".to_vec()] {
            out.extend_from_slice(part);
        }
        for line in self.fields.iter().chain(&self.framing) {
            out.extend_from_slice(line);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
        match &self.body {
            Body::None => {}
            Body::Plain(data) => out.extend_from_slice(data),
            Body::Chunks(chunks) => {
                for (line, data) in chunks {
                    out.extend_from_slice(line);
                    out.extend_from_slice(b"\r\n");
                    out.extend_from_slice(data);
                    out.extend_from_slice(b"\r\n");
                }
                out.extend_from_slice(b"0\r\n\r\n");
            }
        }
        out
    }
}

fn random_data(random: &mut Random, bound: usize) -> Vec<u8> {
    let bytes = 1 + random.below(bound);
    (0..bytes).map(|_| random.next() as u8).collect()
}

fn random_chunks(random: &mut Random) -> Body {
    let count = 1 + random.below(3);
    Body::Chunks(
        (0..count)
            .map(|_| {
                let data = random_data(random, 20);
                (format!("{:x}", data.len()).into_bytes(), data)
            })
            .collect(),
    )
}

/// One way to break a request: its name, the status that must follow, and what it does to the parts.
type Mutation = (&'static str, u16, fn(&mut Parts, &mut Random));

/// A character that no line may hold, CR and LF apart.
fn control(random: &mut Random) -> u8 {
    random.pick(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 14, 15, 16, 20, 25, 27, 30, 31])
}

fn insert_into(text: &mut Vec<u8>, random: &mut Random, start: usize, inserted: &[u8]) {
    let place = start + random.below(text.len() + 1 - start);
    text.splice(place..place, inserted.iter().copied());
}

/// Index just after the colon of the `X-Number` field, inside which anything may be put.
const NUMBER_FIELD: usize = 1;
const NUMBER_VALUE: usize = "X-Number:".len();

#[rustfmt::skip]
const MUTATIONS: &[Mutation] = &[
    ("control character in a value", 400, |parts, random| {
        let byte = control(random);
        insert_into(&mut parts.fields[NUMBER_FIELD], random, NUMBER_VALUE, &[byte]);
    }),
    ("control character in a name", 400, |parts, random| {
        let (byte, place) = (control(random), random.below("X-Number".len()));
        parts.fields[NUMBER_FIELD].insert(place, byte);
    }),
    ("character that is no token's in a name", 400, |parts, random| {
        let byte = random.pick(b" \"(),/;<=>?@[\\]{}\x7f\x80\xff");
        let place = random.below("X-Number".len());
        parts.fields[NUMBER_FIELD].insert(place, byte);
    }),
    ("white space before a colon", 400, |parts, random| {
        let blank = random.pick(b" \t");
        parts.fields[NUMBER_FIELD].insert(NUMBER_VALUE - 1, blank);
    }),
    ("bare LF or CR in a value", 400, |parts, random| {
        let byte = random.pick(b"\r\n");
        // Before the last digit, so that a CR is not followed by the line's own LF or CR.
        let place = parts.fields[NUMBER_FIELD].len() - 1;
        parts.fields[NUMBER_FIELD].insert(place, byte);
    }),
    ("bare LF or CR in the target", 400, |parts, random| {
        let byte = random.pick(b"\r\n");
        insert_into(&mut parts.target, random, 1, &[byte]);
    }),
    ("folded value", 400, |parts, random| {
        let fold = random.pick(&[&b"\r\n "[..], b"\r\n\t", b"\r\n  \t"]);
        insert_into(&mut parts.fields[NUMBER_FIELD], random, NUMBER_VALUE, fold);
    }),
    ("line without a colon", 400, |parts, random| {
        parts.fields[NUMBER_FIELD].remove(NUMBER_VALUE - 1);
        let _ = random.next();
    }),
    ("control character in the target", 400, |parts, random| {
        let byte = control(random);
        insert_into(&mut parts.target, random, 1, &[byte]);
    }),
    ("character in the target that must be escaped", 400, |parts, random| {
        let byte = random.pick(b" \"#<>\\\x7f\x80\xc3\xff");
        insert_into(&mut parts.target, random, 1, &[byte]);
    }),
    ("broken escape in the target", 400, |parts, random| {
        let escape = random.pick(&["%g0", "%0g", "%%00", "%-1", "%+1", "%x", "%u0041"]);
        insert_into(&mut parts.target, random, 1, escape.as_bytes());
    }),
    ("target that is no path", 400, |parts, random| {
        parts.target[0] = random.pick(b"abc*.:;@?=&");
    }),
    ("character that is no token's in the method", 400, |parts, random| {
        let byte = random.pick(b"\"(),/:;<=>?@[\\]{}\x7f\x80\xff");
        let place = random.below(parts.method.len() + 1);
        parts.method.insert(place, byte);
    }),
    ("method that is not implemented", 501, |parts, random| {
        parts.method = random.pick(&["CONNECT", "TRACE"]).as_bytes().to_vec();
    }),
    ("another version", 505, |parts, random| {
        parts.version = random.pick(&["HTTP/0.9", "HTTP/1.2", "HTTP/1.9", "HTTP/2.0", "HTTP/3.0", "HTTP/9.9"]).as_bytes().to_vec();
    }),
    ("no version", 400, |parts, random| {
        parts.version = random.pick(&["", "HTTP", "HTTP/", "HTTP/1", "HTTP/1.", "HTTP/1.1.", "http/1.1", "HTTP/1,1", "HTTP/11", "HTTP/1.11"]).as_bytes().to_vec();
    }),
    ("no Host", 400, |parts, random| {
        parts.fields[0] = random.pick(&[&b"Hos: h"[..], b"Hosts: h", b"X-Host: h"]).to_vec();
    }),
    ("a second Host", 400, |parts, random| {
        let host = random.pick(&["Host: vilya.test", "host: other", "HOST: vilya.test", "hOsT:"]);
        parts.add_field(random, host.as_bytes());
    }),
    ("a Host that is none", 400, |parts, random| {
        let byte = random.pick(b" \t,/?#@%\"<>\\[]{}|^`!$&'()*+;=\x80\xff");
        insert_into(&mut parts.fields[0], random, "Host: v".len(), &[byte, b'x']);
    }),
    ("absolute form of another host", 400, |parts, random| {
        let host = random.pick(&["other", "vilya.test.", "vilya.test:80", "vilya.tes", "u@vilya.test", ""]);
        let path = core::mem::take(&mut parts.target);
        parts.target = [b"http://", host.as_bytes(), &path].concat();
    }),
    ("length and chunked together", 400, |parts, random| {
        parts.make_chunked(random);
        let length = format!("Content-Length: {}", random.below(100));
        parts.add_field(random, length.as_bytes());
    }),
    ("two lengths", 400, |parts, random| {
        parts.body = Body::Plain(b"hello".to_vec());
        parts.framing = Some(b"Content-Length: 5".to_vec());
        let second = random.pick(&["Content-Length: 5", "content-length: 5", "Content-Length: 0", "CONTENT-LENGTH: 6", "Content-Length:5 "]);
        parts.add_field(random, second.as_bytes());
    }),
    ("a length that is no number", 400, |parts, random| {
        parts.body = Body::Plain(b"hello".to_vec());
        let digits = (1 + random.below(9)).to_string();
        let length = match random.below(8) {
            0 => format!("+{digits}"),
            1 => format!("-{digits}"),
            2 => format!("0{digits}"),
            3 => format!("0x{digits}"),
            4 => format!("{digits}, {digits}"),
            5 => format!("{digits} {digits}"),
            6 => format!("{digits}{}", random.pick(&[".0", "e0", "_0", ";", ",", "\"", "a", "L"])),
            _ => String::new(),
        };
        parts.framing = Some(format!("Content-Length: {length}").into_bytes());
    }),
    ("a length over the limit", 413, |parts, random| {
        let over = Limits::DEFAULT.body_bytes + 1 + random.next() % (u64::MAX - Limits::DEFAULT.body_bytes - 1);
        let beyond = random.pick(&["", "0", "00000"]);
        parts.framing = Some(format!("Content-Length: {over}{beyond}").into_bytes());
        parts.body = Body::None;
    }),
    ("a coding that is not exactly chunked", 400, |parts, random| {
        parts.make_chunked(random);
        let coding = random.pick(&[
            "chunked, identity", "identity", "gzip, chunked", "chunked,", ",chunked", "chunked chunked", "chunked;a=b", "xchunked",
            "chunkedx", "\"chunked\"", "", "chunke", "c hunked", "chunked, chunked", "br", "deflate,chunked",
        ]);
        parts.framing = Some(format!("Transfer-Encoding: {coding}").into_bytes());
    }),
    ("two codings", 400, |parts, random| {
        parts.make_chunked(random);
        let second = random.pick(&["Transfer-Encoding: chunked", "transfer-encoding: identity", "TRANSFER-ENCODING:"]);
        parts.add_field(random, second.as_bytes());
    }),
    ("chunked in HTTP/1.0", 400, |parts, random| {
        parts.make_chunked(random);
        parts.version = b"HTTP/1.0".to_vec();
    }),
    ("an expectation that is not met", 417, |parts, random| {
        let expect = random.pick(&["Expect: 101-continue", "Expect: x", "expect: 100-continue, 100-continue", "Expect: 100 continue"]);
        parts.add_field(random, expect.as_bytes());
    }),
    ("a character before a chunk size", 400, |parts, random| {
        let byte = random.pick(b" \t+-xX.,;:_~gG\"\0\x0b\x7f\x80\xff");
        let chunks = parts.make_chunked(random);
        let index = random.below(chunks.len());
        chunks[index].0.insert(0, byte);
    }),
    ("a character after a chunk size", 400, |parts, random| {
        let byte = random.pick(b" \t+-xX.,:_~gG\"\0\x0b\x7f\x80\xff\r\n");
        let chunks = parts.make_chunked(random);
        let index = random.below(chunks.len());
        chunks[index].0.extend_from_slice(&[byte, b' ']);
    }),
    ("no chunk size", 400, |parts, random| {
        let chunks = parts.make_chunked(random);
        let index = random.below(chunks.len());
        chunks[index].0.clear();
    }),
    ("a chunk size of too many digits", 400, |parts, random| {
        let zeros = 17 + random.below(20);
        let chunks = parts.make_chunked(random);
        let index = random.below(chunks.len());
        chunks[index].0.splice(0..0, core::iter::repeat_n(b'0', zeros));
    }),
    ("a chunk size over the limit", 413, |parts, random| {
        let over = Limits::DEFAULT.body_bytes + 1 + random.next() % (u64::MAX - Limits::DEFAULT.body_bytes - 1);
        let chunks = parts.make_chunked(random);
        let index = random.below(chunks.len());
        chunks[index].0 = format!("{over:x}").into_bytes();
    }),
    ("a control character in a chunk extension", 400, |parts, random| {
        let byte = random.pick(b"\0\x01\x08\x0b\x0c\x1f\x7f\n");
        let chunks = parts.make_chunked(random);
        let index = random.below(chunks.len());
        chunks[index].0.extend_from_slice(&[b';', b'a', byte, b'b']);
    }),
    ("a chunk longer than its size", 400, |parts, random| {
        let byte = random.pick(b"x0 \n\0\xff");
        let chunks = parts.make_chunked(random);
        let index = random.below(chunks.len());
        chunks[index].1.push(byte);
    }),
    ("a chunk extension over the limit", 400, |parts, random| {
        let bytes = 300 + random.below(300);
        let chunks = parts.make_chunked(random);
        let index = random.below(chunks.len());
        chunks[index].0.push(b';');
        chunks[index].0.extend(core::iter::repeat_n(b'e', bytes));
    }),
];

/// An endless sequence of distinct broken requests. Statuses hold under [`Limits::DEFAULT`].
#[derive(Clone, Debug)]
pub struct Mutations {
    random: Random,
    number: u64,
}

impl Mutations {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Mutations {
        Mutations { random: Random(seed), number: 0 }
    }

    /// The next request before anything is done to it: one that must be taken.
    pub fn next_valid(&mut self) -> Vec<u8> {
        self.number += 1;
        Parts::random(&mut self.random, self.number).write()
    }
}

impl Iterator for Mutations {
    type Item = Generated;

    fn next(&mut self) -> Option<Generated> {
        self.number += 1;
        let mut parts = Parts::random(&mut self.random, self.number);
        let (mutation, status, apply) = self.random.pick(MUTATIONS);
        apply(&mut parts, &mut self.random);
        Some(Generated { mutation, status, bytes: parts.write() })
    }
}

/// Requests just over each of the given limits, with the smallest over first.
pub fn oversized(limits: &Limits) -> Vec<Generated> {
    let request =
        |target: &str, fields: &str| format!("POST {target} HTTP/1.1\r\nHost: h\r\n{fields}\r\n").into_bytes();
    let target = |bytes: usize| format!("/fn/echo?{}", "q".repeat(bytes - "/fn/echo?".len()));
    let chunked = |body: &str| {
        let mut bytes = request("/fn/echo", "Transfer-Encoding: chunked\r\n");
        bytes.extend_from_slice(body.as_bytes());
        bytes
    };
    let made = |mutation, status, bytes| Generated { mutation, status, bytes };
    // One header is the Host.
    let too_many = "X: y\r\n".repeat(limits.headers);
    let long_value = format!("X: {}\r\n", "v".repeat(limits.head_bytes));
    let long_name = format!("{}: v\r\n", "n".repeat(limits.head_bytes));
    let extensions = format!("1;{}\r\nx\r\n", "e".repeat(250)).repeat(70);
    vec![
        made("target one over the limit", 414, request(&target(limits.target_bytes + 1), "")),
        made("target far over the limit", 414, request(&target(limits.target_bytes * 2), "")),
        made("target without an end", 414, target(limits.target_bytes * 4).into_bytes()),
        made("headers one over the limit", 431, request("/fn/echo", &too_many)),
        made("headers far over the limit", 431, request("/fn/echo", &too_many.repeat(10))),
        made("long value", 431, request("/fn/echo", &long_value)),
        made("long name", 431, request("/fn/echo", &long_name)),
        made("head without an end", 431, request("/fn/echo", &long_value)[..limits.head_bytes + 10].to_vec()),
        made(
            "length one over the limit",
            413,
            request("/fn/echo", &format!("Content-Length: {}\r\n", limits.body_bytes + 1)),
        ),
        made("chunk one over the limit", 413, chunked(&format!("{:x}\r\n", limits.body_bytes + 1))),
        made("second chunk one over the limit", 413, chunked(&format!("1\r\nx\r\n{:x}\r\n", limits.body_bytes))),
        made("long chunk extension", 400, chunked(&format!("1;{}\r\nx\r\n", "e".repeat(300)))),
        made("chunk extensions in sum", 400, chunked(&extensions)),
        made(
            "trailers one over the limit",
            431,
            chunked(&format!("0\r\n{}X: y\r\n\r\n", "X: y\r\n".repeat(limits.headers))),
        ),
        made("long trailer", 431, chunked(&format!("0\r\n{long_value}\r\n"))),
    ]
}
