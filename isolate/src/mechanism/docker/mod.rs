//! The `docker` mechanism: each sandbox is a container of a Docker engine on this host.
//!
//! Owns: the order of a start, and the end of a container. Invariant: every container bears the worker's id as a label from its making on, so
//! that whatever kills the worker, the next start finds it. Does not know: how an engine confines.
//!
//! An engine passes no descriptors on. So the first program of a container is a launcher of ours, which takes them from the worker through a
//! socket and becomes the function (`launcher.rs`). It is a freestanding program rather than the worker's own binary: it needs no library of
//! the container, takes no time to load, and works for whatever program embeds the worker. While it waits for its descriptors the worker
//! opens its pidfd, so a process id is never mistaken.
//!
//! An engine tells the death by a signal as 128 and its number; a program that ends with such a status cannot be told from it.

mod engine;
mod handover;
mod pausing;
mod request;

use std::collections::HashMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cgroup::{Precedence, Switches};
use crate::freezer::Freezer;
use crate::host::{GroupFacts, Host};
use crate::mechanism::container::{self, Confined, Container, End};
use crate::mechanism::layout::Layout;
use crate::mechanism::{Descriptors, Mechanism, Stages, StartError, Started, trial_spec};
use crate::native::SetupError;
use crate::plan::{Ending, Plan};
use crate::protections::{Protection, Protections};
use crate::remains::{Exit, Remains};
use crate::seccomp::Filter;
use crate::spec::{Root, Spec, SpecError, check_name};
use crate::state::State;
use crate::sweep::Swept;
use crate::sys;
use crate::users::UserLease;

use engine::{Body, Engine, EngineError, escaped};
use handover::Handover;
use pausing::Paused;

const NAME: &str = "docker";
const TRIAL_MEMORY_BYTES: u64 = 64 << 20;
const TRIAL_OPEN_FILES: u32 = 256;
/// How many of the engine's images are remembered; one that is not is asked for again.
const OTHERS: usize = 64;

/// How to set the mechanism up.
#[derive(Clone, Debug)]
pub struct DockerOptions {
    /// A directory of this worker alone, kept across its restarts.
    pub state_directory: PathBuf,
    /// The same across restarts; `[a-z0-9-]`. It labels containers.
    pub worker_id: String,
    /// Where the engine listens.
    pub socket: PathBuf,
}

/// Containers made by a Docker engine.
#[derive(Debug)]
pub struct Docker {
    host: Host,
    filter: &'static Filter,
    engine: Engine,
    place: Place,
    launcher: PathBuf,
    image: String,
    /// The engine's images for functions' own, by the links at the root of those.
    others: HashMap<Vec<(String, String)>, String>,
    worker_id: String,
    protections: Protections,
}

/// Whether the mechanism can be set up here, as far as it can be told without trying.
///
/// # Errors
/// What is missing, and what to do about it.
pub fn available(socket: &Path) -> Result<(), String> {
    usable(&Engine::at(socket)).map(drop)
}

/// What the engine says of itself.
fn usable(engine: &Engine) -> Result<Value, String> {
    let info = engine.get("/info").map_err(|error| format!("the docker mechanism needs an engine: {error}"))?;
    let options = info["SecurityOptions"].as_array().map_or(&[] as &[Value], Vec::as_slice);
    let says = |word: &str| options.iter().filter_map(Value::as_str).any(|option| option.starts_with(word));
    if says("name=rootless") {
        return Err(
            "the docker mechanism needs an engine that runs as root: a rootless one cannot give each sandbox a user \
                    of its own; set sandbox.docker_socket to another, or use mechanism = \"native\""
                .to_owned(),
        );
    }
    if info["OSType"] != "linux" || !says("name=seccomp") {
        return Err("the docker mechanism needs an engine for Linux with seccomp; set sandbox.docker_socket to another, or use \
                    mechanism = \"native\""
            .to_owned());
    }
    Ok(info)
}

impl Docker {
    /// Finds the engine and proves with a trial container that it works.
    ///
    /// # Errors
    /// When it cannot make sandboxes here; the message says what to change.
    pub fn new(options: DockerOptions) -> Result<Docker, SetupError> {
        let DockerOptions { state_directory, worker_id, socket } = options;
        check_name(&worker_id)?;
        let engine = Engine::at(&socket);
        let info = usable(&engine).map_err(SetupError::Unavailable)?;
        let state = State::at(&state_directory);
        if let Some(owner) = state.other_owner() {
            return Err(SetupError::InUse { pid: owner.pid, path: state_directory });
        }
        let failed = |source| SetupError::State { path: state_directory.clone(), source };
        state.make().and_then(|()| state.check()).and_then(|()| state.own()).map_err(failed)?;
        let place = Place::make(&state, &socket).map_err(failed)?;
        let launcher = handover::install(&place.root).map_err(failed)?;
        let staging = state.staging().canonicalize().map_err(failed)?;
        // The engine limits all three, or says that it does not.
        let facts = GroupFacts { memory: true, processes: true, cpu: true, joins: false };
        let mut docker = Docker {
            protections: protections(&info, &Switches::default()),
            host: Host::probe(staging, facts)?,
            filter: Filter::shared()?,
            engine,
            place,
            launcher,
            image: String::new(),
            others: HashMap::new(),
            worker_id,
        };
        let found = docker.trial()?;
        docker.protections = protections(&info, &found);
        Ok(docker)
    }

    /// What the groups of a container can be told.
    fn trial(&mut self) -> Result<Switches, SetupError> {
        let mut spec = trial_spec();
        // The engine's runtime starts within these limits.
        spec.limits.memory_bytes = TRIAL_MEMORY_BYTES;
        spec.limits.open_files = TRIAL_OPEN_FILES;
        let plan = Plan::new(&spec, &self.host, self.filter, Ending::Execute)?;
        let layout = Layout::of(&plan, NAME).map_err(SetupError::Trial)?;
        self.image = self.import(&layout).map_err(|reason| SetupError::Trial(refused(reason)))?;
        let (started, found) = self.begin_container(&spec, Descriptors::nowhere()?).map_err(SetupError::Trial)?;
        let ended = started.remains.reap();
        if ended.exit == Exit::Code(0) { Ok(found) } else { Err(SetupError::TrialEnded(ended.exit)) }
    }

    /// Gives the engine the image of this host's links and directories, unless it has it. It stays there: the next start needs it again.
    fn import(&self, layout: &Layout) -> Result<String, String> {
        let (name, bytes) = request::image(layout).map_err(|error| format!("cannot make an image: {error}"))?;
        match self.engine.get(&format!("/images/{}/json", escaped(&name))) {
            Ok(_) => return Ok(name),
            Err(error) if error.is_absence() => {}
            Err(error) => return Err(error.to_string()),
        }
        let (repository, tag) = name.split_once(':').expect("the name was made with a tag");
        let path = format!("/images/create?fromSrc=-&repo={repository}&tag={tag}");
        self.engine.post(&path, &Body::Tar(&bytes)).map_err(|error| format!("cannot import an image: {error}"))?;
        Ok(name)
    }

    /// The engine's image for a sandbox. Where a function brings directories of its own, they are mounted on links and directories that fit
    /// them, not on this host's.
    fn image_of(&mut self, spec: &Spec, layout: &Layout) -> Result<String, String> {
        match &spec.root {
            Root::System => Ok(self.image.clone()),
            Root::Image(root) => {
                if let Some(name) = self.others.get(&root.links) {
                    return Ok(name.clone());
                }
                let name = self.import(layout)?;
                if self.others.len() >= OTHERS {
                    self.others.clear();
                }
                self.others.insert(root.links.clone(), name.clone());
                Ok(name)
            }
        }
    }

    /// From a request to a launcher that has become its program.
    fn make(
        &self,
        given: &request::Given<'_>,
        container: &mut DockerContainer,
        descriptors: Descriptors,
    ) -> Result<(i32, OwnedFd), String> {
        let failed = |action: &'static str| move |error: io::Error| format!("cannot {action}: {error}");
        request::write_files(given).map_err(failed("write its files"))?;
        let handover = Handover::prepare(&request::shown(given.directory), &self.launcher);
        let handover = handover.map_err(failed("prepare its socket"))?;
        let refused = |error: EngineError| error.to_string();
        let name = format!("vilya-{}-{}", self.worker_id, given.spec.name);
        let path = format!("/containers/create?name={}", escaped(&name));
        let created = self.engine.post(&path, &Body::Json(&request::container(given))).map_err(refused)?;
        container.id = Some(created["Id"].as_str().ok_or("the engine gave no id")?.to_owned());
        self.engine.post(&container.path("/start"), &Body::Nothing).map_err(refused)?;
        let caller = handover.await_launcher().map_err(failed("hear of its launcher"))?;
        container.switches = Switches::of_process(caller.pid, container.id.as_deref().unwrap_or_default());
        let command = &given.spec.command[0];
        caller.serve(descriptors).map_err(|error| format!("cannot execute {command}: {error}"))
    }
}

impl Docker {
    /// Starts a sandbox; what its groups can be told, as well.
    fn begin_container(&mut self, spec: &Spec, descriptors: Descriptors) -> Result<(Started, Switches), StartError> {
        let begun_ns = sys::now_ns();
        let plan = Plan::new(spec, &self.host, self.filter, Ending::Execute)?;
        if let Some(bind) = spec.binds.iter().find(|bind| Path::new(&bind.target).starts_with(handover::INSIDE)) {
            let (target, other) = (bind.target.clone(), handover::INSIDE.to_owned());
            return Err(SpecError::Overlap { target, other }.into());
        }
        let layout = Layout::of(&plan, NAME)?;
        let image = self.image_of(spec, &layout).map_err(refused)?;
        let source = io::Error::from(io::ErrorKind::QuotaExceeded);
        let user = UserLease::take().ok_or(StartError::Prepare { action: "take a host user id", source })?;
        let directory = self.place.sandboxes.join(&spec.name);
        // Its own, or nothing: a container of this name may be running.
        fs::create_dir(&directory)
            .map_err(|source| StartError::Prepare { action: "make the sandbox's directory", source })?;
        let planned_ns = sys::now_ns();
        let given = request::Given {
            layout: &layout,
            spec,
            worker_id: &self.worker_id,
            image: &image,
            user: user.id(),
            directory: &directory,
        };
        let (engine, directory) = (self.engine.clone(), directory.clone());
        let switches = Switches::default();
        let mut container = DockerContainer { engine, id: None, directory, switches, _user: user };
        let made = self.make(&given, &mut container, descriptors);
        match made {
            Ok((pid, pidfd)) => {
                let now = sys::now_ns();
                let (planned_ns, executed_ns, total_ns) = (planned_ns - begun_ns, now - planned_ns, now - begun_ns);
                let stages = Stages { planned_ns, executed_ns, total_ns, ..Stages::default() };
                let switches = container.switches.clone();
                let remains = Remains::of_container(pidfd, Box::new(container));
                Ok((Started { pid, stages, remains }, switches))
            }
            Err(reason) => {
                // What cannot be removed now is removed by the next sweep; the failure of the start is what matters.
                let _ = container.remove();
                Err(refused(reason))
            }
        }
    }
}

fn refused(reason: String) -> StartError {
    StartError::Container { mechanism: NAME, reason }
}

impl Mechanism for Docker {
    fn name(&self) -> &'static str {
        NAME
    }

    fn distinct_users(&self) -> bool {
        true
    }

    fn start(&mut self, spec: &Spec, descriptors: Descriptors) -> Result<Started, StartError> {
        self.begin_container(spec, descriptors).map(|(started, _)| started)
    }

    fn protections(&self) -> &Protections {
        &self.protections
    }
}

#[derive(Debug)]
struct DockerContainer {
    engine: Engine,
    /// Once the engine has made it.
    id: Option<String>,
    directory: PathBuf,
    switches: Switches,
    /// Given back when it is dead.
    _user: UserLease,
}

impl DockerContainer {
    fn path(&self, rest: &str) -> String {
        format!("/containers/{}{rest}", self.id.as_deref().unwrap_or_default())
    }

    fn remove(&self) -> Result<(), String> {
        if self.id.is_some() {
            self.engine.delete(&self.path("?force=true&v=true")).map_err(|error| error.to_string())?;
        }
        fs::remove_dir_all(&self.directory).map_err(|error| error.to_string())
    }

    /// How it ended, once the engine knows: status, and whether the kernel killed it for memory.
    fn verdict(&self) -> Result<(Exit, bool), EngineError> {
        self.engine.post(&self.path("/wait?condition=not-running"), &Body::Nothing)?;
        let state = self.engine.get(&self.path("/json"))?["State"].take();
        let code = state["ExitCode"].as_i64().and_then(|code| i32::try_from(code).ok());
        Ok((code.map_or(Exit::Unknown, exit), state["OOMKilled"] == true))
    }
}

fn exit(code: i32) -> Exit {
    const SIGNALS: std::ops::RangeInclusive<i32> = 129..=192;
    if SIGNALS.contains(&code) { Exit::Signal(code - 128) } else { Exit::Code(code) }
}

impl Container for DockerContainer {
    /// An ordinary user may ask the engine for what it may not do itself.
    fn kill(&self, signalled: bool) {
        if !signalled {
            // It fails if the container is dead; if the engine is, its removal says so.
            let _ = self.engine.post(&self.path("/kill"), &Body::Nothing);
        }
    }

    /// By its group where that can be written, which takes microseconds; else by the engine.
    fn freezer(&self) -> Option<Freezer> {
        let paused = || Some(Freezer::asking(Arc::new(Paused::new(&self.engine, self.id.as_deref()?))));
        self.switches.freezer().map(Freezer::from).or_else(paused)
    }

    fn precedence(&self) -> Option<Precedence> {
        self.switches.precedence()
    }

    fn end(self: Box<Self>, pidfd: BorrowedFd<'_>) -> End {
        // Not a child, so there is nothing to reap here; the engine does.
        while !sys::poll_readable(pidfd, Duration::from_secs(3600)).unwrap_or(true) {}
        let (exit, starved) = self.verdict().unwrap_or((Exit::Unknown, false));
        let left_behind = if self.remove().is_ok() { Vec::new() } else { vec![self.directory.clone()] };
        End { exit, starved, left_behind }
    }
}

/// Where this worker keeps what belongs to its containers.
#[derive(Clone, Debug)]
struct Place {
    root: PathBuf,
    sandboxes: PathBuf,
    /// Names the engine's socket, for the sweep of a later worker that may be set to use another.
    engine: PathBuf,
}

impl Place {
    fn of(state: &State) -> Place {
        let root = state.mechanism(NAME);
        Place { sandboxes: root.join("sandboxes"), engine: root.join("engine"), root }
    }

    /// Nobody else on the host may pass through, since the sockets of launchers are below.
    fn make(state: &State, socket: &Path) -> io::Result<Place> {
        let place = Place::of(state);
        DirBuilder::new().recursive(true).mode(0o700).create(&place.sandboxes)?;
        fs::write(&place.engine, socket.as_os_str().as_encoded_bytes())?;
        let root = place.root.canonicalize()?;
        Ok(Place { sandboxes: root.join("sandboxes"), engine: root.join("engine"), root })
    }
}

/// Removes every container that an earlier worker left with an engine.
pub(crate) fn sweep(state: &State, worker_id: &str, swept: &mut Swept) {
    let place = Place::of(state);
    // Never used here.
    let Ok(socket) = fs::read_to_string(&place.engine) else { return };
    let engine = Engine::at(Path::new(&socket));
    match remove_all(&engine, worker_id) {
        Ok(removed) => swept.containers += removed,
        Err(error) => return swept.stuck.push((place.sandboxes, error.to_string())),
    }
    for sandbox in fs::read_dir(&place.sandboxes).into_iter().flatten().flatten() {
        if let Err(error) = fs::remove_dir_all(sandbox.path()) {
            swept.stuck.push((sandbox.path(), error.to_string()));
        }
    }
}

fn remove_all(engine: &Engine, worker_id: &str) -> Result<usize, EngineError> {
    let filters = json!({ "label": [format!("{}={worker_id}", request::LABEL)] }).to_string();
    let found = engine.get(&format!("/containers/json?all=true&filters={}", escaped(&filters)))?;
    let ids = found.as_array().into_iter().flatten().filter_map(|container| container["Id"].as_str());
    let mut removed = 0;
    for id in ids {
        engine.delete(&format!("/containers/{id}?force=true&v=true"))?;
        removed += 1;
    }
    Ok(removed)
}

fn protections(info: &Value, switches: &Switches) -> Protections {
    let limit = |(name, field): (&'static str, &str)| {
        if info[field] == true {
            Protection::yes(name, "a control group of the engine's making")
        } else {
            Protection::no(name, &format!("the engine says {field} = false: enable that controller on the host"))
        }
    };
    container::protections(Confined {
        users: Protection::no(
            "user namespace",
            "an engine maps users for all its containers or for none; each sandbox is a host user of its own instead",
        ),
        mounts: "owned by the host's root",
        system: "/usr and a minimal /etc, without the mounts below; private /tmp; /sys hidden",
        filter: "the native mechanism's list, loaded by the engine",
        limits: [("memory limit", "MemoryLimit"), ("process limit", "PidsLimit"), ("cpu limit", "CpuCfsQuota")]
            .map(limit),
        switches,
        pauses: Some(
            "the engine's pause and unpause, tens of milliseconds each; run the worker as root to have it by the control group",
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::{Exit, exit};

    #[test]
    fn deaths_by_signals_are_told_from_exits() {
        assert_eq!([0, 7, 128, 255].map(exit), [Exit::Code(0), Exit::Code(7), Exit::Code(128), Exit::Code(255)]);
        assert_eq!([137, 139].map(exit), [Exit::Signal(libc::SIGKILL), Exit::Signal(libc::SIGSEGV)]);
    }
}
