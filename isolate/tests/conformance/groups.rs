//! What the host sees in the control groups of a sandbox, whichever version they are.
//!
//! Invariant: only groups of the sandbox's own are looked at, and there may be none.

use std::fs;
use std::path::Path;

/// The contents of these files in every group of a process, of those that there are.
pub(crate) fn files(pid: i32, names: &[&str]) -> Vec<String> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let ours = fs::read_to_string("/proc/self/cgroup").expect("our own groups");
    let mut found = Vec::new();
    for line in groups.lines().filter(|line| !ours.lines().any(|ours| ours == *line)) {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        // That of all processes is nobody's, and a dead process is shown in it.
        if path == "/" {
            continue;
        }
        for hierarchy in [controllers.trim_start_matches("name="), "unified", ""] {
            let group = Path::new("/sys/fs/cgroup").join(hierarchy).join(path.trim_start_matches('/'));
            found.extend(names.iter().filter_map(|name| fs::read_to_string(group.join(name)).ok()));
        }
    }
    found
}

/// The largest number that one of these files holds.
pub(crate) fn most(pid: i32, names: &[&str]) -> Option<u64> {
    files(pid, names).iter().filter_map(|text| text.trim().parse().ok()).max()
}
