//! What a sandbox sees.

use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::SocketAddr;

use vilya_isolate::{Bind, Exit, Mechanism};

use crate::support::{Room, python, spec};

/// Prints what it sees, a name and a value on each line.
const PROBE: &str = r#"
import os, socket
def show(name, value): print(name, value, sep="\t")
def attempt(name, action):
    try: show(name, "done:" + repr(action()))
    except OSError as error: show(name, error.errno and os.strerror(error.errno) or repr(error))
status = dict(line.rstrip("\n").split(":\t", 1) for line in open("/proc/self/status"))
for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"): show(key, status[key].strip())
show("pid", os.getpid())
show("processes", ",".join(sorted(name for name in os.listdir("/proc") if name.isdigit())))
show("interfaces", ",".join(name for _, name in socket.if_nameindex()))
show("ids", (os.getuid(), os.geteuid(), os.getgid(), os.getegid(), os.getresuid()[2]))
show("groups", os.getgroups())
listed = [int(name) for name in os.listdir("/proc/self/fd")]
still = []
for fd in listed:
    try: os.fstat(fd); still.append(fd)
    except OSError: pass
show("fds", sorted(still))
show("environment", open("/proc/self/environ").read().split("\0")[:-1])
show("directory", os.getcwd())
show("hostname", socket.gethostname())
show("root", ",".join(sorted(os.listdir("/"))))
show("dev", ",".join(sorted(os.listdir("/dev"))))
show("session", os.getsid(0))
for path in ("/usr/x", "/etc/x", "/x", "/dev/x", "/proc/x", "/usr/bin/x"):
    attempt("create " + path, lambda: open(path, "w"))
for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/vm/overcommit_memory", "/proc/sysrq-trigger", "/proc/self/oom_score_adj", "/etc/passwd"):
    attempt("write " + path, lambda: open(path, "w").write("1"))
for path in ("/root", "/home", "/sys", "/var", "/run", "/boot", "/etc/shadow", "/etc/ssl/private", "/proc/1/root/root", "/proc/self/root/home"):
    attempt("see " + path, lambda: os.stat(path) and None)
for path in ("/proc/keys", "/proc/kallsyms", "/proc/timer_list", "/proc/cmdline", "/proc/interrupts"):
    attempt("read " + path, lambda: open(path).read())
attempt("chmod /dev/null", lambda: os.chmod("/dev/null", 0o777))
attempt("null", lambda: open("/dev/null", "w").write("x"))
attempt("random", lambda: len(open("/dev/urandom", "rb").read(8)))
attempt("shm", lambda: open("/dev/shm/x", "w").write("x"))
attempt("tmp", lambda: open("/tmp/x", "w").write("x"))
attempt("chown", lambda: os.chown("/tmp/x", 0, 0))
attempt("unmount", lambda: os.rmdir("/proc"))
"#;

#[test]
fn a_sandbox_sees_itself_alone() {
    let mut room = Room::new();
    println!("{}", room.native.protections());
    let mut probe = python(PROBE);
    probe.environment.push(("GREETING".into(), "hello world".into()));
    let ran = room.run(&probe);
    let seen = ran.answers();
    let is = |name: &str, value: &str| assert_eq!(seen.get(name).map(String::as_str), Some(value), "{name}\n{seen:#?}");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        is(set, "0000000000000000");
    }
    is("NoNewPrivs", "1");
    is("Seccomp", "2");
    is("pid", "1");
    is("processes", "1");
    is("interfaces", "lo");
    is("ids", "(1000, 1000, 1000, 1000, 1000)");
    if room.enforces("supplementary groups dropped") {
        is("groups", "[]");
    }
    is("fds", "[0, 1, 2, 3, 4, 5]");
    is("environment", "['PATH=/usr/bin:/bin', 'HOME=/tmp', 'GREETING=hello world']");
    is("directory", "/tmp");
    is("hostname", "sandbox");
    is("session", "1");
    is("dev", "fd,full,null,random,shm,stderr,stdin,stdout,urandom,zero");
    let root = seen.get("root").expect("the root was listed");
    let known = ["bin", "dev", "etc", "function", "lib", "lib32", "lib64", "libx32", "proc", "sbin", "tmp", "usr"];
    assert!(root.split(',').all(|name| known.contains(&name)), "{root}");
}

#[test]
fn the_system_is_read_only_and_the_hosts_files_are_absent() {
    let seen = Room::new().python(PROBE).answers();
    let is = |name: &str, values: &[&str]| {
        let value = seen.get(name).map_or("", String::as_str);
        assert!(values.contains(&value), "{name}: {value:?}");
    };
    const READ_ONLY: &str = "Read-only file system";
    const DENIED: &str = "Permission denied";
    const ABSENT: &str = "No such file or directory";
    for path in ["/usr/x", "/etc/x", "/x", "/dev/x", "/usr/bin/x"] {
        is(&format!("create {path}"), &[READ_ONLY, DENIED]);
    }
    is("create /proc/x", &[READ_ONLY, DENIED, ABSENT]);
    for path in ["/proc/sys/kernel/core_pattern", "/proc/sys/vm/overcommit_memory", "/proc/self/oom_score_adj"] {
        is(&format!("write {path}"), &[READ_ONLY, DENIED]);
    }
    // Written, but to /dev/null, if the host has it at all.
    is("write /proc/sysrq-trigger", &["done:1", READ_ONLY, DENIED, ABSENT]);
    is("write /etc/passwd", &[READ_ONLY, DENIED]);
    for path in
        ["/root", "/home", "/sys", "/var", "/run", "/boot", "/etc/shadow", "/proc/1/root/root", "/proc/self/root/home"]
    {
        is(&format!("see {path}"), &[ABSENT]);
    }
    is("see /etc/ssl/private", &[ABSENT]);
    for path in ["/proc/keys", "/proc/kallsyms", "/proc/timer_list", "/proc/cmdline", "/proc/interrupts"] {
        is(&format!("read {path}"), &["done:''", ABSENT]);
    }
    is("chmod /dev/null", &[READ_ONLY, "Operation not permitted"]);
    is("null", &["done:1"]);
    is("random", &["done:8"]);
    is("shm", &["done:1"]);
    is("tmp", &["done:1"]);
    is("chown", &["Operation not permitted", "Invalid argument"]);
    is("unmount", &[READ_ONLY, DENIED, "Device or resource busy"]);
}

#[test]
fn tmp_is_private_and_bounded() {
    let mut room = Room::new();
    let fill = r#"
import errno, os
written = 0
try:
    with open("/tmp/fill", "wb", buffering=0) as file:
        while True: written += file.write(b"x" * 65536)
except OSError as error: print("bytes", error.errno == errno.ENOSPC and written)
os.remove("/tmp/fill")
made = 0
try:
    while True:
        open("/tmp/%d" % made, "w").close(); made += 1
except OSError as error: print("inodes", error.errno == errno.ENOSPC and made)
"#;
    let seen = room.python(fill).answers();
    let number = |name: &str| seen.get(name).and_then(|value| value.parse::<u64>().ok()).unwrap_or(0);
    assert!((4 << 20..=8 << 20).contains(&number("bytes")), "{seen:?}");
    assert!((100..=2048).contains(&number("inodes")), "{seen:?}");
    let next = room.python("import os; print('entries', os.listdir('/tmp'))").answers();
    assert_eq!(next.get("entries").map(String::as_str), Some("[]"), "another sandbox's files");
}

#[test]
fn the_hosts_loopback_is_another_one() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("its address").port();
    let program = format!(
        r#"
import socket
try: socket.create_connection(("127.0.0.1", {port})); print("host reached")
except ConnectionRefusedError: print("host refused")
try: socket.create_connection(("169.254.169.254", 80), 1); print("metadata reached")
except OSError as error: print("metadata", error.errno)
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname()); print("own works")
name = socket.socket(socket.AF_UNIX)
try: name.connect("\0vilya-isolate-test-{port}"); print("abstract reached")
except ConnectionRefusedError: print("abstract refused")
"#
    );
    let name = SocketAddr::from_abstract_name(format!("vilya-isolate-test-{port}")).expect("a name");
    let _abstract = std::os::unix::net::UnixListener::bind_addr(&name).expect("an abstract listener");
    let seen = Room::new().python(&program).answers();
    let is = |name: &str, value: String| assert_eq!(seen.get(name), Some(&value));
    is("host", "refused".into());
    is("metadata", libc::ENETUNREACH.to_string());
    is("own", "works".into());
    is("abstract", "refused".into());
}

#[test]
fn binds_are_read_only_or_not_as_asked() {
    let mut room = Room::new();
    let source = tempfile::tempdir().expect("a directory");
    fs::set_permissions(source.path(), fs::Permissions::from_mode(0o777)).expect("its mode");
    fs::write(source.path().join("code"), "text").expect("a file");
    let bind = |target: &str, read_only| Bind { source: source.path().into(), target: target.into(), read_only };
    let mut probe = python(
        r#"
print("code", open("/function/code").read())
try: open("/function/new", "w"); print("read-only no")
except OSError as error: print("read-only", error.errno)
open("/deep/down/data/new", "w").write("x"); print("writable yes")
"#,
    );
    probe.binds = vec![bind("/function", true), bind("/deep/down/data", false)];
    probe.working_directory = "/function".into();
    let seen = room.run(&probe).answers();
    assert_eq!(seen.get("code").map(String::as_str), Some("text"));
    assert_eq!(seen.get("read-only"), Some(&libc::EROFS.to_string()));
    assert_eq!(seen.get("writable").map(String::as_str), Some("yes"));
}

#[test]
fn root_binds_what_lies_below_a_private_directory() {
    let mut room = Room::new();
    if !room.is_root() {
        println!("not enforced here: an ordinary user binds what it can reach itself");
        return;
    }
    let private = tempfile::tempdir().expect("a directory");
    let inner = private.path().join("code");
    fs::create_dir(&inner).expect("a directory");
    fs::set_permissions(private.path(), fs::Permissions::from_mode(0o700)).expect("its mode");
    fs::write(inner.join("file"), "reached").expect("a file");
    let mut probe = spec(&["/usr/bin/cat", "/function/file"]);
    probe.binds = vec![Bind { source: inner, target: "/function".into(), read_only: true }];
    let ran = room.run(&probe);
    assert_eq!((ran.stdout.as_str(), ran.ended.exit), ("reached", Exit::Code(0)));
}

#[test]
fn cores_are_given() {
    let mut room = Room::new();
    let mut probe = python("import os; print('cores', sorted(os.sched_getaffinity(0)))");
    probe.cores = vec![0];
    assert_eq!(room.run(&probe).answers().get("cores").map(String::as_str), Some("[0]"));
}
