//! The program behind the `oci` mechanism: crun or runc; youki is known and refused.
//!
//! Owns: finding it, and its command line. Invariant: a call ends in bounded time, and one that fails says what the program wrote to its log.
//! Does not know: what is in a bundle.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};

use crate::cgroup;
use crate::limits::START_PATIENCE;
use crate::mechanism::Descriptors;
use crate::sys;

/// Which program makes the containers. All take the same commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OciRuntime {
    /// The fastest to start, so the first choice.
    Crun,
    /// The one of Docker and containerd.
    Runc,
    /// The one in Rust; refused, see `lacks`.
    Youki,
}

impl OciRuntime {
    /// In the order in which they are looked for.
    pub const ALL: [OciRuntime; 3] = [OciRuntime::Crun, OciRuntime::Runc, OciRuntime::Youki];

    /// The program's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            OciRuntime::Crun => "crun",
            OciRuntime::Runc => "runc",
            OciRuntime::Youki => "youki",
        }
    }

    /// Why it is used for no sandbox, though it takes the commands: as of youki 0.7.0. A weaker filter would not show.
    pub(crate) fn lacks(self) -> Option<&'static str> {
        match self {
            OciRuntime::Crun | OciRuntime::Runc => None,
            OciRuntime::Youki => Some(
                "takes the mask of a condition on system calls for its value, so its filter would not be the one that was asked for; \
                 nor does it bring the loopback up",
            ),
        }
    }

    /// Where it is installed; runc lies where only root usually looks.
    pub(crate) fn find(self) -> Option<PathBuf> {
        let searched = std::env::var_os("PATH").unwrap_or_default();
        let places =
            std::env::split_paths(&searched).chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
        let mut candidates = places.filter(|place| place.is_absolute()).map(|place| place.join(self.name()));
        candidates.find(|path| path.is_file())
    }
}

/// A runtime and where it keeps what it knows of this worker's containers.
#[derive(Clone, Debug)]
pub(super) struct Runtime {
    pub(super) kind: OciRuntime,
    program: PathBuf,
    /// Its own state, one directory a container.
    state: PathBuf,
    /// A mount that it must not see.
    hidden: Option<PathBuf>,
}

impl Runtime {
    /// crun refuses a host on which version 2 of control groups has controllers beside version 1; it uses the one that it sees.
    pub(super) fn new(kind: OciRuntime, program: PathBuf, state: PathBuf) -> Runtime {
        let hidden = if kind == OciRuntime::Crun { cgroup::unified_besides() } else { None };
        Runtime { kind, program, state, hidden }
    }

    /// Where version 2 of control groups is mounted and the runtime does not see it: containers are in no group there unless they are born in one.
    pub(super) fn hidden(&self) -> Option<&Path> {
        self.hidden.as_deref()
    }

    /// Whether it still knows this container.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.state.join(name).exists()
    }

    fn command(&self, log: &Path) -> Result<Command, String> {
        let mut command = Command::new(&self.program);
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.arg("--root").arg(&self.state).arg("--log").arg(log);
        if self.kind == OciRuntime::Crun {
            // The others use control groups without systemd unless they are told to use it.
            command.arg("--cgroup-manager=cgroupfs");
        }
        command.current_dir("/").stdin(Stdio::null());
        if let Some(hidden) = &self.hidden {
            sys::without_mount(&mut command, hidden).map_err(|error| error.to_string())?;
        }
        Ok(command)
    }

    /// Makes a container from a bundle and runs its program; the process id of that. `entrance` leads into a group that it is to be born in.
    pub(super) fn run(
        &self,
        name: &str,
        bundle: &Path,
        descriptors: Descriptors,
        entrance: Option<OwnedFd>,
    ) -> Result<i32, String> {
        let (log, pid_file) = (bundle.join("log"), bundle.join("pid"));
        let mut command = self.command(&log)?;
        if let Some(entrance) = entrance {
            sys::begins_in(&mut command, entrance);
        }
        command.args(["run", "--detach", "--preserve-fds", "3", "--pid-file"]).arg(&pid_file);
        command.arg("--bundle").arg(bundle).arg(name);
        let Descriptors { ring, stdout, stderr } = descriptors;
        let mapping =
            ring.into_iter().zip(3..).map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd }).collect();
        command.fd_mappings(mapping).map_err(|error| error.to_string())?;
        command.stdout(Stdio::from(stdout)).stderr(Stdio::from(stderr));
        self.perform(command, &log)?;
        let pid = fs::read_to_string(&pid_file).ok().and_then(|text| text.trim().parse().ok());
        pid.ok_or_else(|| format!("{} wrote no process id", self.kind.name()))
    }

    /// Kills whatever is in a container and removes it, its control groups included. One that is not there counts as removed.
    pub(super) fn delete(&self, name: &str, bundle: &Path) -> Result<(), String> {
        if !self.knows(name) {
            return Ok(());
        }
        let log = bundle.join("log");
        // An old log would be taken for this call's.
        let _ = fs::remove_file(&log);
        let mut command = self.command(&log)?;
        command.args(["delete", "--force", name]).stdout(Stdio::null()).stderr(Stdio::null());
        self.perform(command, &log)
    }

    fn perform(&self, command: Command, log: &Path) -> Result<(), String> {
        let name = self.kind.name();
        let ended = wait(command, START_PATIENCE).map_err(|error| format!("cannot run {name}: {error}"))?;
        match ended {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(last_words(log).unwrap_or_else(|| format!("{name} ended with {status}"))),
            None => Err(format!("{name} did not end in time and was killed; a file system that it needs may hang")),
        }
    }
}

/// `None` if it had to be killed.
fn wait(mut command: Command, patience: Duration) -> io::Result<Option<ExitStatus>> {
    let mut child = command.spawn()?;
    // What the command holds for the child alone: the ends of pipes.
    drop(command);
    let ended = pidfd(&child).and_then(|pidfd| sys::poll_readable(pidfd.as_fd(), patience));
    if !matches!(ended, Ok(true)) {
        // It fails only if it has ended by now.
        let _ = child.kill();
    }
    let status = child.wait()?;
    ended.map(|in_time| in_time.then_some(status))
}

fn pidfd(child: &Child) -> io::Result<OwnedFd> {
    sys::pidfd_open(child.id().cast_signed())
}

/// The last message of a log: its text, whichever the format of the line.
fn last_words(log: &Path) -> Option<String> {
    let text = fs::read_to_string(log).ok()?;
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    // runc: time="…" level=error msg="…"
    let quoted = line.split_once("msg=\"").and_then(|(_, rest)| rest.rsplit_once('"')).map(|(message, _)| message);
    Some(quoted.map_or_else(|| line.to_owned(), |message| message.replace("\\\"", "\"")))
}

#[cfg(test)]
mod tests {
    use super::last_words;

    #[test]
    fn the_last_words_of_every_log_are_understood() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let log = directory.path().join("log");
        assert_eq!(last_words(&log), None);
        let lines = [
            (
                "2026-11-25T11:06:47.1Z: executable file `/x` not found\n\n",
                "2026-11-25T11:06:47.1Z: executable file `/x` not found",
            ),
            (
                "time=\"t\" level=warning msg=\"w\"\ntime=\"t\" level=error msg=\"exec: \\\"x\\\": no\"\n",
                "exec: \"x\": no",
            ),
        ];
        for (text, expected) in lines {
            std::fs::write(&log, text).expect("written");
            assert_eq!(last_words(&log).as_deref(), Some(expected));
        }
    }
}
