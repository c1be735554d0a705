//! The process that traces.
//!
//! Owns: its loop, and its walk through the threads of a sandbox. Invariant: a sandbox is stopped when two walks in a row, begun and
//! ended with every thread known and stopped, have found no other; or nothing of it is, and that is said. A walk takes bounded time whatever
//! the sandbox does. It has one thread, and ends when the worker closes its end or dies. Does not know: why a sandbox is stopped.
//!
//! A process whose parent ends is moved to another, so a walk from parents to children may miss one that is on its way. It finds it the next
//! time unless that has moved again; and one that is found is traced, with what it makes, before it is stopped.
#![allow(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use super::{MESSAGE_BYTES, STOP, parse};
use crate::service::{self, CONTROL, WORKER};
use crate::sys::{self, DESCRIPTORS_SENT, Errno, Word, call};

/// How long a sandbox may take to be stopped. One that can be takes a fraction of a millisecond, on a host that
/// has a core for it.
const PATIENCE: Duration = Duration::from_millis(500);
/// Pause between two walks that find something running.
const PAUSE_MS: i32 = 1;
/// Most threads of a sandbox that are stopped.
const THREADS: usize = 8192;
/// Walks in a row that find nothing.
const CLEAN_WALKS: u32 = 2;

/// Forks the process: where it is told, and its pidfd.
pub(super) fn start() -> io::Result<(OwnedFd, OwnedFd)> {
    service::start(c"vilya-warden", serve)
}

fn serve() -> io::Result<()> {
    let mut watch =
        Watch { children: child_signals()?, sandboxes: BTreeMap::new(), homes: BTreeMap::new(), stopping: None };
    service::say_ready()?;
    let mut bytes = [0; MESSAGE_BYTES];
    loop {
        let [is_told, is_orphaned, has_news] = ready([CONTROL, WORKER, watch.children.as_raw_fd()], -1)?;
        if is_orphaned {
            return Ok(());
        }
        if has_news {
            watch.hear();
        }
        if is_told {
            let mut descriptors = [-1; DESCRIPTORS_SENT];
            let told = sys::receive_with(CONTROL, &mut bytes, &mut descriptors, 0);
            let (length, _) = told.map_err(io::Error::from_raw_os_error)?;
            if length != MESSAGE_BYTES {
                return Ok(());
            }
            let (what, leader) = parse(bytes);
            let done = if what == STOP { watch.stop(leader) } else { watch.release(leader) };
            let answer = done.err().unwrap_or(0);
            sys::send_with(CONTROL, &answer.to_ne_bytes(), &[]).map_err(io::Error::from_raw_os_error)?;
        }
    }
}

/// Readable when a thread that is traced has stopped or ended. The signal is blocked, as all are.
fn child_signals() -> io::Result<OwnedFd> {
    let mask = 1_u64 << (libc::SIGCHLD - 1);
    let flags = libc::SFD_NONBLOCK | libc::SFD_CLOEXEC;
    let arguments = [-1, (&raw const mask) as Word, size_of_val(&mask) as Word, flags.into()];
    // SAFETY: the mask outlives the call and the size is its own.
    let made = unsafe { call(libc::SYS_signalfd4, arguments) }.map_err(io::Error::from_raw_os_error)?;
    // SAFETY: made by the call, and known to nobody else.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(made as RawFd) })
}

/// Which of these can be read, when one can or the time has passed.
fn ready<const N: usize>(descriptors: [RawFd; N], patience_ms: i32) -> io::Result<[bool; N]> {
    let mut polls = descriptors.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    // SAFETY: the array outlives the call, and its length is its own.
    if unsafe { libc::poll(polls.as_mut_ptr(), N as libc::nfds_t, patience_ms) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(polls.map(|poll| poll.revents != 0))
}

/// A thread that is traced.
#[derive(Default)]
struct Thread {
    /// Once it has stopped: the signal that it was about to be given, or 0.
    stopped: Option<i32>,
    /// It goes on as soon as it has stopped.
    is_leaving: bool,
}

struct Watch {
    /// Readable when there is something to hear.
    children: OwnedFd,
    /// The traced threads of each sandbox by their ids, and the sandbox by its first process.
    sandboxes: BTreeMap<i32, BTreeMap<i32, Thread>>,
    /// The sandbox of each thread that is traced.
    homes: BTreeMap<i32, i32>,
    /// Whose threads are being stopped now: what appears meanwhile was made by one of them.
    stopping: Option<i32>,
}

impl Watch {
    fn stop(&mut self, leader: i32) -> Result<(), Errno> {
        self.stopping = Some(leader);
        let stopped = self.stop_all(leader);
        self.stopping = None;
        if stopped.is_err() {
            self.let_go(leader);
        }
        stopped
    }

    fn stop_all(&mut self, leader: i32) -> Result<(), Errno> {
        let deadline = Instant::now() + PATIENCE;
        let mut clean = 0;
        while clean < CLEAN_WALKS {
            let was_quiet = self.is_quiet(leader);
            let found = self.walk(leader)?;
            self.hear();
            if was_quiet && found == 0 && self.is_quiet(leader) {
                clean += 1;
                continue;
            }
            clean = 0;
            if Instant::now() > deadline {
                return Err(libc::ETIMEDOUT);
            }
            if !self.is_quiet(leader) {
                ready([self.children.as_raw_fd()], PAUSE_MS).map_err(|_| libc::EIO)?;
                self.hear();
            }
        }
        // One that has died has nothing to be stopped.
        if self.sandboxes.contains_key(&leader) { Ok(()) } else { Err(libc::ESRCH) }
    }

    fn release(&mut self, leader: i32) -> Result<(), Errno> {
        self.hear();
        self.let_go(leader);
        Ok(())
    }

    fn let_go(&mut self, leader: i32) {
        let threads: Vec<i32> = self.sandboxes.get(&leader).into_iter().flat_map(BTreeMap::keys).copied().collect();
        for tid in threads {
            let Some(thread) = self.thread(tid) else { continue };
            thread.is_leaving = true;
            if let Some(signal) = thread.stopped {
                self.forget(tid);
                detach(tid, signal);
            }
        }
    }

    /// Traces every thread below a process that is not traced yet; how many there were.
    fn walk(&mut self, leader: i32) -> Result<usize, Errno> {
        let (mut found, mut met, mut seen, mut next) = (0, 0, BTreeSet::from([leader]), vec![leader]);
        while let Some(process) = next.pop() {
            // What cannot be read has ended.
            let tids = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
            let tids = tids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
            for tid in tids {
                met += 1;
                if self.thread(tid).is_none_or(|thread| thread.is_leaving) {
                    found += usize::from(self.trace(tid, leader)?);
                }
                let children = fs::read_to_string(format!("/proc/{process}/task/{tid}/children")).unwrap_or_default();
                let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
                next.extend(children.filter(|pid| seen.insert(*pid)));
            }
            if seen.len() > THREADS || met > THREADS {
                return Err(libc::E2BIG);
            }
        }
        Ok(found)
    }

    /// Whether there is such a thread and it was not traced before.
    fn trace(&mut self, tid: i32, leader: i32) -> Result<bool, Errno> {
        if let Some(thread) = self.thread(tid) {
            // It was let go on and has not got there.
            thread.is_leaving = false;
            return Ok(true);
        }
        let follow = libc::PTRACE_O_TRACEFORK | libc::PTRACE_O_TRACEVFORK | libc::PTRACE_O_TRACECLONE;
        let traced = request(libc::PTRACE_SEIZE, tid, follow.into()).and_then(|()| {
            self.know(leader, tid);
            request(libc::PTRACE_INTERRUPT, tid, 0)
        });
        match traced {
            Ok(()) => Ok(true),
            Err(libc::ESRCH) => Ok(true),
            // What is dead cannot be traced; nor can what a thread has made that is traced, before it was heard of.
            Err(_) if is_dead(tid) => Ok(false),
            Err(_) if is_traced_by_us(tid) => Ok(true),
            Err(errno) => Err(errno),
        }
    }

    /// Whether every thread of a sandbox that is known has stopped, or will before it runs again.
    fn is_quiet(&self, leader: i32) -> bool {
        let threads = self.sandboxes.get(&leader).into_iter().flatten();
        let mut running = threads.filter(|(_, thread)| thread.stopped.is_none());
        // In `vfork` it waits for its child, which is stopped, and no signal but the last reaches it.
        running.all(|(tid, _)| matches!(state_of(*tid), Some(b'D' | b't' | b'Z' | b'X') | None))
    }

    /// Hears of what has stopped and what has ended.
    fn hear(&mut self) {
        let mut drained = [0_u8; 4096];
        // SAFETY: room for what is read, of which nothing is looked at: a signal may stand for several.
        let _ = unsafe {
            call(
                libc::SYS_read,
                [self.children.as_raw_fd().into(), drained.as_mut_ptr() as Word, drained.len() as Word],
            )
        };
        loop {
            let mut status = 0;
            // SAFETY: the status outlives the call.
            let tid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::WNOHANG) };
            if tid <= 0 {
                return;
            }
            if libc::WIFSTOPPED(status) {
                // With an event it stands at that; without it is about to be given the signal.
                let signal = if status >> 16 == 0 { libc::WSTOPSIG(status) } else { 0 };
                self.has_stopped(tid, signal);
            } else {
                self.forget(tid);
            }
        }
    }

    fn has_stopped(&mut self, tid: i32, signal: i32) {
        let stopping = self.stopping;
        match (self.thread(tid), stopping) {
            (Some(thread), _) if !thread.is_leaving => thread.stopped = Some(signal),
            (None, Some(leader)) => self.know(leader, tid).stopped = Some(signal),
            _ => {
                self.forget(tid);
                detach(tid, signal);
            }
        }
    }

    fn thread(&mut self, tid: i32) -> Option<&mut Thread> {
        self.sandboxes.get_mut(self.homes.get(&tid)?)?.get_mut(&tid)
    }

    fn know(&mut self, leader: i32, tid: i32) -> &mut Thread {
        self.homes.insert(tid, leader);
        self.sandboxes.entry(leader).or_default().entry(tid).or_default()
    }

    fn forget(&mut self, tid: i32) {
        let Some(leader) = self.homes.remove(&tid) else { return };
        if let Some(threads) = self.sandboxes.get_mut(&leader) {
            threads.remove(&tid);
            if threads.is_empty() {
                self.sandboxes.remove(&leader);
            }
        }
    }
}

/// Lets a stopped thread go on. It fails if that was killed.
fn detach(tid: i32, signal: i32) {
    let _ = request(libc::PTRACE_DETACH, tid, signal.into());
}

fn request(request: libc::c_uint, tid: i32, data: Word) -> Result<(), Errno> {
    // SAFETY: none of the requests made here takes an address.
    unsafe { call(libc::SYS_ptrace, [request.into(), tid.into(), 0, data]) }.map(drop)
}

/// The letter that the kernel has for what a thread does.
fn state_of(tid: i32) -> Option<u8> {
    let stat = fs::read(format!("/proc/{tid}/stat")).ok()?;
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    stat.get(end + 2).copied()
}

fn is_dead(tid: i32) -> bool {
    matches!(state_of(tid), Some(b'Z' | b'X') | None)
}

fn is_traced_by_us(tid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    tracer.and_then(|pid| pid.trim().parse().ok()) == Some(std::process::id())
}
