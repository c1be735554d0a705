//! The process that every sandbox of a worker dies with.
//!
//! Owns: the keeper, first process of a pid namespace of the worker's own, in which the pid namespaces of its sandboxes are nested.
//! Invariant: when the keeper ends, the kernel kills everything in its namespace and below; and the keeper ends with the worker.
//! Does not know: sandboxes.
//!
//! Why: the parent-death signal that a sandbox is given belongs to one thread. If another thread of it calls `execve`, it takes that
//! thread's place and the signal is gone. No filter can tell the two calls apart, so a hostile function could outlive its worker. The
//! keeper runs nothing but ours.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::thread::{self, ThreadId};
use std::time::Duration;

use crate::apply::{self, Allotment};
use crate::host::Privilege;
use crate::limits::REMOVAL_PATIENCE;
use crate::plan::Plan;
use crate::porter::Porter;
use crate::spawn::CloneArguments;
use crate::sys::{self, Errno, SignalsBlocked, Stack, Word};

/// A running keeper. Dropping it ends it, and with it every sandbox that was started below it.
#[derive(Debug)]
pub(crate) struct Keeper {
    pidfd: OwnedFd,
    /// The namespaces of its own that a process must be in to make sandboxes below it.
    namespaces: libc::c_int,
    /// The thread that made it: the keeper dies when this thread ends.
    maker: ThreadId,
    /// The keeper's own, until it is known to have ended.
    stack: Option<Stack>,
    /// Attaches mounts in the sandboxes below, where this process may not.
    porter: Option<Porter>,
    /// For the two processes in between, of which there is one pair at a time.
    between: [Stack; 2],
}

impl Keeper {
    /// Starts a keeper as a child of the calling thread. `worker` is a pidfd of this process.
    pub(crate) fn start(worker: BorrowedFd<'_>, privilege: Privilege) -> io::Result<Keeper> {
        let namespaces = match privilege {
            Privilege::Root => libc::CLONE_NEWPID,
            Privilege::User { .. } => libc::CLONE_NEWPID | libc::CLONE_NEWUSER,
        };
        let (stack, between) = (Stack::new()?, [Stack::new()?, Stack::new()?]);
        let mut pidfd: RawFd = -1;
        let flags = libc::CLONE_VM | libc::CLONE_PIDFD | libc::SIGCHLD | namespaces;
        let worker = ptr::without_provenance_mut(worker.as_raw_fd() as usize);
        let blocked = SignalsBlocked::new();
        // SAFETY: `keep` runs on a stack that is unmapped only after it ended, and shares nothing else but memory, of which it touches only
        // that stack and the errno of this thread (and that only when a call fails, after which it exits). It never returns into our code.
        let pid = unsafe { libc::clone(keep, stack.top(), flags, worker, &raw mut pidfd) };
        if pid < 0 {
            return Err(io::Error::last_os_error());
        }
        drop(blocked);
        // SAFETY: CLONE_PIDFD stored a new descriptor there that nobody else knows.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        let keeper =
            Keeper { pidfd, namespaces, maker: thread::current().id(), stack: Some(stack), porter: None, between };
        if let Privilege::User { uid, gid } = privilege {
            map_ids(pid, uid, gid)?;
        }
        Ok(keeper)
    }

    /// Whether sandboxes can be started below it from the calling thread: it runs, and does not depend on another thread.
    pub(crate) fn serves_this_thread(&self) -> bool {
        let ended = sys::poll_readable(self.pidfd.as_fd(), Duration::ZERO).unwrap_or(true);
        self.maker == thread::current().id() && !ended && self.has_its_porter()
    }

    /// Gives it a porter that was started below it, which ends with it.
    pub(crate) fn engage(&mut self, porter: Porter) {
        self.porter = Some(porter);
    }

    pub(crate) fn porter(&self) -> Option<&Porter> {
        self.porter.as_ref()
    }

    /// Whether the porter still runs, if it has one.
    pub(crate) fn has_its_porter(&self) -> bool {
        self.porter.as_ref().is_none_or(Porter::serves)
    }

    /// Makes a child that performs the plan, in a pid namespace below the keeper's; its pidfd. `group` is a version 2 group to be born in.
    ///
    /// The kernel nests a pid namespace only in the one that the caller is in, and a process never changes its own. So one process enters
    /// the keeper's namespaces for its children, and makes a second one there, which makes the child: both in the memory of this process,
    /// while this thread waits (as `vfork` does). The child is this thread's all the same, not theirs.
    pub(crate) fn make(&self, plan: &Plan, allotment: &Allotment<'_>, group: Option<RawFd>) -> io::Result<OwnedFd> {
        // One pair at a time: a keeper serves one thread, and this blocks it.
        debug_assert!(self.maker == thread::current().id(), "the stacks in between belong to the keeper's maker");
        let mut pidfd: RawFd = -1;
        let mut order = Order {
            plan,
            allotment,
            arguments: CloneArguments::sibling(plan.namespaces, group, &raw mut pidfd),
            keeper: self.pidfd.as_raw_fd(),
            namespaces: self.namespaces,
            second_stack: self.between[1].top(),
            second: 0,
            errno: 0,
        };
        let first = {
            let _blocked = SignalsBlocked::new();
            // SAFETY: CLONE_VFORK suspends this thread until the first process has ended, and that one until the second has, so the order and
            // the stacks outlive both.
            unsafe { libc::clone(enter, self.between[0].top(), BETWEEN | libc::SIGCHLD, (&raw mut order).cast()) }
        };
        if first < 0 {
            return Err(io::Error::last_os_error());
        }
        for pid in [first, order.second].into_iter().filter(|pid| *pid > 0) {
            sys::wait_for_pid(pid)?;
        }
        if order.errno != 0 {
            return Err(io::Error::from_raw_os_error(order.errno));
        }
        if pidfd < 0 {
            // Somebody outside killed one of the two before there was a child.
            return Err(io::Error::from(io::ErrorKind::Interrupted));
        }
        // SAFETY: CLONE_PIDFD stored a new descriptor there, in the table that CLONE_FILES shares, and nobody else knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(pidfd) })
    }
}

/// How the processes in between are made: they borrow memory and descriptors, and their maker waits for their end.
const BETWEEN: libc::c_int = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_FILES;

/// The keeper's user namespace maps the worker to itself, so that ids mean the same to the sandboxes below.
fn map_ids(pid: i32, uid: u32, gid: u32) -> io::Result<()> {
    let write = |file: &str, text: String| std::fs::write(format!("/proc/{pid}/{file}"), text);
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("{uid} {uid} 1\n"))?;
    write("gid_map", format!("{gid} {gid} 1\n"))
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.porter.take();
        // It fails only if the keeper was killed from outside and reaped, and then there is nothing left to do.
        let _ = sys::pidfd_send_signal(self.pidfd.as_fd(), libc::SIGKILL);
        // The first process of a namespace ends after all others were reaped. A sandbox whose remains were thrown away never is: then the
        // keeper stays as it is until the worker ends, and so does its stack.
        let ended = sys::poll_readable(self.pidfd.as_fd(), REMOVAL_PATIENCE).unwrap_or(false);
        if !(ended && sys::wait(self.pidfd.as_fd()).is_ok()) {
            std::mem::forget(self.stack.take());
        }
    }
}

/// The keeper: no descriptors, no signals but SIGKILL, and nothing to do.
extern "C" fn keep(worker: *mut libc::c_void) -> libc::c_int {
    let mut poll = libc::pollfd { fd: worker.addr() as libc::c_int, events: libc::POLLIN, revents: 0 };
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the arguments are numbers, or addresses on this stack that outlive their call.
    unsafe {
        let orphaned = sys::call(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG.into(), libc::SIGKILL.into()]).is_err()
            || sys::call(libc::SYS_ppoll, [(&raw mut poll) as Word, 1, (&raw const now) as Word]) != Ok(0);
        if orphaned {
            return 1;
        }
        let _ = sys::call(libc::SYS_prctl, [libc::PR_SET_NAME.into(), c"vilya-keeper".as_ptr() as Word]);
        let _ = sys::call(libc::SYS_close_range, [0, Word::from(u32::MAX), 0]);
        loop {
            // Every signal is blocked, so this does not return.
            let _ = sys::call(libc::SYS_ppoll, [0, 0, 0]);
        }
    }
}

/// What the processes in between are told, and answer.
struct Order<'a> {
    plan: &'a Plan,
    allotment: &'a Allotment<'a>,
    arguments: CloneArguments,
    keeper: RawFd,
    namespaces: libc::c_int,
    second_stack: *mut libc::c_void,
    /// Process id of the second; not positive if there is none.
    second: i32,
    /// Why there is no child; 0 if there is one.
    errno: Errno,
}

/// The first process in between: its children are made in the keeper's namespaces.
extern "C" fn enter(order: *mut libc::c_void) -> libc::c_int {
    // SAFETY: the thread that owns the order waits until this process has ended.
    let told = unsafe { &mut *order.cast::<Order<'_>>() };
    // SAFETY: no pointers.
    let entered = unsafe { sys::call(libc::SYS_setns, [told.keeper.into(), told.namespaces.into()]) };
    if let Err(errno) = entered {
        told.errno = errno;
        return 0;
    }
    // SAFETY: as for the first. Nothing here touches the order until the second has ended.
    let second = unsafe { libc::clone(make_sibling, told.second_stack, BETWEEN | libc::CLONE_PARENT, order) };
    // SAFETY: as above; the second has ended, so this is the only reference again.
    let told = unsafe { &mut *order.cast::<Order<'_>>() };
    told.second = second;
    if second < 0 {
        // SAFETY: the location of errno is always valid to read; this process borrows that of the thread that waits.
        told.errno = unsafe { *libc::__errno_location() };
    }
    0
}

/// The second process in between: makes the child, as a sibling.
extern "C" fn make_sibling(order: *mut libc::c_void) -> libc::c_int {
    // SAFETY: those who know the order wait until this process has ended.
    let order = unsafe { &mut *order.cast::<Order<'_>>() };
    // SAFETY: the arguments ask for neither CLONE_VM nor a stack: the child works on a copy of this one.
    match unsafe { order.arguments.clone3() } {
        // SAFETY: this is the fresh child, with every signal blocked, and `perform` does not return.
        Ok(0) => unsafe { apply::perform(order.plan, order.allotment, apply::NO_PROC) },
        Ok(_) => {}
        Err(errno) => order.errno = errno,
    }
    0
}
