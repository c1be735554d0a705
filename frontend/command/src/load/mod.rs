//! `load`: requests at a pace, and how long their answers took. It measures like any client, over HTTP or the binary
//! protocol, on sockets of its own, and measures itself as well, so that a figure that it spoiled is called that.
//!
//! | file | is |
//! |---|---|
//! | `arguments`, `plan`, `request` | what was typed; what it comes to; the requests, rendered |
//! | `schedule`, `source` | when requests are due, for which function, with which payload |
//! | `driver`, `connection`, `http`, `binary` | a sending thread; one of its connections, over either protocol |
//! | `heads` | bytes of the binary protocol, and whose they are |
//! | `reach` | where the worker is, and which shard owns which function |
//! | `tally`, `summary`, `report` | counts; numbers; text |
//! | `rows`, `progress` | the CSV file; the bar on a terminal |
//!
//! It does not know: how a worker runs functions, or what an answer means beyond its status, headers and `errorType`.

pub(crate) mod arguments;
mod binary;
mod clock;
mod connection;
mod driver;
mod heads;
mod http;
mod plan;
mod progress;
mod reach;
mod report;
mod request;
mod rows;
mod schedule;
mod source;
mod summary;
mod tally;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{io, thread};

use crate::failure::{Failure, Fault};
use crate::output::Screen;
use crate::signals::StopSignals;
use arguments::Load;
use clock::Clock;
use driver::{Driver, Found, Meter, Task, Window};
use plan::Plan;
use progress::Progress;
use reach::{Routes, knock};
use rows::Rows;
use schedule::Part;
use summary::{Measured, RowsSummary, StepSummary, Summary};
use tally::Tally;

/// Long enough for every thread to be ready before the first request is due.
const LEAD_NS: u64 = 20_000_000;

pub(crate) fn load(server: &str, asked: &Load, screen: &mut Screen) -> Result<(), Failure> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let clock_seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::from(since.subsec_nanos()));
    let plan = Plan::new(server, asked, cores, clock_seed)?;
    let routes = knock(&plan)?;
    plan.reserve_descriptors(routes.lanes())?;
    let interrupted = StopSignals::flag()?;
    if !asked.json {
        screen.line(report::opening(&Summary::new(&plan)))?;
    }
    let outcome = measure(&plan, &routes, asked.csv.as_deref(), &interrupted)?;
    say(&outcome.summary, asked.json, screen)?;
    if let (Some(error), Some(path)) = (&outcome.rows_error, &asked.csv) {
        return Err(Failure::file("write", path, error));
    }
    verdict(&outcome.summary)
}

/// What a run leaves.
struct Outcome {
    summary: Summary,
    /// Why rows are missing from the file.
    rows_error: Option<io::Error>,
}

/// Runs every step; an interrupt ends the run after what was measured until then.
fn measure(plan: &Plan, routes: &Routes, csv: Option<&Path>, interrupted: &AtomicBool) -> Result<Outcome, Failure> {
    let clock = Clock::start();
    let names = plan.functions.iter().map(|function| function.name.clone()).collect();
    let rows = csv.map(|path| Rows::create(path, names)).transpose()?;
    let run = Run { plan, routes, clock, interrupted, rows: rows.as_ref() };
    let mut summary = Summary::new(plan);
    let mut progress = Progress::new(summary.count);
    let (mut origin_ns, mut dropped_rows) = (None, 0);
    let steps = plan.steps();
    for (step, rate_per_s) in steps.iter().copied().enumerate() {
        let window = Window::new(plan, clock.now_ns() + LEAD_NS);
        let origin_ns = *origin_ns.get_or_insert(window.counted_from_ns);
        let (measured, dropped) = run.step(&Step { step, rate_per_s, window, origin_ns }, &mut progress)?;
        dropped_rows += dropped;
        summary.steps.push(StepSummary::new(plan, rate_per_s, window, &measured));
        // Relaxed: a flag that stands alone.
        if interrupted.load(Ordering::Relaxed) {
            summary.interrupted = true;
            break;
        }
    }
    let mut rows_error = None;
    if let (Some(rows), Some(path)) = (rows, csv) {
        let written_rows = rows.finish().unwrap_or_else(|error| {
            rows_error = Some(error);
            0
        });
        summary.rows = Some(RowsSummary { file: path.display().to_string(), written_rows, dropped_rows });
    }
    Ok(Outcome { summary, rows_error })
}

/// What all steps share.
struct Run<'a> {
    plan: &'a Plan,
    routes: &'a Routes,
    clock: Clock,
    interrupted: &'a AtomicBool,
    rows: Option<&'a Rows>,
}

struct Step {
    step: usize,
    rate_per_s: Option<f64>,
    window: Window,
    /// What the times in rows are since.
    origin_ns: u64,
}

impl Run<'_> {
    /// Runs one step on all threads; what they found, and how many rows were dropped.
    fn step(&self, step: &Step, progress: &mut Progress) -> Result<(Measured, u64), Failure> {
        let threads = self.plan.threads;
        let claimed = AtomicU64::new(0);
        let meters: Vec<Meter> = std::iter::repeat_with(Meter::default).take(threads).collect();
        let found = thread::scope(|scope| {
            let start = |(thread, meter)| {
                let task = Task {
                    plan: self.plan,
                    step: step.step,
                    rate_per_s: step.rate_per_s,
                    part: Part { thread, threads },
                    clock: self.clock,
                    window: step.window,
                    claimed: &claimed,
                    interrupted: self.interrupted,
                    meter,
                    rows: self.rows.map(|rows| rows.feeder(step.origin_ns)),
                    routes: self.routes.clone(),
                };
                scope.spawn(move || Driver::new(task).and_then(Driver::run))
            };
            let handles: Vec<_> = meters.iter().enumerate().map(start).collect();
            if progress.wanted() {
                let which = match self.plan.steps().len() {
                    1 => String::new(),
                    steps => format!("step {} of {steps}, ", step.step + 1),
                };
                while handles.iter().any(|handle| !handle.is_finished()) {
                    progress.show(&which, step.window, self.clock.now_ns(), &meters);
                    thread::sleep(progress::EVERY);
                }
                progress.clear();
            }
            let join = |handle: thread::ScopedJoinHandle<'_, io::Result<Found>>| {
                handle.join().unwrap_or_else(|_| Err(io::Error::other("a sending thread panicked")))
            };
            handles.into_iter().map(join).collect::<io::Result<Vec<Found>>>()
        });
        let found = found.map_err(|error| Failure::local(format_args!("cannot go on sending: {error}")))?;
        Ok(self.together(&found))
    }

    fn together(&self, found: &[Found]) -> (Measured, u64) {
        let mut tally = Tally::new(self.plan.functions.len(), self.plan.payloads.len());
        found.iter().for_each(|found| tally.merge(&found.tally));
        let loads = found.iter().filter_map(|found| found.load).collect();
        let dropped_rows = found.iter().map(|found| found.dropped_rows).sum();
        // Relaxed: a flag that stands alone.
        let cut_ns = self.interrupted.load(Ordering::Relaxed).then(|| self.clock.now_ns());
        (Measured { tally, loads, cut_ns }, dropped_rows)
    }
}

fn say(summary: &Summary, json: bool, screen: &mut Screen) -> Result<(), Failure> {
    if json {
        return screen.line(serde_json::to_string_pretty(summary).expect("numbers and words are JSON"));
    }
    screen.table(&report::steps(summary))?;
    for step in &summary.steps {
        screen.line(step.rate_per_s.map_or(String::new(), |rate_per_s| format!("\nat {rate_per_s}/s")))?;
        screen.table(&report::parts(step))?;
        for table in [report::functions(step), report::payloads(step)].into_iter().flatten() {
            screen.table(&table)?;
        }
        report::remarks(step).iter().try_for_each(|line| screen.line(line))?;
    }
    let Some(RowsSummary { file, written_rows, dropped_rows }) = &summary.rows else { return Ok(()) };
    screen.line(format_args!("{written_rows} rows in {file}, {dropped_rows} dropped"))
}

/// What the exit code says.
fn verdict(summary: &Summary) -> Result<(), Failure> {
    let sum = |of: fn(&StepSummary) -> u64| summary.steps.iter().map(of).sum::<u64>();
    if summary.interrupted {
        return Err(Failure::new(Fault::Interrupted, "interrupted: what was measured until then is above"));
    }
    if !summary.steps.is_empty() && summary.steps.iter().all(StepSummary::nobody_there) {
        let gone = "the worker took no more connections: see what it wrote, then try again";
        return Err(Failure::new(Fault::Unreachable, gone));
    }
    match sum(|step| step.failed) {
        0 => Ok(()),
        failed => {
            let requests = sum(|step| step.requests);
            Err(Failure::new(Fault::Function, format_args!("{failed} of {requests} requests failed: see above why")))
        }
    }
}
