//! Sandboxes that give way to others: their group says so, whatever becomes of what is in it.

use std::path::PathBuf;

use crate::support::{Room, python};

/// Has a child, and says who it is.
const FORKS: &str = "
import os, time
if os.fork() == 0:
    time.sleep(3600)
print('here', flush=True)
time.sleep(3600)
";

/// The setting of the group that a process is in, as the kernel tells which that is.
fn idle_of(pid: i32) -> String {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it lives");
    let path = |line: &str| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        match controllers {
            "" => Some(PathBuf::from(format!("/sys/fs/cgroup{path}/cpu.idle"))),
            list if list.split(',').any(|name| name == "cpu") => {
                Some(PathBuf::from(format!("/sys/fs/cgroup/{list}{path}/cpu.idle")))
            }
            _ => None,
        }
    };
    let file = groups.lines().filter_map(path).find(|path| path.exists()).expect("a group of the cpu controller");
    std::fs::read_to_string(file).expect("its setting").trim().to_owned()
}

#[test]
fn a_sandbox_gives_way_until_it_is_restored_and_everything_in_it_with_it() {
    for mut room in [Room::new(), Room::unprepared()] {
        let mut running = room.start(&python(FORKS)).expect("it starts");
        let precedence = running.started.remains.precedence();
        assert_eq!(precedence.is_some(), room.enforces("long runs give way"));
        if let Some(precedence) = precedence {
            assert_eq!(running.line(), "here");
            let pid = running.started.pid;
            assert_eq!(idle_of(pid), "0");
            precedence.yield_to_others().expect("it gives way");
            assert_eq!(idle_of(pid), "1");
            precedence.restore().expect("it does not any more");
            assert_eq!(idle_of(pid), "0");
            precedence.yield_to_others().expect("it gives way");
            running.started.remains.kill();
            running.finish();
            precedence.restore().expect_err("nothing is left of its group");
        } else {
            println!("not checked here: no group of the cpu controller");
            running.started.remains.kill();
            running.finish();
        }
    }
}

/// In microseconds; a kernel that has no slices of threads, or does not show them, tells none.
fn slice_us_of(pid: &str) -> Option<u64> {
    let shown = std::fs::read_to_string(format!("/proc/{pid}/sched")).ok()?;
    let line = shown.lines().find(|line| line.starts_with("se.slice"))?;
    line.rsplit(' ').next()?.parse::<u64>().ok().map(|ns| ns / 1000)
}

#[test]
fn a_sandbox_asks_for_short_turns() {
    let Some(usual_us) = slice_us_of("self") else {
        println!("not checked here: the kernel shows no slices");
        return;
    };
    for mut room in [Room::new(), Room::unprepared()] {
        let mut running = room.start(&python(FORKS)).expect("it starts");
        assert_eq!(running.line(), "here");
        let asked_us = slice_us_of(&running.started.pid.to_string()).expect("it is shown as well");
        assert!(asked_us < usual_us && asked_us <= 200, "{asked_us} us beside {usual_us}");
        running.started.remains.kill();
        running.finish();
    }
}
