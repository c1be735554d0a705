//! The one interpreter of plans: performs the steps in the child, between `clone3` and `exec`.
//!
//! Owns: what each step does to the kernel. Invariant: from the first step to the last nothing here allocates, locks or calls into libc
//! beyond `syscall`: the child is a copy of one thread of a process with many, and any lock may be held by a thread that does not exist here.
//! Every failure is reported as the number of its step and an errno, then the child exits. Does not know: why a step is in the plan.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::os::fd::{AsRawFd, RawFd};

use crate::landlock;
use crate::limits::FORWARDED_WAITING;
use crate::maker::{self, Given};
use crate::memory::{self, Memory};
use crate::plan::{Milestone, Plan, Step, Strings, files};
use crate::porter;
use crate::processor;
use crate::program;
use crate::resolve;
use crate::seccomp::Filter;
use crate::slice;
use crate::stub;
use crate::sys::{self, Errno, Word, call};

/// What one start gives to a plan: ids and descriptor numbers.
///
/// The numbers must stay open until the child was made, and those that are not to be placed must lie above what a sandbox is given.
#[derive(Debug)]
pub(crate) struct Allotment<'a> {
    /// Host user and group of a sandbox made by root; unused otherwise.
    pub(crate) user: u32,
    /// Line for `uid_map`.
    pub(crate) uid_map: &'a [u8],
    /// Line for `gid_map`.
    pub(crate) gid_map: &'a [u8],
    /// What becomes 0 to 5.
    pub(crate) descriptors: [RawFd; 6],
    /// Where the report goes.
    pub(crate) report: RawFd,
    /// A pidfd of the worker.
    pub(crate) worker: RawFd,
    /// `tasks` of the groups to join.
    pub(crate) joins: &'a [RawFd],
    /// The network namespace to enter, where the plan does not make one.
    pub(crate) network: RawFd,
    /// Where sockets that listen for the host are handed over.
    pub(crate) handover: RawFd,
    /// What a maker and its children can do without of the worker's memory.
    pub(crate) memory: Option<&'a Memory>,
}

impl<'a> Allotment<'a> {
    /// Of a process of ours below a keeper, which is told at descriptor 3 what to do.
    pub(crate) fn of_servant(given: &Given<'a>, told_at: RawFd) -> Allotment<'a> {
        let null = given.null.as_raw_fd();
        Allotment {
            user: 0,
            uid_map: &[],
            gid_map: &[],
            descriptors: [null, null, null, told_at, null, null],
            report: given.report.as_raw_fd(),
            worker: given.worker.as_raw_fd(),
            joins: &[],
            network: -1,
            handover: -1,
            memory: Some(given.memory),
        }
    }
}

/// What the child writes to the worker: once before `exec`, and once more if a step, or `exec` itself, fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Report {
    /// The step that failed, if `errno` is not 0.
    pub(crate) step: u32,
    pub(crate) errno: i32,
    /// When each milestone was reached, on CLOCK_MONOTONIC in ns; 0 if it was not.
    pub(crate) reached_ns: [u64; Milestone::COUNT],
}

const _: () = assert!(size_of::<Report>() == 8 + 8 * Milestone::COUNT, "no padding: the report is read as bytes");
const _: () = assert!(size_of::<Report>() <= libc::PIPE_BUF, "a report is written in one piece");

impl Report {
    pub(crate) fn from_bytes(bytes: &[u8; size_of::<Report>()]) -> Report {
        let word = |at: usize| u32::from_ne_bytes(std::array::from_fn(|index| bytes[at + index]));
        let long = |at: usize| u64::from_ne_bytes(std::array::from_fn(|index| bytes[at + index]));
        Report {
            step: word(0),
            errno: word(4).cast_signed(),
            reached_ns: std::array::from_fn(|index| long(8 + 8 * index)),
        }
    }
}

/// Exit status of a child that could not become its program; the report says why.
pub(crate) const FAILED: Word = 127;

/// What steps leave for later steps.
struct State<'a> {
    allotment: &'a Allotment<'a>,
    report: Report,
    /// The host's `/proc`, from `KeepProc` on.
    proc: RawFd,
    /// The rules of Landlock, from `Rules` on.
    ruleset: RawFd,
}

/// The handle on the host's `/proc` of a child that has none yet.
pub(crate) const NO_PROC: RawFd = -1;

/// Performs the plan in the calling process, which must be a fresh child.
///
/// # Safety
/// Only in a child made by `clone3` without CLONE_VM and with every signal blocked, which never returns into the code of its parent.
/// `proc` is what the maker of the child kept of the host's `/proc`, or [`NO_PROC`].
pub(crate) unsafe fn perform(plan: &Plan, allotment: &Allotment<'_>, proc: RawFd) -> ! {
    let mut state = State { allotment, report: Report::default(), proc, ruleset: -1 };
    for (index, step) in plan.steps.iter().enumerate() {
        if let Err(errno) = state.step(step) {
            state.report.step = index as u32;
            state.report.errno = errno;
            break;
        }
    }
    let _ = state.tell();
    exit(FAILED)
}

/// Performs steps in a child that goes on in our own code afterwards; or says which one failed, and why.
///
/// # Safety
/// As for [`perform`], but for never returning: what the child goes on with must be sound in a copy of its parent.
pub(crate) unsafe fn perform_some(steps: &[Step], allotment: &Allotment<'_>) -> Result<(), (usize, Errno)> {
    let mut state = State { allotment, report: Report::default(), proc: NO_PROC, ruleset: -1 };
    steps.iter().enumerate().try_for_each(|(index, step)| state.step(step).map_err(|errno| (index, errno)))
}

pub(crate) fn exit(status: Word) -> ! {
    loop {
        // SAFETY: ends the process.
        let _ = unsafe { call(libc::SYS_exit_group, [status]) };
    }
}

impl State<'_> {
    fn step(&mut self, step: &Step) -> Result<(), Errno> {
        match step {
            Step::PlaceDescriptors => self.place_descriptors(),
            Step::JoinGroups => self.allotment.joins.iter().try_for_each(|procs| write(*procs, b"0")),
            // SAFETY: no pointers.
            Step::Unshare(flags) => unsafe { call(libc::SYS_unshare, [(*flags).into()]) }.map(drop),
            Step::KeepProc => {
                self.proc = open(libc::AT_FDCWD, c"/proc", libc::O_PATH | libc::O_DIRECTORY, 0)?;
                Ok(())
            }
            Step::OfferToOomKiller => self.write_proc(c"self/oom_score_adj", b"500"),
            Step::MapIds => self.map_ids(),
            Step::ForbidUserNamespaces => self.write_proc(c"sys/user/max_user_namespaces", b"0"),
            // SAFETY: no pointers.
            Step::NewSession => unsafe { call(libc::SYS_setsid, []) }.map(drop),
            Step::DefaultSignals => default_signals(),
            Step::OrdinaryProcess => ordinary_process(),
            // SAFETY: no pointers.
            Step::Umask(mask) => unsafe { call(libc::SYS_umask, [(*mask).into()]) }.map(drop),
            Step::Hostname(name) => {
                // SAFETY: the name outlives the call and the length is its own.
                unsafe { call(libc::SYS_sethostname, [name.as_ptr() as Word, name.as_bytes().len() as Word]) }.map(drop)
            }
            Step::LoopbackUp => sys::bring_loopback_up(),
            Step::PrivateMounts => mount(None, c"/", None, libc::MS_REC | libc::MS_PRIVATE, None),
            Step::Tmpfs { target, flags, options } => {
                mount(Some(c"tmpfs"), target, Some(c"tmpfs"), *flags, Some(options))
            }
            Step::Proc { target } => mount_proc(target),
            Step::ReplaceProc { target, by } => {
                mount_proc(by)?;
                unmount(target)?;
                mount(Some(by), target, None, libc::MS_MOVE, None)
            }
            Step::Directory(path) => make_directory(path),
            Step::Link { to, path } => {
                let arguments = [to.as_ptr() as Word, libc::AT_FDCWD.into(), path.as_ptr() as Word];
                // SAFETY: both strings are null-terminated and outlive the call.
                unsafe { call(libc::SYS_symlinkat, arguments) }.map(drop)
            }
            Step::File { path, text } => {
                let file = open(libc::AT_FDCWD, path, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL, 0o644)?;
                write(file, text).and_then(|()| close(file))
            }
            Step::Replacement { path, text } => replace(path, text),
            Step::Bind { source, target, attributes, follow } => bind(source, target, *attributes, *follow),
            Step::Mask(path) => mask(path),
            Step::Enter(path) => change_directory(path),
            Step::EnterRoot => enter_root(),
            Step::SealRoot => sys::set_mount_attributes(libc::AT_FDCWD, c"/", 0, libc::MOUNT_ATTR_RDONLY),
            Step::EmptyInput => empty_input(),
            Step::Limit { resource, value, .. } => limit(*resource, *value),
            Step::Cores(mask) => {
                let arguments = [0, size_of_val(mask) as Word, mask.as_ptr() as Word];
                // SAFETY: the mask outlives the call and the size is its own.
                unsafe { call(libc::SYS_sched_setaffinity, arguments) }.map(drop)
            }
            Step::BecomeUser => become_user(self.allotment.user),
            Step::Dumpable => prctl(libc::PR_SET_DUMPABLE, 1, 0),
            Step::DropCapabilities { last } => drop_capabilities(*last),
            Step::DieWithParent => self.die_with_parent(),
            Step::NoNewPrivileges => prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0),
            Step::Rules(rules) => {
                self.ruleset = rules.make()?;
                Ok(())
            }
            Step::EnforceRules(flags) => landlock::enforce(self.ruleset, *flags),
            Step::Forbid(guess) => processor::forbid(*guess),
            Step::OwnCores => processor::own_cores(),
            Step::CloseOnExec => {
                let arguments = [6, Word::from(u32::MAX), libc::CLOSE_RANGE_CLOEXEC.into()];
                // SAFETY: no pointers.
                unsafe { call(libc::SYS_close_range, arguments) }.map(drop)
            }
            Step::Filter(filter) => install(filter),
            Step::UnblockSignals => unblock_signals(),
            Step::Reached(milestone) => {
                self.report.reached_ns[*milestone as usize] = now_ns()?;
                Ok(())
            }
            Step::Execute { program, arguments, environment } => self.execute(program, arguments, environment),
            Step::JoinNetwork => {
                let arguments = [self.allotment.network.into(), libc::CLONE_NEWNET.into()];
                // SAFETY: no pointers.
                unsafe { call(libc::SYS_setns, arguments) }.map(drop)
            }
            Step::Listen(ports) => ports.iter().try_for_each(|port| self.hand_over(*port)),
            Step::AwaitOrder => {
                self.tell()?;
                self.allotment.memory.map_or(Err(libc::EINVAL), |memory| stub::wait_for_order(&memory.kernel))
            }
            Step::ShowProgram { path, required } => {
                let memory = self.allotment.memory.ok_or(libc::EINVAL)?;
                // SAFETY: this child has its memory to itself, and one thread.
                let shown = unsafe { program::show_instead(path, &memory.program) };
                if *required { shown } else { Ok(()) }
            }
            Step::Carry => {
                self.forget()?;
                porter::serve(&|| self.tell())
            }
            Step::MakeOthers(bare) => {
                self.tell()?;
                self.forget()?;
                maker::serve(bare, self.proc, self.allotment)
            }
            Step::Finish => {
                self.tell()?;
                exit(0)
            }
        }
    }

    /// Writes the report; the worker also reads the end of the pipe, which `exec` or the exit brings.
    fn tell(&self) -> Result<(), Errno> {
        let address = (&raw const self.report).cast::<u8>();
        // SAFETY: a report has no padding (asserted), so all its bytes are initialised.
        let bytes = unsafe { std::slice::from_raw_parts(address, size_of::<Report>()) };
        write(self.allotment.report, bytes)
    }

    fn forget(&self) -> Result<(), Errno> {
        // SAFETY: this child has its memory to itself, and its plan is nothing large.
        self.allotment.memory.map_or(Ok(()), |memory| unsafe { memory::forget(&memory.large) })
    }

    fn hand_over(&self, port: u16) -> Result<(), Errno> {
        let listener = sys::listen_on_loopback(port, FORWARDED_WAITING)?;
        sys::send_with(self.allotment.handover, &[0], &[listener]).and_then(|()| close(listener))
    }

    fn place_descriptors(&self) -> Result<(), Errno> {
        let places = self.allotment.descriptors.iter().enumerate();
        // What is in its place already, as below a maker, has no flag to lose.
        places.filter(|(target, source)| *target as RawFd != **source).try_for_each(|(target, source)| {
            // SAFETY: no pointers.
            unsafe { call(libc::SYS_dup3, [(*source).into(), target as Word, 0]) }.map(drop)
        })
    }

    fn write_proc(&self, path: &CStr, text: &[u8]) -> Result<(), Errno> {
        let file = open(self.proc, path, libc::O_WRONLY, 0)?;
        write(file, text).and_then(|()| close(file))
    }

    fn map_ids(&self) -> Result<(), Errno> {
        self.write_proc(c"self/setgroups", b"deny")?;
        self.write_proc(c"self/uid_map", self.allotment.uid_map)?;
        self.write_proc(c"self/gid_map", self.allotment.gid_map)
    }

    /// The signal comes if the worker dies from here on; if it died before, its pidfd says so.
    fn die_with_parent(&self) -> Result<(), Errno> {
        prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as Word, 0)?;
        let mut poll = libc::pollfd { fd: self.allotment.worker, events: libc::POLLIN, revents: 0 };
        let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: one pollfd and a time, which outlive the call; no signal mask.
        let ready = unsafe { call(libc::SYS_ppoll, [(&raw mut poll) as Word, 1, (&raw const now) as Word]) }?;
        if ready == 0 { Ok(()) } else { Err(libc::ESRCH) }
    }

    fn execute(&self, program: &CStr, arguments: &Strings, environment: &Strings) -> Result<(), Errno> {
        self.tell()?;
        let arguments = [program.as_ptr() as Word, arguments.as_ptr() as Word, environment.as_ptr() as Word];
        // SAFETY: a null-terminated path and two null-terminated arrays of null-terminated strings, all owned by the plan.
        unsafe { call(libc::SYS_execve, arguments) }.map(drop)
    }
}

pub(crate) fn open(parent: RawFd, path: &CStr, flags: i32, mode: Word) -> Result<RawFd, Errno> {
    let arguments = [parent.into(), path.as_ptr() as Word, (flags | libc::O_CLOEXEC).into(), mode];
    // SAFETY: the path is null-terminated and outlives the call.
    unsafe { call(libc::SYS_openat, arguments) }.map(|fd| fd as RawFd)
}

pub(crate) fn close(fd: RawFd) -> Result<(), Errno> {
    // SAFETY: every descriptor closed here was opened by the same step.
    unsafe { call(libc::SYS_close, [fd.into()]) }.map(drop)
}

/// One write; the files written here take all or nothing.
fn write(fd: RawFd, bytes: &[u8]) -> Result<(), Errno> {
    // SAFETY: the bytes outlive the call and the length is their own.
    let written = unsafe { call(libc::SYS_write, [fd.into(), bytes.as_ptr() as Word, bytes.len() as Word]) }?;
    if written == bytes.len() as Word { Ok(()) } else { Err(libc::EIO) }
}

fn prctl(option: i32, first: Word, second: Word) -> Result<(), Errno> {
    // SAFETY: the options used here take numbers.
    unsafe { call(libc::SYS_prctl, [option.into(), first, second]) }.map(drop)
}

pub(crate) fn name(name: &CStr) -> Result<(), Errno> {
    prctl(libc::PR_SET_NAME, name.as_ptr() as Word, 0)
}

fn now_ns() -> Result<u64, Errno> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time outlives the call.
    unsafe { call(libc::SYS_clock_gettime, [libc::CLOCK_MONOTONIC.into(), (&raw mut time) as Word]) }?;
    Ok(time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs())
}

/// Bytes of the kernel's signal set, not of libc's.
const SIGNAL_SET_BYTES: Word = 8;

pub(crate) fn default_signals() -> Result<(), Errno> {
    // Handler, flags, restorer, mask: all zero is SIG_DFL. Larger than the kernel's struct on any architecture.
    let action = [0_u64; 4];
    for signal in (1..=64).filter(|signal| *signal != libc::SIGKILL && *signal != libc::SIGSTOP) {
        // SAFETY: the action outlives the call; no old action is asked for.
        unsafe { call(libc::SYS_rt_sigaction, [signal.into(), action.as_ptr() as Word, 0, SIGNAL_SET_BYTES]) }?;
    }
    Ok(())
}

fn unblock_signals() -> Result<(), Errno> {
    let none = 0_u64;
    let arguments = [libc::SIG_SETMASK.into(), (&raw const none) as Word, 0, SIGNAL_SET_BYTES];
    // SAFETY: the set outlives the call.
    unsafe { call(libc::SYS_rt_sigprocmask, arguments) }.map(drop)
}

/// All of it is inherited. A sandbox at a real-time priority would starve the host, which no quota of ordinary time prevents.
fn ordinary_process() -> Result<(), Errno> {
    const REAL_TIME: [Word; 3] = [libc::SCHED_FIFO as Word, libc::SCHED_RR as Word, libc::SCHED_DEADLINE as Word];
    /// The system call answers 20 - niceness, so that errors are not mistaken for it.
    const NEUTRAL: Word = 20;
    const PER_LINUX: Word = 0;
    const ITSELF: [Word; 2] = [libc::PRIO_PROCESS as Word, 0];
    let neutral = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameter outlives the calls; the rest are numbers.
    unsafe {
        let policy = call(libc::SYS_sched_getscheduler, [0])? & !Word::from(libc::SCHED_RESET_ON_FORK);
        if REAL_TIME.contains(&policy) {
            let arguments = [0, libc::SCHED_OTHER.into(), (&raw const neutral) as Word];
            call(libc::SYS_sched_setscheduler, arguments)?;
        }
        if call(libc::SYS_getpriority, ITSELF)? > NEUTRAL {
            call(libc::SYS_setpriority, [ITSELF[0], ITSELF[1], 0])?;
        }
        call(libc::SYS_personality, [PER_LINUX])?;
    }
    // A host that does not let it be asked for isolates no worse.
    let _ = slice::shorten();
    Ok(())
}

/// What the worker opened lies on the host's mount, through which times of the node could be changed, and shares its flags and locks with
/// every other sandbox's.
fn empty_input() -> Result<(), Errno> {
    let null = open(libc::AT_FDCWD, c"/dev/null", libc::O_RDONLY, 0)?;
    // SAFETY: no pointers.
    unsafe { call(libc::SYS_dup3, [null.into(), 0, 0]) }?;
    close(null)
}

fn mount(
    source: Option<&CStr>,
    target: &CStr,
    kind: Option<&CStr>,
    flags: libc::c_ulong,
    options: Option<&CStr>,
) -> Result<(), Errno> {
    let address = |string: Option<&CStr>| string.map_or(0, |string| string.as_ptr() as Word);
    let arguments = [address(source), target.as_ptr() as Word, address(kind), flags as Word, address(options)];
    // SAFETY: every string is null-terminated and outlives the call; null where the kernel takes null.
    unsafe { call(libc::SYS_mount, arguments) }.map(drop)
}

fn mount_proc(target: &CStr) -> Result<(), Errno> {
    let flags = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    mount(Some(c"proc"), target, Some(c"proc"), flags, None)
}

fn unmount(target: &CStr) -> Result<(), Errno> {
    // SAFETY: the path is null-terminated and outlives the call.
    unsafe { call(libc::SYS_umount2, [target.as_ptr() as Word, libc::MNT_DETACH.into()]) }.map(drop)
}

pub(crate) fn change_directory(path: &CStr) -> Result<(), Errno> {
    // SAFETY: the path is null-terminated and outlives the call.
    unsafe { call(libc::SYS_chdir, [path.as_ptr() as Word]) }.map(drop)
}

fn make_directory(path: &CStr) -> Result<(), Errno> {
    // SAFETY: the path is null-terminated and outlives the call.
    unsafe { call(libc::SYS_mkdirat, [libc::AT_FDCWD.into(), path.as_ptr() as Word, 0o755]) }.map(drop)
}

/// The attributes are set before the mount becomes visible, on everything below it as well.
fn bind(source: &CStr, target: &CStr, attributes: u64, follow: bool) -> Result<(), Errno> {
    let tree = sys::detach_copy(source, follow)?;
    sys::set_mount_attributes(tree, c"", Word::from(libc::AT_EMPTY_PATH) | sys::AT_RECURSIVE, attributes)?;
    match kind(tree)? {
        libc::S_IFDIR => make_directory(target)?,
        _ => close(open(libc::AT_FDCWD, target, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL, 0o644)?)?,
    }
    sys::attach_copy(tree, target)?;
    close(tree)
}

/// The place is found first, and what is shown there has no name any more.
fn replace(path: &CStr, text: &[u8]) -> Result<(), Errno> {
    const NAME: &CStr = c"replacement";
    let place = resolve::without_links(path)?;
    let file = open(libc::AT_FDCWD, NAME, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL, 0o644)?;
    write(file, text).and_then(|()| close(file))?;
    let tree = sys::detach_copy(NAME, false)?;
    sys::set_mount_attributes(tree, c"", libc::AT_EMPTY_PATH.into(), files::READ_ONLY)?;
    sys::attach_copy_at(tree, place)?;
    // SAFETY: the name is null-terminated and static.
    unsafe { call(libc::SYS_unlinkat, [libc::AT_FDCWD.into(), NAME.as_ptr() as Word, 0]) }?;
    close(tree).and_then(|()| close(place))
}

/// The file type of an open file.
pub(crate) fn kind(fd: RawFd) -> Result<libc::mode_t, Errno> {
    // SAFETY: all zeroes is a valid statx.
    let mut status: libc::statx = unsafe { std::mem::zeroed() };
    let arguments = [
        fd.into(),
        c"".as_ptr() as Word,
        libc::AT_EMPTY_PATH.into(),
        libc::STATX_TYPE.into(),
        (&raw mut status) as Word,
    ];
    // SAFETY: the path and the result outlive the call.
    unsafe { call(libc::SYS_statx, arguments) }?;
    Ok(libc::mode_t::from(status.stx_mode) & libc::S_IFMT)
}

/// With the attributes of the device below the new root, which a bind takes over: the host's own could be changed.
fn mask(target: &CStr) -> Result<(), Errno> {
    mount(Some(c"dev/null"), target, None, libc::MS_BIND, None)
}

/// The old root is stacked on the new one and then taken away, so no directory is needed for it.
fn enter_root() -> Result<(), Errno> {
    let here = c".".as_ptr() as Word;
    // SAFETY: the paths are null-terminated and static.
    unsafe {
        call(libc::SYS_pivot_root, [here, here])?;
        call(libc::SYS_umount2, [here, libc::MNT_DETACH.into()])?;
        call(libc::SYS_chdir, [c"/".as_ptr() as Word])
    }
    .map(drop)
}

fn limit(resource: u32, value: u64) -> Result<(), Errno> {
    let both = [value, value];
    // SAFETY: a struct rlimit64 is two u64, which outlive the call; the old limit is not asked for.
    unsafe { call(libc::SYS_prlimit64, [0, resource.into(), both.as_ptr() as Word]) }.map(drop)
}

fn become_user(user: u32) -> Result<(), Errno> {
    let id = Word::from(user);
    // SAFETY: no groups, so no pointer is read.
    unsafe {
        call(libc::SYS_setgroups, [])?;
        call(libc::SYS_setresgid, [id, id, id])?;
        call(libc::SYS_setresuid, [id, id, id])
    }
    .map(drop)
}

fn drop_capabilities(last: u32) -> Result<(), Errno> {
    /// NOROOT, NO_SETUID_FIXUP, KEEP_CAPS off but locked, NO_CAP_AMBIENT_RAISE, and their locks.
    const SECURE_BITS: Word = 0xef;
    /// `_LINUX_CAPABILITY_VERSION_3`.
    const VERSION: u32 = 0x2008_0522;
    prctl(libc::PR_SET_SECUREBITS, SECURE_BITS, 0)?;
    (0..=last).try_for_each(|capability| prctl(libc::PR_CAPBSET_DROP, capability.into(), 0))?;
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL.into(), 0)?;
    let header = [VERSION, 0];
    let none = [0_u32; 6];
    // SAFETY: the header and two capability structs, which outlive the call.
    unsafe { call(libc::SYS_capset, [header.as_ptr() as Word, none.as_ptr() as Word]) }.map(drop)
}

fn install(filter: &Filter) -> Result<(), Errno> {
    let program = filter.program();
    let program = libc::sock_fprog { len: program.len() as libc::c_ushort, filter: program.as_ptr().cast_mut() };
    let arguments = [libc::SECCOMP_SET_MODE_FILTER.into(), 0, (&raw const program) as Word];
    // SAFETY: the program is static and only read, and its length is its own: compiling checked that it fits.
    unsafe { call(libc::SYS_seccomp, arguments) }.map(drop)
}
