//! Which core runs a shard and which cores run its sandboxes.
//!
//! A pure function of the cores available and the `[cores]` section. The rule for `"auto"`:
//!
//! - up to four cores: one or two shards, which share every core with the sandboxes, because a core given to a shard
//!   alone would be a quarter of the machine or more;
//! - more: two shards, or one for every eight cores if that is more, each on a core of its own, spread evenly (where cores
//!   are numbered in order, eight neighbours share a last-level cache); every other core runs sandboxes.
//!
//! With `sandboxes = "auto"` a shard's sandboxes may run on any sandbox core, so that one busy function can use the whole
//! machine; `"near"` keeps them to the shard's own group of neighbours, which trades that for locality; `"shard"` runs them on
//! the shard's own core.
//!
//! Why: a hand-over between two threads that are awake takes a fraction of a microsecond, and waking one that sleeps on
//! another core an interrupt, some tens of microseconds on virtual machines; on the same core it is a switch of a few. So
//! where cores are to spare, shards have theirs to themselves and both sides look on before they sleep (`cores.spin`,
//! `sandbox.spin`); where they are few, nobody looks on, and the scheduler tends to run a woken sandbox where it was woken.
//! `"shard"` makes that certain: the least latency for sparse requests on a machine that must not spin, at the price of one
//! core for the shard and all its functions.
//!
//! Invariant: a core in a [`Topology`] is an available one, and every shard has at least one sandbox core.
//! It does not know simultaneous multithreading or memory nodes: where they matter, list the cores.

use super::checked::{Cores, SandboxCores, Shards};

/// At most this many shards, whatever the machine.
pub(super) const SHARDS_MAX: usize = 256;
/// Up to this many cores are shared between shards and sandboxes.
const SHARED_CORES_MAX: usize = 4;
/// Cores for each shard on a machine large enough for dedicated ones.
const CORES_PER_SHARD: usize = 8;

/// One shard's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardPlacement {
    /// The core of the shard's thread.
    pub core: usize,
    /// The cores its sandboxes may run on, ascending.
    pub sandbox_cores: Vec<usize>,
}

/// The places of all shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// One entry a shard; the position is the shard's number.
    pub shards: Vec<ShardPlacement>,
    /// Whether threads and sandboxes are bound to these cores.
    pub pin: bool,
}

impl Topology {
    /// Whether no sandbox runs on any shard's core, so that a shard may spin without slowing functions down.
    pub fn is_dedicated(&self) -> bool {
        let is_shard = |core: &usize| self.shards.iter().any(|shard| shard.core == *core);
        self.pin && !self.shards.iter().flat_map(|shard| &shard.sandbox_cores).any(is_shard)
    }
}

/// Why the cores asked for cannot be given. Each message says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// `cores.shards` asks for what is not there.
    #[error("{0}")]
    Shards(String),
    /// `cores.sandboxes` asks for what is not there.
    #[error("{0}")]
    Sandboxes(String),
}

/// Places shards and sandboxes on `available` cores (ascending, not empty).
pub fn topology(available: &[usize], cores: &Cores) -> Result<Topology, TopologyError> {
    let shard_cores = shard_cores(available, cores).map_err(TopologyError::Shards)?;
    let rest: Vec<usize> = available.iter().copied().filter(|core| !shard_cores.contains(core)).collect();
    // Dedicated cores only where the sandboxes keep at least as many cores as the shards take.
    let shared = available.len() <= SHARED_CORES_MAX || rest.len() < shard_cores.len();
    let candidates = if shared { available.to_vec() } else { rest };
    let sandboxes = |shard: usize| match &cores.sandboxes {
        SandboxCores::Auto => candidates.clone(),
        SandboxCores::Near => near(&candidates, shard, shard_cores.len()),
        SandboxCores::Shard => vec![shard_cores[shard]],
        SandboxCores::Cores(list) => list.clone(),
    };
    if let SandboxCores::Cores(list) = &cores.sandboxes {
        check_list(list, available).map_err(TopologyError::Sandboxes)?;
    }
    let placements = shard_cores.iter().enumerate();
    let shards =
        placements.map(|(shard, core)| ShardPlacement { core: *core, sandbox_cores: sandboxes(shard) }).collect();
    Ok(Topology { shards, pin: cores.pin })
}

fn shard_cores(available: &[usize], cores: &Cores) -> Result<Vec<usize>, String> {
    let count = match &cores.shards {
        Shards::Auto => automatic_count(available.len()),
        Shards::Count(count) => *count,
        Shards::Cores(list) => {
            check_list(list, available)?;
            return Ok(list.clone());
        }
    };
    if count == 0 || count > SHARDS_MAX {
        return Err(format!("{count} shards are out of range: write 1 to {SHARDS_MAX}, or \"auto\""));
    }
    if count > available.len() && cores.pin {
        return Err(format!(
            "{count} shards cannot each have a core of their own, this process may use {}: write a smaller number, \
             or set cores.pin = false",
            available.len()
        ));
    }
    Ok((0..count).map(|shard| available[spread(shard, count, available.len())]).collect())
}

fn automatic_count(cores: usize) -> usize {
    if cores <= SHARED_CORES_MAX {
        return cores.clamp(1, 2);
    }
    (cores / CORES_PER_SHARD).clamp(2, SHARDS_MAX)
}

/// The position of shard `shard` of `count` among `cores`: evenly apart, wrapping when there are more shards than cores.
fn spread(shard: usize, count: usize, cores: usize) -> usize {
    if count > cores { shard % cores } else { shard * cores / count }
}

/// The `shard`th of `count` nearly equal runs of `cores`; a run is never empty.
fn near(cores: &[usize], shard: usize, count: usize) -> Vec<usize> {
    let start = shard * cores.len() / count;
    let end = ((shard + 1) * cores.len() / count).max(start + 1);
    cores[start.min(cores.len() - 1)..end.min(cores.len())].to_vec()
}

fn check_list(list: &[usize], available: &[usize]) -> Result<(), String> {
    if list.is_empty() {
        return Err("the list of cores is empty: name at least one core, or write \"auto\"".to_owned());
    }
    if list.len() > SHARDS_MAX.max(available.len()) {
        return Err(format!("{} cores are listed, more than this process may use", list.len()));
    }
    if let Some(core) = list.iter().find(|core| !available.contains(core)) {
        return Err(format!("core {core} is not available to this process: it may use {}", ranges(available)));
    }
    match list.iter().enumerate().find(|(i, core)| list[..*i].contains(core)) {
        Some((_, core)) => Err(format!("core {core} is listed twice: list each core once")),
        None => Ok(()),
    }
}

/// Ascending core numbers as the kernel writes them: `0-3,8`.
pub(super) fn ranges(cores: &[usize]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for &core in cores {
        match parts.last_mut() {
            Some((_, end)) if *end + 1 == core => *end = core,
            _ => parts.push((core, core)),
        }
    }
    let print = |(start, end): &(usize, usize)| match start == end {
        true => start.to_string(),
        false => format!("{start}-{end}"),
    };
    parts.iter().map(print).collect::<Vec<String>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Spin;

    fn automatic() -> Cores {
        Cores { shards: Shards::Auto, sandboxes: SandboxCores::Auto, pin: true, spin: Spin::Auto }
    }

    fn on(cores: usize) -> Topology {
        let available: Vec<usize> = (0..cores).collect();
        topology(&available, &automatic()).unwrap()
    }

    fn shard_list(topology: &Topology) -> Vec<usize> {
        topology.shards.iter().map(|shard| shard.core).collect()
    }

    #[test]
    fn sandboxes_stay_on_their_shards_core_where_that_is_asked() {
        let available: Vec<usize> = (0..16).collect();
        let cores = Cores { sandboxes: SandboxCores::Shard, ..automatic() };
        let placed = topology(&available, &cores).unwrap();
        for shard in &placed.shards {
            assert_eq!(shard.sandbox_cores, [shard.core]);
        }
        assert!(!placed.is_dedicated(), "so no shard looks on");
    }

    #[test]
    fn small_machines_share_every_core() {
        for (cores, shards) in [(1, vec![0]), (2, vec![0, 1]), (4, vec![0, 2])] {
            let placed = on(cores);
            assert_eq!(shard_list(&placed), shards);
            for shard in &placed.shards {
                assert_eq!(shard.sandbox_cores, (0..cores).collect::<Vec<usize>>());
            }
            assert!(!placed.is_dedicated());
        }
    }

    #[test]
    fn large_machines_dedicate_one_core_in_eight() {
        let sixteen = on(16);
        assert_eq!(shard_list(&sixteen), [0, 8]);
        assert_eq!(sixteen.shards[0].sandbox_cores.len(), 14);
        let large = on(128);
        assert_eq!(shard_list(&large), (0..16).map(|shard| shard * 8).collect::<Vec<usize>>());
        assert_eq!(large.shards[5].sandbox_cores.len(), 112);
        assert!(sixteen.is_dedicated() && large.is_dedicated());
    }

    #[test]
    fn the_number_of_shards_never_falls_as_machines_grow() {
        let counts: Vec<usize> = (1..=1024).map(automatic_count).collect();
        assert!(counts.windows(2).all(|pair| pair[0] <= pair[1]));
    }

    #[test]
    fn near_sandboxes_stay_with_their_shard_and_miss_no_core() {
        let cores = Cores { sandboxes: SandboxCores::Near, ..automatic() };
        let available: Vec<usize> = (0..128).collect();
        let placed = topology(&available, &cores).unwrap();
        assert_eq!(placed.shards[1].sandbox_cores, [9, 10, 11, 12, 13, 14, 15]);
        let mut all: Vec<usize> = placed.shards.iter().flat_map(|shard| shard.sandbox_cores.clone()).collect();
        all.sort_unstable();
        assert_eq!(all, available.iter().copied().filter(|core| core % 8 != 0).collect::<Vec<usize>>());
    }

    #[test]
    fn cores_that_are_not_numbered_from_zero_work() {
        let placed = topology(&[5, 9], &automatic()).unwrap();
        assert_eq!(shard_list(&placed), [5, 9]);
        assert_eq!(placed.shards[0].sandbox_cores, [5, 9]);
    }

    #[test]
    fn lists_are_taken_as_written() {
        let cores = Cores {
            shards: Shards::Cores(vec![3, 1]),
            sandboxes: SandboxCores::Cores(vec![0]),
            pin: true,
            spin: Spin::Auto,
        };
        let placed = topology(&[0, 1, 2, 3], &cores).unwrap();
        assert_eq!(shard_list(&placed), [3, 1]);
        assert_eq!(placed.shards[1].sandbox_cores, [0]);
        assert!(placed.is_dedicated());
    }

    #[test]
    fn more_shards_than_cores_need_pinning_off() {
        let mut cores = Cores { shards: Shards::Count(5), ..automatic() };
        let refused = topology(&[0, 1], &cores).unwrap_err();
        assert!(refused.to_string().contains("cores.pin = false"));
        cores.pin = false;
        assert_eq!(shard_list(&topology(&[0, 1], &cores).unwrap()), [0, 1, 0, 1, 0]);
    }

    #[test]
    fn cores_that_are_not_there_are_refused() {
        let list = |shards| Cores { shards: Shards::Cores(shards), ..automatic() };
        let message = |shards| topology(&[0, 1, 2, 8], &list(shards)).unwrap_err().to_string();
        assert!(message(vec![0, 99]).contains("core 99 is not available"));
        assert!(message(vec![0, 99]).contains("0-2,8"));
        assert!(message(vec![1, 1]).contains("twice"));
        assert!(message(vec![]).contains("empty"));
        let none = Cores { shards: Shards::Count(0), ..automatic() };
        assert!(matches!(topology(&[0], &none), Err(TopologyError::Shards(_))));
    }
}
