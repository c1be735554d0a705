//! What freezing a sandbox and thawing it again takes on this host: medians of the calls, and of an answer with a thaw before it and without.
//!
//! `cargo run --release -p vilya-isolate --example freezing -- native 200`; instead of `native` also `ungrouped` (no control groups: by
//! tracing), `oci`, or the path of a Docker engine's socket. As an ordinary user `native` is without control groups, and an engine pauses.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use vilya_isolate::{
    CgroupPreference, Descriptors, Docker, DockerOptions, Mechanism, Native, NativeOptions, Oci, OciOptions, Reach,
    ResourceLimits, Root, Spec,
};

/// Answers on descriptor 4 what it reads from 3, with three threads and a child besides that do nothing.
const ECHOES: &str = "import os, threading, time
for _ in range(3): threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
if os.fork() == 0: time.sleep(1000)
while byte := os.read(3, 1): os.write(4, byte)";

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let kind = arguments.next().unwrap_or_else(|| "native".to_owned());
    let rounds: usize = arguments.next().map_or(Ok(200), |count| count.parse())?;
    let state = tempfile::tempdir()?;
    let (state_directory, worker_id) = (state.path().to_owned(), "freezing".to_owned());
    let cgroup = if kind == "ungrouped" { CgroupPreference::Off } else { CgroupPreference::Auto };
    let mut mechanism: Box<dyn Mechanism> = match kind.as_str() {
        "native" | "ungrouped" => {
            Box::new(Native::new(NativeOptions { state_directory, worker_id, cgroup, mitigations: true })?)
        }
        "oci" => Box::new(Oci::new(&OciOptions { state_directory, worker_id, runtime: None })?),
        socket => Box::new(Docker::new(DockerOptions { state_directory, worker_id, socket: socket.into() })?),
    };
    let frozen = mechanism.protections().iter().find(|protection| protection.name == "frozen while idle");
    println!("{}: {}", mechanism.name(), frozen.map_or("", |frozen| &frozen.detail));
    let null = || File::open("/dev/null").map(Into::into);
    let ((reads, mut ask), (mut said, writes)) = (io::pipe()?, io::pipe()?);
    let descriptors = Descriptors { ring: [reads.into(), writes.into(), null()?], stdout: null()?, stderr: null()? };
    let started = mechanism.start(&spec(), descriptors)?;
    let freezer = started.remains.freezer().ok_or("it cannot be frozen")?;
    let mut answer = || -> io::Result<()> {
        ask.write_all(b"?")?;
        said.read_exact(&mut [0])
    };
    answer()?;
    let (mut awake, mut freezes, mut thaws, mut answers) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        // Its threads have parked by then, as in a sandbox that is idle.
        std::thread::sleep(Duration::from_millis(5));
        awake.push(timed(&mut answer)?);
        freezes.push(timed(|| freezer.freeze())?);
        std::thread::sleep(Duration::from_millis(5));
        let begun = Instant::now();
        thaws.push(timed(|| freezer.thaw())?);
        answer()?;
        answers.push(begun.elapsed());
    }
    started.remains.kill();
    let _ = started.remains.reap();
    let rows = [("freeze", freezes), ("thaw", thaws), ("thaw and answer", answers), ("answer while awake", awake)];
    for (name, mut times) in rows {
        times.sort();
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
        println!("{name:>18}  median {:>9.1} us  p99 {:>9.1} us", at(0.5), at(0.99));
    }
    Ok(())
}

fn timed(mut what: impl FnMut() -> io::Result<()>) -> io::Result<Duration> {
    let begun = Instant::now();
    what().map(|()| begun.elapsed())
}

fn spec() -> Spec {
    Spec {
        name: format!("freezing-{}", std::process::id()),
        command: ["/usr/bin/python3", "-I", "-c", ECHOES].map(str::to_owned).to_vec(),
        environment: Vec::new(),
        working_directory: "/".into(),
        root: Root::System,
        binds: Vec::new(),
        limits: ResourceLimits {
            memory_bytes: 128 << 20,
            cpu_millis: None,
            processes: 16,
            tmp_bytes: 1 << 20,
            open_files: 256,
        },
        cores: Vec::new(),
        hostname: "freezing".into(),
        reach: Reach::Nothing,
    }
}
