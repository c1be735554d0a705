//! A worker under test: a process of its own on a state directory that goes with it.

use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::bundle::{File, archive};
use crate::role::{self, Role};
use crate::{Failure, SERVER_CORE, executable, http, process};

/// How long anything may take before the program says that it hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a worker may take to stop in order.
const ORDERLY: Duration = Duration::from_secs(10);

/// The worker. Dropping it stops it in order.
pub struct Testbed {
    child: Child,
    /// Its end is the order to stop.
    stdin: Option<ChildStdin>,
    address: SocketAddr,
    wire_address: Option<SocketAddr>,
    state: PathBuf,
}

/// A function written in Rust, which is this program again.
#[derive(Clone, Copy, Debug)]
pub struct RustFunction<'a> {
    /// Under which it is invoked.
    pub name: &'a str,
    /// What it does.
    pub role: Role,
    /// Invocations that a sandbox runs at once.
    pub concurrency: u32,
}

impl Testbed {
    /// Starts a worker on whatever cores the caller may use; settings are keys and values.
    ///
    /// # Errors
    /// It does not serve; it has said why on standard error.
    pub fn start(settings: &[(&str, &str)]) -> Result<Testbed, Failure> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        // Only has to be unique: Relaxed pairs with nothing.
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let state = std::env::temp_dir().join(format!("vilya-bench-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&state)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.env(role::VARIABLE, Role::Worker.word());
        command.args(settings.iter().map(|(key, value)| format!("{key}={value}")));
        command.arg("server.address=127.0.0.1:0").arg(format!("server.state_directory={}", state.display()));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = child.stdin.take();
        let mut said = String::new();
        BufReader::new(child.stdout.take().ok_or("its output is piped")?).read_line(&mut said)?;
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut testbed = Testbed { child, stdin, address: nowhere, wire_address: None, state };
        let mut addresses = said.split_whitespace().map(str::parse);
        testbed.address = match addresses.next() {
            Some(Ok(address)) => address,
            _ => return Err("the worker did not start: it has said why above".into()),
        };
        testbed.wire_address = addresses.next().transpose()?;
        Ok(testbed)
    }

    /// One shard on the server's core, with its sandboxes.
    ///
    /// # Errors
    /// Those of [`Testbed::start`].
    pub fn pinned(settings: &[(&str, &str)]) -> Result<Testbed, Failure> {
        let core = SERVER_CORE.min(crate::machine::cores() - 1).to_string();
        let cores = [("cores.shards", format!("[{core}]")), ("cores.sandboxes", format!("[{core}]"))];
        let cores = cores.iter().map(|(key, value)| (*key, value.as_str()));
        Testbed::start(&cores.chain(settings.iter().copied()).collect::<Vec<_>>())
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens for the binary protocol, if it speaks it.
    #[must_use]
    pub fn wire_address(&self) -> Option<SocketAddr> {
        self.wire_address
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Deploys a function whose executable is this program.
    ///
    /// # Errors
    /// The worker refuses it.
    pub fn deploy_rust(&self, function: RustFunction<'_>) -> Result<(), Failure> {
        self.deploy_rust_with(function, "")
    }

    /// The same with more lines of `function.toml`.
    ///
    /// # Errors
    /// The worker refuses it.
    pub fn deploy_rust_with(&self, function: RustFunction<'_>, more: &str) -> Result<(), Failure> {
        let RustFunction { name, role, concurrency } = function;
        let executable = executable::own()?;
        let manifest = format!(
            "name = \"{name}\"\nruntime = \"rust\"\nhandler = \"function\"\nconcurrency = {concurrency}\n\
             timeout = \"10m\"\n{more}[env]\n{} = \"{}\"\n",
            role::VARIABLE,
            role.word()
        );
        self.deploy(
            name,
            &[
                File { path: "function.toml", bytes: manifest.as_bytes(), executable: false },
                File { path: "function", bytes: &executable, executable: true },
            ],
        )
    }

    /// Deploys a Python function with the text of its module.
    ///
    /// # Errors
    /// The worker refuses it.
    pub fn deploy_python(&self, name: &str, module: &str) -> Result<(), Failure> {
        self.deploy_python_with(name, module, "")
    }

    /// The same with more lines of `function.toml`.
    ///
    /// # Errors
    /// The worker refuses it.
    pub fn deploy_python_with(&self, name: &str, module: &str, more: &str) -> Result<(), Failure> {
        let manifest = format!("name = \"{name}\"\nruntime = \"python\"\nhandler = \"main.handler\"\n{more}");
        self.deploy(
            name,
            &[
                File { path: "function.toml", bytes: manifest.as_bytes(), executable: false },
                File { path: "main.py", bytes: module.as_bytes(), executable: false },
            ],
        )
    }

    /// Deploys a Node function with the text of its module and more lines of `function.toml`.
    ///
    /// # Errors
    /// The worker refuses it.
    pub fn deploy_node(&self, name: &str, module: &str, more: &str) -> Result<(), Failure> {
        let manifest = format!("name = \"{name}\"\nruntime = \"node\"\n{more}");
        self.deploy(
            name,
            &[
                File { path: "function.toml", bytes: manifest.as_bytes(), executable: false },
                File { path: "index.mjs", bytes: module.as_bytes(), executable: false },
            ],
        )
    }

    fn deploy(&self, name: &str, files: &[File<'_>]) -> Result<(), Failure> {
        let request = http::request("PUT", &format!("/v1/functions/{name}"), &archive(files));
        http::ask(self.address, &request).map_err(|error| format!("{name} cannot be deployed: {error}"))?;
        Ok(())
    }

    /// The sum over the shards of a metric; zero for one that the worker does not have.
    ///
    /// # Errors
    /// The connection's.
    pub fn metric(&self, name: &str) -> Result<f64, Failure> {
        let text = self.metrics()?;
        let of_name =
            text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        Ok(of_name.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// The sum of a metric over the labels that contain a text.
    ///
    /// # Errors
    /// The connection's.
    pub fn metric_with(&self, name: &str, label: &str) -> Result<f64, Failure> {
        let text = self.metrics()?;
        let start = format!("{name}{{");
        let lines = text.lines().filter(|line| line.starts_with(&start) && line.contains(label));
        Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// A metric by shard.
    ///
    /// # Errors
    /// The connection's.
    pub fn metric_by_shard(&self, name: &str, shards: usize) -> Result<Vec<f64>, Failure> {
        let text = self.metrics()?;
        let of_shard = |shard| {
            let start = format!("{name}{{shard=\"{shard}\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&start)?.parse::<f64>().ok()).unwrap_or(0.0)
        };
        Ok((0..shards).map(of_shard).collect())
    }

    fn metrics(&self) -> io::Result<String> {
        http::ask(self.address, b"GET /metrics HTTP/1.1\r\nhost: bench\r\n\r\n")
    }

    /// Waits until a metric is as wanted.
    ///
    /// # Errors
    /// It stays otherwise.
    pub fn await_metric(&self, name: &str, wanted: impl Fn(f64) -> bool) -> Result<(), Failure> {
        let since = Instant::now();
        loop {
            let value = self.metric(name)?;
            if wanted(value) {
                return Ok(());
            }
            if since.elapsed() > PATIENCE {
                return Err(format!("{name} stays at {value}").into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Processor time of the worker's own threads so far, without its sandboxes.
    ///
    /// # Errors
    /// The worker has gone.
    pub fn cpu_ns(&self) -> io::Result<u64> {
        process::cpu_ns(self.process())
    }
}

impl Drop for Testbed {
    fn drop(&mut self) {
        drop(self.stdin.take().map(|mut stdin| stdin.flush()));
        let since = Instant::now();
        while since.elapsed() < ORDERLY && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(5));
        }
        // Sandboxes die with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // What cannot be removed now is in the temporary directory.
        let _ = std::fs::remove_dir_all(&self.state);
    }
}
