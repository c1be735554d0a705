//! What a way of making sandboxes offers, whichever it is.
//!
//! Owns: the [`Mechanism`] trait and what goes in and out of it. Invariant: a start either gives a running sandbox together with everything
//! that must be cleaned after it, or nothing at all. Does not know: any one mechanism.

pub(crate) mod container;
pub(crate) mod docker;
mod layout;
pub(crate) mod oci;

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use crate::cgroup::{GroupError, MemoryUsage};
use crate::limits::MEMORY_BYTES_LEAST;
use crate::native::SetupError;
use crate::pool::PoolOptions;
use crate::prepared::Unfinished;
use crate::protections::Protections;
use crate::reach::Reach;
use crate::reach::egress::EgressError;
use crate::remains::Remains;
use crate::spec::{ResourceLimits, Root, Spec, SpecError};
use crate::sys;
use crate::zygote::Image;

/// A way of making sandboxes.
pub trait Mechanism: Send {
    /// Its name, for logs and metrics.
    fn name(&self) -> &'static str;

    /// Whether each sandbox runs as a user of the host that is not the worker's, without capabilities over it.
    fn distinct_users(&self) -> bool;

    /// Makes sandboxes ahead, if it can; whether it does. Starts that they cannot serve are made as without.
    ///
    /// # Errors
    /// When it could and fails.
    fn prepare(&mut self, _options: PoolOptions) -> Result<bool, StartError> {
        Ok(false)
    }

    /// Starts a sandbox. The calling thread must live as long as the worker: sandboxes die with the thread that started them.
    ///
    /// # Errors
    /// When it could not be started; nothing of it is left then.
    fn start(&mut self, spec: &Spec, descriptors: Descriptors) -> Result<Started, StartError>;

    /// Begins a start as far as it needs this mechanism, so that the next can begin: of a copy, if one is asked for and if this mechanism
    /// can make it for this spec; otherwise of the spec's program. The calling thread must live as long as the worker.
    ///
    /// # Errors
    /// As [`Mechanism::start`].
    fn begin(&mut self, spec: &Spec, descriptors: Descriptors, _copy: Option<CopyOf<'_>>) -> Result<Begun, StartError> {
        self.start(spec, descriptors).map(|started| Begun::Done(Box::new(started)))
    }

    /// Gives a sandbox that this mechanism started from the template of [`Mechanism::prepare`], and in which only code of ours has run,
    /// what is the spec's own: its binds, memory limit and cores. Whether it could; its program stays what it is.
    ///
    /// # Errors
    /// When something of that could not be given; the sandbox must be ended then.
    fn give(&mut self, _spec: &Spec, _started: &Started) -> Result<bool, StartError> {
        Ok(false)
    }

    /// Has a sandbox that waits load the image that a start of this spec will be a copy of, so that the start has less to do; whether one
    /// does. The calling thread must be the one that starts.
    ///
    /// # Errors
    /// When one waits and cannot be given what is its own.
    fn load(&mut self, _spec: &Spec, _copy: CopyOf<'_>) -> Result<bool, StartError> {
        Ok(false)
    }

    /// Ends the sandboxes that have loaded an image which is not wanted any more; how many have loaded one then.
    fn keep_loaded(&mut self, _is_wanted: &mut dyn FnMut(&Arc<Image>) -> bool) -> usize {
        0
    }

    /// The sandboxes that were made ahead and wait now.
    fn waiting(&self) -> Vec<WaitingSandbox> {
        Vec::new()
    }

    /// Which protections are in force.
    fn protections(&self) -> &Protections;
}

/// A sandbox that was made ahead and waits to be told what to become.
#[derive(Clone, Debug)]
pub struct WaitingSandbox {
    /// Process id on the host.
    pub pid: i32,
    /// When it was made.
    pub since: Instant,
    /// The image that it has loaded.
    pub loaded: Option<Arc<Image>>,
    /// Where to read what memory it is charged; none where no control group counts that.
    pub memory: Option<MemoryUsage>,
}

/// Which image a sandbox is to be a copy of.
#[derive(Clone, Copy, Debug)]
pub struct CopyOf<'a> {
    /// The image.
    pub image: &'a Arc<Image>,
    /// Whether the image is of a runtime that knew no function yet: the copy reads the spec's environment from descriptor 13, each
    /// variable as `NAME=value` and a NUL, to the end.
    pub tells_environment: bool,
}

/// A start that has begun.
#[derive(Debug)]
#[must_use = "a start is not over before it is finished"]
pub enum Begun {
    /// And is over.
    Done(Box<Started>),
    /// And goes on in the sandbox.
    Unfinished(Box<Unfinished>),
}

impl Begun {
    /// Waits until it is over, on any thread.
    ///
    /// # Errors
    /// As [`Mechanism::start`]. A copy that fails says nothing against starting the program.
    pub fn finish(self) -> Result<Started, StartError> {
        match self {
            Begun::Done(started) => Ok(*started),
            Begun::Unfinished(unfinished) => unfinished.finish(),
        }
    }
}

/// What a sandbox is given. It has no other descriptor but 0, which is `/dev/null`.
#[derive(Debug)]
pub struct Descriptors {
    /// Become 3, 4 and 5: the two halves of the shared region and the doorbell.
    pub ring: [OwnedFd; 3],
    /// Becomes 1.
    pub stdout: OwnedFd,
    /// Becomes 2.
    pub stderr: OwnedFd,
}

impl Descriptors {
    /// For a trial: `/dev/null` five times.
    pub(crate) fn nowhere() -> Result<Descriptors, SetupError> {
        let open = || {
            let file = File::options().read(true).write(true).open("/dev/null");
            file.map(OwnedFd::from).map_err(|source| SetupError::Open { what: "/dev/null", source })
        };
        Ok(Descriptors { ring: [open()?, open()?, open()?], stdout: open()?, stderr: open()? })
    }
}

/// A sandbox that runs its program.
#[derive(Debug)]
pub struct Started {
    /// Process id on the host.
    pub pid: i32,
    /// Where the time went.
    pub stages: Stages,
    /// What must be cleaned after its death.
    pub remains: Remains,
}

impl Started {
    /// Readable when the sandbox is dead.
    ///
    /// # Panics
    /// After [`Started::give_pidfd`].
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.remains.pidfd()
    }

    /// Gives away what is readable when the sandbox is dead, once. What remains keeps no descriptor of a sandbox whose processes this
    /// process is the parent of, and one of any other.
    ///
    /// # Errors
    /// When there was one to be made and none left, or it was given before.
    pub fn give_pidfd(&mut self) -> io::Result<OwnedFd> {
        self.remains.give_pidfd(self.pid)
    }
}

/// Where the time of a start went, in ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages {
    /// Planning, and preparing descriptors and ids.
    pub planned_ns: u64,
    /// Making its control groups.
    pub grouped_ns: u64,
    /// `clone3`, as the parent sees it.
    pub cloned_ns: u64,
    /// From the return of `clone3` until the child has joined its groups and last namespaces.
    pub placed_ns: u64,
    /// Building the file system.
    pub mounted_ns: u64,
    /// Limits, credentials, capabilities.
    pub confined_ns: u64,
    /// Installing the system call filter.
    pub filtered_ns: u64,
    /// `exec`, until the parent has learned of it.
    pub executed_ns: u64,
    /// All of it.
    pub total_ns: u64,
    /// Whether a sandbox that was made ahead waited for it. The stages before `executed_ns` are then what was still to do.
    pub prepared: bool,
    /// Whether it is a copy of an image rather than a program that began.
    pub copied: bool,
    /// Whether that image is a runtime's that knew no function yet.
    pub of_runtime: bool,
    /// Whether the image was loaded ahead.
    pub loaded: bool,
}

/// Why a sandbox was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The spec is at fault.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Its control group could not be made.
    #[error("{0}; if it exists already, use another name or sweep")]
    Group(#[from] GroupError),
    /// Something to be prepared in the worker failed.
    #[error("cannot {action}: {source}; the worker may be short of descriptors or memory")]
    Prepare {
        /// What failed.
        action: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The process could not be made.
    #[error("cannot make the process: {source}; {advice}")]
    Clone {
        /// Why.
        #[source]
        source: io::Error,
        /// What to do.
        advice: &'static str,
    },
    /// A step inside failed.
    #[error("cannot {step} (step {index} of the start): {source}; {advice}")]
    Step {
        /// Which step, as the plan prints it.
        step: String,
        /// Its position in the plan.
        index: usize,
        /// Why.
        #[source]
        source: io::Error,
        /// What to do.
        advice: &'static str,
    },
    /// A container could not be made.
    #[error("{mechanism} could not start it: {reason}")]
    Container {
        /// Which mechanism.
        mechanism: &'static str,
        /// What it said, or what is wrong.
        reason: String,
    },
    /// It would have no way out.
    #[error("it cannot reach other machines: {0}")]
    Egress(#[from] EgressError),
    /// It died before its program ran.
    #[error("it was killed before its program ran; its memory limit may be too small for the program")]
    Killed,
    /// The image does not fit what waits here.
    #[error("it did not become a copy of its image; take another image")]
    NotCopied,
    /// It did not get on.
    #[error("it did not run its program in time and was killed; a file system it needs may hang")]
    Late,
}

/// A small sandbox whose program ends at once.
pub(crate) fn trial_spec() -> Spec {
    Spec {
        name: format!("trial-{}-{}", std::process::id(), sys::now_ns()),
        command: vec!["/usr/bin/true".into()],
        environment: Vec::new(),
        working_directory: "/".into(),
        root: Root::System,
        binds: Vec::new(),
        limits: ResourceLimits {
            memory_bytes: MEMORY_BYTES_LEAST,
            cpu_millis: Some(1000),
            processes: 8,
            tmp_bytes: 64 << 10,
            open_files: 32,
        },
        cores: Vec::new(),
        hostname: "trial".into(),
        reach: Reach::Nothing,
    }
}
