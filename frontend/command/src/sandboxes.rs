//! `ps`: the worker's sandboxes, for a person or (`--json`) for a program.

use crate::client::{AheadRow, Client, Population, SandboxRow};
use crate::failure::Failure;
use crate::functions::short;
use crate::output::{Align, Screen, Table, size, span_ms};

pub(crate) fn ps(client: &Client, json: bool, screen: &mut Screen) -> Result<(), Failure> {
    let (Population { sandboxes, ahead }, raw) = client.sandboxes()?;
    if json {
        return screen.line(format_args!("{raw:#}"));
    }
    if sandboxes.is_empty() {
        screen.line("no sandboxes: they are started when a function is invoked, or by its min_warm")?;
    } else {
        screen.table(&overview(&sandboxes))?;
    }
    let ahead = ahead.unwrap_or_default();
    if !ahead.is_empty() {
        screen.line("")?;
        screen.table(&made_ahead(&ahead))?;
    }
    Ok(())
}

/// What belongs to no invocation, one row for all that are alike.
fn made_ahead(rows: &[AheadRow]) -> Table {
    let mut table = Table::new(&[
        ("made ahead", Align::Left),
        ("layer", Align::Left),
        ("of", Align::Left),
        ("state", Align::Left),
        ("number", Align::Right),
        ("memory", Align::Right),
        ("oldest", Align::Right),
    ]);
    let alike = |one: &AheadRow, other: &AheadRow| {
        (&one.form, &one.layer, &one.of, &one.state) == (&other.form, &other.layer, &other.of, &other.state)
    };
    // The worker has put like to like.
    for group in rows.chunk_by(alike) {
        let first = &group[0];
        let memory: u64 = group.iter().filter_map(|one| one.memory_bytes).sum();
        let oldest = group.iter().map(|one| one.age_ms).max().unwrap_or(0);
        table.row([
            first.form.clone(),
            first.layer.clone(),
            first.of.clone().unwrap_or_else(|| "-".to_owned()),
            first.state.clone(),
            group.len().to_string(),
            size(memory),
            span_ms(oldest),
        ]);
    }
    table
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
    fn what_is_alike_is_one_row() {
        let json = r#"{"sandboxes":[],"ahead":[
            {"state":"ahead","form":"sandbox","layer":"bare","of":null,"pid":7,"age_ms":5000,"memory_bytes":1024},
            {"state":"ahead","form":"sandbox","layer":"bare","of":null,"pid":8,"age_ms":9000,"memory_bytes":null},
            {"state":"ahead","form":"process","layer":"runtime","of":"node","pid":9,"age_ms":20,"memory_bytes":2048}]}"#;
        let population = serde_json::from_str::<Population>(json).unwrap();
        let text = made_ahead(&population.ahead.unwrap()).render();
        let rows: Vec<String> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(rows[1..], ["sandbox bare - ahead 2 1 KiB 9 s", "process runtime node ahead 1 2 KiB 20 ms"]);
        assert!(serde_json::from_str::<Population>(r#"{"sandboxes":[],"ahead":null}"#).unwrap().ahead.is_none());
    }

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
