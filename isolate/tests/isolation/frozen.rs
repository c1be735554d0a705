//! Sandboxes that are frozen by their control groups: nothing in them runs, and they end as others do.

use std::os::fd::AsFd;
use std::path::PathBuf;

use vilya_isolate::{Exit, Freezer};

use crate::death::{PATIENCE_MS, Worker, dies};
use crate::support::{Room, Running, python};

/// Two threads and a child, each counting; the numbers of the child are printed.
const COUNTS: &str = r#"
import itertools, os, threading
def count():
    for _ in itertools.count(): pass
threading.Thread(target=count, daemon=True).start()
if os.fork():
    count()
for number in itertools.count():
    os.write(1, b"%d\n" % number)
"#;

/// `None` where sandboxes cannot be frozen.
fn counting(room: &mut Room) -> Option<(Running, Freezer)> {
    let running = room.start(&python(COUNTS)).expect("it starts");
    let freezer = running.started.remains.freezer();
    assert_eq!(freezer.is_some(), room.enforces("frozen while idle"));
    match freezer {
        Some(freezer) => Some((running, freezer)),
        None => {
            running.started.remains.kill();
            running.finish();
            None
        }
    }
}

/// A file of the version 2 group that this process, or else any, is in.
fn group_file(state: &std::path::Path, pid: Option<i32>, file: &str) -> Option<PathBuf> {
    let bases = std::fs::read_to_string(state.join("isolate/groups")).unwrap_or_default();
    let groups = bases.lines().filter_map(|base| std::fs::read_dir(base).ok()).flatten().flatten();
    let has_it = |group: &PathBuf| {
        let procs = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        pid.is_none_or(|pid| procs.lines().any(|line| line == pid.to_string()))
    };
    groups.map(|group| group.path()).filter(has_it).map(|group| group.join(file)).find(|path| path.exists())
}

/// Processor time of a process so far, in ticks.
fn ticks(pid: &str) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let fields = stat.rsplit_once(')').expect("the kernel's format").1.split_whitespace();
    fields.skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum()
}

#[test]
fn nothing_runs_in_a_frozen_sandbox_until_it_is_thawed() {
    for mut room in [Room::new(), Room::unprepared()] {
        let Some((mut running, freezer)) = counting(&mut room) else { return };
        running.line();
        let Some(events) = group_file(room.state.path(), Some(running.started.pid), "cgroup.events") else {
            println!("not checked here: it is in no group");
            running.started.remains.kill();
            running.finish();
            return;
        };
        freezer.freeze().expect("it is frozen");
        let since = std::time::Instant::now();
        while !std::fs::read_to_string(&events).expect("its events").contains("frozen 1") {
            assert!(since.elapsed().as_millis() < PATIENCE_MS as u128, "its processes go on");
        }
        let procs = std::fs::read_to_string(events.with_file_name("cgroup.procs")).expect("its processes");
        assert_eq!(procs.lines().count(), 2, "{procs}");
        let spent = || procs.lines().map(ticks).sum::<u64>();
        let before = spent();
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert_eq!(spent(), before, "a frozen sandbox has used the processor");
        freezer.thaw().expect("it is thawed");
        // More than its pipe holds.
        let numbers: Vec<u64> = (0..20_000).map(|_| running.line().parse().expect("a number")).collect();
        assert!(numbers.is_sorted());
        running.started.remains.kill();
        running.finish();
    }
}

#[test]
fn a_frozen_sandbox_is_killed_and_leaves_nothing() {
    let mut room = Room::new();
    let Some((running, freezer)) = counting(&mut room) else { return };
    freezer.freeze().expect("it is frozen");
    running.started.remains.kill();
    let ended = running.finish().ended;
    assert_eq!((ended.exit, ended.left_behind), (Exit::Signal(libc::SIGKILL), Vec::new()));
    assert!(freezer.thaw().is_err() && freezer.freeze().is_err(), "there is no group any more");
}

#[test]
fn a_frozen_sandbox_dies_with_its_worker() {
    if !Room::unprepared().enforces("frozen while idle") {
        return;
    }
    let state = tempfile::tempdir().expect("a directory");
    let worker_id = crate::support::unique("worker");
    let mut worker =
        Worker::start(state.path(), &worker_id, "auto", "import time; print('up', flush=True); time.sleep(1000)");
    match group_file(state.path(), None, "cgroup.freeze") {
        Some(freeze) => std::fs::write(freeze, "1").expect("it is frozen"),
        None => println!("not checked here: it is in no group"),
    }
    assert!(!dies(worker.sandbox.as_fd(), 0), "it lives");
    worker.kill();
    assert!(dies(worker.sandbox.as_fd(), PATIENCE_MS), "it must not outlive its worker");
    vilya_isolate::sweep(state.path(), &worker_id).expect("swept");
}
