//! Doorbells and child processes.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::thread;

use nix::sys::eventfd::{EfdFlags, EventFd};
use vilya_reactor::{Config, Op, Outcome};

use crate::support::{Rig, scene, small};

/// Never read, rung again and again: each ring after a harvest is heard.
#[test]
fn a_doorbell_is_heard_each_time() {
    scene(|| {
        let mut rig = Rig::new(&small());
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC).unwrap();
        let op = rig.submit(1, Op::Poll { fd: bell.as_raw_fd() });
        assert!(rig.poll().is_none());
        for ring in 0..10_000 {
            bell.write(1).unwrap();
            let completion = rig.next();
            assert!(completion.more && completion.op == op, "ring {ring}");
            assert!(matches!(completion.outcome, Outcome::Readable));
            while rig.poll().is_some() {}
        }
    });
}

/// Rung from another thread, which waits for each ring to be heard.
#[test]
fn a_doorbell_rung_from_another_thread_is_heard_each_time() {
    scene(|| {
        let mut rig = Rig::new(&small());
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC).unwrap();
        rig.submit(1, Op::Poll { fd: bell.as_raw_fd() });
        let (heard, wait_heard) = std::sync::mpsc::channel();
        thread::scope(|scope| {
            let bell = &bell;
            scope.spawn(move || {
                for _ in 0..10_000 {
                    bell.write(1).unwrap();
                    wait_heard.recv().unwrap();
                }
            });
            for _ in 0..10_000 {
                assert!(matches!(rig.next().outcome, Outcome::Readable));
                heard.send(()).unwrap();
            }
        });
    });
}

#[test]
fn the_death_of_a_child_is_one_completion() {
    scene(|| {
        let mut rig = Rig::new(&small());
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let pidfd = open_pidfd(child.id());
        rig.submit(5, Op::PollOnce { fd: pidfd.as_raw_fd() });
        assert!(rig.poll().is_none(), "it lives: its input is open");
        drop(child.stdin.take());
        let completion = rig.next();
        assert_eq!((completion.owner, completion.more), (5, false));
        assert!(matches!(completion.outcome, Outcome::Readable));
        assert!(child.try_wait().unwrap().expect("it is dead").success());
        assert_eq!(rig.reactor.operations_live(), 0);
    });
}

/// How many descriptors of this process are eventfds.
fn bells() -> usize {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    entries
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .filter(|to| to.ends_with("anon_inode:[eventfd]"))
        .count()
}

/// The ring has two places for files: what they hold takes no descriptor, is heard all the same, also when the kernel ended the
/// multishot poll and it was armed again, and what finds no place works by its descriptor.
#[test]
fn a_file_that_is_watched_takes_no_descriptor() {
    scene(|| {
        let mut rig = Rig::new(&Config { completion_entries: 16, ..small() });
        let before = bells();
        let rings = [(); 3].map(|()| EventFd::from_flags(EfdFlags::EFD_CLOEXEC).unwrap());
        let copy = |bell: &EventFd| bell.as_fd().try_clone_to_owned().unwrap();
        let watch = |rig: &mut Rig, at: usize| rig.submit(at as u64, Op::Watch { file: copy(&rings[at]), once: false });
        let operations = [0, 1, 2].map(|at| watch(&mut rig, at));
        assert_eq!((bells() - before, rig.reactor.files_kept()), (3 + 1, 2), "the last found no place");
        assert!(rig.poll().is_none());
        for round in 0..100 {
            for (at, bell) in rings.iter().enumerate() {
                bell.write(1).unwrap();
                let completion = rig.next();
                assert!(completion.more && completion.op == operations[at], "round {round}");
                while rig.poll().is_some() {}
            }
        }
        // A full completion queue ends multishot polls.
        for _ in 0..32 {
            rings[0].write(1).unwrap();
            rings[1].write(1).unwrap();
            rig.reactor.submit(9, Op::PollOnce { fd: rings[0].as_raw_fd() }).unwrap();
        }
        while rig.poll().is_some() {}
        assert!(rig.reactor.counters().rearmed > 0, "{:?}", rig.reactor.counters());
        rings[1].write(1).unwrap();
        assert_eq!(rig.next().op, operations[1]);

        // A place is free once the kernel has forgotten what was abandoned.
        rig.reactor.abandon(operations[0]);
        rig.turn_until(|rig| rig.reactor.files_kept() == 1);
        let next = watch(&mut rig, 2);
        assert_eq!((bells() - before, rig.reactor.files_kept()), (3 + 1, 2));
        assert_eq!(rig.next().op, next, "it was rung before");
        while rig.poll().is_some() {}
        rings[0].write(1).unwrap();
        assert!(rig.poll().is_none(), "nobody listens to it");
        rings[2].write(1).unwrap();
        let heard = [rig.next().op, rig.next().op];
        assert!(heard.contains(&next) && heard.contains(&operations[2]));
    });
}

/// A poll of a file that the ring keeps, paused and gone on with: its end is told once, its place is free again, and what rang meanwhile is
/// heard by the next.
#[test]
fn a_watch_that_is_interrupted_gives_its_place_back_and_the_next_hears_what_rang_meanwhile() {
    scene(|| {
        let mut rig = Rig::new(&small());
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC).unwrap();
        for round in 0..100 {
            let file = bell.as_fd().try_clone_to_owned().unwrap();
            let op = rig.submit(1, Op::Watch { file, once: false });
            bell.write(1).unwrap();
            let completion = rig.next();
            assert!(completion.op == op && completion.more, "round {round}");
            while rig.poll().is_some() {}
            assert_eq!(rig.reactor.files_kept(), 1);
            rig.reactor.interrupt(op);
            rig.reactor.interrupt(op);
            let ended = rig.next();
            assert!(ended.op == op && !ended.more, "round {round}");
            assert!(matches!(ended.outcome, Outcome::Failed { errno: libc::ECANCELED, .. }), "{:?}", ended.outcome);
            assert!(rig.poll().is_none(), "it ends once");
            bell.write(1).unwrap();
            assert!(rig.poll().is_none(), "nobody listens");
            assert_eq!((rig.reactor.files_kept(), rig.reactor.operations_live()), (0, 0));
        }
    });
}

/// One that is polled once goes when it was heard, whoever else has it open.
#[test]
fn a_file_that_is_watched_once_is_let_go_when_it_was_heard() {
    scene(|| {
        let mut rig = Rig::new(&small());
        let (reads, writes) = std::io::pipe().unwrap();
        let op = rig.submit(1, Op::Watch { file: reads.into(), once: true });
        assert!(rig.poll().is_none());
        (&writes).write_all(b"x").unwrap();
        let completion = rig.next();
        assert!(completion.op == op && !completion.more);
        assert_eq!((rig.reactor.files_kept(), rig.reactor.operations_live()), (0, 0));
        let error = (&writes).write_all(b"x").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe, "nobody has its other end");
    });
}

/// What is watched goes with the reactor.
#[test]
fn a_dropped_reactor_lets_go_what_it_watches() {
    scene(|| {
        let mut rig = Rig::new(&small());
        for _ in 0..3 {
            let (reads, writes) = std::io::pipe().unwrap();
            rig.submit(1, Op::Watch { file: reads.into(), once: false });
            drop(writes);
        }
        drop(rig);
    });
}

#[expect(unsafe_code, reason = "no safe wrapper of pidfd_open in our dependencies")]
fn open_pidfd(pid: u32) -> OwnedFd {
    // SAFETY: plain numbers in, a new descriptor or an error out.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the new descriptor is nobody else's.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}
