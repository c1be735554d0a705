//! A copy of every image is made once before a start gets one: to see that it becomes ready, and which pages it touches until then.
//!
//! Invariant: no invocation runs in a rehearsal, so of a function nothing runs but what copies run by themselves. It does not know which
//! function an image is of, or when starts use it.

#[cfg(test)]
mod tests;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use nix::poll::{PollFd, PollFlags, poll};
use vilya_ipc::claim::ClaimKind;
use vilya_ipc::host::Host;
use vilya_isolate::{Begun, CopyOf, Image, Spec, Started};

/// How a copy of the image is started.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) spec: Spec,
    /// Lanes of its ring.
    pub(crate) lanes: u16,
    /// Whether it reads its environment: the image is of a runtime that knew no function.
    pub(crate) tells_environment: bool,
}

/// Asks the starter, which alone can begin a start, for a copy.
pub(crate) struct Request {
    pub(crate) image: Arc<Image>,
    pub(crate) part: Part,
    answer: Sender<Result<OnStage, String>>,
}

impl Request {
    /// What to make.
    pub(crate) fn copy(&self) -> CopyOf<'_> {
        CopyOf { image: &self.image, tells_environment: self.part.tells_environment }
    }

    pub(crate) fn answer(self, copy: Result<OnStage, String>) {
        // Whoever asked may have given up: the copy then ends with its answer.
        let _ = self.answer.send(copy);
    }
}

/// A copy that has begun, and our ends of its ring and its output. It ends with this, also if nobody waits for it any more.
pub(crate) struct OnStage {
    begun: Option<Begun>,
    host: Host,
    /// Kept open so that it can print.
    _output: [OwnedFd; 2],
}

impl OnStage {
    pub(crate) fn new(begun: Begun, host: Host, output: [OwnedFd; 2]) -> OnStage {
        OnStage { begun: Some(begun), host, _output: output }
    }
}

impl Drop for OnStage {
    fn drop(&mut self) {
        self.begun.take().map(Begun::finish).into_iter().flatten().for_each(end);
    }
}

fn end(copy: Started) {
    copy.remains.kill();
    let _ = copy.remains.reap();
}

/// How long a wait goes on before it is asked whether the worker stops.
const LOOK: Duration = Duration::from_millis(100);

/// Rehearses an image, which has learned from it then. Otherwise: why it must not be used.
pub(crate) fn rehearse(
    image: &Arc<Image>,
    part: Part,
    requests: &Sender<Request>,
    patience: Duration,
    stopping: &AtomicBool,
) -> Result<(), String> {
    let deadline = Instant::now() + patience;
    let (answer, answers) = bounded(1);
    let request = Request { image: Arc::clone(image), part, answer };
    requests.send(request).map_err(|_| "the worker stops".to_owned())?;
    let mut stage = loop {
        // Relaxed: it is only asked whether to go on.
        let goes_on = !stopping.load(Ordering::Relaxed) && Instant::now() < deadline;
        match answers.recv_timeout(LOOK) {
            Ok(copy) => break copy?,
            Err(RecvTimeoutError::Timeout) if goes_on => {}
            Err(_) => return Err("no copy of it could be started in time".into()),
        }
    };
    let Some(begun) = stage.begun.take() else { return Err("no copy of it was started".into()) };
    let started = begun.finish().map_err(|error| error.to_string())?;
    let ready = await_ready(&mut stage.host, &started, deadline, stopping).and_then(|()| {
        image.learn_from(&started).map_err(|error| format!("a copy of it cannot be looked at: {error}"))
    });
    end(started);
    ready
}

fn await_ready(host: &mut Host, started: &Started, deadline: Instant, stopping: &AtomicBool) -> Result<(), String> {
    // Relaxed: as above.
    while Instant::now() < deadline && !stopping.load(Ordering::Relaxed) {
        if host.announce_park() {
            wait_for([host.doorbell(), started.pidfd()])?;
        }
        match host.pop() {
            Ok(Some(claim)) if claim.kind == ClaimKind::Ready => return Ok(()),
            Ok(Some(_)) => return Err("a copy of it failed where it did not".into()),
            Ok(None) if has_ended(started)? => return Err("a copy of it ended before it was ready".into()),
            Ok(None) => {}
            Err(poison) => return Err(format!("a copy of it broke its ring: {poison}")),
        }
    }
    Err("a copy of it did not become ready in time".into())
}

fn has_ended(started: &Started) -> Result<bool, String> {
    let mut polled = [PollFd::new(started.pidfd(), PollFlags::POLLIN)];
    poll(&mut polled, 0_u8).map(|count| count > 0).map_err(|error| error.to_string())
}

fn wait_for(descriptors: [BorrowedFd<'_>; 2]) -> Result<(), String> {
    let mut polled = descriptors.map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN));
    let patience = u8::try_from(LOOK.as_millis()).unwrap_or(u8::MAX);
    match poll(&mut polled, patience) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}
