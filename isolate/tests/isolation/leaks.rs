//! Many starts and stops leave nothing. In a process of its own: other tests open files too.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::{Room, groups_of, spec};

/// Set for the process that counts.
const ROLE: &str = "VILYA_ISOLATE_TEST_LEAKS";
/// Starts before counting: what is made once is made then.
const WARM: usize = 3;
const CYCLES: usize = 200;
/// Two that wait, one that is being made and one that ends.
const NETWORKS: usize = 4;
/// For sandboxes that are made ahead to be as many as before.
const PATIENCE: Duration = Duration::from_secs(20);

fn entries(path: &str) -> usize {
    std::fs::read_dir(path).map_or(0, |entries| entries.count())
}

/// Children of this process that are left, zombies included, besides the keeper.
fn children() -> usize {
    let own = std::process::id();
    let tasks = std::fs::read_dir(format!("/proc/{own}/task")).expect("its threads");
    let texts = tasks.flatten().map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
    texts.map(|text| text.split_whitespace().count()).sum()
}

fn counts(bases: &[String], state: &Path) -> BTreeMap<&'static str, usize> {
    let groups = bases.iter().map(|base| groups_of(base).len()).sum();
    // Below the state directory: a container engine mounts on the host what other tests need.
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
    let mounts = mounts.lines().filter(|line| line.contains(&*state.to_string_lossy())).count();
    BTreeMap::from([
        ("descriptors", entries("/proc/self/fd")),
        ("groups", groups),
        ("mounts", mounts),
        ("children", children()),
    ])
}

#[test]
fn two_hundred_cycles_leave_nothing() {
    if std::env::var_os(ROLE).is_none() {
        let own = std::env::current_exe().expect("this program");
        let arguments = ["--exact", "leaks::two_hundred_cycles_leave_nothing", "--nocapture", "--test-threads=1"];
        let output = Command::new(own).args(arguments).env(ROLE, "1").output().expect("it runs");
        print!("{}", String::from_utf8_lossy(&output.stdout));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    // One after the other: what is made ahead for the second would be counted with the first.
    for make in [Room::unprepared, Room::new] {
        cycles(&mut make());
    }
}

fn cycles(room: &mut Room) {
    let bases = std::fs::read_to_string(room.state.path().join("isolate/groups")).unwrap_or_default();
    let bases: Vec<String> = bases.lines().map(str::to_owned).collect();
    let mut before = BTreeMap::new();
    for cycle in 0..WARM + CYCLES {
        if cycle == WARM {
            room.native.wait_until_prepared(PATIENCE);
            before = counts(&bases, room.state.path());
        }
        let ran = room.run(&spec(&["/usr/bin/true"]));
        assert!(ran.succeeded() && ran.ended.left_behind.is_empty(), "{ran:?}");
    }
    // A failed start must leave nothing either.
    for _ in 0..20 {
        room.start(&spec(&["/usr/bin/no-such-program"])).map(|_| ()).expect_err("there is no such program");
    }
    room.native.wait_until_prepared(PATIENCE);
    let mut after = counts(&bases, room.state.path());
    // Network namespaces that came back are kept for others: as many as were ever in use at once.
    let kept = after["descriptors"].saturating_sub(before["descriptors"]);
    if kept <= NETWORKS {
        after.insert("descriptors", before["descriptors"]);
    }
    assert_eq!(after, before);
    println!("{before:?} before and after");
}
