//! Work on hostile bytes, done by confined children of a process that was forked while the worker was small.
//!
//! Owns: the worker's end: starting that process, handing a job over, waiting for what comes of it. Invariant: [`Unpacker::run`] ends: with an
//! answer, an error, after its patience and a little, or soon after [`Unpacker::stop`]; when it has returned, no process of the job is left. An answer is the word of a
//! process that read hostile bytes: it is bounded here and nothing more. Does not know: what a job reads or makes.
//!
//! Why a process of its own forks the children: a child of the worker would have the worker's memory, with what functions and clients said
//! and the credentials of registries, and could not run ordinary Rust, since a thread that is not there may hold a lock. This one has one
//! thread, reads nothing but orders, and holds nothing that was not there when the worker began. Why no program is executed instead: every
//! program that embeds the worker would need a hidden command.

mod child;
mod order;
mod service;

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Shutdown, shutdown};

use crate::host::{Privilege, ProbeError};
use crate::limits::{
    UNPACKING, UNPACKING_PATIENCE, UNPACKING_REPORT_BYTES, UNPACKING_USER_FIRST, UNPACKING_WORDS_BYTES,
};
use crate::seccomp::FilterError;
use crate::sys::{self, Status};
use order::Order;

/// What a child runs: a request to an answer. It is given the archive as descriptor 0, or the folder of the job at [`Unpacker::FOLDER`],
/// and may write below [`Unpacker::TREE`].
pub type Work = fn(request: &[u8]) -> Vec<u8>;

/// What one job may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Memory, besides what the worker had when it began.
    pub memory_bytes: u64,
    /// Largest file.
    pub file_bytes: u64,
    /// Processor time, in whole seconds.
    pub processor: Duration,
    /// Time.
    pub patience: Duration,
}

/// Something to be done.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// Told to the work.
    pub request: &'a [u8],
    /// An empty directory, on which the child builds its root.
    pub staging: &'a Path,
    /// Shown to be read. Others than the worker must be allowed to read what is in it.
    pub folder: Option<&'a Path>,
    /// Given as descriptor 0.
    pub input: Option<BorrowedFd<'a>>,
    /// A directory to be written to. As root it belongs to the job's user from then on.
    pub tree: Option<&'a Path>,
    /// What it may take.
    pub bounds: Bounds,
}

/// What came of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// What the work answered, or something else that the child wrote.
    pub answer: Vec<u8>,
    /// User and group that whatever it made belongs to.
    pub owner: (u32, u32),
}

/// Why a job has no answer.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The child could not be confined, so it was not begun.
    #[error("the process that unpacks cannot be confined on this host: {0}; `vilya doctor` says what a host needs")]
    Unconfined(String),
    /// The child ended by itself or was killed.
    #[error("the process that unpacks {how}{}", because(said))]
    Ended {
        /// How.
        how: String,
        /// What it had said of that; escaped.
        said: String,
    },
    /// It took too long.
    #[error("unpacking took more than {} seconds and was ended", .0.as_secs())]
    Late(Duration),
    /// The answer is longer than any answer.
    #[error("the process that unpacks gave a senseless answer and was ended")]
    Senseless,
    /// As many jobs are under way as may be.
    #[error("{UNPACKING} archives are being unpacked, as many as may be at once: try again later")]
    Busy,
    /// Nothing is unpacked any more.
    #[error("the worker is stopping")]
    Stopped,
    /// The process that makes the children is gone.
    #[error("the process that unpacks archives has ended, which it does not do by itself: restart the worker")]
    Gone,
    /// The system refused something.
    #[error("cannot have an archive unpacked: {0}")]
    System(#[from] io::Error),
}

fn because(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

/// Why there is nothing to unpack with.
#[derive(Debug, thiserror::Error)]
pub enum UnpackerError {
    /// The filter does not compile.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The host does not answer.
    #[error(transparent)]
    Host(#[from] ProbeError),
    /// The process could not be made.
    #[error("the process that unpacks archives could not be started: {0}")]
    Start(#[from] io::Error),
}

/// The worker's end. Dropping it ends the process and every job.
#[derive(Debug)]
pub struct Unpacker {
    /// Closed before the process is waited for.
    socket: Option<OwnedFd>,
    pidfd: OwnedFd,
    privilege: Privilege,
    /// Which jobs are under way; as root each has a user of its own.
    used: Mutex<[bool; UNPACKING]>,
    /// Readable from the moment when every job shall end: nobody takes out what is written.
    ending: (io::PipeReader, io::PipeWriter),
}

/// One of the jobs that may be under way.
struct Place<'a> {
    used: &'a Mutex<[bool; UNPACKING]>,
    number: usize,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)[self.number] = false;
    }
}

impl Unpacker {
    /// Where a job's folder is shown.
    pub const FOLDER: &'static str = "/folder";
    /// What a job writes to.
    pub const TREE: &'static str = "/tree";

    /// Forks the process, which serves until this is dropped or the calling process ends. To be called early: its children have the
    /// memory that the caller has now. Where the caller has other threads, a lock that one of them holds at this moment stays locked in
    /// the children: a job that needs it waits for its patience to end. The memory allocator's are free.
    ///
    /// # Errors
    /// When the host cannot be asked, or makes no process.
    pub fn start(work: Work) -> Result<Unpacker, UnpackerError> {
        let privilege = crate::host::privilege()?;
        let facts = child::Facts::probe(privilege)?;
        let (socket, pidfd) = service::start(&service::Service { facts, work })?;
        let used = Mutex::new([false; UNPACKING]);
        Ok(Unpacker { socket: Some(socket), pidfd, privilege, used, ending: io::pipe()? })
    }

    /// Ends every job, and does no more.
    pub fn stop(&self) {
        // A pipe that takes no more has been written to.
        let _ = (&self.ending.1).write(&[0]);
    }

    /// The id of the process that makes the children.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn process(&self) -> io::Result<i32> {
        sys::pid_of(self.pidfd.as_fd())
    }

    /// Does a job, and waits for its end.
    ///
    /// # Errors
    /// When there is no answer, for whichever reason.
    pub fn run(&self, job: &Job<'_>) -> Result<Finished, JobError> {
        let place = self.place()?;
        let owner = match self.privilege {
            Privilege::Root => (UNPACKING_USER_FIRST + place.number as u32, UNPACKING_USER_FIRST + place.number as u32),
            Privilege::User { uid, gid } => (uid, gid),
        };
        if let (Privilege::Root, Some(tree)) = (self.privilege, job.tree) {
            std::os::unix::fs::lchown(tree, Some(owner.0), Some(owner.1))?;
        }
        let path = |path: Option<&Path>| path.map_or_else(PathBuf::new, Path::to_owned);
        let order = Order {
            user: owner.0,
            bounds: [job.bounds.memory_bytes, job.bounds.file_bytes, job.bounds.processor.as_secs().max(1)],
            staging: job.staging.to_owned(),
            folder: path(job.folder),
            tree: path(job.tree),
            request: job.request.to_vec(),
        };
        if sys::poll_readable(self.ending.0.as_fd(), Duration::ZERO)? {
            return Err(JobError::Stopped);
        }
        let waiting = self.hand_over(&order, job.input)?;
        let answer = waiting.end(job.bounds.patience, self.ending.0.as_fd())?;
        Ok(Finished { answer, owner })
    }

    fn place(&self) -> Result<Place<'_>, JobError> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let number = used.iter().position(|used| !used).ok_or(JobError::Busy)?;
        used[number] = true;
        Ok(Place { used: &self.used, number })
    }

    fn hand_over(&self, order: &Order, input: Option<BorrowedFd<'_>>) -> Result<Waiting, JobError> {
        let (line, theirs) = sys::packet_pair()?;
        let (report, answer) = io::pipe()?;
        let (words, said) = io::pipe()?;
        let null = std::fs::File::open("/dev/null")?;
        let input = input.unwrap_or(null.as_fd());
        let descriptors = [theirs.as_raw_fd(), input.as_raw_fd(), answer.as_raw_fd(), said.as_raw_fd()];
        let socket = self.socket.as_ref().ok_or(JobError::Gone)?;
        sys::send_with(socket.as_raw_fd(), &order.to_bytes(), &descriptors).map_err(|errno| match errno {
            libc::EPIPE | libc::ECONNRESET | libc::ENOTCONN => JobError::Gone,
            errno => JobError::System(io::Error::from_raw_os_error(errno)),
        })?;
        let answer = Stream { pipe: Some(report), bytes: Vec::new(), most: UNPACKING_REPORT_BYTES };
        Ok(Waiting {
            line,
            answer,
            words: Stream { pipe: Some(words), bytes: Vec::new(), most: UNPACKING_WORDS_BYTES },
        })
    }
}

impl Drop for Unpacker {
    fn drop(&mut self) {
        // It ends with its socket; this is for one that is stopped.
        drop(self.socket.take());
        if !sys::poll_readable(self.pidfd.as_fd(), UNPACKING_PATIENCE).unwrap_or(false) {
            let _ = sys::pidfd_send_signal(self.pidfd.as_fd(), libc::SIGKILL);
        }
        let _ = sys::wait(self.pidfd.as_fd());
    }
}

/// A job under way.
struct Waiting {
    /// Where its end is told; closed, it has the job ended.
    line: OwnedFd,
    answer: Stream,
    words: Stream,
}

/// What the child writes, up to a bound.
struct Stream {
    pipe: Option<io::PipeReader>,
    bytes: Vec<u8>,
    most: usize,
}

impl Stream {
    /// Takes what there is; whether it is within the bound.
    fn take(&mut self) -> io::Result<bool> {
        let Some(pipe) = &mut self.pipe else { return Ok(true) };
        let mut buffer = [0; 16 << 10];
        match pipe.read(&mut buffer) {
            Ok(0) => self.pipe = None,
            Ok(count) => self.bytes.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(self.bytes.len() <= self.most)
    }
}

impl Waiting {
    /// Waits for the end, and brings it about if it does not come in time.
    fn end(mut self, patience: Duration, ending: BorrowedFd<'_>) -> Result<Vec<u8>, JobError> {
        let outcome = self.follow(Instant::now() + patience, ending);
        let status = match outcome {
            Ok(Some(status)) => status,
            Ok(None) => return Err(self.kill().map_or_else(|error| error, |_| JobError::Late(patience))),
            Err(JobError::Gone) => return Err(JobError::Gone),
            Err(error) => return Err(self.kill().map_or_else(|gone| gone, |_| error)),
        };
        let said: String = String::from_utf8_lossy(&self.words.bytes).trim().escape_debug().take(1024).collect();
        let ended = |how: String| Err(JobError::Ended { how, said: said.clone() });
        match status {
            Status::Exited(0) => Ok(self.answer.bytes),
            Status::Exited(status) if status == child::UNCONFINED => Err(JobError::Unconfined(said)),
            Status::Exited(status) => ended(format!("ended with status {status}")),
            Status::Killed(libc::SIGKILL) => {
                ended("was killed: by somebody, or for taking more processor time than it may".to_owned())
            }
            Status::Killed(signal) => ended(format!("was ended by signal {signal}")),
        }
    }

    /// Takes what is written until the child is gone and nothing is left; `None` when it takes too long.
    fn follow(&mut self, deadline: Instant, ending: BorrowedFd<'_>) -> Result<Option<Status>, JobError> {
        let mut status = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let pipes = [&self.answer.pipe, &self.words.pipe];
            if let (Some(status), [None, None]) = (status, pipes) {
                return Ok(Some(status));
            }
            let line = status.is_none().then(|| self.line.as_fd());
            let [answer, words] = pipes.map(|pipe| pipe.as_ref().map(AsFd::as_fd));
            let ready = ready([line, answer, words, Some(ending)], left)?;
            if ready[0] {
                status = Some(self.told()?);
            }
            // What it says of itself is cut, but what it answers is whole or nothing.
            if ready[1] && !self.answer.take()? {
                return Err(JobError::Senseless);
            }
            if ready[2] && !self.words.take()? {
                self.words.bytes.truncate(self.words.most);
            }
            if ready[3] {
                return Err(JobError::Stopped);
            }
        }
    }

    fn told(&self) -> Result<Status, JobError> {
        let mut bytes = [0; order::STATUS_BYTES];
        match sys::receive_owned(self.line.as_fd(), &mut bytes) {
            Ok((order::STATUS_BYTES, _)) => Ok(order::status(bytes)),
            _ => Err(JobError::Gone),
        }
    }

    /// Has the child killed, and waits until it is gone.
    fn kill(&self) -> Result<Status, JobError> {
        match shutdown(self.line.as_raw_fd(), Shutdown::Write) {
            Ok(()) if sys::poll_readable(self.line.as_fd(), UNPACKING_PATIENCE)? => self.told(),
            _ => Err(JobError::Gone),
        }
    }
}

/// Waits until one of these is readable or closed, or the time has passed.
fn ready(descriptors: [Option<BorrowedFd<'_>>; 4], patience: Duration) -> io::Result<[bool; 4]> {
    let present = descriptors.iter().enumerate().filter_map(|(index, fd)| fd.map(|fd| (index, fd)));
    let (indices, mut polls): (Vec<usize>, Vec<PollFd<'_>>) =
        present.map(|(index, fd)| (index, PollFd::new(fd, PollFlags::POLLIN))).unzip();
    let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
    match poll(&mut polls, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    let mut ready = [false; 4];
    for (index, poll) in indices.into_iter().zip(&polls) {
        ready[index] = poll.any().unwrap_or(false);
    }
    Ok(ready)
}
