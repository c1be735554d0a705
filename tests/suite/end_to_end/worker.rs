//! A worker process of a test's own: a free port, a state directory that goes with it.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::client::{Answer, Client};

/// How long anything may take before the test says that it hangs. No test depends on being faster.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// How long a worker that is no longer needed may take to stop in order.
const ORDERLY: Duration = Duration::from_secs(3);

/// A worker that is ended when dropped.
pub(super) struct Worker {
    child: Child,
    pub(super) address: SocketAddr,
    /// Where it speaks the binary protocol.
    pub(super) wire_address: SocketAddr,
    state: Option<tempfile::TempDir>,
}

impl Worker {
    /// Starts one with the defaults.
    pub(super) fn start() -> Worker {
        Worker::start_with(&[])
    }

    /// Starts one with settings, each `section.key=value`.
    pub(super) fn start_with(settings: &[&str]) -> Worker {
        let state = tempfile::Builder::new().prefix("vilya-test-").tempdir().expect("a temporary directory");
        Worker::start_on(state, settings)
    }

    pub(super) fn start_on(state: tempfile::TempDir, settings: &[&str]) -> Worker {
        Worker::start_command(Command::new(worker_command()), state, settings)
    }

    /// Starts one that may have this many descriptors.
    pub(super) fn start_under(descriptors: u32, settings: &[&str]) -> Worker {
        let state = tempfile::Builder::new().prefix("vilya-test-").tempdir().expect("a temporary directory");
        let mut command = Command::new("sh");
        // The shell sets both limits, soft and hard, and becomes the worker.
        command.args(["-c", &format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"")]);
        command.arg(worker_command());
        Worker::start_command(command, state, settings)
    }

    fn start_command(mut command: Command, state: tempfile::TempDir, settings: &[&str]) -> Worker {
        command
            .arg("serve")
            .args(["--set", "server.address=127.0.0.1:0"])
            .args(["--set", &format!("server.state_directory={}", state.path().display())])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .current_dir(state.path());
        for setting in settings {
            command.args(["--set", setting]);
        }
        let mut child = command.spawn().expect("the command starts");
        let [address, wire_address] = match announced(&mut child) {
            Ok(addresses) => addresses,
            Err(why) => {
                let _ = child.kill();
                panic!("the worker did not say where it listens: {why}");
            }
        };
        Worker { child, address, wire_address, state: Some(state) }
    }

    pub(super) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().expect("a process id"))
    }

    pub(super) fn state(&self) -> &Path {
        self.state.as_ref().expect("the state is there until the worker is taken apart").path()
    }

    pub(super) fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// Deploys a Python function given as the text of `main.py`, with further lines for function.toml.
    pub(super) fn deploy_python(&self, name: &str, code: &str, settings: &str) {
        let manifest = format!("name = \"{name}\"\nruntime = \"python\"\nhandler = \"main.handler\"\n{settings}\n");
        let archive = archive(&[("function.toml", manifest.as_bytes(), 0o644), ("main.py", code.as_bytes(), 0o644)]);
        let answer = self.deploy(name, &archive);
        assert!(matches!(answer.status, 200 | 201), "{}", answer.text());
    }

    /// Deploys the Rust echo function of this package.
    pub(super) fn deploy_echo(&self, name: &str, settings: &str) {
        let manifest = format!("name = \"{name}\"\nruntime = \"rust\"\nhandler = \"bin/echo\"\n{settings}\n");
        let executable = std::fs::read(echo_function()).expect("the function is built");
        let archive = archive(&[("function.toml", manifest.as_bytes(), 0o644), ("bin/echo", &executable, 0o755)]);
        let answer = self.deploy(name, &archive);
        assert!(matches!(answer.status, 200 | 201), "{}", answer.text());
    }

    pub(super) fn deploy(&self, name: &str, archive: &[u8]) -> Answer {
        let path = format!("/v1/functions/{name}");
        self.client().request_typed("PUT", &path, "application/x-tar", archive)
    }

    /// The sum over the shards of a metric, over all its labels that contain `label`.
    pub(super) fn metric(&self, name: &str, label: &str) -> f64 {
        let answer = self.client().request("GET", "/metrics", b"").expect(200);
        let lines = answer.text().lines().filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(label));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Memory of the worker's process that is resident now.
    pub(super) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the worker is there");
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        kib.and_then(|kib| kib.trim().parse::<u64>().ok()).expect("the kernel's format") * 1024
    }

    /// Shared memory of the worker's process that is resident now: the regions of its sandboxes.
    pub(super) fn shared_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the worker is there");
        let kib = status.lines().find_map(|line| line.strip_prefix("RssShmem:")?.trim().strip_suffix(" kB"));
        kib.and_then(|kib| kib.trim().parse::<u64>().ok()).expect("the kernel's format") * 1024
    }

    /// Waits until a metric is as wanted.
    #[track_caller]
    pub(super) fn await_metric(&self, name: &str, label: &str, wanted: impl Fn(f64) -> bool) {
        let since = Instant::now();
        loop {
            let value = self.metric(name, label);
            if wanted(value) {
                return;
            }
            assert!(since.elapsed() < PATIENCE, "{name} stays at {value}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asks it to stop in order, and returns its exit code.
    pub(super) fn stop(mut self) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        self.await_end()
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("the worker is there");
    }

    pub(super) fn await_end(&mut self) -> Option<i32> {
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status.code();
            }
            assert!(since.elapsed() < PATIENCE, "the worker does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills it as a crash would, and gives its state directory for the next.
    pub(super) fn crash(mut self) -> tempfile::TempDir {
        self.signal(Signal::SIGKILL);
        self.await_end();
        self.state.take().expect("not taken yet")
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // In order where that is quick, since no later start on this state directory would remove what a kill leaves.
        // One that was waited for already has given up its id.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill(self.pid(), Signal::SIGTERM);
        }
        let since = Instant::now();
        while since.elapsed() < ORDERLY && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(5));
        }
        // Sandboxes die with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The command under test. A run elsewhere than in the build folder says where its copy is.
pub(super) fn worker_command() -> OsString {
    built("CARGO_BIN_EXE_vilya-under-test", env!("CARGO_BIN_EXE_vilya-under-test"))
}

fn echo_function() -> OsString {
    built("CARGO_BIN_EXE_echo-function", env!("CARGO_BIN_EXE_echo-function"))
}

pub(super) fn conformance_function() -> OsString {
    built("CARGO_BIN_EXE_conformance-function", env!("CARGO_BIN_EXE_conformance-function"))
}

fn built(variable: &str, path: &str) -> OsString {
    std::env::var_os(variable).unwrap_or_else(|| path.into())
}

/// Reads the address from the line the command prints once it serves.
fn announced(child: &mut Child) -> Result<[SocketAddr; 2], String> {
    let stdout = child.stdout.take().ok_or("its output is not piped")?;
    let (found, address) = mpsc::channel();
    // The thread reads on, so that the worker never blocks on a full pipe.
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let at = |scheme| {
                let word = line.split_whitespace().find_map(|word| word.strip_prefix(scheme))?;
                word.trim_end_matches('/').parse::<SocketAddr>().ok()
            };
            if let Some(http) = at("http://") {
                // Off where a test says so; then nobody connects to it.
                let _ = found.send([http, at("vilya://").unwrap_or(http)]);
            }
        }
    });
    address.recv_timeout(PATIENCE).map_err(|error| error.to_string())
}

/// A tar archive of files given as path, bytes and mode.
pub(super) fn archive(files: &[(&str, &[u8], u32)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, bytes, mode) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(*mode);
        header.set_cksum();
        builder.append_data(&mut header, path, *bytes).expect("memory does not fail");
    }
    builder.into_inner().expect("memory does not fail")
}

/// The processes of a worker's sandboxes, by the environment that every function gets, as seen from the host.
pub(super) fn sandbox_processes(function: &str) -> Vec<i32> {
    let mark = format!("VILYA_FUNCTION={function}");
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|&byte| byte == 0).any(|variable| variable == mark.as_bytes())
        })
        .collect()
}

/// The identity under which a worker keeps its control groups: the name of the one folder that its cgroups are in.
pub(super) fn worker_id(worker: &Worker) -> String {
    let answer = worker.client().request("GET", "/v1/version", b"").expect(200);
    answer.json()["worker_id"].as_str().expect("a worker says who it is").to_string()
}

/// Directories of control groups of a worker under `/sys/fs/cgroup`, any controller.
pub(super) fn control_groups(worker: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![(PathBuf::from("/sys/fs/cgroup"), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            let is_at_top = entry.file_name().to_string_lossy().starts_with(&format!("vilya.{worker}."));
            if is_at_top || folder.ends_with(format!("vilya/{worker}")) {
                found.push(entry.path());
            } else if depth < 6 {
                folders.push((entry.path(), depth + 1));
            }
        }
    }
    found
}

/// Waits until a function's log has that many lines, and gives it.
pub(super) fn await_log(worker: &Worker, name: &str, lines: usize) -> String {
    let since = Instant::now();
    loop {
        let answer = worker.client().request("GET", &format!("/v1/functions/{name}/logs?tail=1000"), b"").expect(200);
        if answer.text().lines().count() >= lines {
            return answer.text().to_string();
        }
        assert!(since.elapsed() < PATIENCE, "the log stays at:\n{}", answer.text());
        std::thread::sleep(Duration::from_millis(20));
    }
}
