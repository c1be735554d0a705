//! Sandboxes made before they are needed: complete, confined, and waiting to be told what to become.
//!
//! Owns: the threads that make them, and how many wait. Invariant: a waiting sandbox has run nothing but our own code; one that was taken is
//! never put back. There are never more than were asked for, and none is left when the pool is dropped. Does not know: what they become.
//!
//! A thread of a pool lives until the last sandbox that it made is reaped, because a sandbox dies with the thread that made it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::cgroup::{Group, Groups};
use crate::heap;
use crate::host::{Host, Privilege};
use crate::keeper::Keeper;
use crate::limits::START_PATIENCE;
use crate::maker::{Child, Given, Maker};
use crate::mechanism::{StartError, WaitingSandbox};
use crate::memory::Memory;
use crate::native::{cloning, preparing, succeeded};
use crate::network::{self, Network, Returned};
use crate::plan::{INSIDE_ID, Plan};
use crate::porter::Porter;
use crate::remains::Remains;
use crate::seccomp::Filter;
use crate::spawn;
use crate::spec::{Bind, Spec, check_name};
use crate::state::State;
use crate::sys;
use crate::users::UserLease;
use crate::warden::{Ward, Warden};
use crate::zygote::Image;

/// How a pool is to be.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// What its sandboxes have in common: every bind of the template, its limits but for the memory, its host name. The rest is ignored.
    pub template: Spec,
    /// Directories that a start may mount something at.
    pub mount_points: Vec<&'static str>,
    /// Sandboxes that wait, at most.
    pub size: usize,
    /// Sandboxes that have loaded an image, besides, at most.
    pub loaded: usize,
    /// Threads that make them.
    pub threads: usize,
    /// Images of functions for which some more are made, once a sandbox was started in one, at most.
    pub images: usize,
    /// Binds of those, in place of the template's.
    pub image_binds: Vec<Bind>,
}

/// How long after a sandbox was taken another is made, unless more are wanted: the processor belongs to the one that starts.
const QUIET: Duration = Duration::from_millis(2);
/// Pause after a failure, doubled with each that follows up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often a thread of a dropped pool looks whether its sandboxes are gone.
const LAST_LOOKS: Duration = Duration::from_millis(100);

/// Sandboxes that pools of this process have made.
static MADE: AtomicU64 = AtomicU64::new(0);

/// A sandbox that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) pid: i32,
    /// Where it is told what to become.
    pub(crate) socket: OwnedFd,
    pub(crate) remains: Remains,
    /// Messages that it was sent.
    pub(crate) told: usize,
    made: Instant,
}

#[derive(Debug)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    desk: Mutex<Desk>,
    changed: Condvar,
    size: usize,
}

#[derive(Debug)]
struct Desk {
    waiting: VecDeque<Waiting>,
    /// Those that died while they waited, to be cleaned up.
    dead: Vec<Waiting>,
    /// Being made.
    coming: usize,
    /// Starts that found none.
    wanted: usize,
    last_taken: Instant,
    /// Why the last one could not be made.
    failure: Option<String>,
    failures: u32,
    closed: bool,
}

/// What every thread of a pool makes its sandboxes from.
pub(crate) struct Recipe {
    pub(crate) host: Host,
    pub(crate) filter: &'static Filter,
    pub(crate) template: Spec,
    pub(crate) mount_points: Vec<&'static str>,
    pub(crate) groups: Option<Arc<Groups>>,
    pub(crate) state: State,
    pub(crate) null: OwnedFd,
    pub(crate) worker: OwnedFd,
    pub(crate) warden: Option<Arc<Warden>>,
}

impl Pool {
    /// Makes a maker and ends it: whether sandboxes can be made ahead here.
    pub(crate) fn try_on(recipe: &Recipe) -> Result<(), StartError> {
        Workshop::open(recipe).map(drop)
    }

    /// Starts the threads. The first sandboxes come a moment later.
    pub(crate) fn start(recipe: Recipe, size: usize, threads: usize) -> io::Result<Pool> {
        let desk = Desk {
            waiting: VecDeque::with_capacity(size),
            dead: Vec::new(),
            coming: 0,
            wanted: 0,
            last_taken: Instant::now(),
            failure: None,
            failures: 0,
            closed: false,
        };
        let shared = Arc::new(Shared { desk: Mutex::new(desk), changed: Condvar::new(), size });
        let pool = Pool { shared };
        let (recipe, networks) = (Arc::new(recipe), Arc::new(Returned::default()));
        for number in 0..threads.max(1) {
            let worker = Worker {
                shared: Arc::clone(&pool.shared),
                recipe: Arc::clone(&recipe),
                networks: Arc::clone(&networks),
                number,
            };
            thread::Builder::new().name(format!("vilya-maker-{number}")).spawn(move || worker.run())?;
        }
        Ok(pool)
    }

    /// A waiting sandbox, and whether one had to be made for it.
    pub(crate) fn take(&self) -> Result<(Waiting, bool), StartError> {
        let mut desk = self.shared.desk();
        desk.last_taken = Instant::now();
        let deadline = desk.last_taken + START_PATIENCE;
        let mut waited = false;
        loop {
            if let Some(waiting) = desk.next_alive() {
                self.shared.changed.notify_all();
                if is_alive(&waiting) {
                    return Ok((waiting, waited));
                }
                // Killed from outside, or for memory that others wanted.
                drop(desk);
                discard(waiting);
                desk = self.shared.desk();
                continue;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || (desk.failures > 1 && desk.coming == 0) {
                let reason = desk.failure.clone().unwrap_or_else(|| "none was made in time".into());
                return Err(StartError::Prepare { action: "prepare a sandbox", source: io::Error::other(reason) });
            }
            waited = true;
            desk.wanted += 1;
            self.shared.changed.notify_all();
            desk = self.shared.changed.wait_timeout(desk, left).unwrap_or_else(PoisonError::into_inner).0;
            desk.wanted -= 1;
        }
    }

    /// A waiting sandbox that starts can do without, if there is one.
    pub(crate) fn take_spare(&self) -> Option<Waiting> {
        let mut desk = self.shared.desk();
        if desk.wanted > 0 || desk.waiting.len() * 2 < self.shared.size {
            return None;
        }
        let spare = desk.next_alive();
        self.shared.changed.notify_all();
        spare
    }

    /// Those that wait now.
    pub(crate) fn waiting(&self) -> Vec<WaitingSandbox> {
        self.shared.desk().waiting.iter().map(|waiting| waiting.sighting(None)).collect()
    }

    /// Whether none waits and none can be made.
    pub(crate) fn fails(&self) -> bool {
        let desk = self.shared.desk();
        desk.failures > 1 && desk.waiting.is_empty()
    }

    /// Waits until it is full, or until it cannot be filled.
    pub(crate) fn wait_until_full(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut desk = self.shared.desk();
        while desk.waiting.len() < self.shared.size {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            desk = self.shared.changed.wait_timeout(desk, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let waiting = {
            let mut desk = self.shared.desk();
            desk.closed = true;
            std::mem::take(&mut desk.waiting).into_iter().chain(std::mem::take(&mut desk.dead))
        };
        self.shared.changed.notify_all();
        waiting.for_each(discard);
        // One that is being made now is discarded by its thread, which the process must not forestall by ending.
        let is_coming = |desk: &mut Desk| desk.coming > 0;
        let desk = self.shared.desk();
        let _ = self.shared.changed.wait_timeout_while(desk, START_PATIENCE, is_coming);
    }
}

fn is_alive(waiting: &Waiting) -> bool {
    !sys::poll_readable(waiting.remains.pidfd(), Duration::ZERO).unwrap_or(true)
}

pub(crate) fn discard(waiting: Waiting) {
    waiting.remains.kill();
    drop(waiting.socket);
    let _ = waiting.remains.reap();
}

impl Desk {
    /// The longest waiting that is still alive: memory may have been short, or somebody killed what it hangs below.
    fn next_alive(&mut self) -> Option<Waiting> {
        while let Some(waiting) = self.waiting.pop_front() {
            if !waiting.is_dead() {
                return Some(waiting);
            }
            self.dead.push(waiting);
        }
        None
    }
}

impl Waiting {
    /// For people who ask.
    pub(crate) fn sighting(&self, loaded: Option<&Arc<Image>>) -> WaitingSandbox {
        let (pid, since, memory) = (self.pid, self.made, self.remains.memory_usage());
        WaitingSandbox { pid, since, loaded: loaded.cloned(), memory }
    }

    /// Whether it has died, or cannot be given what is its own any more.
    pub(crate) fn is_dead(&self) -> bool {
        // A descriptor that cannot be looked at is for the start to report.
        sys::poll_readable(self.remains.pidfd(), Duration::ZERO).unwrap_or(false)
            || !self.remains.keeper.as_ref().is_none_or(|keeper| keeper.has_its_porter())
    }
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        // Nothing that holds it leaves it half changed.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Worker {
    shared: Arc<Shared>,
    recipe: Arc<Recipe>,
    networks: Arc<Returned>,
    number: usize,
}

/// A keeper and the maker below it, and what the maker's children perform.
struct Workshop {
    plan: Plan,
    // Ends before the keeper, which does not end before everything below it was reaped.
    maker: Maker,
    keeper: Arc<Keeper>,
}

impl Workshop {
    fn open(recipe: &Recipe) -> Result<Workshop, StartError> {
        let Recipe { host, filter, template, mount_points, null, worker, .. } = recipe;
        let plan = Plan::maker(template, mount_points, host, filter)?;
        if host.privilege == Privilege::Root {
            network::leave().map_err(preparing("leave the last sandbox's network"))?;
        }
        let mut keeper = Keeper::start(worker.as_fd(), host.privilege).map_err(cloning)?;
        let memory = Memory::of_this_process().map_err(preparing("read the mappings"))?;
        let given = Given { null: null.as_fd(), worker: worker.as_fd(), report: null.as_fd(), memory: &memory };
        if host.privilege != Privilege::Root {
            let porter = Plan::porter();
            keeper.engage(reporting(&porter, |report| Porter::start(&keeper, &porter, &Given { report, ..given }))?);
        }
        let maker = reporting(&plan, |report| Maker::start(&keeper, &plan, &Given { report, ..given }))?;
        heap::look_at(maker.pid().map_err(preparing("learn a maker's process id"))?);
        Ok(Workshop { plan, keeper: Arc::new(keeper), maker })
    }
}

impl Worker {
    fn run(mut self) {
        let mut workshop: Option<Workshop> = None;
        while self.wait_for_need() {
            let outcome = self.make_in(&mut workshop);
            if outcome.is_err() {
                // Whatever ails it, the next one begins afresh.
                workshop = None;
            }
            self.hand_in(outcome);
        }
        if let Some(Workshop { keeper, maker, .. }) = workshop {
            drop(maker);
            // The sandboxes of this thread would die with it.
            while Arc::strong_count(&keeper) > 1 {
                thread::sleep(LAST_LOOKS);
            }
        }
    }

    /// Whether there is anything more to do; counts the sandbox as coming.
    fn wait_for_need(&self) -> bool {
        let mut desk = self.shared.desk();
        loop {
            if desk.closed {
                return false;
            }
            if !desk.dead.is_empty() {
                let dead = std::mem::take(&mut desk.dead);
                drop(desk);
                dead.into_iter().for_each(discard);
                desk = self.shared.desk();
                continue;
            }
            let there = desk.waiting.len() + desk.coming;
            let pressing = there < desk.wanted || there < self.shared.size / 4;
            let quiet_at = desk.last_taken + QUIET;
            let now = Instant::now();
            if pressing || (there < self.shared.size && now >= quiet_at) {
                desk.coming += 1;
                return true;
            }
            let pause = if there < self.shared.size { quiet_at - now } else { Duration::MAX };
            desk = if pause == Duration::MAX {
                self.shared.changed.wait(desk).unwrap_or_else(PoisonError::into_inner)
            } else {
                self.shared.changed.wait_timeout(desk, pause).unwrap_or_else(PoisonError::into_inner).0
            };
        }
    }

    fn hand_in(&self, outcome: Result<Waiting, StartError>) {
        let mut desk = self.shared.desk();
        let outcome = match outcome {
            Ok(waiting) if desk.closed => {
                drop(desk);
                discard(waiting);
                desk = self.shared.desk();
                None
            }
            outcome => Some(outcome),
        };
        desk.coming -= 1;
        let pause = match outcome {
            None => None,
            Some(Ok(waiting)) => {
                desk.waiting.push_back(waiting);
                desk.failures = 0;
                None
            }
            Some(Err(error)) => {
                desk.failure = Some(error.to_string());
                desk.failures += 1;
                Some((FIRST_PAUSE * 2_u32.saturating_pow(desk.failures.min(10))).min(LONGEST_PAUSE))
            }
        };
        self.shared.changed.notify_all();
        if let Some(pause) = pause {
            let _ = self.shared.changed.wait_timeout_while(desk, pause, |desk| !desk.closed);
        }
    }

    fn make_in(&mut self, workshop: &mut Option<Workshop>) -> Result<Waiting, StartError> {
        let place = match workshop.take() {
            Some(workshop) if workshop.keeper.serves_this_thread() => workshop,
            _ => Workshop::open(&self.recipe)?,
        };
        let made = self.make(&place);
        *workshop = Some(place);
        made
    }

    fn make(&mut self, Workshop { plan, keeper, maker }: &Workshop) -> Result<Waiting, StartError> {
        // Pairs with nothing: only that no two are the same, also of several pools, counts.
        let made = MADE.fetch_add(1, Ordering::Relaxed);
        let Recipe { host, template, groups, state, null, .. } = &*self.recipe;
        // No name of an earlier run, whose groups may not be swept yet.
        let name = format!("w{}-{}-{made}", std::process::id(), self.number);
        check_name(&name)?;
        let Identity { user, uid, gid } = Identity::take(host.privilege)?;
        let network = user.as_ref().map(|_| self.networks.take()).transpose();
        let network = network.map_err(preparing("make a network namespace"))?;
        let group = groups.as_ref().map(|groups| groups.create(&name, &template.limits)).transpose()?;
        let entrances = group.as_ref().map(|group| Ok((group.birthplace()?, group.entrances()?))).transpose();
        let (birthplace, joins) = entrances.map_err(preparing("open the control group"))?.unwrap_or_default();
        let (socket, theirs) = sys::packet_pair().map_err(preparing("make a pair of sockets"))?;
        let (reports, report) = report_pipe()?;
        let [uid_map, gid_map] = [uid, gid].map(|id| format!("{INSIDE_ID} {id} 1\n"));
        let child = Child {
            user: uid,
            uid_map: uid_map.as_bytes(),
            gid_map: gid_map.as_bytes(),
            told_at: theirs.as_fd(),
            report: report.as_fd(),
            network: network.as_ref().map_or(null, Network::namespace).as_fd(),
            birthplace: birthplace.as_ref().map(AsRawFd::as_raw_fd),
            joins: &joins,
        };
        let pidfd = match maker.make(&child) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                let _ = group.map(Group::remove);
                return Err(cloning(error));
            }
        };
        drop((report, theirs));
        let mut remains = Remains::new(pidfd, group, user, Arc::clone(keeper), network);
        let pid = succeeded(bare(plan), spawn::outcome(reports))
            .and_then(|_| sys::pid_of(remains.pidfd()).map_err(preparing("learn the process id")))
            .and_then(|pid| {
                let noted = remains.group.is_none().then(|| state.note(pid, &name)).transpose();
                remains.record = noted.map_err(preparing("record the sandbox"))?;
                remains.ward = self.recipe.warden.as_ref().map(|warden| Ward::new(warden, pid));
                Ok(pid)
            });
        match pid {
            Ok(pid) => {
                remains.network.iter_mut().for_each(|network| network.settle(pid));
                Ok(Waiting { pid, socket, remains, told: 0, made: Instant::now() })
            }
            Err(error) => {
                crate::native::give_up(remains);
                Err(error)
            }
        }
    }
}

/// Who a sandbox is on the host.
struct Identity {
    /// Of a user of its own.
    user: Option<UserLease>,
    uid: u32,
    gid: u32,
}

impl Identity {
    fn take(privilege: Privilege) -> Result<Identity, StartError> {
        if let Privilege::User { uid, gid } = privilege {
            return Ok(Identity { user: None, uid, gid });
        }
        let source = io::Error::from(io::ErrorKind::QuotaExceeded);
        let user = UserLease::take().ok_or(StartError::Prepare { action: "take a host user id", source })?;
        let id = user.id();
        Ok(Identity { user: Some(user), uid: id, gid: id })
    }
}

/// Starts a process of ours that performs this plan, and waits until it is ready.
fn reporting<T>(plan: &Plan, start: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>) -> Result<T, StartError> {
    let (reports, report) = report_pipe()?;
    let started = start(report.as_fd()).map_err(cloning)?;
    drop(report);
    succeeded(plan, spawn::outcome(reports))?;
    Ok(started)
}

/// The plan of a maker's children.
fn bare(plan: &Plan) -> &Plan {
    match plan.steps.last() {
        Some(crate::plan::Step::MakeOthers(bare)) => bare,
        _ => plan,
    }
}

fn report_pipe() -> Result<(OwnedFd, OwnedFd), StartError> {
    let (reports, report) = io::pipe().map_err(preparing("make a pipe"))?;
    let report = sys::lift(report.into()).map_err(preparing("make a pipe"))?;
    debug_assert!(report.as_raw_fd() >= crate::limits::DESCRIPTORS_KEPT_FROM);
    Ok((reports.into(), report))
}
