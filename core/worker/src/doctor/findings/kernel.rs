//! What the kernel offers: calls, Landlock, control groups.

use vilya_isolate::Hierarchy;

use super::{limited, missing, ok};
use crate::doctor::Finding;
use crate::doctor::facts::Facts;

/// The controllers that sandboxes are limited by.
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];

/// Each call alone, so that the one that is missing has a name.
pub(super) fn calls(facts: &Facts) -> impl Iterator<Item = Finding> {
    facts.calls.iter().map(|(call, since, answer)| match answer {
        Ok(()) => ok("kernel", call, "answers"),
        Err(why) => {
            let mend = format!("Linux {since} or later; in a container, a seccomp profile that allows {call}");
            missing("kernel", call, format!("{why}: no sandbox can be made without it"), &mend)
        }
    })
}

/// Which interface; that there is none, or a poor one, is said with the protections.
pub(super) fn landlock(facts: &Facts) -> Option<Finding> {
    (facts.landlock > 0).then(|| ok("kernel", "landlock interface", facts.landlock.to_string()))
}

/// What gives a host its Landlock.
pub(super) fn mend_landlock(facts: &Facts) -> String {
    let modules = facts.text("/sys/kernel/security/lsm").unwrap_or_default();
    if facts.landlock > 0 {
        "a kernel from 6.12 on".into()
    } else if modules.split(',').any(|module| module == "landlock") {
        "a kernel from 5.19 on".into()
    } else if modules.is_empty() {
        "boot with landlock at the head of the list lsm=".into()
    } else {
        format!("boot with lsm=landlock,{modules}")
    }
}

/// Which groups there are, and whether a worker may divide them.
pub(super) fn groups(facts: &Facts) -> Finding {
    let name = "control groups";
    let hierarchies = match &facts.groups {
        Ok(hierarchies) => hierarchies,
        Err(why) => return limited("kernel", name, why, "mount -t proc none /proc"),
    };
    if hierarchies.is_empty() {
        let detail = "none are mounted, so what a sandbox may take is limited a process at a time";
        return limited("kernel", name, detail, "mount -t cgroup2 none /sys/fs/cgroup");
    }
    let usable: Vec<&Hierarchy> = hierarchies.iter().filter(|hierarchy| hierarchy.divisible).collect();
    let lacks: Vec<&str> =
        CONTROLLERS.into_iter().filter(|name| !usable.iter().any(|it| it.controllers.contains(name))).collect();
    let places: Vec<String> = hierarchies.iter().map(place).collect();
    let places = places.join("; ");
    if lacks.is_empty() {
        return ok("kernel", name, places);
    }
    let mend = match (facts.is_root, limits_by_version_one(hierarchies)) {
        (false, false) if usable.iter().any(|it| !it.controllers.is_empty()) => {
            format!("systemctl edit user@.service, with Delegate={}", CONTROLLERS.join(" "))
        }
        (false, _) => mend_delegation(facts).to_owned(),
        (true, true) => format!("mount -t cgroup -o {0} none /sys/fs/cgroup/{0}", lacks[0]),
        (true, false) => format!("echo +{} > /sys/fs/cgroup/cgroup.subtree_control", lacks.join(" +")),
    };
    limited("kernel", name, format!("no {} for a worker: {places}", lacks.join(", ")), &mend)
}

/// What gives a user's worker groups of its own: nobody may be given some of version 1.
pub(super) fn mend_delegation(facts: &Facts) -> &'static str {
    if facts.groups.as_ref().is_ok_and(|hierarchies| limits_by_version_one(hierarchies)) {
        "run the worker as root, or boot with systemd.unified_cgroup_hierarchy=1"
    } else {
        "systemd-run --user --scope -p Delegate=yes vilya serve"
    }
}

fn limits_by_version_one(hierarchies: &[Hierarchy]) -> bool {
    hierarchies.iter().any(|hierarchy| hierarchy.version == 1 && !hierarchy.controllers.is_empty())
}

fn place(hierarchy: &Hierarchy) -> String {
    let Hierarchy { version, point, controllers, divisible } = hierarchy;
    let controllers = if controllers.is_empty() { "no limits".to_owned() } else { controllers.join(", ") };
    let may = if *divisible { "" } else { ", not this user's to divide" };
    format!("version {version} at {} ({controllers}{may})", point.display())
}
