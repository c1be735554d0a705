//! New sandboxes, one after the other and many at once, as a client over HTTP sees them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use vilya_benches::figures::Figures;
use vilya_benches::role::{HOLD, Role};
use vilya_benches::sample::Samples;
use vilya_benches::testbed::{RustFunction, Testbed};
use vilya_benches::{Failure, executable, http, machine, process};

use super::engine::Engine;
use super::{Pace, floors};

/// Between two starts: what the last one left to do is done.
const PAUSE: Duration = Duration::from_millis(20);
/// Between two bursts, for sandboxes to be made ahead again.
const REST: Duration = Duration::from_millis(400);
const BURSTS: [usize; 3] = [1, 8, 64];
/// Sandboxes alive when their memory is read: what they share is then shared.
const ALIVE: usize = 6;

/// Ends its process when told to; imports what functions commonly do.
pub(crate) const PYTHON: &str = "import datetime, json, os, re, urllib.parse\n\
                      def handler(event, context):\n    if event == 'exit': os._exit(0)\n    return event\n";

/// The same in JavaScript, which imports little: Node has most of it from the beginning.
const NODE: &str = "import 'node:fs'; import 'node:path';\n\
                    export const handler = (event) => { if (event === 'exit') process.exit(0); return event };\n";

/// What was left out, and why.
pub(crate) fn measure(pace: &Pace, figures: &mut Figures) -> Result<Vec<String>, Failure> {
    let mut skipped = Vec::new();
    for _ in 0..pace.rounds {
        let pace = Pace { starts: pace.starts.div_ceil(pace.rounds), ..*pace };
        floors::measure(pace.starts, figures)?;
        for runtime in ["rust", "python"] {
            one_by_one(&Way { mechanism: "native", runtime, socket: None }, &pace, figures)?;
        }
    }
    let engine = Engine::find();
    match &engine {
        Ok(engine) => engine.run_floor(pace.starts.div_ceil(30), figures)?,
        Err(why) => skipped.push(format!("floor.docker_run_ms: {why}")),
    }
    let others = ["oci", "docker"]
        .into_iter()
        .flat_map(|mechanism| ["rust", "python", "node"].map(|runtime| (mechanism, runtime)));
    for (mechanism, runtime) in std::iter::once(("native", "node")).chain(others) {
        // A container takes a hundred times as long.
        let pace = Pace { starts: pace.starts.div_ceil(if runtime == "node" { 30 } else { 10 }), ..*pace };
        let socket = engine.as_ref().ok().map(Engine::socket);
        if let Err(why) = one_by_one(&Way { mechanism, runtime, socket }, &pace, figures) {
            skipped.push(format!("{mechanism}.{runtime}: {why}"));
        }
    }
    drop(engine);
    at_once(pace, figures)?;
    Ok(skipped)
}

/// How a sandbox is made, and what runs in it.
struct Way {
    mechanism: &'static str,
    runtime: &'static str,
    /// Where a Docker engine listens.
    socket: Option<String>,
}

/// Deploys the function of a runtime; how it is told to end.
fn deploy(worker: &Testbed, mechanism: &str, runtime: &str) -> Result<&'static [u8], Failure> {
    let manifest = format!("mechanism = \"{mechanism}\"\n");
    match runtime {
        "rust" => {
            let function = RustFunction { name: runtime, role: Role::Mortal, concurrency: 1 };
            worker.deploy_rust_with(function, &manifest)?;
            Ok(b"exit")
        }
        "python" => {
            worker.deploy_python_with(runtime, PYTHON, &manifest)?;
            Ok(b"\"exit\"")
        }
        _ => {
            worker.deploy_node(runtime, NODE, &manifest)?;
            Ok(b"\"exit\"")
        }
    }
}

/// The settings of a worker that has every runtime.
fn start(settings: &[(&str, &str)]) -> Result<Testbed, Failure> {
    let addon = executable::addon()?.display().to_string();
    let addon = [("runtimes.node.addon", addon.as_str())];
    Testbed::start(&settings.iter().chain(&addon).copied().collect::<Vec<_>>())
}

fn one_by_one(way: &Way, pace: &Pace, figures: &mut Figures) -> Result<(), Failure> {
    let Way { mechanism, runtime, socket } = way;
    let mut settings = vec![("cores.shards", "1"), ("limits.start_timeout", "1m")];
    settings.extend(socket.as_deref().map(|socket| ("sandbox.docker_socket", socket)));
    let worker = start(&settings)?;
    let end = deploy(&worker, mechanism, runtime)?;
    let mut client = ColdClient::connect(worker.address())?;
    let mut samples = Samples::default();
    let mut before = Stages::of(&worker)?;
    for start in 0..pace.warm + pace.starts {
        if start == pace.warm {
            before = Stages::of(&worker)?;
        }
        let since = Instant::now();
        let is_cold = client.invoke(runtime, b"1")?;
        let took = since.elapsed();
        if !is_cold {
            return Err("an invocation found a sandbox that should have ended".into());
        }
        if start >= pace.warm {
            samples.push(took.as_nanos() as u64);
        }
        client.end(runtime, end)?;
        std::thread::sleep(PAUSE);
    }
    let after = Stages::of(&worker)?;
    let name = |figure: &str| format!("mechanisms.{mechanism}.{runtime}.{figure}");
    let (p50_us, p99_us) = (samples.percentile_us(0.5), samples.percentile_us(0.99));
    figures.push(&name("p50_ms"), p50_us / 1000.0);
    figures.push(&name("p99_ms"), p99_us / 1000.0);
    if *mechanism == "native" {
        let mut known_us = 0.0;
        for (stage, us) in after.since(&before) {
            known_us += us;
            figures.push(&format!("stages.{runtime}.{stage}_us"), us);
        }
        figures.push(&format!("stages.{runtime}.first_answer_us"), (p50_us - known_us).max(0.0));
        private_memory(&worker, runtime, pace, figures)?;
    }
    Ok(())
}

/// What `/metrics` has of starts: how many, and the time of each stage.
struct Stages {
    starts: f64,
    seconds: Vec<(&'static str, f64)>,
}

impl Stages {
    fn of(worker: &Testbed) -> Result<Stages, Failure> {
        const STAGES: [&str; 6] = ["plan", "namespaces", "cgroup", "mounts", "fork", "runtime_ready"];
        let starts = worker.metric("vilya_sandbox_starts_total")?;
        let seconds = STAGES.map(|stage| {
            let label = format!("stage=\"{stage}\"");
            worker.metric_with("vilya_sandbox_start_seconds_total", &label).map(|seconds| (stage, seconds))
        });
        Ok(Stages { starts, seconds: seconds.into_iter().collect::<Result<_, _>>()? })
    }

    /// The mean of each stage, in microseconds.
    fn since(&self, before: &Stages) -> Vec<(&'static str, f64)> {
        let starts = (self.starts - before.starts).max(1.0);
        let both = self.seconds.iter().zip(&before.seconds);
        both.map(|((stage, now), (_, then))| (*stage, (now - then) / starts * 1e6)).collect()
    }
}

/// The memory that an idle sandbox has for itself, several of its function being alive.
fn private_memory(worker: &Testbed, runtime: &str, pace: &Pace, figures: &mut Figures) -> Result<(), Failure> {
    // Those that interpreters run hold their sandbox by sleeping in a function of their own.
    let (name, body): (&str, &[u8]) = if runtime == "rust" { (runtime, b"hold") } else { ("sleeper", b"0.3") };
    match runtime {
        "python" => {
            let module = "import datetime, json, os, re, time, urllib.parse\n\
                          def handler(event, context):\n    if event == 'exit': os._exit(0)\n    time.sleep(event)\n";
            worker.deploy_python(name, module)?;
        }
        "node" => {
            let module = "import 'node:fs'; import 'node:path';\n\
                          export const handler = (event) => event === 'exit' ? process.exit(0) \
                          : new Promise((done) => setTimeout(done, 1000 * event));\n";
            worker.deploy_node(name, module, "")?;
        }
        _ => {}
    }
    if name == "sleeper" {
        let mut client = ColdClient::connect(worker.address())?;
        // Until it has a zygote.
        for _ in 0..pace.warm {
            client.invoke(name, b"0.0")?;
            client.end(name, b"\"exit\"")?;
            std::thread::sleep(PAUSE);
        }
    }
    burst(worker, name, body, ALIVE)?;
    let comm = if runtime == "rust" { "function" } else { runtime };
    let mut kib: Vec<f64> = Vec::new();
    for id in process::family(worker.process())? {
        let Ok(of) = std::fs::read_to_string(format!("/proc/{id}/comm")) else { continue };
        if of.starts_with(comm) {
            kib.push(process::private_kib(id)? as f64);
        }
    }
    kib.sort_by(f64::total_cmp);
    let median = kib.get(kib.len() / 2).ok_or_else(|| format!("no sandbox of {runtime} is alive"))?;
    figures.push(&format!("private_kib_idle.{runtime}"), *median);
    Ok(())
}

/// So many starts at once, of one function.
fn at_once(pace: &Pace, figures: &mut Figures) -> Result<(), Failure> {
    let prepared = BURSTS[BURSTS.len() - 1].to_string();
    let worker = Testbed::start(&[
        ("cores.shards", "1"),
        ("sandbox.prepared", &prepared),
        ("limits.sandboxes", "256"),
        ("limits.sandboxes_per_function", "256"),
        ("policies.concurrency", "256"),
        ("limits.starting", "256"),
        ("limits.memory", "256GiB"),
    ])?;
    worker.deploy_rust(RustFunction { name: "rust", role: Role::Mortal, concurrency: 1 })?;
    let mut client = ColdClient::connect(worker.address())?;
    for _ in 0..pace.warm {
        client.invoke("rust", b"1")?;
        client.end("rust", b"exit")?;
        std::thread::sleep(PAUSE);
    }
    for count in BURSTS {
        let mut all = Samples::default();
        for _ in 0..pace.bursts {
            std::thread::sleep(REST);
            let Burst { took, samples } = burst(&worker, "rust", b"hold", count)?;
            let rate = count as f64 / took.as_secs_f64() / machine::cores() as f64;
            figures.push(&format!("starts_per_second_per_core.{count}"), rate);
            samples.into_iter().for_each(|ns| all.push(ns));
            end_all(worker.address(), "rust", count)?;
        }
        figures.push(&format!("starts_p99_ms.{count}"), all.percentile_us(0.99) / 1000.0);
    }
    Ok(())
}

/// Of a burst: until the last had answered, without the time that each held its sandbox.
struct Burst {
    took: Duration,
    samples: Vec<u64>,
}

/// So many invocations at once, each of which must have had a new sandbox.
fn burst(worker: &Testbed, name: &str, body: &[u8], count: usize) -> Result<Burst, Failure> {
    const STARTS: &str = "vilya_sandbox_starts_total";
    let (address, before) = (worker.address(), worker.metric(STARTS)?);
    let barrier = Barrier::new(count);
    let results: Vec<Result<(Instant, Instant), String>> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..count)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = ColdClient::connect(address).map_err(|error| error.to_string());
                    barrier.wait();
                    let since = Instant::now();
                    let client = client.as_mut().map_err(|error| error.clone())?;
                    match client.invoke(name, body) {
                        // One that came a moment after its sandbox was ready counts as warm; the starts are counted by the worker.
                        Ok(_) => Ok((since, Instant::now())),
                        Err(error) => Err(error.to_string()),
                    }
                })
            })
            .collect();
        let panicked = |_| Err("a client panicked".to_owned());
        clients.into_iter().map(|client| client.join().unwrap_or_else(panicked)).collect()
    });
    let spans: Vec<(Instant, Instant)> = results.into_iter().collect::<Result<_, _>>()?;
    let started = worker.metric(STARTS)? - before;
    if started < count as f64 {
        return Err(format!("{started} sandboxes were started for {count} invocations at once").into());
    }
    let first = spans.iter().map(|(since, _)| *since).min().ok_or("no clients")?;
    let last = spans.iter().map(|(_, until)| *until).max().ok_or("no clients")?;
    let hold = if body == b"hold" { HOLD } else { Duration::ZERO };
    let took = |since: Instant, until: Instant| (until - since).saturating_sub(hold);
    let samples = spans.iter().map(|(since, until)| took(*since, *until).as_nanos() as u64).collect();
    Ok(Burst { took: took(first, last), samples })
}

/// Ends so many idle sandboxes: each is told on a connection of its own, at once, so that each tells another.
fn end_all(address: SocketAddr, name: &str, count: usize) -> Result<(), Failure> {
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        clients.push(ColdClient::connect(address)?);
    }
    for client in &mut clients {
        client.send(name, b"exit")?;
    }
    for client in &mut clients {
        client.read()?;
    }
    Ok(())
}

/// A client that looks whether its answer was of a new sandbox.
pub(crate) struct ColdClient(TcpStream);

impl ColdClient {
    pub(crate) fn connect(address: SocketAddr) -> Result<ColdClient, Failure> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(ColdClient(stream))
    }

    pub(crate) fn send(&mut self, name: &str, body: &[u8]) -> Result<(), Failure> {
        Ok(self.0.write_all(&http::request("POST", &format!("/fn/{name}"), body))?)
    }

    /// The head of a whole answer.
    pub(crate) fn read(&mut self) -> Result<String, Failure> {
        let mut answer = Vec::with_capacity(1024);
        let mut piece = [0; 4096];
        loop {
            let read = self.0.read(&mut piece)?;
            if read == 0 {
                return Err("the worker closed the connection".into());
            }
            answer.extend_from_slice(&piece[..read]);
            if http::body(&answer).is_some() {
                return Ok(String::from_utf8_lossy(&answer).into_owned());
            }
        }
    }

    /// Whether the invocation, which succeeded, was cold.
    pub(crate) fn invoke(&mut self, name: &str, body: &[u8]) -> Result<bool, Failure> {
        self.send(name, body)?;
        let answer = self.read()?;
        if !answer.as_bytes().starts_with(http::SUCCESS) {
            return Err(answer.into());
        }
        Ok(answer.contains("x-vilya-start: cold"))
    }

    /// Ends the sandbox that runs this.
    fn end(&mut self, name: &str, body: &[u8]) -> Result<(), Failure> {
        self.send(name, body)?;
        let answer = self.read()?;
        if answer.as_bytes().starts_with(http::SUCCESS) { Err("it did not end".into()) } else { Ok(()) }
    }
}
