//! `ps`: the worker's sandboxes, for a person or (`--json`) for a program.

use crate::client::{Client, SandboxRow};
use crate::failure::Failure;
use crate::functions::short;
use crate::output::{Align, Screen, Table, size, span_ms};

pub(crate) fn ps(client: &Client, json: bool, screen: &mut Screen) -> Result<(), Failure> {
    let (sandboxes, raw) = client.sandboxes()?;
    if json {
        return screen.line(format_args!("{raw:#}"));
    }
    if sandboxes.is_empty() {
        return screen.line("no sandboxes: they are started when a function is invoked, or by its min_warm");
    }
    screen.table(&overview(&sandboxes))
}

fn overview(sandboxes: &[SandboxRow]) -> Table {
    let mut table = Table::new(&[
        ("function", Align::Left),
        ("version", Align::Right),
        ("shard", Align::Right),
        ("sandbox", Align::Left),
        ("pid", Align::Right),
        ("state", Align::Left),
        ("age", Align::Right),
        ("idle for", Align::Right),
        ("memory", Align::Right),
        ("invocations", Align::Right),
        ("start", Align::Left),
        ("image", Align::Left),
    ]);
    let unknown = || "-".to_owned();
    for one in sandboxes {
        let start = one.start.as_ref().zip(one.start_us);
        table.row([
            one.function.clone(),
            one.version.to_string(),
            one.shard.to_string(),
            one.sandbox.clone(),
            one.pid.map_or_else(unknown, |pid| pid.to_string()),
            one.state.clone(),
            span_ms(one.age_ms),
            one.idle_ms.map_or_else(unknown, span_ms),
            one.memory_bytes.map_or_else(unknown, size),
            one.invocations.to_string(),
            start.map_or_else(unknown, |(form, us)| format!("{form}, {us} us")),
            one.image.as_deref().map_or_else(unknown, short),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_a_dash() {
        let json = r#"[{"function":"f","version":2,"shard":1,"sandbox":"3.4","pid":77,"state":"idle","age_ms":5000,
            "idle_ms":20,"memory_bytes":2048,"invocations":9,"start":"copy","start_us":800},
            {"function":"f","version":2,"shard":1,"sandbox":"4.1","pid":null,"state":"starting","age_ms":1,
            "idle_ms":null,"memory_bytes":null,"invocations":0,"start":null,"start_us":null,"image":"r.example/a@sha256:0"}]"#;
        let text = overview(&serde_json::from_str::<Vec<SandboxRow>>(json).unwrap()).render();
        let row = |number| text.lines().nth(number).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(row(1), "f 2 1 3.4 77 idle 5 s 20 ms 2 KiB 9 copy, 800 us -");
        assert_eq!(row(2), "f 2 1 4.1 - starting 1 ms - - 0 - r.example/a@sha256:0");
    }
}
