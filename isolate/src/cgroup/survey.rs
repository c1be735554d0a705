//! What there is of control groups, without making any.
//!
//! Invariant: nothing is changed. Does not know: which of it a worker will use; that is tried (`detect`).

use std::path::PathBuf;

use super::detect::{Mounted, available, mounted};
use super::{Controller, Version};
use crate::offers::Hierarchy;
use crate::sys;

pub(crate) fn survey() -> Result<Vec<Hierarchy>, String> {
    Ok(mounted()?.iter().map(look).collect())
}

fn look(mounted: &Mounted) -> Hierarchy {
    let own = mounted.point.join(&mounted.own);
    let is_root = sys::is_root();
    // Root divides from the top; a user what it was given.
    let top: PathBuf = if is_root { mounted.point.clone() } else { own };
    let (version, controllers, gate) = match mounted.version {
        Version::One => (1, mounted.controllers.clone(), top.clone()),
        Version::Two => (2, available(&top), top.join("cgroup.subtree_control")),
    };
    Hierarchy {
        version,
        point: mounted.point.clone(),
        controllers: controllers.into_iter().map(Controller::name).collect(),
        divisible: sys::may_write(&top) && sys::may_write(&gate),
    }
}
