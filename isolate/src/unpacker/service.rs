//! The process that makes the children.
//!
//! Owns: its loop. Invariant: it ends when the worker closes its end or dies, and its children die with it. It reads orders and nothing else. Does not know: what a child does.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{self, AssertUnwindSafe};

use super::order::{self, Order};
use super::{Work, child};
use crate::apply;
use crate::service::{self, CONTROL, WORKER};
use crate::spawn::CloneArguments;
use crate::sys::{self, DESCRIPTORS_SENT, Errno, Status, call};

/// What it is forked with.
pub(super) struct Service {
    pub(super) facts: child::Facts,
    pub(super) work: Work,
}

/// Its descriptor of itself.
pub(super) const ITSELF: RawFd = WORKER + 1;

/// Forks the process: where it is told, and its pidfd.
pub(super) fn start(forked_with: &Service) -> io::Result<(OwnedFd, OwnedFd)> {
    service::start(c"vilya-unpacker", || {
        know_itself().map_err(io::Error::from_raw_os_error)?;
        serve(forked_with)
    })
}

fn know_itself() -> Result<(), Errno> {
    // SAFETY: numbers alone.
    unsafe {
        let pid = call(libc::SYS_getpid, [])?;
        let fd = call(libc::SYS_pidfd_open, [pid, 0])?;
        call(libc::SYS_dup3, [fd, ITSELF.into(), libc::O_CLOEXEC.into()])?;
        call(libc::SYS_close, [fd])
    }
    .map(drop)
}

/// A child under way.
struct Child {
    pidfd: OwnedFd,
    line: OwnedFd,
    /// Killed already: its line is looked at no more.
    is_doomed: bool,
}

/// Makes children as told until the worker is gone.
fn serve(service: &Service) -> io::Result<()> {
    let memory_bytes = child::memory_bytes()?;
    service::say_ready()?;
    let (mut children, mut bytes) = (Vec::new(), order::buffer());
    loop {
        let (told, gone) = wait(&mut children)?;
        if gone {
            return Ok(());
        }
        if told {
            let mut descriptors = [-1; DESCRIPTORS_SENT];
            let (length, count) =
                sys::receive_with(CONTROL, &mut bytes, &mut descriptors, 0).map_err(io::Error::from_raw_os_error)?;
            if length == 0 {
                return Ok(());
            }
            let given = descriptors[..count].iter().map(|fd| {
                // SAFETY: the kernel just made these for this message, and nobody else knows them.
                unsafe { OwnedFd::from_raw_fd(*fd) }
            });
            let given: Vec<OwnedFd> = given.collect();
            let order = bytes.get(..length).and_then(Order::from_bytes);
            let (Some(order), Ok(given)) = (order, <[OwnedFd; 4]>::try_from(given)) else {
                return Err(io::ErrorKind::InvalidData.into());
            };
            children.extend(make(service, &order, given, memory_bytes));
        }
    }
}

/// Waits for an order or the worker's end, and sees to children that have ended, or shall end.
fn wait(children: &mut Vec<Child>) -> io::Result<(bool, bool)> {
    let poll = |fd: RawFd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut polls = vec![poll(CONTROL), poll(WORKER)];
    for child in children.iter() {
        // A negative number is looked over.
        polls.extend([poll(child.pidfd.as_raw_fd()), poll(if child.is_doomed { -1 } else { child.line.as_raw_fd() })]);
    }
    // SAFETY: the array outlives the call, and its length is its own.
    let ready = unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, -1) };
    if ready < 0 {
        return Err(io::Error::last_os_error());
    }
    let is_ready = |index: usize| polls[index].revents != 0;
    let mut index = 2;
    children.retain_mut(|child| {
        let (has_ended, is_given_up) = (is_ready(index), is_ready(index + 1));
        index += 2;
        if has_ended {
            let status = sys::wait(child.pidfd.as_fd()).unwrap_or(Status::Killed(libc::SIGKILL));
            // Whoever waited may be gone.
            let _ = sys::send_with(child.line.as_raw_fd(), &order::status_bytes(status), &[]);
        } else if is_given_up {
            let _ = sys::pidfd_send_signal(child.pidfd.as_fd(), libc::SIGKILL);
            child.is_doomed = true;
        }
        !has_ended
    });
    Ok((is_ready(0), is_ready(1)))
}

/// Makes one child; if none can be made, says so at once.
fn make(service: &Service, order: &Order, given: [OwnedFd; 4], memory_bytes: u64) -> Option<Child> {
    let [line, input, answer, words] = given;
    let mut pidfd: RawFd = -1;
    let plan = child::plan(&service.facts, order, memory_bytes);
    let arguments = CloneArguments::child(service.facts.namespaces(), &raw mut pidfd);
    let descriptors = [&input, &answer, &words].map(AsRawFd::as_raw_fd);
    // SAFETY: neither CLONE_VM nor a stack is asked for: the child works on a copy of this process, which has one thread, so that no lock of
    // its memory is held by another. The pidfd's place outlives the call.
    match unsafe { arguments.clone3() } {
        Ok(0) => {
            let ran = panic::catch_unwind(AssertUnwindSafe(|| child::run(&plan, order, descriptors, service)));
            apply::exit(ran.unwrap_or_else(|panic| {
                let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
                let _ = child::write_all(2, said.unwrap_or_default().as_bytes());
                child::PANICKED
            }))
        }
        // SAFETY: CLONE_PIDFD stored a new descriptor there that nobody else knows.
        Ok(_) => Some(Child { pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) }, line, is_doomed: false }),
        Err(errno) => {
            let why = io::Error::from_raw_os_error(errno).to_string();
            // The pipe is new and takes this; who reads it is told the rest by the status.
            let _ = child::write_all(words.as_raw_fd(), format!("new namespaces: {why}").as_bytes());
            let status = order::status_bytes(Status::Exited(child::UNCONFINED));
            let _ = sys::send_with(line.as_raw_fd(), &status, &[]);
            None
        }
    }
}
