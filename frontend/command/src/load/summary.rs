//! What a run came to, as plain numbers: in seconds and bytes, each name ending in its unit. The JSON is this as it
//! stands, the tables are made from it.
//!
//! Invariant: pure; a function of tallies and loads.

use hdrhistogram::Histogram;
use serde::Serialize;

use super::clock::ThreadLoad;
use super::driver::Window;
use super::plan::{Extent, Pace, Plan};
use super::request::PayloadSize;
use super::tally::{ErrorKind, PartTally, Tally};

/// Lateness over this part of latency, at the same quantile, makes the latency doubtful.
const LATE_SHARE: f64 = 0.1;
/// A thread that ran, or waited for a core, over this share of the time may have been what limited throughput.
const SATURATED_SHARE: f64 = 0.9;

/// Fewer values than this have no such quantile worth a number.
pub(super) const P99_VALUES: u64 = 100;
pub(super) const P999_VALUES: u64 = 1_000;

/// How values are spread. Times in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) count: u64,
    pub(super) p50_s: f64,
    pub(super) p90_s: f64,
    pub(super) p99_s: f64,
    #[serde(rename = "p99.9_s")]
    pub(super) p999_s: f64,
    pub(super) max_s: f64,
    pub(super) mean_s: f64,
}

impl Spread {
    /// `None` of nothing.
    pub(super) fn of(histogram: &Histogram<u64>) -> Option<Spread> {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e9;
        (!histogram.is_empty()).then(|| Spread {
            count: histogram.len(),
            p50_s: at(0.5),
            p90_s: at(0.9),
            p99_s: at(0.99),
            p999_s: at(0.999),
            max_s: histogram.max() as f64 / 1e9,
            mean_s: histogram.mean() / 1e9,
        })
    }
}

/// The part of the requests that a weight gave.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct PartSummary {
    pub(super) weight: u32,
    pub(super) requests: u64,
    pub(super) failed: u64,
    pub(super) latency: Option<Spread>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct FunctionSummary {
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) part: PartSummary,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct PayloadSummary {
    pub(super) payload_bytes: u64,
    #[serde(flatten)]
    pub(super) part: PartSummary,
}

/// One kind of error: an answer's status and type, or what broke.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct ErrorSummary {
    pub(super) status: Option<u16>,
    pub(super) error_type: Option<String>,
    pub(super) broke: Option<&'static str>,
    pub(super) requests: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct WarmUpSummary {
    pub(super) requests: u64,
    pub(super) cold: u64,
    pub(super) failed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct ConnectionSummary {
    pub(super) bound: usize,
    pub(super) opened: u64,
    pub(super) reopened: u64,
    /// Requests that were due when the bound was reached and every connection busy.
    pub(super) waited_requests: u64,
}

/// What the generator says of itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct GeneratorSummary {
    /// Absent in a closed loop, where nothing is due.
    pub(super) lateness: Option<Spread>,
    pub(super) busiest_thread_running_share: f64,
    pub(super) busiest_thread_waiting_share: f64,
    /// At any quantile.
    pub(super) late: bool,
    /// The quantiles of latency that lateness makes doubtful, of `p50`, `p99` and `p99.9`.
    pub(super) late_at: Vec<&'static str>,
    pub(super) saturated: bool,
}

/// One row of the report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct StepSummary {
    /// Requests due per second; absent in a closed loop.
    pub(super) rate_per_s: Option<f64>,
    /// From the first that could count to the last answer, and at least the duration.
    pub(super) elapsed_s: f64,
    pub(super) requests: u64,
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    /// Requests that an interrupt left without an answer; they count nowhere else.
    pub(super) left_out: u64,
    /// Successes per second of `elapsed_s`.
    pub(super) throughput_per_s: f64,
    pub(super) received_bytes: u64,
    pub(super) sent_bytes: u64,
    pub(super) latency: Option<Spread>,
    pub(super) service: Option<Spread>,
    pub(super) warm: Option<Spread>,
    pub(super) cold: Option<Spread>,
    pub(super) failed_latency: Option<Spread>,
    pub(super) queue: Option<Spread>,
    pub(super) start: Option<Spread>,
    pub(super) run: Option<Spread>,
    pub(super) overhead: Option<Spread>,
    pub(super) functions: Vec<FunctionSummary>,
    pub(super) payloads: Vec<PayloadSummary>,
    pub(super) errors: Vec<ErrorSummary>,
    pub(super) connections: ConnectionSummary,
    pub(super) warm_up: WarmUpSummary,
    pub(super) generator: GeneratorSummary,
}

/// What became of the rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct RowsSummary {
    pub(super) file: String,
    pub(super) written_rows: u64,
    pub(super) dropped_rows: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Summary {
    pub(super) server: String,
    /// `http` or `binary`.
    pub(super) protocol: &'static str,
    /// Most requests in flight on one connection.
    pub(super) pipeline: usize,
    pub(super) seed: u64,
    /// `closed` or `open`.
    #[serde(rename = "loop")]
    pub(super) pace: &'static str,
    /// `poisson` or `constant`, in an open loop.
    pub(super) arrivals: Option<String>,
    pub(super) clients: usize,
    pub(super) threads: usize,
    pub(super) payloads: Vec<PayloadSize>,
    pub(super) warm_up_s: f64,
    pub(super) duration_s: Option<f64>,
    pub(super) count: Option<u64>,
    pub(super) timeout_s: f64,
    pub(super) interrupted: bool,
    pub(super) rows: Option<RowsSummary>,
    pub(super) steps: Vec<StepSummary>,
}

impl StepSummary {
    pub(super) fn new(plan: &Plan, rate_per_s: Option<f64>, window: Window, measured: &Measured) -> StepSummary {
        let tally = &measured.tally;
        let elapsed_s = elapsed_s(window, measured);
        let failed = tally.failures();
        let succeeded = tally.requests - failed;
        let latency = Spread::of(&tally.latency);
        StepSummary {
            rate_per_s,
            elapsed_s,
            requests: tally.requests,
            succeeded,
            failed,
            left_out: tally.left_out,
            throughput_per_s: if elapsed_s > 0.0 { succeeded as f64 / elapsed_s } else { 0.0 },
            received_bytes: tally.bytes_in,
            sent_bytes: tally.bytes_out,
            latency,
            service: Spread::of(&tally.service),
            warm: Spread::of(&tally.warm),
            cold: Spread::of(&tally.cold),
            failed_latency: Spread::of(&tally.failed),
            queue: Spread::of(&tally.queue),
            start: Spread::of(&tally.start),
            run: Spread::of(&tally.run),
            overhead: Spread::of(&tally.overhead),
            functions: functions(plan, tally),
            payloads: payloads(plan, tally),
            errors: tally.errors.iter().map(|(kind, requests)| error(kind, *requests)).collect(),
            connections: ConnectionSummary {
                bound: plan.clients,
                opened: tally.connections.opened,
                reopened: tally.connections.reopened,
                waited_requests: tally.connections.waited_requests,
            },
            warm_up: WarmUpSummary {
                requests: tally.warm_up.requests,
                cold: tally.warm_up.cold,
                failed: tally.warm_up.failed,
            },
            generator: generator(latency, tally, &measured.loads),
        }
    }

    /// True if every failure was that nobody took a connection.
    pub(super) fn nobody_there(&self) -> bool {
        self.succeeded == 0
            && !self.errors.is_empty()
            && self.errors.iter().all(|error| error.broke == Some(super::tally::Broke::Connect.word()))
    }
}

/// What the threads of one step found, together.
pub(super) struct Measured {
    pub(super) tally: Tally,
    pub(super) loads: Vec<ThreadLoad>,
    /// When an interrupt ended the step, on the run's clock.
    pub(super) cut_ns: Option<u64>,
}

fn elapsed_s(window: Window, measured: &Measured) -> f64 {
    let scheduled_ns = if window.end_ns == u64::MAX { 0 } else { window.end_ns };
    // An interrupt may come before the window's end.
    let until_ns = scheduled_ns.min(measured.cut_ns.unwrap_or(u64::MAX)).max(measured.tally.last_done_ns);
    until_ns.saturating_sub(window.counted_from_ns) as f64 / 1e9
}

fn functions(plan: &Plan, tally: &Tally) -> Vec<FunctionSummary> {
    let both = plan.functions.iter().zip(&tally.functions);
    both.map(|(function, tally)| FunctionSummary { name: function.name.clone(), part: part(function.weight, tally) })
        .collect()
}

fn payloads(plan: &Plan, tally: &Tally) -> Vec<PayloadSummary> {
    let both = plan.payloads.iter().zip(&tally.payloads);
    both.map(|(size, tally)| PayloadSummary { payload_bytes: size.payload_bytes, part: part(size.weight, tally) })
        .collect()
}

fn part(weight: u32, tally: &PartTally) -> PartSummary {
    PartSummary { weight, requests: tally.requests, failed: tally.failed, latency: Spread::of(&tally.latency) }
}

fn error(kind: &ErrorKind, requests: u64) -> ErrorSummary {
    let none = ErrorSummary { status: None, error_type: None, broke: None, requests };
    match kind {
        ErrorKind::Status { status, error_type } => {
            let error_type = (!error_type.is_empty()).then(|| error_type.clone());
            ErrorSummary { status: Some(*status), error_type, ..none }
        }
        ErrorKind::Broke(broke) => ErrorSummary { broke: Some(broke.word()), ..none },
        ErrorKind::Other => none,
    }
}

fn generator(latency: Option<Spread>, tally: &Tally, loads: &[ThreadLoad]) -> GeneratorSummary {
    let lateness = Spread::of(&tally.lateness);
    let busiest = loads.iter().copied().max_by(|a, b| a.total().total_cmp(&b.total())).unwrap_or_default();
    let late_at = lateness.zip(latency).map_or(Vec::new(), |(lateness, latency)| late_at(&lateness, &latency));
    GeneratorSummary {
        lateness,
        busiest_thread_running_share: busiest.running_share,
        busiest_thread_waiting_share: busiest.waiting_share,
        late: !late_at.is_empty(),
        late_at,
        saturated: busiest.total() > SATURATED_SHARE,
    }
}

fn late_at(lateness: &Spread, latency: &Spread) -> Vec<&'static str> {
    let quantiles = [
        ("p50", 1, lateness.p50_s, latency.p50_s),
        ("p99", P99_VALUES, lateness.p99_s, latency.p99_s),
        ("p99.9", P999_VALUES, lateness.p999_s, latency.p999_s),
    ];
    let late = quantiles.iter().filter(|(_, values, lateness_s, latency_s)| {
        lateness.count >= *values && *lateness_s > LATE_SHARE * *latency_s
    });
    late.map(|(name, ..)| *name).collect()
}

impl Summary {
    /// The run's own numbers; `steps` come as they are done.
    pub(super) fn new(plan: &Plan) -> Summary {
        let (pace, arrivals) = match &plan.pace {
            Pace::Closed => ("closed", None),
            Pace::Open { arrivals, .. } => ("open", Some(format!("{arrivals:?}").to_lowercase())),
        };
        let (duration_s, count) = match plan.extent {
            Extent::Duration { ns } => (Some(ns as f64 / 1e9), None),
            Extent::Count(count) => (None, Some(count)),
        };
        Summary {
            server: plan.server.clone(),
            protocol: plan.protocol.word(),
            pipeline: plan.pipeline,
            seed: plan.seed,
            pace,
            arrivals,
            clients: plan.clients,
            threads: plan.threads,
            payloads: plan.payloads.clone(),
            warm_up_s: plan.warm_up_ns as f64 / 1e9,
            duration_s,
            count,
            timeout_s: plan.timeout_ns as f64 / 1e9,
            interrupted: false,
            rows: None,
            steps: Vec::new(),
        }
    }
}
