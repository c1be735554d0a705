//! What clients that misbehave cost another client: its latency alone, and beside a slow reader, a slow writer and
//! thousands of connections that say nothing, on one shard.
//!
//! In each round the four are looked at in turn: alone, then each more on top of the others. All clients are on the first
//! core, the shard and its sandboxes on the second.
//!
//! Usage: `contention [--json] [--quick] [--rounds N] [--requests N] [--connections N]`.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;
use vilya_benches::client::Client;
use vilya_benches::exchange::{Exchange, payload};
use vilya_benches::figures::Figures;
use vilya_benches::options::Options;
use vilya_benches::peer::pin;
use vilya_benches::report::{self, Goal};
use vilya_benches::role::{self, Role};
use vilya_benches::testbed::{RustFunction, Testbed};
use vilya_benches::{CLIENT_CORE, Failure, http, machine};

const ECHO: &str = "echo";
const SMALL_BYTES: usize = 64;
const ANSWER_BYTES: usize = 16 * 1024;
/// What the slow ones ask for, and send.
const LARGE_BYTES: usize = 16 << 20;
/// Between two sips of a slow client: often enough to be no dead one, seldom enough to leave the core to the others.
const SIP: Duration = Duration::from_millis(50);
const SIP_BYTES: usize = 1024;
/// Until what was just opened has been accepted.
const SETTLE: Duration = Duration::from_millis(200);
const STAGES: [&str; 4] = ["alone", "slow_reader", "slow_writer", "idle_connections"];

fn main() -> Result<(), Failure> {
    if role::play()? {
        return Ok(());
    }
    let options = Options::read(&["--json", "--quick"], &["--rounds", "--requests", "--connections"])?;
    let quick = options.has("--quick");
    let rounds = options.value("--rounds", if quick { 1 } else { 7 })?;
    let requests = options.value("--requests", if quick { 50 } else { 5000 })?;
    let connections = options.value("--connections", if quick { 100 } else { 10_000 })?;
    raise_open_files()?;
    let machine = machine::description();
    let worker = Testbed::pinned(&[
        ("server.connections", &(connections + 1000).to_string()),
        ("server.idle_timeout", "10m"),
        ("server.header_timeout", "10m"),
    ])?;
    worker.deploy_rust(RustFunction { name: ECHO, role: Role::Echo, concurrency: 1 })?;
    pin(Some(CLIENT_CORE));
    let mut client = Client::connect(worker.address(), ANSWER_BYTES)?;
    let message = http::echo(ECHO, SMALL_BYTES);
    let mut figures = Figures::default();
    // One round to warm up is thrown away.
    for round in 0..=rounds {
        let mut thrown_away = Figures::default();
        let figures = if round == 0 { &mut thrown_away } else { &mut figures };
        let mut look = |stage| look(&mut client, &message, requests, stage, figures);
        look(STAGES[0])?;
        let reader = SlowClient::start(worker.address(), sip_answer)?;
        std::thread::sleep(SETTLE);
        look(STAGES[1])?;
        let writer = SlowClient::start(worker.address(), sip_request)?;
        std::thread::sleep(SETTLE);
        look(STAGES[2])?;
        let idle = (0..connections).map(|_| TcpStream::connect(worker.address())).collect::<io::Result<Vec<_>>>()?;
        worker.await_metric("vilya_connections_open", |open| open >= connections as f64)?;
        look(STAGES[3])?;
        drop((reader, writer, idle));
        // This client's, and the one that asks.
        worker.await_metric("vilya_connections_open", |open| open <= 2.0)?;
    }
    let mut goals = Vec::new();
    for stage in &STAGES[1..] {
        for quantile in ["p50_us", "p99_us"] {
            let beside = figures.get(&format!("{stage}.{quantile}")).zip(figures.get(&format!("alone.{quantile}")));
            let ratio = beside.map(|(beside, alone)| beside.over(alone)).ok_or("nothing was measured")?;
            figures.insert(&format!("ratio.{stage}_{quantile}"), ratio);
        }
        goals.push((format!("ratio.{stage}_p99_us"), Goal::AtMost(1.2)));
    }
    let facts = json!({ "machine": machine, "rounds": rounds, "requests": requests, "connections": connections });
    report::print(&report::assemble(&figures, &[], &goals, &facts), options.has("--json"));
    Ok(())
}

fn look(
    client: &mut Client,
    message: &Exchange,
    requests: usize,
    stage: &str,
    figures: &mut Figures,
) -> Result<(), Failure> {
    let mut samples = client.time(message, requests)?;
    figures.push(&format!("{stage}.p50_us"), samples.percentile_us(0.5));
    figures.push(&format!("{stage}.p99_us"), samples.percentile_us(0.99));
    Ok(())
}

/// A client that is slow until it is dropped.
struct SlowClient {
    stream: TcpStream,
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl SlowClient {
    /// Connects, and sips until it is dropped. A sip that fails is the last.
    fn start(address: SocketAddr, sip: fn(&mut TcpStream, &mut usize) -> io::Result<()>) -> io::Result<SlowClient> {
        let stream = TcpStream::connect(address)?;
        let done = Arc::new(AtomicBool::new(false));
        let (mut theirs, told) = (stream.try_clone()?, Arc::clone(&done));
        let thread = std::thread::spawn(move || {
            let mut progress = 0;
            // Relaxed: a flag that stands alone.
            while !told.load(Ordering::Relaxed) && sip(&mut theirs, &mut progress).is_ok() {
                std::thread::sleep(SIP);
            }
        });
        Ok(SlowClient { stream, done, thread: Some(thread) })
    }
}

impl Drop for SlowClient {
    fn drop(&mut self) {
        // Relaxed: a flag that stands alone.
        self.done.store(true, Ordering::Relaxed);
        // Ends what it waits for. One whose peer has gone needs no shutdown.
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Asks for a large answer at once and reads it a little at a time.
fn sip_answer(stream: &mut TcpStream, progress: &mut usize) -> io::Result<()> {
    if *progress == 0 {
        stream.write_all(&http::echo(ECHO, LARGE_BYTES).request)?;
    }
    *progress += stream.read(&mut [0; SIP_BYTES])?;
    Ok(())
}

/// Announces a large request and writes it a little at a time.
fn sip_request(stream: &mut TcpStream, progress: &mut usize) -> io::Result<()> {
    if *progress == 0 {
        let request = http::request("POST", &format!("/fn/{ECHO}"), &payload(LARGE_BYTES));
        stream.write_all(&request[..request.len() - LARGE_BYTES])?;
    }
    *progress += stream.write(&[b'.'; SIP_BYTES])?;
    Ok(())
}

fn raise_open_files() -> nix::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
}
