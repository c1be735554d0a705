//! What the control groups of a container can be told: to freeze it, and to give way.
//!
//! Owns: finding the files that say so. Invariant: only a group of the container's own is named. Does not know: who made it.

use std::fs;
use std::path::{Path, PathBuf};

use super::Version;
use super::freeze::{self, GroupFreezer};
use super::precedence::{self, Precedence};
use super::switch::Switch;
use crate::sys;

/// What the groups of one container can be told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Switches {
    freezer: Option<GroupFreezer>,
    precedence: Option<Precedence>,
    /// By version 2.
    kill: Option<Switch>,
}

impl Switches {
    /// Of a container whose group is at the same place of every hierarchy.
    pub(crate) fn at(group: &Path) -> Switches {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Switches::find(&mountinfo, |_, mounted| Some(mounted.point.join(group)))
    }

    /// Of a container by a process that is in it now. `mark` is in the names of its groups and of no others: a group that holds others as well
    /// is none of its own.
    pub(crate) fn of_process(pid: i32, mark: &str) -> Switches {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let groups = read(&format!("/proc/{pid}/cgroup"));
        Switches::find(&read("/proc/self/mountinfo"), |controller, mounted| {
            let group = group_in(&groups, controller).filter(|group| is_marked(group, mark))?;
            Some(mounted.point.join(group.strip_prefix(&mounted.root).ok()?))
        })
    }

    /// `place`: where its group is in the hierarchy of a controller, or of version 2 for none.
    fn find(mountinfo: &str, place: impl Fn(Option<&str>, &Mount) -> Option<PathBuf>) -> Switches {
        let mounts = mounts(mountinfo);
        let file = |controller: Option<&str>, name: &str| {
            let has_it = |mount: &&Mount| match controller {
                Some(controller) => mount.version == Version::One && mount.options.iter().any(|one| one == controller),
                None => mount.version == Version::Two,
            };
            let files = mounts.iter().filter(has_it).filter_map(|mount| Some(place(controller, mount)?.join(name)));
            files.into_iter().find(|file| sys::may_write(file))
        };
        let by_two = || Some((Version::Two, Switch::foreign(file(None, &freeze::FILE.to_string_lossy())?)));
        let by_one =
            || Some((Version::One, Switch::foreign(file(Some("freezer"), freeze::STATE)?).saying(freeze::STATES)));
        let idle = precedence::FILE.to_string_lossy();
        let precedence = file(Some("cpu"), &idle).or_else(|| file(None, &idle));
        Switches {
            freezer: by_two().or_else(by_one).map(|(version, switch)| GroupFreezer { version, switch }),
            precedence: precedence.map(|file| Precedence(Switch::foreign(file))),
            kill: file(None, "cgroup.kill").map(Switch::foreign),
        }
    }

    pub(crate) fn freezer(&self) -> Option<GroupFreezer> {
        self.freezer.clone()
    }

    pub(crate) fn precedence(&self) -> Option<Precedence> {
        self.precedence.clone()
    }

    /// Kills everything in it at once, where the kernel can.
    pub(crate) fn kill(&self) {
        // It fails if nothing is left of it.
        self.kill.iter().for_each(|switch| drop(switch.set(true)));
    }

    /// How it is frozen, or why it cannot be.
    pub(crate) fn freezes(&self) -> Result<String, String> {
        match &self.freezer {
            Some(GroupFreezer { version: Version::Two, .. }) => Ok("cgroup v2, the container's own group".to_owned()),
            Some(GroupFreezer { version: Version::One, .. }) => {
                Ok("cgroup v1, the container's own group; one that is killed meanwhile by others than the worker dies when it is thawed"
                    .to_owned())
            }
            None => Err("no control group of theirs can be written that freezes, of version 2 or the freezer of version 1".to_owned()),
        }
    }

    /// Whether it can give way to others, and how; or why not.
    pub(crate) fn gives_precedence(&self) -> Result<String, String> {
        let found = self
            .precedence
            .as_ref()
            .map(|_| "cpu.idle of the container's own group: to other containers there".to_owned());
        found.ok_or_else(|| {
            "no cpu.idle of theirs can be written; it needs Linux 5.15 and the cpu controller".to_owned()
        })
    }
}

/// Which freezer containers of this host can be frozen by, as far as it can be told without one.
///
/// # Errors
/// Why none.
pub fn container_freezer() -> Result<&'static str, &'static str> {
    let mounts = mounts(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default());
    let writable = |version| {
        let freezes = |mount: &&Mount| version == Version::Two || mount.options.iter().any(|one| one == "freezer");
        mounts.iter().filter(|mount| mount.version == version).filter(freezes).any(|mount| sys::may_write(&mount.point))
    };
    match (writable(Version::Two), writable(Version::One)) {
        (true, _) => Ok("cgroup v2"),
        (false, true) => Ok("the freezer of cgroup v1"),
        (false, false) => Err("no hierarchy that freezes is mounted and may be written here"),
    }
}

/// A hierarchy that is mounted.
struct Mount {
    version: Version,
    /// What of it is seen there.
    root: PathBuf,
    point: PathBuf,
    /// Its controllers among them, for version 1.
    options: Vec<String>,
}

fn mounts(mountinfo: &str) -> Vec<Mount> {
    let parse = |line: &str| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, point) = (mount.next()?.into(), mount.next()?.into());
        let mut file_system = file_system.split(' ');
        let version = match file_system.next()? {
            "cgroup2" => Version::Two,
            "cgroup" => Version::One,
            _ => return None,
        };
        let options = file_system.nth(1)?.split(',').map(str::to_owned).collect();
        Some(Mount { version, root, point, options })
    };
    mountinfo.lines().filter_map(parse).collect()
}

/// The group of a process in the hierarchy of a controller, or in that of version 2, as `/proc/<pid>/cgroup` says.
fn group_in<'a>(groups: &'a str, controller: Option<&str>) -> Option<&'a Path> {
    groups.lines().find_map(|line| {
        let (list, path) = line.split_once(':')?.1.split_once(':')?;
        let is_it = controller.map_or(list.is_empty(), |controller| list.split(',').any(|name| name == controller));
        is_it.then_some(Path::new(path))
    })
}

fn is_marked(group: &Path, mark: &str) -> bool {
    !mark.is_empty() && group.file_name().is_some_and(|name| name.to_string_lossy().contains(mark))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Switches, Version, group_in, is_marked};

    const GROUPS: &str = "6:freezer:/docker/abc\n1:cpu,cpuacct:/docker/abc\n0::/docker/abc\n";

    #[test]
    fn the_groups_of_a_process_are_told_apart() {
        assert_eq!(group_in(GROUPS, Some("freezer")), Some(Path::new("/docker/abc")));
        assert_eq!(group_in("1:cpu,cpuacct:/a\n0::/b\n", Some("cpu")), Some(Path::new("/a")));
        assert_eq!(group_in("1:cpu,cpuacct:/a\n0::/b\n", None), Some(Path::new("/b")));
        assert_eq!(group_in("1:cpuacct:/a\n", Some("cpu")), None);
    }

    #[test]
    fn a_group_that_others_may_be_in_is_not_the_containers() {
        assert!(is_marked(Path::new("/system.slice/docker-abc.scope"), "abc"));
        for (group, mark) in [("/", "abc"), ("/docker", "abc"), ("/abc/others", "abc"), ("/docker/abc", "")] {
            assert!(!is_marked(Path::new(group), mark), "{group}");
        }
    }

    #[test]
    fn version_two_is_taken_before_version_one_and_what_cannot_be_written_not_at_all() {
        let directory = tempfile::tempdir().expect("a directory");
        let (one, two) = (directory.path().join("one"), directory.path().join("two"));
        let mountinfo = format!(
            "33 30 0:28 /box {} rw - cgroup cgroup rw,freezer\n34 30 0:29 / {} rw - cgroup2 cgroup2 rw\n",
            one.display(),
            two.display()
        );
        let find = || Switches::find(&mountinfo, |_, mount| Some(mount.point.join("a"))).freezer();
        assert!(find().is_none());
        let file = |place: &Path, name: &str| {
            std::fs::create_dir_all(place.join("a")).expect("a group");
            std::fs::write(place.join("a").join(name), "").expect("its file");
        };
        file(&one, "freezer.state");
        let freezer = find().expect("that of version 1");
        freezer.set(true).expect("written");
        assert_eq!(std::fs::read_to_string(one.join("a/freezer.state")).expect("read"), "FROZEN");
        assert!(freezer.holds_the_killed());
        file(&two, "cgroup.freeze");
        assert_eq!(find().expect("that of version 2").version, Version::Two);
    }
}
