//! A plan as the engine's request for a container, and the image that it is made from.
//!
//! Owns: the words of the engine's API. Invariant: what the native mechanism mounts, hides, limits and drops, this does too, from the same
//! plan, as far as an engine can be told. Does not know: how the request is sent.

use std::ffi::CString;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::handover;
use crate::mechanism::layout::{Layout, Shown};
use crate::plan::INSIDE_ID;
use crate::resolve;
use crate::seccomp;
use crate::spec::{ResourceLimits, Root, Spec};

/// The label that tells whose a container is.
pub(super) const LABEL: &str = "vilya.worker";

/// What one sandbox is given besides its spec.
pub(super) struct Given<'a> {
    pub(super) layout: &'a Layout,
    pub(super) spec: &'a Spec,
    pub(super) worker_id: &'a str,
    pub(super) image: &'a str,
    /// Host user and group.
    pub(super) user: u32,
    /// The sandbox's own directory on the host.
    pub(super) directory: &'a Path,
}

/// The directory below a sandbox's own that is shown at [`handover::INSIDE`].
pub(super) fn shown(directory: &Path) -> PathBuf {
    directory.join("launch")
}

/// An image of the system's links and of empty directories, and its name, which follows from what is in it.
pub(super) fn image(layout: &Layout) -> io::Result<(String, Vec<u8>)> {
    let mut archive = tar::Builder::new(Vec::new());
    let header = |kind, mode| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(0);
        header
    };
    // runc gives a tmpfs the mode of the directory below it, whatever its options say.
    let directories =
        [("usr", 0o755), ("etc", 0o755), ("tmp", 0o1777), ("proc", 0o755), ("dev", 0o755), ("sys", 0o755)];
    let is_link = |name: &str| layout.links.iter().any(|link| link.path == name);
    for (directory, mode) in directories.into_iter().filter(|(name, _)| !is_link(name)) {
        archive.append_data(&mut header(tar::EntryType::Directory, mode), directory, io::empty())?;
    }
    for link in &layout.links {
        archive.append_link(&mut header(tar::EntryType::Symlink, 0o777), &link.path, &link.to)?;
    }
    let bytes = archive.into_inner()?;
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    Ok((format!("vilya-system:{:016x}", hasher.finish()), bytes))
}

/// Writes the files that a sandbox has of its own, to be shown one by one: the engine puts some of its own there otherwise.
pub(super) fn write_files(given: &Given<'_>) -> io::Result<()> {
    for (path, text) in own_files(given) {
        let text = text.map_or_else(|| user_file(given, &path), Ok)?;
        fs::write(host_file(given.directory, &path), text)?;
    }
    Ok(())
}

/// Paths, and what is in those files unless it is the image's with another user.
fn own_files(given: &Given<'_>) -> Vec<(String, Option<Vec<u8>>)> {
    let files = given.layout.files.iter().map(|(path, text)| (path.clone(), Some(named(given, text))));
    let mut files: Vec<_> = files.collect();
    if matches!(given.spec.root, Root::Image(_)) {
        files.extend(["etc/passwd", "etc/group", "etc/hosts"].map(|path| (path.to_owned(), None)));
    }
    files.push(("etc/hostname".into(), Some(format!("{}\n", given.spec.hostname).into_bytes())));
    files.push(("etc/resolv.conf".into(), Some(Vec::new())));
    files
}

/// One of the files of an image that were put there when it was unpacked: the engine would put its own there, or knows another user.
fn user_file(given: &Given<'_>, path: &str) -> io::Result<Vec<u8>> {
    let Root::Image(image) = &given.spec.root else { return Ok(Vec::new()) };
    let path = CString::new(image.directory.join(path).into_os_string().into_encoded_bytes())?;
    // The image's own directories are under the name, so it is opened without following any of them.
    let place = resolve::file_without_links(&path)?;
    let text = fs::read(format!("/proc/self/fd/{}", place.as_raw_fd()))?;
    Ok(named(given, &text))
}

/// An engine maps no users for one container alone, so the sandbox sees the host's id.
fn named(given: &Given<'_>, text: &[u8]) -> Vec<u8> {
    let (user, inside) = (given.user, INSIDE_ID);
    let text = String::from_utf8_lossy(text);
    let text = text.replace(&format!(":{inside}:{inside}:"), &format!(":{user}:{user}:"));
    text.replace(&format!(":{inside}:\n"), &format!(":{user}:\n")).into_bytes()
}

fn host_file(directory: &Path, path: &str) -> PathBuf {
    directory.join(path.replace('/', "-"))
}

/// The body of `POST /containers/create`.
pub(super) fn container(given: &Given<'_>) -> Value {
    let Given { spec, user, .. } = given;
    let mut command = vec![spec.command.len().to_string()];
    command.extend(spec.command.iter().cloned());
    command.push(String::new());
    command.extend(spec.environment.iter().map(|(name, value)| format!("{name}={value}")));
    json!({
        "Image": given.image,
        "Entrypoint": [handover::program()],
        "Cmd": command,
        "WorkingDir": spec.working_directory,
        "User": format!("{user}:{user}"),
        "Hostname": spec.hostname,
        "Labels": { LABEL: given.worker_id },
        "HostConfig": host(given),
    })
}

fn host(given: &Given<'_>) -> Value {
    let Given { layout, spec, .. } = given;
    let ResourceLimits { memory_bytes, cpu_millis, processes, tmp_bytes, .. } = spec.limits;
    let security = ["no-new-privileges".to_owned(), format!("seccomp={}", seccomp::profile())];
    let limits: Vec<Value> = layout
        .limits
        .iter()
        .map(|(name, value)| json!({ "Name": name.to_ascii_lowercase(), "Soft": value, "Hard": value }))
        .collect();
    let mut masked: Vec<String> = layout.masked.iter().map(|path| format!("/{path}")).collect();
    // The engine mounts these whether they are wanted or not.
    masked.extend(["/sys".into(), "/dev/mqueue".into()]);
    let mut host = json!({
        "NetworkMode": "none",
        "IpcMode": "private",
        "PidMode": "",
        "CgroupnsMode": "private",
        "UsernsMode": "host",
        "ReadonlyRootfs": true,
        "CapDrop": ["ALL"],
        "SecurityOpt": security,
        "MaskedPaths": masked,
        "ReadonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        "Memory": memory_bytes,
        "MemorySwap": memory_bytes,
        "PidsLimit": processes,
        "ShmSize": tmp_bytes,
        "Ulimits": limits,
        "OomScoreAdj": 500,
        "LogConfig": { "Type": "none" },
        "RestartPolicy": { "Name": "no" },
        "Tmpfs": private(layout),
        "Mounts": mounts(given),
    });
    if let Some(millis) = cpu_millis {
        host["NanoCpus"] = json!(u64::from(millis) * 1_000_000);
    }
    if !spec.cores.is_empty() {
        let cores: Vec<String> = spec.cores.iter().map(usize::to_string).collect();
        host["CpusetCpus"] = json!(cores.join(","));
    }
    host
}

/// `/dev/shm` is the engine's own; its size is given apart.
fn private(layout: &Layout) -> Value {
    let others = layout.private.iter().filter(|private| private.path != "dev/shm");
    let entry = |private: &crate::mechanism::layout::Private| {
        let executable = if private.executable { "exec" } else { "noexec" };
        (format!("/{}", private.path), json!(format!("nosuid,nodev,{executable},{}", private.options)))
    };
    Value::Object(others.map(entry).collect::<Map<String, Value>>())
}

fn mounts(given: &Given<'_>) -> Vec<Value> {
    let bind = |source: &str, target: String, read_only: bool| {
        json!({
            "Type": "bind", "Source": source, "Target": target, "ReadOnly": read_only,
            // An engine cannot be told to make the mounts below read-only, so they are not shown.
            "BindOptions": { "Propagation": "rprivate", "NonRecursive": true },
        })
    };
    let own = own_files(given);
    let files =
        own.iter().map(|(path, _)| bind(&host_file(given.directory, path).to_string_lossy(), format!("/{path}"), true));
    let shown_by_spec = given
        .layout
        .binds
        .iter()
        .map(|Shown { source, path, read_only, .. }| bind(source, format!("/{path}"), *read_only));
    let launch = bind(&shown(given.directory).to_string_lossy(), handover::INSIDE.to_owned(), true);
    shown_by_spec.chain(files).chain([launch]).collect()
}
