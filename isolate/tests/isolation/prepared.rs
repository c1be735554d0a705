//! Sandboxes that were made before they were needed, and copies: no less confined than any other.

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use vilya_isolate::{
    Begun, Bind, CaptureError, CopyOf, Descriptors, Exit, Image, Mechanism, Spec, StartError, capture,
};

use crate::support::{Ran, Room, groups_of, null, python, running, spec};

/// What confines a process, as it and the kernel see it.
pub(crate) const CONFINEMENT: &str = r#"
import os, resource, socket
def show(name, value): print(name, value, sep="\t")
status = dict(line.rstrip("\n").split(":\t", 1) for line in open("/proc/self/status"))
for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters", "Groups", "NSpid"):
    show(key, status.get(key, "").strip())
show("pid", os.getpid())
show("ids", (os.getresuid(), os.getresgid()))
show("limits", [(name, resource.getrlimit(getattr(resource, name))) for name in sorted(dir(resource)) if name.startswith("RLIMIT_")])
show("mounts", sorted(" ".join(line.split()[3:6]) for line in open("/proc/self/mountinfo") if " /function " not in line))
show("root", sorted(name for name in os.listdir("/") if name != "function"))
show("interfaces", [name for _, name in socket.if_nameindex()])
show("hostname", socket.gethostname())
show("umask", oct(os.umask(0o22)))
show("session", os.getsid(0))
show("maps", open("/proc/self/uid_map").read().split()[0::2])
show("users", open("/proc/sys/user/max_user_namespaces").read().strip())
show("descriptors", sorted(fd for fd in map(int, os.listdir("/proc/self/fd")) if os.path.exists(f"/proc/self/fd/{fd}")))
show("groups", [line.split(":")[2] for line in open("/proc/self/cgroup").read().splitlines() if "pids" in line or "memory" in line])
"#;

/// Waits to be copied, and says on its way whether it is a copy.
pub(crate) const BECOME_COPY: &str = "
import ctypes, os
def become_copy():
    heap_end = ctypes.c_void_p.in_dll(ctypes.CDLL(None), '__curbrk')
    os.write(3, b'Z')
    if os.read(3, 1): os._exit(9)
    heap_end.value = None
";

/// Starts a program, takes its image when it waits to be copied, and ends it.
pub(crate) fn image_of(room: &mut Room, program: &str) -> Result<Arc<Image>, CaptureError> {
    image_of_spec(room, &python(program))
}

pub(crate) fn image_of_spec(room: &mut Room, spec: &Spec) -> Result<Arc<Image>, CaptureError> {
    let (mut says, told) = UnixStream::pair().expect("a pair of sockets");
    let descriptors = Descriptors { ring: [told.into(), null(), null()], stdout: null(), stderr: null() };
    let started = room.native.start(spec, descriptors).expect("it starts");
    says.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let mut word = [0];
    says.read_exact(&mut word).expect("it says that it waits");
    let image = capture(started.pid, &spec.working_directory, 1 << 30).map(Arc::new);
    started.remains.kill();
    let _ = started.remains.reap();
    image
}

pub(crate) fn copy(room: &mut Room, image: &Arc<Image>) -> Result<Ran, StartError> {
    let spec = python("raise SystemExit('this must not run')");
    running(|descriptors| {
        let copy = CopyOf { image, tells_environment: false };
        room.native.begin(&spec, descriptors, Some(copy)).and_then(Begun::finish)
    })
    .map(crate::support::Running::finish)
}

#[test]
fn a_prepared_sandbox_and_a_copy_are_as_confined_as_any_other() {
    let mut room = Room::new();
    let whole = Room::unprepared().python(CONFINEMENT).answers();
    assert!(room.native.wait_until_prepared(Duration::from_secs(20)));
    let mut seen = room.start(&python(CONFINEMENT)).expect("it starts");
    assert!(seen.started.stages.prepared, "one was waiting");
    assert_eq!(seen.line().split('\t').next(), Some("CapInh"));
    let mut rest = seen.finish().answers();
    rest.insert("CapInh".into(), whole["CapInh"].clone());
    // The order of mounts is not the same, and a prepared one has a place for the function.
    assert_eq!(rest, whole);

    let program = format!("{BECOME_COPY}import resource, socket\nbecome_copy()\n{CONFINEMENT}");
    let image = image_of(&mut room, &program).expect("it can be copied");
    for _ in 0..2 {
        let mut copied = copy(&mut room, &image).expect("a copy").answers();
        copied.retain(|name, _| name != "CapInh");
        let mut whole = whole.clone();
        whole.retain(|name, _| name != "CapInh");
        assert_eq!(copied, whole);
    }
}

#[test]
fn a_prepared_sandbox_gets_what_its_spec_says() {
    let mut room = Room::new();
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("word"), "found").expect("a file");
    let mut spec = python(
        "import os\nprint('word', open('word').read())\nprint('variable', os.environ['ONE'])\nprint('cores', sorted(os.sched_getaffinity(0)))\ntry: open('/function/x', 'w')\nexcept OSError as error: print('write', error.errno)",
    );
    spec.binds.push(Bind { source: folder.path().into(), target: "/function".into(), read_only: true });
    spec.working_directory = "/function".into();
    spec.environment.push(("ONE".into(), "1".into()));
    spec.cores = vec![0];
    assert!(room.native.wait_until_prepared(Duration::from_secs(20)));
    let running = room.start(&spec).expect("it starts");
    assert!(running.started.stages.prepared);
    let answers = running.finish().answers();
    assert_eq!(answers["word"], "found");
    assert_eq!(answers["variable"], "1");
    assert_eq!(answers["cores"], "[0]");
    assert_eq!(answers["write"], libc::EROFS.to_string());
}

#[test]
fn a_prepared_sandbox_has_the_memory_limit_of_its_spec() {
    let mut room = Room::new();
    let take = |mebibytes: u64| python(&format!("print('took', len(bytearray({mebibytes} << 20)))"));
    for (limit, takes, fits) in [(64, 100, false), (512, 300, true)] {
        let mut spec = take(takes);
        spec.limits.memory_bytes = limit << 20;
        let ran = room.run(&spec);
        // Without a group the kernel refuses it the memory instead of killing it.
        let killed = !fits && room.enforces("memory limit");
        assert_eq!((ran.succeeded(), ran.ended.out_of_memory), (fits, killed), "{limit} MiB: {ran:?}");
    }
}

#[test]
fn starts_go_on_when_none_waits() {
    let mut room = Room::new();
    let mut had_to_wait = 0;
    for _ in 0..20 {
        let running = room.start(&spec(&["/usr/bin/true"])).expect("it starts");
        had_to_wait += u32::from(!running.started.stages.prepared);
        assert!(running.finish().succeeded());
    }
    println!("{had_to_wait} of 20 starts found none waiting");
}

#[test]
fn what_cannot_be_become_is_said() {
    let mut room = Room::new();
    let error = room.start(&spec(&["/usr/bin/no-such-program"])).map(drop).expect_err("there is no such program");
    assert!(error.to_string().contains("no such program inside"), "{error}");
    let mut missing = spec(&["/usr/bin/true"]);
    missing.binds.push(Bind { source: "/no/such/folder".into(), target: "/function".into(), read_only: true });
    let error = room.start(&missing).map(drop).expect_err("there is no such folder");
    assert!(error.to_string().contains("the source must exist"), "{error}");
    let mut elsewhere = spec(&["/usr/bin/true"]);
    elsewhere.working_directory = "/no/such".into();
    let error = room.start(&elsewhere).map(drop).expect_err("there is no such directory");
    assert!(error.to_string().contains("No such file"), "{error}");
}

#[test]
fn a_process_that_copies_would_lack_something_of_is_not_copied() {
    let mut room = Room::new();
    let cases = [
        ("import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()", "threads"),
        ("keep = open('/etc/passwd')", "/etc/passwd"),
        ("import socket\nkeep = socket.socket()", "socket:"),
        ("import time\nif os.fork() == 0: time.sleep(60)", "child processes"),
        ("open('/tmp/left', 'w').write('x')", "/tmp"),
        ("os.chdir('/')", "working directory"),
        ("os.umask(0)", "umask"),
        ("import signal\nsignal.setitimer(signal.ITIMER_REAL, 100)", "timers"),
        ("import mmap\nkeep = mmap.mmap(-1, 4096)\nkeep[0] = 1", "shares memory"),
        // Reserved and never touched: 32 TiB of address space are no memory.
        (
            "import mmap\nkeep = mmap.mmap(-1, 1 << 45, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, mmap.PROT_READ)",
            "a mapping of",
        ),
    ];
    for (what, reason) in cases {
        let error = image_of(&mut room, &format!("{BECOME_COPY}{what}\nbecome_copy()")).expect_err(what);
        assert!(error.to_string().contains(reason), "{what}: {error}");
    }
    let liar = "import os, time\nos.write(3, b'Z')\ntime.sleep(60)";
    let error = image_of(&mut room, liar).expect_err("it does not wait");
    assert!(error.to_string().contains("does not wait"), "{error}");
}

#[test]
fn a_process_with_more_memory_than_it_may_is_not_copied() {
    let mut room = Room::new();
    let (mut says, told) = UnixStream::pair().expect("a pair of sockets");
    let spec = python(&format!("{BECOME_COPY}big = bytearray(b'x' * (40 << 20))\nbecome_copy()"));
    let descriptors = Descriptors { ring: [told.into(), null(), null()], stdout: null(), stderr: null() };
    let started = room.native.start(&spec, descriptors).expect("it starts");
    says.read_exact(&mut [0]).expect("it says that it waits");
    let error = capture(started.pid, &spec.working_directory, 32 << 20).expect_err("it has too much");
    assert!(error.to_string().contains("more memory"), "{error}");
    started.remains.kill();
    let _ = started.remains.reap();
}

/// Signal handlers, the signal mask, floating-point modes and thread-local storage are those of the process that was copied.
#[test]
fn a_copy_goes_on_where_it_stood() {
    let mut room = Room::new();
    let program = format!(
        "{BECOME_COPY}
import signal, ctypes, sys
import functools; print = functools.partial(print, flush=True)
heard = []
signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))
signal.signal(signal.SIGUSR2, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
libm = ctypes.CDLL('libm.so.6')
libm.fesetround(0x400)
big = list(range(200000))
become_copy()
print('rounding', libm.fegetround())
os.kill(os.getpid(), signal.SIGUSR2)
os.kill(os.getpid(), signal.SIGUSR1)
print('heard', heard)
print('blocked', signal.SIGALRM in signal.pthread_sigmask(signal.SIG_BLOCK, []))
print('big', sum(big) + len([bytearray(5000) for _ in range(2000)]))
ctypes.set_errno(7)
print('errno', ctypes.get_errno())
def deep(n): return 0 if n == 0 else 1 + deep(n - 1)
sys.setrecursionlimit(20000)
print('deep', deep(9000))
import threading, time
thread = threading.Thread(target=lambda: heard.append(2)); thread.start(); thread.join()
print('thread', heard)
print('clock', abs(time.clock_gettime(time.CLOCK_MONOTONIC) - float(open('/proc/uptime').read().split()[0])) < 5)
"
    );
    let image = image_of(&mut room, &program).expect("it can be copied");
    let answers = copy(&mut room, &image).expect("a copy").answers();
    assert_eq!(answers["rounding"], 0x400.to_string());
    assert_eq!(answers["heard"], "[1]");
    assert_eq!(answers["blocked"], "True");
    assert_eq!(answers["big"], (199_999_u64 * 100_000 + 2000).to_string());
    assert_eq!((&*answers["errno"], &*answers["deep"]), ("7", "9000"));
    assert_eq!(answers["thread"], "[1, 2]");
    assert_eq!(answers["clock"], "True");
}

#[test]
fn a_copy_of_a_runtime_is_told_its_environment() {
    let mut room = Room::new();
    let program = format!("{BECOME_COPY}become_copy()\nprint('told', os.read(13, 1 << 16))\n");
    let image = image_of(&mut room, &program).expect("it can be copied");
    let mut spec = spec(&["/usr/bin/false"]);
    spec.environment = vec![("A".into(), "1".into()), ("B".into(), "x=y".into())];
    let ran = running(|descriptors| {
        let copy = CopyOf { image: &image, tells_environment: true };
        room.native.begin(&spec, descriptors, Some(copy)).and_then(Begun::finish)
    });
    assert_eq!(ran.expect("a copy").finish().answers()["told"], r"b'A=1\x00B=x=y\x00'");
}

/// A zygote has run the function's code, so all that it says and holds may be made to harm. Its copies are confined before a byte of it is
/// mapped, by code that it never had a part in.
#[test]
fn copies_of_a_lying_zygote_are_no_freer_than_it_was() {
    let mut room = Room::new();
    let program = format!(
        "{BECOME_COPY}
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
def attempt(name, number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(number, *arguments)
    print(name, errno.errorcode.get(ctypes.get_errno(), 'done') if result < 0 else 'done')
become_copy()
attempt('mount', 165, b'none', b'/tmp', b'tmpfs', 0, None)
attempt('unshare', 272, 0x10000000)
attempt('setns', 308, 0, 0)
attempt('ptrace', 101, 0, 0, 0, 0)
attempt('setuid', 105, 0)
attempt('io_uring', 425, 1, None)
attempt('rejoin', 157, 1, 0)
for fd in range(6, 64):
    try: os.fstat(fd); print('open', fd)
    except OSError: pass
print('image', any('vilya-zygote' in line and 's ' in line.split()[1] + ' ' and line.split()[1].endswith('s') for line in open('/proc/self/maps')))
address = next(line.split('-')[0] for line in open('/proc/self/maps') if 'vilya-zygote' in line)
try: open('/proc/self/mem', 'r+b', 0).seek(int(address, 16)) and None
except OSError: pass
print('groups', len(os.listdir('/proc/self/task')))
"
    );
    let image = image_of(&mut room, &program).expect("it can be copied");
    let answers = copy(&mut room, &image).expect("a copy").answers();
    for attempt in ["mount", "unshare", "setns", "ptrace", "io_uring", "rejoin", "setuid"] {
        assert_eq!(answers[attempt], "EPERM", "{attempt}");
    }
    assert!(!answers.contains_key("open"), "{answers:?}");
    assert_eq!(answers["image"], "False", "copies share no memory that one of them can write");

    // One that writes to all of its image finds another copy as it was.
    let scribble = format!(
        "{BECOME_COPY}
mark = bytearray(b'untouched' * 1000)
become_copy()
print('mark', bytes(mark[:9]).decode())
mark[:] = b'scribbled' * 1000
"
    );
    let image = image_of(&mut room, &scribble).expect("it can be copied");
    for _ in 0..3 {
        assert_eq!(copy(&mut room, &image).expect("a copy").answers()["mark"], "untouched");
    }

    // Registers that lead nowhere end the copy and nothing else.
    let lost = format!("{BECOME_COPY}import ctypes\nctypes.CDLL(None).syscall(158, 0x1002, 0x10)\nbecome_copy()\n");
    if let Ok(image) = image_of_or_gone(&mut room, &lost) {
        let ran = copy(&mut room, &image).expect("what follows is its own affair");
        assert!(matches!(ran.ended.exit, Exit::Signal(_)), "{ran:?}");
    }
    assert!(room.run(&spec(&["/usr/bin/true"])).succeeded(), "others go on");
}

/// As `image_of`, for a program that may die on its way.
fn image_of_or_gone(room: &mut Room, program: &str) -> Result<Arc<Image>, ()> {
    let (mut says, told) = UnixStream::pair().expect("a pair of sockets");
    let spec = python(program);
    let descriptors = Descriptors { ring: [told.into(), null(), null()], stdout: null(), stderr: null() };
    let started = room.native.start(&spec, descriptors).expect("it starts");
    let image = says
        .read_exact(&mut [0])
        .map_err(drop)
        .and_then(|()| capture(started.pid, "/tmp", 1 << 30).map(Arc::new).map_err(drop));
    started.remains.kill();
    let _ = started.remains.reap();
    image
}

#[test]
fn nothing_is_left_of_sandboxes_that_nobody_took() {
    let room = Room::new();
    assert!(room.native.wait_until_prepared(Duration::from_secs(20)));
    let isolate = room.state.path().join("isolate");
    let bases = fs::read_to_string(isolate.join("groups")).unwrap_or_default();
    let remembered = || -> usize {
        let groups: usize = bases.lines().map(|base| groups_of(base).len()).sum();
        // Where no group remembers a sandbox, a record does.
        groups + fs::read_dir(isolate.join("sandboxes")).expect("its records").count()
    };
    assert!(remembered() >= 2, "they wait");
    let state = room.close();
    assert_eq!(remembered(), 0);
    drop(state);
}
