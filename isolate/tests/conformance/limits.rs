//! Limits hold, and what they bring about is told.

use std::time::{Duration, Instant};

use vilya_isolate::Exit;

use crate::groups;
use crate::support::{each, python};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_sandbox_over_its_memory_is_killed_and_that_is_said() {
    each(|room| {
        if !room.enforces("memory limit") {
            return;
        }
        let mut spec = python("data = bytearray(200 << 20); print('all of it')");
        spec.limits.memory_bytes = 64 << 20;
        let ran = room.run(&spec);
        assert_eq!(ran.stdout, "");
        assert_eq!((ran.ended.exit, ran.ended.out_of_memory), (Exit::Signal(libc::SIGKILL), true));
        let enough = room.python("data = bytearray(100 << 20); print(len(data))");
        assert_eq!((enough.stdout.as_str(), enough.ended.out_of_memory), ("104857600\n", false));
    });
}

#[test]
fn a_sandbox_starts_no_more_processes_than_it_may() {
    each(|room| {
        let program = r#"
import os, time
made = 0
try:
    while made < 200:
        if os.fork() == 0: time.sleep(1000)
        made += 1
except OSError as error: print(made, error.errno)
"#;
        let mut spec = python(program);
        spec.limits.processes = 12;
        let ran = room.run(&spec);
        let (made, errno) = ran.stdout.trim().split_once(' ').unwrap_or_else(|| panic!("{ran:?}"));
        // Unprivileged without control groups the limit counts every process of this user.
        assert!(made.parse::<u32>().expect("a number") <= 11, "{ran:?}");
        assert_eq!(errno, libc::EAGAIN.to_string());
    });
}

#[test]
fn resources_and_private_files_are_bounded() {
    each(|room| {
        let program = r#"
import os, resource
print(resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_MSGQUEUE), resource.getrlimit(resource.RLIMIT_CORE))
try:
    with open("/tmp/large", "wb") as file:
        for _ in range(64): file.write(bytes(1 << 20))
except OSError as error: print(error.errno)
print(os.statvfs("/tmp").f_blocks * os.statvfs("/tmp").f_frsize, os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize)
"#;
        let mut spec = python(program);
        spec.limits.open_files = 200;
        spec.limits.tmp_bytes = 4 << 20;
        let ran = room.run(&spec);
        let expected = format!("(200, 200) (0, 0) (1, 1)\n{}\n{} {}\n", libc::ENOSPC, 4 << 20, 4 << 20);
        assert_eq!(ran.stdout, expected, "{ran:?}");
    });
}

#[test]
fn it_runs_where_it_may() {
    each(|room| {
        let mut spec = python("import os; print(os.sched_getaffinity(0))");
        spec.cores = vec![0];
        assert_eq!(room.run(&spec).stdout, "{0}\n");
    });
}

/// Of a program that never rests, the kernel says itself that it was held back.
#[test]
fn a_sandbox_gets_no_more_processor_time_than_it_may() {
    each(|room| {
        if !room.enforces("cpu limit") {
            return;
        }
        let mut spec = python("print('up', flush=True)\nwhile True: pass");
        spec.limits.cpu_millis = Some(250);
        let mut running = room.start(&spec).expect("it starts");
        assert_eq!(running.line(), "up");
        let pid = running.started.pid;
        let quotas = groups::files(pid, &["cpu.max", "cpu.cfs_quota_us"]);
        let share = |quota: &String| quota.split_whitespace().next() == Some("25000");
        assert!(quotas.iter().any(share), "{:?}: {quotas:?}", room.kind);
        let until = Instant::now() + PATIENCE;
        while !groups::files(pid, &["cpu.stat"]).iter().any(|stat| was_held_back(stat)) {
            assert!(Instant::now() < until, "{:?}: it runs as much as it likes", room.kind);
            std::thread::sleep(Duration::from_millis(10));
        }
        running.started.remains.kill();
        assert_eq!(running.finish().ended.exit, Exit::Signal(libc::SIGKILL));
    });
}

fn was_held_back(stat: &str) -> bool {
    let times = stat.lines().find_map(|line| line.strip_prefix("nr_throttled "));
    times.and_then(|times| times.trim().parse().ok()).is_some_and(|times: u64| times > 0)
}
