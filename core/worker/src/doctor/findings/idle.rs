//! What freezes idle sandboxes, by each mechanism that is there.
//!
//! Invariant: of the mechanism that was tried it is what the trial found; of others what the host offers them.

use super::super::Finding;
use super::super::facts::Facts;
use super::{limited, ok};
use crate::mechanisms::MechanismKind;

const GROUP: &str = "idle";

pub(super) fn idle(facts: &Facts) -> Vec<Finding> {
    let there = [(MechanismKind::Oci, &facts.oci), (MechanismKind::Docker, &facts.docker)];
    let others = there.into_iter().filter(|(kind, found)| *kind != facts.mechanism && found.is_ok());
    tried(facts).into_iter().chain(others.map(|(kind, _)| offered(kind, facts.container_freezer))).collect()
}

/// Why it is not, and what mends that, is said among the protections.
fn tried(facts: &Facts) -> Option<Finding> {
    let protections = facts.sandboxes.as_ref().ok()?;
    let freezes = protections.iter().find(|one| one.name == "frozen while idle")?;
    let name = format!("{}: {}", facts.mechanism.as_str(), freezes.detail);
    freezes.in_force.then(|| ok(GROUP, &name, "found by a trial sandbox"))
}

fn offered(kind: MechanismKind, freezer: Result<&str, &str>) -> Finding {
    let by = |by: &str| ok(GROUP, &format!("{}: {by}", kind.as_str()), "as far as it can be told without a container");
    match (freezer, kind) {
        (Ok(freezer), _) => by(freezer),
        (Err(_), MechanismKind::Docker) => by("paused by the engine"),
        (Err(why), _) => {
            let detail = format!("idle containers run on: {why}");
            limited(GROUP, &format!("{} while idle", kind.as_str()), detail, "mount -t cgroup2 none /sys/fs/cgroup")
        }
    }
}
