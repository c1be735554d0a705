//! Limits hold, and breaking one is told.

use std::time::Duration;

use vilya_isolate::{CgroupPreference, Exit};

use crate::prepared::{BECOME_COPY, copy, image_of};
use crate::support::{Ran, Room, groups_of, python};

const PATIENCE: Duration = Duration::from_secs(20);

const HOG: &str = r#"
held = []
try:
    while True: held.append(bytearray(1 << 20))
except MemoryError:
    held.clear()
    print("refused")
"#;

#[test]
fn memory_is_limited() {
    let mut room = Room::new();
    let by_group = room.enforces("memory limit");
    let mut hog = python(HOG);
    hog.limits.memory_bytes = 64 << 20;
    let ran = room.run(&hog);
    if by_group {
        assert!(ran.ended.out_of_memory, "{ran:?}");
        assert_eq!((ran.stdout.as_str(), ran.ended.exit), ("", Exit::Signal(libc::SIGKILL)));
    } else {
        assert_eq!((ran.stdout.as_str(), ran.ended.exit), ("refused\n", Exit::Code(0)));
    }
}

#[test]
fn without_groups_a_process_is_limited_by_itself() {
    let mut room = Room::with(CgroupPreference::Off);
    assert!(!room.enforces("memory limit"));
    let mut hog = python(HOG);
    hog.limits.memory_bytes = 64 << 20;
    let ran = room.run(&hog);
    assert_eq!((ran.stdout.as_str(), ran.ended.exit), ("refused\n", Exit::Code(0)));
    assert!(!ran.ended.out_of_memory);
}

/// What it may have, whether it can have more after all, and whether its children can; then takes as much as it gets.
const LIMITED: &str = r#"
import os, resource
print("limit", *resource.getrlimit(resource.RLIMIT_DATA))
try: resource.setrlimit(resource.RLIMIT_DATA, (1 << 40, 1 << 40)); print("raised yes")
except (ValueError, OSError): print("raised no")
def take():
    held = []
    try:
        while len(held) < 400: held.append(bytearray(1 << 20))
    except MemoryError: pass
    return len(held)
reads, writes = os.pipe()
if os.fork() == 0:
    os.write(writes, b"%d" % take())
    os._exit(0)
print("child", os.read(reads, 16).decode())
print("took", take())
"#;

/// Of one that was made ahead the limit is lowered from outside when it is started; of a copy as well.
#[test]
fn without_groups_what_was_made_ahead_is_limited_by_itself() {
    let mut room = Room::prepared_with(CgroupPreference::Off);
    assert!(!room.enforces("memory limit"));
    for mebibytes in [64, 128] {
        let mut spec = python(LIMITED);
        spec.limits.memory_bytes = mebibytes << 20;
        assert!(room.native.wait_until_prepared(PATIENCE));
        let running = room.start(&spec).expect("it starts");
        assert!(running.started.stages.prepared, "one was waiting");
        is_limited_to(mebibytes, &running.finish());
    }
    let image = image_of(&mut room, &format!("{BECOME_COPY}become_copy()\n{LIMITED}")).expect("it can be copied");
    // That of the usual spec.
    is_limited_to(256, &copy(&mut room, &image).expect("a copy"));
}

fn is_limited_to(mebibytes: u64, ran: &Ran) {
    let (bytes, seen) = (mebibytes << 20, ran.answers());
    assert_eq!((seen["limit"].as_str(), seen["raised"].as_str()), (&*format!("{bytes} {bytes}"), "no"));
    for taker in ["child", "took"] {
        let took: u64 = seen[taker].parse().expect("a number");
        assert!((mebibytes / 2..mebibytes).contains(&took), "{taker}: {seen:?}");
    }
    assert!(!ran.ended.out_of_memory && ran.ended.left_behind.is_empty(), "{ran:?}");
}

/// Fills the buffers of connections to itself, and says how many MiB fitted.
const BUFFERS: &str = r#"
import socket
server = socket.create_server(("127.0.0.1", 0), backlog=200)
total, held = 0, []
try:
    for _ in range(200):
        client = socket.socket(); client.connect(server.getsockname()); held += [client, server.accept()[0]]
        for end in held[-2:]:
            end.setblocking(False)
            try:
                while True: total += end.send(bytes(1 << 16))
            except BlockingIOError: pass
except OSError: pass
print("mebibytes", total >> 20)
"#;

/// What the kernel holds for sockets counts too, be it with the rest (version 2) or for itself (version 1).
#[test]
fn buffers_of_sockets_count() {
    let mut room = Room::new();
    if !room.enforces("memory limit") {
        return;
    }
    let mut hog = python(BUFFERS);
    hog.limits.memory_bytes = 64 << 20;
    hog.limits.open_files = 512;
    let ran = room.run(&hog);
    if !ran.ended.out_of_memory {
        let fitted = ran.answers().get("mebibytes").and_then(|count| count.parse::<u64>().ok());
        assert!(fitted.is_some_and(|fitted| fitted <= 2 * 64), "{ran:?}");
    }
}

const BOMB: &str = r#"
import os, time
children = 0
try:
    while True:
        if os.fork() == 0: time.sleep(1000)
        children += 1
except OSError as error: print(error.errno, children, flush=True)
time.sleep(1000)
"#;

/// Processes that are never waited for, some of them stopped.
const ZOMBIES: &str = r#"
import os, signal, time
children = 0
try:
    while True:
        if os.fork() == 0:
            if children % 2: os.kill(os.getpid(), signal.SIGSTOP)
            os._exit(0)
        children += 1
except OSError as error: print(error.errno, children, flush=True)
time.sleep(1000)
"#;

const THREADS: &str = r#"
import threading, time
children = 0
try:
    while True:
        threading.Thread(target=time.sleep, args=(1000,)).start()
        children += 1
except RuntimeError: print(11, children, flush=True)
time.sleep(1000)
"#;

fn bomb_is_bounded_and_dies_whole(mut room: Room, program: &str) {
    let mut bomb = python(program);
    bomb.limits.processes = 20;
    let mut running = room.start(&bomb).expect("it starts");
    let line = running.line();
    let (errno, children) = line.split_once(' ').expect("an errno and a count");
    assert_eq!(errno, libc::EAGAIN.to_string());
    assert!(children.parse::<u32>().is_ok_and(|count| (1..20).contains(&count)), "{line}");
    running.started.remains.kill();
    // Ends only when every process has closed the output.
    let ended = running.finish().ended;
    assert_eq!(ended.exit, Exit::Signal(libc::SIGKILL));
    assert!(ended.left_behind.is_empty() && !ended.out_of_memory, "{ended:?}");
}

#[test]
fn a_fork_bomb_is_bounded_and_dies_whole() {
    bomb_is_bounded_and_dies_whole(Room::new(), BOMB);
}

#[test]
fn a_fork_bomb_is_bounded_without_groups_too() {
    bomb_is_bounded_and_dies_whole(Room::with(CgroupPreference::Off), BOMB);
}

#[test]
fn zombies_and_stopped_processes_are_bounded_and_die_whole() {
    bomb_is_bounded_and_dies_whole(Room::new(), ZOMBIES);
}

#[test]
fn threads_are_bounded_and_die_whole() {
    bomb_is_bounded_and_dies_whole(Room::new(), THREADS);
}

#[test]
fn open_files_are_limited() {
    let mut spec = python(
        "files = []\ntry:\n    while True: files.append(open('/dev/null'))\nexcept OSError as error: print('errno', error.errno, len(files))",
    );
    spec.limits.open_files = 40;
    let ran = Room::new().run(&spec);
    assert_eq!(ran.stdout, format!("errno {} 34\n", libc::EMFILE));
}

#[test]
fn dumps_and_locked_memory_are_limited() {
    let program = "import resource as r; print('core', r.getrlimit(r.RLIMIT_CORE)); print('memlock', r.getrlimit(r.RLIMIT_MEMLOCK)); print('rtprio', r.getrlimit(r.RLIMIT_RTPRIO))";
    let seen = Room::new().python(program).answers();
    // At 0 a host that pipes dumps to a program would run it, as its root, for every crash here.
    assert_eq!(seen.get("core").map(String::as_str), Some("(1, 1)"));
    assert_eq!(seen.get("memlock").map(String::as_str), Some("(65536, 65536)"));
    assert_eq!(seen.get("rtprio").map(String::as_str), Some("(0, 0)"));
}

/// The kernel does the limiting; that it was told is what is checked, from outside, in whichever dialect.
#[test]
fn processor_time_is_limited() {
    let mut room = Room::new();
    if !room.enforces("cpu limit") {
        return;
    }
    let mut spec = python("import time; print('up', flush=True); time.sleep(1000)");
    spec.limits.cpu_millis = Some(250);
    let mut running = room.start(&spec).expect("it starts");
    assert_eq!(running.line(), "up");
    let bases = std::fs::read_to_string(room.state.path().join("isolate/groups")).expect("the recorded groups");
    let read = |file: &str| {
        let groups = bases.lines().flat_map(groups_of);
        let is_own = |name: &str| name == spec.name || name.ends_with(&format!(".{}", spec.name));
        let mut own = groups.filter(|group| group.file_name().is_some_and(|name| is_own(&name.to_string_lossy())));
        own.find_map(|group| std::fs::read_to_string(group.join(file)).ok())
    };
    let quota = read("cpu.max").or_else(|| read("cpu.cfs_quota_us")).expect("a quota");
    assert_eq!(quota.split_whitespace().next(), Some("25000"));
    let procs = read("cgroup.procs").expect("members");
    assert!(procs.lines().any(|pid| pid == running.started.pid.to_string()), "{procs}");
    running.started.remains.kill();
    running.finish();
}

/// A hierarchy of version 2 without controllers still gives birth within a group, `cgroup.kill` and removal.
#[test]
fn version_two_groups_are_born_into_and_killed() {
    let mut room = Room::with(CgroupPreference::V2);
    let bases = std::fs::read_to_string(room.state.path().join("isolate/groups")).unwrap_or_default();
    let Some(base) = bases.lines().next() else {
        println!("not enforced here: no version 2 group could be made");
        return;
    };
    let mut spec = python("import os, time\nos.fork()\nprint('up', flush=True)\ntime.sleep(1000)");
    spec.limits.processes = 4;
    let mut running = room.start(&spec).expect("it starts");
    assert_eq!((running.line(), running.line()), ("up".to_owned(), "up".to_owned()));
    let group = std::path::Path::new(base).join(&spec.name);
    let members = std::fs::read_to_string(group.join("cgroup.procs")).expect("its members");
    assert_eq!(members.lines().count(), 2, "{members}");
    running.started.remains.kill();
    let ended = running.finish().ended;
    assert_eq!(ended.exit, Exit::Signal(libc::SIGKILL));
    assert!(!group.exists() && ended.left_behind.is_empty());
}
