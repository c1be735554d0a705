//! Control groups: one for each sandbox, `vilya/<worker>/<sandbox>` in every hierarchy that limits something, and in that of version 2, which
//! freezes; in a hierarchy of version 1 for the processor alone `vilya.<worker>.<sandbox>`, for the reason in `precedence.rs`.
//!
//! Owns: making, reading and removing groups. Invariant: a group that was made is removed, by its [`Group`] or by the next sweep, and only
//! after everything in it is dead. Does not know: what runs in a group.
//!
//! Written here rather than with the `cgroups-rs` crate (0.5): a group of that crate owns its hierarchy (the mounts, under version 1) and a
//! value for every controller of the host; it writes by path, looks for version 2 in one place only, and gives no descriptor for birth
//! inside a group (`CLONE_INTO_CGROUP`). A start here is a `mkdir` and a handful of writes below directories that stay open.

mod detect;
mod foreign;
mod freeze;
mod precedence;
mod settings;
mod survey;
mod switch;
mod switches;
mod usage;

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use self::switch::Switch;
use crate::host::GroupFacts;
use crate::limits::{REMOVAL_PATIENCE, REMOVAL_PAUSE};
use crate::spec::ResourceLimits;
use crate::sys;

pub(crate) use detect::{as_prefix, bases, detect};
pub(crate) use freeze::GroupFreezer;
pub use precedence::Precedence;
pub(crate) use survey::survey;
pub use usage::MemoryUsage;

pub(crate) use foreign::{Enrolment, MemoryEvents, is_unified, remove_empty, unified_besides, withdraw};
pub(crate) use switches::Switches;
pub use switches::container_freezer;

/// Which control groups to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CgroupPreference {
    /// Version 2 where it has the controllers, else version 1, else none.
    #[default]
    Auto,
    /// Version 2 or none.
    V2,
    /// Version 1 or none.
    V1,
    /// None: resource limits only.
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    One,
    Two,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Controller {
    Memory,
    Processes,
    Cpu,
}

impl Controller {
    pub(crate) const ALL: [Controller; 3] = [Controller::Memory, Controller::Processes, Controller::Cpu];

    /// The kernel's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Controller::Memory => "memory",
            Controller::Processes => "pids",
            Controller::Cpu => "cpu",
        }
    }
}

/// The worker's directory in one hierarchy.
#[derive(Debug)]
struct Hierarchy {
    version: Version,
    directory: OwnedFd,
    path: PathBuf,
    /// What the names of groups begin with, where the directory is not the worker's alone.
    prefix: String,
    controllers: Vec<Controller>,
}

impl Hierarchy {
    /// What a sandbox's group is called.
    fn name_of(&self, sandbox: &CStr) -> CString {
        let name = [self.prefix.as_bytes(), sandbox.to_bytes()].concat();
        CString::new(name).expect("neither part has a NUL byte")
    }

    /// Where the groups are: with a prefix, the beginning of their paths.
    fn base(&self) -> PathBuf {
        if self.prefix.is_empty() { self.path.clone() } else { self.path.join(&self.prefix) }
    }
}

/// Where this worker's groups are.
#[derive(Debug)]
pub(crate) struct Groups {
    /// Of those that limit.
    version: Version,
    hierarchies: Vec<Hierarchy>,
    /// Which of them freezes, or why none does.
    freezer: Result<usize, String>,
    /// In which of them sandboxes can give way to others, or why in none.
    precedence: Result<usize, String>,
}

impl Drop for Groups {
    /// A worker that ends in order leaves no directories; one with groups still in it stays for the next sweep.
    fn drop(&mut self) {
        for hierarchy in self.hierarchies.iter().filter(|hierarchy| hierarchy.prefix.is_empty()) {
            let _ = std::fs::remove_dir(&hierarchy.path);
        }
    }
}

/// A step towards a group failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} the control group {path}: {source}")]
pub struct GroupError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Groups {
    pub(crate) fn facts(&self) -> GroupFacts {
        GroupFacts {
            memory: self.limits(Controller::Memory),
            processes: self.limits(Controller::Processes),
            cpu: self.limits(Controller::Cpu),
            joins: self.version == Version::One,
        }
    }

    fn limits(&self, controller: Controller) -> bool {
        self.hierarchies.iter().any(|hierarchy| hierarchy.controllers.contains(&controller))
    }

    /// Where a controller's groups are, for people.
    pub(crate) fn place(&self, controller: Controller) -> Option<String> {
        let hierarchy = self.hierarchies.iter().find(|hierarchy| hierarchy.controllers.contains(&controller))?;
        let version = if self.version == Version::One { "v1" } else { "v2" };
        Some(format!("cgroup {version}, {}", hierarchy.base().display()))
    }

    /// Whether sandboxes can be frozen, and where; or why not.
    pub(crate) fn freezes(&self) -> Result<String, &str> {
        self.freezer.as_ref().map(|&at| self.hierarchies[at].path.display().to_string()).map_err(String::as_str)
    }

    /// Whether sandboxes can give way to others, and where; or why not.
    pub(crate) fn gives_precedence(&self) -> Result<String, &str> {
        self.precedence.as_ref().map(|&at| self.hierarchies[at].base().display().to_string()).map_err(String::as_str)
    }

    /// The worker's directories, and the beginnings of paths that are only its groups'.
    pub(crate) fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.hierarchies.iter().map(Hierarchy::base)
    }

    /// Makes the group of one sandbox, with its limits set. What was made is removed again if a later part fails.
    pub(crate) fn create(self: &Arc<Groups>, name: &str, limits: &ResourceLimits) -> Result<Group, GroupError> {
        let name = CString::new(name).expect("names were checked: a to z, 0 to 9, '-'");
        let mut group = Group { groups: Arc::clone(self), name, parts: 0 };
        match self.hierarchies.iter().try_for_each(|hierarchy| group.extend_to(hierarchy, limits)) {
            Ok(()) => Ok(group),
            Err(error) => {
                group.remove();
                Err(error)
            }
        }
    }
}

/// The group of one sandbox.
#[derive(Debug)]
pub(crate) struct Group {
    groups: Arc<Groups>,
    name: CString,
    /// In how many hierarchies it was made, in their order. Its files are reached by name from the worker's directories, which are open:
    /// a descriptor of its own in each would be the most that an idle sandbox costs.
    parts: usize,
}

impl Group {
    fn extend_to(&mut self, hierarchy: &Hierarchy, limits: &ResourceLimits) -> Result<(), GroupError> {
        let name = &self.name;
        let failed = |action| {
            let path = hierarchy.path.join(&*hierarchy.name_of(name).to_string_lossy());
            move |source| GroupError { action, path, source }
        };
        sys::make_directory_at(hierarchy.directory.as_fd(), &hierarchy.name_of(name)).map_err(failed("make"))?;
        self.parts += 1;
        for controller in &hierarchy.controllers {
            for setting in settings::settings(hierarchy.version, *controller, limits) {
                match self.write(hierarchy, setting.file, &setting.value) {
                    Err(error) if setting.optional && error.kind() == io::ErrorKind::NotFound => {}
                    result => result.map_err(failed("limit"))?,
                }
            }
        }
        Ok(())
    }

    /// The hierarchies that it is in.
    fn hierarchies(&self) -> impl Iterator<Item = &Hierarchy> {
        self.groups.hierarchies.iter().take(self.parts)
    }

    /// Those of one version.
    fn hierarchies_of(&self, version: Version) -> impl Iterator<Item = &Hierarchy> {
        self.hierarchies().filter(move |hierarchy| hierarchy.version == version)
    }

    /// The path of one of its files from the worker's directory in a hierarchy.
    fn file(&self, hierarchy: &Hierarchy, file: &CStr) -> CString {
        let path = [hierarchy.prefix.as_bytes(), self.name.as_bytes(), b"/", file.to_bytes()].concat();
        CString::new(path).expect("neither part has a NUL byte")
    }

    fn write(&self, hierarchy: &Hierarchy, file: &CStr, value: &str) -> io::Result<()> {
        write_at(hierarchy.directory.as_fd(), &self.file(hierarchy, file), value)
    }

    fn read(&self, hierarchy: &Hierarchy, file: &CStr) -> io::Result<String> {
        read_at(hierarchy.directory.as_fd(), &self.file(hierarchy, file))
    }

    /// The directory that the child is born in, under version 2.
    pub(crate) fn birthplace(&self) -> io::Result<Option<OwnedFd>> {
        let open = |hierarchy: &Hierarchy| {
            sys::open_at(
                hierarchy.directory.as_fd(),
                &hierarchy.name_of(&self.name),
                libc::O_RDONLY | libc::O_DIRECTORY,
            )
        };
        self.hierarchies_of(Version::Two).next().map(open).transpose()
    }

    /// What freezes it, where something does.
    pub(crate) fn freezer(&self) -> Option<GroupFreezer> {
        let switch = self.switch(&self.groups.freezer, freeze::FILE)?;
        Some(GroupFreezer { version: Version::Two, switch })
    }

    /// What has it give way to others, where something does.
    pub(crate) fn precedence(&self) -> Option<Precedence> {
        self.switch(&self.groups.precedence, precedence::FILE).map(Precedence)
    }

    fn switch(&self, place: &Result<usize, String>, file: &CStr) -> Option<Switch> {
        let at = *place.as_ref().ok()?;
        (at < self.parts).then(|| Switch::new(&self.groups, at, self.file(&self.groups.hierarchies[at], file)))
    }

    /// The files that the child writes itself into, under version 1; lifted above its own descriptors. They are `tasks` and not
    /// `cgroup.procs`, which for a child of one thread is the same but waits until no thread of the host is being made: milliseconds.
    pub(crate) fn entrances(&self) -> io::Result<Vec<OwnedFd>> {
        let open = |hierarchy: &Hierarchy| {
            let tasks = self.file(hierarchy, c"tasks");
            sys::open_at(hierarchy.directory.as_fd(), &tasks, libc::O_WRONLY)
        };
        self.hierarchies_of(Version::One).map(|hierarchy| open(hierarchy).and_then(sys::lift)).collect()
    }

    /// Kills everything in it at once where the kernel can (version 2); version 1 leaves it to the pid namespace.
    pub(crate) fn kill(&self) {
        for hierarchy in self.hierarchies_of(Version::Two) {
            // Absent before Linux 5.14; the caller kills the first process of the pid namespace as well.
            let _ = self.write(hierarchy, c"cgroup.kill", "1");
        }
    }

    /// Changes its memory limit. It must hold next to nothing yet.
    pub(crate) fn limit_memory(&self, limits: &ResourceLimits) -> io::Result<()> {
        let limited = |hierarchy: &&Hierarchy| hierarchy.controllers.contains(&Controller::Memory);
        for hierarchy in self.hierarchies().filter(limited) {
            let mut written = settings::settings(hierarchy.version, Controller::Memory, limits);
            written.retain(|setting| settings::depends_on_memory(setting.file));
            // Version 1 keeps the limit with swap above the one without: which comes first depends on the direction.
            let raised = self.memory_limit(hierarchy).is_none_or(|now| now < limits.memory_bytes);
            if raised {
                written.reverse();
            }
            for setting in written {
                match self.write(hierarchy, setting.file, &setting.value) {
                    Err(error) if setting.optional && error.kind() == io::ErrorKind::NotFound => {}
                    result => result?,
                }
            }
        }
        Ok(())
    }

    /// The memory limit in bytes; none if it has none.
    fn memory_limit(&self, hierarchy: &Hierarchy) -> Option<u64> {
        self.read(hierarchy, settings::memory_limit_file(hierarchy.version)).ok()?.trim().parse().ok()
    }

    /// Whether the kernel killed a process in it for memory.
    pub(crate) fn ran_out_of_memory(&self) -> bool {
        let file = settings::kill_count_file(self.groups.version);
        self.hierarchies().any(|hierarchy| self.read(hierarchy, file).is_ok_and(|text| settings::kill_count(&text) > 0))
    }

    /// Removes it everywhere; what cannot be removed is left to the next sweep and returned.
    pub(crate) fn remove(self) -> Vec<PathBuf> {
        let mut left = Vec::new();
        for hierarchy in self.hierarchies() {
            let name = hierarchy.name_of(&self.name);
            if empty_and_remove(hierarchy.directory.as_fd(), &name).is_err() {
                left.push(hierarchy.path.join(&*name.to_string_lossy()));
            }
        }
        left
    }
}

/// Kills what is in a group and removes it, for a bounded time. A group that does not exist counts as removed.
pub(crate) fn empty_and_remove(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    let deadline = Instant::now() + REMOVAL_PATIENCE;
    loop {
        match sys::remove_directory_at(parent, name) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.raw_os_error() != Some(libc::EBUSY) || Instant::now() >= deadline => {
                return Err(error);
            }
            Err(_) => {}
        }
        if let Ok(group) = sys::open_at(parent, name, libc::O_RDONLY | libc::O_DIRECTORY) {
            kill_members(group.as_fd());
        }
        std::thread::sleep(REMOVAL_PAUSE);
    }
}

/// Kills every process of a group. Best effort: the caller looks again.
fn kill_members(group: BorrowedFd<'_>) {
    if write_at(group, c"cgroup.kill", "1").is_ok() {
        return;
    }
    let own = std::process::id();
    for pid in members(group).into_iter().filter(|pid| *pid != own) {
        let Some(pidfd) = i32::try_from(pid).ok().and_then(|pid| sys::pidfd_open(pid).ok()) else {
            continue;
        };
        // The number may have been given to another process in between; what is still a member now is what the pidfd names.
        if members(group).contains(&pid) {
            let _ = sys::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
        }
    }
}

/// Process ids in a group; 0 stands for one of a pid namespace that cannot be seen from here.
fn members(group: BorrowedFd<'_>) -> Vec<u32> {
    let text = read_at(group, c"cgroup.procs").unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid != 0).collect()
}

/// One write, as control group files demand.
fn write_at(directory: BorrowedFd<'_>, file: &CStr, value: &str) -> io::Result<()> {
    File::from(sys::open_at(directory, file, libc::O_WRONLY)?).write_all(value.as_bytes())
}

fn read_at(directory: BorrowedFd<'_>, file: &CStr) -> io::Result<String> {
    let mut text = String::new();
    File::from(sys::open_at(directory, file, libc::O_RDONLY)?).read_to_string(&mut text)?;
    Ok(text)
}
