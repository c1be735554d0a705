//! What is kept of the requests that count: one [`Sample`] each while it passes, and histograms and counts for good.
//!
//! Invariant: memory does not grow with the number of requests. Each thread has a [`Tally`] of its own; they are merged
//! when the threads are done.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::schedule::Choice;

/// The longest time that a histogram tells apart, in nanoseconds: ten minutes. Longer ones count as this.
const LONGEST_NS: u64 = 600_000_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;
/// Kinds of errors kept apart; a function may raise errors with names without end.
const ERROR_KINDS_MAX: usize = 100;
/// Longest errorType kept, in characters.
const ERROR_TYPE_MAX: usize = 80;

/// Why there was no whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Broke {
    /// No connection could be made.
    Connect,
    /// The connection ended before the answer did.
    Closed,
    /// The connection failed in another way.
    Io,
    /// What came was not an answer of the protocol.
    Malformed,
    /// No answer in time.
    Timeout,
}

impl Broke {
    pub(super) fn word(self) -> &'static str {
        match self {
            Broke::Connect => "connect",
            Broke::Closed => "closed",
            Broke::Io => "io",
            Broke::Malformed => "malformed",
            Broke::Timeout => "timeout",
        }
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Answered(u16),
    Broke(Broke),
}

impl Ending {
    pub(super) fn succeeded(self) -> bool {
        matches!(self, Ending::Answered(200..=299))
    }
}

/// What the worker says of where the time went, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Phases {
    pub(super) queue_us: Option<u64>,
    pub(super) start_us: Option<u64>,
    pub(super) run_us: Option<u64>,
}

/// One request that is over. Times are since the run's clock began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) choice: Choice,
    pub(super) due_ns: u64,
    /// Absent if it never went out.
    pub(super) sent_ns: Option<u64>,
    pub(super) done_ns: u64,
    pub(super) ending: Ending,
    /// Whether a sandbox was started for it, where the worker says.
    pub(super) cold: Option<bool>,
    pub(super) phases: Phases,
    /// The shard that ran it, where the worker says.
    pub(super) shard: Option<u16>,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
}

/// Kinds of errors, in the order in which they are told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ErrorKind {
    Status {
        status: u16,
        error_type: String,
    },
    Broke(Broke),
    /// Beyond the kinds that are kept apart.
    Other,
}

/// The requests to one function, or those with one payload.
#[derive(Clone, Debug)]
pub(super) struct PartTally {
    pub(super) latency: Histogram<u64>,
    pub(super) requests: u64,
    pub(super) failed: u64,
}

/// What the warm-up did, which counts nowhere else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct WarmUp {
    pub(super) requests: u64,
    pub(super) cold: u64,
    pub(super) failed: u64,
}

/// Connections and the requests that had to wait for one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Connections {
    pub(super) opened: u64,
    /// Of those, in the place of one that had ended.
    pub(super) reopened: u64,
    /// Counted requests that found every connection that may be open busy.
    pub(super) waited_requests: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Tally {
    /// Of requests that succeeded: from due to done.
    pub(super) latency: Histogram<u64>,
    /// Of requests that succeeded: from sent to done.
    pub(super) service: Histogram<u64>,
    pub(super) cold: Histogram<u64>,
    pub(super) warm: Histogram<u64>,
    /// From due to done of requests that failed.
    pub(super) failed: Histogram<u64>,
    pub(super) queue: Histogram<u64>,
    pub(super) start: Histogram<u64>,
    pub(super) run: Histogram<u64>,
    /// Latency less run.
    pub(super) overhead: Histogram<u64>,
    /// How long after it was due, and a connection to be had, a request was acted on.
    pub(super) lateness: Histogram<u64>,
    pub(super) functions: Vec<PartTally>,
    pub(super) payloads: Vec<PartTally>,
    pub(super) errors: BTreeMap<ErrorKind, u64>,
    pub(super) requests: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) last_done_ns: u64,
    pub(super) warm_up: WarmUp,
    pub(super) connections: Connections,
    /// Requests that an interrupt left without an answer.
    pub(super) left_out: u64,
}

impl PartTally {
    fn record(&mut self, latency_ns: u64, succeeded: bool) {
        self.requests += 1;
        if succeeded {
            self.latency.saturating_record(latency_ns);
        } else {
            self.failed += 1;
        }
    }

    fn merge(&mut self, other: &PartTally) {
        add(&mut self.latency, &other.latency);
        self.requests += other.requests;
        self.failed += other.failed;
    }
}

impl Tally {
    pub(super) fn new(functions: usize, payloads: usize) -> Tally {
        let part = PartTally { latency: histogram(), requests: 0, failed: 0 };
        Tally {
            latency: histogram(),
            service: histogram(),
            cold: histogram(),
            warm: histogram(),
            failed: histogram(),
            queue: histogram(),
            start: histogram(),
            run: histogram(),
            overhead: histogram(),
            lateness: histogram(),
            functions: vec![part.clone(); functions],
            payloads: vec![part; payloads],
            errors: BTreeMap::new(),
            requests: 0,
            bytes_in: 0,
            bytes_out: 0,
            last_done_ns: 0,
            warm_up: WarmUp::default(),
            connections: Connections::default(),
            left_out: 0,
        }
    }

    pub(super) fn failures(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Counts one request; `error_type` is what an answer that is not 2xx said it is.
    pub(super) fn record(&mut self, sample: &Sample, error_type: &str) {
        let latency_ns = sample.done_ns.saturating_sub(sample.due_ns);
        let Choice { function, payload } = sample.choice;
        let parts = [&mut self.functions[function], &mut self.payloads[payload]];
        self.requests += 1;
        self.bytes_in += sample.bytes_in;
        self.bytes_out += sample.bytes_out;
        self.last_done_ns = self.last_done_ns.max(sample.done_ns);
        parts.into_iter().for_each(|part| part.record(latency_ns, sample.ending.succeeded()));
        if !sample.ending.succeeded() {
            self.failed.saturating_record(latency_ns);
            return self.error(kind(sample.ending, error_type), 1);
        }
        self.latency.saturating_record(latency_ns);
        if let Some(sent_ns) = sample.sent_ns {
            self.service.saturating_record(sample.done_ns.saturating_sub(sent_ns));
        }
        match sample.cold {
            Some(true) => self.cold.saturating_record(latency_ns),
            Some(false) => self.warm.saturating_record(latency_ns),
            None => {}
        }
        let Phases { queue_us, start_us, run_us } = sample.phases;
        let ns = |us: u64| us.saturating_mul(1_000);
        queue_us.into_iter().for_each(|us| self.queue.saturating_record(ns(us)));
        start_us.into_iter().for_each(|us| self.start.saturating_record(ns(us)));
        if let Some(us) = run_us {
            self.run.saturating_record(ns(us));
            self.overhead.saturating_record(latency_ns.saturating_sub(ns(us)));
        }
    }

    fn error(&mut self, kind: ErrorKind, count: u64) {
        let known = self.errors.len() < ERROR_KINDS_MAX || self.errors.contains_key(&kind);
        *self.errors.entry(if known { kind } else { ErrorKind::Other }).or_default() += count;
    }

    /// Adds what another thread counted.
    pub(super) fn merge(&mut self, other: &Tally) {
        for (mine, others) in [
            (&mut self.latency, &other.latency),
            (&mut self.service, &other.service),
            (&mut self.cold, &other.cold),
            (&mut self.warm, &other.warm),
            (&mut self.failed, &other.failed),
            (&mut self.queue, &other.queue),
            (&mut self.start, &other.start),
            (&mut self.run, &other.run),
            (&mut self.overhead, &other.overhead),
            (&mut self.lateness, &other.lateness),
        ] {
            add(mine, others);
        }
        for (mine, others) in self.functions.iter_mut().zip(&other.functions) {
            mine.merge(others);
        }
        for (mine, others) in self.payloads.iter_mut().zip(&other.payloads) {
            mine.merge(others);
        }
        other.errors.iter().for_each(|(kind, count)| self.error(kind.clone(), *count));
        self.requests += other.requests;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.last_done_ns = self.last_done_ns.max(other.last_done_ns);
        self.left_out += other.left_out;
        self.warm_up.requests += other.warm_up.requests;
        self.warm_up.cold += other.warm_up.cold;
        self.warm_up.failed += other.warm_up.failed;
        self.connections.opened += other.connections.opened;
        self.connections.reopened += other.connections.reopened;
        self.connections.waited_requests += other.connections.waited_requests;
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_NS, SIGNIFICANT_DIGITS).expect("the bounds are constants that it takes")
}

fn add(mine: &mut Histogram<u64>, others: &Histogram<u64>) {
    mine.add(others).expect("all histograms have the same bounds");
}

fn kind(ending: Ending, error_type: &str) -> ErrorKind {
    match ending {
        Ending::Answered(status) => {
            // It is shown on a terminal, and a function chose it.
            let shown = error_type.chars().filter(|letter| !letter.is_control()).take(ERROR_TYPE_MAX);
            ErrorKind::Status { status, error_type: shown.collect() }
        }
        Ending::Broke(broke) => ErrorKind::Broke(broke),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A warm request that took a millisecond, from being due at once.
    pub(in crate::load) const GOOD: Sample = Sample {
        choice: Choice { function: 0, payload: 0 },
        due_ns: 1_000_000,
        sent_ns: Some(1_200_000),
        done_ns: 2_000_000,
        ending: Ending::Answered(200),
        cold: Some(false),
        phases: Phases { queue_us: Some(3), start_us: Some(0), run_us: Some(600) },
        shard: Some(1),
        bytes_in: 120,
        bytes_out: 80,
    };

    #[test]
    fn a_success_is_in_every_histogram_it_belongs_to() {
        let mut tally = Tally::new(2, 2);
        tally.record(&GOOD, "");
        let other = Choice { function: 1, payload: 1 };
        tally.record(&Sample { choice: other, cold: Some(true), done_ns: 9_000_000, ..GOOD }, "");
        assert_eq!((tally.latency.len(), tally.cold.len(), tally.warm.len(), tally.failed.len()), (2, 1, 1, 0));
        assert!(tally.latency.equivalent(tally.warm.max(), 1_000_000));
        assert!(tally.service.equivalent(tally.service.min(), 800_000));
        assert!(tally.overhead.equivalent(tally.overhead.min(), 400_000));
        assert_eq!((tally.functions[1].requests, tally.payloads[1].requests), (1, 1));
        assert!(tally.payloads[1].latency.equivalent(tally.payloads[1].latency.max(), 8_000_000));
        assert_eq!((tally.bytes_in, tally.bytes_out, tally.last_done_ns), (240, 160, 9_000_000));
    }

    #[test]
    fn errors_are_counted_by_kind_and_kept_out_of_the_latency() {
        let mut tally = Tally::new(1, 1);
        let ended = |ending| Sample { ending, ..GOOD };
        tally.record(&ended(Ending::Answered(500)), "ValueError");
        tally.record(&ended(Ending::Answered(500)), "ValueError");
        tally.record(&ended(Ending::Answered(500)), "KeyError");
        tally.record(&ended(Ending::Answered(429)), "QueueFull\x1b[2J");
        tally.record(&ended(Ending::Broke(Broke::Timeout)), "");
        let status = |status, error_type: &str| ErrorKind::Status { status, error_type: error_type.to_owned() };
        let expected = [
            (status(429, "QueueFull[2J"), 1),
            (status(500, "KeyError"), 1),
            (status(500, "ValueError"), 2),
            (ErrorKind::Broke(Broke::Timeout), 1),
        ];
        assert_eq!(tally.errors.clone().into_iter().collect::<Vec<_>>(), expected);
        assert_eq!((tally.latency.len(), tally.failed.len(), tally.failures(), tally.requests), (0, 5, 5, 5));
    }

    #[test]
    fn error_kinds_without_end_do_not_take_memory_without_end() {
        let mut tally = Tally::new(1, 1);
        for number in 0..1_000 {
            tally.record(&Sample { ending: Ending::Answered(500), ..GOOD }, &format!("E{number}"));
        }
        assert_eq!(tally.errors.len(), ERROR_KINDS_MAX + 1);
        assert_eq!(tally.failures(), 1_000);
        assert_eq!(tally.errors[&ErrorKind::Other], 900);
    }

    #[test]
    fn merging_is_counting_together() {
        let samples = [GOOD, Sample { done_ns: 5_000_000, ..GOOD }, Sample { ending: Ending::Answered(404), ..GOOD }];
        let mut together = Tally::new(1, 1);
        samples.iter().for_each(|sample| together.record(sample, ""));
        let mut merged = Tally::new(1, 1);
        for sample in &samples {
            let mut alone = Tally::new(1, 1);
            alone.record(sample, "");
            merged.merge(&alone);
        }
        assert_eq!(merged.latency, together.latency);
        assert_eq!(merged.errors, together.errors);
        assert_eq!((merged.requests, merged.last_done_ns), (together.requests, together.last_done_ns));
        let part = |tally: &Tally| (tally.payloads[0].requests, tally.payloads[0].failed);
        assert_eq!((part(&merged), part(&together)), ((3, 1), (3, 1)));
    }

    #[test]
    fn what_is_longer_than_the_longest_counts_as_the_longest() {
        let mut tally = Tally::new(1, 1);
        tally.record(&Sample { done_ns: u64::MAX, ..GOOD }, "");
        assert_eq!(tally.latency.len(), 1);
        assert!(tally.latency.max() >= LONGEST_NS);
    }
}
