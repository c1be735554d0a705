//! The io_uring itself: set-up, its two queues and the one system call.
//!
//! `SINGLE_ISSUER | DEFER_TASKRUN`: the kernel does its share of a completion only while this thread is in
//! `io_uring_enter`, never by interrupting it; so only the thread that made the ring may use it. `TASKRUN_FLAG`: the
//! kernel says in shared memory that such work waits, so looking costs no system call.
//!
//! Invariant: [`Ring::push`] is the only way into the submission queue. Every enter asks for completions (`GETEVENTS`),
//! which also moves completions that overflowed from the kernel's list into the queue; the kernel keeps them meanwhile
//! (`NODROP`), so none is lost.
//!
//! Does not know what the entries mean.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, squeue};

use crate::buffers::{self, Registration};
use crate::clock::NANOS_PER_SECOND;
use crate::config::{Config, HARVEST_BATCH};
use crate::error::{Host, SetupError};

/// How long an enter may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sleep {
    No,
    For { ns: u64 },
    Forever,
}

/// How an enter went, when it was not an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entered {
    Done,
    /// A signal ended the wait.
    Interrupted,
    /// The kernel takes no submissions until completions were harvested or memory is free.
    Busy,
}

/// Completion entries copied out of the queue.
pub(crate) struct Batch {
    entries: [MaybeUninit<cqueue::Entry>; HARVEST_BATCH],
}

impl Batch {
    pub(crate) fn new() -> Batch {
        Batch { entries: [const { MaybeUninit::uninit() }; HARVEST_BATCH] }
    }
}

pub(crate) struct Ring {
    uring: IoUring,
    /// Plays a kernel that takes nothing.
    #[cfg(test)]
    pub(crate) stuck: bool,
}

impl Ring {
    pub(crate) fn new(config: &Config) -> Result<Ring, SetupError> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(config.completion_entries)
            .dontfork()
            .build(config.entries)
            .map_err(|source| SetupError::explain("io_uring_setup", source, Host::read()))?;
        let parameters = uring.params();
        for (has, missing) in [
            (parameters.is_feature_nodrop(), "IORING_FEAT_NODROP"),
            (parameters.is_feature_ext_arg(), "IORING_FEAT_EXT_ARG"),
            (parameters.is_feature_skip_cqe_on_success(), "IORING_FEAT_CQE_SKIP"),
        ] {
            if !has {
                return Err(SetupError::KernelTooOld { release: Host::read().release, missing });
            }
        }
        Ok(Ring {
            uring,
            #[cfg(test)]
            stuck: false,
        })
    }

    /// Gives the provided buffers to the kernel.
    ///
    /// # Safety
    /// The memory must stay mapped until [`unregister_buffers`](Ring::unregister_buffers) and the last completion of
    /// every operation that uses them, or until the process ends.
    pub(crate) unsafe fn register_buffers(&self, registration: &Registration) -> Result<(), SetupError> {
        let Registration { ring_address, entries } = *registration;
        let submitter = self.uring.submitter();
        // SAFETY: forwarded to the caller.
        unsafe { submitter.register_buf_ring_with_flags(ring_address, entries, buffers::GROUP, 0) }
            .map_err(|source| SetupError::explain("io_uring_register", source, Host::read()))
    }

    pub(crate) fn unregister_buffers(&self) -> io::Result<()> {
        self.uring.submitter().unregister_buf_ring(buffers::GROUP)
    }

    /// Makes a table of files, all of its places empty.
    pub(crate) fn register_files(&self, places: u32) -> Result<(), SetupError> {
        self.uring
            .submitter()
            .register_files_sparse(places)
            .map_err(|source| SetupError::explain("io_uring_register of files", source, Host::read()))
    }

    /// Puts a file into a place of the table, or takes it out with -1.
    pub(crate) fn set_file(&self, place: u32, fd: RawFd) -> io::Result<()> {
        match self.uring.submitter().register_files_update(place, &[fd])? {
            1 => Ok(()),
            _ => Err(io::Error::from(io::ErrorKind::InvalidInput)),
        }
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.uring.as_raw_fd()
    }

    /// Appends an entry; false if the queue is full.
    ///
    /// # Safety
    /// Memory that the entry points to must stay as it is until the last completion of the entry.
    pub(crate) unsafe fn push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: forwarded to the caller.
        unsafe { self.uring.submission().push(entry).is_ok() }
    }

    /// Entries that wait for the kernel to take them.
    pub(crate) fn unsubmitted(&mut self) -> u32 {
        self.uring.submission().len() as u32
    }

    pub(crate) fn is_full(&mut self) -> bool {
        self.uring.submission().is_full()
    }

    /// Completions wait in the queue.
    pub(crate) fn has_completions(&self) -> bool {
        // SAFETY: no other `CompletionQueue` exists: all of them are made in this file by `&mut self` methods that drop
        // them before they return, and the type is not shared between threads. This one changes nothing: its drop
        // stores the head that it loaded.
        !unsafe { self.uring.completion_shared() }.is_empty()
    }

    /// The kernel has work that only an enter gets done.
    pub(crate) fn kernel_waits(&self) -> bool {
        // SAFETY: as in `has_completions`, for the submission queue.
        let queue = unsafe { self.uring.submission_shared() };
        queue.taskrun() || queue.cq_overflow()
    }

    /// Completions wait in the kernel because the queue was full.
    pub(crate) fn overflowed(&self) -> bool {
        // SAFETY: as in `has_completions`, for the submission queue.
        unsafe { self.uring.submission_shared() }.cq_overflow()
    }

    /// Submits everything, lets the kernel do its share, and sleeps until there is a completion if told to.
    ///
    /// # Errors
    /// `EBADR` if the kernel ran out of memory for overflowed completions and dropped some; otherwise none that a
    /// correct ring gets.
    pub(crate) fn enter(&mut self, sleep: Sleep) -> io::Result<Entered> {
        #[cfg(test)]
        if self.stuck {
            return Ok(Entered::Busy);
        }
        let unsubmitted = self.unsubmitted();
        let (timeout, wanted) = match sleep {
            Sleep::No => (None, 0),
            Sleep::For { ns } => (Some(timespec(ns)), 1),
            Sleep::Forever => (None, 1),
        };
        let arguments = SubmitArgs::new();
        let arguments = match &timeout {
            Some(timeout) => arguments.timespec(timeout),
            None => arguments,
        };
        let flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        // SAFETY: `SubmitArgs` is the argument that `EXT_ARG` announces, and it and the timeout live across the call.
        let entered = unsafe { self.uring.submitter().enter(unsubmitted, wanted, flags.bits(), Some(&arguments)) };
        match entered {
            Ok(_) => Ok(Entered::Done),
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME) => Ok(Entered::Done),
                Some(libc::EINTR) => Ok(Entered::Interrupted),
                Some(libc::EAGAIN | libc::EBUSY) => Ok(Entered::Busy),
                _ => Err(error),
            },
        }
    }

    /// Copies completions out of the queue and frees their places.
    pub(crate) fn reap<'a>(&mut self, batch: &'a mut Batch) -> &'a [cqueue::Entry] {
        self.uring.completion().fill(&mut batch.entries)
    }
}

fn timespec(ns: u64) -> Timespec {
    Timespec::new().sec(ns / NANOS_PER_SECOND).nsec((ns % NANOS_PER_SECOND) as u32)
}
