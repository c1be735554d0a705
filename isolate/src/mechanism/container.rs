//! A sandbox that another program made: what its mechanism does at its end, and what protects it.
//!
//! Owns: the seam between `Remains` and a mechanism, and what is true of every container. Invariant: a container is ended once, and what could not be removed is named.
//! Does not know: who made it.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use crate::cgroup::{Precedence, Switches};
use crate::freezer::Freezer;
use crate::protections::{Protection, Protections};
use crate::remains::Exit;

/// What a mechanism leaves in the remains of a sandbox.
pub(crate) trait Container: fmt::Debug + Send {
    /// Kills it, besides the signal that its first process was sent already. Whether that arrived is said.
    fn kill(&self, signalled: bool);

    /// What freezes and thaws it, where something does.
    fn freezer(&self) -> Option<Freezer>;

    /// What has it give way to others, where something does.
    fn precedence(&self) -> Option<Precedence>;

    /// Waits until it is dead, and removes it.
    fn end(self: Box<Self>, pidfd: BorrowedFd<'_>) -> End;
}

/// What came of a container.
pub(crate) struct End {
    pub(crate) exit: Exit,
    /// Whether the kernel killed a process of it for memory.
    pub(crate) starved: bool,
    /// What could not be removed.
    pub(crate) left_behind: Vec<PathBuf>,
}

/// What differs from one mechanism to the other in how containers are confined.
pub(crate) struct Confined<'a> {
    pub(crate) users: Protection,
    /// Whose the mount namespace is.
    pub(crate) mounts: &'static str,
    /// What of the system is seen.
    pub(crate) system: &'static str,
    /// Who loads the list of system calls.
    pub(crate) filter: &'static str,
    pub(crate) limits: [Protection; 3],
    /// What was found of the groups of a trial container.
    pub(crate) switches: &'a Switches,
    /// What freezes where its groups do not, if something does.
    pub(crate) pauses: Option<&'static str>,
}

pub(crate) fn protections(confined: Confined<'_>) -> Protections {
    let Confined { users, mounts, system, filter, limits, switches, pauses } = confined;
    let (yes, no) = (Protection::yes, Protection::no);
    let mut list = vec![
        users,
        yes("pid namespace", "own processes only, own /proc"),
        yes("mount namespace", mounts),
        yes("network namespace", "loopback only"),
        yes("ipc namespace", ""),
        yes("uts namespace", ""),
        yes("cgroup namespace", ""),
        yes("read-only system", system),
        yes("capabilities dropped", "every set"),
        yes("no_new_privs", ""),
        yes("seccomp", filter),
        no(
            "processor mitigations",
            "whatever the worker was started with; mechanism = \"native\" turns off what the kernel can",
        ),
        no("landlock", "no runtime can be told; mechanism = \"native\" has it"),
        no("nested user namespaces", "only seccomp forbids them; mechanism = \"native\" sets their limit to 0 too"),
        no(
            "dies with the worker",
            "a container outlives a worker that is killed, until the next start removes it; mechanism = \"native\" does not",
        ),
        yes("supplementary groups dropped", "none"),
        yes("no core dumps", "neither written nor piped to a program of the host"),
        freezing(switches, pauses),
        giving_way(switches),
    ];
    list.extend(limits);
    Protections::from(list)
}

fn freezing(switches: &Switches, pauses: Option<&str>) -> Protection {
    const NAME: &str = "frozen while idle";
    match (switches.freezes(), pauses) {
        (Ok(by), _) => Protection::yes(NAME, &by),
        (Err(_), Some(by)) => Protection::yes(NAME, by),
        (Err(why), None) => Protection::no(NAME, &format!("idle containers run on: {why}")),
    }
}

fn giving_way(switches: &Switches) -> Protection {
    const NAME: &str = "long runs give way";
    match switches.gives_precedence() {
        Ok(by) => Protection::yes(NAME, &by),
        Err(why) => Protection::no(NAME, &format!("containers keep their slices: {why}")),
    }
}
