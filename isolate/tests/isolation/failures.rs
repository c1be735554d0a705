//! Failed starts say which step failed and leave nothing; programs' own ends are told apart.

use std::os::unix::fs::symlink;

use vilya_isolate::{Bind, Exit, StartError};

use crate::support::{Room, python, spec};

/// The step and the errno with which a start failed.
fn failed(room: &mut Room, spec: &vilya_isolate::Spec) -> (String, Option<i32>, String) {
    match room.start(spec).map(|running| running.finish()) {
        Err(error @ StartError::Step { .. }) => {
            let message = error.to_string();
            let StartError::Step { step, source, .. } = error else { unreachable!("it was just matched") };
            (step, source.raw_os_error(), message)
        }
        other => panic!("a step must fail: {other:?}"),
    }
}

#[test]
fn a_missing_program_is_the_last_step() {
    let mut room = Room::new();
    let (step, errno, message) = failed(&mut room, &spec(&["/usr/bin/no-such-program", "x"]));
    assert_eq!((step.as_str(), errno), ("execute /usr/bin/no-such-program x", Some(libc::ENOENT)));
    assert!(message.contains("no such program inside"), "{message}");
    assert!(room.run(&spec(&["/usr/bin/true"])).succeeded(), "the mechanism works on");
}

#[test]
fn a_program_that_is_no_program_is_told() {
    let (step, errno, _) = failed(&mut Room::new(), &spec(&["/etc/passwd"]));
    assert_eq!((step.as_str(), errno), ("execute /etc/passwd", Some(libc::EACCES)));
}

#[test]
fn a_missing_bind_is_named() {
    let mut broken = spec(&["/usr/bin/true"]);
    broken.binds = vec![Bind { source: "/no/such/code".into(), target: "/function".into(), read_only: true }];
    let (step, errno, message) = failed(&mut Room::new(), &broken);
    assert_eq!((step.as_str(), errno), ("bind /no/such/code at function (ro,nosuid,nodev)", Some(libc::ENOENT)));
    assert!(message.contains("the source must exist on the host"), "{message}");
}

#[test]
fn a_bind_of_a_symbolic_link_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let link = directory.path().join("link");
    symlink("/etc", &link).expect("a link");
    let mut broken = spec(&["/usr/bin/true"]);
    broken.binds = vec![Bind { source: link, target: "/function".into(), read_only: true }];
    assert_eq!(failed(&mut Room::new(), &broken).1, Some(libc::ELOOP));
}

#[test]
fn a_missing_working_directory_is_named() {
    let mut broken = spec(&["/usr/bin/true"]);
    broken.working_directory = "/nowhere".into();
    let (step, errno, _) = failed(&mut Room::new(), &broken);
    assert_eq!((step.as_str(), errno), ("enter /nowhere", Some(libc::ENOENT)));
}

#[test]
fn a_core_that_does_not_exist_is_named() {
    let mut broken = spec(&["/usr/bin/true"]);
    broken.cores = vec![1023];
    let (step, errno, _) = failed(&mut Room::new(), &broken);
    assert_eq!((step.as_str(), errno), ("run on cores 1023", Some(libc::EINVAL)));
}

#[test]
fn a_bad_spec_starts_nothing() {
    let mut broken = spec(&["/usr/bin/true"]);
    broken.limits.processes = 0;
    assert!(matches!(Room::new().start(&broken).map(|_| ()), Err(StartError::Spec(_))));
}

#[test]
fn exits_and_signals_are_told_apart() {
    let mut room = Room::new();
    assert_eq!(room.python("raise SystemExit(7)").ended.exit, Exit::Code(7));
    assert_eq!(room.python("import ctypes; ctypes.string_at(0)").ended.exit, Exit::Signal(libc::SIGSEGV));
    let running = room.start(&python("import time; print('up', flush=True); time.sleep(1000)"));
    let mut running = running.expect("it starts");
    assert_eq!(running.line(), "up");
    running.started.remains.kill();
    let ended = running.finish().ended;
    assert_eq!(ended.exit, Exit::Signal(libc::SIGKILL));
    assert!(!ended.out_of_memory);
    assert_eq!(ended.left_behind, Vec::<std::path::PathBuf>::new());
}

#[test]
fn stages_add_up() {
    let started = Room::new().start(&spec(&["/usr/bin/true"])).expect("it starts").started;
    let stages = started.stages;
    let _ = started.remains.reap();
    let sum = stages.planned_ns
        + stages.grouped_ns
        + stages.cloned_ns
        + stages.placed_ns
        + stages.mounted_ns
        + stages.confined_ns
        + stages.filtered_ns
        + stages.executed_ns;
    assert!(stages.total_ns > 0 && stages.mounted_ns > 0, "{stages:?}");
    // The child may run ahead while the parent returns from clone3, so the sum may exceed the whole by that much.
    assert!(sum >= stages.total_ns.saturating_sub(1), "{stages:?}");
}
