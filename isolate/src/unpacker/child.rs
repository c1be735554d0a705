//! A child that works on hostile bytes: the plan that confines it, and what it does then.
//!
//! Owns: the plan. Invariant: when the work begins, the child has no capability and, as root, a user of its own; it sees a root with the
//! job's folder and the job's tree and nothing else, no process but itself and no network; it may make the calls of its filter, within its
//! limits; it has three descriptors. Does not know: what the work is.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;

use super::order::Order;
use super::service::{ITSELF, Service};
use super::{Unpacker, UnpackerError};
use crate::apply::{self, Allotment};
use crate::host::{self, HardLimits, Privilege};
use crate::landlock::{self, Rules};
use crate::limits::{CORE_BYTES, UNPACKING_OPEN_FILES};
use crate::plan::files::{READ_ONLY, WRITABLE};
use crate::plan::{INSIDE_ID, Step};
use crate::seccomp::Filter;
use crate::sys::{Errno, Word, call};

/// Status of a child that could not be confined.
pub(super) const UNCONFINED: i32 = apply::FAILED as i32;
/// Status of one whose work panicked, as of a thread of std.
pub(super) const PANICKED: Word = 101;

/// What is true of the host.
#[derive(Debug)]
pub(super) struct Facts {
    privilege: Privilege,
    last_capability: u32,
    landlock: u32,
    hard_limits: HardLimits,
    filter: &'static Filter,
}

impl Facts {
    pub(super) fn probe(privilege: Privilege) -> Result<Facts, UnpackerError> {
        Ok(Facts {
            privilege,
            last_capability: host::last_capability()?,
            landlock: landlock::interface(),
            hard_limits: host::hard_limits()?,
            filter: Filter::unpacking()?,
        })
    }

    pub(super) fn namespaces(&self) -> u64 {
        let user = if self.privilege == Privilege::Root { 0 } else { libc::CLONE_NEWUSER };
        (libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | user)
            as u64
    }
}

/// The steps in their two parts: between them every descriptor above the three is closed.
pub(super) struct ChildPlan {
    confine: Vec<Step>,
    filter: Vec<Step>,
    /// Lines of both id maps.
    map: [String; 2],
}

/// What the limit of data counts of a process as this one is now.
pub(super) fn memory_bytes() -> io::Result<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages = statm.split(' ').nth(5).and_then(|pages| pages.parse::<u64>().ok());
    // SAFETY: no pointers.
    let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    pages.map(|pages| pages * page_bytes.unsigned_abs()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The plan of one child. `memory_bytes` is what its maker has already.
pub(super) fn plan(facts: &Facts, order: &Order, memory_bytes: u64) -> ChildPlan {
    let mut steps = vec![Step::PlaceDescriptors, Step::OrdinaryProcess, Step::KeepProc];
    if facts.privilege != Privilege::Root {
        steps.push(Step::MapIds);
    }
    steps.extend([Step::Unshare(libc::CLONE_NEWCGROUP), Step::OfferToOomKiller, Step::NewSession, Step::Umask(0o022)]);
    root(&mut steps, order);
    let rules = Rules::unpacking(facts.landlock, &text(Unpacker::FOLDER), &text(Unpacker::TREE));
    let enforce = rules.as_ref().map(|rules| Step::EnforceRules(rules.flags()));
    steps.extend(rules.map(Step::Rules));
    if facts.privilege == Privilege::Root {
        steps.extend([Step::BecomeUser, Step::Dumpable, Step::Unshare(libc::CLONE_NEWUSER), Step::MapIds]);
    }
    limits(&mut steps, facts, order, memory_bytes);
    steps.extend([
        Step::DropCapabilities { last: facts.last_capability },
        // After the last change of credentials, which would clear it.
        Step::DieWithParent,
        Step::NoNewPrivileges,
    ]);
    steps.extend(enforce);
    let map = match facts.privilege {
        Privilege::Root => [order.user; 2],
        Privilege::User { uid, gid } => [uid, gid],
    };
    let map = map.map(|id| format!("{INSIDE_ID} {id} 1\n"));
    ChildPlan { confine: steps, filter: vec![Step::Filter(facts.filter)], map }
}

/// A root with two directories.
fn root(steps: &mut Vec<Step>, order: &Order) {
    let staging = text(order.staging.as_os_str().as_bytes());
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    let options = text("size=64k,nr_inodes=8,mode=755");
    steps.extend([Step::PrivateMounts, Step::Tmpfs { target: staging.clone(), flags, options }, Step::Enter(staging)]);
    let shown = [(&order.folder, Unpacker::FOLDER, READ_ONLY), (&order.tree, Unpacker::TREE, WRITABLE)];
    steps.extend(shown.map(|(source, target, attributes)| {
        let target = text(target.trim_start_matches('/'));
        if source.as_os_str().is_empty() {
            return Step::Directory(target);
        }
        let attributes = attributes | libc::MOUNT_ATTR_NOEXEC;
        Step::Bind { source: text(source.as_os_str().as_bytes()), target, attributes, follow: false }
    }));
    steps.extend([Step::EnterRoot, Step::SealRoot]);
}

fn limits(steps: &mut Vec<Step>, facts: &Facts, order: &Order, memory_bytes: u64) {
    let [memory, file, seconds] = order.bounds;
    let hard = &facts.hard_limits;
    let mut limit = |name, resource: u32, value: u64| steps.push(Step::Limit { name, resource, value });
    limit("core", libc::RLIMIT_CORE, CORE_BYTES.min(hard.core_bytes));
    limit("open files", libc::RLIMIT_NOFILE, UNPACKING_OPEN_FILES.min(hard.open_files));
    limit("locked memory", libc::RLIMIT_MEMLOCK, 0);
    limit("message queues", libc::RLIMIT_MSGQUEUE, 0);
    limit("niceness", libc::RLIMIT_NICE, 0);
    limit("real-time priority", libc::RLIMIT_RTPRIO, 0);
    limit("data", libc::RLIMIT_DATA, memory.saturating_add(memory_bytes).min(hard.data_bytes));
    limit("file size", libc::RLIMIT_FSIZE, file.min(hard.file_bytes));
    limit("processor time", libc::RLIMIT_CPU, seconds.min(hard.processor_seconds));
}

fn text(string: impl AsRef<[u8]>) -> CString {
    CString::new(string.as_ref()).expect("paths of the host cannot hold a NUL")
}

/// Confines the calling process, which must be fresh, and works; its status.
pub(super) fn run(plan: &ChildPlan, order: &Order, [input, answer, words]: [RawFd; 3], service: &Service) -> Word {
    let allotment = Allotment {
        user: order.user,
        uid_map: plan.map[0].as_bytes(),
        gid_map: plan.map[1].as_bytes(),
        // The last three are closed again below.
        descriptors: [input, answer, words, input, input, input],
        report: -1,
        worker: ITSELF,
        joins: &[],
        network: -1,
        handover: -1,
        memory: None,
    };
    if let Err((step, errno)) = confine(plan, &allotment) {
        let why = format!("{step}: {}", io::Error::from_raw_os_error(errno));
        let _ = write_all(2, why.as_bytes());
        return UNCONFINED.into();
    }
    match write_all(1, &(service.work)(&order.request)) {
        Ok(()) => 0,
        Err(_) => 1,
    }
}

fn confine<'a>(plan: &'a ChildPlan, allotment: &Allotment<'_>) -> Result<(), (&'a Step, Errno)> {
    // SAFETY: this is a fresh child of a process with one thread, and every signal is blocked.
    unsafe { apply::perform_some(&plan.confine, allotment) }.map_err(|(index, errno)| (&plan.confine[index], errno))?;
    // SAFETY: no pointers; nothing here owns a descriptor that is closed by this.
    let closed = unsafe { call(libc::SYS_close_range, [3, Word::from(u32::MAX), 0]) };
    // SAFETY: as before.
    let filtered =
        closed.map_err(|errno| (0, errno)).and_then(|_| unsafe { apply::perform_some(&plan.filter, allotment) });
    filtered.map_err(|(index, errno)| (&plan.filter[index], errno))
}

/// Writes all of this to a pipe.
pub(super) fn write_all(fd: RawFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        // SAFETY: the bytes outlive the call and the length is their own.
        match unsafe { call(libc::SYS_write, [fd.into(), bytes.as_ptr() as Word, bytes.len() as Word]) } {
            Ok(count) => bytes = bytes.get(count as usize..).unwrap_or_default(),
            Err(libc::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
