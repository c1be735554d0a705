//! Finding the control group hierarchies of a host, and the worker's place in them.
//!
//! Owns: reading `/proc/self/mountinfo` and `/proc/self/cgroup`, and making `vilya/<worker>`. Invariant: reading is pure; nothing outside
//! that directory is changed, but for switching controllers on along the way down to it (version 2) and moving the worker into a leaf of
//! a group that was delegated to it. Does not know: sandboxes.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::freeze;
use super::precedence;
use super::{CgroupPreference, Controller, Groups, Hierarchy, Version};
use crate::sys;

/// The directory that holds every worker's directory.
const FAMILY: &str = "vilya";
/// The leaf that a worker moves into: a group with members of its own may not have limited children.
const WORKER_LEAF: &str = "vilya-worker";

/// A mounted hierarchy and this process's group in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mounted {
    pub(super) version: Version,
    pub(super) point: PathBuf,
    /// Controllers of interest (version 1; version 2 says them in a file).
    pub(super) controllers: Vec<Controller>,
    /// This process's group, as a path below `point`.
    pub(super) own: PathBuf,
}

/// Finds the hierarchies to use. `Err` says why there are none.
pub(crate) fn detect(preference: CgroupPreference, worker: &str) -> Result<Groups, String> {
    if preference == CgroupPreference::Off {
        return Err("control groups are switched off; allow them in the configuration".into());
    }
    let mounted = mounted()?;
    let mut why_not = Vec::new();
    if preference != CgroupPreference::V1 {
        let found = mounted.iter().find(|mounted| mounted.version == Version::Two);
        let found = found.ok_or_else(|| "no cgroup2 is mounted".to_owned());
        // Looked at before anything is made: on a host that uses version 1, version 2 is there without controllers.
        let useful = found.and_then(|mounted| {
            let useful = preference == CgroupPreference::V2 || !available(&mounted.point).is_empty();
            useful.then_some(mounted).ok_or_else(|| "cgroup2 has none of memory, pids and cpu here".to_owned())
        });
        match useful.and_then(|mounted| version_two(mounted, worker)) {
            Ok(hierarchy) if preference == CgroupPreference::V2 || !hierarchy.controllers.is_empty() => {
                let freezer = freeze::try_on(hierarchy.directory.as_fd()).map(|()| 0);
                let hierarchies = vec![hierarchy];
                let precedence = precedence_in(&hierarchies);
                return Ok(Groups { version: Version::Two, hierarchies, freezer, precedence });
            }
            Ok(_) => why_not.push("none of memory, pids and cpu is delegated to the worker's cgroup2 group".to_owned()),
            Err(reason) => why_not.push(reason),
        }
    }
    if preference != CgroupPreference::V2 {
        match version_one(&mounted, worker) {
            Ok(mut hierarchies) => {
                let unified =
                    mounted.iter().find(|it| it.version == Version::Two && preference == CgroupPreference::Auto);
                let freezer = besides(unified, worker).map(|hierarchy| {
                    hierarchies.push(hierarchy);
                    hierarchies.len() - 1
                });
                let precedence = precedence_in(&hierarchies);
                return Ok(Groups { version: Version::One, hierarchies, freezer, precedence });
            }
            Err(reason) => why_not.push(reason),
        }
    }
    Err(why_not.join("; "))
}

/// A hierarchy of version 2 that freezes what those of version 1 limit.
fn besides(unified: Option<&Mounted>, worker: &str) -> Result<Hierarchy, String> {
    let mounted = unified.ok_or("no cgroup2 is mounted besides version 1")?;
    let hierarchy = version_two(mounted, worker)?;
    freeze::try_on(hierarchy.directory.as_fd())?;
    Ok(Hierarchy { controllers: Vec::new(), ..hierarchy })
}

/// The hierarchy in which sandboxes can give way to others.
fn precedence_in(hierarchies: &[Hierarchy]) -> Result<usize, String> {
    let limits = |hierarchy: &Hierarchy| hierarchy.controllers.contains(&Controller::Cpu);
    let at = hierarchies.iter().position(limits).ok_or("no control group of the cpu controller is there")?;
    if !hierarchies[at].prefix.is_empty() {
        // Tried before.
        return Ok(at);
    }
    precedence::try_on(hierarchies[at].directory.as_fd()).map(|()| at)
}

/// What the groups of a worker begin with where they are not in a directory of its own. No worker's id has a dot.
fn prefix(worker: &str) -> String {
    format!("{FAMILY}.{worker}.")
}

/// A path that is the beginning of groups' paths: the directory they are in, and what their names begin with.
pub(crate) fn as_prefix(base: &Path) -> Option<(&Path, &str)> {
    let name = base.file_name()?.to_str()?;
    let is_prefix = name.strip_prefix(FAMILY)?.starts_with('.') && name.ends_with('.');
    is_prefix.then_some((base.parent()?, name))
}

/// Every directory in which groups of this worker may have been left, used now or not, and every prefix that they may have.
pub(crate) fn bases(worker: &str) -> Vec<PathBuf> {
    let Ok(mounted) = mounted() else {
        return Vec::new();
    };
    let mut bases: Vec<PathBuf> = mounted
        .iter()
        .flat_map(|mounted| {
            let own = mounted.point.join(&mounted.own);
            let above = own.parent().filter(|above| above.starts_with(&mounted.point)).map(Path::to_owned);
            [Some(mounted.point.clone()), Some(own), above]
        })
        .flatten()
        .flat_map(|place| {
            let nested = place.join(FAMILY).join(worker);
            [nested.is_dir().then_some(nested), Some(place.join(prefix(worker)))]
        })
        .flatten()
        .collect();
    bases.sort();
    bases.dedup();
    bases
}

pub(super) fn mounted() -> Result<Vec<Mounted>, String> {
    let read = |path| fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"));
    Ok(parse(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?))
}

/// Where hierarchies of any kind are mounted.
pub(super) fn points() -> Vec<PathBuf> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounts = mountinfo.lines().filter_map(|line| line.split_once(" - "));
    let groups = mounts.filter(|(_, file_system)| file_system.starts_with("cgroup"));
    groups.filter_map(|(mount, _)| mount.split(' ').nth(4).map(PathBuf::from)).collect()
}

/// Version 1 hierarchies without a controller of interest are left out.
pub(super) fn parse(mountinfo: &str, own: &str) -> Vec<Mounted> {
    let mut found: Vec<Mounted> = Vec::new();
    for line in mountinfo.lines() {
        let Some((mount, file_system)) = line.split_once(" - ") else {
            continue;
        };
        let mut mount = mount.split(' ').skip(3);
        let (Some(root), Some(point)) = (mount.next(), mount.next()) else {
            continue;
        };
        let mut file_system = file_system.split(' ');
        let (kind, options) = (file_system.next().unwrap_or(""), file_system.nth(1).unwrap_or(""));
        let (version, controllers) = match kind {
            "cgroup2" => (Version::Two, Vec::new()),
            "cgroup" => {
                (Version::One, Controller::ALL.into_iter().filter(|controller| names(options, *controller)).collect())
            }
            _ => continue,
        };
        if version == Version::One && controllers.is_empty() {
            continue;
        }
        let Some(own) = own_group(own, version, &controllers) else {
            continue;
        };
        // Seen from a container the mount may begin below the real root of the hierarchy.
        let own = Path::new(own).strip_prefix(root).unwrap_or(Path::new("")).to_owned();
        let mounted = Mounted { version, point: point.into(), controllers, own };
        if !found.iter().any(|earlier| earlier.version == version && earlier.controllers == mounted.controllers) {
            found.push(mounted);
        }
    }
    found
}

fn names(list: &str, controller: Controller) -> bool {
    list.split(',').any(|name| name == controller.name())
}

/// "4:memory:/user" (version 1) or "0::/user" (version 2).
fn own_group<'a>(own: &'a str, version: Version, controllers: &[Controller]) -> Option<&'a str> {
    own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, list, path) = (fields.next()?, fields.next()?, fields.next()?);
        let ours = match version {
            Version::One => controllers.iter().any(|controller| names(list, *controller)),
            Version::Two => list.is_empty(),
        };
        ours.then_some(path)
    })
}

fn version_one(mounted: &[Mounted], worker: &str) -> Result<Vec<Hierarchy>, String> {
    let mut hierarchies = Vec::new();
    let mut why_not = Vec::new();
    for mounted in mounted.iter().filter(|mounted| mounted.version == Version::One) {
        // At the top, where the next worker finds it whatever group it is started in; below the own group where only that may be written.
        let places = [mounted.point.clone(), mounted.point.join(&mounted.own)];
        if let Some(place) = places.iter().find(|place| has_top(place, worker, &mounted.controllers)) {
            let opened = opened(Version::One, place.clone(), mounted.controllers.clone())?;
            hierarchies.push(Hierarchy { prefix: prefix(worker), ..opened });
            continue;
        }
        let made =
            places.iter().map(|place| worker_directory(&place.join(FAMILY), worker)).find_map(|made| match made {
                Ok(path) => Some(path),
                Err(reason) => {
                    why_not.push(reason);
                    None
                }
            });
        let Some(path) = made else { continue };
        let controllers: Vec<Controller> = mounted
            .controllers
            .iter()
            .copied()
            .filter(|controller| path.join(limit_file(*controller)).exists())
            .collect();
        if !controllers.is_empty() {
            hierarchies.push(opened(Version::One, path, controllers)?);
        }
    }
    if hierarchies.is_empty() {
        let reason = why_not.pop().unwrap_or_else(|| "no version 1 hierarchy of memory, pids or cpu is mounted".into());
        return Err(reason);
    }
    Ok(hierarchies)
}

/// Whether sandboxes' groups can be here themselves: it is about the processor alone, and they can give way.
fn has_top(place: &Path, worker: &str, controllers: &[Controller]) -> bool {
    let is_processor = controllers == [Controller::Cpu] && place.join(limit_file(Controller::Cpu)).exists();
    is_processor && precedence::try_at_top(place, &format!("{}trial", prefix(worker)))
}

/// The file without which a kernel does not have the limit.
fn limit_file(controller: Controller) -> &'static str {
    match controller {
        Controller::Memory => "memory.limit_in_bytes",
        Controller::Processes => "pids.max",
        Controller::Cpu => "cpu.cfs_quota_us",
    }
}

fn version_two(mounted: &Mounted, worker: &str) -> Result<Hierarchy, String> {
    let own = mounted.point.join(&mounted.own);
    let top = match own.file_name() {
        Some(name) if name == WORKER_LEAF => own.parent().unwrap_or(&own).to_owned(),
        _ if own != mounted.point && delegated(&own) => {
            step_aside(&own)?;
            own
        }
        // Not ours to divide: at the top, as container engines without systemd do.
        _ => mounted.point.clone(),
    };
    let family = top.join(FAMILY);
    let path = worker_directory(&family, worker)?;
    for directory in [&top, &family, &path] {
        switch_on(directory)?;
    }
    // What a child of the worker's directory will have.
    let enabled = fs::read_to_string(path.join("cgroup.subtree_control")).unwrap_or_default();
    let enabled = enabled.trim().replace(' ', ",");
    opened(Version::Two, path, Controller::ALL.into_iter().filter(|controller| names(&enabled, *controller)).collect())
}

/// Whether somebody gave this group to the worker to divide: systemd marks such groups, and a user can write its own.
fn delegated(group: &Path) -> bool {
    let marked = |name: &str| sys::extended_attribute_is(group, name, b"1");
    marked("trusted.delegate")
        || marked("user.delegate")
        || (!sys::is_root() && sys::may_write(&group.join("cgroup.subtree_control")))
}

fn step_aside(own: &Path) -> Result<(), String> {
    let leaf = own.join(WORKER_LEAF);
    make(&leaf)?;
    write(&leaf.join("cgroup.procs"), &std::process::id().to_string())
}

/// The controllers of interest that a group can hand on.
pub(super) fn available(group: &Path) -> Vec<Controller> {
    let list = fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
    let list = list.trim().replace(' ', ",");
    Controller::ALL.into_iter().filter(|controller| names(&list, *controller)).collect()
}

/// Switches on what there is of the controllers; a group that has none is no error here.
fn switch_on(directory: &Path) -> Result<(), String> {
    available(directory)
        .into_iter()
        .try_for_each(|controller| write(&directory.join("cgroup.subtree_control"), &format!("+{}", controller.name())))
}

fn write(path: &Path, value: &str) -> Result<(), String> {
    fs::write(path, value).map_err(|error| format!("cannot write {value:?} to {}: {error}; {DELEGATE}", path.display()))
}

/// What to do about a group that cannot be written.
const DELEGATE: &str = "run as root, or delegate a group to the worker (systemd: Delegate=memory pids cpu)";

fn worker_directory(family: &Path, worker: &str) -> Result<PathBuf, String> {
    let path = family.join(worker);
    make(family)?;
    make(&path)?;
    // It may be there already, made by another user's worker.
    if sys::may_write(&path) {
        Ok(path)
    } else {
        Err(format!("{} belongs to another user; {DELEGATE}", path.display()))
    }
}

fn make(path: &Path) -> Result<(), String> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(format!("cannot make {}: {error}; {DELEGATE}", path.display()))
        }
        _ => Ok(()),
    }
}

fn opened(version: Version, path: PathBuf, controllers: Vec<Controller>) -> Result<Hierarchy, String> {
    let directory = fs::File::open(&path).map_err(|error| format!("cannot open {}: {error}", path.display()))?;
    Ok(Hierarchy { version, directory: OwnedFd::from(directory), path, prefix: String::new(), controllers })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Controller, Version, parse};

    const V1: &str = "\
31 30 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
32 30 0:27 / /sys/fs/cgroup/memory rw,relatime shared:10 - cgroup cgroup rw,memory
33 30 0:28 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
34 30 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
35 30 0:29 / /elsewhere rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn version_one_hierarchies_are_found_by_their_controllers() {
        let found = parse(V1, "5:memory:/jobs/7\n2:cpu,cpuacct:/\n1:freezer:/x\n0::/init.scope\n");
        let summary: Vec<_> = found
            .iter()
            .map(|mounted| {
                (mounted.version, mounted.controllers.as_slice(), mounted.point.to_str(), mounted.own.to_str())
            })
            .collect();
        assert_eq!(
            summary,
            [
                (Version::One, &[Controller::Cpu][..], Some("/sys/fs/cgroup/cpu,cpuacct"), Some("")),
                (Version::One, &[Controller::Memory][..], Some("/sys/fs/cgroup/memory"), Some("jobs/7")),
                (Version::Two, &[][..], Some("/sys/fs/cgroup/unified"), Some("init.scope")),
            ]
        );
    }

    #[test]
    fn a_mount_of_a_subtree_is_named_from_its_root() {
        let found = parse("34 30 0:29 /box /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "0::/box/app\n");
        assert_eq!(found[0].own, Path::new("app"));
    }
}
