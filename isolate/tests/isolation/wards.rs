//! Sandboxes that are stopped by tracing them, as where there are no control groups: whatever they do, they stand still, and they do not
//! notice.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use vilya_isolate::{CgroupPreference, Freezer};

use crate::death::PATIENCE_MS;
use crate::support::{Room, Running, null, python, start_with};

/// A sandbox that writes to a pipe for as long as it runs.
struct Writing {
    running: Running,
    freezer: Freezer,
    said: io::PipeReader,
    _ask: io::PipeWriter,
}

impl Writing {
    /// `None` where nothing can be traced.
    fn start(room: &mut Room, program: &str) -> Option<Writing> {
        if !room.enforces("frozen while idle") {
            return None;
        }
        let ((reads, ask), (said, writes)) = (io::pipe().expect("a pipe"), io::pipe().expect("a pipe"));
        let ring: [OwnedFd; 3] = [reads.into(), writes.into(), null()];
        let running = start_with(&mut room.native, &python(program), ring).expect("it starts");
        let freezer = running.started.remains.freezer().expect("it is in force");
        let mut writing = Writing { running, freezer, said, _ask: ask };
        writing.hears();
        Some(writing)
    }

    /// Takes what is there, and waits for it if nothing is.
    fn hears(&mut self) {
        let mut bytes = [0; 65536];
        assert!(self.said.read(&mut bytes).expect("it writes") > 0);
    }

    /// Takes what was written before, and then looks whether more comes.
    fn is_silent(&mut self) -> bool {
        use std::os::fd::AsFd;
        let mut polls = [nix::poll::PollFd::new(self.said.as_fd(), nix::poll::PollFlags::POLLIN)];
        let mut waits = |ms: u16| nix::poll::poll(&mut polls, ms).expect("it can be polled") > 0;
        if !waits(0) {
            return !waits(200);
        }
        self.hears();
        self.is_silent()
    }

    fn end(self) {
        self.running.started.remains.kill();
        self.running.finish();
    }
}

fn stands_still(program: &str) {
    let mut room = Room::with(CgroupPreference::Off);
    let Some(mut writing) = Writing::start(&mut room, program) else { return };
    for _ in 0..20 {
        writing.freezer.freeze().expect("it is stopped");
        assert!(writing.is_silent(), "something in it runs on");
        writing.freezer.thaw().expect("it goes on");
        writing.hears();
    }
    writing.freezer.freeze().expect("it is stopped");
    writing.end();
}

#[test]
fn signals_to_go_on_have_nothing_to_say() {
    stands_still(
        r#"
import fcntl, itertools, os, signal, threading, time
signal.signal(signal.SIGCONT, lambda *_: os.write(4, b"c"))
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
signal.signal(signal.SIGALRM, lambda *_: os.write(4, b"a"))
for _ in range(3):
    if os.fork() == 0:
        while True:
            os.kill(-1, signal.SIGCONT)
            os.kill(1, signal.SIGCONT)
            os.write(4, b"w")
while True:
    os.kill(-1, signal.SIGCONT)
    os.write(4, b"w")
"#,
    );
}

#[test]
fn what_is_made_meanwhile_is_stopped_too() {
    stands_still(
        r#"
import os, threading, time
def threads():
    while True:
        made = threading.Thread(target=lambda: os.write(4, b"t"))
        made.start()
        made.join()
threading.Thread(target=threads, daemon=True).start()
# Each makes the next and ends.
def hop():
    while True:
        os.write(4, b"h")
        if os.fork() != 0:
            os._exit(0)
if os.fork() == 0:
    hop()
while True:
    try:
        os.waitpid(-1, 0)
    except ChildProcessError:
        time.sleep(0.001)
"#,
    );
}

#[test]
fn a_parent_that_waits_for_its_child_to_become_a_program_is_no_hindrance() {
    stands_still(
        r#"
import os, subprocess
while True:
    subprocess.run(["/usr/bin/true"])
    os.write(4, b"v")
"#,
    );
}

/// Sleeps, waits and reads go on; what it handles of signals comes when it runs again, once.
#[test]
fn a_stop_is_not_seen_from_inside() {
    let mut room = Room::with(CgroupPreference::Off);
    if !room.enforces("frozen while idle") {
        return;
    }
    let program = r#"
import os, signal
seen = []
for number in (signal.SIGCONT, signal.SIGUSR1, signal.SIGTSTP, signal.SIGCHLD):
    signal.signal(number, lambda number, frame: seen.append(number))
print("up", flush=True)
while (byte := os.read(3, 1)) == b"?":
    os.write(4, repr(sorted(map(int, seen))).encode() + b"\n")
"#;
    let ((reads, mut ask), (mut said, writes)) = (io::pipe().expect("a pipe"), io::pipe().expect("a pipe"));
    let ring: [OwnedFd; 3] = [reads.into(), writes.into(), null()];
    let mut running = start_with(&mut room.native, &python(program), ring).expect("it starts");
    assert_eq!(running.line(), "up");
    let freezer = running.started.remains.freezer().expect("it is in force");
    let mut asks = || {
        ask.write_all(b"?").expect("it reads");
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let mut byte = [0];
            said.read_exact(&mut byte).expect("it answers");
            line.extend(byte);
        }
        String::from_utf8(line).expect("text")
    };
    for _ in 0..10 {
        freezer.freeze().expect("it is stopped");
        freezer.thaw().expect("it goes on");
        assert_eq!(asks(), "[]\n");
    }
    freezer.freeze().expect("it is stopped");
    let pid = nix::unistd::Pid::from_raw(running.started.pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGUSR1).expect("it is there");
    freezer.thaw().expect("it goes on");
    let since = Instant::now();
    while asks() != "[10]\n" {
        assert!(since.elapsed() < Duration::from_millis(PATIENCE_MS as u64), "the signal is lost");
    }
    assert_eq!(asks(), "[10]\n", "and came once");
    running.started.remains.kill();
    running.finish();
}
