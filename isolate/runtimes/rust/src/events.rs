//! Serving from an event loop, as runtimes of other languages do: one thread takes what the worker says, any thread answers.
//!
//! Invariant: a [`Task`] is answered by being given up, so at most once. It knows no loop and no handlers.

use crate::request::Advice;
use crate::{Failure, Request, StartError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
pub use vilya_ipc::guest::PartWait;
use vilya_ipc::guest::{Guest, Invocation, Next, Receiver, Response, Sender};

/// The most bytes of a part of an answer.
pub const PART_BYTES: usize = vilya_ipc::layout::PART_BYTES as usize;

/// Takes what the worker says. One a process.
pub struct Intake {
    receiver: Receiver,
    /// What each lane runs, or ran last.
    lanes: Box<[Option<Running>]>,
}

struct Running {
    invocation: u64,
    cancelled: Arc<AtomicBool>,
}

/// Answers. One a process.
pub struct Outlet(Sender);

/// What the worker says.
pub enum Event {
    /// Run this.
    Invoke(Task),
    /// Nobody waits for some task any more: [`Task::cancelled`] says which.
    Cancelled,
    /// Finish what runs, then exit. Nothing comes after it.
    Stop,
}

/// An invocation to be answered.
pub struct Task {
    invocation: Invocation,
    cancelled: Arc<AtomicBool>,
}

/// Joins the worker. Nothing comes before [`Outlet::ready`].
///
/// # Errors
/// The process is not a sandbox of a worker that this runtime can serve.
pub fn join() -> Result<(Intake, Outlet), StartError> {
    Ok(halves(crate::join()?))
}

/// [`join`] for a process that was started before its function was known: waits until it is told. What is told is the function's
/// environment, `NAME=value` with a NUL each; standard output and error are the function's from then on.
///
/// # Errors
/// Nobody tells it, or not as a worker of this release does.
pub fn join_when_told() -> Result<(Vec<u8>, Intake, Outlet), StartError> {
    let (mut guest, environment) = Guest::when_told().map_err(StartError::Handshake)?;
    let texts = environment.split(|byte| *byte == 0).filter_map(|text| std::str::from_utf8(text).ok());
    let spin = texts.filter_map(|text| text.split_once('=')).find(|(name, _)| *name == crate::SPIN_VARIABLE);
    if let Some(cap) = crate::spin_cap(spin.map(|(_, value)| value.to_owned()))? {
        guest.set_spin_cap(cap);
    }
    let (intake, outlet) = halves(guest);
    Ok((environment, intake, outlet))
}

fn halves(guest: Guest) -> (Intake, Outlet) {
    let lanes = (0..guest.lanes()).map(|_| None).collect();
    let (receiver, sender) = guest.split();
    (Intake { receiver, lanes }, Outlet(sender))
}

impl Intake {
    /// Waits for what the worker says next.
    pub fn wait(&mut self) -> Event {
        match self.receiver.next() {
            Next::Invoke(invocation) => {
                let cancelled = Arc::new(AtomicBool::new(false));
                let running = Running { invocation: invocation.id(), cancelled: Arc::clone(&cancelled) };
                self.lanes[invocation.lane() as usize] = Some(running);
                Event::Invoke(Task { invocation, cancelled })
            }
            Next::Cancel { invocation, lane } => {
                // Advice may come late: only for what still holds the lane.
                let running = self.lanes[lane as usize].as_ref();
                if let Some(running) = running.filter(|running| running.invocation == invocation) {
                    // Relaxed: advice, which guards no other memory.
                    running.cancelled.store(true, Ordering::Relaxed);
                }
                Event::Cancelled
            }
            Next::Stop => Event::Stop,
        }
    }
}

impl Outlet {
    /// Tells the worker that invocations may come.
    pub fn ready(&mut self) {
        self.0.ready();
    }

    /// Tells the worker that the handler cannot be loaded: `account` is a failure in JSON, as in [`Outlet::raised`].
    pub fn init_failed(&mut self, account: &[u8]) {
        let shortened = self.shortened(account);
        self.0.init_failed(shortened.as_deref().unwrap_or(account));
    }

    /// Answers with the response that the task holds.
    pub fn returned(&mut self, task: Task) {
        self.0.returned(task.invocation);
    }

    /// Sends a part of the task's answer, of the content type that its response names; at most [`PART_BYTES`] of it. The next thing said of
    /// the task must come after [`PartWait::wait`] has returned.
    ///
    /// # Panics
    /// There are more bytes.
    pub fn part(&mut self, task: &Task, bytes: &[u8]) -> PartWait {
        assert!(bytes.len() <= PART_BYTES, "{} bytes are more than a part may have", bytes.len());
        self.0.part(&task.invocation.piece(bytes))
    }

    /// Answers with an account of a failure: JSON `{"errorType", "errorMessage", "stackTrace"}`. One that is longer than
    /// [`Outlet::failure_limit_bytes`] is replaced by one that says so.
    pub fn raised(&mut self, task: Task, account: &[u8]) {
        let shortened = self.shortened(account);
        self.0.raised(task.invocation, shortened.as_deref().unwrap_or(account));
    }

    /// The longest account of a failure that can be sent, in bytes.
    #[must_use]
    pub fn failure_limit_bytes(&self) -> usize {
        self.0.failure_limit_bytes()
    }

    fn shortened(&self, account: &[u8]) -> Option<Vec<u8>> {
        let limit = self.failure_limit_bytes();
        let message = || format!("the account of a failure has {} bytes, {limit} are allowed", account.len());
        (account.len() > limit).then(|| Failure::new("Error".to_owned(), message()).to_json(limit))
    }
}

impl Task {
    /// The request, and the response to fill.
    pub fn parts(&mut self) -> (Request<'_>, Response<'_>) {
        let (request, response) = self.invocation.parts();
        (Request::new(request, Advice::Told(&self.cancelled)), response)
    }

    /// Whether nobody waits for the answer any more.
    #[must_use]
    pub fn cancelled(&self) -> bool {
        // Relaxed: see `Intake::wait`.
        self.cancelled.load(Ordering::Relaxed)
    }
}
