//! The summary for a person: a row a step, where the time went, what failed, and what to think of it.
//!
//! Invariant: pure text of a [`Summary`]; whatever limits the meaning of a number is said beside it.

use super::request::PayloadSize;
use super::summary::{ErrorSummary, P99_VALUES, P999_VALUES, PartSummary, Spread, StepSummary, Summary};
use crate::output::{Align, Table, size};

const SPREAD: [(&str, Align); 6] = [
    ("p50", Align::Right),
    ("p90", Align::Right),
    ("p99", Align::Right),
    ("p99.9", Align::Right),
    ("max", Align::Right),
    ("mean", Align::Right),
];

/// What is being measured, before the figures.
pub(super) fn opening(summary: &Summary) -> String {
    let Summary { server, seed, clients, threads, .. } = summary;
    let manner = match &summary.arrivals {
        None => format!("closed loop, {}", counted(*clients as u64, "client", "clients")),
        Some(arrivals) => format!("open loop, {arrivals} arrivals, at most {clients} connections"),
    };
    let protocol = match summary.pipeline {
        1 => summary.protocol.to_owned(),
        pipeline => format!("{}, {pipeline} in flight on each connection", summary.protocol),
    };
    let threads = counted(*threads as u64, "thread", "threads");
    format!("{manner}, {protocol}, {threads}, {}, seed {seed}, {server}", payload_words(&summary.payloads))
}

/// One size, or all of them with their weights.
fn payload_words(payloads: &[PayloadSize]) -> String {
    if let [only] = payloads {
        return format!("{} payload", size(only.payload_bytes));
    }
    let weighted = |of: &PayloadSize| format!("{}={}", size(of.payload_bytes), of.weight);
    format!("payloads {}", payloads.iter().map(weighted).collect::<Vec<_>>().join(" "))
}

/// A row a step.
pub(super) fn steps(summary: &Summary) -> Table {
    let (first, open) = if summary.arrivals.is_some() { ("rate/s", true) } else { ("clients", false) };
    let mut columns =
        vec![(first, Align::Right), ("requests", Align::Right), ("failed", Align::Right), ("done/s", Align::Right)];
    columns.extend(SPREAD);
    let mut table = Table::new(&columns);
    for step in &summary.steps {
        let first = if open { rate(step.rate_per_s.unwrap_or_default()) } else { summary.clients.to_string() };
        let [p50, p90, p99, p999, max, mean] = spread(step.latency.as_ref());
        let (requests, failed) = (step.requests.to_string(), step.failed.to_string());
        table.row([first, requests, failed, rate(step.throughput_per_s), p50, p90, p99, p999, max, mean]);
    }
    table
}

/// Where the time of one step went.
pub(super) fn parts(step: &StepSummary) -> Table {
    let mut columns = vec![("", Align::Left), ("count", Align::Right)];
    columns.extend(SPREAD);
    let mut table = Table::new(&columns);
    let mut row = |name: &str, values: Option<&Spread>| {
        if let Some(values) = values {
            let [p50, p90, p99, p999, max, mean] = spread(Some(values));
            table.row([name.to_owned(), values.count.to_string(), p50, p90, p99, p999, max, mean]);
        }
    };
    row("latency", step.latency.as_ref());
    if step.rate_per_s.is_some() {
        row("service (from sent)", step.service.as_ref());
    }
    row("warm starts", step.warm.as_ref());
    row("cold starts", step.cold.as_ref());
    row("failed requests", step.failed_latency.as_ref());
    row("worker: queue", step.queue.as_ref());
    row("worker: start", step.start.as_ref());
    row("worker: run", step.run.as_ref());
    row("latency less run", step.overhead.as_ref());
    row("generator lateness", step.generator.lateness.as_ref());
    table
}

/// A row a function, where there are several.
pub(super) fn functions(step: &StepSummary) -> Option<Table> {
    by_weight("function", step.functions.iter().map(|function| (function.name.clone(), function.part)))
}

/// A row a size of payload, where there are several.
pub(super) fn payloads(step: &StepSummary) -> Option<Table> {
    by_weight("payload", step.payloads.iter().map(|payload| (size(payload.payload_bytes), payload.part)))
}

fn by_weight(what: &'static str, parts: impl ExactSizeIterator<Item = (String, PartSummary)>) -> Option<Table> {
    if parts.len() < 2 {
        return None;
    }
    let mut columns =
        vec![(what, Align::Left), ("weight", Align::Right), ("requests", Align::Right), ("failed", Align::Right)];
    columns.extend(SPREAD);
    let mut table = Table::new(&columns);
    for (name, PartSummary { weight, requests, failed, latency }) in parts {
        let [p50, p90, p99, p999, max, mean] = spread(latency.as_ref());
        let [weight, requests, failed] = [u64::from(weight), requests, failed].map(|number| number.to_string());
        table.row([name, weight, requests, failed, p50, p90, p99, p999, max, mean]);
    }
    Some(table)
}

/// Everything of a step that is not in a table, a line each: errors and doubts last.
pub(super) fn remarks(step: &StepSummary) -> Vec<String> {
    let StepSummary { connections, warm_up, generator, .. } = step;
    let mut lines = vec![
        format!("sent {}, received {}", size(step.sent_bytes), size(step.received_bytes)),
        format!(
            "{} opened, {} of them again; warm-up: {}, {} cold, {} failed",
            counted(connections.opened, "connection", "connections"),
            connections.reopened,
            counted(warm_up.requests, "request", "requests"),
            warm_up.cold,
            warm_up.failed
        ),
        format!(
            "the generator's busiest thread ran {:.0}% of the time and waited for a core {:.0}%",
            100.0 * generator.busiest_thread_running_share,
            100.0 * generator.busiest_thread_waiting_share
        ),
    ];
    lines.extend(step.errors.iter().map(|error| {
        format!("failed: {} with {}", counted(error.requests, "request", "requests"), error_words(error))
    }));
    lines.extend(doubts(step));
    lines
}

/// What makes a step's figures mean less than they seem to.
pub(super) fn doubts(step: &StepSummary) -> Vec<String> {
    let StepSummary { connections, generator, .. } = step;
    let mut lines = Vec::new();
    if connections.waited_requests > 0 {
        let waited = counted(connections.waited_requests, "request", "requests");
        let bound = connections.bound;
        lines.push(format!("{waited} found all {bound} connections busy and waited, which counts: see --clients"));
    }
    if step.left_out > 0 {
        let left_out = counted(step.left_out, "request", "requests");
        lines.push(format!("interrupted: {left_out} without an answer are left out"));
    }
    if generator.late {
        let at = generator.late_at.join(", ");
        lines.push(format!(
            "the generator was late at {at}: latency there is an upper bound; give it cores of its own, or lower the rate"
        ));
    }
    if generator.saturated {
        lines.push(
            "the generator was saturated: latency is an upper bound and throughput a lower one; try more --threads, or \
             another machine"
                .to_owned(),
        );
    }
    lines
}

fn error_words(error: &ErrorSummary) -> String {
    match (error.status, &error.error_type, error.broke) {
        (Some(status), Some(error_type), _) => format!("{status} {error_type}"),
        (Some(status), None, _) => status.to_string(),
        (None, _, Some("connect")) => "no connection".to_owned(),
        (None, _, Some("closed")) => "the connection closed before the answer was whole".to_owned(),
        (None, _, Some("malformed")) => "an answer that breaks the protocol".to_owned(),
        (None, _, Some("timeout")) => "no answer in time".to_owned(),
        (None, _, Some(word)) => format!("{word} error"),
        (None, _, None) => "other kinds of errors".to_owned(),
    }
}

fn spread(values: Option<&Spread>) -> [String; 6] {
    let Some(values) = values else { return std::array::from_fn(|_| "-".to_owned()) };
    let enough = |least, value| if values.count >= least { time(value) } else { "-".to_owned() };
    [
        time(values.p50_s),
        time(values.p90_s),
        enough(P99_VALUES, values.p99_s),
        enough(P999_VALUES, values.p999_s),
        time(values.max_s),
        time(values.mean_s),
    ]
}

/// Three significant digits in the unit that keeps them readable: `81.4 us`, `20.3 ms`, `1.25 s`.
fn time(seconds: f64) -> String {
    let (value, unit) = match seconds {
        0.0..0.000_999_5 => (seconds * 1e6, "us"),
        0.000_999_5..0.999_5 => (seconds * 1e3, "ms"),
        _ => (seconds, "s"),
    };
    let decimals = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.decimals$} {unit}")
}

fn rate(per_s: f64) -> String {
    if per_s < 100.0 { format!("{per_s:.1}") } else { format!("{per_s:.0}") }
}

fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::super::clock::ThreadLoad;
    use super::super::driver::Window;
    use super::super::plan::{Extent, Pace, Plan, Protocol};
    use super::super::request::Function;
    use super::super::schedule::Choice;
    use super::super::summary::Measured;
    use super::super::tally::tests::GOOD;
    use super::super::tally::{Broke, Ending, Sample, Tally};
    use super::*;
    use crate::load::arguments::Arrivals;

    const WINDOW: Window = Window { start_ns: 0, counted_from_ns: 1_000_000, end_ns: 1_001_000_000 };

    fn plan(pace: Pace) -> Plan {
        let function = |name: &str, weight| Function { name: name.to_owned(), weight, requests: Vec::new() };
        Plan {
            server: "http://127.0.0.1:7878".to_owned(),
            protocol: Protocol::Http,
            pipeline: 1,
            content_type: String::new(),
            address: ([127, 0, 0, 1], 7878).into(),
            functions: vec![function("hello", 3), function("nap", 1)],
            payloads: vec![
                PayloadSize { payload_bytes: 1 << 10, weight: 9 },
                PayloadSize { payload_bytes: 64 << 10, weight: 1 },
            ],
            pace,
            clients: 2,
            threads: 1,
            warm_up_ns: 1_000_000,
            extent: Extent::Duration { ns: 1_000_000_000 },
            timeout_ns: 1_000_000_000,
            seed: 42,
        }
    }

    fn open() -> Plan {
        plan(Pace::Open { arrivals: Arrivals::Constant, rates_per_s: vec![1_000.0] })
    }

    fn tally() -> Tally {
        let mut tally = Tally::new(2, 2);
        (0..1_000).for_each(|_| tally.record(&GOOD, ""));
        tally.record(
            &Sample { choice: Choice { function: 1, payload: 1 }, ending: Ending::Answered(500), ..GOOD },
            "ValueError",
        );
        tally.record(&Sample { ending: Ending::Broke(Broke::Timeout), done_ns: 2_001_000_000, ..GOOD }, "");
        tally
    }

    fn step(plan: &Plan, tally: Tally, load: ThreadLoad) -> StepSummary {
        let measured = Measured { tally, loads: vec![ThreadLoad::default(), load], cut_ns: None };
        StepSummary::new(plan, plan.steps()[0], WINDOW, &measured)
    }

    const EASY: ThreadLoad = ThreadLoad { running_share: 0.25, waiting_share: 0.01 };

    #[test]
    fn a_step_is_a_row_of_what_was_counted() {
        let plan = open();
        let mut summary = Summary::new(&plan);
        summary.steps.push(step(&plan, tally(), EASY));
        let text = steps(&summary).render();
        let cells: Vec<&str> =
            text.lines().nth(1).unwrap().split("  ").map(str::trim).filter(|c| !c.is_empty()).collect();
        // Two seconds until the last answer, a thousand successes.
        assert_eq!(cells[..5], ["1000", "1002", "2", "500", "1.00 ms"]);
        assert_eq!(cells.len(), 10);
        assert!(opening(&summary).contains("seed 42"));
        assert!(opening(&summary).contains("at most 2 connections, http, 1 thread"));
        let piped = Summary { protocol: "binary", pipeline: 8, ..summary.clone() };
        assert!(opening(&piped).contains("binary, 8 in flight on each connection, 1 thread"));
        let by_function = functions(&summary.steps[0]).unwrap().render();
        assert!(by_function.lines().nth(2).unwrap().starts_with("nap"), "{by_function}");
        assert!(opening(&summary).contains("payloads 1 KiB=9 64 KiB=1, seed"), "{}", opening(&summary));
        let by_payload = payloads(&summary.steps[0]).unwrap().render();
        let large: Vec<&str> = by_payload.lines().nth(2).unwrap().split_whitespace().collect();
        assert_eq!(large[..5], ["64", "KiB", "1", "1", "1"], "{by_payload}");
        let one = Summary { payloads: vec![PayloadSize { payload_bytes: 512, weight: 1 }], ..summary };
        assert!(opening(&one).contains("512 B payload, seed"));
    }

    #[test]
    fn errors_and_doubts_are_said() {
        let plan = open();
        let calm = remarks(&step(&plan, tally(), EASY)).join("\n");
        assert!(calm.contains("failed: 1 request with 500 ValueError"), "{calm}");
        assert!(calm.contains("failed: 1 request with no answer in time"), "{calm}");
        assert!(doubts(&step(&plan, tally(), EASY)).is_empty());
        let mut late = tally();
        (0..100).for_each(|_| late.lateness.saturating_record(150_000));
        late.connections.waited_requests = 7;
        late.left_out = 3;
        let hard = ThreadLoad { running_share: 0.5, waiting_share: 0.45 };
        let said = doubts(&step(&plan, late, hard)).join("\n");
        for word in [
            "7 requests found all 2 connections busy",
            "3 requests without an answer",
            "was late at p50, p99:",
            "saturated",
        ] {
            assert!(said.contains(word), "{said}");
        }
    }

    #[test]
    fn lateness_in_the_tail_is_said_of_the_tail() {
        let plan = open();
        let late = |at_ns: &[u64]| {
            let mut tally = tally();
            (0..1_000 - at_ns.len()).for_each(|_| tally.lateness.saturating_record(1_000));
            at_ns.iter().for_each(|ns| tally.lateness.saturating_record(*ns));
            step(&plan, tally, EASY)
        };
        let tail = late(&[500_000; 2]);
        assert_eq!((tail.generator.late, tail.generator.late_at.as_slice()), (true, &["p99.9"][..]));
        assert!(doubts(&tail).join("\n").contains("the generator was late at p99.9: latency there is an upper bound"));
        assert_eq!(late(&[500_000; 20]).generator.late_at, ["p99", "p99.9"]);
        assert!(!late(&[90_000; 20]).generator.late);
    }

    #[test]
    fn json_has_every_number_with_its_unit() {
        let plan = open();
        let mut summary = Summary::new(&plan);
        summary.steps.push(step(&plan, tally(), EASY));
        let json = serde_json::to_value(&summary).unwrap();
        assert_eq!(json["loop"], "open");
        assert_eq!(json["arrivals"], "constant");
        assert_eq!(json["seed"], 42);
        assert_eq!(json["duration_s"], 1.0);
        assert_eq!(json["interrupted"], false);
        let step = &json["steps"][0];
        assert_eq!(step["requests"], 1_002);
        assert_eq!(step["succeeded"], 1_000);
        assert_eq!(step["failed"], 2);
        for spread in ["latency", "service", "warm", "failed_latency", "queue", "start", "run", "overhead"] {
            for field in ["count", "p50_s", "p90_s", "p99_s", "p99.9_s", "max_s", "mean_s"] {
                assert!(step[spread][field].is_number(), "{spread}.{field}");
            }
        }
        assert_eq!(step["cold"], serde_json::Value::Null);
        assert_eq!(step["errors"][0]["error_type"], "ValueError");
        assert_eq!(step["errors"][1]["broke"], "timeout");
        assert_eq!(step["functions"][1]["failed"], 1);
        assert_eq!(json["payloads"][0], serde_json::json!({"payload_bytes": 1024, "weight": 9}));
        assert_eq!(step["payloads"][1]["payload_bytes"], 65536);
        assert_eq!((&step["payloads"][1]["failed"], &step["payloads"][0]["requests"]), (&1.into(), &1_001.into()));
        for field in ["rate_per_s", "elapsed_s", "throughput_per_s", "received_bytes", "sent_bytes"] {
            assert!(step[field].is_number(), "{field}");
        }
        assert_eq!(step["generator"]["saturated"], false);
        assert_eq!(step["connections"]["bound"], 2);
    }

    #[test]
    fn times_keep_three_digits() {
        assert_eq!(time(0.000_081_44), "81.4 us");
        assert_eq!(time(0.000_999_7), "1.00 ms");
        assert_eq!(time(0.020_34), "20.3 ms");
        assert_eq!(time(1.254), "1.25 s");
        assert_eq!(time(0.0), "0.00 us");
        assert_eq!(time(600.0), "600 s");
    }

    #[test]
    fn few_values_have_no_high_quantile() {
        let plan = plan(Pace::Closed);
        let mut few = Tally::new(2, 2);
        (0..10).for_each(|_| few.record(&GOOD, ""));
        let step = step(&plan, few, EASY);
        let [p50, _, p99, p999, ..] = spread(step.latency.as_ref());
        assert_eq!((p50.as_str(), p99.as_str(), p999.as_str()), ("1.00 ms", "-", "-"));
        assert!(step.generator.lateness.is_none());
    }
}
