//! Node processes that were started before their function is known, and wait to be told it: what zygotes are to Python.
//!
//! Invariant: one that waits has run no code but ours, in a sandbox confined like any other, and becomes one function's, once.
//! Bounded by a setting; none is started before a function of Node was. It does not know how a sandbox is made or given what is its own.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};
use vilya_isolate::{Descriptors, Mechanism, Spec, Stages, Started};

use crate::manifest::Runtime;
use crate::waiting;

/// Processes that ended while they waited, one after the other, after which no more are started: something is wrong with them.
const DEATHS: u32 = 3;
/// How often it is looked whether those that wait are alive.
const INSPECTION: Duration = Duration::from_secs(1);
/// While none waits, there is nothing to look at.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// The processes that wait.
#[derive(Default)]
pub(crate) struct Ahead {
    wanted: usize,
    waiting: Vec<Waiting>,
    /// The memory of the function of Node that was started last: the heap of a process follows from it.
    memory_bytes: Option<u64>,
    deaths: u32,
    inspected: Option<Instant>,
}

struct Waiting {
    memory_bytes: u64,
    started: Started,
    tells: OwnedFd,
    since: Instant,
}

impl Waiting {
    fn is_alive(&self) -> bool {
        let mut death = [PollFd::new(self.started.pidfd(), PollFlags::POLLIN)];
        poll(&mut death, PollTimeout::ZERO) == Ok(0)
    }
}

impl Ahead {
    pub(crate) fn new(wanted: usize) -> Ahead {
        Ahead { wanted, waiting: Vec::new(), memory_bytes: None, deaths: 0, inspected: None }
    }

    /// The memory of a process that is to be started, if one is.
    pub(crate) fn missing(&self) -> Option<u64> {
        let alike = self.waiting.iter().filter(|waiting| Some(waiting.memory_bytes) == self.memory_bytes).count();
        self.memory_bytes.filter(|_| alike < self.wanted && self.deaths < DEATHS)
    }

    /// Starts one. Its output until it is a function's is thrown away.
    pub(crate) fn start(&mut self, mechanism: &mut dyn Mechanism, spec: &Spec) -> Result<(), String> {
        let told = || -> io::Result<(OwnedFd, Descriptors)> {
            let flags = SockFlag::SOCK_CLOEXEC;
            let (tells, told) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
            let null = || File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from);
            Ok((tells, Descriptors { ring: [told, null()?, null()?], stdout: null()?, stderr: null()? }))
        };
        let (tells, descriptors) = told().map_err(|error| format!("cannot prepare it: {error}"))?;
        let started = mechanism.start(spec, descriptors).map_err(|error| error.to_string())?;
        if self.waiting.len() >= self.wanted {
            // One of another size: nobody has asked for its like since.
            end(self.waiting.remove(0));
        }
        let since = Instant::now();
        self.waiting.push(Waiting { memory_bytes: spec.limits.memory_bytes, started, tells, since });
        Ok(())
    }

    /// Ends those that have died, so that others are started in their places before a start looks for one.
    pub(crate) fn inspect(&mut self) {
        if self.inspected.is_some_and(|last| last.elapsed() < INSPECTION) {
            return;
        }
        self.inspected = Some(Instant::now());
        let (alive, dead): (Vec<Waiting>, Vec<Waiting>) = self.waiting.drain(..).partition(Waiting::is_alive);
        self.waiting = alive;
        dead.into_iter().for_each(|dead| self.bury(dead));
    }

    /// How long it may be until they are looked at again.
    pub(crate) fn pause(&self) -> Duration {
        let since = self.inspected.map_or(INSPECTION, |last| last.elapsed());
        if self.waiting.is_empty() { NEVER } else { INSPECTION.saturating_sub(since) }
    }

    /// For people who ask.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = waiting::Waiting> + '_ {
        self.waiting.iter().map(|one| waiting::Waiting {
            form: waiting::Form::Process,
            layer: waiting::Layer::Runtime,
            of: Some(Runtime::Node.as_str().to_owned()),
            since: one.since,
            memory: waiting::Memory::Process(one.started.pid, one.started.remains.memory_usage()),
        })
    }

    fn bury(&mut self, dead: Waiting) {
        self.deaths += 1;
        if self.deaths == DEATHS {
            tracing::warn!("processes of Node that are started ahead end by themselves: no more are started");
        }
        end(dead);
    }

    /// No more are started.
    pub(crate) fn give_up(&mut self) {
        self.deaths = DEATHS;
    }

    /// Makes one that waits the process of this spec, whose sandbox it then is. None where there is none: the function is then
    /// started from the beginning, and the next finds one.
    pub(crate) fn become_function(
        &mut self,
        mechanism: &mut dyn Mechanism,
        spec: &Spec,
        descriptors: &Descriptors,
    ) -> Option<Started> {
        let begun = Instant::now();
        self.memory_bytes = Some(spec.limits.memory_bytes);
        let Waiting { mut started, tells, memory_bytes, since } = self.take(spec.limits.memory_bytes)?;
        let given = mechanism.give(spec, &started).map_err(|error| error.to_string());
        let told = given.and_then(|could| {
            if could {
                tell(&tells, spec, descriptors).map_err(|error| error.to_string())
            } else {
                Err("it is made otherwise".into())
            }
        });
        if let Err(why) = told {
            tracing::warn!("a process that was started ahead could not become a function: {why}");
            end(Waiting { memory_bytes, started, tells, since });
            return None;
        }
        self.deaths = 0;
        let took_ns = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        started.stages = Stages { mounted_ns: took_ns, total_ns: took_ns, prepared: true, ..Stages::default() };
        Some(started)
    }

    /// One with a heap for this memory that is alive.
    fn take(&mut self, memory_bytes: u64) -> Option<Waiting> {
        while let Some(at) = self.waiting.iter().position(|waiting| waiting.memory_bytes == memory_bytes) {
            let waiting = self.waiting.remove(at);
            if waiting.is_alive() {
                return Some(waiting);
            }
            self.bury(waiting);
        }
        None
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.waiting.drain(..).for_each(end);
    }
}

fn end(waiting: Waiting) {
    let Started { remains, .. } = waiting.started;
    remains.kill();
    let _ = remains.reap();
}

/// The ring, the output and the environment of a function, in one message.
fn tell(tells: &OwnedFd, spec: &Spec, descriptors: &Descriptors) -> io::Result<()> {
    let Descriptors { ring: [down, up, doorbell], stdout, stderr } = descriptors;
    let numbers: [RawFd; 5] = [down, up, doorbell, stdout, stderr].map(AsRawFd::as_raw_fd);
    let environment: Vec<u8> =
        spec.environment.iter().flat_map(|(name, value)| format!("{name}={value}\0").into_bytes()).collect();
    let parts = [IoSlice::new(&environment)];
    let rights = [ControlMessage::ScmRights(&numbers)];
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    sendmsg::<()>(tells.as_raw_fd(), &parts, &rights, flags, None)?;
    Ok(())
}
