//! The native mechanism: namespaces, mounts, credentials, seccomp and control groups, by the kernel's own calls.
//!
//! Owns: the order of a start as the worker sees it. Invariant: whatever a failed start made is gone when it returns. Does not know: what
//! single steps do (`plan`, `apply`), or where groups are (`cgroup`).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::apply::{Allotment, Report};
use crate::calls;
use crate::cgroup::{self, CgroupPreference, Group, Groups};
use crate::host::{GroupFacts, Host, Privilege, ProbeError};
use crate::keeper::Keeper;
use crate::limits::REMOVAL_PATIENCE;
use crate::mechanism::{
    Begun, CopyOf, Descriptors, Mechanism, Stages, StartError, Started, WaitingSandbox, trial_spec,
};
use crate::plan::{Ending, INSIDE_ID, Milestone, Plan, Step};
use crate::pool::{PoolOptions, Recipe};
use crate::prepared::PreparedStarts;
use crate::prepared_images::ImageStarts;
use crate::protections::{Protection, Protections};
use crate::reach::egress::{Egress, EgressError, EgressOptions, Link};
use crate::reach::{Handover, Reach};
use crate::remains::{Exit, Remains};
use crate::seccomp::{Filter, FilterError};
use crate::spawn::{self, Outcome};
use crate::spec::{Root, Spec, SpecError, check_name};
use crate::state::State;
use crate::sys;
use crate::users::UserLease;
use crate::warden::{Ward, Warden};
use crate::zygote::Image;

/// How to set the mechanism up.
#[derive(Clone, Debug)]
pub struct NativeOptions {
    /// A directory of this worker alone, kept across its restarts.
    pub state_directory: PathBuf,
    /// The same across restarts; `[a-z0-9-]`. It names the directory of control groups.
    pub worker_id: String,
    /// Which control groups to use.
    pub cgroup: CgroupPreference,
    /// Whether to turn off what sandboxes share in the processor, where the kernel can: speculation, and the other thread of a core.
    pub mitigations: bool,
}

/// Why no sandbox can be made on this host.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The worker's id cannot be a directory name.
    #[error("worker id: {0}")]
    WorkerId(#[from] SpecError),
    /// The state directory cannot be used.
    #[error("cannot use the state directory {path}: {source}; it must exist and belong to the worker")]
    State {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another worker runs on this state directory.
    #[error("process {pid} is using {path}; stop it, or give this worker a state directory of its own")]
    InUse {
        /// That worker.
        pid: u32,
        /// The state directory.
        path: PathBuf,
    },
    /// The host's facts cannot be read.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The system call filter does not compile.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// A descriptor that every start needs could not be opened.
    #[error("cannot open {what}: {source}")]
    Open {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something that the mechanism needs is not there.
    #[error("{0}")]
    Unavailable(String),
    /// A trial sandbox could not be made.
    #[error("a trial sandbox failed: {0}")]
    Trial(#[source] StartError),
    /// A trial sandbox ended as it should not.
    #[error(
        "a trial sandbox ended with {0:?} instead of status 0; look for security modules that kill, in the kernel's log"
    )]
    TrialEnded(Exit),
}

/// The native mechanism. One a worker: its directories of control groups go when it and the remains of its sandboxes are dropped.
#[derive(Debug)]
pub struct Native {
    host: Host,
    filter: &'static Filter,
    groups: Option<Arc<Groups>>,
    state: State,
    protections: Protections,
    null: OwnedFd,
    /// A pidfd of this process.
    worker: OwnedFd,
    keeper: Option<Arc<Keeper>>,
    prepared: Option<PreparedStarts>,
    of_images: Option<ImageStarts>,
    worker_id: String,
    egress: Option<Arc<Egress>>,
    /// Where no control group freezes.
    warden: Option<Arc<Warden>>,
}

impl Native {
    /// Probes the host and proves with a trial sandbox that every step works.
    ///
    /// # Errors
    /// When it cannot make sandboxes here; the message says what to change.
    pub fn new(options: NativeOptions) -> Result<Native, SetupError> {
        let NativeOptions { state_directory, worker_id, cgroup: preference, mitigations } = options;
        check_name(&worker_id)?;
        sys::keep_dead_children();
        let state = State::at(&state_directory);
        if let Some(owner) = state.other_owner() {
            return Err(SetupError::InUse { pid: owner.pid, path: state_directory });
        }
        let (groups, no_groups) = match cgroup::detect(preference, &worker_id) {
            Ok(groups) => (Some(Arc::new(groups)), String::new()),
            Err(reason) => (None, reason),
        };
        prepare(&state, groups.as_deref())
            .map_err(|source| SetupError::State { path: state_directory.clone(), source })?;
        let facts = groups.as_ref().map_or_else(GroupFacts::default, |groups| groups.facts());
        let staging = state.staging().canonicalize();
        let staging = staging.map_err(|source| SetupError::State { path: state_directory, source })?;
        let host = Host { mitigations, ..Host::probe(staging, facts)? };
        let opened = |what, result: io::Result<OwnedFd>| {
            result.and_then(sys::lift).map_err(|source| SetupError::Open { what, source })
        };
        let mut native = Native {
            protections: Protections::new(&host, groups.as_deref(), &no_groups),
            host,
            filter: Filter::shared()?,
            groups,
            state,
            null: opened("/dev/null", File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from))?,
            worker: opened("a pidfd of this process", sys::pidfd_open(std::process::id().cast_signed()))?,
            keeper: None,
            prepared: None,
            of_images: None,
            worker_id,
            egress: None,
            warden: None,
        };
        native.trial()?;
        if native.groups.as_ref().is_none_or(|groups| groups.freezes().is_err()) {
            native.engage_warden();
        }
        Ok(native)
    }

    /// Waits until as many sandboxes wait as may; whether they do.
    pub fn wait_until_prepared(&self, patience: Duration) -> bool {
        let of_images = self.of_images.as_ref().is_none_or(|images| images.wait_until_full(patience));
        of_images && self.prepared.as_ref().is_some_and(|prepared| prepared.wait_until_full(patience))
    }

    /// Sandboxes made ahead that serve a spec.
    fn serving(&mut self, spec: &Spec) -> Option<&mut PreparedStarts> {
        if matches!(spec.root, Root::Image(_)) {
            return self.of_images.as_mut()?.serving(spec);
        }
        self.prepared.as_mut().filter(|prepared| prepared.serves(spec))
    }

    /// Has some made for the image of a spec. Without them its sandboxes are made when they are wanted.
    fn prepare_image(&mut self, spec: &Spec) {
        let Some(mut of_images) = self.of_images.take() else { return };
        let _ = of_images.prepare(spec, |options| self.recipe(options));
        self.of_images = Some(of_images);
    }

    fn recipe(&self, options: &PoolOptions) -> Result<Recipe, StartError> {
        let copy = |fd: &OwnedFd| fd.try_clone().and_then(sys::lift).map_err(preparing("duplicate a descriptor"));
        Ok(Recipe {
            host: self.host.clone(),
            filter: self.filter,
            template: options.template.clone(),
            mount_points: options.mount_points.clone(),
            groups: self.groups.clone(),
            state: self.state.clone(),
            null: copy(&self.null)?,
            worker: copy(&self.worker)?,
            warden: self.warden.clone(),
        })
    }

    /// Lets sandboxes that ask for it reach other machines. Whether this host can is seen when the first of them starts.
    pub fn allow_egress(&mut self, options: EgressOptions) {
        self.egress = Some(Arc::new(Egress::new(options, &self.worker_id)));
    }

    /// The host as it was probed.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The plan of a sandbox, for people to read.
    ///
    /// # Errors
    /// When the spec does not pass its check.
    pub fn plan(&self, spec: &Spec) -> Result<Plan, SpecError> {
        Plan::new(spec, &self.host, self.filter, Ending::Execute)
    }

    /// Makes a sandbox that performs every step but `exec`.
    fn trial(&mut self) -> Result<(), SetupError> {
        let descriptors = Descriptors::nowhere()?;
        let spec = trial_spec();
        let plan = Plan::new(&spec, &self.host, self.filter, Ending::Finish)?;
        let started = self.perform(&plan, &spec, descriptors).map_err(SetupError::Trial)?;
        let ended = started.remains.reap();
        if ended.exit == Exit::Code(0) { Ok(()) } else { Err(SetupError::TrialEnded(ended.exit)) }
    }

    /// Has sandboxes stopped by a process of ours, if a trial sandbox can be.
    fn engage_warden(&mut self) {
        const NAME: &str = "frozen while idle";
        let engaged = Warden::start().map(Arc::new).map_err(|error| error.to_string()).and_then(|warden| {
            self.warden = Some(warden);
            self.stop_one().map_err(|error| error.to_string())
        });
        self.protections.change(match engaged {
            Ok(()) => Protection::yes(NAME, "every thread traced and stopped by a process of the worker's"),
            Err(why) => {
                self.warden = None;
                let said = self.protections.detail(NAME);
                Protection::no(NAME, &format!("{said}; and a trial sandbox could not be stopped by tracing it: {why}"))
            }
        });
    }

    /// Stops a sandbox and lets it go on.
    fn stop_one(&mut self) -> Result<(), StartError> {
        let stopped = preparing("stop a trial sandbox");
        let spec = Spec { command: vec!["/usr/bin/sleep".into(), "60".into()], ..trial_spec() };
        let plan = self.plan(&spec)?;
        let descriptors =
            Descriptors::nowhere().map_err(|error| preparing("open /dev/null")(io::Error::other(error)))?;
        let remains = self.perform(&plan, &spec, descriptors)?.remains;
        let tried = remains.freezer().map(|freezer| freezer.freeze().and_then(|()| freezer.thaw()));
        give_up(remains);
        tried.unwrap_or(Ok(())).map_err(stopped)
    }

    fn perform(&mut self, plan: &Plan, spec: &Spec, descriptors: Descriptors) -> Result<Started, StartError> {
        let clock = Clock { begun_ns: sys::now_ns() };
        let keeper = self.keeper()?;
        let mut prepared = Prepared::new(&self.host, &self.null, spec, descriptors)?;
        prepared.link = self.link(spec)?;
        let planned_ns = sys::now_ns();
        let group = self.groups.as_ref().map(|groups| groups.create(&spec.name, &spec.limits)).transpose()?;
        let made = self.make(plan, &prepared, group.as_ref(), &keeper, planned_ns);
        let (child, outcome, times) = match made {
            Ok(made) => made,
            Err(error) => {
                // Groups that cannot be removed now are removed by the next sweep; the failure of the start is what matters.
                let _ = group.map(Group::remove);
                return Err(error);
            }
        };
        let (handover, link) = (prepared.handover.take(), prepared.link.take());
        let mut remains = Remains::new(child, group, prepared.user, keeper, None);
        remains.kept.link = link;
        let begun = succeeded(plan, outcome).and_then(|report| {
            let forwarder = handover.map(Handover::begin).transpose();
            remains.kept.forwarder = forwarder.map_err(preparing("forward to the host's loopback"))?;
            Ok(report)
        });
        match begun {
            Ok(report) => self.hand_over(spec, clock.stages(&times, &report), remains),
            Err(error) => {
                give_up(remains);
                Err(error)
            }
        }
    }

    /// A way out for a sandbox that wants one.
    fn link(&self, spec: &Spec) -> Result<Option<Link>, EgressError> {
        let Reach::Egress { .. } = spec.reach else { return Ok(None) };
        let not_allowed = || EgressError::Host("the worker lets no function out: set sandbox.egress = true".to_owned());
        self.egress.as_ref().ok_or_else(not_allowed)?.link().map(Some)
    }

    /// From a child that runs to what the caller gets; a child that cannot be handed over is killed.
    fn hand_over(&self, spec: &Spec, stages: Stages, mut remains: Remains) -> Result<Started, StartError> {
        match self.handles(spec, &remains) {
            Ok((pid, record)) => {
                remains.record = record;
                remains.ward = self.warden.as_ref().map(|warden| Ward::new(warden, pid));
                Ok(Started { pid, stages, remains })
            }
            Err(error) => {
                give_up(remains);
                Err(error)
            }
        }
    }

    /// The process id, and a record where no control group remembers the sandbox.
    fn handles(&self, spec: &Spec, remains: &Remains) -> Result<(i32, Option<PathBuf>), StartError> {
        let pid = sys::pid_of(remains.pidfd()).map_err(preparing("learn the process id"))?;
        let record = remains.group.is_none().then(|| self.state.note(pid, &spec.name)).transpose();
        Ok((pid, record.map_err(preparing("record the sandbox"))?))
    }

    /// The keeper that sandboxes of this thread are nested below.
    fn keeper(&mut self) -> Result<Arc<Keeper>, StartError> {
        let serves = self.keeper.take().filter(|keeper| keeper.serves_this_thread());
        let start = || Keeper::start(self.worker.as_fd(), self.host.privilege).map(Arc::new).map_err(cloning);
        let keeper = serves.map_or_else(start, Ok)?;
        self.keeper = Some(Arc::clone(&keeper));
        Ok(keeper)
    }

    fn make(
        &self,
        plan: &Plan,
        prepared: &Prepared,
        group: Option<&Group>,
        keeper: &Keeper,
        planned_ns: u64,
    ) -> Result<(OwnedFd, io::Result<Outcome>, Times), StartError> {
        let entrances =
            group.map_or_else(|| Ok(Vec::new()), Group::entrances).map_err(preparing("open the control group"))?;
        let (reports, report) = io::pipe().map_err(preparing("make a pipe"))?;
        let report = sys::lift(report.into()).map_err(preparing("make a pipe"))?;
        let joins: Vec<i32> = entrances.iter().map(AsRawFd::as_raw_fd).collect();
        let allotment = prepared.allotment(self.worker.as_raw_fd(), report.as_raw_fd(), &joins);
        let grouped_ns = sys::now_ns();
        let birthplace = group.map_or(Ok(None), Group::birthplace).map_err(preparing("open the control group"))?;
        let child = keeper.make(plan, &allotment, birthplace.as_ref().map(AsRawFd::as_raw_fd)).map_err(cloning)?;
        let cloned_ns = sys::now_ns();
        drop(report);
        let outcome = spawn::outcome(reports.into());
        Ok((child, outcome, Times { planned_ns, grouped_ns, cloned_ns, executed_ns: sys::now_ns() }))
    }
}

pub(crate) fn succeeded(plan: &Plan, outcome: io::Result<Outcome>) -> Result<Report, StartError> {
    match outcome {
        Ok(Outcome::Started(report)) => Ok(report),
        Ok(Outcome::Failed(report)) => Err(step_failed(plan, report)),
        Ok(Outcome::Silent) => Err(StartError::Killed),
        Ok(Outcome::Late) => Err(StartError::Late),
        Err(source) => Err(StartError::Prepare { action: "read the report of the child", source }),
    }
}

/// Kills a child that is not handed over, and cleans after it. One that does not die, because a file system hangs below it, is waited for
/// elsewhere: this thread has other sandboxes to start. Until then it keeps its user id, its groups and its keeper.
pub(crate) fn give_up(remains: Remains) {
    remains.kill();
    let dead = sys::poll_readable(remains.pidfd(), REMOVAL_PATIENCE).unwrap_or(true);
    let reap = move || drop(remains.reap());
    if dead {
        reap();
    } else {
        // Without a thread to spare the child stays unreaped until the worker ends, and its groups until the next sweep.
        let _ = thread::Builder::new().name("vilya-late".into()).spawn(reap);
    }
}

impl Mechanism for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    fn distinct_users(&self) -> bool {
        self.host.privilege == Privilege::Root
    }

    fn prepare(&mut self, options: PoolOptions) -> Result<bool, StartError> {
        if calls::code().is_none() {
            return Ok(false);
        }
        options.template.check()?;
        let recipe = self.recipe(&options)?;
        self.of_images = Some(ImageStarts::new(options.clone()));
        self.prepared = Some(PreparedStarts::new(recipe, options)?);
        Ok(true)
    }

    fn start(&mut self, spec: &Spec, descriptors: Descriptors) -> Result<Started, StartError> {
        self.begin(spec, descriptors, None)?.finish()
    }

    fn begin(&mut self, spec: &Spec, descriptors: Descriptors, copy: Option<CopyOf<'_>>) -> Result<Begun, StartError> {
        if copy.is_some() {
            // Nothing else can be one.
            self.prepare_image(spec);
        }
        if let Some(prepared) = self.serving(spec) {
            return prepared.begin(spec, &descriptors, copy).map(|unfinished| Begun::Unfinished(Box::new(unfinished)));
        }
        let plan = self.plan(spec)?;
        let started = self.perform(&plan, spec, descriptors)?;
        self.prepare_image(spec);
        Ok(Begun::Done(Box::new(started)))
    }

    fn give(&mut self, spec: &Spec, started: &Started) -> Result<bool, StartError> {
        match self.serving(spec) {
            Some(prepared) => prepared.give_running(spec, started).map(|()| true),
            None => Ok(false),
        }
    }

    fn load(&mut self, spec: &Spec, copy: CopyOf<'_>) -> Result<bool, StartError> {
        self.serving(spec).map_or(Ok(false), |prepared| prepared.load(spec, copy))
    }

    fn keep_loaded(&mut self, is_wanted: &mut dyn FnMut(&Arc<Image>) -> bool) -> usize {
        let of_images = self.of_images.as_mut().map_or(0, |images| images.keep_loaded(is_wanted));
        of_images + self.prepared.as_mut().map_or(0, |prepared| prepared.keep_loaded(is_wanted))
    }

    fn waiting(&self) -> Vec<WaitingSandbox> {
        let of_images = self.of_images.iter().flat_map(ImageStarts::waiting);
        self.prepared.iter().flat_map(PreparedStarts::waiting).chain(of_images).collect()
    }

    fn protections(&self) -> &Protections {
        &self.protections
    }
}

fn prepare(state: &State, groups: Option<&Groups>) -> io::Result<()> {
    state.make()?;
    state.check()?;
    state.own()?;
    groups.map_or(Ok(()), |groups| state.remember_groups(groups.paths()))
}

/// What one start owns until the child has its copies.
struct Prepared {
    user: Option<UserLease>,
    uid_map: Vec<u8>,
    gid_map: Vec<u8>,
    descriptors: [OwnedFd; 6],
    /// Where the child hands over what it listens at for the host.
    handover: Option<Handover>,
    /// Where it is born, if it reaches other machines.
    link: Option<Link>,
}

impl Prepared {
    fn new(host: &Host, null: &OwnedFd, spec: &Spec, descriptors: Descriptors) -> Result<Prepared, StartError> {
        let handover = Handover::of(&spec.reach).map_err(preparing("make a pair of sockets"))?;
        let (user, uid, gid) = match host.privilege {
            Privilege::User { uid, gid } => (None, uid, gid),
            Privilege::Root => {
                let source = io::Error::from(io::ErrorKind::QuotaExceeded);
                let user = UserLease::take().ok_or(StartError::Prepare { action: "take a host user id", source })?;
                let id = user.id();
                (Some(user), id, id)
            }
        };
        let Descriptors { ring: [down, up, doorbell], stdout, stderr } = descriptors;
        let lift = |fd| sys::lift(fd).map_err(preparing("duplicate a descriptor"));
        let null = null.try_clone().map_err(preparing("duplicate a descriptor"))?;
        let descriptors = [lift(null)?, lift(stdout)?, lift(stderr)?, lift(down)?, lift(up)?, lift(doorbell)?];
        let map = |outside: u32| format!("{INSIDE_ID} {outside} 1\n").into_bytes();
        Ok(Prepared { user, uid_map: map(uid), gid_map: map(gid), descriptors, handover, link: None })
    }

    fn allotment<'a>(&'a self, worker: i32, report: i32, joins: &'a [i32]) -> Allotment<'a> {
        Allotment {
            user: self.user.as_ref().map_or(0, UserLease::id),
            uid_map: &self.uid_map,
            gid_map: &self.gid_map,
            descriptors: std::array::from_fn(|index| self.descriptors[index].as_raw_fd()),
            report,
            worker,
            joins,
            network: self.link.as_ref().map_or(-1, |link| link.namespace().as_raw_fd()),
            handover: self.handover.as_ref().map_or(-1, Handover::theirs),
            memory: None,
        }
    }
}

/// Instants of a start in the parent, on CLOCK_MONOTONIC.
struct Times {
    planned_ns: u64,
    grouped_ns: u64,
    cloned_ns: u64,
    executed_ns: u64,
}

struct Clock {
    begun_ns: u64,
}

impl Clock {
    fn stages(&self, times: &Times, report: &Report) -> Stages {
        let reached = |milestone: Milestone| report.reached_ns[milestone as usize];
        let filtered = reached(Milestone::Filtered);
        Stages {
            planned_ns: times.planned_ns - self.begun_ns,
            grouped_ns: times.grouped_ns - times.planned_ns,
            cloned_ns: times.cloned_ns - times.grouped_ns,
            // The child may be ahead of the parent.
            placed_ns: reached(Milestone::Placed).saturating_sub(times.cloned_ns),
            mounted_ns: reached(Milestone::Mounted).saturating_sub(reached(Milestone::Placed)),
            confined_ns: reached(Milestone::Confined).saturating_sub(reached(Milestone::Mounted)),
            filtered_ns: filtered.saturating_sub(reached(Milestone::Confined)),
            executed_ns: times.executed_ns.saturating_sub(filtered),
            total_ns: times.executed_ns - self.begun_ns,
            ..Stages::default()
        }
    }
}

pub(crate) fn preparing(action: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::Prepare { action, source }
}

pub(crate) fn cloning(source: io::Error) -> StartError {
    let advice = match source.raw_os_error() {
        Some(libc::EPERM) => {
            "run as root, or allow user namespaces (kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)"
        }
        Some(libc::ENOSPC) => "raise user.max_*_namespaces",
        Some(libc::EAGAIN) => "raise the worker's process limit (TasksMax, RLIMIT_NPROC)",
        Some(libc::EBUSY) => "its control group takes no members; delegate a group to the worker",
        _ => "the host may be short of memory or process ids",
    };
    StartError::Clone { source, advice }
}

fn step_failed(plan: &Plan, report: Report) -> StartError {
    let index = report.step as usize;
    step_refused(plan.steps.get(index), index, report.errno)
}

/// What to say of a step that failed.
pub(crate) fn step_refused(step: Option<&Step>, index: usize, errno: i32) -> StartError {
    let advice = match (step, errno) {
        (Some(Step::Execute { .. }), libc::ENOENT) => {
            "no such program inside, or its interpreter or loader is missing there"
        }
        (Some(Step::Execute { .. }), libc::EACCES) => "the program must be executable by everyone",
        (Some(Step::Execute { .. }), libc::ENOEXEC) => "the program is of another architecture, or a script without #!",
        (Some(Step::Bind { .. }), libc::ENOENT) => "the source must exist on the host",
        (Some(Step::Bind { .. }), libc::ELOOP) => {
            "no part of the source's path may be a symbolic link; give the path that it leads to"
        }
        (Some(Step::Replacement { .. }), libc::ENOENT | libc::ELOOP | libc::ENOTDIR) => {
            "the image was unpacked without it: remove every function with this image and deploy them again"
        }
        (Some(Step::Enter(_)), libc::ENOENT | libc::ENOTDIR) => "the working directory must exist inside",
        (Some(Step::Enter(_) | Step::Execute { .. }), _) => "it must be reachable for every user (mode o+rx)",
        (Some(Step::Cores(_)), _) => "name cores that this host has and that the worker may use",
        (Some(Step::Forbid(_) | Step::OwnCores), _) => {
            "the kernel offered it and refuses it; set sandbox.mitigations = \"off\""
        }
        (Some(Step::DieWithParent), _) => "the worker is ending",
        (Some(Step::MapIds), libc::EPERM) => "user namespaces are restricted here; run as root or allow them",
        (Some(Step::Proc { .. }), libc::EPERM) => {
            "a container hides parts of /proc; run the worker outside of it or with an unmasked /proc"
        }
        _ => "this host's kernel or a security module refuses it; Linux 6.1 or later is needed",
    };
    StartError::Step {
        step: step.map_or_else(|| "perform an unknown step".to_owned(), Step::to_string),
        index,
        source: io::Error::from_raw_os_error(errno),
        advice,
    }
}
