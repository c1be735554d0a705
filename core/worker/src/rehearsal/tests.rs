//! A copy that has begun, and nobody who waits for it.

use crossbeam_channel::bounded;
use nix::poll::{PollFd, PollFlags, poll};
use vilya_ipc::host::ReadOnlyBy;
use vilya_isolate::{Begun, CgroupPreference, Mechanism, Native, NativeOptions, Reach, ResourceLimits, Root, Spec};

use super::OnStage;
use crate::ring::Ring;

#[test]
fn a_copy_that_nobody_waits_for_any_more_ends() {
    let state = tempfile::tempdir().expect("a directory");
    let options = NativeOptions {
        state_directory: state.path().to_owned(),
        worker_id: format!("rehearsal-{}", std::process::id()),
        cgroup: CgroupPreference::Auto,
        mitigations: true,
    };
    let mut native = match Native::new(options) {
        Ok(native) => native,
        Err(error) if !nix::unistd::geteuid().is_root() => return println!("skipped: no sandboxes here: {error}"),
        Err(error) => panic!("no sandboxes here: {error}"),
    };
    let read_only_by = if native.distinct_users() { ReadOnlyBy::Permission } else { ReadOnlyBy::Seal };
    let Ring { host, stdout, stderr, descriptors } = Ring::new(1, 1 << 20, read_only_by).expect("a ring");
    let started = native.start(&sleeper(), descriptors).expect("a sandbox");
    let death = started.pidfd().try_clone_to_owned().expect("another descriptor");
    let has_ended = |wait_ms: u16| {
        let mut polled = [PollFd::new(std::os::fd::AsFd::as_fd(&death), PollFlags::POLLIN)];
        poll(&mut polled, wait_ms).expect("a descriptor of a process") > 0
    };

    // The answer is on its way when whoever asked gives up.
    let (answer, answers) = bounded(1);
    let begun = Begun::Done(Box::new(started));
    answer.send(Ok::<_, String>(OnStage::new(begun, host, [stdout, stderr]))).expect("there is room");
    assert!(!has_ended(0), "it sleeps");
    drop(answers);
    drop(answer);
    assert!(has_ended(30_000), "it goes on, and nobody knows of it");
}

/// Goes on for longer than any test.
fn sleeper() -> Spec {
    Spec {
        name: format!("rehearsal-{}", std::process::id()),
        command: vec!["/usr/bin/sleep".into(), "1000".into()],
        environment: Vec::new(),
        working_directory: "/".into(),
        root: Root::System,
        binds: Vec::new(),
        limits: ResourceLimits {
            memory_bytes: 64 << 20,
            cpu_millis: None,
            processes: 8,
            tmp_bytes: 1 << 20,
            open_files: 64,
        },
        cores: Vec::new(),
        hostname: "function".into(),
        reach: Reach::Nothing,
    }
}
