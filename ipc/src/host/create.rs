//! Making a sandbox's regions and doorbell: map, then take away every other way to write, then hand out.

use super::Host;
use crate::layout::{Geometry, GeometryError, RegionSpec};
use crate::region::{OwnRegion, PeerRegion, memory};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use thiserror::Error;

/// The bytes made present at the start of a region, at most: all the slots of a sandbox with few lanes.
const POPULATE_BYTES: u64 = 64 << 10;

/// What keeps a sandbox from writing the down region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOnlyBy {
    /// The region's owner and mode: for a sandbox that runs as another user than the worker, without capabilities over
    /// the worker's. It is handed a description that only reads, and may open no other. The worker can give memory of
    /// the region back ([`Host::trim`]).
    Permission,
    /// A seal: for a sandbox that runs as the worker's own user, who could change any mode. It also keeps the worker
    /// from giving memory of the region back.
    Seal,
}

/// What a sandbox gets as its descriptors 3, 4 and 5. All are close-on-exec until they are moved there.
#[derive(Debug)]
pub struct GuestFds {
    /// The down region; read-only (with a seal and without `/proc`, by that alone).
    pub down: OwnedFd,
    /// The up region; its size sealed.
    pub up: OwnedFd,
    /// The eventfd the sandbox writes when the worker parked.
    pub doorbell: OwnedFd,
}

/// Why a sandbox's regions could not be made.
#[derive(Debug, Error)]
pub enum CreateError {
    /// The spec is outside the limits of the ABI.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// The machine refused memory, descriptors or seals.
    #[error("cannot {step} a sandbox's shared memory ({source}); check the open-file and memory limits of the worker")]
    System {
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Host {
    /// Makes the regions and the doorbell of one sandbox.
    ///
    /// # Errors
    /// The spec is outside the limits, or the machine has no memory or descriptors left.
    pub fn create(spec: &RegionSpec, read_only_by: ReadOnlyBy) -> Result<(Host, GuestFds), CreateError> {
        Host::create_at(spec, read_only_by, 0)
    }

    /// [`Host::create`] with the indices of both rings starting at `start`.
    pub(crate) fn create_at(
        spec: &RegionSpec,
        read_only_by: ReadOnlyBy,
        start: u32,
    ) -> Result<(Host, GuestFds), CreateError> {
        let step = |step| move |source| CreateError::System { step, source };
        let geometry = Geometry::new(spec)?;
        let down_fd = memory::create(c"vilya-down", geometry.down_bytes()).map_err(step("create"))?;
        let up_fd = memory::create(c"vilya-up", geometry.up_bytes()).map_err(step("create"))?;
        let down = OwnRegion::map(down_fd.as_fd(), geometry.down_bytes()).map_err(step("map"))?;
        let down_fd = protect(down_fd, read_only_by)?;
        memory::seal_size(up_fd.as_fd()).map_err(step("seal"))?;
        let up = PeerRegion::map(up_fd.as_fd(), geometry.up_bytes()).map_err(step("map"))?;
        // The rings' pages are there before the first message, so that it takes no page fault.
        down.populate(geometry.request_offset.min(POPULATE_BYTES)).map_err(step("populate"))?;
        up.populate(geometry.response_offset.min(POPULATE_BYTES)).map_err(step("populate"))?;
        let doorbell: OwnedFd = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|errno| CreateError::System { step: "make the doorbell of", source: errno.into() })?
            .into();
        let theirs = doorbell.try_clone().map_err(step("share"))?;
        let mut host = Host::assemble(geometry, down, up, doorbell, start);
        host.read_only_by = read_only_by;
        Ok((host, GuestFds { down: down_fd, up: up_fd, doorbell: theirs }))
    }

    /// A host whose regions lie on the heap, and the writing view of its up region.
    #[cfg(any(test, fuzzing, feature = "fuzzing"))]
    pub(crate) fn on_heap(spec: &RegionSpec) -> (Host, OwnRegion) {
        let geometry = Geometry::new(spec).expect("tests ask for sound regions");
        let (down, _) = crate::region::heap_pair(geometry.down_bytes());
        let (theirs, up) = crate::region::heap_pair(geometry.up_bytes());
        let doorbell = EventFd::new().expect("a descriptor is left");
        (Host::assemble(geometry, down, up, doorbell.into(), 0), theirs)
    }
}

/// Takes every way to write the down region but the worker's mapping, which exists. What to hand out.
fn protect(fd: OwnedFd, read_only_by: ReadOnlyBy) -> Result<OwnedFd, CreateError> {
    let step = |step| move |source| CreateError::System { step, source };
    match read_only_by {
        ReadOnlyBy::Permission => {
            memory::restrict(fd.as_fd()).map_err(step("restrict"))?;
            memory::seal_size(fd.as_fd()).map_err(step("seal"))?;
            // The description that writes closes here, and nobody can open another.
            memory::read_only(fd.as_fd()).map_err(step("reopen"))
        }
        ReadOnlyBy::Seal => {
            memory::seal_writes(fd.as_fd()).map_err(step("seal"))?;
            // Without /proc the seal alone keeps it from being written.
            Ok(memory::read_only(fd.as_fd()).unwrap_or(fd))
        }
    }
}
