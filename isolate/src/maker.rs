//! Makers: small processes that do nothing but make sandboxes, each a child that is confined and then waits.
//!
//! Owns: the maker's loop and the worker's end of it. Invariant: a maker is a copy of the worker from when the worker was small, with the
//! root of its sandboxes and no descriptor but those it needs, so what it forks is cheap and holds nothing of the worker's; it runs nothing
//! but ours. Its children are the worker's: they are reaped there, and die with the thread that started the maker. Does not know: what its
//! children become.
//!
//! Why: a child of the worker itself is a copy of all its mappings, of which there are several a sandbox.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use crate::apply::{self, Allotment};
use crate::keeper::Keeper;
use crate::memory::Memory;
use crate::plan::Plan;
use crate::spawn::CloneArguments;
use crate::sys::{self, DESCRIPTORS_SENT, Errno, Word, call};

/// Most control group hierarchies that a child joins.
const JOINS: usize = 3;
/// Longest line of an id map.
const MAP_BYTES: usize = 24;

/// One child, as a maker is asked for it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Order {
    user: u32,
    joins: u32,
    is_born_in_group: u32,
    uid_map: [u8; MAP_BYTES],
    gid_map: [u8; MAP_BYTES],
}

const ORDER_BYTES: usize = size_of::<Order>();
const _: () = assert!(ORDER_BYTES == 12 + 2 * MAP_BYTES, "no padding: an order is read as bytes");

impl Order {
    fn to_bytes(self) -> [u8; ORDER_BYTES] {
        let mut bytes = [0; ORDER_BYTES];
        let words = [self.user, self.joins, self.is_born_in_group];
        for (place, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *place = word.to_ne_bytes();
        }
        let (uid_map, gid_map) = bytes[12..].split_at_mut(MAP_BYTES);
        uid_map.copy_from_slice(&self.uid_map);
        gid_map.copy_from_slice(&self.gid_map);
        bytes
    }

    fn from_bytes(bytes: &[u8; ORDER_BYTES]) -> Order {
        let word = |index: usize| u32::from_ne_bytes(std::array::from_fn(|at| bytes[4 * index + at]));
        Order {
            user: word(0),
            joins: word(1),
            is_born_in_group: word(2),
            uid_map: std::array::from_fn(|at| bytes[12 + at]),
            gid_map: std::array::from_fn(|at| bytes[12 + MAP_BYTES + at]),
        }
    }
}

/// What one child is given.
pub(crate) struct Child<'a> {
    pub(crate) user: u32,
    /// Its lines of the id maps.
    pub(crate) uid_map: &'a [u8],
    pub(crate) gid_map: &'a [u8],
    /// Where it will be told what to become.
    pub(crate) told_at: BorrowedFd<'a>,
    /// Where it reports.
    pub(crate) report: BorrowedFd<'a>,
    /// The network namespace to enter; anything where its plan makes one.
    pub(crate) network: BorrowedFd<'a>,
    /// The version 2 group to be born in.
    pub(crate) birthplace: Option<RawFd>,
    /// `tasks` of the version 1 groups to join.
    pub(crate) joins: &'a [OwnedFd],
}

/// What a maker or a porter is given.
#[derive(Clone, Copy)]
pub(crate) struct Given<'a> {
    pub(crate) null: BorrowedFd<'a>,
    /// A pidfd of the worker.
    pub(crate) worker: BorrowedFd<'a>,
    pub(crate) report: BorrowedFd<'a>,
    pub(crate) memory: &'a Memory,
}

/// The worker's end of a maker.
#[derive(Debug)]
pub(crate) struct Maker {
    socket: OwnedFd,
    pidfd: OwnedFd,
}

impl Maker {
    /// Starts one below a keeper, on the keeper's thread. It reports when it is ready.
    pub(crate) fn start(keeper: &Keeper, plan: &Plan, given: &Given<'_>) -> io::Result<Maker> {
        let (socket, theirs) = sys::packet_pair()?;
        let pidfd = keeper.make(plan, &Allotment::of_servant(given, theirs.as_raw_fd()), None)?;
        Ok(Maker { socket, pidfd })
    }

    /// Its process id, as this process sees it.
    pub(crate) fn pid(&self) -> io::Result<i32> {
        sys::pid_of(self.pidfd.as_fd())
    }

    /// Makes a child; its pidfd. It reports when it waits.
    pub(crate) fn make(&self, child: &Child<'_>) -> io::Result<OwnedFd> {
        let order = Order {
            user: child.user,
            joins: child.joins.len() as u32,
            is_born_in_group: child.birthplace.is_some().into(),
            uid_map: padded(child.uid_map)?,
            gid_map: padded(child.gid_map)?,
        };
        let mut descriptors = vec![child.told_at.as_raw_fd(), child.report.as_raw_fd(), child.network.as_raw_fd()];
        descriptors.extend(child.birthplace);
        descriptors.extend(child.joins.iter().map(AsRawFd::as_raw_fd));
        let socket = self.socket.as_raw_fd();
        sys::send_with(socket, &order.to_bytes(), &descriptors).map_err(io::Error::from_raw_os_error)?;
        let mut answer = [0; size_of::<Errno>()];
        let (length, mut made) = sys::receive_owned(self.socket.as_fd(), &mut answer)?;
        if length == 0 {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe));
        }
        let errno = Errno::from_ne_bytes(answer);
        made.pop().filter(|_| errno == 0).ok_or_else(|| io::Error::from_raw_os_error(errno))
    }
}

/// A line of an id map with NUL bytes behind it.
fn padded(line: &[u8]) -> io::Result<[u8; MAP_BYTES]> {
    let mut padded = [0; MAP_BYTES];
    let too_much = || io::Error::from(io::ErrorKind::InvalidInput);
    padded.get_mut(..line.len()).ok_or_else(too_much)?.copy_from_slice(line);
    Ok(padded)
}

fn line(padded: &[u8; MAP_BYTES]) -> &[u8] {
    padded.split(|byte| *byte == 0).next().unwrap_or_default()
}

impl Drop for Maker {
    fn drop(&mut self) {
        // It ends when its socket does; this is for one that hangs in the kernel, whose signal waits.
        let _ = sys::pidfd_send_signal(self.pidfd.as_fd(), libc::SIGKILL);
        let _ = sys::wait(self.pidfd.as_fd());
    }
}

/// Where a maker is told what to make.
pub(crate) const TOLD_AT: RawFd = 3;
/// Where it keeps the host's `/proc` and the handle on the worker.
const PROC: RawFd = 6;
const WORKER: RawFd = 7;
/// Descriptors that come with an order have the numbers from here on.
const FIRST_FREE: RawFd = 8;

/// The maker's loop. Ends the process when the worker closes its end; returns only with the reason why it cannot begin.
pub(crate) fn serve(bare: &Plan, proc: RawFd, own: &Allotment<'_>) -> Result<(), Errno> {
    keep_only(proc, own.worker)?;
    let mut bytes = [0; ORDER_BYTES];
    loop {
        let mut descriptors = [-1; DESCRIPTORS_SENT];
        match sys::receive_with(TOLD_AT, &mut bytes, &mut descriptors, 0) {
            Ok((0, _)) | Err(_) => apply::exit(0),
            Ok((ORDER_BYTES, count)) if count >= 3 => {
                let order = Order::from_bytes(&bytes);
                let answered = answer(bare, &order, own, &descriptors[..count]);
                close_from(FIRST_FREE)?;
                if answered.is_err() {
                    apply::exit(1);
                }
            }
            Ok(_) => apply::exit(1),
        }
    }
}

fn answer(bare: &Plan, order: &Order, own: &Allotment<'_>, descriptors: &[RawFd]) -> Result<(), Errno> {
    let mut pidfd: RawFd = -1;
    match make(bare, order, own, descriptors, &mut pidfd) {
        Ok(()) => sys::send_with(TOLD_AT, &0_i32.to_ne_bytes(), &[pidfd]),
        Err(errno) => sys::send_with(TOLD_AT, &errno.to_ne_bytes(), &[]),
    }
}

fn make(
    bare: &Plan,
    order: &Order,
    own: &Allotment<'_>,
    descriptors: &[RawFd],
    pidfd: &mut RawFd,
) -> Result<(), Errno> {
    let [told_at, report, network, groups @ ..] = descriptors else { return Err(libc::EBADMSG) };
    let (birthplace, joins) = match groups {
        [birthplace, joins @ ..] if order.is_born_in_group != 0 => (Some(*birthplace), joins),
        joins => (None, joins),
    };
    if joins.len() != order.joins as usize || joins.len() > JOINS {
        return Err(libc::EBADMSG);
    }
    let allotment = Allotment {
        user: order.user,
        uid_map: line(&order.uid_map),
        gid_map: line(&order.gid_map),
        descriptors: [0, 0, 0, *told_at, 0, 0],
        report: *report,
        worker: WORKER,
        joins,
        network: *network,
        handover: -1,
        memory: own.memory,
    };
    let arguments = CloneArguments::sibling(bare.namespaces, birthplace, pidfd);
    // SAFETY: neither CLONE_VM nor a stack is asked for: the child works on a copy of this one. The pidfd's place outlives the call.
    match unsafe { arguments.clone3() }? {
        // SAFETY: this is the fresh child, with every signal blocked as in its maker, and `perform` does not return.
        0 => unsafe { apply::perform(bare, &allotment, PROC) },
        _ => Ok(()),
    }
}

/// Keeps what the loop needs and closes everything else that the worker had open.
fn keep_only(proc: RawFd, worker: RawFd) -> Result<(), Errno> {
    // First out of the way of each other.
    const AWAY: Word = 64;
    // SAFETY: no pointers.
    unsafe {
        let proc = call(libc::SYS_fcntl, [proc.into(), libc::F_DUPFD_CLOEXEC.into(), AWAY])?;
        let worker = call(libc::SYS_fcntl, [worker.into(), libc::F_DUPFD_CLOEXEC.into(), AWAY])?;
        call(libc::SYS_dup3, [proc, PROC.into(), libc::O_CLOEXEC.into()])?;
        call(libc::SYS_dup3, [worker, WORKER.into(), libc::O_CLOEXEC.into()])?;
    }
    close_from(FIRST_FREE)
}

pub(crate) fn close_from(first: RawFd) -> Result<(), Errno> {
    // SAFETY: no pointers.
    unsafe { call(libc::SYS_close_range, [first.into(), Word::from(u32::MAX), 0]) }.map(drop)
}
