//! How many descriptors a worker has open at most, and how many sandboxes a limit on them allows.
//!
//! Invariant: pure but for reading and raising the limit of this process. What one idle sandbox costs is counted by a test of the whole
//! worker (`tests/suite/end_to_end/descriptors.rs`). It knows settings, and nothing that has descriptors.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use vilya_isolate::limits::SHARED_DESCRIPTORS;

use crate::config::Config;

/// Of a sandbox: its doorbell, and the reading ends of its output and errors.
pub const OF_SANDBOX: u64 = 3;
/// Of a sandbox, in the table of its shard's ring: its process.
const KEPT_OF_SANDBOX: u32 = 1;
/// Of one that is made before it is needed, and of a ring that waits for it: its process, socket and network; the doorbell twice, both
/// regions, and both ends of two pipes.
const OF_PREPARED: u64 = 3 + 8;
/// Besides those of a sandbox, while it starts: what becomes its own, and what it is attached with.
const OF_START: u64 = 12;
/// Of a shard: its ring, its wake-up, and three listening sockets.
const OF_SHARD: u64 = 5;
/// Of the process: standard streams, the registry, the log's files, the threads off the path, images of zygotes.
const OF_PROCESS: u64 = 128;
/// Of the limit, the part that sandboxes made ahead may take.
const PREPARED_SHARE: u64 = 10;

/// What a configuration wants descriptors for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Shards.
    pub shards: u64,
    /// Connections of all shards.
    pub connections: u64,
    /// Sandboxes alive at once.
    pub sandboxes: u64,
    /// Sandboxes that start at once.
    pub starting: u64,
    /// Sandboxes made ahead, and those that have loaded an image.
    pub prepared: u64,
    /// Descriptors of each sandbox that keep its way to other machines.
    pub links: u64,
}

impl Wanted {
    /// Of a configuration.
    #[must_use]
    pub fn by(config: &Config) -> Wanted {
        let shards = config.topology.shards.len() as u64;
        let sandbox = &config.sandbox;
        let of_images = u64::from(sandbox.prepared_images) * vilya_isolate::OF_IMAGE as u64;
        Wanted {
            shards,
            connections: shards * u64::from(config.server.connections),
            sandboxes: config.limits.sandboxes.into(),
            starting: config.limits.starting.into(),
            prepared: u64::from(sandbox.prepared) + u64::from(sandbox.loaded) + of_images,
            links: config.sandbox.network.egress.allowed.into(),
        }
    }

    /// Descriptors for everything but sandboxes and connections.
    fn base(&self) -> u64 {
        let Wanted { shards, starting, prepared, .. } = *self;
        OF_PROCESS + SHARED_DESCRIPTORS as u64 + OF_SHARD * shards + OF_START * starting + OF_PREPARED * prepared
    }

    /// Descriptors of each sandbox.
    fn each(&self) -> u64 {
        OF_SANDBOX + self.links
    }

    /// Descriptors for everything at once.
    #[must_use]
    pub fn needed(&self) -> u64 {
        self.base() + self.connections + self.each() * self.sandboxes
    }

    /// Sandboxes that can be alive under a limit while every connection is open.
    #[must_use]
    pub fn sandboxes_within(&self, limit: u64) -> u64 {
        limit.saturating_sub(self.base() + self.connections) / self.each()
    }

    /// Sandboxes to be made ahead under a limit: what they have open leaves nearly all of it to those that are used.
    #[must_use]
    pub fn prepared_within(&self, limit: u64) -> u64 {
        self.prepared.min(limit / PREPARED_SHARE / OF_PREPARED)
    }
}

/// Files that the ring of a shard with so many sandboxes keeps: the kernel allows no more than a process may have descriptors.
pub(crate) fn kept_within(sandboxes: u32) -> u32 {
    let limit = limit().map_or(0, |(soft, _)| u32::try_from(soft).unwrap_or(u32::MAX));
    sandboxes.saturating_mul(KEPT_OF_SANDBOX).min(limit).min(vilya_reactor::FILES_MAX)
}

/// The limit of this process: what it may have open now, and what it may raise that to.
///
/// # Errors
/// What the system said.
pub fn limit() -> std::io::Result<(u64, u64)> {
    Ok(getrlimit(Resource::RLIMIT_NOFILE)?)
}

/// Raises the soft limit to the hard one, and says so if that is not enough; the limit.
pub(crate) fn raise_limit(wanted: &Wanted) -> u64 {
    let raised = limit().and_then(|(_, hard)| {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        Ok(hard)
    });
    match raised {
        Ok(limit) => {
            if wanted.needed() > limit {
                tracing::warn!(
                    "this process may have {limit} files open, and {} sandboxes with {} connections may need {}: raise the limit \
                     (systemd: LimitNOFILE=, shell: ulimit -n), or lower limits.sandboxes or server.connections",
                    wanted.sandboxes,
                    wanted.connections,
                    wanted.needed()
                );
            }
            limit
        }
        Err(error) => {
            tracing::warn!("the limit of open files could not be raised: {error}");
            limit().map_or(u64::MAX, |(soft, _)| soft)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{OF_SANDBOX, Wanted};

    const WANTED: Wanted = Wanted { shards: 2, connections: 1000, sandboxes: 100, starting: 4, prepared: 16, links: 0 };

    #[test]
    fn what_fits_is_what_is_needed_the_other_way_round() {
        let needed = WANTED.needed();
        assert_eq!(WANTED.sandboxes_within(needed), 100);
        assert_eq!(WANTED.sandboxes_within(needed - 1), 99);
        assert_eq!(WANTED.sandboxes_within(needed + OF_SANDBOX), 101);
        assert_eq!(WANTED.sandboxes_within(64), 0);
        let let_out = Wanted { links: 1, ..WANTED };
        assert_eq!((let_out.sandboxes_within(needed), let_out.sandboxes_within(let_out.needed())), (75, 100));
    }

    #[test]
    fn few_descriptors_make_few_sandboxes_ahead() {
        assert_eq!(WANTED.prepared_within(20_000), 16);
        assert_eq!(WANTED.prepared_within(1024), 9);
        assert_eq!(WANTED.prepared_within(64), 0);
    }
}
