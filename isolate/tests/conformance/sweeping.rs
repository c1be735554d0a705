//! What a killed worker left is removed by the next. The worker is played by a copy of this program.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use vilya_isolate::sweep;

use crate::support::{Kind, Room, each, each_of, python, start};

/// Set for a process that plays the worker: which mechanism, its state directory, the worker's id, and whether it freezes the sandbox.
const ROLE: &str = "VILYA_CONFORMANCE_TEST_WORKER";
const WAITS: &str = "import time; print('up', flush=True); time.sleep(1000)";
/// Longest wait for a death. The kernel brings it about at once; a slow machine may take a while to show it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Does nothing unless this process was started to play the worker.
#[test]
fn the_worker_when_this_process_plays_it() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let mut parts = role.splitn(4, '|');
    let mut part = || parts.next().expect("four parts").to_owned();
    let (kind, state, worker_id, freezes) = (part(), part(), part(), part());
    let kind = Kind::VARIED.into_iter().find(|known| format!("{known:?}") == kind).expect("a mechanism");
    let mut mechanism = crate::support::set_up(kind, state.into(), &worker_id).expect("its parent could too");
    let mut running = start(mechanism.as_mut(), &python(WAITS)).expect("it starts");
    assert_eq!(running.line(), "up");
    if freezes == "true" {
        running.started.remains.freezer().expect("its parent has one too").freeze().expect("it is frozen");
    }
    eprintln!("sandbox {}", running.started.pid);
    // Until it is killed.
    loop {
        std::thread::park();
    }
}

fn play(room: &Room, state: &Path, worker_id: &str, freezes: bool) -> (std::process::Child, i32) {
    let mut process = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "sweeping::the_worker_when_this_process_plays_it", "--nocapture"])
        .env(ROLE, format!("{:?}|{}|{worker_id}|{freezes}", room.kind, state.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("this program starts");
    let mut said = Vec::new();
    for line in BufReader::new(process.stderr.take().expect("its errors")).lines() {
        let line = line.expect("text");
        if let Some(pid) = line.strip_prefix("sandbox ") {
            return (process, pid.parse().expect("a process id"));
        }
        said.push(line);
    }
    process.kill().and_then(|()| process.wait()).expect("it runs no more");
    panic!("the worker did not start a sandbox: {said:?}");
}

fn is_gone(pid: i32) -> bool {
    let since = Instant::now();
    // A zombie whose parent is not here is as dead as can be.
    let alive = || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|text| !text.contains(") Z "));
    while alive() && since.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(5));
    }
    !alive()
}

#[test]
fn what_a_killed_worker_left_is_removed() {
    each(|room| what_a_killed_worker_left_is_gone(room, false));
}

#[test]
fn and_if_it_was_frozen() {
    each_of(&Kind::VARIED, |room| {
        if room.enforces("frozen while idle") {
            what_a_killed_worker_left_is_gone(room, true);
        }
    });
}

fn what_a_killed_worker_left_is_gone(room: &mut Room, freezes: bool) {
    let state = tempfile::tempdir().expect("a directory");
    let worker_id = crate::support::unique("killed");
    let (mut process, pid) = play(room, state.path(), &worker_id, freezes);
    assert!(matches!(sweep(state.path(), &worker_id), Err(vilya_isolate::SweepError::InUse { .. })));
    process.kill().and_then(|()| process.wait()).expect("it ends");
    let swept = sweep(state.path(), &worker_id).expect("swept");
    assert_eq!(swept.stuck, Vec::new());
    assert!(is_gone(pid), "the sandbox is gone with its worker, or with the sweep");
    println!("{swept:?}");
    let again = sweep(state.path(), &worker_id).expect("swept again");
    assert_eq!((again.groups, again.containers, again.processes), (0, 0, 0));
}
