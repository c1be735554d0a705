//! The starter and the reaper: two threads that make sandboxes and clean up after them, so that no shard ever waits for
//! a fork, a mount or a control group.
//!
//! Invariant: every start that was asked for is answered once. The starter's thread lives as long as the worker, since
//! a sandbox dies with the thread that made it. It does not know queues, engines or connections.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, unbounded};
use vilya_engine::SandboxId;
use vilya_ipc::host::{Host, ReadOnlyBy};
use vilya_ipc::layout::RegionSpec;
use vilya_isolate::{Bind, Descriptors, Mechanism, Remains, ResourceLimits, Root, Spec};

use crate::manifest::Runtime;
use crate::mesh::{Message, Post, StartedSandbox};
use crate::process::vital;
use crate::python::PythonHome;
use crate::storage::FunctionRecord;

/// What every sandbox of this worker has in common.
#[derive(Clone, Debug)]
pub(crate) struct SandboxDefaults {
    pub(crate) python: Option<PythonHome>,
    pub(crate) bundles: PathBuf,
    pub(crate) payload_limit_bytes: u64,
    pub(crate) processes: u32,
    pub(crate) tmp_bytes: u64,
    pub(crate) open_files: u32,
    pub(crate) cpu_millis: Option<u32>,
    pub(crate) spin_us: Option<u64>,
}

/// A start that a shard asks for.
pub(crate) struct Start {
    pub(crate) shard: usize,
    pub(crate) sandbox: SandboxId,
    pub(crate) record: Arc<FunctionRecord>,
    pub(crate) cores: Vec<usize>,
}

/// A dead sandbox to clean up.
pub(crate) struct Reap {
    pub(crate) shard: usize,
    pub(crate) sandbox: SandboxId,
    pub(crate) remains: Remains,
    /// Unmapping what a large payload touched takes a while, so it is done here.
    pub(crate) host: Host,
}

/// The inboxes of both threads. Dropping every copy ends them.
#[derive(Clone)]
pub(crate) struct Nursery {
    pub(crate) starts: Sender<Start>,
    pub(crate) reaps: Sender<Reap>,
}

/// Starts both threads.
pub(crate) fn spawn(
    mechanism: Box<dyn Mechanism>,
    defaults: SandboxDefaults,
    shards: Vec<Post>,
) -> io::Result<(Nursery, [JoinHandle<()>; 2])> {
    // Bounded by the engine: a shard has at most `sandboxes` of them between its Start and its SandboxDied.
    let (starts, start_inbox) = unbounded();
    let (reaps, reap_inbox) = unbounded();
    let reap_posts = shards.clone();
    let mut starter = Starter { mechanism, defaults, shards, sequence: 0 };
    let starter = std::thread::Builder::new()
        .name("vilya-starter".into())
        .spawn(move || vital("the starter", || starter.run(&start_inbox)))?;
    let reaper = std::thread::Builder::new()
        .name("vilya-reaper".into())
        .spawn(move || vital("the reaper", || reap(&reap_inbox, &reap_posts)))?;
    Ok((Nursery { starts, reaps }, [starter, reaper]))
}

fn reap(inbox: &Receiver<Reap>, shards: &[Post]) {
    for Reap { shard, sandbox, remains, host } in inbox {
        drop(host);
        let ended = remains.reap();
        shards[shard].send(Message::Reaped { sandbox, ended });
    }
}

struct Starter {
    mechanism: Box<dyn Mechanism>,
    defaults: SandboxDefaults,
    shards: Vec<Post>,
    sequence: u64,
}

impl Starter {
    fn run(&mut self, inbox: &Receiver<Start>) {
        for start in inbox {
            let outcome = Box::new(self.start(&start));
            self.shards[start.shard].send(Message::Started { sandbox: start.sandbox, outcome });
        }
    }

    fn start(&mut self, start: &Start) -> Result<StartedSandbox, String> {
        self.sequence += 1;
        let spec = self.spec(start)?;
        let region = RegionSpec {
            lanes: start.record.manifest.concurrency,
            payload_limit_bytes: self.defaults.payload_limit_bytes,
        };
        let read_only_by = if self.mechanism.distinct_users() { ReadOnlyBy::Permission } else { ReadOnlyBy::Seal };
        let (host, guest) = Host::create(&region, read_only_by).map_err(|error| error.to_string())?;
        let (stdout, stdout_end) = pipe().map_err(|error| format!("no pipe for standard output: {error}"))?;
        let (stderr, stderr_end) = pipe().map_err(|error| format!("no pipe for standard error: {error}"))?;
        let descriptors =
            Descriptors { ring: [guest.down, guest.up, guest.doorbell], stdout: stdout_end, stderr: stderr_end };
        let started = self.mechanism.start(&spec, descriptors).map_err(|error| error.to_string())?;
        Ok(StartedSandbox { host, started, stdout, stderr })
    }

    fn spec(&self, start: &Start) -> Result<Spec, String> {
        let manifest = &start.record.manifest;
        let mut binds = vec![Bind {
            source: self.defaults.bundles.join(&start.record.bundle),
            target: "/function".into(),
            read_only: true,
        }];
        let command = match manifest.runtime {
            Runtime::Rust => vec![format!("/function/{}", manifest.handler)],
            Runtime::Python => {
                let python = self.defaults.python.as_ref().ok_or(
                    "no Python 3.9 or later was found at start; install one or set runtimes.python.interpreter",
                )?;
                binds.push(Bind { source: python.runtime.clone(), target: "/vilya/python".into(), read_only: true });
                if let Some(prefix) = &python.prefix {
                    let target = prefix.to_string_lossy().into_owned();
                    binds.push(Bind { source: prefix.clone(), target, read_only: true });
                }
                let interpreter = python.interpreter.to_string_lossy().into_owned();
                let arguments = ["-I", "-B", "-X", "utf8", "/vilya/python/vilya_runtime/__main__.py"];
                std::iter::once(interpreter).chain(arguments.map(String::from)).collect()
            }
        };
        Ok(Spec {
            name: format!("s{}-{}-{}", start.shard, self.sequence, manifest.name),
            command,
            environment: self.environment(&start.record),
            working_directory: "/function".into(),
            root: Root::System,
            binds,
            limits: ResourceLimits {
                memory_bytes: manifest.memory_bytes,
                cpu_millis: self.defaults.cpu_millis,
                processes: self.defaults.processes,
                tmp_bytes: self.defaults.tmp_bytes,
                open_files: self.defaults.open_files,
            },
            cores: start.cores.clone(),
            hostname: manifest.name.clone(),
        })
    }

    fn environment(&self, record: &FunctionRecord) -> Vec<(String, String)> {
        let manifest = &record.manifest;
        let mut environment: Vec<(String, String)> = vec![
            ("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into()),
            ("HOME".into(), "/tmp".into()),
            ("LANG".into(), "C.UTF-8".into()),
            ("VILYA_FUNCTION".into(), manifest.name.clone()),
            ("VILYA_VERSION".into(), record.version.to_string()),
            ("VILYA_HANDLER".into(), manifest.handler.clone()),
            ("VILYA_MEMORY_BYTES".into(), manifest.memory_bytes.to_string()),
            ("VILYA_TIMEOUT_MS".into(), (manifest.timeout_ns / 1_000_000).to_string()),
            ("VILYA_CONCURRENCY".into(), manifest.concurrency.to_string()),
        ];
        if let Some(spin) = self.defaults.spin_us {
            environment.push(("VILYA_SPIN_US".into(), spin.to_string()));
        }
        // The function's own come last and win, but for the VILYA_ names, which a manifest may not set.
        for (key, value) in &manifest.environment {
            environment.retain(|(name, _)| name != key);
            environment.push((key.clone(), value.clone()));
        }
        environment
    }
}

/// A pipe for a function's output. Its reading end blocks: io_uring polls such a descriptor and answers EAGAIN at once
/// on one that does not block.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?)
}
