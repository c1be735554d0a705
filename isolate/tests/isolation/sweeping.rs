//! What a killed worker left is removed by the next one, and nothing else is touched.

use std::os::fd::AsFd;
use std::path::PathBuf;

use vilya_isolate::{CgroupPreference, SweepError, sweep};

use crate::death::{Worker, dies};
use crate::support::{Room, groups_of, native, python, start, unique};

const WAITS: &str = "import time; print('up', flush=True); time.sleep(1000)";

fn bases(state: &std::path::Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(state.join("isolate/groups")).unwrap_or_default();
    text.lines().map(PathBuf::from).collect()
}

fn groups_in(bases: &[PathBuf]) -> usize {
    bases.iter().map(|base| groups_of(&base.to_string_lossy()).len()).sum()
}

#[test]
fn the_groups_of_a_killed_worker_are_removed() {
    let state = tempfile::tempdir().expect("a directory");
    let worker_id = unique("worker");
    let mut worker = Worker::start(state.path(), &worker_id, "auto", WAITS);
    let bases = bases(state.path());
    let left = groups_in(&bases);
    println!("{left} control groups");
    assert_eq!(left, bases.len());
    worker.kill();
    let swept = sweep(state.path(), &worker_id).expect("swept");
    assert_eq!((swept.groups, swept.stuck.len(), groups_in(&bases)), (left, 0, 0));
    assert!(dies(worker.sandbox.as_fd(), 30_000));
    assert_eq!(sweep(state.path(), &worker_id).expect("swept again").groups, 0);
}

#[test]
fn a_running_worker_is_not_swept() {
    let state = tempfile::tempdir().expect("a directory");
    let worker_id = unique("worker");
    let mut worker = Worker::start(state.path(), &worker_id, "auto", WAITS);
    assert!(matches!(sweep(state.path(), &worker_id), Err(SweepError::InUse { .. })));
    assert!(!dies(worker.sandbox.as_fd(), 0));
    worker.kill();
    sweep(state.path(), &worker_id).expect("now it may");
}

/// The crash is played: a process that a record names runs on, without the worker.
#[test]
fn a_recorded_process_is_killed_and_a_stranger_is_not() {
    let state = tempfile::tempdir().expect("a directory");
    let worker_id = unique("worker");
    let mut native = native(state.path(), &worker_id, CgroupPreference::Off);
    let spec = python(WAITS);
    let mut running = start(&mut native, &spec).expect("it starts");
    assert_eq!(running.line(), "up");
    let records = state.path().join("isolate/sandboxes");
    let record = std::fs::read_to_string(records.join(&spec.name)).expect("its record");
    assert!(record.starts_with(&format!("{} ", running.started.pid)), "{record}");
    // The same number, started at another time: not the process that was recorded.
    let mut fields: Vec<&str> = record.split_whitespace().collect();
    fields[1] = "1";
    std::fs::write(records.join(&spec.name), fields.join(" ")).expect("written");
    assert_eq!(sweep(state.path(), &worker_id).expect("swept").processes, 0);
    assert!(!dies(running.started.pidfd(), 0), "a process that merely has the number lives on");
    std::fs::write(records.join(&spec.name), record).expect("written");
    assert_eq!(sweep(state.path(), &worker_id).expect("swept").processes, 1);
    assert!(dies(running.started.pidfd(), 30_000));
    assert!(!running.finish().ended.out_of_memory);
}

#[test]
fn records_go_with_their_sandboxes() {
    let mut room = Room::with(CgroupPreference::Off);
    assert!(room.python("pass").succeeded());
    let records = std::fs::read_dir(room.state.path().join("isolate/sandboxes")).expect("the records");
    assert_eq!(records.count(), 0);
}

#[test]
fn a_second_worker_on_the_same_state_is_refused() {
    let state = tempfile::tempdir().expect("a directory");
    let worker_id = unique("worker");
    let mut worker = Worker::start(state.path(), &worker_id, "auto", WAITS);
    let options = vilya_isolate::NativeOptions {
        state_directory: state.path().into(),
        worker_id: worker_id.clone(),
        cgroup: CgroupPreference::Auto,
        mitigations: true,
    };
    let refused = vilya_isolate::Native::new(options).map(|_| ());
    assert!(matches!(refused, Err(vilya_isolate::SetupError::InUse { .. })), "{refused:?}");
    worker.kill();
    sweep(state.path(), &worker_id).expect("swept");
}
