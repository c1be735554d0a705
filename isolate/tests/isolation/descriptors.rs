//! What a living sandbox costs its worker in descriptors. In a process of its own: other tests open files too.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use vilya_isolate::limits::NETWORKS_HELD;

use crate::support::{Room, Running, spec};

/// Set for the process that counts.
const ROLE: &str = "VILYA_ISOLATE_TEST_DESCRIPTORS";
const PATIENCE: Duration = Duration::from_secs(20);
/// More sandboxes than namespaces are kept open for.
const BEYOND: usize = 6;
/// What this test itself keeps of a sandbox: both ends of its output that are read.
const OF_THE_TEST: usize = 2;

/// Descriptors of this process by what they are: `pidfd`, `pipe`, `net`, a path.
fn open() -> BTreeMap<String, usize> {
    let mut open = BTreeMap::new();
    for entry in std::fs::read_dir("/proc/self/fd").expect("its descriptors").flatten() {
        // The directory that is being read is gone by now.
        let Ok(target) = std::fs::read_link(entry.path()) else { continue };
        let target = target.to_string_lossy().into_owned();
        let kind = target.split(":[").next().unwrap_or(&target).to_owned();
        *open.entry(kind).or_default() += 1;
    }
    open
}

fn networks(open: &BTreeMap<String, usize>) -> usize {
    open.get("net").copied().unwrap_or(0)
}

fn others(open: &BTreeMap<String, usize>) -> usize {
    open.values().sum::<usize>() - networks(open)
}

fn sleeper(room: &mut Room) -> Running {
    room.start(&spec(&["/usr/bin/sleep", "1000"])).expect("it starts")
}

#[test]
fn a_sandbox_costs_one_descriptor() {
    if std::env::var_os(ROLE).is_none() {
        let own = std::env::current_exe().expect("this program");
        let arguments = ["--exact", "descriptors::a_sandbox_costs_one_descriptor", "--nocapture", "--test-threads=1"];
        let output = Command::new(own).args(arguments).env(ROLE, "1").output().expect("it runs");
        print!("{}", String::from_utf8_lossy(&output.stdout));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    // One after the other: a room that makes sandboxes ahead opens descriptors meanwhile.
    count(Room::unprepared());
    count(Room::new());
}

fn count(mut room: Room) {
    let prepared = room.native.wait_until_prepared(PATIENCE);
    // What is made once is made now.
    end(sleeper(&mut room));
    room.native.wait_until_prepared(PATIENCE);
    let before = open();
    let mut running: Vec<Running> = (0..NETWORKS_HELD + BEYOND).map(|_| sleeper(&mut room)).collect();
    room.native.wait_until_prepared(PATIENCE);
    let during = open();
    assert_eq!(others(&during), others(&before) + running.len() * (1 + OF_THE_TEST), "{during:?} after {before:?}");
    assert!(networks(&during) <= NETWORKS_HELD, "{during:?}");

    // A namespace that was not kept open is there for the next one all the same.
    running.drain(NETWORKS_HELD..).for_each(end);
    let returned = if prepared && room.is_root() { BEYOND } else { 0 };
    assert_eq!(networks(&open()), networks(&during) + returned);
    running.into_iter().for_each(end);
    room.native.wait_until_prepared(PATIENCE);
    let after = open();
    assert_eq!(others(&after), others(&before), "{after:?} after {before:?}");
    println!("{} at once: {during:?}; before: {before:?}; after: {after:?}", NETWORKS_HELD + BEYOND);
}

fn end(running: Running) {
    running.started.remains.kill();
    let ran = running.finish();
    assert!(ran.ended.left_behind.is_empty(), "{ran:?}");
}
