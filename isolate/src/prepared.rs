//! Starting a sandbox that was made ahead: what is its own is added from outside, and then it is told what to become.
//!
//! Owns: which specs a prepared sandbox can serve, and the order of such a start. Invariant: everything of a spec is in force before its
//! program runs, whichever way the sandbox was made. Does not know: how a sandbox is prepared (`pool`), or what a copy is made of (`zygote`).

use std::collections::VecDeque;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use crate::attach::{Attachment, Passage};
use crate::limits::{CORES, START_PATIENCE};
use crate::mechanism::{CopyOf, Descriptors, Stages, StartError, Started, WaitingSandbox};
use crate::native::{give_up, preparing, step_refused};
use crate::order::{self, Becoming, FAILURE_BYTES, Order, Part};
use crate::plan::files::{READ_ONLY, WRITABLE};
use crate::plan::{Step, Strings};
use crate::pool::{Pool, PoolOptions, Recipe, Waiting, discard};
use crate::porter::Porter;
use crate::remains::Remains;
use crate::spec::{Bind, Spec};
use crate::sys;
use crate::users::UserLease;
use crate::zygote::Image;

/// Positions of the parts of a start, for messages.
const ATTACHING: usize = 1;
const BECOMING: usize = 2;

/// Starts of prepared sandboxes.
#[derive(Debug)]
pub(crate) struct PreparedStarts {
    pool: Pool,
    template: Spec,
    mount_points: Vec<&'static str>,
    /// Whether the memory limit is a control group's.
    limits_memory: bool,
    /// Most that RLIMIT_DATA can be.
    data_bytes: u64,
    passage: Option<Passage>,
    /// Those that have loaded an image, the one loaded last at the end.
    loaded: VecDeque<Loaded>,
    loaded_most: usize,
}

/// A sandbox that has loaded an image and waits to be told that it is a copy of it.
#[derive(Debug)]
struct Loaded {
    waiting: Waiting,
    image: Arc<Image>,
    /// What it was given already, for an image that is of one function.
    given: Option<Spec>,
}

impl Loaded {
    fn serves(&self, spec: &Spec, copy: CopyOf<'_>) -> bool {
        let is_given =
            |given: &Spec| (&given.binds, &given.limits, &given.cores) == (&spec.binds, &spec.limits, &spec.cores);
        Arc::ptr_eq(&self.image, copy.image) && self.given.as_ref().is_none_or(is_given)
    }
}

/// A sandbox that a start gets.
struct Taken {
    waiting: Waiting,
    had_to_wait: bool,
    loaded: bool,
    given: bool,
}

impl PreparedStarts {
    pub(crate) fn new(recipe: Recipe, options: PoolOptions) -> Result<PreparedStarts, StartError> {
        Pool::try_on(&recipe)?;
        PreparedStarts::untried(recipe, options)
    }

    /// Where it is known that sandboxes can be made ahead.
    pub(crate) fn untried(recipe: Recipe, options: PoolOptions) -> Result<PreparedStarts, StartError> {
        let (limits_memory, data_bytes) = (recipe.host.groups.memory, recipe.host.hard_limits.data_bytes);
        let pool = Pool::start(recipe, options.size, options.threads).map_err(preparing("start a thread"))?;
        let PoolOptions { template, mount_points, loaded: loaded_most, .. } = options;
        let loaded = VecDeque::with_capacity(loaded_most);
        let passage = None;
        Ok(PreparedStarts { pool, template, mount_points, limits_memory, data_bytes, passage, loaded, loaded_most })
    }

    pub(crate) fn wait_until_full(&self, patience: Duration) -> bool {
        self.pool.wait_until_full(patience)
    }

    /// Those that wait now, with an image or without.
    pub(crate) fn waiting(&self) -> Vec<WaitingSandbox> {
        let loaded = self.loaded.iter().map(|loaded| loaded.waiting.sighting(Some(&loaded.image)));
        self.pool.waiting().into_iter().chain(loaded).collect()
    }

    pub(crate) fn template(&self) -> &Spec {
        &self.template
    }

    /// Whether none waits and none can be made.
    pub(crate) fn fails(&self) -> bool {
        self.pool.fails()
    }

    /// Whether this spec is the template's but for what a start can still give.
    pub(crate) fn serves(&self, spec: &Spec) -> bool {
        let mut same = Spec {
            name: self.template.name.clone(),
            command: self.template.command.clone(),
            environment: self.template.environment.clone(),
            working_directory: self.template.working_directory.clone(),
            binds: self.template.binds.clone(),
            cores: self.template.cores.clone(),
            ..spec.clone()
        };
        same.limits.memory_bytes = self.template.limits.memory_bytes;
        same == self.template && order::fits(spec) && self.own_binds(spec).all(|bind| self.serves_bind(bind))
    }

    /// One that may be written would need a rule that the sandbox was made without.
    fn serves_bind(&self, bind: &Bind) -> bool {
        bind.read_only && self.mount_points.contains(&bind.target.as_str())
    }

    /// The binds that are not in every sandbox already.
    fn own_binds<'a>(&'a self, spec: &'a Spec) -> impl Iterator<Item = &'a Bind> {
        spec.binds.iter().filter(|bind| !self.template.binds.contains(bind))
    }

    /// Begins a start: of a copy of an image, or of the spec's program.
    pub(crate) fn begin(
        &mut self,
        spec: &Spec,
        descriptors: &Descriptors,
        copy: Option<CopyOf<'_>>,
    ) -> Result<Unfinished, StartError> {
        let begun_ns = sys::now_ns();
        spec.check()?;
        let becoming = copy.map_or(Becoming::Program, |CopyOf { image, tells_environment }| Becoming::Copy {
            resume: image.resume(),
            tells_environment,
        });
        let environment = copy.filter(|copy| copy.tells_environment).map(|_| environment_file(spec)).transpose()?;
        let planned_ns = sys::now_ns();
        let Taken { mut waiting, had_to_wait, loaded, given } = self.take(spec, copy)?;
        let taken_ns = sys::now_ns();
        let given = self.tell(spec, &mut waiting, copy.filter(|_| !loaded), given).and_then(|grouped_ns| {
            let attached_ns = sys::now_ns();
            let order = Order::new(spec, becoming, waiting.told);
            send_last(&waiting, &order, descriptors, environment.as_ref())?;
            Ok((order, grouped_ns, attached_ns))
        });
        let (order, grouped_ns, attached_ns) = match given {
            Ok(times) => times,
            Err(error) => {
                give_up(waiting.remains);
                return Err(error);
            }
        };
        let stages = Stages {
            planned_ns: planned_ns - begun_ns,
            grouped_ns: grouped_ns - taken_ns,
            cloned_ns: taken_ns - planned_ns,
            mounted_ns: attached_ns - grouped_ns,
            prepared: !had_to_wait,
            copied: copy.is_some(),
            of_runtime: copy.is_some_and(|copy| copy.tells_environment),
            loaded,
            ..Stages::default()
        };
        Ok(Unfinished { waiting, order, spec: spec.clone(), stages, begun_ns, attached_ns })
    }

    /// Gives a sandbox whose program runs already, and is ours, what is its own.
    pub(crate) fn give_running(&mut self, spec: &Spec, started: &Started) -> Result<(), StartError> {
        spec.check()?;
        let threads =
            std::fs::read_dir(format!("/proc/{}/task", started.pid)).map_err(preparing("list its threads"))?;
        let threads: Vec<i32> = threads.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        self.give(spec, &started.remains, &threads).map(drop)
    }

    /// A sandbox for a start: one that has loaded the image, or any that waits.
    fn take(&mut self, spec: &Spec, copy: Option<CopyOf<'_>>) -> Result<Taken, StartError> {
        while let Some(place) = copy.and_then(|copy| self.loaded.iter().position(|loaded| loaded.serves(spec, copy))) {
            let Some(Loaded { waiting, given, .. }) = self.loaded.remove(place) else { break };
            if !waiting.is_dead() {
                return Ok(Taken { waiting, had_to_wait: false, loaded: true, given: given.is_some() });
            }
            discard(waiting);
        }
        let (waiting, had_to_wait) = self.pool.take()?;
        Ok(Taken { waiting, had_to_wait, loaded: false, given: false })
    }

    /// Gives a sandbox what is its own, if it has not got it, and has it load an image; when its groups were set.
    fn tell(
        &mut self,
        spec: &Spec,
        waiting: &mut Waiting,
        loads: Option<CopyOf<'_>>,
        given: bool,
    ) -> Result<u64, StartError> {
        let grouped_ns = if given { sys::now_ns() } else { self.give(spec, &waiting.remains, &[waiting.pid])? };
        loads.map_or(Ok(()), |copy| load(waiting, copy.image))?;
        Ok(grouped_ns)
    }

    /// Has a sandbox load an image that the next start of this spec will ask for; whether one has. One for each is enough: functions that are
    /// started many times at once find none loaded.
    pub(crate) fn load(&mut self, spec: &Spec, copy: CopyOf<'_>) -> Result<bool, StartError> {
        if self.loaded_most == 0 || !self.serves(spec) {
            return Ok(false);
        }
        self.keep_loaded(&mut |_| true);
        if self.loaded.iter().any(|loaded| loaded.serves(spec, copy)) {
            return Ok(true);
        }
        let Some(mut waiting) = self.pool.take_spare() else { return Ok(false) };
        // An image of a runtime is any function's.
        let given = (!copy.tells_environment).then(|| spec.clone());
        let told = given.as_ref().map_or(Ok(0), |spec| self.give(spec, &waiting.remains, &[waiting.pid]));
        if let Err(error) = told.and_then(|_| load(&mut waiting, copy.image)) {
            give_up(waiting.remains);
            return Err(error);
        }
        if self.loaded.len() >= self.loaded_most {
            self.loaded.pop_front().into_iter().for_each(|loaded| discard(loaded.waiting));
        }
        self.loaded.push_back(Loaded { waiting, image: Arc::clone(copy.image), given });
        Ok(true)
    }

    /// Ends those whose image is not wanted, and those that have died; how many are left.
    pub(crate) fn keep_loaded(&mut self, is_wanted: &mut dyn FnMut(&Arc<Image>) -> bool) -> usize {
        for loaded in std::mem::take(&mut self.loaded) {
            if is_wanted(&loaded.image) && !loaded.waiting.is_dead() {
                self.loaded.push_back(loaded);
            } else {
                discard(loaded.waiting);
            }
        }
        self.loaded.len()
    }

    /// Gives a sandbox of these threads what is its own; when its groups were set.
    fn give(&mut self, spec: &Spec, remains: &Remains, threads: &[i32]) -> Result<u64, StartError> {
        if let Some(group) = remains.group.as_ref().filter(|_| spec.limits != self.template.limits) {
            group.limit_memory(&spec.limits).map_err(preparing("set the memory limit"))?;
        }
        if !self.limits_memory
            && let Some(process) = threads.first()
        {
            // It waits with all that the worker may have.
            let bytes = spec.limits.memory_bytes.min(self.data_bytes);
            let user = remains.user.as_ref().map(UserLease::id);
            sys::limit_data(*process, user, bytes).map_err(preparing("set the memory limit"))?;
        }
        if !spec.cores.is_empty() {
            let mut mask = [0_u64; CORES / 64];
            spec.cores.iter().for_each(|core| mask[core / 64] |= 1 << (core % 64));
            let refused = |error: io::Error| step_refused(Some(&Step::Cores(mask)), ATTACHING, errno(&error));
            threads.iter().try_for_each(|thread| sys::set_cores(*thread, &mask)).map_err(refused)?;
        }
        let grouped_ns = sys::now_ns();
        self.attach(spec, remains)?;
        Ok(grouped_ns)
    }

    fn attach(&mut self, spec: &Spec, remains: &Remains) -> Result<(), StartError> {
        let own: Vec<Bind> = self.own_binds(spec).cloned().collect();
        if own.is_empty() {
            return Ok(());
        }
        if let Some(porter) = remains.keeper.as_ref().and_then(|keeper| keeper.porter()) {
            return own.iter().try_for_each(|bind| carry(porter, remains, bind));
        }
        let trees: Result<Vec<Attachment>, StartError> = own.iter().map(attachment).collect();
        let trees = trees?;
        let passage = match self.passage.take().filter(Passage::is_of_this_thread) {
            Some(passage) => passage,
            None => Passage::of_this_thread().map_err(preparing("visit a mount namespace"))?,
        };
        let attached = passage.attach(remains.pidfd(), &trees);
        self.passage = Some(passage);
        attached.map_err(|error| step_refused(own.first().map(step_of).as_ref(), ATTACHING, errno(&error)))
    }
}

impl Drop for PreparedStarts {
    fn drop(&mut self) {
        self.keep_loaded(&mut |_| false);
    }
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

fn text(string: impl AsRef<[u8]>) -> CString {
    CString::new(string.as_ref()).expect("the spec's check refuses NUL bytes")
}

fn step_of(bind: &Bind) -> Step {
    Step::Bind {
        source: text(bind.source.as_os_str().as_bytes()),
        target: text(bind.target.trim_start_matches('/')),
        attributes: if bind.read_only { READ_ONLY } else { WRITABLE },
        follow: false,
    }
}

fn carry(porter: &Porter, remains: &Remains, bind: &Bind) -> Result<(), StartError> {
    let source = text(bind.source.as_os_str().as_bytes());
    let attributes = if bind.read_only { READ_ONLY } else { WRITABLE };
    let carried = porter.attach(remains.pidfd(), &source, &text(&bind.target), attributes);
    carried.map_err(|error| match error.kind() {
        // The porter was ended from outside.
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => StartError::Killed,
        _ => step_refused(Some(&step_of(bind)), ATTACHING, errno(&error)),
    })
}

fn attachment(bind: &Bind) -> Result<Attachment, StartError> {
    let refused = |errno| step_refused(Some(&step_of(bind)), ATTACHING, errno);
    let source = text(bind.source.as_os_str().as_bytes());
    let attributes = if bind.read_only { READ_ONLY } else { WRITABLE };
    let tree = sys::detached_tree(&source, attributes).map_err(|error| refused(errno(&error)))?;
    let tree = File::from(tree);
    let kind = tree.metadata().map_err(|error| refused(errno(&error)))?.file_type();
    if !kind.is_dir() {
        return Err(refused(libc::ENOTDIR));
    }
    Ok(Attachment { tree: tree.into(), target: text(&bind.target) })
}

/// What tells a copy its environment: a file in memory that is read from its beginning.
fn environment_file(spec: &Spec) -> Result<OwnedFd, StartError> {
    let failed = || preparing("write the environment");
    let mut file = File::from(sys::memory_file(c"vilya-environment").map_err(failed())?);
    file.write_all(&order::environment(spec)).and_then(|()| file.rewind()).map_err(failed())?;
    Ok(file.into())
}

/// Has a waiting sandbox load an image, and then have the pages that copies touch.
fn load(waiting: &mut Waiting, image: &Image) -> Result<(), StartError> {
    let (address, bytes) = image.script();
    send(waiting, &order::load(address, bytes), &[image.memory().as_raw_fd()])?;
    waiting.told = 1;
    if !image.touched().is_empty() {
        send(waiting, &order::touch(image.touched()), &[])?;
        waiting.told = 2;
    }
    Ok(())
}

/// Tells a waiting sandbox what to become.
fn send_last(
    waiting: &Waiting,
    order: &Order,
    descriptors: &Descriptors,
    environment: Option<&OwnedFd>,
) -> Result<(), StartError> {
    let Descriptors { ring: [down, up, doorbell], stdout, stderr } = descriptors;
    let mut numbers = [stdout, stderr, down, up, doorbell].map(|fd: &OwnedFd| fd.as_raw_fd()).to_vec();
    numbers.extend(environment.map(AsRawFd::as_raw_fd));
    send(waiting, &order.bytes, &numbers)
}

fn send(waiting: &Waiting, message: &[u8], descriptors: &[RawFd]) -> Result<(), StartError> {
    let gone = |errno| if errno == libc::EPIPE { StartError::Killed } else { step_refused(None, BECOMING, errno) };
    sys::send_with(waiting.socket.as_raw_fd(), message, descriptors).map_err(gone)
}

/// A sandbox that was told what to become and may not be it yet.
#[derive(Debug)]
#[must_use = "a start is not over before it is finished"]
pub struct Unfinished {
    waiting: Waiting,
    order: Order,
    spec: Spec,
    stages: Stages,
    begun_ns: u64,
    attached_ns: u64,
}

impl Unfinished {
    /// Waits until it is what it was told.
    pub(crate) fn finish(self) -> Result<Started, StartError> {
        let waited = self.wait();
        let Unfinished { waiting: Waiting { pid, remains, .. }, stages, begun_ns, attached_ns, .. } = self;
        match waited {
            Ok(()) => {
                let now_ns = sys::now_ns();
                let stages = Stages { executed_ns: now_ns - attached_ns, total_ns: now_ns - begun_ns, ..stages };
                Ok(Started { pid, stages, remains })
            }
            Err(error) => {
                give_up(remains);
                Err(error)
            }
        }
    }

    fn wait(&self) -> Result<(), StartError> {
        let Unfinished { waiting, order, spec, stages, .. } = self;
        let waiting_for = preparing("wait for a sandbox");
        if !sys::poll_readable(waiting.socket.as_fd(), START_PATIENCE).map_err(waiting_for)? {
            return Err(StartError::Late);
        }
        let mut answer = [0; FAILURE_BYTES];
        match sys::receive_owned(waiting.socket.as_fd(), &mut answer) {
            // Closed by `exec`, or by its death, which is told of by its pidfd. A copy says that it is one.
            Ok((0, _)) if !stages.copied => Ok(()),
            Ok((1, _)) => Ok(()),
            Ok((0, _)) => Err(StartError::NotCopied),
            Ok(_) => {
                let (part, errno) = order.failure(&answer);
                let entering = || Step::Enter(text(&spec.working_directory));
                let step = if part == Part::Entering { entering() } else { becoming_step(spec) };
                Err(step_refused(Some(&step), BECOMING, errno))
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(StartError::Killed),
            Err(error) => Err(preparing("wait for a sandbox")(error)),
        }
    }
}

fn becoming_step(spec: &Spec) -> Step {
    Step::Execute {
        program: text(spec.command.first().map_or("", String::as_str)),
        arguments: Strings::new(spec.command.iter().map(text).collect()),
        environment: Strings::new(Vec::new()),
    }
}
