//! The bodies of administrative answers.

use serde_json::{Value, json};

use crate::response::{ContentType, Response};
use crate::storage::FunctionRecord;

/// Lines of a log when the client does not say.
const TAIL_LINES: usize = 100;
/// More than this is refused: a log is bounded, and so is an answer.
const TAIL_LINES_MAX: usize = 100_000;

pub(super) fn function(status: u16, record: &FunctionRecord) -> Response {
    json_response(status, &describe(record))
}

pub(super) fn functions<'a>(records: impl Iterator<Item = &'a FunctionRecord>) -> Response {
    let mut records: Vec<&FunctionRecord> = records.collect();
    records.sort_unstable_by(|a, b| a.manifest.name.cmp(&b.manifest.name));
    let all: Vec<Value> = records.into_iter().map(describe).collect();
    json_response(200, &json!({ "functions": all }))
}

pub(super) fn version(worker_id: &str) -> Response {
    json_response(200, &json!({ "version": env!("CARGO_PKG_VERSION"), "worker_id": worker_id }))
}

/// The number of lines that `?tail=N` asks for.
pub(super) fn tail_of(query: &str) -> Result<usize, &'static str> {
    let wrong = "tail takes a whole number from 0 to 100000";
    let mut lines = TAIL_LINES;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("tail", number)) => {
                lines = number.parse().ok().filter(|&lines| lines <= TAIL_LINES_MAX).ok_or(wrong)?;
            }
            _ => return Err("the log takes one parameter, tail=LINES"),
        }
    }
    Ok(lines)
}

pub(super) fn json_response(status: u16, value: &Value) -> Response {
    let mut body = value.to_string().into_bytes();
    body.push(b'\n');
    Response::new(status, ContentType::Json, body)
}

fn describe(record: &FunctionRecord) -> Value {
    let manifest = &record.manifest;
    json!({
        "name": manifest.name,
        "version": record.version,
        "runtime": manifest.runtime.as_str(),
        "handler": manifest.handler,
        "memory_bytes": manifest.memory_bytes,
        "timeout_ms": manifest.timeout_ns / 1_000_000,
        "concurrency": manifest.concurrency,
        "bundle_bytes": record.bundle_bytes,
        "deployed_unix_ms": record.deployed_unix_ms,
        "digest": record.digest,
        "image": manifest.image,
        "pinned": record.image.as_ref().and_then(|image| image.pinned.as_ref()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_is_bounded() {
        assert_eq!(tail_of(""), Ok(TAIL_LINES));
        assert_eq!(tail_of("tail=5"), Ok(5));
        assert!(tail_of("tail=-1").is_err());
        assert!(tail_of("tail=100001").is_err());
        assert!(tail_of("head=5").is_err());
    }
}
