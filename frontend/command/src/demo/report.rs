//! What the demo found, as a table for a person or JSON for a program.

use serde::Serialize;

use super::measure::Measured;
use crate::output::{Align, Table};

/// Fewer samples than this have no 99th percentile.
const P99_SAMPLES: usize = 100;

/// One function's results.
#[derive(Serialize)]
pub(super) struct Row {
    function: &'static str,
    runtime: &'static str,
    cold_ms: f64,
    cold_start_ms: Option<f64>,
    warm_samples: usize,
    warm_p50_us: f64,
    /// Absent where there are too few samples.
    warm_p99_us: Option<f64>,
    overhead_p50_us: Option<f64>,
    throughput_per_s: f64,
}

impl Row {
    pub(super) fn new(function: &'static str, runtime: &'static str, measured: &Measured) -> Row {
        let us = |ns: u64| ns as f64 / 1e3;
        Row {
            function,
            runtime,
            cold_ms: measured.cold_ns as f64 / 1e6,
            cold_start_ms: measured.cold_start_ns.map(|ns| ns as f64 / 1e6),
            warm_samples: measured.warm_count,
            warm_p50_us: us(measured.warm_p50_ns),
            warm_p99_us: (measured.warm_count >= P99_SAMPLES).then(|| us(measured.warm_p99_ns)),
            overhead_p50_us: measured.overhead_p50_ns.map(us),
            throughput_per_s: measured.throughput_per_s,
        }
    }
}

pub(super) fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&[
        ("function", Align::Left),
        ("runtime", Align::Left),
        ("cold ms", Align::Right),
        ("warm p50 us", Align::Right),
        ("p99 us", Align::Right),
        ("overhead p50 us", Align::Right),
        ("throughput/s", Align::Right),
    ]);
    let or_dash = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.0}"));
    for row in rows {
        table.row([
            row.function.to_owned(),
            row.runtime.to_owned(),
            format!("{:.1}", row.cold_ms),
            format!("{:.0}", row.warm_p50_us),
            or_dash(row.warm_p99_us),
            or_dash(row.overhead_p50_us),
            format!("{:.0}", row.throughput_per_s),
        ]);
    }
    table
}

pub(super) fn json(rows: &[Row]) -> String {
    serde_json::to_string_pretty(rows).expect("numbers and words are JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(warm_count: usize) -> Row {
        let measured = Measured {
            cold_ns: 7_450_000,
            cold_start_ns: None,
            warm_count,
            warm_p50_ns: 81_400,
            warm_p99_ns: 190_000,
            overhead_p50_ns: Some(40_000),
            throughput_per_s: 12_345.6,
        };
        Row::new("hello", "python", &measured)
    }

    #[test]
    fn a_row_has_its_units() {
        let text = table(&[row(1_000)]).render();
        let cells: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(cells, ["hello", "python", "7.5", "81", "190", "40", "12346"]);
    }

    #[test]
    fn too_few_samples_have_no_99th_percentile() {
        let text = table(&[row(20)]).render();
        assert_eq!(text.lines().nth(1).unwrap().split_whitespace().nth(4), Some("-"));
        let json: serde_json::Value = serde_json::from_str(&json(&[row(20)])).unwrap();
        assert_eq!(json[0]["warm_p99_us"], serde_json::Value::Null);
        assert_eq!(json[0]["warm_samples"], 20);
    }
}
