//! The cores that a worker of this configuration would use, and what else the kernel does with them and with memory.

use super::{limited, ok};
use crate::config::core_ranges;
use crate::doctor::Finding;
use crate::doctor::facts::Facts;

const ISOLATED: &str = "/sys/devices/system/cpu/isolated";
const WITHOUT_TICKS: &str = "/sys/devices/system/cpu/nohz_full";
const HUGE_PAGES: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

pub(super) fn cores(facts: &Facts) -> Vec<Finding> {
    [isolation(facts), huge_pages(facts)].into_iter().flatten().collect()
}

/// On cores that are isolated the kernel moves no process to one that is free.
fn isolation(facts: &Facts) -> Option<Finding> {
    let isolated = listed(facts, ISOLATED)?;
    let shards: Vec<usize> = facts.shard_cores.iter().copied().filter(|core| isolated.contains(core)).collect();
    let sandboxes: Vec<usize> = facts.sandbox_cores.iter().copied().filter(|core| isolated.contains(core)).collect();
    let without_ticks = listed(facts, WITHOUT_TICKS).unwrap_or_default();
    let name = "isolated cores";
    Some(if sandboxes.len() > 1 {
        let detail = format!(
            "sandboxes run on {sandboxes:?}, where the kernel leaves each on the core it began on, beside idle ones"
        );
        limited("neighbours", name, detail, "set cores.sandboxes to others, or boot with fewer in isolcpus=")
    } else if shards.is_empty() {
        ok(
            "neighbours",
            name,
            "none of the shards': other programs run there too, until isolcpus= and nohz_full= name them",
        )
    } else {
        let ticks = shards.iter().filter(|core| !without_ticks.contains(core)).count();
        ok("neighbours", name, format!("of shards: {shards:?}, {ticks} of them with a timer's tick"))
    })
}

fn huge_pages(facts: &Facts) -> Option<Finding> {
    let name = "huge pages";
    let setting = facts.text(HUGE_PAGES)?;
    let chosen = setting.split(['[', ']']).nth(1).unwrap_or(setting);
    Some(if chosen == "always" {
        let detail = "always: a sandbox that touches a little of its heap may be charged two mebibytes for it";
        limited("neighbours", name, detail, &format!("echo madvise > {HUGE_PAGES}"))
    } else {
        ok("neighbours", name, chosen)
    })
}

/// A list of cores; the kernel writes an empty line, or `(null)`, where there are none.
fn listed(facts: &Facts, path: &str) -> Option<Vec<usize>> {
    facts.text(path).map(|text| core_ranges(text).unwrap_or_default())
}
