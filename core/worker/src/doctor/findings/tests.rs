//! Made-up hosts and what is said of them.

use std::collections::BTreeMap;

use vilya_isolate::{Hierarchy, Protection};

use super::super::facts::Facts;
use super::super::{Finding, Status};
use super::decide;
use crate::descriptors::Wanted;
use crate::mechanisms::MechanismKind;

/// A host on which nothing is amiss.
fn good() -> Facts {
    Facts {
        is_root: true,
        mechanism: MechanismKind::Native,
        sandboxes: Ok(vec![Protection { name: "memory limit", in_force: true, detail: "cgroup v2".into() }]),
        ring: Ok(()),
        calls: vec![("openat2", "5.6", Ok(())), ("clone3", "5.3", Ok(()))],
        landlock: 7,
        groups: Ok(vec![hierarchy(2, &["memory", "pids", "cpu"], true)]),
        shard_cores: vec![0],
        sandbox_cores: vec![1, 2, 3],
        ports: Vec::new(),
        settings: BTreeMap::from([
            ("/proc/sys/kernel/yama/ptrace_scope", "1".into()),
            ("/proc/sys/vm/memfd_noexec", "0".into()),
            ("/proc/sys/vm/max_map_count", "65530".into()),
            ("/proc/sys/kernel/pid_max", "4194304".into()),
            ("/sys/kernel/security/lsm", "capability,yama".into()),
            ("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never".into()),
            ("/sys/devices/system/cpu/isolated", String::new()),
            ("/sys/devices/system/cpu/nohz_full", "(null)".into()),
            ("/proc/swaps", "Filename Type Size Used Priority".into()),
        ]),
        open_files: 524_288,
        wanted: Wanted { shards: 2, connections: 8192, sandboxes: 128, starting: 4, prepared: 16, links: 0 },
        processes: 64,
        vulnerabilities: vec![("meltdown".into(), "Mitigation: PTI".into()), ("l1tf".into(), "Not affected".into())],
        python: Ok(("/usr/bin/python3".into(), true)),
        node: Ok(("/usr/bin/node".into(), true)),
        oci: Ok(()),
        docker: Ok(()),
        container_freezer: Ok("cgroup v2"),
        egress: None,
        state: Ok(64 << 30),
        state_directory: "/var/lib/vilya".into(),
        addresses: vec![("127.0.0.1:7878".parse().expect("an address"), Ok(()))],
    }
}

fn hierarchy(version: u8, controllers: &[&'static str], divisible: bool) -> Hierarchy {
    Hierarchy { version, point: "/sys/fs/cgroup".into(), controllers: controllers.to_vec(), divisible }
}

fn set(facts: &mut Facts, path: &'static str, value: &str) {
    facts.settings.insert(path, value.into());
}

/// The findings that are not good.
fn problems(facts: &Facts) -> Vec<Finding> {
    decide(facts).into_iter().filter(|finding| finding.status != Status::Ok).collect()
}

#[test]
fn a_good_host_has_no_problem_and_everything_is_named() {
    let findings = decide(&good());
    assert_eq!(problems(&good()), []);
    for name in ["a trial sandbox", "memory limit", "io_uring", "open files", "mappings", "state directory", "python"] {
        assert!(findings.iter().any(|finding| finding.name == name), "{name}");
    }
}

#[test]
fn each_thing_amiss_is_one_finding_with_what_mends_it() {
    type Spoil = fn(&mut Facts);
    use Status::{Limited, Missing};
    let table: &[(&str, Status, &str, Spoil)] = &[
        ("a trial sandbox", Missing, "", |facts| facts.sandboxes = Err("a trial sandbox failed".into())),
        ("a trial sandbox", Missing, "sysctl -w user.max_user_namespaces=15000", |facts| {
            facts.sandboxes = Err("cannot make the process".into());
            set(facts, "/proc/sys/user/max_user_namespaces", "0");
        }),
        ("a trial sandbox", Missing, "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0", |facts| {
            facts.sandboxes = Err("cannot map the ids".into());
            facts.is_root = false;
            set(facts, "/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1");
        }),
        ("memory limit", Limited, "mount -t cgroup2 none /sys/fs/cgroup", |facts| {
            facts.sandboxes = Ok(vec![Protection { name: "memory limit", in_force: false, detail: "none".into() }]);
        }),
        ("memory limit", Limited, "systemd-run --user --scope -p Delegate=yes vilya serve", |facts| {
            facts.is_root = false;
            facts.sandboxes = Ok(vec![Protection { name: "memory limit", in_force: false, detail: "none".into() }]);
        }),
        ("io_uring", Missing, "sysctl -w kernel.io_uring_disabled=0", |facts| {
            facts.ring = Err("EPERM".into());
            set(facts, "/proc/sys/kernel/io_uring_disabled", "2");
        }),
        ("ptrace scope", Limited, "reboot", |facts| set(facts, "/proc/sys/kernel/yama/ptrace_scope", "3")),
        ("files in memory", Limited, "sysctl -w vm.memfd_noexec=1", |facts| {
            set(facts, "/proc/sys/vm/memfd_noexec", "2")
        }),
        ("open files", Limited, "LimitNOFILE=", |facts| facts.open_files = 9_000),
        ("open files", Limited, "LimitNOFILE=", |facts| facts.open_files = 256),
        ("mappings", Limited, "sysctl -w vm.max_map_count=1024", |facts| {
            set(facts, "/proc/sys/vm/max_map_count", "1000")
        }),
        ("process ids", Limited, "sysctl -w kernel.pid_max=8192", |facts| {
            set(facts, "/proc/sys/kernel/pid_max", "4096")
        }),
        ("processor", Limited, "mitigations=auto", |facts| {
            facts.vulnerabilities.push(("mds".into(), "Vulnerable: Clear CPU buffers attempted, no microcode".into()));
        }),
        ("merged memory", Limited, "echo 2 > /sys/kernel/mm/ksm/run", |facts| {
            set(facts, "/sys/kernel/mm/ksm/run", "1")
        }),
        ("shared cores", Limited, "smt/control", |facts| set(facts, "/sys/devices/system/cpu/smt/active", "1")),
        ("swap", Limited, "swapoff -a", |facts| set(facts, "/proc/swaps", "Filename\n/swap file 1 0 -2")),
        ("clock", Limited, "clocksource=tsc", |facts| {
            set(facts, "/sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet");
        }),
        ("python", Limited, "apt-get install python3", |facts| facts.python = Err("none".into())),
        ("python", Limited, "apt-get install python3", |facts| facts.python = Ok(("/root/bin/python3".into(), false))),
        ("node", Limited, "apt-get install nodejs", |facts| facts.node = Err("no Node here".into())),
        ("node", Limited, "cargo build", |facts| facts.node = Err("the addon is not there".into())),
        ("oci", Limited, "apt-get install crun", |facts| facts.oci = Err("none of them is installed".into())),
        ("other machines", Limited, "sysctl -w net.ipv4.ip_forward=1", |facts| {
            facts.egress =
                Some(Err("the host passes no packets on: sysctl -w net.ipv4.ip_forward=1, and the same".into()));
        }),
        ("other machines", Limited, "", |facts| facts.egress = Some(Err("only root can".into()))),
        ("state directory", Missing, "server.state_directory", |facts| facts.state = Err("denied".into())),
        ("listen on 127.0.0.1:7878", Missing, "server.address", |facts| facts.addresses[0].1 = Err("in use".into())),
        ("clone3", Missing, "seccomp profile that allows clone3", |facts| facts.calls[1].2 = Err("ENOSYS".into())),
        ("landlock", Limited, "lsm=landlock,capability,yama", |facts| {
            facts.landlock = 0;
            facts.sandboxes = Ok(vec![Protection { name: "landlock", in_force: false, detail: "none".into() }]);
        }),
        ("landlock", Limited, "6.12", |facts| {
            facts.landlock = 4;
            facts.sandboxes = Ok(vec![Protection { name: "landlock", in_force: false, detail: "files only".into() }]);
        }),
        ("control groups", Limited, "mount -t cgroup2 none /sys/fs/cgroup", |facts| facts.groups = Ok(Vec::new())),
        ("control groups", Limited, "mount -t proc", |facts| facts.groups = Err("cannot read it".into())),
        ("control groups", Limited, "Delegate=yes vilya serve", |facts| {
            facts.is_root = false;
            facts.groups = Ok(vec![hierarchy(2, &["memory", "pids", "cpu"], false)]);
        }),
        ("control groups", Limited, "unified_cgroup_hierarchy", |facts| {
            facts.is_root = false;
            facts.groups = Ok(vec![hierarchy(1, &["memory", "pids", "cpu"], false), hierarchy(2, &[], false)]);
        }),
        ("control groups", Limited, "Delegate=memory pids cpu", |facts| {
            facts.is_root = false;
            facts.groups = Ok(vec![hierarchy(2, &["memory", "pids"], true)]);
        }),
        ("control groups", Limited, "echo +cpu > ", |facts| {
            facts.groups = Ok(vec![hierarchy(2, &["memory", "pids"], true)]);
        }),
        ("control groups", Limited, "mount -t cgroup -o pids none /sys/fs/cgroup/pids", |facts| {
            facts.groups = Ok(vec![hierarchy(1, &["memory"], true), hierarchy(1, &["cpu"], true)]);
        }),
        ("huge pages", Limited, "echo madvise > ", |facts| {
            set(facts, "/sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never");
        }),
        ("isolated cores", Limited, "isolcpus=", |facts| set(facts, "/sys/devices/system/cpu/isolated", "2-3")),
        ("host loopback", Limited, "mechanism = \"native\"", |facts| {
            facts.mechanism = MechanismKind::Oci;
            facts.ports = vec![(5432, Ok(()))];
        }),
        ("host loopback 5432", Limited, "sandbox.host_loopback_ports", |facts| {
            facts.ports = vec![(5432, Err("refused".into())), (6379, Ok(()))];
        }),
        ("openat2", Missing, "Linux 5.6 or later", |facts| facts.calls[0].2 = Err("ENOSYS".into())),
    ];
    for &(name, status, mend, spoil) in table {
        let mut facts = good();
        spoil(&mut facts);
        let found = problems(&facts);
        let [one] = &found[..] else { panic!("{name}: {found:?}") };
        assert_eq!((one.name.as_str(), one.status), (name, status), "{one:?}");
        assert!(one.mend.contains(mend) && one.mend.is_empty() == mend.is_empty(), "{one:?}");
    }
}

#[test]
fn what_is_as_it_should_be_says_what_it_is() {
    let detail = |facts: &Facts, name: &str| {
        let found = decide(facts).into_iter().find(|finding| finding.name == name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(found.status, Status::Ok, "{found:?}");
        found.detail
    };
    let mut facts = good();
    assert_eq!(detail(&facts, "landlock interface"), "7");
    assert_eq!(detail(&facts, "huge pages"), "madvise");
    assert!(detail(&facts, "control groups").contains("version 2 at /sys/fs/cgroup (memory, pids, cpu)"));
    assert!(detail(&facts, "isolated cores").contains("none"));
    assert!(detail(&facts, "host loopback").contains("refused when it is deployed"));
    facts.shard_cores = vec![4, 5];
    set(&mut facts, "/sys/devices/system/cpu/isolated", "4-5");
    set(&mut facts, "/sys/devices/system/cpu/nohz_full", "5");
    assert!(detail(&facts, "isolated cores").contains("[4, 5], 1 of them with"));
    facts.ports = vec![(5432, Ok(()))];
    assert!(detail(&facts, "host loopback 5432").contains("reach"));
    facts.groups = Ok(vec![hierarchy(1, &["memory", "pids", "cpu"], true), hierarchy(2, &[], true)]);
    assert!(detail(&facts, "control groups").contains("version 1"));
}

#[test]
fn it_is_said_what_idle_sandboxes_are_frozen_by() {
    let said = |facts: &Facts| -> Vec<(Status, String)> {
        let found = decide(facts).into_iter().filter(|finding| finding.group == "idle");
        found.map(|finding| (finding.status, finding.name)).collect()
    };
    let mut facts = good();
    let ok = |name: &str| (Status::Ok, name.to_owned());
    assert_eq!(said(&facts), [ok("oci: cgroup v2"), ok("docker: cgroup v2")]);
    let freezes = |in_force| Protection { name: "frozen while idle", in_force, detail: "by a trial".into() };
    facts.sandboxes = Ok(vec![freezes(true)]);
    facts.container_freezer = Err("none is mounted");
    let limited = (Status::Limited, "oci while idle".to_owned());
    assert_eq!(said(&facts), [ok("native: by a trial"), limited, ok("docker: paused by the engine")]);
    // What was tried is not guessed, and what is not there is not spoken of.
    facts.mechanism = MechanismKind::Oci;
    facts.docker = Err("no engine".into());
    assert_eq!(said(&facts), [ok("oci: by a trial")]);
    facts.sandboxes = Ok(vec![freezes(false)]);
    assert_eq!(said(&facts), Vec::new());
}
