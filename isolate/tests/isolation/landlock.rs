//! What Landlock refuses where a mount, a namespace or a user id would not: each test makes the hole that those would leave.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use vilya_isolate::{Bind, Protections};

use crate::support::{Room, Running, null, python, start_with};

/// A room in which these rules hold; `whole` says that signals and sockets must be among them.
fn room(whole: bool) -> Option<Room> {
    let room = Room::new();
    let interface = room.native.host().landlock;
    if interface == 0 || (whole && !room.enforces("landlock")) {
        println!("skipped: the kernel's interface of Landlock is {interface}");
        return None;
    }
    if !room.is_root() {
        println!("skipped: only root can make a hole in a sandbox from outside");
        return None;
    }
    Some(room)
}

/// Starts a program that says "up" and reads a line from descriptor 3 before it goes on.
fn waiting(room: &mut Room, program: &str) -> (Running, UnixStream) {
    let (tell, told) = UnixStream::pair().expect("a pair of sockets");
    let program = format!(
        "import os, signal, socket\nprint('up', flush=True)\nline = os.read(3, 100).decode().strip()\n{program}"
    );
    let spec = python(&program);
    let mut running = start_with(&mut room.native, &spec, [told.into(), null(), null()]).expect("it starts");
    assert_eq!(running.line(), "up");
    (running, tell)
}

/// A command of the host's root inside some namespaces of a sandbox.
fn entering(running: &Running, namespaces: &[&str], command: &[&str]) -> Command {
    let pid = running.started.pid;
    let mut entering = Command::new("nsenter");
    entering
        .args(namespaces.iter().map(|name| format!("--{name}=/proc/{pid}/ns/{}", &name[..3].replace("mou", "mnt"))));
    entering.args(command).stdin(Stdio::null());
    entering
}

/// One that is killed when dropped.
struct Outsider(Child);

impl Drop for Outsider {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A mount that is writable by mistake: made in the sandbox's own mount namespace, over the place of the function.
#[test]
fn a_writable_hole_cannot_be_written() {
    let Some(mut room) = room(false) else { return };
    let probe = r#"
def tried(name, action):
    try: action(); print(name, "done")
    except OSError as error: print(name, error.errno)
tried("read", lambda: print("word", open("/function/word").read()))
tried("list", lambda: os.listdir("/function"))
tried("run", lambda: os.posix_spawn("/function/run", ["run"], {}))
tried("write", lambda: open("/function/word", "a"))
tried("truncate", lambda: os.truncate("/function/word", 0))
tried("create", lambda: open("/function/new", "w"))
tried("directory", lambda: os.mkdir("/function/directory"))
tried("link", lambda: os.symlink("/", "/function/link"))
tried("remove", lambda: os.unlink("/function/word"))
tried("rename", lambda: os.rename("/function/word", "/function/other"))
tried("relink", lambda: (open("/tmp/word", "w").close(), os.link("/tmp/word", "/tmp/again")))
tried("socket", lambda: socket.socket(socket.AF_UNIX).bind("/function/socket"))
tried("own", lambda: (open("/tmp/a", "w").close(), os.mkdir("/tmp/d"), os.rename("/tmp/a", "/tmp/d/a"), open("/dev/shm/a", "w").close(),
    open("/dev/null", "w").write("x"), socket.socket(socket.AF_UNIX).bind("/tmp/socket"), os.unlink("/tmp/d/a"), os.symlink("/", "/tmp/link")))
"#;
    let (running, mut tell) = waiting(&mut room, probe);
    let hole = "mount -t tmpfs -o mode=777 hole /function && cd /function && echo -n open > word && cp /bin/true run && chmod 777 *";
    let made = entering(&running, &["mount"], &["/bin/sh", "-c", hole]).status().expect("nsenter is a standard tool");
    assert!(made.success());
    tell.write_all(b"go\n").expect("told");
    let seen = running.finish().answers();
    for name in ["read", "list", "run", "relink", "own"] {
        assert!(seen[name].ends_with("done"), "{name}: {seen:?}");
    }
    assert_eq!(seen["word"], "open");
    for name in ["write", "truncate", "create", "directory", "link", "remove", "rename", "socket"] {
        assert_eq!(seen[name], libc::EACCES.to_string(), "{name}: {seen:?}");
    }
}

/// A directory of the host that got inside as a descriptor, which no mount namespace keeps from being walked: nothing below it opens.
#[test]
fn below_a_directory_of_the_host_nothing_opens() {
    let room = Room::unprepared();
    if room.native.host().landlock == 0 {
        println!("skipped: this kernel has no Landlock");
        return;
    }
    for mut room in [room, Room::new()] {
        let probe = r#"
import os
def tried(name, action):
    try: action(); print(name, "done")
    except OSError as error: print(name, error.errno)
tried("list", lambda: os.open("etc", os.O_RDONLY | os.O_DIRECTORY, dir_fd=3))
tried("read", lambda: os.open("etc/passwd", os.O_RDONLY, dir_fd=3))
tried("write", lambda: os.open("tmp/vilya-isolate-test-hole", os.O_WRONLY | os.O_CREAT, dir_fd=3))
tried("run", lambda: os.execve(os.open("usr/bin/true", os.O_PATH, dir_fd=3), ["true"], {}))
"#;
        let host = File::open("/").expect("the host's root");
        let ran =
            start_with(&mut room.native, &python(probe), [host.into(), null(), null()]).expect("it starts").finish();
        let seen = ran.answers();
        for name in ["list", "read", "write", "run"] {
            assert_eq!(seen[name], libc::EACCES.to_string(), "{name}: {seen:?}");
        }
    }
}

/// A process of the same user in the same pid namespace, and a socket in the same network, both from outside.
#[test]
fn signals_and_abstract_sockets_stay_within() {
    let Some(mut room) = room(true) else { return };
    let probe = r#"
def tried(name, action):
    try: action(); print(name, "done")
    except OSError as error: print(name, error.errno)
tried("signal", lambda: os.kill(int(line), 0))
tried("socket", lambda: socket.socket(socket.AF_UNIX).connect("\0outside"))
def own():
    server = socket.socket(socket.AF_UNIX); server.bind("\0inside"); server.listen()
    socket.socket(socket.AF_UNIX).connect("\0inside")
    child = os.fork()
    if child == 0: signal.pause()
    os.kill(child, signal.SIGKILL); os.waitpid(child, 0)
tried("own", own)
"#;
    let (running, mut tell) = waiting(&mut room, probe);
    let listens = "import os, socket, sys\ns = socket.socket(socket.AF_UNIX); s.bind('\\0outside'); s.listen(); os.write(1, b'x'); os.read(0, 1)";
    let mut command = entering(&running, &["net"], &["/usr/bin/python3", "-I", "-c", listens]);
    let mut listener = Outsider(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("nsenter"));
    listener.0.stdout.take().expect("its output").read_exact(&mut [0]).expect("it listens");

    // Its number inside is what it says; its user is the sandbox's.
    let user = owner(running.started.pid);
    let ids = [format!("--reuid={user}"), format!("--regid={user}")];
    let says = "import os; os.write(1, b'%d\\n' % os.getpid()); os.read(0, 1)";
    let mut command = entering(
        &running,
        &["pid"],
        &["setpriv", &ids[0], &ids[1], "--clear-groups", "/usr/bin/python3", "-I", "-c", says],
    );
    let mut process = Outsider(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("nsenter"));
    let mut number = Vec::new();
    let mut output = process.0.stdout.take().expect("its output");
    let mut byte = [0];
    while output.read(&mut byte).expect("its number") == 1 && byte[0] != b'\n' {
        number.push(byte[0]);
    }
    tell.write_all(&number).and_then(|()| tell.write_all(b"\n")).expect("told");
    let seen = running.finish().answers();
    assert_eq!(seen["signal"], libc::EPERM.to_string(), "{seen:?}");
    assert_eq!(seen["socket"], libc::EPERM.to_string(), "{seen:?}");
    assert_eq!(seen["own"], "done", "{seen:?}");
}

fn owner(pid: i32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:")).expect("its user");
    ids.split_whitespace().next().expect("the real one").to_owned()
}

/// A bind that may be written is not served by a sandbox that was made without a rule for it.
#[test]
fn a_writable_bind_at_the_place_of_a_function_is_written() {
    let mut room = Room::new();
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("its mode");
    let mut spec = python("open('/function/new', 'w').write('x'); print('written yes')");
    spec.binds = vec![Bind { source: folder.path().into(), target: "/function".into(), read_only: false }];
    assert_eq!(room.run(&spec).answers()["written"], "yes");
}

#[test]
fn what_is_in_force_is_said() {
    let room = Room::unprepared();
    let protections: &Protections = vilya_isolate::Mechanism::protections(&room.native);
    let landlock = protections.iter().find(|protection| protection.name == "landlock").expect("it is listed");
    assert_eq!(landlock.in_force, room.native.host().landlock >= 6);
    assert!(!landlock.detail.is_empty());
}
