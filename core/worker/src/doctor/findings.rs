//! What the facts mean.
//!
//! Invariant: pure. Everything that was asked has an answer here, good or bad; a fact that the kernel does not have (no such file) is no
//! finding. It does not know where facts come from.

use vilya_isolate::Protection;

use super::facts::Facts;
use super::{Finding, Status};
use crate::mechanisms::MechanismKind;

mod cores;
mod idle;
mod kernel;
mod reach;
#[cfg(test)]
mod tests;

/// Below this there is no room for a few functions and their logs.
const STATE_BYTES: u64 = 1 << 30;
/// Mappings that the worker has for a sandbox: both regions, each in a few pieces.
const MAPPINGS_OF_SANDBOX: u64 = 8;

/// Decides.
pub(super) fn decide(facts: &Facts) -> Vec<Finding> {
    let mut findings = sandboxes(facts);
    findings.push(ring(facts));
    findings.extend(kernel::calls(facts));
    findings.extend(kernel::landlock(facts));
    findings.push(kernel::groups(facts));
    findings.extend(settings(facts));
    findings.extend(limits(facts));
    findings.extend(neighbours(facts));
    findings.extend(cores::cores(facts));
    findings.push(interpreter("python", &facts.python, "apt-get install python3"));
    // Without its addon the interpreter does not help, and the other way round.
    let lacks_addon = facts.node.as_ref().is_err_and(|why| why.contains("addon"));
    let install_node = if lacks_addon { "cargo build --release -p vilya-node" } else { "apt-get install nodejs" };
    findings.push(interpreter("node", &facts.node, install_node));
    findings.push(mechanism(
        MechanismKind::Oci,
        &facts.oci,
        if facts.is_root { "apt-get install crun" } else { "sudo vilya serve" },
    ));
    findings.push(mechanism(MechanismKind::Docker, &facts.docker, "apt-get install docker.io"));
    findings.extend(idle::idle(facts));
    findings.push(egress(facts));
    findings.push(state(facts));
    findings.extend(facts.addresses.iter().map(|(address, can_listen)| {
        let name = format!("listen on {address}");
        match can_listen {
            Ok(()) => ok("worker", &name, "free"),
            Err(why) => {
                missing("worker", &name, why, "stop what listens there, or set server.address and server.wire_address")
            }
        }
    }));
    findings.extend(reach::ports(facts));
    findings
}

fn finding(status: Status, group: &'static str, name: &str, detail: impl Into<String>, mend: &str) -> Finding {
    Finding { status, group, name: name.into(), detail: detail.into(), mend: mend.into() }
}

fn ok(group: &'static str, name: &str, detail: impl Into<String>) -> Finding {
    finding(Status::Ok, group, name, detail, "")
}

fn limited(group: &'static str, name: &str, detail: impl Into<String>, mend: &str) -> Finding {
    finding(Status::Limited, group, name, detail, mend)
}

fn missing(group: &'static str, name: &str, detail: impl Into<String>, mend: &str) -> Finding {
    finding(Status::Missing, group, name, detail, mend)
}

impl Facts {
    fn text(&self, path: &str) -> Option<&str> {
        self.settings.get(path).map(String::as_str)
    }

    fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.parse().ok()
    }
}

fn sandboxes(facts: &Facts) -> Vec<Finding> {
    let mechanism = facts.mechanism.as_str();
    match &facts.sandboxes {
        Err(why) => vec![missing("sandboxes", "a trial sandbox", format!("{mechanism}: {why}"), why_none(facts))],
        Ok(protections) => {
            let trial = ok("sandboxes", "a trial sandbox", format!("made and ended by {mechanism}"));
            std::iter::once(trial).chain(protections.iter().map(|one| protection(facts, one))).collect()
        }
    }
}

/// The setting that most likely keeps sandboxes from being made.
fn why_none(facts: &Facts) -> &'static str {
    if facts.number("/proc/sys/user/max_user_namespaces") == Some(0) {
        return "sysctl -w user.max_user_namespaces=15000";
    }
    if !facts.is_root && facts.number("/proc/sys/kernel/unprivileged_userns_clone") == Some(0) {
        return "sysctl -w kernel.unprivileged_userns_clone=1";
    }
    if !facts.is_root && facts.number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == Some(1) {
        return "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0";
    }
    ""
}

fn protection(facts: &Facts, Protection { name, in_force, detail }: &Protection) -> Finding {
    if *in_force {
        return ok("sandboxes", name, detail);
    }
    if *name == "landlock" {
        return limited("sandboxes", name, detail, &kernel::mend_landlock(facts));
    }
    let by_groups =
        ["memory limit", "process limit", "cpu limit", "frozen while idle", "long runs give way"].contains(name);
    let mend = match (by_groups, facts.is_root) {
        (true, true) => "mount -t cgroup2 none /sys/fs/cgroup",
        (true, false) => kernel::mend_delegation(facts),
        (false, _) => "",
    };
    limited("sandboxes", name, detail, mend)
}

fn ring(facts: &Facts) -> Finding {
    let mend = match facts.number("/proc/sys/kernel/io_uring_disabled") {
        Some(1 | 2) => "sysctl -w kernel.io_uring_disabled=0",
        _ => "",
    };
    match &facts.ring {
        Ok(()) => ok("kernel", "io_uring", "a shard's ring was made"),
        Err(why) => missing("kernel", "io_uring", why, mend),
    }
}

/// Settings of the kernel that are in the way of copies.
fn settings(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    match facts.number("/proc/sys/kernel/yama/ptrace_scope") {
        Some(3) => findings.push(limited(
            "kernel",
            "ptrace scope",
            "no process may look into another, so no zygote can be taken: every start begins at the beginning",
            "sysctl kernel.yama.ptrace_scope=1 in /etc/sysctl.d, and a reboot",
        )),
        Some(scope) => findings.push(ok("kernel", "ptrace scope", format!("{scope}: zygotes can be taken as root"))),
        None => {}
    }
    match facts.number("/proc/sys/vm/memfd_noexec") {
        Some(2) => findings.push(limited(
            "kernel",
            "files in memory",
            "those that may be executed are refused, and the images that sandboxes are copied from are such",
            "sysctl -w vm.memfd_noexec=1",
        )),
        Some(level) => findings.push(ok("kernel", "files in memory", format!("vm.memfd_noexec={level}"))),
        None => {}
    }
    findings
}

fn limits(facts: &Facts) -> Vec<Finding> {
    let wanted = &facts.wanted;
    let fit = wanted.sandboxes_within(facts.open_files);
    let detail = format!(
        "{}: {fit} sandboxes with {} connections; limits.sandboxes is {}",
        facts.open_files, wanted.connections, wanted.sandboxes
    );
    let files = "open files";
    let raise = format!("ulimit -n {0}, systemd: LimitNOFILE={0}", wanted.needed());
    let mut findings = vec![if wanted.needed() > facts.open_files {
        limited("limits", files, detail, &raise)
    } else {
        ok("limits", files, detail)
    }];
    let bounds = [
        ("/proc/sys/vm/max_map_count", "mappings", "vm.max_map_count", MAPPINGS_OF_SANDBOX),
        ("/proc/sys/kernel/pid_max", "process ids", "kernel.pid_max", facts.processes),
    ];
    for (path, name, sysctl, each) in bounds {
        let Some(bound) = facts.number(path) else { continue };
        let needed = wanted.sandboxes * each;
        let detail = format!("{bound}; {} sandboxes may take {needed}", wanted.sandboxes);
        let mend = format!("sysctl -w {sysctl}={}", needed.next_power_of_two());
        findings.push(if needed > bound { limited("limits", name, detail, &mend) } else { ok("limits", name, detail) });
    }
    findings
}

/// What sandboxes could learn of each other, and what makes times uneven.
fn neighbours(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    let open = facts.vulnerabilities.iter().filter(|(_, state)| state.starts_with("Vulnerable"));
    let open: Vec<&str> = open.map(|(name, _)| name.as_str()).collect();
    findings.push(if open.is_empty() {
        ok("neighbours", "processor", "no weakness without a mitigation")
    } else {
        let detail = format!("not mitigated: {}; a function could read what it should not", open.join(", "));
        limited("neighbours", "processor", detail, "boot with mitigations=auto, and install the microcode package")
    });
    if facts.number("/sys/kernel/mm/ksm/run") == Some(1) {
        let detail = "equal pages are merged, and how long a write takes tells whether a neighbour has one";
        findings.push(limited("neighbours", "merged memory", detail, "echo 2 > /sys/kernel/mm/ksm/run"));
    }
    if facts.number("/sys/devices/system/cpu/smt/active") == Some(1) {
        let detail = "two functions may share a physical core, and its caches";
        findings.push(limited("neighbours", "shared cores", detail, "echo off > /sys/devices/system/cpu/smt/control"));
    }
    if facts.text("/proc/swaps").is_some_and(|swaps| swaps.lines().count() > 1) {
        let detail = "the worker itself may be swapped out, which stalls everybody";
        findings.push(limited("neighbours", "swap", detail, "swapoff -a"));
    }
    let clock = facts.text("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    if let Some(clock) = clock.filter(|clock| !["tsc", "kvm-clock", "arch_sys_counter"].contains(clock)) {
        findings.push(limited(
            "neighbours",
            "clock",
            format!("{clock}: each look at the time is a system call"),
            "boot with clocksource=tsc",
        ));
    }
    let governor = facts.text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
    if let Some(governor) = governor.filter(|governor| *governor != "performance") {
        let detail = format!("{governor}: cores slow down between requests");
        findings.push(limited("neighbours", "core frequency", detail, "cpupower frequency-set -g performance"));
    }
    findings
}

fn interpreter(name: &str, found: &Result<(std::path::PathBuf, bool), String>, install: &str) -> Finding {
    match found {
        Ok((path, true)) => ok("runtimes", name, path.display().to_string()),
        Ok((path, false)) => {
            let detail = format!("{} cannot be run by every user, so not by a sandbox of root's", path.display());
            limited("runtimes", name, detail, install)
        }
        Err(why) => limited("runtimes", name, why, install),
    }
}

fn mechanism(kind: MechanismKind, there: &Result<(), String>, install: &str) -> Finding {
    match there {
        Ok(()) => ok("mechanisms", kind.as_str(), "there"),
        Err(why) => limited("mechanisms", kind.as_str(), why, install),
    }
}

/// What mends it is said in why it is not there.
fn egress(facts: &Facts) -> Finding {
    const NAME: &str = "other machines";
    match &facts.egress {
        None => ok("network", NAME, "not asked for: functions reach none (sandbox.egress)"),
        Some(Ok(())) => ok("network", NAME, "a link and its rules were made; functions may ask for them"),
        Some(Err(why)) => {
            let mend = why.split_once("sysctl ").map(|(_, rest)| rest.split_once(',').map_or(rest, |(first, _)| first));
            limited("network", NAME, why, &mend.map_or_else(String::new, |rest| format!("sysctl {rest}")))
        }
    }
}

fn state(facts: &Facts) -> Finding {
    let (group, name) = ("worker", "state directory");
    let path = facts.state_directory.display();
    match &facts.state {
        Ok(free) if *free < STATE_BYTES => {
            limited(group, name, format!("{path}: {} MiB free", free >> 20), "free some, or set server.state_directory")
        }
        Ok(free) => ok(group, name, format!("{path}: {} GiB free", free >> 30)),
        Err(why) => missing(group, name, format!("{path}: {why}"), "make it writable, or set server.state_directory"),
    }
}
