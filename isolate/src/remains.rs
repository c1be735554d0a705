//! What is left of a sandbox: how to kill it, how it ended, and what must be cleaned after it.
//!
//! Owns: the end of a sandbox's life. Invariant: [`Remains::reap`] leaves no zombie and no control group, or says which group it could not
//! remove. Does not know: how it was started, or why it must die.

use std::cell::Cell;
use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use crate::cgroup::{Group, MemoryUsage, Precedence};
use crate::freezer::Freezer;
use crate::keeper::Keeper;
use crate::leader::Leader;
use crate::mechanism::container::{Container, End};
use crate::network::Network;
use crate::reach::Kept;
use crate::sys::Status;
use crate::users::UserLease;
use crate::warden::Ward;

/// What must be cleaned after a sandbox's death.
#[derive(Debug)]
#[must_use = "a sandbox that is not reaped leaves a zombie and its control groups"]
pub struct Remains {
    leader: Leader,
    pub(crate) group: Option<Group>,
    /// What stops it, where its group does not.
    pub(crate) ward: Option<Arc<Ward>>,
    /// Its record in the state directory, where no control group remembers it.
    pub(crate) record: Option<PathBuf>,
    /// Given back when it is dead.
    pub(crate) user: Option<UserLease>,
    /// Held so that it outlives the sandbox, which would die with it.
    pub(crate) keeper: Option<Arc<Keeper>>,
    /// Of a sandbox that another program made.
    pub(crate) container: Option<Box<dyn Container>>,
    pub(crate) killed: Cell<bool>,
    /// Its network namespace, where that was made ahead; goes back when it is dead.
    pub(crate) network: Option<Network>,
    /// What it reaches others through.
    pub(crate) kept: Kept,
}

/// How a sandbox ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How its first process ended.
    pub exit: Exit,
    /// Whether the kernel killed it, not the worker, because of its memory limit.
    pub out_of_memory: bool,
    /// Control groups that could not be removed; the next sweep tries again.
    pub left_behind: Vec<PathBuf>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this status.
    Code(i32),
    /// This signal killed it. The first process of a pid namespace is not killed by signals that it sends itself: `abort` ends as the
    /// fault that libc falls back on.
    Signal(i32),
    /// Somebody else reaped it.
    Unknown,
}

impl Remains {
    pub(crate) fn new(
        pidfd: OwnedFd,
        group: Option<Group>,
        user: Option<UserLease>,
        keeper: Arc<Keeper>,
        network: Option<Network>,
    ) -> Remains {
        let (keeper, killed) = (Some(keeper), Cell::new(false));
        let kept = Kept::default();
        Remains {
            leader: Leader::Pidfd(pidfd),
            group,
            ward: None,
            record: None,
            user,
            keeper,
            container: None,
            killed,
            network,
            kept,
        }
    }

    /// Of a sandbox that another program made.
    pub(crate) fn of_container(pidfd: OwnedFd, container: Box<dyn Container>) -> Remains {
        let killed = Cell::new(false);
        Remains {
            leader: Leader::Pidfd(pidfd),
            group: None,
            ward: None,
            record: None,
            user: None,
            keeper: None,
            container: Some(container),
            killed,
            network: None,
            kept: Kept::default(),
        }
    }

    /// Readable when the sandbox is dead.
    ///
    /// # Panics
    /// After [`Started::give_pidfd`](crate::Started::give_pidfd).
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.leader.pidfd()
    }

    /// See [`Started::give_pidfd`](crate::Started::give_pidfd).
    pub(crate) fn give_pidfd(&mut self, pid: i32) -> io::Result<OwnedFd> {
        match self.container {
            // Others have a say in when its process is reaped.
            Some(_) => self.leader.pidfd().try_clone_to_owned(),
            None => self.leader.give(pid),
        }
    }

    /// Kills every process of it. Death is learned from the pidfd; of a frozen one whose freezer [holds](Freezer::holds_the_killed) what was
    /// killed and is not [prompt](Freezer::is_prompt), only after a thaw.
    pub fn kill(&self) {
        self.killed.set(true);
        // While it lives: the dead are in no namespace.
        self.network.iter().for_each(Network::hold);
        if let Some(group) = &self.group {
            group.kill();
        }
        // Its first process takes the whole pid namespace with it. An error means that it is dead and reaped.
        let signalled = self.leader.kill().is_ok();
        if let Some(container) = &self.container {
            container.kill(signalled);
        }
        if let Some(freezer) = self.freezer().filter(|freezer| freezer.is_prompt() && freezer.holds_the_killed()) {
            // It fails if nothing is left to be thawed.
            let _ = freezer.thaw();
        }
    }

    /// Where to read what memory it is charged, where a control group counts that.
    #[must_use]
    pub fn memory_usage(&self) -> Option<MemoryUsage> {
        self.group.as_ref().and_then(Group::memory_usage)
    }

    /// What freezes and thaws it, where something does.
    #[must_use]
    pub fn freezer(&self) -> Option<Freezer> {
        let ours = self.group.as_ref().and_then(Group::freezer).map(Freezer::from);
        let traced = || self.ward.clone().map(Freezer::from);
        ours.or_else(traced).or_else(|| self.container.as_ref()?.freezer())
    }

    /// What has it give way to others, where something does.
    #[must_use]
    pub fn precedence(&self) -> Option<Precedence> {
        let ours = self.group.as_ref().and_then(Group::precedence);
        ours.or_else(|| self.container.as_ref()?.precedence())
    }

    /// Waits until it is dead, and cleans. Off the path of requests: removing a control group can take milliseconds.
    #[must_use]
    pub fn reap(self) -> Ended {
        if let Some(container) = self.container {
            let End { exit, starved, left_behind } = container.end(self.leader.pidfd());
            return Ended { exit, out_of_memory: starved && !self.killed.get() && exit != Exit::Code(0), left_behind };
        }
        self.ward.iter().for_each(|ward| ward.forget());
        let exit = match self.leader.wait() {
            Ok(Status::Exited(code)) => Exit::Code(code),
            Ok(Status::Killed(signal)) => Exit::Signal(signal),
            Err(_) => Exit::Unknown,
        };
        let starved = self.group.as_ref().is_some_and(Group::ran_out_of_memory);
        let left_behind = self.group.map_or_else(Vec::new, Group::remove);
        if let Some(record) = self.record {
            // A record that stays names a dead process; the next sweep removes it.
            let _ = fs::remove_file(record);
        }
        if exit != Exit::Unknown {
            self.network.into_iter().for_each(Network::give_back);
        }
        drop((self.user, self.keeper, self.kept));
        let out_of_memory = starved && !self.killed.get() && exit != Exit::Code(0);
        Ended { exit, out_of_memory, left_behind }
    }
}
