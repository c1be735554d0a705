//! A plan as an OCI bundle: a root of empty directories and a `config.json`.
//!
//! Owns: the words of the runtime specification. Invariant: what the native mechanism mounts, hides, limits and drops, this does too, from
//! the same plan. Does not know: which program runs it.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use serde_json::{Value, json};

use crate::limits::{USER_FIRST, USERS};
use crate::mechanism::layout::{Layout, Private, Shown};
use crate::plan::INSIDE_ID;
use crate::seccomp;
use crate::spec::{ResourceLimits, Spec};

/// What one sandbox is given besides its spec.
pub(super) struct Given<'a> {
    pub(super) layout: &'a Layout,
    pub(super) spec: &'a Spec,
    /// Host user and group.
    pub(super) user: u32,
    /// Absolute, within each hierarchy.
    pub(super) groups: &'a str,
    /// Whether the host's hierarchies are of version 2.
    pub(super) unified: bool,
}

/// The host's id of the root of every container's user namespace: behind those of sandboxes, and nobody runs with it.
const ROOT_OUTSIDE: u32 = USER_FIRST + USERS;

/// Writes the bundle into an empty directory.
pub(super) fn write(directory: &Path, given: &Given<'_>) -> io::Result<()> {
    root(&directory.join("rootfs"), given.layout)?;
    fs::write(directory.join("config.json"), config(given).to_string())
}

/// What the mounts are mounted on, and the few files and links that a root has of its own.
fn root(root: &Path, layout: &Layout) -> io::Result<()> {
    fs::create_dir(root)?;
    for path in &layout.directories {
        fs::create_dir_all(root.join(path))?;
    }
    for link in &layout.links {
        symlink(&link.to, root.join(&link.path))?;
    }
    for (path, text) in &layout.files {
        fs::write(root.join(path), text)?;
    }
    for Shown { path, directory, .. } in &layout.binds {
        let path = root.join(path);
        if *directory { fs::create_dir_all(path)? } else { fs::write(path, "")? }
    }
    layout.private.iter().try_for_each(|private| {
        let path = root.join(&private.path);
        fs::create_dir_all(&path)?;
        // runc gives a tmpfs the mode of the directory below it, whatever its options say.
        fs::set_permissions(path, Permissions::from_mode(0o1777))
    })
}

fn config(given: &Given<'_>) -> Value {
    let Given { layout, spec, .. } = given;
    let environment: Vec<String> = spec.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let limits: Vec<Value> = layout
        .limits
        .iter()
        .map(|(name, value)| json!({ "type": format!("RLIMIT_{name}"), "soft": value, "hard": value }))
        .collect();
    let none: [&str; 0] = [];
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": INSIDE_ID, "gid": INSIDE_ID, "umask": layout.umask, "additionalGids": none },
            "args": spec.command,
            "env": environment,
            "cwd": spec.working_directory,
            "capabilities": {
                "bounding": none, "effective": none, "inheritable": none, "permitted": none, "ambient": none,
            },
            "rlimits": limits,
            "noNewPrivileges": true,
            "oomScoreAdj": 500,
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": spec.hostname,
        "mounts": mounts(layout),
        "linux": linux(given),
    })
}

fn mounts(layout: &Layout) -> Vec<Value> {
    let mut mounts = vec![
        json!({ "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev", "ro"] }),
        json!({
            "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=64k"],
        }),
    ];
    mounts.extend(layout.private.iter().map(|Private { path, options, executable }| {
        let flags = ["nosuid", "nodev"].into_iter().chain((!executable).then_some("noexec"));
        let options: Vec<&str> = flags.chain(options.split(',')).collect();
        json!({ "destination": format!("/{path}"), "type": "tmpfs", "source": "tmpfs", "options": options })
    }));
    mounts.extend(layout.binds.iter().map(|shown| {
        let Shown { source, path, .. } = shown;
        json!({ "destination": format!("/{path}"), "type": "bind", "source": source, "options": bind_options(shown) })
    }));
    mounts
}

/// With the mounts below a directory, and the flags on those as well. Nothing can be mounted below a file, and crun takes a bind with
/// recursive flags for one of a directory.
fn bind_options(shown: &Shown) -> Vec<&'static str> {
    let mut options = vec!["rprivate", "nosuid", "nodev"];
    options.push(if shown.directory { "rbind" } else { "bind" });
    if shown.directory {
        options.extend(["rnosuid", "rnodev"]);
    }
    if shown.read_only {
        options.push("ro");
        options.extend(shown.directory.then_some("rro"));
    }
    options
}

fn linux(given: &Given<'_>) -> Value {
    let namespaces = ["pid", "network", "ipc", "uts", "mount", "user", "cgroup"].map(|kind| json!({ "type": kind }));
    let ids = json!([
        { "containerID": 0, "hostID": ROOT_OUTSIDE, "size": 1 },
        { "containerID": INSIDE_ID, "hostID": given.user, "size": 1 },
    ]);
    let masked: Vec<String> = given.layout.masked.iter().map(|path| format!("/{path}")).collect();
    json!({
        "namespaces": namespaces,
        "uidMappings": ids,
        "gidMappings": ids,
        "cgroupsPath": given.groups,
        "resources": resources(given),
        "maskedPaths": masked,
        "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        "rootfsPropagation": "private",
        "seccomp": seccomp::profile(),
    })
}

fn resources(given: &Given<'_>) -> Value {
    const PERIOD_US: u64 = 100_000;
    let ResourceLimits { memory_bytes, cpu_millis, processes, .. } = given.spec.limits;
    let mut memory = json!({ "limit": memory_bytes, "swap": memory_bytes });
    if !given.unified {
        memory["swappiness"] = json!(0);
        memory["kernelTCP"] = json!(memory_bytes);
    }
    let mut cpu = json!({});
    if let Some(millis) = cpu_millis {
        cpu = json!({ "period": PERIOD_US, "quota": u64::from(millis) * PERIOD_US / 1000 });
    }
    if !given.spec.cores.is_empty() {
        let cores: Vec<String> = given.spec.cores.iter().map(usize::to_string).collect();
        cpu["cpus"] = json!(cores.join(","));
    }
    let mut resources = json!({ "memory": memory, "cpu": cpu, "pids": { "limit": processes } });
    if given.unified {
        resources["unified"] = json!({ "memory.oom.group": "1" });
    }
    resources
}
