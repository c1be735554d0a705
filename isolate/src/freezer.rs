//! Stopping everything in a sandbox, and letting it run again, by whichever way its mechanism has.
//!
//! Owns: which way that is. Invariant: what was asked for last, by whoever asks one after the other, is what stays. Does not know: why
//! something is frozen.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::cgroup::GroupFreezer;
use crate::warden::Ward;

/// Freezes and thaws one sandbox.
#[derive(Clone, Debug)]
pub struct Freezer(By);

#[derive(Clone, Debug)]
enum By {
    /// Its control group.
    Group(GroupFreezer),
    /// A process of ours that traces it.
    Warden(Arc<Ward>),
    /// A program that is asked, which may take its time.
    Asked(Arc<dyn Pausing>),
}

/// A program that stops a container and lets it run again, in bounded time.
pub(crate) trait Pausing: fmt::Debug + Send + Sync {
    fn set_paused(&self, paused: bool) -> Result<(), String>;
}

impl From<GroupFreezer> for Freezer {
    fn from(group: GroupFreezer) -> Freezer {
        Freezer(By::Group(group))
    }
}

impl From<Arc<Ward>> for Freezer {
    fn from(ward: Arc<Ward>) -> Freezer {
        Freezer(By::Warden(ward))
    }
}

impl Freezer {
    pub(crate) fn asking(program: Arc<dyn Pausing>) -> Freezer {
        Freezer(By::Asked(program))
    }

    /// Has every process of the sandbox stop, also those that it makes at this moment. They may run on for a moment after this returns.
    ///
    /// # Errors
    /// When it is refused; the sandbox runs on.
    pub fn freeze(&self) -> io::Result<()> {
        self.set(true)
    }

    /// Lets them run again. System calls in which they were stopped go on, or end as after SIGCONT.
    ///
    /// # Errors
    /// When it is refused, as it is when the sandbox has been cleaned up after.
    pub fn thaw(&self) -> io::Result<()> {
        self.set(false)
    }

    fn set(&self, frozen: bool) -> io::Result<()> {
        match &self.0 {
            By::Group(group) => group.set(frozen),
            By::Warden(ward) => ward.set_stopped(frozen),
            By::Asked(program) => program.set_paused(frozen).map_err(io::Error::other),
        }
    }

    /// Whether it takes microseconds, or half a second at the very most; otherwise it may take seconds.
    #[must_use]
    pub fn is_prompt(&self) -> bool {
        !matches!(self.0, By::Asked(_))
    }

    /// Whether a frozen process that was killed does not die before it is thawed.
    #[must_use]
    pub fn holds_the_killed(&self) -> bool {
        match &self.0 {
            By::Group(group) => group.holds_the_killed(),
            By::Warden(_) => false,
            // By which group it stops them is its own affair.
            By::Asked(_) => true,
        }
    }
}
