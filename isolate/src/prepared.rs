//! Starting a sandbox that was made ahead: what is its own is added from outside, and then it is told what to become.
//!
//! Owns: which specs a prepared sandbox can serve, and the order of such a start. Invariant: everything of a spec is in force before its
//! program runs, whichever way the sandbox was made. Does not know: how a sandbox is prepared (`pool`), or what a copy is made of (`zygote`).

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use crate::attach::{Attachment, Passage};
use crate::limits::{CORES, START_PATIENCE};
use crate::mechanism::{CopyOf, Descriptors, Stages, StartError, Started};
use crate::native::{give_up, preparing, step_refused};
use crate::order::{self, Becoming, FAILURE_BYTES, Order, Part};
use crate::plan::files::{READ_ONLY, WRITABLE};
use crate::plan::{Step, Strings};
use crate::pool::{Pool, PoolOptions, Recipe, Waiting};
use crate::remains::Remains;
use crate::spec::{Bind, Spec};
use crate::sys;

/// Positions of the parts of a start, for messages.
const ATTACHING: usize = 1;
const BECOMING: usize = 2;

/// Starts of prepared sandboxes.
#[derive(Debug)]
pub(crate) struct PreparedStarts {
    pool: Pool,
    template: Spec,
    mount_points: Vec<&'static str>,
    /// Whether the memory limit is a control group's, which can still be changed.
    limits_memory: bool,
    passage: Option<Passage>,
}

impl PreparedStarts {
    pub(crate) fn new(recipe: Recipe, options: PoolOptions, limits_memory: bool) -> Result<PreparedStarts, StartError> {
        let pool = Pool::start(recipe, options.size, options.threads).map_err(preparing("start a thread"))?;
        let PoolOptions { template, mount_points, .. } = options;
        Ok(PreparedStarts { pool, template, mount_points, limits_memory, passage: None })
    }

    pub(crate) fn wait_until_full(&self, patience: Duration) -> bool {
        self.pool.wait_until_full(patience)
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
        if self.limits_memory {
            same.limits.memory_bytes = self.template.limits.memory_bytes;
        }
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
        let becoming = copy.map_or(Becoming::Program, |CopyOf { image, tells_environment }| {
            let (address, bytes) = image.script();
            Becoming::Copy { address, bytes, tells_environment }
        });
        let environment = copy.filter(|copy| copy.tells_environment).map(|_| environment_file(spec)).transpose()?;
        let order = Order::new(spec, becoming);
        let planned_ns = sys::now_ns();
        let (waiting, had_to_wait) = self.pool.take()?;
        let taken_ns = sys::now_ns();
        let given = self.give(spec, &waiting.remains, &[waiting.pid]).and_then(|grouped_ns| {
            let attached_ns = sys::now_ns();
            let more: Vec<RawFd> = copy.map(|copy| copy.image.memory().as_raw_fd()).into_iter().collect();
            let environment = environment.as_ref().map(AsRawFd::as_raw_fd);
            send(&waiting, &order, descriptors, more.into_iter().chain(environment))?;
            Ok((grouped_ns, attached_ns))
        });
        let (grouped_ns, attached_ns) = match given {
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

    /// Gives a sandbox of these threads what is its own; when its groups were set.
    fn give(&mut self, spec: &Spec, remains: &Remains, threads: &[i32]) -> Result<u64, StartError> {
        if let Some(group) = remains.group.as_ref().filter(|_| spec.limits != self.template.limits) {
            group.limit_memory(&spec.limits).map_err(preparing("set the memory limit"))?;
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
        let trees: Result<Vec<Attachment>, StartError> = own.iter().map(attachment).collect();
        let trees = trees?;
        let passage = match self.passage.take().filter(Passage::is_of_this_thread) {
            Some(passage) => passage,
            None => Passage::of_this_thread().map_err(preparing("visit a mount namespace"))?,
        };
        let attached = passage.attach(remains.pidfd.as_fd(), &trees);
        self.passage = Some(passage);
        attached.map_err(|error| step_refused(own.first().map(step_of).as_ref(), ATTACHING, errno(&error)))
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

/// Tells a waiting sandbox what to become.
fn send(
    waiting: &Waiting,
    order: &Order,
    descriptors: &Descriptors,
    more: impl Iterator<Item = RawFd>,
) -> Result<(), StartError> {
    let Descriptors { ring: [down, up, doorbell], stdout, stderr } = descriptors;
    let mut numbers = [stdout, stderr, down, up, doorbell].map(|fd: &OwnedFd| fd.as_raw_fd()).to_vec();
    numbers.extend(more);
    let gone = |errno| if errno == libc::EPIPE { StartError::Killed } else { step_refused(None, BECOMING, errno) };
    sys::send_with(waiting.socket.as_raw_fd(), &order.bytes, &numbers).map_err(gone)
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
