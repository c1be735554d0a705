//! The steps that build the file system of a sandbox.
//!
//! Owns: what a sandbox sees below `/`. Invariant: everything is read-only but `/tmp`, `/dev/shm` and binds that ask for writing; nothing
//! of the host is visible that is not listed here or in the spec. There is no `/sys` and no control group file system. Does not know:
//! credentials.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStrExt;

use super::{INSIDE_ID, Milestone, Step, text};
use crate::host::{Host, Privilege, SystemEntry};
use crate::limits::{ROOT_BYTES, ROOT_INODES, TMP_INODES};
use crate::reach::Reach;
use crate::spec::{ImageRoot, Root, Spec};

pub(crate) const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
pub(crate) const WRITABLE: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
/// Read-only keeps the node as it is; a device can be written all the same.
const DEVICE: u64 = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;

const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];
const DEVICE_LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "dev/fd"),
    ("/proc/self/fd/0", "dev/stdin"),
    ("/proc/self/fd/1", "dev/stdout"),
    ("/proc/self/fd/2", "dev/stderr"),
];

/// What a maker's children have in common: everything that does not depend on who looks, and a place for each thing that does.
pub(super) fn shared_steps(steps: &mut Vec<Step>, template: &Spec, host: &Host, mount_points: &[&str]) {
    open_root(steps, host);
    match &template.root {
        Root::System => {
            system(steps, host);
            etc(steps, template, host);
        }
        Root::Image(image) => image_root(steps, image),
    }
    device_files(steps);
    match host.privilege {
        Privilege::Root => steps.push(Step::Directory(text("proc"))),
        Privilege::User { .. } => steps.push(bind("/proc", "proc", READ_ONLY)),
    }
    steps.push(Step::Directory(text("tmp")));
    binds(steps, template);
    steps.extend(mount_points.iter().map(|name| Step::Directory(text(name.trim_start_matches('/')))));
    steps.extend([Step::EnterRoot, Step::SealRoot, Step::Reached(Milestone::Mounted)]);
}

/// What each child of a maker adds to the root that it was born with.
pub(super) fn own_steps(steps: &mut Vec<Step>, template: &Spec, host: &Host) {
    steps.push(private("dev/shm", libc::MS_NOEXEC, template.limits.tmp_bytes));
    match host.privilege {
        Privilege::Root => steps.push(Step::Proc { target: text("proc") }),
        Privilege::User { .. } => steps.push(Step::ReplaceProc { target: text("proc"), by: text("tmp") }),
    }
    masks(steps, host);
    steps.push(private("tmp", 0, template.limits.tmp_bytes));
    steps.extend([Step::EmptyInput, Step::Reached(Milestone::Mounted)]);
}

pub(super) fn steps(steps: &mut Vec<Step>, spec: &Spec, host: &Host) {
    open_root(steps, host);
    match &spec.root {
        Root::System => {
            system(steps, host);
            etc(steps, spec, host);
        }
        Root::Image(image) => {
            image_root(steps, image);
            names_in_image(steps, spec);
        }
    }
    device_files(steps);
    steps.push(private("dev/shm", libc::MS_NOEXEC, spec.limits.tmp_bytes));
    steps.push(Step::Directory(text("proc")));
    steps.push(Step::Proc { target: text("proc") });
    masks(steps, host);
    steps.push(Step::Directory(text("tmp")));
    steps.push(private("tmp", 0, spec.limits.tmp_bytes));
    binds(steps, spec);
    steps.extend([Step::EnterRoot, Step::SealRoot, Step::EmptyInput, Step::Reached(Milestone::Mounted)]);
}

fn open_root(steps: &mut Vec<Step>, host: &Host) {
    let staging = text(host.staging.as_os_str().as_bytes());
    steps.extend([
        Step::PrivateMounts,
        Step::Tmpfs {
            target: staging.clone(),
            flags: libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC,
            options: text(format!("size={ROOT_BYTES},nr_inodes={ROOT_INODES},mode=755")),
        },
        Step::Enter(staging),
    ]);
}

fn bind(source: impl AsRef<[u8]>, target: &str, attributes: u64) -> Step {
    Step::Bind { source: text(source), target: text(target), attributes, follow: true }
}

fn system(steps: &mut Vec<Step>, host: &Host) {
    steps.push(bind("/usr", "usr", READ_ONLY));
    steps.extend(host.system.iter().map(|entry| match entry {
        SystemEntry::Directory { name } => bind(format!("/{name}"), name, READ_ONLY),
        SystemEntry::Link { name, target } => Step::Link { to: text(target), path: text(name) },
    }));
}

fn etc(steps: &mut Vec<Step>, spec: &Spec, host: &Host) {
    let made = [
        (
            "etc/passwd",
            format!(
                "root:x:0:0:root:/:/usr/sbin/nologin\nfunction:x:{INSIDE_ID}:{INSIDE_ID}:function:/tmp:/bin/sh\n\
                 nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
            ),
        ),
        ("etc/group", format!("root:x:0:\nfunction:x:{INSIDE_ID}:\nnogroup:x:65534:\n")),
        ("etc/hosts", format!("127.0.0.1 localhost {}\n::1 localhost\n", spec.hostname)),
    ];
    let made = made.into_iter().chain(names(&spec.reach));
    let targets: Vec<String> = host.etc.iter().map(|name| format!("etc/{name}")).collect();
    steps.push(Step::Directory(text("etc")));
    steps.extend(made.map(|(path, text_of)| Step::File { path: text(path), text: text_of.into_bytes() }));
    steps.extend(parents(targets.iter().map(String::as_str)).into_iter().filter(|path| path != "etc").map(directory));
    steps.extend(targets.iter().map(|target| bind(format!("/{target}"), target, READ_ONLY)));
}

/// The files by which names are looked for.
fn names(reach: &Reach) -> Vec<(&'static str, String)> {
    let (ways, nameservers) = match reach {
        Reach::Egress { nameservers } => ("files dns", Some(nameservers)),
        Reach::Nothing | Reach::HostLoopback { .. } => ("files", None),
    };
    let listed = |list: &Vec<Ipv4Addr>| list.iter().map(|address| format!("nameserver {address}\n")).collect();
    let ways = ("etc/nsswitch.conf", format!("passwd: files\ngroup: files\nhosts: {ways}\n"));
    [ways].into_iter().chain(nameservers.map(|list| ("etc/resolv.conf", listed(list)))).collect()
}

/// What an image's own files say is that nobody asks a network for names.
fn names_in_image(steps: &mut Vec<Step>, spec: &Spec) {
    if let Reach::Egress { .. } = spec.reach {
        steps.extend(
            names(&spec.reach)
                .into_iter()
                .map(|(path, content)| Step::Replacement { path: text(path), text: content.into_bytes() }),
        );
    }
}

/// The image's directories on a root of ours, so that no place of ours is looked for through a link of the image's.
fn image_root(steps: &mut Vec<Step>, image: &ImageRoot) {
    steps.extend(image.directories.iter().map(|name| {
        let source = image.directory.join(name);
        Step::Bind {
            source: text(source.as_os_str().as_bytes()),
            target: text(name.as_str()),
            attributes: READ_ONLY,
            follow: false,
        }
    }));
    steps.extend(image.links.iter().map(|(name, to)| Step::Link { to: text(to.as_str()), path: text(name.as_str()) }));
}

fn device_files(steps: &mut Vec<Step>) {
    steps.push(Step::Directory(text("dev")));
    steps.extend(DEVICES.map(|name| bind(format!("/dev/{name}"), &format!("dev/{name}"), DEVICE)));
    steps.extend(DEVICE_LINKS.map(|(to, path)| Step::Link { to: text(to), path: text(path) }));
    steps.push(Step::Directory(text("dev/shm")));
}

fn masks(steps: &mut Vec<Step>, host: &Host) {
    steps.extend(host.masked_files.iter().map(|name| Step::Mask(text(format!("proc/{name}")))));
    steps.extend(host.masked_directories.iter().map(|name| Step::Tmpfs {
        target: text(format!("proc/{name}")),
        flags: libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC,
        options: text("size=4096,nr_inodes=2,mode=555"),
    }));
}

fn binds(steps: &mut Vec<Step>, spec: &Spec) {
    let inside = |target: &str| target.trim_start_matches('/').to_owned();
    let targets: Vec<String> = spec.binds.iter().map(|bind| inside(&bind.target)).collect();
    steps.extend(parents(targets.iter().map(String::as_str)).into_iter().map(directory));
    steps.extend(spec.binds.iter().zip(&targets).map(|(bind, target)| Step::Bind {
        source: text(bind.source.as_os_str().as_bytes()),
        target: text(target),
        attributes: if bind.read_only { READ_ONLY } else { WRITABLE },
        follow: false,
    }));
}

/// Where a sandbox is meant to write.
pub(super) fn writable(spec: &Spec) -> impl Iterator<Item = CString> {
    let own = ["/dev/shm", "/tmp"].into_iter();
    own.chain(spec.binds.iter().filter(|bind| !bind.read_only).map(|bind| bind.target.as_str())).map(text)
}

/// A tmpfs that anyone inside may write.
fn private(target: &str, more_flags: libc::c_ulong, size_bytes: u64) -> Step {
    let inodes = (size_bytes / 4096).clamp(*TMP_INODES.start(), *TMP_INODES.end());
    Step::Tmpfs {
        target: text(target),
        flags: libc::MS_NOSUID | libc::MS_NODEV | more_flags,
        options: text(format!("size={size_bytes},nr_inodes={inodes},mode=1777")),
    }
}

fn directory(path: String) -> Step {
    Step::Directory(text(path))
}

/// Every directory above these paths, once, outermost first.
fn parents<'a>(paths: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    paths.flat_map(|path| path.match_indices('/').map(|(end, _)| path[..end].to_owned())).collect()
}
