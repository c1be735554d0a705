//! Who owns the namespaces of a sandbox: nobody inside; and the process that may enter them for an ordinary user's worker.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use vilya_isolate::{Begun, Bind, CopyOf, Mechanism};

use crate::prepared::{BECOME_COPY, copy, image_of};
use crate::support::{PYTHON, Room, Running, python, running};

/// Says of each namespace of a process which user namespace owns it, by the kernel's word (`NS_GET_USERNS`).
const OWNERS: &str = r#"
import fcntl, os, sys
def number(fd): return os.fstat(fd).st_ino
for kind in ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup"):
    fd = os.open(f"/proc/{sys.argv[1]}/ns/{kind}", os.O_RDONLY)
    print(kind, number(fd if kind == "user" else fcntl.ioctl(fd, 0xb701)))
"#;

fn owners(pid: i32) -> BTreeMap<String, String> {
    let output = Command::new(PYTHON).args(["-I", "-c", OWNERS, &pid.to_string()]).output().expect("python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().filter_map(|line| line.split_once(' ')).map(|(kind, owner)| (kind.into(), owner.into())).collect()
}

fn owns_nothing(running: Running) {
    let owners = owners(running.started.pid);
    assert_eq!(owners.len(), 7, "{owners:?}");
    let own = &owners["user"];
    let owned: Vec<_> = owners.iter().filter(|(kind, owner)| *kind != "user" && *owner == own).collect();
    assert!(owned.is_empty(), "its own user namespace owns {owned:?}");
    running.started.remains.kill();
    running.finish();
}

/// A capability that somebody came by inside would be one over nothing.
#[test]
fn no_namespace_belongs_to_the_sandbox() {
    let waits = python("import time; print('up', flush=True); time.sleep(1000)");
    let mut whole = Room::unprepared().start(&waits).expect("it starts");
    whole.line();
    owns_nothing(whole);
    let mut room = Room::new();
    assert!(room.native.wait_until_prepared(Duration::from_secs(20)));
    let prepared = room.start(&waits).expect("it starts");
    assert!(prepared.started.stages.prepared);
    owns_nothing(prepared);
    let image = image_of(&mut room, &format!("{BECOME_COPY}become_copy()\nimport time; time.sleep(1000)"));
    let image = image.expect("it can be copied");
    let copy = CopyOf { image: &image, tells_environment: false };
    let copied = running(|descriptors| room.native.begin(&waits, descriptors, Some(copy)).and_then(Begun::finish));
    owns_nothing(copied.expect("a copy"));
}

/// It never executed one. The worker's own would be its to change where both are one user, whatever its mounts say.
#[test]
fn a_copy_shows_a_program_of_the_system_as_its_own() {
    let mut room = Room::new();
    let probe = "become_copy()
def tried(name, action):
    try: print(name, action() or 'done')
    except OSError as error: print(name, error.errno)
tried('link', lambda: os.readlink('/proc/self/exe'))
tried('file', lambda: os.path.samefile('/proc/self/exe', '/usr/bin/true'))
tried('mode', lambda: os.chmod('/proc/self/exe', 0o777))
tried('times', lambda: os.utime('/proc/self/exe', (1, 1)))
print('stack', open('/proc/self/stat').read().rsplit(')', 1)[1].split()[25])
print('auxv', set(open('/proc/self/auxv', 'rb').read()))
";
    let image = image_of(&mut room, &format!("{BECOME_COPY}{probe}")).expect("it can be copied");
    let seen = copy(&mut room, &image).expect("a copy").answers();
    assert_eq!((&*seen["link"], &*seen["file"]), ("/usr/bin/true", "True"), "{seen:?}");
    let refused = [libc::EROFS, libc::EPERM].map(|errno| errno.to_string());
    assert!(refused.contains(&seen["mode"]) && refused.contains(&seen["times"]), "{seen:?}");
    // Nothing of where the worker lies.
    assert_eq!((&*seen["stack"], &*seen["auxv"]), (&*0x1_0000.to_string(), "{0}"), "{seen:?}");
}

/// Children of this process with this name.
fn children(name: &str) -> Vec<i32> {
    let tasks = fs::read_dir("/proc/self/task").expect("our threads").flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let children: Vec<i32> =
        lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect();
    let is_named = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|it| it.trim() == name);
    children.into_iter().filter(is_named).collect()
}

const ROLE: &str = "VILYA_ISOLATE_TEST_PORTER";

fn with_folder(folder: PathBuf) -> vilya_isolate::Spec {
    let mut spec = python("print('word', open('/function/word').read())");
    spec.binds.push(Bind { source: folder, target: "/function".into(), read_only: true });
    spec
}

#[test]
fn without_its_porter_a_worker_makes_its_sandboxes_anew() {
    if std::env::var_os(ROLE).is_none() {
        // In a process of its own: it kills one of its children.
        let arguments = ["--exact", "owners::without_its_porter_a_worker_makes_its_sandboxes_anew", "--nocapture"];
        let own = std::env::current_exe().expect("this program");
        let output = Command::new(own).args(arguments).env(ROLE, "1").output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let mut room = Room::new();
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("word"), "found").expect("a file");
    let spec = with_folder(folder.path().into());
    assert!(room.native.wait_until_prepared(Duration::from_secs(20)));
    let porters = children("vilya-porter");
    assert_eq!(porters.len(), usize::from(!room.is_root()), "root needs none");
    let Some(porter) = porters.first() else { return };
    assert_eq!(room.run(&spec).answers()["word"], "found");
    kill(*porter);
    for _ in 0..4 {
        assert_eq!(room.run(&spec).answers()["word"], "found");
    }
    let after = children("vilya-porter");
    assert!(after.len() == 1 && after != porters, "another has taken its place: {after:?}");
    drop(room);
    // The thread that made them ends them a moment later.
    while !(children("vilya-porter").is_empty() && children("vilya-keeper").is_empty()) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What folders came after the porter began, it sees as well; so does a start that is refused one.
#[test]
fn a_folder_may_be_younger_than_the_sandbox() {
    let mut room = Room::new();
    assert!(room.native.wait_until_prepared(Duration::from_secs(20)));
    let folder = tempfile::tempdir().expect("a folder");
    let inner = folder.path().join("inner");
    let missing = room.start(&with_folder(inner.clone())).map(drop).expect_err("it is not there yet");
    assert!(missing.to_string().contains("the source must exist"), "{missing}");
    fs::create_dir(&inner).expect("a folder");
    fs::File::create(inner.join("word")).and_then(|mut file| file.write_all(b"late")).expect("a file");
    assert_eq!(room.run(&with_folder(inner.clone())).answers()["word"], "late");
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&inner, &link).expect("a link");
    let through = room.start(&with_folder(link)).map(drop).expect_err("through a link");
    assert!(through.to_string().contains("symbolic link"), "{through}");
    let file = room.start(&with_folder(inner.join("word"))).map(drop).expect_err("a file");
    assert!(file.to_string().contains("Not a directory"), "{file}");
}

fn kill(pid: i32) {
    let status = Command::new("/bin/kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status();
    assert!(status.is_ok_and(|status| status.success()));
    let is_dead = || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "));
    while !is_dead() {
        std::thread::sleep(Duration::from_millis(1));
    }
}
