//! What there is to harm outside of a sandbox, and whether it was harmed.
//!
//! Owns: a process, a file, a function's folder, listeners and settings to be attacked. Invariant: two looks are equal unless somebody
//! reached one of them.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::groups;
use crate::support::{PYTHON, unique};

/// By which a mount, a host name or a file of an attempt would be known.
const MARK: &str = "vilya-escape";
const SETTINGS: [&str; 9] = [
    "kernel/core_pattern",
    "kernel/modprobe",
    "kernel/sysrq",
    "kernel/hostname",
    "kernel/randomize_va_space",
    "kernel/panic",
    "vm/overcommit_memory",
    "net/ipv4/ip_forward",
    "user/max_user_namespaces",
];

/// What is seen of the host in one look.
pub(super) type Look = BTreeMap<String, String>;

pub(super) struct Host {
    victim: Child,
    /// Stands for a neighbour where there is no other sandbox.
    other: Child,
    place: TempDir,
    function: TempDir,
    port: TcpListener,
    socket: UnixListener,
    named: UnixListener,
    name: String,
    /// Where a neighbour that conspires waits.
    meeting: String,
    /// What attempts are told besides.
    told: Map<String, Value>,
}

impl Host {
    pub(super) fn new(told: &Map<String, Value>) -> Host {
        let (place, function) = (open_to_all(), open_to_all());
        fs::write(place.path().join("canary"), "whole").expect("a file");
        mode(&place.path().join("canary"), 0o666);
        lay_out_function(function.path(), &place.path().join("canary"));
        lay_out_privileges(function.path());
        let socket = UnixListener::bind(place.path().join("socket")).expect("a socket");
        mode(&place.path().join("socket"), 0o777);
        let name = unique("vilya-escape-test");
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let named = UnixListener::bind_addr(&address).expect("a name of its own");
        let port = TcpListener::bind("127.0.0.1:0").expect("a port");
        for listener in [&socket, &named] {
            listener.set_nonblocking(true).expect("it need not wait");
        }
        port.set_nonblocking(true).expect("it need not wait");
        let (meeting, told) = (unique("vilya-escape-meet"), told.clone());
        Host { victim: sleeper(), other: sleeper(), place, function, port, socket, named, name, meeting, told }
    }

    /// The folder of the function that attacks.
    pub(super) fn function(&self) -> &Path {
        self.function.path()
    }

    /// The name by which those who conspire meet.
    pub(super) fn meeting(&self) -> &str {
        &self.meeting
    }

    /// What an attempt is told of it; `function` is where the folder is for whoever asks.
    pub(super) fn facts(&self, function: &str, neighbour: Option<i32>) -> Value {
        let mut facts = json!({
            "victim": self.victim.id(),
            "neighbour": neighbour.map_or_else(|| self.other.id().into(), Value::from),
            "worker": std::process::id(),
            "canary": self.place.path().join("canary"),
            "socket": self.place.path().join("socket"),
            "function": function,
            "port": self.port.local_addr().expect("its address").port(),
            "name": self.name,
            "meet": self.meeting,
        });
        facts.as_object_mut().expect("an object").extend(self.told.clone());
        facts
    }

    pub(super) fn look(&mut self) -> Look {
        let mut look = Look::new();
        let settings = SETTINGS.into_iter().map(|name| (name, fs::read_to_string(Path::new("/proc/sys").join(name))));
        look.extend(settings.map(|(name, value)| (name.to_owned(), value.unwrap_or_default())));
        for (name, child) in [("victim", &mut self.victim), ("other", &mut self.other)] {
            let lives = child.try_wait().expect("our child").is_none();
            look.insert(name.to_owned(), if lives { process(child.id()) } else { "dead".to_owned() });
        }
        look.insert("worker".to_owned(), process(std::process::id()));
        for place in [&self.place, &self.function] {
            let entries = fs::read_dir(place.path()).expect("a folder").map(|entry| entry.expect("an entry").path());
            // Where a neighbour waits outside.
            for entry in entries.filter(|entry| !entry.ends_with(&self.meeting)) {
                look.insert(entry.display().to_string(), file(&entry));
            }
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
        look.insert("mounts".to_owned(), mounts.lines().filter(|line| line.contains(MARK)).collect());
        let reached = usize::from(self.port.accept().is_ok())
            + usize::from(self.socket.accept().is_ok())
            + usize::from(self.named.accept().is_ok());
        look.insert("connections".to_owned(), reached.to_string());
        look
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for child in [&mut self.victim, &mut self.other] {
            // One that an attempt killed is only waited for.
            let _ = child.kill();
            let _ = child.wait();
        }
        for place in ["/tmp", "/dev/shm"] {
            for suffix in ["", "-datagrams"] {
                // There is one only where one conspired outside.
                let _ = fs::remove_file(Path::new(place).join(format!("{}{suffix}", self.meeting)));
            }
        }
    }
}

/// A process that stands idle, of the same user as this one.
fn sleeper() -> Child {
    Command::new("/bin/sleep").arg("1000").stdin(Stdio::null()).spawn().expect("every host has sleep")
}

fn open_to_all() -> TempDir {
    let place = tempfile::tempdir().expect("a folder");
    mode(place.path(), 0o777);
    place
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("its mode");
}

/// With everything that a bundle should not hold; the device is the kernel's log, which anybody may write to who can open it. Only root can make a device; elsewhere there is none to be opened.
fn lay_out_function(function: &Path, canary: &Path) {
    fs::write(function.join("code"), "code").expect("a file");
    mode(&function.join("code"), 0o666);
    symlink(canary, function.join("link")).expect("a link");
    let made = Command::new("mknod").args(["-m", "666"]).arg(function.join("device")).args(["c", "1", "11"]).output();
    if !made.expect("mknod is a standard tool").status.success() {
        println!("not tried here: a device in a function's folder, which only root can make");
    }
}

/// Programs that would give privileges to who runs them. Only root can make them, and so only root has them tried.
fn lay_out_privileges(function: &Path) {
    let (id, capable) = (function.join("id"), function.join("capable"));
    fs::copy("/usr/bin/id", &id).expect("a copy");
    mode(&id, 0o6755);
    fs::copy("/usr/bin/cat", &capable).expect("a copy");
    mode(&capable, 0o755);
    // Version 2 of the kernel's struct, in effect from the start: CAP_NET_ADMIN (12).
    let give = "import os, struct, sys; os.setxattr(sys.argv[1], 'security.capability', struct.pack('<5I', 0x02000001, 1 << 12, 0, 0, 0))";
    let given = Command::new(PYTHON).args(["-I", "-c", give]).arg(&capable).output().expect("the tests need it");
    if !given.status.success() {
        println!("not tried here: capabilities of a file, which only root can give");
    }
}

/// What others can change about a process.
fn process(pid: u32) -> String {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let stat = read("stat");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // Priority, niceness; real-time priority and policy (proc(5), counted from the state).
    let scheduling: Vec<&str> = [15, 16, 37, 38].into_iter().filter_map(|field| fields.get(field).copied()).collect();
    let status = read("status");
    let kept = ["TracerPid:", "Uid:", "Cpus_allowed:", "SigPnd:"];
    let status: Vec<&str> = status.lines().filter(|line| kept.iter().any(|key| line.starts_with(key))).collect();
    format!("{scheduling:?} {status:?} {} {} {}", read("oom_score_adj"), read("limits"), read("cgroup"))
}

fn file(path: &Path) -> String {
    let about = fs::symlink_metadata(path).expect("it is there");
    let content = if about.is_file() { fs::read(path).expect("it can be read") } else { Vec::new() };
    // Programs are long.
    let beginning = String::from_utf8_lossy(&content[..content.len().min(64)]).into_owned();
    format!("{beginning} {} {:o} {} {} {}", content.len(), about.mode(), about.mtime(), about.uid(), about.nlink())
}

/// What must stay as it is of a sandbox while it attacks: its place among the groups and their limits, as the host sees them.
pub(super) fn sandbox(pid: i32) -> String {
    let limits = ["memory.max", "memory.limit_in_bytes", "pids.max", "cpu.max", "notify_on_release"];
    process(u32::try_from(pid).expect("a process id")) + &groups::files(pid, &limits).concat()
}
