//! What this package writes into the worker's state directory.
//!
//! Owns: `<state>/isolate`: the empty directory that roots are built on, who the owner is, where its control groups are, and a record of
//! each sandbox that no control group remembers. Invariant: a record names a process by its start time and the boot as well, so that a
//! number given to another process is never mistaken for it. Does not know: what is done about a record.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::sys;

/// The directory.
#[derive(Clone, Debug)]
pub(crate) struct State {
    root: PathBuf,
}

impl State {
    pub(crate) fn at(state_directory: &Path) -> State {
        State { root: state_directory.join("isolate") }
    }

    /// Makes what is missing.
    pub(crate) fn make(&self) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o755);
        builder.create(self.staging())?;
        builder.create(self.records())
    }

    /// Refuses a directory that others could have prepared: what is written there says which processes and groups may be killed.
    pub(crate) fn check(&self) -> io::Result<()> {
        const WRITABLE_FOR_ALL: u32 = 0o002;
        let above = self.root.parent().unwrap_or(&self.root);
        for path in [above, &self.root, &self.staging(), &self.records()] {
            let found = match fs::metadata(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                found => found?,
            };
            if ![0, sys::effective_user()].contains(&found.uid()) || found.mode() & WRITABLE_FOR_ALL != 0 {
                let reason = format!("{} belongs to another user or can be written by everyone", path.display());
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
            }
        }
        Ok(())
    }

    /// Where each sandbox, in a mount namespace of its own, builds its root; empty for everybody else.
    pub(crate) fn staging(&self) -> PathBuf {
        self.root.join("root")
    }

    /// What a mechanism other than the native one keeps.
    pub(crate) fn mechanism(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn records(&self) -> PathBuf {
        self.root.join("sandboxes")
    }

    fn owner_file(&self) -> PathBuf {
        self.root.join("owner")
    }

    fn groups_file(&self) -> PathBuf {
        self.root.join("groups")
    }

    /// The record of one sandbox.
    pub(crate) fn record(&self, name: &str) -> PathBuf {
        self.records().join(name)
    }

    /// Records a sandbox; where.
    pub(crate) fn note(&self, pid: i32, name: &str) -> io::Result<PathBuf> {
        let path = self.record(name);
        match Process::observe(pid.cast_unsigned()).and_then(|process| process.write(&path)) {
            // A trial, or a program that is over already.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(path),
            result => result.map(|()| path),
        }
    }

    /// Who used this directory last, if its process still runs and is not this one.
    pub(crate) fn other_owner(&self) -> Option<Process> {
        let owner = Process::read(&self.owner_file()).ok()?;
        (owner.pid != std::process::id() && owner.runs()).then_some(owner)
    }

    /// Makes this process the owner.
    pub(crate) fn own(&self) -> io::Result<()> {
        Process::observe(std::process::id())?.write(&self.owner_file())
    }

    /// Remembers where groups are made, for a sweep after the host's hierarchies changed.
    pub(crate) fn remember_groups(&self, paths: impl Iterator<Item = PathBuf>) -> io::Result<()> {
        let lines: String = paths.map(|path| format!("{}\n", path.display())).collect();
        write_whole(&self.groups_file(), &lines)
    }

    pub(crate) fn remembered_groups(&self) -> Vec<PathBuf> {
        let text = fs::read_to_string(self.groups_file()).unwrap_or_default();
        text.lines().map(PathBuf::from).collect()
    }

    /// Every record there is.
    pub(crate) fn all_records(&self) -> io::Result<Vec<PathBuf>> {
        match fs::read_dir(self.records()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            entries => entries?.map(|entry| Ok(entry?.path())).collect(),
        }
    }
}

/// A process, named so that it cannot be mistaken for a later one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Clock ticks after boot.
    started: u64,
    boot: String,
}

impl Process {
    /// Looks at a running process.
    pub(crate) fn observe(pid: u32) -> io::Result<Process> {
        let status = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name, in parentheses, may hold anything; the start time is the 20th field after it.
        let fields = status.rsplit_once(')').map_or("", |(_, rest)| rest);
        let started = fields.split_whitespace().nth(19).and_then(|field| field.parse().ok());
        let started = started.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        Ok(Process { pid, started, boot })
    }

    /// Whether it still runs (or waits to be reaped).
    pub(crate) fn runs(&self) -> bool {
        Process::observe(self.pid).is_ok_and(|now| now == *self)
    }

    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        write_whole(path, &format!("{} {} {}\n", self.pid, self.started, self.boot))
    }

    pub(crate) fn read(path: &Path) -> io::Result<Process> {
        let text = fs::read_to_string(path)?;
        let mut fields = text.split_whitespace();
        let parsed = (|| {
            let pid = fields.next()?.parse().ok()?;
            let started = fields.next()?.parse().ok()?;
            Some(Process { pid, started, boot: fields.next()?.to_owned() })
        })();
        parsed.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }
}

/// Never half a file, whenever the worker is killed.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("draft");
    fs::write(&draft, text)?;
    fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::{Process, State};

    #[test]
    fn a_directory_that_others_may_write_is_refused() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let state = State::at(directory.path());
        state.check().expect("nothing is there yet");
        state.make().and_then(|()| state.check()).expect("it is ours");
        for path in [directory.path(), &state.root] {
            let before = fs::metadata(path).expect("it is there").permissions();
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("its mode");
            state.check().expect_err("everyone may write there");
            fs::set_permissions(path, before).expect("its mode");
        }
        state.check().expect("as before");
    }

    #[test]
    fn a_process_is_told_from_a_later_one_with_its_number() {
        let own = Process::observe(std::process::id()).expect("this process runs");
        assert!(own.runs());
        assert!(!Process { started: own.started + 1, ..own.clone() }.runs());
        assert!(!Process { boot: "another".into(), ..own.clone() }.runs());
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("record");
        own.write(&path).expect("written");
        assert_eq!(Process::read(&path).expect("read"), own);
        std::fs::write(&path, "12").expect("written");
        assert!(Process::read(&path).is_err(), "half a record is no record");
    }
}
