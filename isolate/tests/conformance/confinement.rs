//! What a program cannot see and cannot do.

use std::net::TcpListener;

use vilya_isolate::Exit;

use crate::support::{Ran, each, python};

fn json(ran: &Ran) -> serde_json::Value {
    assert_eq!(ran.ended.exit, Exit::Code(0), "the probe failed: {ran:?}");
    serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{ran:?}"))
}

const FILES: &str = r#"
import json, os, sys
def write(path):
    try: open(path, "w").close(); return "written"
    except OSError as error: return error.errno
def listing(path):
    try: return os.listdir(path)
    except OSError: return []
status = {line.partition(":")[0]: line.partition(":")[2].strip() for line in open("/proc/self/status")}
print(json.dumps({
    "system": [write(path) for path in ("/probe", "/usr/probe", "/etc/probe", "/usr/bin/env", "/proc/sys/kernel/hostname", "/dev/probe")],
    "tmp": write("/tmp/probe"), "shm": write("/dev/shm/probe"),
    "marker": os.path.exists(sys.argv[1]), "shadow": os.path.exists("/etc/shadow"), "home": os.path.exists("/root"), "sys": listing("/sys"),
    "processes": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
    "hidden": [name for name in ("kcore", "keys", "kallsyms", "timer_list") if os.path.exists("/proc/" + name) and open("/proc/" + name, "rb").read(1)],
    "status": {key: status[key] for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")},
    "groups": os.getgroups(), "uid": os.getuid(), "mine": os.stat("/tmp/probe").st_uid == os.getuid(),
}))
"#;

#[test]
fn the_system_is_read_only_and_what_is_private_is_private() {
    each(|room| {
        // In the host's /tmp; the sandbox has another.
        let marker = tempfile::NamedTempFile::new().expect("a file");
        let mut spec = python(FILES);
        spec.command.push(marker.path().to_string_lossy().into_owned());
        let seen = json(&room.run(&spec));
        for refused in seen["system"].as_array().expect("a list") {
            let errno = refused.as_i64().unwrap_or_else(|| panic!("{seen}")) as i32;
            assert!([libc::EROFS, libc::EACCES, libc::EPERM, libc::ENOENT].contains(&errno), "{seen}");
        }
        assert_eq!((&seen["tmp"], &seen["shm"], &seen["mine"]), (&"written".into(), &"written".into(), &true.into()));
        for absent in ["marker", "shadow", "home"] {
            assert_eq!(seen[absent], false, "{absent}: {seen}");
        }
        assert_eq!((&seen["sys"], &seen["hidden"]), (&serde_json::json!([]), &serde_json::json!([])), "{seen}");
        assert_eq!(seen["processes"], serde_json::json!([1]), "only itself");
        let status = &seen["status"];
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(status[set], "0000000000000000", "{set}");
        }
        assert_eq!((&status["NoNewPrivs"], &status["Seccomp"]), (&"1".into(), &"2".into()));
        assert_ne!(seen["uid"], 0);
        if room.enforces("supplementary groups dropped") {
            assert!(
                seen["groups"].as_array().is_some_and(|groups| groups.iter().all(|id| *id == seen["uid"])),
                "{seen}"
            );
        }
    });
}

/// Numbers are those of x86-64. Above 32 bits, arguments are rubbish that the kernel does not read.
const CALLS: &str = r#"
import ctypes, json, os
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_ulong(argument) for argument in arguments])
    return "allowed" if result >= 0 else ctypes.get_errno()
junk = 0xdead << 32
fd = os.open("/tmp/file", os.O_RDWR | os.O_CREAT)
print(json.dumps({
    "mount": call(165, 0, 0, 0, 0, 0), "unshare user": call(272, 0x10000000), "unshare nothing": call(272, 0), "setns": call(308, 0, 0),
    "ptrace": call(101, 0, 0, 0, 0), "bpf": call(321, 0, 0, 0), "io_uring": call(425, 8, 0), "keyctl": call(250, 0, 0), "perf": call(298, 0, 0, 0, 0, 0),
    "userfaultfd": call(323, 0), "chroot": call(161, 0), "pivot_root": call(155, 0, 0), "setuid": call(105, 0), "personality": call(135, 0xffffffff),
    "parent death": call(157, 1, 0), "lease": call(72, fd, 1024, 0), "lease with rubbish": call(72, fd, junk | 1024, 0), "notify": call(72, fd, junk | 1026, 0),
    "vsock": call(41, 40, 1, 0), "raw": call(41, 2, 3, 0), "packet": call(41, 17, 3, 0), "mergeable": call(28, 0, 0, junk | 12),
    "attach filter": call(54, 0, 1, 26, 0, 0), "attach with rubbish": call(54, 0, junk | 1, junk | 26, 0, 0), "huge pages": call(9, 0, 4096, 3, 0x40022, junk, 0),
    "core limit": call(160, 4, 0), "core limit by prlimit": call(302, 0, junk | 4, 1, 0),
    "clone3": call(435, 0, 0), "futex_waitv": call(449, 0, 0, 0, 0, 0),
    "getfl": call(72, fd, 3), "duplicate": call(72, fd, 0, 100), "tcp": call(41, 2, 1, 0), "udp": call(41, 2, 2, 17), "keepalive": call(54, 999, 1, 9, 0, 0),
    "read a limit": call(302, 0, 4, 0, 0), "membarrier": call(324, 0, 0, 0), "name": call(157, 15, ctypes.addressof(ctypes.create_string_buffer(b"x" * 16))),
}))
"#;

#[cfg(target_arch = "x86_64")]
#[test]
fn system_calls_are_those_of_the_list() {
    each(|room| {
        let answers = json(&room.python(CALLS));
        // What the list allows; EBADF is the kernel's own answer, so the call went through.
        let allowed = ["getfl", "duplicate", "tcp", "udp", "read a limit", "membarrier", "name"];
        for (name, answer) in answers.as_object().expect("an object") {
            let expected: serde_json::Value = match name.as_str() {
                "clone3" | "futex_waitv" => libc::ENOSYS.into(),
                "keepalive" => libc::EBADF.into(),
                name if allowed.contains(&name) => "allowed".into(),
                _ => libc::EPERM.into(),
            };
            assert_eq!(*answer, expected, "{name} on {:?}", room.kind);
        }
    });
}

#[test]
fn there_is_no_network_but_a_loopback_of_its_own() {
    each(|room| {
        let outside = TcpListener::bind("127.0.0.1:0").expect("a port");
        let program = r#"
import json, socket, sys
def connect(address):
    try: socket.create_connection(address, 5).close(); return "connected"
    except OSError as error: return error.errno
server = socket.create_server(("127.0.0.1", 0))
print(json.dumps([
    [name for _, name in socket.if_nameindex()], connect(server.getsockname()), connect(("127.0.0.1", int(sys.argv[1]))), connect(("192.0.2.1", 80)),
]))
"#;
        let mut spec = python(program);
        spec.command.push(outside.local_addr().expect("its address").port().to_string());
        let expected = serde_json::json!([["lo"], "connected", libc::ECONNREFUSED, libc::ENETUNREACH]);
        assert_eq!(json(&room.run(&spec)), expected);
    });
}

/// As the host sees it: no two share a user, and none is the worker's where a mechanism says so.
#[test]
fn each_sandbox_is_a_user_of_its_own_where_that_is_said() {
    each(|room| {
        let mut of = || {
            let mut running =
                room.start(&python("print('up', flush=True); import time; time.sleep(1000)")).expect("it starts");
            assert_eq!(running.line(), "up");
            let status = std::fs::read_to_string(format!("/proc/{}/status", running.started.pid)).expect("it runs");
            let ids = status.lines().find_map(|line| line.strip_prefix("Uid:")).expect("its user").to_owned();
            (running, ids)
        };
        let ((first, one), (second, other)) = (of(), of());
        for running in [first, second] {
            running.started.remains.kill();
            assert_eq!(running.finish().ended.exit, Exit::Signal(libc::SIGKILL));
        }
        if room.mechanism.distinct_users() {
            assert_ne!(one, other);
            assert!(!one.split_whitespace().any(|id| id == "0"), "{one}");
        }
    });
}
