//! The `oci` mechanism: each sandbox is a bundle that crun or runc runs.
//!
//! Owns: the order of a start, and the end of a container. Invariant: a container is known by its directory among the bundles from before it
//! is made until after it is removed, so that whatever kills the worker, the next start finds it. Does not know: how a runtime confines.
//!
//! The first process of a container belongs to the runtime, which is gone when the program runs. So that the worker learns how it ended, and
//! so that its id is given to nobody else before that, the worker adopts it: it is the subreaper of what its children leave.
//!
//! A runtime sets HOME if the spec does not; otherwise the environment is the spec's. Containers do not die with a killed worker: the next
//! start removes them.

mod bundle;
mod orphans;
mod runtime;

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cgroup::{self, Enrolment, MemoryEvents, Precedence, Switches};
use crate::freezer::Freezer;
use crate::host::{GroupFacts, Host, Privilege};
use crate::mechanism::container::{self, Confined, Container, End};
use crate::mechanism::layout::Layout;
use crate::mechanism::{Descriptors, Mechanism, Stages, StartError, Started, trial_spec};
use crate::native::SetupError;
use crate::plan::{Ending, Plan};
use crate::protections::{Protection, Protections};
use crate::remains::{Exit, Remains};
use crate::seccomp::Filter;
use crate::spec::{Spec, check_name};
use crate::state::State;
use crate::sweep::Swept;
use crate::sys::{self, Status};
use crate::users::UserLease;

pub use runtime::OciRuntime;
use runtime::Runtime;

const NAME: &str = "oci";
const TRIAL_MEMORY_BYTES: u64 = 64 << 20;
const TRIAL_OPEN_FILES: u32 = 256;

/// How to set the mechanism up.
#[derive(Clone, Debug)]
pub struct OciOptions {
    /// A directory of this worker alone, kept across its restarts.
    pub state_directory: PathBuf,
    /// The same across restarts; `[a-z0-9-]`. It names the directory of control groups.
    pub worker_id: String,
    /// Which program; `None` is the first that is installed.
    pub runtime: Option<OciRuntime>,
}

/// Containers made by an OCI runtime.
#[derive(Debug)]
pub struct Oci {
    host: Host,
    filter: &'static Filter,
    runtime: Arc<Runtime>,
    bundles: PathBuf,
    worker_id: String,
    unified: bool,
    protections: Protections,
}

/// Whether the mechanism can be set up here, as far as it can be told without trying.
///
/// # Errors
/// What is missing, and what to do about it.
pub fn available(runtime: Option<OciRuntime>) -> Result<(), String> {
    installed(runtime).map(drop)
}

fn installed(runtime: Option<OciRuntime>) -> Result<Vec<(OciRuntime, PathBuf)>, String> {
    if !sys::is_root() {
        return Err(
            "the oci mechanism needs root: a runtime started by an ordinary user has no control groups to limit \
                    memory with, and one user for all sandboxes; run the worker as root, or use mechanism = \"native\""
                .to_owned(),
        );
    }
    let wanted = runtime.map_or_else(|| OciRuntime::ALL.to_vec(), |runtime| vec![runtime]);
    if let [only] = wanted[..]
        && let Some(why) = only.lacks()
    {
        let name = only.name();
        return Err(format!(
            "{name} {why}: set sandbox.oci_runtime to \"crun\" or \"runc\", or use mechanism = \"native\""
        ));
    }
    let wanted: Vec<OciRuntime> = wanted.into_iter().filter(|kind| kind.lacks().is_none()).collect();
    let found: Vec<(OciRuntime, PathBuf)> =
        wanted.iter().filter_map(|kind| kind.find().map(|program| (*kind, program))).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let names: Vec<&str> = wanted.iter().map(|kind| kind.name()).collect();
    Err(format!(
        "the oci mechanism needs {}, which is not installed: install it (Debian: apt-get install {}), or use \
         mechanism = \"native\"",
        names.join(" or "),
        names.first().unwrap_or(&"crun"),
    ))
}

impl Oci {
    /// Finds a runtime and proves with a trial container that it works; where none is asked for, the first that does.
    ///
    /// # Errors
    /// When it cannot make sandboxes here; the message says what to change.
    pub fn new(options: &OciOptions) -> Result<Oci, SetupError> {
        check_name(&options.worker_id)?;
        let mut refused = None;
        for (kind, program) in installed(options.runtime).map_err(SetupError::Unavailable)? {
            match Oci::with(options.clone(), kind, program) {
                Ok(oci) => return Ok(oci),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        Err(refused.expect("at least one was found, and it was refused"))
    }

    fn with(options: OciOptions, kind: OciRuntime, program: PathBuf) -> Result<Oci, SetupError> {
        let OciOptions { state_directory, worker_id, .. } = options;
        let state = State::at(&state_directory);
        if let Some(owner) = state.other_owner() {
            return Err(SetupError::InUse { pid: owner.pid, path: state_directory });
        }
        let place = Place::of(&state, kind);
        let failed = |source| SetupError::State { path: state_directory.clone(), source };
        state.make().and_then(|()| state.check()).and_then(|()| state.own()).map_err(failed)?;
        let bundles = place.make().map_err(failed)?;
        let staging = state.staging().canonicalize().map_err(failed)?;
        // The runtime limits all three.
        let facts = GroupFacts { memory: true, processes: true, cpu: true, joins: false };
        let host = Host::probe(staging, facts)?;
        sys::adopt_orphans().map_err(|source| SetupError::Open { what: "the way to adopt processes", source })?;
        let mut oci = Oci {
            protections: protections(kind, &program, &Switches::default()),
            host,
            filter: Filter::shared()?,
            runtime: Arc::new(Runtime::new(kind, program.clone(), place.state)),
            bundles,
            worker_id,
            unified: cgroup::is_unified(),
        };
        let found = oci.trial()?;
        oci.protections = protections(kind, &program, &found);
        Ok(oci)
    }

    /// What the groups of a container can be told.
    fn trial(&mut self) -> Result<Switches, SetupError> {
        let mut spec = trial_spec();
        // The runtime itself starts within these limits, and one of them is written in Go.
        spec.limits.memory_bytes = TRIAL_MEMORY_BYTES;
        spec.limits.open_files = TRIAL_OPEN_FILES;
        let started = self.start(&spec, Descriptors::nowhere()?).map_err(SetupError::Trial)?;
        let found = Switches::at(&self.group(&spec));
        let ended = started.remains.reap();
        if ended.exit == Exit::Code(0) { Ok(found) } else { Err(SetupError::TrialEnded(ended.exit)) }
    }

    /// Where its groups are, below the mount of each hierarchy.
    fn group(&self, spec: &Spec) -> PathBuf {
        groups(&self.worker_id).join(&spec.name)
    }

    /// Writes the bundle and has it run; the process id.
    fn make(
        &self,
        spec: &Spec,
        layout: &Layout,
        container: &OciContainer,
        descriptors: Descriptors,
    ) -> Result<i32, String> {
        let group = self.group(spec);
        let groups = format!("/{}", group.display());
        let given = bundle::Given { layout, spec, user: container.user.id(), groups: &groups, unified: self.unified };
        bundle::write(&container.directory, &given).map_err(|error| format!("cannot write the bundle: {error}"))?;
        // Without one it runs all the same, and the trial has found that none is to be had.
        let enrolment = self.runtime.hidden().and_then(|point| Enrolment::make(point, &group).ok());
        let entrance = enrolment.and_then(|enrolment| enrolment.entrance().ok());
        let is_enrolled = entrance.is_some();
        let pid = self.runtime.run(&spec.name, &container.directory, descriptors, entrance)?;
        if is_enrolled {
            // What the runtime leaves ends by itself, unless it is frozen with the container.
            orphans::reap();
        }
        Ok(pid)
    }
}

impl Mechanism for Oci {
    fn name(&self) -> &'static str {
        NAME
    }

    fn distinct_users(&self) -> bool {
        self.host.privilege == Privilege::Root
    }

    fn start(&mut self, spec: &Spec, descriptors: Descriptors) -> Result<Started, StartError> {
        let begun_ns = sys::now_ns();
        let plan = Plan::new(spec, &self.host, self.filter, Ending::Execute)?;
        let layout = Layout::of(&plan, NAME)?;
        let source = io::Error::from(io::ErrorKind::QuotaExceeded);
        let user = UserLease::take().ok_or(StartError::Prepare { action: "take a host user id", source })?;
        let directory = self.bundles.join(&spec.name);
        // Its own, or nothing: a container of this name may be running.
        fs::create_dir(&directory).map_err(|source| StartError::Prepare { action: "make the bundle", source })?;
        let planned_ns = sys::now_ns();
        let (runtime, name) = (Arc::clone(&self.runtime), spec.name.clone());
        let group = self.group(spec);
        let switches = Switches::default();
        let mut container = OciContainer { runtime, name, directory, group, memory: None, switches, user };
        let made = self.make(spec, &layout, &container, descriptors);
        let pidfd = made.and_then(|pid| {
            let pidfd = sys::pidfd_open(pid).map_err(|error| format!("its process is not there: {error}"))?;
            // By its name: a process that has died already is shown in no group of its own.
            container.memory = MemoryEvents::of_group(&container.group);
            container.switches = Switches::at(&container.group);
            Ok((pid, pidfd))
        });
        match pidfd {
            Ok((pid, pidfd)) => {
                let now = sys::now_ns();
                let (planned_ns, executed_ns, total_ns) = (planned_ns - begun_ns, now - planned_ns, now - begun_ns);
                let stages = Stages { planned_ns, executed_ns, total_ns, ..Stages::default() };
                Ok(Started { pid, stages, remains: Remains::of_container(pidfd, Box::new(container)) })
            }
            Err(reason) => {
                // What cannot be removed now is removed by the next sweep; the failure of the start is what matters.
                let _ = container.remove();
                Err(StartError::Container { mechanism: NAME, reason })
            }
        }
    }

    fn protections(&self) -> &Protections {
        &self.protections
    }
}

#[derive(Debug)]
struct OciContainer {
    runtime: Arc<Runtime>,
    name: String,
    directory: PathBuf,
    /// Below the mount of each hierarchy.
    group: PathBuf,
    memory: Option<MemoryEvents>,
    switches: Switches,
    /// Given back when it is dead.
    user: UserLease,
}

impl OciContainer {
    fn remove(&self) -> Result<(), String> {
        let deleted = self.runtime.delete(&self.name, &self.directory);
        orphans::reap();
        deleted?;
        self.runtime.hidden().iter().for_each(|point| cgroup::withdraw(point, &self.group));
        fs::remove_dir_all(&self.directory).map_err(|error| error.to_string())
    }
}

impl Container for OciContainer {
    fn kill(&self, _signalled: bool) {
        // The signal takes the whole pid namespace; it fails only if that is gone already. What the runtime left besides is in the group.
        self.switches.kill();
    }

    fn freezer(&self) -> Option<Freezer> {
        self.switches.freezer().map(Freezer::from)
    }

    fn precedence(&self) -> Option<Precedence> {
        self.switches.precedence()
    }

    fn end(self: Box<Self>, pidfd: BorrowedFd<'_>) -> End {
        let exit = match sys::wait(pidfd) {
            Ok(Status::Exited(code)) => Exit::Code(code),
            Ok(Status::Killed(signal)) => Exit::Signal(signal),
            Err(_) => Exit::Unknown,
        };
        self.switches.kill();
        // Before the group is removed.
        let starved = self.memory.as_ref().is_some_and(MemoryEvents::killed);
        let left_behind = if self.remove().is_ok() { Vec::new() } else { vec![self.directory.clone()] };
        End { exit, starved, left_behind }
    }
}

/// Where a runtime's containers of one worker are.
struct Place {
    bundles: PathBuf,
    state: PathBuf,
}

impl Place {
    fn of(state: &State, kind: OciRuntime) -> Place {
        let above = state.mechanism(NAME).join(kind.name());
        Place { bundles: above.join("bundles"), state: above.join("state") }
    }

    fn make(&self) -> io::Result<PathBuf> {
        fs::create_dir_all(&self.state)?;
        fs::create_dir_all(&self.bundles)?;
        self.bundles.canonicalize()
    }
}

/// Removes every container that an earlier worker left in this state directory.
pub(crate) fn sweep(state: &State, worker_id: &str, swept: &mut Swept) {
    for kind in OciRuntime::ALL {
        let place = Place::of(state, kind);
        // Never used here.
        let Ok(bundles) = fs::read_dir(&place.bundles) else { continue };
        let runtime = kind.find().map(|program| Runtime::new(kind, program, place.state));
        for bundle in bundles.flatten() {
            let (directory, name) = (bundle.path(), bundle.file_name());
            let deleted = match &runtime {
                Some(runtime) => runtime.delete(&name.to_string_lossy(), &directory),
                None => Err(format!("{} made it and is not installed any more", kind.name())),
            };
            let hidden = runtime.as_ref().and_then(Runtime::hidden).filter(|_| deleted.is_ok());
            hidden.iter().for_each(|point| cgroup::withdraw(point, &groups(worker_id).join(&name)));
            match deleted.and_then(|()| fs::remove_dir_all(&directory).map_err(|error| error.to_string())) {
                Ok(()) => swept.containers += 1,
                Err(why) => swept.stuck.push((directory, why)),
            }
        }
        cgroup::remove_empty(&groups(worker_id));
    }
}

/// The directory of this worker's control groups, below the mount of each hierarchy.
fn groups(worker_id: &str) -> PathBuf {
    Path::new("vilya-oci").join(worker_id)
}

impl Drop for Oci {
    fn drop(&mut self) {
        cgroup::remove_empty(&groups(&self.worker_id));
    }
}

fn protections(kind: OciRuntime, program: &Path, switches: &Switches) -> Protections {
    let limited = |name| Protection::yes(name, "a control group of the runtime's making");
    let users = format!("a host user id for each sandbox; made by {} {}", kind.name(), program.display());
    container::protections(Confined {
        users: Protection::yes("user namespace", &users),
        mounts: "owned by the sandbox's user namespace",
        system: "/usr and a minimal /etc; private /tmp; no /sys",
        filter: "the native mechanism's list, loaded by the runtime",
        limits: ["memory limit", "process limit", "cpu limit"].map(limited),
        switches,
        pauses: None,
    })
}

#[cfg(test)]
mod tests {
    use super::{OciRuntime, installed};
    use crate::sys;

    #[test]
    fn one_whose_filter_is_another_is_refused_whether_it_is_there_or_not() {
        let refused = installed(Some(OciRuntime::Youki)).expect_err("never");
        assert!(refused.contains(if sys::is_root() { "filter" } else { "needs root" }), "{refused}");
        let found = installed(None).unwrap_or_default();
        assert!(found.iter().all(|(kind, _)| *kind != OciRuntime::Youki));
    }
}
