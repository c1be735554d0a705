//! How a sandbox ends, and what is told of it.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vilya_isolate::{Ended, Exit};

use crate::support::{each, python};

/// Longest wait for a death. The kernel brings it about at once; a slow machine may take a while to show it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether the process dies in time.
pub(crate) fn dies(pidfd: BorrowedFd<'_>, patience: Duration) -> bool {
    let timeout = PollTimeout::try_from(patience).expect("it fits");
    poll(&mut [PollFd::new(pidfd, PollFlags::POLLIN)], timeout).expect("a pidfd can be polled") == 1
}

#[test]
fn its_exit_status_is_seen() {
    each(|room| {
        for (program, exit) in [("pass", 0), ("import sys; sys.exit(7)", 7), ("raise ValueError", 1)] {
            let ran = room.python(program);
            let expected = Ended { exit: Exit::Code(exit), out_of_memory: false, left_behind: Vec::new() };
            assert_eq!(ran.ended, expected, "{program}");
        }
    });
}

#[test]
fn it_dies_when_it_is_killed_with_all_that_it_started() {
    each(|room| {
        let program = r#"
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        time.sleep(1000)
print("up", flush=True)
time.sleep(1000)
"#;
        let mut running = room.start(&python(program)).expect("it starts");
        assert_eq!(running.line(), "up");
        assert!(!dies(running.started.pidfd(), Duration::ZERO), "it lives until it is killed");
        running.started.remains.kill();
        assert!(dies(running.started.pidfd(), PATIENCE));
        // Its output ends only when the last process that has it is gone.
        let ran = running.finish();
        let expected = Ended { exit: Exit::Signal(libc::SIGKILL), out_of_memory: false, left_behind: Vec::new() };
        assert_eq!(ran.ended, expected);
    });
}

#[test]
fn its_death_is_told_by_its_descriptor_and_its_id_is_the_hosts() {
    each(|room| {
        let mut running = room.start(&python("print('up', flush=True); input()")).expect("it starts");
        assert_eq!(running.line(), "up");
        // Without input it ends by itself: 0 is /dev/null.
        assert!(dies(running.started.pidfd(), PATIENCE));
        let pid = running.started.pid;
        assert!(pid > 1, "{pid}");
        assert_eq!(running.finish().ended.exit, Exit::Code(1));
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "reaped");
    });
}
