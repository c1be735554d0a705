//! Which protections are in force on this host, and by what means: what the worker prints at start.
//!
//! Owns: the list and its words. Invariant: a protection is called in force only after a trial sandbox performed the steps behind it.
//! Does not know: how to perform them.

use std::fmt;

use crate::cgroup::{Controller, Groups};
use crate::host::{Host, Privilege};
use crate::landlock;
use crate::limits::CORE_BYTES;
use crate::processor::{Cores, Guess, Speculation};

/// One protection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protection {
    /// What is protected.
    pub name: &'static str,
    /// Whether it is, fully.
    pub in_force: bool,
    /// By what; or, if it is not in force, why not, what takes its place, and what to do about it.
    pub detail: String,
}

impl Protection {
    pub(crate) fn yes(name: &'static str, detail: &str) -> Protection {
        Protection { name, in_force: true, detail: detail.into() }
    }

    pub(crate) fn no(name: &'static str, detail: &str) -> Protection {
        Protection { name, in_force: false, detail: detail.into() }
    }
}

/// All of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protections(Vec<Protection>);

impl Protections {
    /// Those of a host on which a trial sandbox was made. `no_groups` says why there are no control groups.
    pub(crate) fn new(host: &Host, groups: Option<&Groups>, no_groups: &str) -> Protections {
        let root = host.privilege == Privilege::Root;
        let yes = Protection::yes;
        let users = if root { "a host user id for each sandbox" } else { "the worker's own user, mapped" };
        let mut list = vec![
            yes("user namespace", users),
            yes("pid namespace", "own processes only, own /proc"),
            yes(
                "mount namespace",
                if root { "owned by the host's root" } else { "owned by a user namespace of the worker's, outside" },
            ),
            yes("network namespace", "loopback only"),
            yes("ipc namespace", ""),
            yes("uts namespace", ""),
            yes("cgroup namespace", ""),
            yes("read-only system", "/usr and a minimal /etc; private /tmp; no /sys"),
            yes("capabilities dropped", "every set, secure bits locked"),
            yes("no_new_privs", ""),
            yes("seccomp", "allow-list; other architectures are killed"),
            landlock(host.landlock),
            speculation(host, Guess::StoreBypass),
            speculation(host, Guess::IndirectBranch),
            cores(host),
            nested_users(host),
            yes("dies with the worker", "pid namespaces nested below the worker's keeper; parent-death signal"),
            supplementary_groups(root),
            dumps(host),
        ];
        let limited = Controller::ALL.map(|controller| {
            groups.and_then(|groups| groups.place(controller)).map_or_else(
                || unlimited(controller, groups.is_some(), no_groups),
                |place| Protection { name: limit_name(controller), in_force: true, detail: place },
            )
        });
        list.extend(limited);
        list.push(freezing(groups, no_groups));
        list.push(giving_way(groups, no_groups));
        Protections(list)
    }

    /// Those of a mechanism that knows its own.
    pub(crate) fn from(list: Vec<Protection>) -> Protections {
        Protections(list)
    }

    /// What is said of one.
    pub(crate) fn detail(&self, name: &str) -> &str {
        self.0.iter().find(|protection| protection.name == name).map_or("", |protection| &protection.detail)
    }

    /// Says something else of one.
    pub(crate) fn change(&mut self, to: Protection) {
        self.0
            .iter_mut()
            .filter(|protection| protection.name == to.name)
            .for_each(|protection| *protection = to.clone());
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Protection> {
        self.0.iter()
    }

    /// Whether this one is in force; an unknown name is not.
    #[must_use]
    pub fn in_force(&self, name: &str) -> bool {
        self.0.iter().any(|protection| protection.name == name && protection.in_force)
    }
}

fn landlock(interface: u32) -> Protection {
    let (in_force, detail) = match interface {
        0 => (
            false,
            "this kernel has none, so mounts and namespaces stand alone; boot it with landlock in its lsm= list".into(),
        ),
        1..landlock::WITH_SCOPES => (
            false,
            format!(
                "files only (interface {interface}); from Linux 6.12 on, abstract sockets and signals are kept apart too"
            ),
        ),
        _ => (true, format!("files, abstract sockets and signals (interface {interface})")),
    };
    Protection { name: "landlock", in_force, detail }
}

const LEFT_ON: &str = "the kernel can turn it off for sandboxes, and was not asked to: see sandbox.mitigations";

fn speculation(host: &Host, guess: Guess) -> Protection {
    let name = match guess {
        Guess::StoreBypass => "no speculative store bypass",
        Guess::IndirectBranch => "no shared indirect branch speculation",
    };
    let (in_force, detail) = match host.processor.speculation(guess) {
        Speculation::Harmless => (true, "this processor is not affected"),
        Speculation::Off => (true, "off for every process of the host"),
        Speculation::Controllable if host.mitigations => (true, "turned off for each sandbox, for good"),
        Speculation::Controllable => (false, LEFT_ON),
        Speculation::On => {
            (false, "on, and the kernel offers no control of it here; see the host's mitigations= and microcode")
        }
        Speculation::Unknown => (false, "the kernel does not say"),
    };
    Protection { name, in_force, detail: detail.into() }
}

fn cores(host: &Host) -> Protection {
    let (in_force, detail) = match host.processor.cores {
        Cores::Single => (true, "this kernel sees no core with two threads, as far as a virtual machine is told"),
        Cores::Controllable if host.mitigations => (true, "core scheduling, a cookie for each sandbox"),
        Cores::Controllable => (false, LEFT_ON),
        Cores::Shared => (
            false,
            "the kernel has no core scheduling (CONFIG_SCHED_CORE); boot with nosmt, or give sandboxes whole cores by cores.sandboxes",
        ),
    };
    Protection { name: "no core shared at a time", in_force, detail: detail.into() }
}

fn nested_users(host: &Host) -> Protection {
    let (in_force, detail) = if host.user_limits_writable {
        (true, "user.max_user_namespaces=0 inside, besides seccomp")
    } else {
        (false, "/proc/sys is read-only here, so only seccomp forbids them; run the worker outside of a container")
    };
    Protection { name: "nested user namespaces", in_force, detail: detail.into() }
}

fn supplementary_groups(root: bool) -> Protection {
    let (in_force, detail) = if root {
        (true, "none")
    } else {
        (
            false,
            "an unprivileged user namespace keeps those of the worker; run the worker as root or as a user without any",
        )
    };
    Protection { name: "supplementary groups dropped", in_force, detail: detail.into() }
}

fn dumps(host: &Host) -> Protection {
    let (in_force, detail) = if host.hard_limits.core_bytes >= CORE_BYTES {
        (true, "neither written nor piped to a program of the host")
    } else {
        (
            false,
            "not written, but a program that core_pattern pipes to still runs; raise the worker's hard RLIMIT_CORE to 1",
        )
    };
    Protection { name: "no core dumps", in_force, detail: detail.into() }
}

fn limit_name(controller: Controller) -> &'static str {
    match controller {
        Controller::Memory => "memory limit",
        Controller::Processes => "process limit",
        Controller::Cpu => "cpu limit",
    }
}

fn freezing(groups: Option<&Groups>, no_groups: &str) -> Protection {
    let (in_force, detail) = match groups.map_or(Err(no_groups), Groups::freezes) {
        Ok(place) => (true, format!("cgroup v2, {place}")),
        Err(reason) => (false, format!("idle sandboxes run on: {reason}")),
    };
    Protection { name: "frozen while idle", in_force, detail }
}

fn giving_way(groups: Option<&Groups>, no_groups: &str) -> Protection {
    let (in_force, detail) = match groups.map_or(Err(no_groups), Groups::gives_precedence) {
        Ok(place) => (true, format!("cpu.idle, {place}")),
        Err(reason) => (false, format!("short invocations wait for long ones' slices: {reason}")),
    };
    Protection { name: "long runs give way", in_force, detail }
}

fn unlimited(controller: Controller, groups: bool, no_groups: &str) -> Protection {
    let instead = match controller {
        Controller::Memory => "RLIMIT_DATA a process instead, which counts neither shared memory nor sockets",
        Controller::Processes => "RLIMIT_NPROC instead",
        Controller::Cpu => "nothing instead",
    };
    let reason = match controller {
        _ if groups => "the control groups here lack this controller",
        Controller::Memory => no_groups,
        Controller::Processes | Controller::Cpu => "no control groups, as said of memory",
    };
    Protection { name: limit_name(controller), in_force: false, detail: format!("{instead}: {reason}") }
}

impl fmt::Display for Protections {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Protection { name, in_force, detail } in &self.0 {
            let mark = if *in_force { "yes" } else { "NO" };
            let separator = if detail.is_empty() { "" } else { ": " };
            writeln!(out, "{mark:>3}  {name}{separator}{detail}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Protections;
    use crate::host::{GroupFacts, HardLimits, Host, Privilege};
    use crate::processor::{Cores, Processor, Speculation};

    fn host() -> Host {
        Host {
            privilege: Privilege::Root,
            staging: "/staging".into(),
            system: Vec::new(),
            etc: Vec::new(),
            masked_files: Vec::new(),
            masked_directories: Vec::new(),
            groups: GroupFacts::default(),
            hard_limits: HardLimits {
                open_files: 1024,
                processes: 1024,
                core_bytes: 1,
                pending_signals: 1024,
                data_bytes: u64::MAX,
                locked_bytes: 0,
                file_bytes: u64::MAX,
                processor_seconds: u64::MAX,
            },
            last_capability: 40,
            landlock: 7,
            processor: Processor {
                store_bypass: Speculation::Unknown,
                indirect_branch: Speculation::Unknown,
                cores: Cores::Shared,
            },
            mitigations: true,
            user_limits_writable: true,
        }
    }

    #[test]
    fn what_is_said_of_the_processor_is_what_is_done_about_it() {
        let guesses = [
            (Speculation::Harmless, true, true),
            (Speculation::Off, true, true),
            (Speculation::Controllable, true, false),
            (Speculation::On, false, false),
            (Speculation::Unknown, false, false),
        ];
        let cores = [(Cores::Single, true, true), (Cores::Controllable, true, false), (Cores::Shared, false, false)];
        let says = |host: &Host, name| Protections::new(host, None, "none").in_force(name);
        for mitigations in [true, false] {
            let mut host = Host { mitigations, ..host() };
            let expected = |with, without| if mitigations { with } else { without };
            for (guess, with, without) in guesses {
                host.processor.store_bypass = guess;
                let said = says(&host, "no speculative store bypass");
                assert_eq!(said, expected(with, without), "{guess:?} {mitigations}");
                assert!(!says(&host, "no shared indirect branch speculation"), "the kernel does not say");
                host.processor.indirect_branch = guess;
                let said = says(&host, "no shared indirect branch speculation");
                assert_eq!(said, expected(with, without), "{guess:?} {mitigations}");
                host.processor.indirect_branch = Speculation::Unknown;
            }
            for (cores, with, without) in cores {
                host.processor.cores = cores;
                assert_eq!(says(&host, "no core shared at a time"), expected(with, without), "{cores:?} {mitigations}");
            }
        }
    }
}
