//! Limits hold, and what they bring about is told.

use vilya_isolate::Exit;

use crate::support::{each, python};

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
