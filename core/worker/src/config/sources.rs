//! Where settings are written: one file, the environment, flags; and the facts of the host that defaults rest on.
//!
//! Precedence: a flag wins over the environment, the environment over the file, the file over the default.
//! Everything outside the process is read here and passed on as data, so that the checks are pure.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::raw::Raw;

/// Where a value was written. Ordered as problems are listed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A line of a file, counted from 1.
    File {
        /// The file as the operator named it.
        path: Arc<str>,
        /// The line, counted from 1.
        line: usize,
    },
    /// An environment variable, by its name.
    Environment(String),
    /// A flag, by its name with the dashes.
    Flag(String),
    /// Nowhere: the default, possibly derived from the machine.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::File { path, line } => write!(f, "{path}:{line}"),
            Source::Environment(name) | Source::Flag(name) => f.write_str(name),
            Source::Default => f.write_str("default"),
        }
    }
}

/// One thing that is wrong with what was written. Displays as `vilya.toml:12: limits.memory: what to do`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it was written.
    pub source: Source,
    /// The dotted key; empty when the problem is with the text as a whole.
    pub key: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => write!(f, "{}: {}", self.source, self.message),
            key => write!(f, "{}: {key}: {}", self.source, self.message),
        }
    }
}

// By hand: the derive would take the field `source` for the cause of the error.
impl std::error::Error for Problem {}

/// What of the host the defaults and checks rest on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Cores this process may run on, ascending.
    pub cores: Vec<usize>,
    /// Memory of the machine, or of the control group around this process if that is less.
    pub memory_bytes: u64,
    /// The state directory when none is given.
    pub state_directory: PathBuf,
}

impl Host {
    /// Reads the facts of this machine.
    pub fn read() -> std::io::Result<Host> {
        Ok(Host { cores: available_cores()?, memory_bytes: available_memory()?, state_directory: state_directory() })
    }
}

fn available_cores() -> std::io::Result<Vec<usize>> {
    let set = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0))?;
    Ok((0..nix::sched::CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false)).collect())
}

fn available_memory() -> std::io::Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let total = mem_total(&text)
        .ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidData, "/proc/meminfo has no MemTotal line"))?;
    // The limit of a container around this process, where there is one; "max" and absent files are no limit.
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limit = limits.iter().filter_map(|path| std::fs::read_to_string(path).ok()?.trim().parse().ok()).min();
    Ok(limit.map_or(total, |limit: u64| total.min(limit)))
}

fn mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn state_directory() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/var/lib/vilya");
    }
    // As the XDG base directory specification has it: a relative value is to be ignored.
    let absolute = |name: &str| std::env::var(name).ok().map(PathBuf::from).filter(|path| path.is_absolute());
    match (absolute("XDG_STATE_HOME"), absolute("HOME")) {
        (Some(state), _) => state.join("vilya"),
        (None, Some(home)) => home.join(".local/state/vilya"),
        (None, None) => std::env::temp_dir().join(format!("vilya-{}", nix::unistd::geteuid())),
    }
}

/// What the operator wrote, before anything is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// The configuration file, which must exist if it is named.
    pub file: Option<PathBuf>,
    /// Environment variables; those not of the form `VILYA_SECTION__KEY` are ignored.
    pub environment: Vec<(String, String)>,
    /// Overrides of the command line: dotted key and value.
    pub flags: Vec<(String, String)>,
}

const PREFIX: &str = "VILYA_";

impl Sources {
    /// The process's own environment, and the file that `named` says, or else `./vilya.toml` or
    /// `/etc/vilya/vilya.toml` where one of them exists.
    pub fn discover(named: Option<PathBuf>, flags: Vec<(String, String)>) -> Sources {
        let usual = ["vilya.toml", "/etc/vilya/vilya.toml"].map(Path::new);
        let file = named.or_else(|| usual.iter().find(|path| path.exists()).map(|path| path.to_path_buf()));
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
            .filter(|(name, _)| name.starts_with(PREFIX))
            .collect();
        Sources { file, environment, flags }
    }

    /// Reads the file and lays the environment and the flags over it.
    pub(super) fn gather(&self) -> (Raw, Vec<Problem>) {
        let (mut raw, problems) = self.read_file();
        for (name, value) in &self.environment {
            if let Some(key) = key_of_variable(name) {
                raw.set_bare(key, value.clone(), Source::Environment(name.clone()));
            }
        }
        for (key, value) in &self.flags {
            raw.set_bare(key.clone(), value.clone(), Source::Flag("--set".to_owned()));
        }
        (raw, problems)
    }

    fn read_file(&self) -> (Raw, Vec<Problem>) {
        let Some(path) = &self.file else {
            return (Raw::default(), Vec::new());
        };
        let shown = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Raw::parse(&shown, &text),
            Err(error) => {
                let source = Source::File { path: shown.into(), line: 1 };
                let message = format!("cannot read the configuration: {error}; name another file with --config");
                (Raw::default(), vec![Problem { source, key: String::new(), message }])
            }
        }
    }

    /// Variables that look like a setting but for one underscore (`VILYA_SERVER_ADDRESS`).
    pub(super) fn near_misses(&self, known: &[&str]) -> Vec<Problem> {
        let spelled = |key: &str, separator: &str| format!("{PREFIX}{}", key.replace('.', separator).to_uppercase());
        let mut problems = Vec::new();
        for (name, _) in &self.environment {
            if let Some(key) = known.iter().find(|key| spelled(key, "_") == *name) {
                let message = format!("sections and keys are joined by two underscores: write {}", spelled(key, "__"));
                let source = Source::Environment(name.clone());
                problems.push(Problem { source, key: (*key).to_owned(), message });
            }
        }
        problems
    }
}

/// `VILYA_SERVER__MAX_PAYLOAD` to `server.max_payload`. A name without `__` is not a setting.
fn key_of_variable(name: &str) -> Option<String> {
    let rest = name.strip_prefix(PREFIX)?;
    rest.contains("__").then(|| rest.replace("__", ".").to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_map_to_keys() {
        assert_eq!(key_of_variable("VILYA_SERVER__MAX_PAYLOAD").as_deref(), Some("server.max_payload"));
        assert_eq!(
            key_of_variable("VILYA_RUNTIMES__PYTHON__INTERPRETER").as_deref(),
            Some("runtimes.python.interpreter")
        );
        assert_eq!(key_of_variable("VILYA_SERVER"), None);
        assert_eq!(key_of_variable("PATH"), None);
    }

    #[test]
    fn flags_win_over_environment_over_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vilya.toml");
        std::fs::write(&path, "[server]\naddress = \"file\"\nidle_timeout = \"file\"\nbody_timeout = \"file\"\n")
            .unwrap();
        let sources = Sources {
            file: Some(path),
            environment: vec![
                ("VILYA_SERVER__ADDRESS".into(), "environment".into()),
                ("VILYA_SERVER__IDLE_TIMEOUT".into(), "environment".into()),
                ("VILYA_SERVER".into(), "http://127.0.0.1:7878".into()),
            ],
            flags: vec![("server.address".into(), "flag".into())],
        };
        let (raw, problems) = sources.gather();
        assert_eq!(problems, []);
        let shown = |key: &str| raw.entries[key].source.to_string();
        assert_eq!(shown("server.address"), "--set");
        assert_eq!(shown("server.idle_timeout"), "VILYA_SERVER__IDLE_TIMEOUT");
        assert!(shown("server.body_timeout").ends_with("vilya.toml:4"));
        assert_eq!(raw.entries.len(), 3);
    }

    #[test]
    fn a_named_file_must_exist() {
        let sources = Sources { file: Some("/nonexistent/vilya.toml".into()), ..Sources::default() };
        let (_, problems) = sources.gather();
        assert!(problems[0].to_string().starts_with("/nonexistent/vilya.toml:1: cannot read the configuration"));
    }

    #[test]
    fn a_single_underscore_is_pointed_out() {
        let environment =
            vec![("VILYA_SERVER_ADDRESS".into(), "127.0.0.1:1".into()), ("VILYA_HOME".into(), "x".into())];
        let sources = Sources { environment, ..Sources::default() };
        let problems = sources.near_misses(&["server.address"]);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].message.contains("VILYA_SERVER__ADDRESS"));
    }

    #[test]
    fn the_total_of_memory_is_read() {
        assert_eq!(mem_total("MemFree: 1 kB\nMemTotal:       2048 kB\n"), Some(2 << 20));
        assert_eq!(mem_total("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn this_host_has_cores_and_memory() {
        let host = Host::read().unwrap();
        assert!(!host.cores.is_empty() && host.memory_bytes > 0 && host.state_directory.is_absolute());
    }
}
