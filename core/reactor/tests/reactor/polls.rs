//! Doorbells and child processes.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::thread;

use nix::sys::eventfd::{EfdFlags, EventFd};
use vilya_reactor::{Op, Outcome};

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

#[expect(unsafe_code, reason = "no safe wrapper of pidfd_open in our dependencies")]
fn open_pidfd(pid: u32) -> OwnedFd {
    // SAFETY: plain numbers in, a new descriptor or an error out.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the new descriptor is nobody else's.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}
