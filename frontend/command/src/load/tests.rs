//! Whole runs against a server in this process that does as it is told: answers, stalls, breaks. Over HTTP here, over the
//! binary protocol in `binary`.

mod binary;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use clap::Parser;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, socket};

use super::summary::ErrorSummary;
use super::*;

/// What the server does with a request.
enum Reaction {
    Answer(String),
    AnswerAfter(Duration, String),
    /// Answers the first half and ends the connection.
    Cut(String),
    Silence,
}

fn answer(status: u16, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
}

fn ok() -> String {
    let headers =
        "x-vilya-start: warm\r\nx-vilya-shard: 3\r\nserver-timing: queue;dur=0.002, start;dur=0.000, run;dur=0.010\r\n";
    answer(200, headers, "{}")
}

/// A server that asks `react` what to do with each request: its place among all, and its head.
fn serve(react: impl FnMut(usize, &str) -> Reaction + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let state = Arc::new(Mutex::new((0, react)));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, state) = (stream.unwrap(), Arc::clone(&state));
            thread::spawn(move || {
                converse(stream, |head| {
                    let (count, react) = &mut *state.lock().unwrap();
                    *count += 1;
                    react(*count - 1, head)
                })
            });
        }
    });
    address
}

/// Whether a request is whole.
fn whole(asked: &str) -> bool {
    let Some((head, body)) = asked.split_once("\r\n\r\n") else { return false };
    let length = head.split("\r\n").find_map(|line| line.strip_prefix("content-length: "));
    body.len() == length.map_or(0, |length| length.parse().unwrap())
}

/// One connection.
fn converse(mut stream: TcpStream, mut react: impl FnMut(&str) -> Reaction) {
    let (mut asked, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut buffer) {
            Ok(bytes) if bytes > 0 => asked.extend_from_slice(&buffer[..bytes]),
            _ => return,
        }
        let text = String::from_utf8_lossy(&asked);
        if !whole(&text) {
            continue;
        }
        let reaction = react(&text);
        asked.clear();
        let written = match reaction {
            Reaction::Answer(text) => stream.write_all(text.as_bytes()),
            Reaction::AnswerAfter(time, text) => {
                thread::sleep(time);
                stream.write_all(text.as_bytes())
            }
            Reaction::Cut(text) => {
                let _ = stream.write_all(&text.as_bytes()[..text.len() / 2]);
                return;
            }
            Reaction::Silence => Ok(()),
        };
        if written.is_err() {
            return;
        }
    }
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    load: Load,
}

fn plan(address: SocketAddr, words: &str) -> Plan {
    let line = Line::try_parse_from(["load"].into_iter().chain(words.split_whitespace())).unwrap();
    Plan::new(&format!("http://{address}"), &line.load, 2, 1).unwrap()
}

fn run_with_rows(address: SocketAddr, words: &str) -> (Summary, Vec<Vec<String>>) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let outcome = measure_alone(&plan(address, words), Some(file.path()), &AtomicBool::new(false));
    assert!(outcome.rows_error.is_none());
    let text = std::fs::read_to_string(file.path()).unwrap();
    assert!(text.starts_with(rows::HEADER));
    let rows = text.lines().skip(1).map(|row| row.split(',').map(str::to_owned).collect()).collect();
    (outcome.summary, rows)
}

fn run(address: SocketAddr, words: &str) -> Summary {
    measure_alone(&plan(address, words), None, &AtomicBool::new(false)).summary
}

fn measure_alone(plan: &Plan, csv: Option<&Path>, interrupted: &AtomicBool) -> Outcome {
    measure(plan, &Routes::single(plan), csv, interrupted).unwrap()
}

fn broke(step: &StepSummary, word: &str) -> u64 {
    step.errors.iter().filter(|error| error.broke == Some(word)).map(|error| error.requests).sum()
}

#[test]
fn a_stall_is_felt_by_every_request_that_was_due_in_it() {
    const STALL: Duration = Duration::from_millis(400);
    // One connection and a request due every millisecond; the hundredth answer takes 400 ms. Whatever the machine does,
    // those due in the first 200 ms of the stall (fewer if sending was behind already, which only adds to the others'
    // latency) cannot be sent before it is over.
    let address =
        serve(|index, _| if index == 100 { Reaction::AnswerAfter(STALL, ok()) } else { Reaction::Answer(ok()) });
    let words = "f --rate 1000 --arrivals constant --clients 1 --count 1000 --warm-up 0s";
    let (summary, rows) = run_with_rows(address, words);
    let step = &summary.steps[0];
    assert_eq!((step.requests, step.failed), (1_000, 0));
    let at = |row: &[String], column: usize| row[column].parse::<f64>().unwrap();
    let half_us = STALL.as_secs_f64() * 1e6 / 2.0;
    let late = rows.iter().filter(|row| at(row, 2) - at(row, 0) >= half_us).count();
    let slow = rows.iter().filter(|row| at(row, 2) - at(row, 1) >= half_us).count();
    assert!(late >= 190, "{late} requests felt the stall");
    assert!((1..late / 10).contains(&slow), "{slow} requests were served slowly, {late} were late");
    let (latency, service) = (step.latency.unwrap(), step.service.unwrap());
    assert!(latency.p99_s >= STALL.as_secs_f64() / 2.0, "{latency:?}");
    assert!(service.p99_s < latency.p99_s / 2.0, "{service:?} {latency:?}");
    assert!(step.connections.waited_requests >= 190);
    assert_eq!(step.connections.opened, 1);
}

#[test]
fn a_closed_loop_sends_as_many_as_asked_and_a_row_for_each() {
    let address = serve(|_, _| Reaction::Answer(ok()));
    let (summary, rows) = run_with_rows(address, "f --clients 3 --threads 2 --count 500 --warm-up 0s");
    let step = &summary.steps[0];
    assert_eq!((step.requests, step.succeeded, rows.len()), (500, 500, 500));
    // A thread that gets no core in time finds nothing left to send.
    assert!((1..=3).contains(&step.connections.opened) && step.connections.reopened == 0);
    assert_eq!(summary.rows.unwrap().dropped_rows, 0);
    let request_bytes = plan(address, "f").functions[0].requests[0].bytes.len() as u64;
    assert_eq!((step.sent_bytes, step.received_bytes), (500 * request_bytes, 500 * ok().len() as u64));
    assert_eq!(step.warm.unwrap().count, 500);
    assert_eq!(step.run.unwrap().count, 500);
    assert!(rows.iter().all(|row| row.len() == 11 && row[3..6] == ["f", "200", "warm"] && row[6..8] == ["2", "10"]));
    assert!(rows.iter().all(|row| row[10] == "3"));
}

#[test]
fn the_warm_up_is_sent_and_not_counted() {
    let address = serve(|_, _| Reaction::Answer(ok()));
    for pace in ["--clients 2", "--rate 500 --arrivals constant"] {
        let summary = run(address, &format!("f {pace} --count 20 --warm-up 100ms"));
        let step = &summary.steps[0];
        assert_eq!(step.requests, 20, "{pace}");
        assert!(step.warm_up.requests > 0, "{pace}");
    }
    let open = run(address, "f --rate 500 --arrivals constant --count 20 --warm-up 100ms");
    assert_eq!(open.steps[0].warm_up.requests, 50);
}

#[test]
fn an_open_loop_sends_its_schedule_whatever_the_answers() {
    let address = serve(|_, _| Reaction::Answer(ok()));
    let summary = run(address, "f --rate-steps 200,400 --arrivals constant --duration 250ms --warm-up 0s --threads 2");
    let requests: Vec<u64> = summary.steps.iter().map(|step| step.requests).collect();
    assert_eq!(requests, [50, 100]);
    assert!(summary.steps.iter().all(|step| step.elapsed_s >= 0.25 && step.generator.lateness.is_some()));
    let clients = run(address, "f --rate 400 --seed 3 --duration 250ms --warm-up 0s");
    let again = run(address, "f --rate 400 --seed 3 --duration 250ms --warm-up 0s --threads 2");
    assert_eq!(clients.steps[0].requests, again.steps[0].requests);
}

#[test]
fn errors_are_counted_by_status_and_type_and_by_what_broke() {
    let raised = || answer(500, "", r#"{"errorType":"ValueError","errorMessage":"no"}"#);
    let address = serve(move |index, _| match index % 5 {
        0 => Reaction::Answer(raised()),
        1 => Reaction::Cut(ok()),
        2 => Reaction::Answer("who are you?\r\n\r\n".to_owned()),
        3 => Reaction::Answer(answer(429, "", "busy")),
        _ => Reaction::Answer(ok()),
    });
    let (summary, rows) = run_with_rows(address, "f --count 50 --warm-up 0s");
    let step = &summary.steps[0];
    let of = |status, error_type: Option<&str>| ErrorSummary {
        status: Some(status),
        error_type: error_type.map(str::to_owned),
        broke: None,
        requests: 10,
    };
    assert!(step.errors.contains(&of(500, Some("ValueError"))), "{:?}", step.errors);
    assert!(step.errors.contains(&of(429, None)));
    assert_eq!((broke(step, "closed"), broke(step, "malformed")), (10, 10));
    assert_eq!((step.succeeded, step.failed, rows.len()), (10, 40, 50));
    // Each broken one costs its connection.
    assert_eq!((step.connections.opened, step.connections.reopened), (21, 20));
    assert_eq!(verdict(&summary).unwrap_err().fault(), Fault::Function);
}

#[test]
fn a_server_that_does_not_answer_is_a_timeout_for_the_waiting_too() {
    let address = serve(|_, _| Reaction::Silence);
    let words = "f --rate 100 --arrivals constant --clients 1 --count 10 --warm-up 0s --timeout 100ms";
    let (summary, rows) = run_with_rows(address, words);
    let step = &summary.steps[0];
    assert_eq!((step.requests, broke(step, "timeout"), rows.len()), (10, 10, 10));
    assert!(step.latency.is_none());
    assert!(step.failed_latency.unwrap().p50_s >= 0.099);
}

#[test]
fn a_worker_that_goes_away_is_a_connection_error_and_is_told_as_such() {
    // Bound and not listening: connections are refused, and nobody else gets the port.
    let held = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(held.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    let port = getsockname::<SockaddrIn>(held.as_raw_fd()).unwrap().port();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    assert_eq!(knock(&plan(address, "f")).unwrap_err().fault(), Fault::Unreachable);
    let summary = run(address, "f --clients 2 --count 4 --warm-up 0s");
    let step = &summary.steps[0];
    assert_eq!((step.requests, broke(step, "connect")), (4, 4));
    assert_eq!(verdict(&summary).unwrap_err().fault(), Fault::Unreachable);
}

#[test]
fn functions_are_asked_for_by_weight_and_an_answer_may_end_the_connection() {
    let address = serve(|_, head| {
        let close = if head.starts_with("POST /fn/rare ") { "connection: close\r\n" } else { "" };
        Reaction::Answer(answer(200, close, ""))
    });
    let summary = run(address, "common=9 rare --count 1000 --warm-up 0s --seed 2");
    let step = &summary.steps[0];
    let [common, rare] = [0, 1].map(|function| step.functions[function].part.requests);
    assert_eq!((step.failed, common + rare), (0, 1_000));
    assert!((60..140).contains(&rare), "{rare}");
    // One at the start, one after each answer that ended it, unless that was the last.
    assert!([rare, rare - 1].contains(&step.connections.reopened));
    let again = run(address, "common=9 rare --count 1000 --warm-up 0s --seed 2");
    assert_eq!(again.steps[0].functions[1].part.requests, rare);
}

#[test]
fn sizes_of_payloads_come_by_weight_and_rows_tell_them_apart() {
    let address = serve(|_, _| Reaction::Answer(ok()));
    let words = "f g --payload 1KiB=9,20KiB --count 1000 --warm-up 0s --seed 2";
    let plan = plan(address, words);
    let (summary, rows) = run_with_rows(address, words);
    let step = &summary.steps[0];
    let [small, large] = [0, 1].map(|payload| step.payloads[payload].part.requests);
    assert_eq!((step.failed, small + large), (0, 1_000));
    assert!((60..140).contains(&large), "{large}");
    for (payload, requests) in [small, large].into_iter().enumerate() {
        let of = |function: usize| plan.functions[function].requests[payload].bytes.len().to_string();
        let rows = rows.iter().filter(|row| row[9] == of(usize::from(row[3] == "g")));
        assert_eq!(rows.count() as u64, requests);
    }
    let again = run(address, words);
    assert_eq!(again.steps[0].payloads[1].part.requests, large);
}

#[test]
fn an_interrupt_ends_the_run_and_says_what_it_left_out() {
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    let address = serve(move |index, _| {
        if index < 10 {
            return Reaction::Answer(ok());
        }
        flag.store(true, Ordering::Relaxed);
        Reaction::Silence
    });
    let summary = measure_alone(&plan(address, "f --duration 1h --warm-up 0s"), None, &interrupted).summary;
    let step = &summary.steps[0];
    assert!(summary.interrupted);
    assert_eq!((step.requests, step.failed, step.left_out), (10, 0, 1));
    assert!(step.elapsed_s < 3_600.0);
    assert_eq!(verdict(&summary).unwrap_err().fault(), Fault::Interrupted);
}
