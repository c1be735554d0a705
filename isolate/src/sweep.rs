//! Removing what a killed worker left behind.
//!
//! Owns: the clean-up at start. Invariant: nothing that a running worker owns is touched, and no process is killed but one that is in a
//! group of this worker or that a record names beyond doubt. Mounts need no sweep: they live in namespaces that died with their sandboxes.
//! Does not know: why the worker died.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cgroup;
use crate::mechanism;
use crate::reach::egress;
use crate::spec::{SpecError, check_name};
use crate::state::{Process, State};
use crate::sys;

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Control groups that were removed.
    pub groups: usize,
    /// Containers of other mechanisms that were removed.
    pub containers: usize,
    /// Links to other machines, and tables of rules for them, that were removed.
    pub links: usize,
    /// Processes found by their record and killed.
    pub processes: usize,
    /// Control groups and containers that could not be removed, and why.
    pub stuck: Vec<(PathBuf, String)>,
}

/// Why nothing was swept.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The worker's id cannot be a directory name.
    #[error("worker id: {0}")]
    WorkerId(#[from] SpecError),
    /// Another worker runs on this state directory.
    #[error("process {pid} is using {path}; stop it, or give this worker a state directory of its own")]
    InUse {
        /// That worker.
        pid: u32,
        /// The state directory.
        path: PathBuf,
    },
    /// The records could not be read.
    #[error("cannot read the records in {path}: {source}; check who owns the directory")]
    Records {
        /// The state directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// How long the death of a killed process is awaited before its record is removed.
const DEATH_PATIENCE: Duration = Duration::from_secs(2);

/// Removes control groups, containers and processes that an earlier worker with this id and state directory left. Call it before the first start.
///
/// # Errors
/// When another worker runs there, or the state directory cannot be read.
pub fn sweep(state_directory: &Path, worker_id: &str) -> Result<Swept, SweepError> {
    check_name(worker_id)?;
    let state = State::at(state_directory);
    state.check().map_err(|source| SweepError::Records { path: state_directory.to_owned(), source })?;
    if let Some(owner) = state.other_owner() {
        return Err(SweepError::InUse { pid: owner.pid, path: state_directory.to_owned() });
    }
    let mut swept = Swept::default();
    let mut bases = cgroup::bases(worker_id);
    bases.extend(state.remembered_groups());
    bases.sort();
    bases.dedup();
    for base in &bases {
        sweep_groups(base, &mut swept);
    }
    let records = state.all_records();
    let records = records.map_err(|source| SweepError::Records { path: state_directory.to_owned(), source })?;
    for record in records {
        swept.processes += usize::from(sweep_record(&record));
    }
    match egress::sweep(worker_id) {
        Ok(links) => swept.links = links,
        Err(error) => swept.stuck.push((PathBuf::from("links to other machines"), error.to_string())),
    }
    mechanism::oci::sweep(&state, worker_id, &mut swept);
    mechanism::docker::sweep(&state, worker_id, &mut swept);
    Ok(swept)
}

fn sweep_groups(base: &Path, swept: &mut Swept) {
    let (base, prefix) = cgroup::as_prefix(base).unwrap_or((base, ""));
    // A base that is gone holds nothing.
    let (Ok(directory), Ok(entries)) = (File::open(base), fs::read_dir(base)) else {
        return;
    };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        let name = entry.file_name().into_string().ok().filter(|name| name.starts_with(prefix));
        let Some(name) = name.and_then(|name| CString::new(name).ok()) else {
            continue;
        };
        match cgroup::empty_and_remove(directory.as_fd(), &name) {
            Ok(()) => swept.groups += 1,
            Err(error) => swept.stuck.push((entry.path(), error.to_string())),
        }
    }
}

/// Whether the record named a process that still ran.
fn sweep_record(path: &Path) -> bool {
    let killed = Process::read(path).is_ok_and(|process| kill(&process));
    // If this fails the record stays, and names a process that is dead.
    let _ = fs::remove_file(path);
    killed
}

fn kill(process: &Process) -> bool {
    let Some(pidfd) = i32::try_from(process.pid).ok().and_then(|pid| sys::pidfd_open(pid).ok()) else {
        return false;
    };
    // The pidfd first, the comparison second: what was compared is what is killed.
    if process.pid == std::process::id() || !process.runs() {
        return false;
    }
    let killed = sys::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL).is_ok();
    killed && sys::poll_readable(pidfd.as_fd(), DEATH_PATIENCE).unwrap_or(false)
}
