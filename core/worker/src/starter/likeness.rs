//! What the sandbox of a function is like: its command, its environment, what is shown to it and how it is limited.
//!
//! Owns: what every sandbox of a worker has in common, and the specification of one. Invariant: the same function gets the same, but for the
//! sandbox's name and cores. It does not know how or when a sandbox is made.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use vilya_isolate::{Bind, ImageRoot, Reach, ResourceLimits, Root, Spec};

use super::Start;
use crate::manifest::Runtime;
use crate::network::NetworkSettings;
use crate::node::{self, NodeHome};
use crate::python::PythonHome;
use crate::runtimes::{RUNTIMES, RUNTIMES_INSIDE};
use crate::storage::FunctionRecord;

/// The memory limit that a prepared sandbox waits with; a start sets the function's own.
const TEMPLATE_MEMORY_BYTES: u64 = 128 << 20;
/// Where a function's files are inside.
pub(super) const FUNCTION: &str = "/function";
/// Where programs are looked for inside.
pub(super) const SEARCH_PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// The host name inside. The function's own name is in its environment: what is made before the function is known cannot bear it.
const HOSTNAME: &str = "function";

/// What every sandbox of this worker has in common.
#[derive(Clone, Debug)]
pub(crate) struct SandboxDefaults {
    pub(crate) python: Option<PythonHome>,
    /// Or why no function of Node can run.
    pub(crate) node: Result<NodeHome, String>,
    pub(crate) bundles: PathBuf,
    pub(crate) payload_limit_bytes: u64,
    pub(crate) processes: u32,
    pub(crate) tmp_bytes: u64,
    pub(crate) open_files: u32,
    pub(crate) cpu_millis: Option<u32>,
    pub(crate) spin_us: Option<u64>,
    /// Sandboxes that are made before they are needed, and the threads that make them.
    pub(crate) prepared: usize,
    pub(crate) makers: usize,
    /// Images of functions for which some are made, too.
    pub(crate) prepared_images: usize,
    /// Node processes that are started before their function is known.
    pub(crate) node_ahead: usize,
    /// Sandboxes that have loaded the image that their function's next start asks for, at most.
    pub(crate) loaded: usize,
    /// Most memory of the images that copies are made of; 0 makes none.
    pub(crate) zygotes_bytes: u64,
    pub(crate) start_timeout: Duration,
    pub(crate) network: NetworkSettings,
}

impl SandboxDefaults {
    /// What every sandbox that is made ahead has in common.
    pub(super) fn template(&self) -> Spec {
        Spec {
            name: "template".into(),
            command: vec!["/usr/bin/true".into()],
            environment: Vec::new(),
            working_directory: "/".into(),
            root: Root::System,
            binds: self.runtime_binds(),
            limits: self.limits(TEMPLATE_MEMORY_BYTES),
            cores: Vec::new(),
            hostname: HOSTNAME.into(),
            reach: Reach::Nothing,
        }
    }

    /// What the runtimes of every function need.
    fn runtime_binds(&self) -> Vec<Bind> {
        let SandboxDefaults { bundles, python, node, .. } = self;
        let shown = |source: PathBuf, target: &str| Bind { source, target: target.into(), read_only: true };
        let python = python.as_ref().and_then(|python| python.prefix.clone());
        let node = node.as_ref().ok().and_then(|node| node.prefix.clone()).map(|prefix| (prefix.clone(), prefix));
        // One within the other is there already.
        let within = |one: &Option<(PathBuf, PathBuf)>, of: &Option<(PathBuf, PathBuf)>| matches!((one, of), (Some((one, _)), Some((of, _))) if one.starts_with(of));
        let node = if within(&node, &python) { None } else { node };
        let python = if within(&python, &node) { None } else { python };
        let prefixes = python.into_iter().chain(node).map(|(inside, outside)| {
            let target = inside.to_string_lossy().into_owned();
            shown(outside, &target)
        });
        std::iter::once(shown(bundles.join(RUNTIMES), RUNTIMES_INSIDE)).chain(prefixes).collect()
    }

    /// What they need of every function in an image: what the host's interpreters need besides is not for an image's.
    pub(super) fn image_binds(&self) -> Vec<Bind> {
        self.runtime_binds().into_iter().take(1).collect()
    }

    pub(super) fn limits(&self, memory_bytes: u64) -> ResourceLimits {
        ResourceLimits {
            memory_bytes,
            cpu_millis: self.cpu_millis,
            processes: self.processes,
            tmp_bytes: self.tmp_bytes,
            open_files: self.open_files,
        }
    }

    /// The sandbox that a start is for, the so many-th.
    pub(super) fn spec(&self, start: &Start, sequence: u64) -> Result<Spec, String> {
        let manifest = &start.record.manifest;
        let mut binds =
            vec![Bind { source: self.bundles.join(&start.record.bundle), target: FUNCTION.into(), read_only: true }];
        if start.record.image.is_some() {
            binds.extend(self.image_binds());
        } else if manifest.runtime.interpreter().is_some() {
            binds.extend(self.runtime_binds());
        }
        let command = self.command(&start.record)?;
        let asked = manifest.network;
        let refused = |why| format!("network = \"{}\": {why}", asked.as_str());
        let reach = self.network.reach(asked).map_err(refused)?;
        let root = match &start.record.image {
            Some(image) => image_root(self.bundles.join(image.directory()))?,
            None => Root::System,
        };
        Ok(Spec {
            name: format!("s{}-{}-{}", start.shard, sequence, manifest.name),
            command,
            environment: self.environment(&start.record),
            working_directory: FUNCTION.into(),
            root,
            binds,
            limits: self.limits(manifest.memory_bytes),
            cores: start.cores.clone(),
            hostname: HOSTNAME.into(),
            reach,
        })
    }

    fn command(&self, record: &FunctionRecord) -> Result<Vec<String>, String> {
        const NO_PYTHON: &str =
            "no Python 3.9 or later was found at start; install one or set runtimes.python.interpreter";
        let manifest = &record.manifest;
        // Its interpreter is looked for when it is deployed.
        let inside = record.image.as_ref().map(|image| image.interpreter.clone().unwrap_or_default());
        match manifest.runtime {
            Runtime::Rust | Runtime::C => Ok(vec![format!("{FUNCTION}/{}", manifest.handler)]),
            Runtime::Python => {
                let outside = self.python_command().ok_or(NO_PYTHON)?;
                Ok(inside.map_or(outside, python_arguments))
            }
            Runtime::Node => {
                let home = self.node.as_ref().map_err(Clone::clone)?;
                let within = |interpreter| node::arguments(interpreter, manifest.memory_bytes);
                Ok(inside.map_or_else(|| home.command(manifest.memory_bytes), within))
            }
        }
    }

    pub(super) fn python_command(&self) -> Option<Vec<String>> {
        let interpreter = self.python.as_ref()?.interpreter.to_string_lossy().into_owned();
        Some(python_arguments(interpreter))
    }

    fn environment(&self, record: &FunctionRecord) -> Vec<(String, String)> {
        let manifest = &record.manifest;
        let mut environment: Vec<(String, String)> = vec![
            ("PATH".into(), SEARCH_PATH.into()),
            ("HOME".into(), "/tmp".into()),
            ("LANG".into(), "C.UTF-8".into()),
            ("VILYA_FUNCTION".into(), manifest.name.clone()),
            ("VILYA_VERSION".into(), record.version.to_string()),
            ("VILYA_HANDLER".into(), manifest.handler.clone()),
            ("VILYA_MEMORY_BYTES".into(), manifest.memory_bytes.to_string()),
            ("VILYA_TIMEOUT_MS".into(), (manifest.timeout_ns / 1_000_000).to_string()),
            ("VILYA_CONCURRENCY".into(), manifest.concurrency.to_string()),
        ];
        if !manifest.preload.is_empty() {
            environment.push(("VILYA_PRELOAD".into(), manifest.preload.join(" ")));
        }
        if manifest.runtime == Runtime::Node {
            environment.push((node::ENVIRONMENT.0.into(), node::ENVIRONMENT.1.into()));
        }
        if let Some(spin) = self.spin_us {
            environment.push(("VILYA_SPIN_US".into(), spin.to_string()));
        }
        for (key, value) in record.image.iter().flat_map(|image| &image.environment) {
            environment.retain(|(name, _)| name != key);
            environment.push((key.clone(), value.clone()));
        }
        // The function's own come last and win, but for the VILYA_ names, which a manifest may not set.
        for (key, value) in &manifest.environment {
            environment.retain(|(name, _)| name != key);
            environment.push((key.clone(), value.clone()));
        }
        environment
    }
}

/// Whether the function sets variables that libraries look at when a process begins, which a copy of a bare runtime has done.
pub(super) fn is_set_at_start(record: &FunctionRecord) -> bool {
    const PREFIXES: [&str; 11] =
        ["TZ", "LC_", "LANG", "LD_", "GLIBC_", "MALLOC_", "PYTHON", "OPENSSL_", "NODE_", "UV_", "SSL_"];
    record.manifest.environment.keys().any(|name| PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
}

fn python_arguments(interpreter: String) -> Vec<String> {
    let arguments = ["-I", "-B", "-X", "utf8", "/vilya/python/vilya_runtime/__main__.py"];
    std::iter::once(interpreter).chain(arguments.map(String::from)).collect()
}

/// What is shown of an image: its directories and links, but for those that a sandbox has of its own.
fn image_root(directory: PathBuf) -> Result<Root, String> {
    let failed =
        |error: io::Error| format!("the image {} cannot be read: {error}; deploy it again", directory.display());
    let (mut directories, mut links) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(&directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let kind = entry.file_type().map_err(failed)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if kind.is_dir() {
            directories.push(name);
        } else if kind.is_symlink() {
            let to = std::fs::read_link(entry.path()).map_err(failed)?;
            links.push((name, to.to_string_lossy().into_owned()));
        }
    }
    Ok(Root::Image(ImageRoot { directory, directories, links }))
}
