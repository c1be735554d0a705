//! What a shard counts, and the text in which `/metrics` shows the sum.
//!
//! Invariant: a counter has one writer, its shard, and is plain memory; a scrape asks every shard for a copy. Names
//! follow the OpenTelemetry FaaS conventions where one exists, and are in base units (seconds, bytes). Format:
//! Prometheus text exposition 0.0.4.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use vilya_engine::{FunctionId, Stats};
use vilya_isolate::Stages;

use crate::waiting::{Form, Layer, Waiting};

/// Upper bounds of the duration histogram's buckets, in nanoseconds, with their labels in seconds.
const BUCKETS: [(u64, &str); 16] = [
    (50_000, "0.00005"),
    (100_000, "0.0001"),
    (250_000, "0.00025"),
    (500_000, "0.0005"),
    (1_000_000, "0.001"),
    (2_500_000, "0.0025"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (25_000_000, "0.025"),
    (50_000_000, "0.05"),
    (100_000_000, "0.1"),
    (250_000_000, "0.25"),
    (500_000_000, "0.5"),
    (1_000_000_000, "1"),
    (5_000_000_000, "5"),
    (10_000_000_000, "10"),
];

/// How often each duration was seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Histogram {
    counts: [u64; BUCKETS.len()],
    count: u64,
    sum_ns: u64,
}

impl Histogram {
    pub(crate) fn record(&mut self, ns: u64) {
        let bucket = BUCKETS.partition_point(|&(bound, _)| bound < ns);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.count += 1;
        self.sum_ns = self.sum_ns.saturating_add(ns);
    }

    fn add(&mut self, other: &Histogram) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.count += other.count;
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
    }

    fn write(&self, out: &mut String, name: &str, labels: &str) {
        let mut cumulative = 0;
        for (&(_, bound), count) in BUCKETS.iter().zip(&self.counts) {
            cumulative += count;
            line(out, format_args!("{name}_bucket{{{labels},le=\"{bound}\"}} {cumulative}"));
        }
        line(out, format_args!("{name}_bucket{{{labels},le=\"+Inf\"}} {}", self.count));
        line(out, format_args!("{name}_sum{{{labels}}} {}", seconds(self.sum_ns)));
        line(out, format_args!("{name}_count{{{labels}}} {}", self.count));
    }
}

/// One function's figures on one of its owner shards.
#[derive(Clone, Debug, Default)]
pub(crate) struct FunctionCounters {
    pub(crate) invocations: u64,
    pub(crate) errors: u64,
    pub(crate) timeouts: u64,
    pub(crate) cold_starts: u64,
    pub(crate) run: Histogram,
    pub(crate) queue: Histogram,
    pub(crate) start: Histogram,
}

impl FunctionCounters {
    pub(crate) fn add(&mut self, other: &FunctionCounters) {
        self.invocations += other.invocations;
        self.errors += other.errors;
        self.timeouts += other.timeouts;
        self.cold_starts += other.cold_starts;
        self.run.add(&other.run);
        self.queue.add(&other.queue);
        self.start.add(&other.start);
    }
}

/// A function that lives now, as the control thread knows it.
pub(crate) struct FunctionFigures<'a> {
    pub(crate) id: FunctionId,
    pub(crate) name: &'a str,
    pub(crate) owners: u32,
    /// Times that it was given to another shard or taken from one.
    pub(crate) moves: u64,
    /// What shards counted that own it no more.
    pub(crate) earlier: &'a FunctionCounters,
}

/// What was made ahead.
#[derive(Default)]
pub(crate) struct AheadFigures {
    pub(crate) waiting: Vec<Waiting>,
    /// What of the memory belongs to that.
    pub(crate) kept_back_bytes: u64,
}

impl AheadFigures {
    /// What is taken of what was kept back: an image of a function is its shard's to count.
    pub(crate) fn taken_bytes(&self) -> u64 {
        let is_charged_elsewhere = |one: &&Waiting| one.form == Form::Image && one.layer == Layer::Function;
        self.waiting.iter().filter(|one| !is_charged_elsewhere(one)).filter_map(Waiting::memory_bytes).sum()
    }
}

/// What a shard counts of its connections and threads.
#[derive(Clone, Debug, Default)]
pub(crate) struct ShardCounters {
    pub(crate) connections_accepted: u64,
    pub(crate) connections_refused: u64,
    pub(crate) requests: u64,
    pub(crate) requests_rejected: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) mesh_sent: u64,
    pub(crate) mesh_received: u64,
    pub(crate) log_bytes: u64,
    pub(crate) output_pauses: u64,
    pub(crate) doorbell_pauses: u64,
    pub(crate) poisoned: u64,
    pub(crate) wakes: u64,
    pub(crate) starts: StartCounters,
}

/// What a shard counts of the sandboxes that were started for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct StartCounters {
    /// Copies of their function's zygote.
    copied: u64,
    /// Copies of their runtime's.
    of_runtime: u64,
    /// Copies of either whose image was loaded ahead.
    loaded: u64,
    /// Programs that began in a sandbox that was made before.
    prepared: u64,
    /// Programs whose sandbox was made for them.
    made: u64,
    stages_ns: [u64; STAGES.len()],
}

/// The parts of a start. In a sandbox that was made before, the parts are what was still to do.
const STAGES: [&str; 6] = ["plan", "namespaces", "cgroup", "mounts", "fork", "runtime_ready"];
const RUNTIME_READY: usize = STAGES.len() - 1;

impl StartCounters {
    /// A start came to its end.
    pub(crate) fn record(&mut self, stages: &Stages) {
        let form = match stages {
            Stages { copied: true, of_runtime: false, .. } => &mut self.copied,
            Stages { copied: true, .. } => &mut self.of_runtime,
            Stages { prepared: true, .. } => &mut self.prepared,
            _ => &mut self.made,
        };
        *form += 1;
        self.loaded += u64::from(stages.loaded);
        let parts = [
            stages.planned_ns,
            stages.cloned_ns + stages.placed_ns,
            stages.grouped_ns,
            stages.mounted_ns,
            stages.confined_ns + stages.filtered_ns + stages.executed_ns,
        ];
        for (sum, part) in self.stages_ns.iter_mut().zip(parts) {
            *sum = sum.saturating_add(part);
        }
    }

    /// A runtime became ready so long after its sandbox was started.
    pub(crate) fn record_ready(&mut self, ns: u64) {
        let sum = &mut self.stages_ns[RUNTIME_READY];
        *sum = sum.saturating_add(ns);
    }
}

/// One shard's figures at one moment.
pub(crate) struct ShardReport {
    pub(crate) shard: usize,
    pub(crate) connections_open: u64,
    pub(crate) counters: ShardCounters,
    pub(crate) engine: Stats,
    pub(crate) enters: u64,
    pub(crate) functions: Vec<(FunctionId, FunctionCounters)>,
}

/// The exposition text. `functions` are those that live now.
pub(crate) fn render(reports: &[ShardReport], functions: &[FunctionFigures<'_>], ahead: &AheadFigures) -> String {
    let mut out = String::with_capacity(4096);
    render_functions(&mut out, reports, functions);
    render_owners(&mut out, functions);
    render_shards(&mut out, reports);
    render_ahead(&mut out, ahead);
    out
}

fn render_ahead(out: &mut String, ahead: &AheadFigures) {
    let mut sums: BTreeMap<(Form, Layer), (u64, u64)> = BTreeMap::new();
    for one in &ahead.waiting {
        let (count, bytes) = sums.entry((one.form, one.layer)).or_default();
        *count += 1;
        *bytes += one.memory_bytes().unwrap_or(0);
    }
    let mut gauge = |name: &str, help: &str, of: &dyn Fn(&(u64, u64)) -> u64| {
        family(out, name, "gauge", help);
        for ((form, layer), sum) in &sums {
            let (form, layer) = (form.as_str(), layer.as_str());
            line(out, format_args!("{name}{{form=\"{form}\",layer=\"{layer}\"}} {}", of(sum)));
        }
    };
    gauge("vilya_ahead", "What was made before a function needed it and waits now.", &|sum| sum.0);
    gauge(
        "vilya_ahead_memory_bytes",
        "Memory of that; images of functions are in vilya_layer_memory_bytes too.",
        &|sum| sum.1,
    );
    const KEPT_BACK: &str = "vilya_ahead_reserved_bytes";
    family(
        out,
        KEPT_BACK,
        "gauge",
        "The part of limits.memory that is kept back for that, but for images of functions.",
    );
    line(out, format_args!("{KEPT_BACK}{{limit=\"memory\"}} {}", ahead.kept_back_bytes));
}

fn render_owners(out: &mut String, functions: &[FunctionFigures<'_>]) {
    family(out, "vilya_function_owners", "gauge", "Shards that own the function now.");
    for FunctionFigures { name, owners, .. } in functions {
        line(out, format_args!("vilya_function_owners{{faas_name=\"{name}\"}} {owners}"));
    }
    family(out, "vilya_function_moves_total", "counter", "Times the function was given to a shard or taken from one.");
    for FunctionFigures { name, moves, .. } in functions {
        line(out, format_args!("vilya_function_moves_total{{faas_name=\"{name}\"}} {moves}"));
    }
}

fn render_functions(out: &mut String, reports: &[ShardReport], functions: &[FunctionFigures<'_>]) {
    let mut sums: HashMap<FunctionId, FunctionCounters> =
        functions.iter().map(|function| (function.id, function.earlier.clone())).collect();
    for (id, counters) in reports.iter().flat_map(|report| &report.functions) {
        if let Some(sum) = sums.get_mut(id) {
            sum.add(counters);
        }
    }
    let rows: Vec<(&str, &FunctionCounters)> =
        functions.iter().map(|function| (function.name, &sums[&function.id])).collect();
    let mut counter = |name: &str, help: &str, of: &dyn Fn(&FunctionCounters) -> u64| {
        family(out, name, "counter", help);
        for (function, counters) in &rows {
            line(out, format_args!("{name}{{faas_name=\"{function}\",faas_trigger=\"http\"}} {}", of(counters)));
        }
    };
    counter("faas_invocations_total", "Invocations that the function answered.", &|c| c.invocations);
    counter("faas_errors_total", "Invocations that raised, died or could not start.", &|c| c.errors);
    counter("faas_timeouts_total", "Invocations that ran past their deadline.", &|c| c.timeouts);
    counter("faas_coldstarts_total", "Invocations for which a sandbox was started.", &|c| c.cold_starts);
    let mut histogram = |name: &str, help: &str, of: &dyn Fn(&FunctionCounters) -> &Histogram| {
        family(out, name, "histogram", help);
        for (function, counters) in &rows {
            of(counters).write(out, name, &format!("faas_name=\"{function}\""));
        }
    };
    histogram("faas_invoke_duration_seconds", "Time in the sandbox.", &|c| &c.run);
    histogram("vilya_queue_wait_seconds", "Time in the queue, without the sandbox's start.", &|c| &c.queue);
    histogram("faas_init_duration_seconds", "Time an invocation waited for its sandbox to start.", &|c| &c.start);
}

/// A metric's name, its help, and where a shard's report has it.
type Family<'a> = (&'a str, &'a str, &'a dyn Fn(&ShardReport) -> u64);

fn render_shards(out: &mut String, reports: &[ShardReport]) {
    let mut family_of = |name: &str, kind: &str, help: &str, of: &dyn Fn(&ShardReport) -> u64| {
        family(out, name, kind, help);
        for report in reports {
            line(out, format_args!("{name}{{shard=\"{}\"}} {}", report.shard, of(report)));
        }
    };
    let counters: [Family<'_>; 23] = [
        ("vilya_connections_accepted_total", "Connections accepted.", &|r| r.counters.connections_accepted),
        ("vilya_connections_refused_total", "Connections closed for want of room.", &|r| {
            r.counters.connections_refused
        }),
        ("vilya_http_requests_total", "Whole requests read.", &|r| r.counters.requests),
        ("vilya_http_requests_rejected_total", "Requests refused by the parser.", &|r| r.counters.requests_rejected),
        ("vilya_bytes_received_total", "Bytes read from clients.", &|r| r.counters.bytes_in),
        ("vilya_bytes_sent_total", "Bytes sent to clients.", &|r| r.counters.bytes_out),
        ("vilya_mesh_sent_total", "Messages to other shards.", &|r| r.counters.mesh_sent),
        ("vilya_mesh_received_total", "Messages from other shards.", &|r| r.counters.mesh_received),
        ("vilya_log_bytes_total", "Bytes that functions wrote to their output.", &|r| r.counters.log_bytes),
        ("vilya_doorbell_pauses_total", "Times that a sandbox's doorbell was left alone, for it rang in vain.", &|r| {
            r.counters.doorbell_pauses
        }),
        ("vilya_output_pauses_total", "Times that a function's output had to wait, for much of it was read.", &|r| {
            r.counters.output_pauses
        }),
        ("vilya_sandboxes_poisoned_total", "Sandboxes killed for an impossible claim.", &|r| r.counters.poisoned),
        ("vilya_ring_enters_total", "io_uring_enter calls.", &|r| r.enters),
        ("vilya_sandbox_wakes_total", "Wake-ups of parked sandboxes, a system call each.", &|r| r.counters.wakes),
        ("vilya_lanes_reclaimed_total", "Lanes taken back from slow clients.", &|r| r.engine.reclaimed),
        ("vilya_sandbox_trims_total", "Idle sandboxes advised to give memory back.", &|r| r.engine.trimmed),
        ("vilya_sandbox_freezes_total", "Idle sandboxes frozen.", &|r| r.engine.froze - r.engine.not_frozen),
        ("vilya_sandbox_freezes_failed_total", "Idle sandboxes that cannot be frozen.", &|r| r.engine.not_frozen),
        ("vilya_sandbox_demotions_total", "Sandboxes told to give way in a long run.", &|r| r.engine.demoted),
        ("vilya_layers_kept_total", "Images of functions that were given a place in the shard's memory.", &|r| {
            r.engine.layers_kept
        }),
        ("vilya_layers_evicted_total", "Images that had no place or were dropped for want of room.", &|r| {
            r.engine.layers_evicted
        }),
        ("vilya_layers_expired_total", "Images that nobody used for the keep-alive time.", &|r| {
            r.engine.layers_expired
        }),
        ("vilya_sandbox_thaws_total", "Frozen sandboxes thawed for an invocation.", &|r| r.engine.thawed),
    ];
    for (name, help, of) in counters {
        family_of(name, "counter", help, of);
    }
    let gauges: [Family<'_>; 12] = [
        ("vilya_connections_open", "Connections open now.", &|r| r.connections_open),
        ("vilya_invocations_open", "Invocations queued, arriving or running now.", &|r| {
            u64::from(r.engine.queued + r.engine.reserved + r.engine.running)
        }),
        ("vilya_lanes_reserved", "Lanes whose payload is arriving now.", &|r| u64::from(r.engine.reserved)),
        ("vilya_lanes_held", "Lanes whose answer is being sent now.", &|r| u64::from(r.engine.held)),
        ("vilya_invocations_queued", "Invocations queued now.", &|r| u64::from(r.engine.queued)),
        ("vilya_sandboxes", "Sandboxes alive now.", &|r| u64::from(r.engine.sandboxes)),
        ("vilya_sandbox_memory_bytes", "Memory promised to the sandboxes alive now.", &|r| r.engine.memory.as_bytes()),
        ("vilya_layers", "Images of functions that the shard is charged for now.", &|r| u64::from(r.engine.layers)),
        ("vilya_layer_memory_bytes", "Memory of those images.", &|r| r.engine.layer_memory.as_bytes()),
        ("vilya_sandboxes_idle", "Sandboxes that run nothing now.", &|r| u64::from(r.engine.idle)),
        ("vilya_sandboxes_frozen", "Idle sandboxes that are frozen now.", &|r| u64::from(r.engine.frozen)),
        ("vilya_sandboxes_warm_missing", "Sandboxes that functions lack of their min_warm.", &|r| {
            u64::from(r.engine.warm_missing)
        }),
    ];
    for (name, help, of) in gauges {
        family_of(name, "gauge", help, of);
    }
    render_starts(out, reports);
}

fn render_starts(out: &mut String, reports: &[ShardReport]) {
    const STARTS: &str = "vilya_sandbox_starts_total";
    family(
        out,
        STARTS,
        "counter",
        "Sandboxes started, by how: a copy of the function's zygote, of its runtime's, in a sandbox made before, in one made for it.",
    );
    for ShardReport { shard, counters, .. } in reports {
        let StartCounters { copied, of_runtime, prepared, made, .. } = counters.starts;
        for (form, count) in [("copy", copied), ("runtime", of_runtime), ("prepared", prepared), ("made", made)] {
            line(out, format_args!("{STARTS}{{shard=\"{shard}\",form=\"{form}\"}} {count}"));
        }
    }
    const LOADED: &str = "vilya_sandbox_starts_loaded_total";
    family(
        out,
        LOADED,
        "counter",
        "Of the sandboxes that are copies, those that had loaded the image before they were asked for.",
    );
    for ShardReport { shard, counters, .. } in reports {
        line(out, format_args!("{LOADED}{{shard=\"{shard}\"}} {}", counters.starts.loaded));
    }
    const SECONDS: &str = "vilya_sandbox_start_seconds_total";
    family(out, SECONDS, "counter", "Time that starts took, by stage.");
    for ShardReport { shard, counters, .. } in reports {
        for (stage, ns) in STAGES.iter().zip(counters.starts.stages_ns) {
            line(out, format_args!("{SECONDS}{{shard=\"{shard}\",stage=\"{stage}\"}} {}", seconds(ns)));
        }
    }
}

fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    line(out, format_args!("# HELP {name} {help}"));
    line(out, format_args!("# TYPE {name} {kind}"));
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = out.write_fmt(text);
    out.push('\n');
}

fn seconds(ns: u64) -> String {
    format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_functions_figures_are_those_of_all_its_owners_past_and_present() {
        let id = FunctionId { index: 0, generation: 1 };
        let counters = |invocations| {
            let mut counters = FunctionCounters { invocations, ..FunctionCounters::default() };
            counters.run.record(60_000);
            counters
        };
        let report = |shard, invocations| ShardReport {
            shard,
            connections_open: 0,
            counters: ShardCounters::default(),
            engine: Stats::default(),
            enters: 0,
            functions: vec![(id, counters(invocations))],
        };
        let earlier = counters(4);
        let figures = [FunctionFigures { id, name: "f", owners: 2, moves: 3, earlier: &earlier }];
        let text = render(&[report(0, 10), report(1, 200)], &figures, &AheadFigures::default());
        assert!(text.contains("faas_invocations_total{faas_name=\"f\",faas_trigger=\"http\"} 214\n"), "{text}");
        assert!(text.contains("faas_invoke_duration_seconds_count{faas_name=\"f\"} 3\n"), "{text}");
        assert!(text.contains("vilya_function_owners{faas_name=\"f\"} 2\n"), "{text}");
        assert!(text.contains("vilya_function_moves_total{faas_name=\"f\"} 3\n"), "{text}");
    }

    #[test]
    fn a_histogram_is_cumulative_and_ends_in_infinity() {
        let mut histogram = Histogram::default();
        for ns in [40_000, 50_000, 60_000, 20_000_000_000] {
            histogram.record(ns);
        }
        let mut out = String::new();
        histogram.write(&mut out, "d", "f=\"x\"");
        assert!(out.contains("d_bucket{f=\"x\",le=\"0.00005\"} 2\n"), "{out}");
        assert!(out.contains("d_bucket{f=\"x\",le=\"0.0001\"} 3\n"), "{out}");
        assert!(out.contains("d_bucket{f=\"x\",le=\"10\"} 3\n"), "{out}");
        assert!(out.contains("d_bucket{f=\"x\",le=\"+Inf\"} 4\n"), "{out}");
        assert!(out.contains("d_sum{f=\"x\"} 20.000150000\n"), "{out}");
    }
}
