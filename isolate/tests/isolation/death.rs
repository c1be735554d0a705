//! A sandbox does not outlive its worker, which is played by a copy of this program.
#![allow(unsafe_code)]

use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use vilya_isolate::CgroupPreference;

use crate::support::{Running, native, python, start};

/// Set for a process that plays the worker: the state directory, the worker's id, and what its sandbox does.
const ROLE: &str = "VILYA_ISOLATE_TEST_WORKER";
/// Longest wait for a death, in ms. The kernel brings it about at once; a slow machine may take a while to show it.
pub(crate) const PATIENCE_MS: i32 = 30_000;

const WAITS: &str = "import time; print('up', flush=True); time.sleep(1000)";

/// A program of which another thread than the first becomes a new program: the parent-death signal stays with the first.
const SHEDS: &str = r#"
import os, threading, time
code = "import time; print('up', flush=True); time.sleep(1000)"
threading.Thread(target=lambda: os.execv("/usr/bin/python3", ["python3", "-I", "-c", code])).start()
time.sleep(1000)
"#;

/// Another worker, with one sandbox running.
pub(crate) struct Worker {
    process: Child,
    state: PathBuf,
    pub(crate) sandbox: OwnedFd,
}

/// Does nothing unless this process was started to play the worker.
#[test]
fn the_worker_when_this_process_plays_it() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let mut parts = role.splitn(4, '|');
    let mut part = || parts.next().expect("four parts");
    let (state, worker_id, groups, program) = (part(), part(), part(), part());
    let groups = if groups == "off" { CgroupPreference::Off } else { CgroupPreference::Auto };
    let mut native = native(Path::new(state), worker_id, groups);
    let mut running: Running = start(&mut native, &python(program)).expect("it starts");
    assert_eq!(running.line(), "up");
    eprintln!("sandbox {}", running.started.pid);
    // Until it is killed.
    loop {
        std::thread::park();
    }
}

impl Worker {
    pub(crate) fn start(state: &Path, worker_id: &str, groups: &str, program: &str) -> Worker {
        let mut process = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "death::the_worker_when_this_process_plays_it", "--nocapture"])
            .env(ROLE, format!("{}|{worker_id}|{groups}|{program}", state.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("this program starts");
        let errors = BufReader::new(process.stderr.take().expect("its errors"));
        let mut said = Vec::new();
        for line in errors.lines() {
            let line = line.expect("text");
            if let Some(pid) = line.strip_prefix("sandbox ") {
                let pid = pid.parse().expect("a process id");
                return Worker { process, state: state.to_owned(), sandbox: pidfd(pid) };
            }
            said.push(line);
        }
        process.kill().and_then(|()| process.wait()).expect("it runs no more");
        panic!("the worker did not start a sandbox: {said:?}");
    }

    /// Kills it as an out-of-memory killer would.
    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it ends");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        crate::support::remove_bases(&self.state);
    }
}

pub(crate) fn pidfd(pid: i32) -> OwnedFd {
    // SAFETY: no pointers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    assert!(fd >= 0, "the sandbox runs");
    // SAFETY: a new descriptor that nobody else knows.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

/// Whether the process dies in time.
pub(crate) fn dies(pidfd: BorrowedFd<'_>, patience_ms: i32) -> bool {
    let mut poll = libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd, which outlives the call.
    unsafe { libc::poll(&raw mut poll, 1, patience_ms) == 1 }
}

fn dies_with_its_worker(groups: &str, program: &str) {
    let state = tempfile::tempdir().expect("a directory");
    let worker_id = crate::support::unique("worker");
    let mut worker = Worker::start(state.path(), &worker_id, groups, program);
    assert!(!dies(worker.sandbox.as_fd(), 0), "it runs while its worker does");
    worker.kill();
    assert!(dies(worker.sandbox.as_fd(), PATIENCE_MS), "it must not outlive its worker");
    vilya_isolate::sweep(state.path(), &worker_id).expect("swept");
}

#[test]
fn a_sandbox_dies_with_its_worker() {
    dies_with_its_worker("auto", WAITS);
}

#[test]
fn a_sandbox_dies_with_its_worker_without_groups() {
    dies_with_its_worker("off", WAITS);
}

#[test]
fn a_sandbox_cannot_shed_its_death() {
    dies_with_its_worker("auto", SHEDS);
}
