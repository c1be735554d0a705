//! Frozen sandboxes: nothing in them runs, they go on where they were, and end as others do. And those that give way.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vilya_isolate::{Ended, Exit, Freezer};

use crate::endings::dies;
use crate::groups;
use crate::support::{Kind, Room, Running, each_of, null, python};

/// Longest wait for what the kernel or a program brings about at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// Two threads and a child, each counting; who writes to descriptor 3 is told the count of the first.
const COUNTS: &str = r#"
import itertools, os, threading
counted = 0
def count():
    global counted
    for counted in itertools.count(): pass
threading.Thread(target=count, daemon=True).start()
if os.fork() == 0:
    count()
while os.read(3, 1):
    os.write(4, b"%020d" % counted)
"#;

/// A sandbox that counts, and what it is asked and answers by.
struct Counting {
    running: Running,
    freezer: Freezer,
    ask: io::PipeWriter,
    told: io::PipeReader,
}

impl Counting {
    /// `None` where sandboxes cannot be frozen.
    fn start(room: &mut Room) -> Option<Counting> {
        let ((reads, ask), (told, writes)) = (io::pipe().expect("a pipe"), io::pipe().expect("a pipe"));
        let ring: [OwnedFd; 3] = [reads.into(), writes.into(), null()];
        let running = room.start_with(&python(COUNTS), ring).expect("it starts");
        let freezer = running.started.remains.freezer();
        assert_eq!(freezer.is_some(), room.enforces("frozen while idle"));
        match freezer {
            Some(freezer) => Some(Counting { running, freezer, ask, told }),
            None => {
                running.started.remains.kill();
                running.finish();
                None
            }
        }
    }

    fn ask(&mut self) {
        self.ask.write_all(b"?").expect("it takes it, now or later");
    }

    fn answer(&mut self) -> u64 {
        let mut digits = [0; 20];
        self.told.read_exact(&mut digits).expect("it answers");
        std::str::from_utf8(&digits).ok().and_then(|digits| digits.parse().ok()).expect("a number")
    }

    fn count(&mut self) -> u64 {
        self.ask();
        self.answer()
    }

    /// Waits until both of its processes stand still.
    fn await_stillness(&self) {
        let since = Instant::now();
        let leader = self.running.started.pid;
        let children = std::fs::read_to_string(format!("/proc/{leader}/task/{leader}/children")).expect("it lives");
        let processes: Vec<String> =
            children.split_whitespace().map(str::to_owned).chain([leader.to_string()]).collect();
        assert_eq!(processes.len(), 2, "{processes:?}");
        let spent = || processes.iter().map(|pid| ticks(pid)).sum::<u64>();
        // What a process was doing when it was told to stop may take it a moment.
        loop {
            let before = spent();
            std::thread::sleep(Duration::from_millis(300));
            if spent() == before {
                return;
            }
            assert!(since.elapsed() < PATIENCE, "a frozen sandbox uses the processor");
        }
    }
}

/// Processor time of a process so far, in ticks.
fn ticks(pid: &str) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let fields = stat.rsplit_once(')').expect("the kernel's format").1.split_whitespace();
    fields.skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum()
}

#[test]
fn nothing_runs_in_a_frozen_sandbox_until_it_is_thawed() {
    each_of(&Kind::VARIED, |room| {
        let Some(mut counting) = Counting::start(room) else { return };
        for _ in 0..3 {
            let before = counting.count();
            while counting.count() == before {}
            counting.freezer.freeze().expect("it is frozen");
            counting.await_stillness();
            // It is asked while it cannot answer.
            counting.ask();
            counting.await_stillness();
            counting.freezer.thaw().expect("it is thawed");
            assert!(counting.answer() > before);
        }
        // Neither minds what is so already.
        counting.freezer.thaw().expect("it runs");
        counting.freezer.freeze().and_then(|()| counting.freezer.freeze()).expect("it is frozen");
        counting.freezer.thaw().expect("it is thawed");
        counting.count();
        counting.running.started.remains.kill();
        counting.running.finish();
    });
}

#[test]
fn a_frozen_sandbox_is_killed_and_leaves_nothing() {
    each_of(&Kind::VARIED, |room| {
        let Some(mut counting) = Counting::start(room) else { return };
        counting.count();
        // Who is told nothing more would end by itself.
        let Counting { running, freezer, ask: _ask, told: _told } = counting;
        freezer.freeze().expect("it is frozen");
        running.started.remains.kill();
        if !freezer.is_prompt() && freezer.holds_the_killed() {
            // It fails if it is dead by now.
            let _ = freezer.thaw();
        }
        let ended = running.finish().ended;
        let expected = Ended { exit: Exit::Signal(libc::SIGKILL), out_of_memory: false, left_behind: Vec::new() };
        assert_eq!(ended, expected);
        assert_eq!(room.containers(), 0);
        assert!(freezer.thaw().is_err() && freezer.freeze().is_err(), "there is nothing any more");
    });
}

#[test]
fn the_death_of_a_frozen_sandbox_is_told_by_its_descriptor() {
    each_of(&Kind::VARIED, |room| {
        let Some(mut counting) = Counting::start(room) else { return };
        counting.count();
        // Who is told nothing more would end by itself.
        let Counting { running, freezer, ask: _ask, told: _told } = counting;
        freezer.freeze().expect("it is frozen");
        match kill(Pid::from_raw(running.started.pid), Signal::SIGKILL) {
            Err(Errno::EPERM) => {
                println!("not checked here: only its mechanism may kill it: {:?}", room.kind);
                running.started.remains.kill();
            }
            result => result.expect("it is there"),
        }
        if freezer.holds_the_killed() {
            println!("dies when it is thawed: {:?}", room.kind);
            // It fails if its mechanism had it go on to die.
            let _ = freezer.thaw();
        }
        assert!(dies(running.started.pidfd(), PATIENCE));
        assert_eq!(running.finish().ended.exit, Exit::Signal(libc::SIGKILL));
    });
}

#[test]
fn a_sandbox_gives_way_until_it_is_restored() {
    each_of(&Kind::VARIED, |room| {
        let mut running =
            room.start(&python("print('up', flush=True); import time; time.sleep(1000)")).expect("it starts");
        assert_eq!(running.line(), "up");
        let precedence = running.started.remains.precedence();
        assert_eq!(precedence.is_some(), room.enforces("long runs give way"));
        if let Some(precedence) = precedence {
            let said = |expected: &str| {
                let found = groups::files(running.started.pid, &["cpu.idle"]);
                assert!(found.iter().any(|text| text.trim() == expected), "{:?}: {found:?}", room.kind);
            };
            said("0");
            precedence.yield_to_others().expect("it gives way");
            said("1");
            precedence.restore().expect("it does not any more");
            said("0");
        }
        running.started.remains.kill();
        running.finish();
    });
}
