//! What a function that means harm tries against the host, the worker and its neighbours.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use vilya_isolate::{Bind, Exit, Spec, StartError};

use crate::death::dies;
use crate::support::{PYTHON, Room, python, spec};

/// A bundle that everyone may enter, as the worker lays one out.
fn bundle() -> TempDir {
    let bundle = tempfile::tempdir().expect("a directory");
    fs::set_permissions(bundle.path(), Permissions::from_mode(0o755)).expect("its mode");
    bundle
}

fn with_bundle(mut spec: Spec, bundle: &Path) -> Spec {
    spec.binds = vec![Bind { source: bundle.into(), target: "/function".into(), read_only: true }];
    spec
}

fn place(bundle: &Path, name: &str, text: &str, mode: u32) {
    let path = bundle.join(name);
    fs::write(&path, text).expect("a file");
    fs::set_permissions(&path, Permissions::from_mode(mode)).expect("its mode");
}

fn fifo(path: &Path) {
    let made = Command::new("mkfifo").arg("-m").arg("777").arg(path).status().expect("mkfifo is a standard tool");
    assert!(made.success());
}

/// Whatever a bundle calls its program, the start is over at once: it succeeds or says which step failed, and never waits for the bundle.
#[test]
fn no_bundle_holds_up_a_start() {
    let mut room = Room::new();
    let bundle = bundle();
    let path = bundle.path();
    fifo(&path.join("fifo"));
    fs::create_dir(path.join("directory")).expect("a directory");
    fs::write(path.join("sparse"), "").expect("a file");
    fs::OpenOptions::new()
        .write(true)
        .open(path.join("sparse"))
        .and_then(|file| file.set_len(1 << 40))
        .expect("sparse");
    fs::set_permissions(path.join("sparse"), Permissions::from_mode(0o755)).expect("its mode");
    symlink("/function/itself", path.join("itself")).expect("a link");
    symlink("/etc/shadow", path.join("outside")).expect("a link");
    place(path, "script", "#!/bin/sh\necho ran\n", 0o755);
    place(path, "no-interpreter", "#!/function/none\n", 0o755);
    place(path, "fifo-interpreter", "#!/function/fifo\n", 0o755);
    place(path, "own-interpreter", "#!/function/own-interpreter\n", 0o755);
    place(path, "not-executable", "#!/bin/sh\n", 0o644);
    place(path, "nothing", "", 0o755);
    place(path, "half", "\x7fELF\x02\x01\x01", 0o755);
    let cases = [
        ("fifo", libc::EACCES),
        ("directory", libc::EACCES),
        ("sparse", libc::ENOEXEC),
        ("itself", libc::ELOOP),
        ("outside", libc::ENOENT),
        ("no-interpreter", libc::ENOENT),
        ("fifo-interpreter", libc::EACCES),
        ("own-interpreter", libc::ELOOP),
        ("not-executable", libc::EACCES),
        ("nothing", libc::ENOEXEC),
        ("half", libc::ENOEXEC),
    ];
    for (name, errno) in cases {
        let program = format!("/function/{name}");
        match room.start(&with_bundle(spec(&[&program]), path)).map(|running| running.finish()) {
            Err(StartError::Step { step, source, .. }) => {
                assert_eq!((step, source.raw_os_error()), (format!("execute {program}"), Some(errno)));
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    assert_eq!(room.run(&with_bundle(spec(&["/function/script"]), path)).stdout, "ran\n");
}

/// The first process of a namespace has its parent outside, whose children its siblings would be.
#[test]
fn no_process_becomes_a_child_of_the_worker() {
    let program = "
import ctypes, os, platform
libc = ctypes.CDLL(None, use_errno=True)
result = libc.syscall(ctypes.c_long(220 if platform.machine() == 'aarch64' else 56), ctypes.c_long(0x8000 | 17), 0, 0, 0, 0)
if result == 0: os._exit(0)
print('sibling', ctypes.get_errno() if result == -1 else 0)
";
    assert_eq!(Room::new().python(program).answers()["sibling"], libc::EINVAL.to_string());
}

#[test]
fn a_bundle_that_vanishes_is_the_functions_loss() {
    let mut room = Room::new();
    let bundle = bundle();
    place(bundle.path(), "late", "x", 0o644);
    let program = r#"
import os, sys, time
print("up", flush=True)
while os.path.exists("/function/late"): time.sleep(0.01)
print("gone", os.listdir("/function"))
"#;
    let spec = with_bundle(python(program), bundle.path());
    let mut running = room.start(&spec).expect("it starts");
    assert_eq!(running.line(), "up");
    bundle.close().expect("removed");
    assert_eq!(running.finish().stdout, "gone []\n");
}

/// Each mount as seen from inside: where, with which flags, of what.
const MOUNTS: &str = r#"
for line in open("/proc/self/mountinfo"):
    mount, _, kind = line.partition(" - ")
    fields = mount.split(" ")
    print(fields[4], fields[5], kind.split(" ")[0], sep="\t")
"#;

#[test]
fn every_mount_has_the_flags_it_can_bear() {
    let bundle = bundle();
    let ran = Room::new().run(&with_bundle(python(MOUNTS), bundle.path()));
    assert!(ran.succeeded(), "{ran:?}");
    for line in ran.stdout.lines() {
        let mut fields = line.split('\t');
        let mut field = || fields.next().expect("three fields");
        let (point, flags, kind) = (field(), field(), field());
        let has = |flag: &str| flags.split(',').any(|known| known == flag);
        let device =
            (point.starts_with("/dev/") && point != "/dev/shm") || (point.starts_with("/proc/") && kind != "tmpfs");
        assert!(has("nosuid"), "{line}");
        assert!(has("nodev") || device, "{line}");
        assert!(has("ro") || ["/tmp", "/dev/shm"].contains(&point), "{line}");
        let programs = ["/usr", "/bin", "/sbin", "/lib", "/etc/", "/tmp", "/function"];
        assert!(has("noexec") || programs.iter().any(|place| point.starts_with(place)), "{line}");
        assert!(!kind.starts_with("cgroup") && kind != "sysfs", "{line}");
    }
}

#[test]
fn input_is_nobody_elses() {
    let mut room = Room::new();
    // Flags belong to what was opened, and would be seen through every descriptor of it.
    let first = r#"
import fcntl, os, time
print(fcntl.fcntl(0, fcntl.F_GETFL) & 3, repr(os.read(0, 1)))
fcntl.fcntl(0, fcntl.F_SETFL, os.O_NONBLOCK | os.O_APPEND)
try: os.utime(0); print("touched", flush=True)
except OSError as error: print(error.errno, flush=True)
time.sleep(1000)
"#;
    let mut running = room.start(&python(first)).expect("it starts");
    assert_eq!(running.line(), "0 b''");
    assert_eq!(running.line(), libc::EROFS.to_string(), "the times of the host's device");
    let second =
        room.python("import fcntl, os; print('flags', fcntl.fcntl(0, fcntl.F_GETFL) & (os.O_NONBLOCK | os.O_APPEND))");
    assert_eq!(second.answers().get("flags").map(String::as_str), Some("0"));
    running.started.remains.kill();
    running.finish();
}

const OFFERS: &str = r#"
import ctypes, socket, time
libc = ctypes.CDLL(None, use_errno=True)
libc.shmget(0x76696c79, ctypes.c_size_t(4096), 0o1666)
libc.semget(0x76696c79, 1, 0o1666)
open("/dev/shm/meet", "w").close(); open("/tmp/meet", "w").close()
abstract = socket.socket(socket.AF_UNIX); abstract.bind("\0meet"); abstract.listen()
server = socket.create_server(("127.0.0.1", 40007))
print("up", flush=True)
time.sleep(1000)
"#;

/// Everything that one sandbox offers is looked for by another, and the worker is shot at by its number.
const SEEKS: &str = r#"
import ctypes, os, signal, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def refused(name, action):
    try: print(name, "reached", action())
    except OSError as error: print(name, error.errno)
def found(result):
    if result < 0: raise OSError(ctypes.get_errno(), "")
refused("shm", lambda: found(libc.shmget(0x76696c79, ctypes.c_size_t(4096), 0)))
refused("sem", lambda: found(libc.semget(0x76696c79, 1, 0)))
refused("dev-shm", lambda: os.stat("/dev/shm/meet"))
refused("tmp", lambda: os.stat("/tmp/meet"))
refused("abstract", lambda: socket.socket(socket.AF_UNIX).connect("\0meet"))
refused("port", lambda: socket.socket().connect(("127.0.0.1", 40007)))
for name, pid in (("worker", WORKER), ("neighbour", NEIGHBOUR), ("everyone", -1)):
    refused("kill-" + name, lambda: os.kill(pid, signal.SIGKILL))
    refused("see-" + name, lambda: os.stat("/proc/%d" % pid))
refused("pidfd", lambda: os.pidfd_open(WORKER))
refused("niceness", lambda: os.setpriority(os.PRIO_PROCESS, 0, -1))
refused("priority-worker", lambda: os.setpriority(os.PRIO_PROCESS, WORKER, 19))
refused("limits-worker", lambda: __import__("resource").prlimit(WORKER, 7))
print("parent", os.getppid())
print("groups", all(line.rstrip().endswith(":/") for line in open("/proc/self/cgroup")))
"#;

#[test]
fn neighbours_and_the_worker_are_out_of_reach() {
    let mut room = Room::new();
    let mut neighbour = room.start(&python(OFFERS)).expect("it starts");
    assert_eq!(neighbour.line(), "up");
    let numbers = format!("WORKER, NEIGHBOUR = {}, {}\n", std::process::id(), neighbour.started.pid);
    let seen = room.python(&(numbers + SEEKS)).answers();
    let is = |name: &str, value: &str| assert_eq!(seen.get(name).map(String::as_str), Some(value), "{name}: {seen:?}");
    for name in ["shm", "sem", "dev-shm", "tmp", "see-worker", "see-neighbour"] {
        is(name, &libc::ENOENT.to_string());
    }
    for name in ["abstract", "port"] {
        is(name, &libc::ECONNREFUSED.to_string());
    }
    for name in ["kill-worker", "kill-neighbour", "kill-everyone", "pidfd", "priority-worker", "limits-worker"] {
        is(name, &libc::ESRCH.to_string());
    }
    assert!(["1", "13"].contains(&seen["niceness"].as_str()), "{seen:?}");
    is("parent", "0");
    is("groups", "True");
    assert!(!dies(neighbour.started.pidfd(), 0), "the neighbour runs on");
    neighbour.started.remains.kill();
    assert_eq!(neighbour.finish().ended.exit, Exit::Signal(libc::SIGKILL));
}

/// Set for the process whose worker has what a sandbox must not inherit.
const ROLE: &str = "VILYA_ISOLATE_TEST_INHERITANCE";

/// Becomes this test again at a real-time priority, before others, with fixed addresses and with signals blocked and ignored; says so if it
/// may not.
const FAVOURED: &str = r#"
import ctypes, os, signal, sys
try:
    os.setpriority(os.PRIO_PROCESS, 0, -5)
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
except PermissionError: print("not enforced here: an ordinary user has no such priorities")
ctypes.CDLL(None).personality(0x0040000)
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
os.umask(0o007)
os.execv(sys.argv[1], sys.argv[1:])
"#;

const INHERITED: &str = r#"
import os
status = dict(line.rstrip("\n").split(":\t", 1) for line in open("/proc/self/status"))
mask = os.umask(0)
print("policy", os.sched_getscheduler(0))
print("nice", os.nice(0))
print("personality", open("/proc/self/personality").read().strip())
print("blocked", status["SigBlk"])
print("ignored", int(status["SigIgn"], 16) & 1 << 9)
print("umask", oct(mask))
print("terminal", open("/proc/self/stat").read().rsplit(")", 1)[1].split()[4])
"#;

#[test]
fn what_the_worker_was_given_is_not_inherited() {
    if std::env::var_os(ROLE).is_none() {
        let own = std::env::current_exe().expect("this program");
        let mut again = Command::new(PYTHON);
        again.args(["-I", "-c", FAVOURED]).arg(own).env(ROLE, "1");
        again.args(["--exact", "hostile::what_the_worker_was_given_is_not_inherited", "--nocapture"]);
        let output = again.output().expect("it runs");
        print!("{}", String::from_utf8_lossy(&output.stdout));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let seen = Room::new().python(INHERITED).answers();
    let is = |name: &str, value: &str| assert_eq!(seen.get(name).map(String::as_str), Some(value), "{name}: {seen:?}");
    is("policy", "0");
    is("nice", "0");
    is("personality", "00000000");
    is("blocked", "0000000000000000");
    is("ignored", "0");
    is("umask", "0o22");
    is("terminal", "0");
}
