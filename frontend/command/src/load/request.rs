//! The requests, rendered once: for each function one a size of payload.
//!
//! Invariant: what a request is on the wire is settled before anything is sent, and all of them together have a bound.

use serde::Serialize;
use vilya_worker::config::units::parse_bytes;

use super::arguments::Load;
use crate::failure::Failure;
use crate::invoke::Payload;

const FUNCTIONS_MAX: usize = 64;
const SIZES_MAX: usize = 64;
/// Of all functions and sizes together: each has its own rendered request.
const REQUESTS_MAX_BYTES: u64 = 1 << 30;

/// A function under load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) weight: u32,
    /// By payload.
    pub(super) requests: Vec<Rendered>,
}

/// A request as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rendered {
    /// Over HTTP, head and body.
    pub(super) bytes: Vec<u8>,
    /// Where in it the body is.
    payload_at: usize,
}

impl Rendered {
    pub(super) fn payload(&self) -> &[u8] {
        &self.bytes[self.payload_at..]
    }
}

/// One of the sizes of payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct PayloadSize {
    pub(super) payload_bytes: u64,
    pub(super) weight: u32,
}

/// What is sent to functions.
pub(super) struct Payloads {
    /// The largest; the others are the beginnings of it.
    pub(super) bytes: Payload,
    /// At least one.
    pub(super) sizes: Vec<PayloadSize>,
}

impl Payloads {
    pub(super) fn new(asked: &Load) -> Result<Payloads, Failure> {
        if asked.payload.is_empty() {
            if asked.data.as_deref() == Some("-") {
                return Err(Failure::usage("-d -: a load reads no standard input; write @FILE"));
            }
            let bytes = Payload::read(asked.data.as_deref(), &mut std::io::empty())?;
            let sizes = vec![PayloadSize { payload_bytes: bytes.bytes.len() as u64, weight: 1 }];
            bounded(&asked.functions, &sizes)?;
            return Ok(Payloads { bytes, sizes });
        }
        let sizes = sizes(&asked.payload)?;
        bounded(&asked.functions, &sizes)?;
        let largest = sizes.iter().map(|size| size.payload_bytes).max().unwrap_or(0);
        let bytes = Payload { bytes: (b'a'..=b'z').cycle().take(largest as usize).collect() };
        Ok(Payloads { bytes, sizes })
    }
}

fn bounded(functions: &[String], sizes: &[PayloadSize]) -> Result<(), Failure> {
    let payload_bytes: u64 = sizes.iter().map(|size| size.payload_bytes).sum();
    if functions.len() > FUNCTIONS_MAX || functions.len() as u64 * payload_bytes > REQUESTS_MAX_BYTES {
        return Err(Failure::usage(format_args!(
            "at most {FUNCTIONS_MAX} functions, and 1GiB of payloads for all of them together"
        )));
    }
    Ok(())
}

fn sizes(typed: &[String]) -> Result<Vec<PayloadSize>, Failure> {
    if typed.len() > SIZES_MAX {
        return Err(Failure::usage(format_args!("--payload: at most {SIZES_MAX} sizes")));
    }
    let mut sizes: Vec<PayloadSize> = Vec::with_capacity(typed.len());
    for word in typed {
        let (size, weight) = weighted(word)?;
        let payload_bytes = parse_bytes(size).map_err(|error| Failure::usage(format_args!("--payload: {error}")))?;
        if payload_bytes > REQUESTS_MAX_BYTES {
            return Err(Failure::usage(format_args!("--payload {size}: at most 1GiB")));
        }
        if sizes.iter().any(|other| other.payload_bytes == payload_bytes) {
            return Err(Failure::usage(format_args!("--payload: {size} is there twice: give it one weight")));
        }
        sizes.push(PayloadSize { payload_bytes, weight });
    }
    Ok(sizes)
}

/// `WORD=WEIGHT` taken apart; the weight is one unless given.
fn weighted(typed: &str) -> Result<(&str, u32), Failure> {
    let (word, weight) = typed.split_once('=').unwrap_or((typed, "1"));
    let weight = weight.parse().ok().filter(|weight| *weight > 0).ok_or_else(|| {
        Failure::usage(format_args!("{typed}: a weight is a whole number of at least 1, as in {word}=3"))
    })?;
    Ok((word, weight))
}

/// What the requests to all functions have in common.
pub(super) struct Shape<'a> {
    pub(super) host: &'a str,
    pub(super) content_type: &'a str,
    /// At least as many as the largest of the sizes.
    pub(super) bytes: &'a [u8],
    pub(super) sizes: &'a [PayloadSize],
}

impl Shape<'_> {
    fn render(&self, name: &str, payload_bytes: u64) -> Rendered {
        let Shape { host, content_type, .. } = self;
        let head = format!(
            "POST /fn/{name} HTTP/1.1\r\nhost: {host}\r\ncontent-type: {content_type}\r\ncontent-length: {payload_bytes}\r\n\r\n"
        );
        let payload = &self.bytes[..payload_bytes as usize];
        Rendered { bytes: [head.as_bytes(), payload].concat(), payload_at: head.len() }
    }
}

/// The functions as typed, with payloads that are within the bound.
pub(super) fn functions(typed: &[String], shape: &Shape<'_>) -> Result<Vec<Function>, Failure> {
    let mut functions: Vec<Function> = Vec::with_capacity(typed.len());
    for word in typed {
        let (name, weight) = weighted(word)?;
        vilya_protocol::name::check(name).map_err(|error| Failure::usage(format_args!("{name:?}: {error}")))?;
        if functions.iter().any(|function| function.name == name) {
            return Err(Failure::usage(format_args!("{name} is named twice: give it one weight")));
        }
        let requests = shape.sizes.iter().map(|size| shape.render(name, size.payload_bytes)).collect();
        functions.push(Function { name: name.to_owned(), weight, requests });
    }
    Ok(functions)
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::plan;
    use super::*;

    #[test]
    fn a_request_is_rendered_once_and_whole() {
        let plan = plan("a=2 b -d {} --seed 9").unwrap();
        assert_eq!(plan.seed, 9);
        assert_eq!(plan.functions[0].weight, 2);
        assert_eq!(
            String::from_utf8_lossy(&plan.functions[1].requests[0].bytes),
            "POST /fn/b HTTP/1.1\r\nhost: 127.0.0.1:7878\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
        );
        assert_eq!(plan.payloads, [PayloadSize { payload_bytes: 2, weight: 1 }]);
    }

    #[test]
    fn each_function_has_a_request_of_each_size() {
        let plan = plan("a b --payload 64KiB=1,1KiB=9,0").unwrap();
        let size = |payload_bytes, weight| PayloadSize { payload_bytes, weight };
        assert_eq!(plan.payloads, [size(65_536, 1), size(1_024, 9), size(0, 1)]);
        for function in &plan.functions {
            let [large, small, empty] = function.requests.as_slice() else { panic!("{:?}", function.requests.len()) };
            assert_eq!([large.payload().len(), small.payload().len(), empty.payload().len()], [65_536, 1_024, 0]);
            assert!(small.payload().ends_with(b"wxyzabcdefghij"));
            let start = format!("POST /fn/{} HTTP/1.1\r\n", function.name);
            assert!(small.bytes.starts_with(start.as_bytes()) && empty.bytes.ends_with(b"content-length: 0\r\n\r\n"));
        }
        assert_eq!(plan.content_type, "text/plain; charset=utf-8");
    }
}
