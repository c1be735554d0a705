//! `list`, `get` and `remove`: the worker's functions, for a person or (`--json`) for a program.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::client::{Client, FunctionRecord};
use crate::failure::Failure;
use crate::output::{Align, Screen, Table, size, span_ms};

pub(crate) fn list(client: &Client, json: bool, screen: &mut Screen) -> Result<(), Failure> {
    let (functions, raw) = client.functions()?;
    if json {
        return screen.line(format_args!("{raw:#}"));
    }
    if functions.is_empty() {
        return screen.line("no functions yet: `vilya deploy DIR` deploys one");
    }
    screen.table(&overview(&functions, now_unix_ms()))
}

pub(crate) fn get(client: &Client, name: &str, json: bool, screen: &mut Screen) -> Result<(), Failure> {
    let (function, raw) = client.function(name)?;
    if json {
        return screen.line(format_args!("{raw:#}"));
    }
    let deployed = span_ms(now_unix_ms().saturating_sub(function.deployed_unix_ms));
    let lines = [
        ("name", function.name),
        ("version", function.version.to_string()),
        ("runtime", function.runtime),
        ("handler", function.handler),
        ("memory", size(function.memory_bytes)),
        ("timeout", span_ms(function.timeout_ms)),
        ("concurrency", function.concurrency.to_string()),
        ("bundle", size(function.bundle_bytes)),
        ("digest", function.digest),
        ("image", function.pinned.or(function.image).unwrap_or_else(|| "none: this host's system".to_owned())),
        ("deployed", format!("{deployed} ago")),
        ("invoke", format!("POST {}", client.invoke_url(name))),
    ];
    for (label, value) in lines {
        screen.line(format_args!("{label:<12} {value}"))?;
    }
    Ok(())
}

pub(crate) fn remove(client: &Client, name: &str, screen: &mut Screen) -> Result<(), Failure> {
    client.remove(name)?;
    screen.line(format_args!("removed {name}: what it is running now finishes"))
}

fn overview(functions: &[FunctionRecord], now_unix_ms: u64) -> Table {
    let mut table = Table::new(&[
        ("name", Align::Left),
        ("version", Align::Right),
        ("runtime", Align::Left),
        ("memory", Align::Right),
        ("timeout", Align::Right),
        ("concurrency", Align::Right),
        ("bundle", Align::Right),
        ("deployed", Align::Right),
        ("image", Align::Left),
    ]);
    for function in functions {
        let deployed = span_ms(now_unix_ms.saturating_sub(function.deployed_unix_ms));
        table.row([
            function.name.clone(),
            function.version.to_string(),
            function.runtime.clone(),
            size(function.memory_bytes),
            span_ms(function.timeout_ms),
            function.concurrency.to_string(),
            size(function.bundle_bytes),
            format!("{deployed} ago"),
            function.pinned.as_deref().or(function.image.as_deref()).map_or("-".to_owned(), short),
        ]);
    }
    table
}

/// An image's name with as much of its digest as tells it from others.
pub(crate) fn short(image: &str) -> String {
    const DIGITS: usize = 12;
    let cut = image.find("@sha256:").map_or(image.len(), |at| at + "@sha256:".len() + DIGITS);
    image.get(..cut).unwrap_or(image).to_owned()
}

fn now_unix_ms() -> u64 {
    // A clock before 1970 only makes ages wrong.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overview_shows_every_function() {
        let json = r#"{"name":"hello","version":3,"runtime":"python","handler":"main:handle","memory_bytes":134217728,
            "timeout_ms":30000,"concurrency":1,"bundle_bytes":1536,"deployed_unix_ms":1000,"digest":"d",
            "image":"r.example/a:1","pinned":"r.example/a@sha256:0123456789abcdef"}"#;
        let function: FunctionRecord = serde_json::from_str(json).unwrap();
        let text = overview(&[function], 6_000).render();
        let row: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row.join(" "), "hello 3 python 128 MiB 30 s 1 1.5 KiB 5 s ago r.example/a@sha256:0123456789ab");
    }
}
