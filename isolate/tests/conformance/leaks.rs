//! Starts and stops leave nothing, however they end. In a process of its own: other tests open files too.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::endings::dies;
use crate::support::{Room, each, python, spec};

/// Set for the process that counts.
const ROLE: &str = "VILYA_CONFORMANCE_TEST_LEAKS";
/// Starts before counting: what is made once is made then.
const WARM: u64 = 2;
const CYCLES: u64 = 50;

fn entries(path: impl AsRef<Path>) -> usize {
    std::fs::read_dir(path).map_or(0, Iterator::count)
}

/// Children of this process that are left, zombies included.
fn children() -> usize {
    let own = std::process::id();
    let tasks = std::fs::read_dir(format!("/proc/{own}/task")).expect("its threads");
    let texts = tasks.flatten().map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
    texts.map(|text| text.split_whitespace().count()).sum()
}

/// Files and directories below a directory.
fn below(path: &Path) -> usize {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .map(|entry| if entry.file_type().is_ok_and(|kind| kind.is_dir()) { 1 + below(&entry.path()) } else { 1 })
        .sum()
}

/// Control groups that bear a name of this test.
fn groups(path: &Path, worker_id: &str) -> usize {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let flat = format!("vilya.{worker_id}.");
    let is_flat = |part: &Path| part.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&flat));
    let named = |path: &Path| path.ancestors().any(|part| part.ends_with(worker_id) || is_flat(part));
    directories.map(|entry| usize::from(named(&entry.path())) + groups(&entry.path(), worker_id)).sum()
}

fn counts(room: &Room) -> BTreeMap<&'static str, usize> {
    // Of this room: an engine mounts on the host what the containers of other tests need.
    let state = room.state.path().to_string_lossy().into_owned();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
    let mounts = mounts.lines().filter(|line| line.contains(&state)).count();
    BTreeMap::from([
        ("descriptors", entries("/proc/self/fd")),
        ("groups", groups(Path::new("/sys/fs/cgroup"), &room.worker_id)),
        ("mounts", mounts),
        ("children", children()),
        ("files", below(room.state.path())),
        ("containers", room.containers()),
    ])
}

/// One start and its end: by itself, by a kill at some moment, or not at all.
fn cycle(room: &mut Room, number: u64) {
    let program = "import time; print('up', flush=True); time.sleep(0.05)";
    match number % 5 {
        0 => assert!(room.run(&spec(&["/usr/bin/true"])).ended.left_behind.is_empty()),
        1 => drop(room.start(&spec(&["/usr/bin/no-such-program"])).map(|_| ()).expect_err("there is no such program")),
        _ => {
            let running = room.start(&python(program)).expect("it starts");
            // A moment that changes from one to the next, before, within and after the life of the program.
            std::thread::sleep(Duration::from_micros(number.wrapping_mul(7919) % 70_000));
            running.started.remains.kill();
            assert!(dies(running.started.pidfd(), Duration::from_secs(30)));
            assert!(running.finish().ended.left_behind.is_empty());
        }
    }
}

#[test]
fn fifty_cycles_leave_nothing() {
    if std::env::var_os(ROLE).is_none() {
        let own = std::env::current_exe().expect("this program");
        let arguments = ["--exact", "leaks::fifty_cycles_leave_nothing", "--nocapture", "--test-threads=1"];
        let output = Command::new(own).args(arguments).env(ROLE, "1").output().expect("it runs");
        print!("{}", String::from_utf8_lossy(&output.stdout));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    each(|room| {
        for number in 0..WARM {
            cycle(room, number);
        }
        let before = counts(room);
        for number in WARM..WARM + CYCLES {
            cycle(room, number);
        }
        // What the mechanism before left to end may still have been counted at first: fewer is fine.
        let after = counts(room);
        let grown: Vec<_> = after.iter().filter(|(name, count)| **count > before[**name]).collect();
        assert!(grown.is_empty(), "{:?}: {grown:?} after {before:?}", room.kind);
        println!("{before:?} before and after");
    });
}
