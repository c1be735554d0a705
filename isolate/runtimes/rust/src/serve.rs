//! The loop that takes invocations and answers them, in as many threads as the sandbox has lanes.
//!
//! Whichever thread is idle takes the receiver, waits, and lets go of it before it calls the handler: no thread hands
//! an invocation to another. Invariant: what runs where is changed only by the holder of the receiver, so advice is
//! seen in the order in which the worker sent it.

use crate::Request;
use crate::failure::Failure;
use crate::request::Advice;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use vilya_ipc::guest::{Guest, Invocation, Next, Receiver, Response, Sender};

/// What the threads share.
struct Runtime {
    receiver: Mutex<Receiver>,
    sender: Mutex<Sender>,
    desk: Desk,
}

/// What the worker said besides the invocations themselves. Written by the holder of the receiver.
struct Desk {
    lanes: Box<[Lane]>,
    stopping: AtomicBool,
}

#[derive(Default)]
struct Lane {
    invocation: AtomicU64,
    cancelled: AtomicBool,
}

/// A handler's window on what the worker says of its invocation.
pub(crate) struct LaneAdvice<'a> {
    runtime: &'a Runtime,
    lane: u32,
}

/// Serves until the worker says stop.
pub(crate) fn serve<F>(guest: Guest, handler: &F)
where
    F: Fn(&Request<'_>, &mut Response<'_>) -> Result<(), Failure> + Sync,
{
    let lanes: Box<[Lane]> = (0..guest.lanes()).map(|_| Lane::default()).collect();
    let (receiver, mut sender) = guest.split();
    sender.ready();
    let desk = Desk { lanes, stopping: AtomicBool::new(false) };
    let runtime = Runtime { receiver: Mutex::new(receiver), sender: Mutex::new(sender), desk };
    std::thread::scope(|scope| {
        for _ in 1..runtime.desk.lanes.len() {
            scope.spawn(|| runtime.work(handler));
        }
        runtime.work(handler);
    });
}

impl Runtime {
    fn work<F>(&self, handler: &F)
    where
        F: Fn(&Request<'_>, &mut Response<'_>) -> Result<(), Failure>,
    {
        while let Some(invocation) = self.take() {
            self.answer(invocation, handler);
        }
    }

    /// The next invocation, or `None` when the worker said stop.
    fn take(&self) -> Option<Invocation> {
        let mut receiver = lock(&self.receiver);
        while !self.desk.stopping() {
            if let Some(invocation) = self.desk.note(receiver.next()) {
                return Some(invocation);
            }
        }
        None
    }

    fn answer<F>(&self, mut invocation: Invocation, handler: &F)
    where
        F: Fn(&Request<'_>, &mut Response<'_>) -> Result<(), Failure>,
    {
        let advice = Advice::Asked(LaneAdvice { runtime: self, lane: invocation.lane() });
        let (request, mut response) = invocation.parts_with(&self.sender);
        let request = Request::new(request, advice);
        // A handler that panicked leaves nothing of ours behind: its response is dropped unread.
        let result = catch_unwind(AssertUnwindSafe(|| handler(&request, &mut response)));
        let failure = match result {
            Ok(Ok(())) => return lock(&self.sender).returned(invocation),
            Ok(Err(failure)) => failure,
            Err(panic) => Failure::of_panic(&*panic),
        };
        let mut sender = lock(&self.sender);
        let json = failure.to_json(sender.failure_limit_bytes());
        sender.raised(invocation, &json);
    }
}

impl Desk {
    /// Takes note of what the worker sent; gives back an invocation to run.
    fn note(&self, next: Next) -> Option<Invocation> {
        // Relaxed throughout: each value is advice on its own and guards no other memory; the order among the writers
        // is the receiver's lock.
        match next {
            Next::Invoke(invocation) => {
                let lane = &self.lanes[invocation.lane() as usize];
                lane.invocation.store(invocation.id(), Ordering::Relaxed);
                lane.cancelled.store(false, Ordering::Relaxed);
                return Some(invocation);
            }
            Next::Cancel { invocation, lane } => {
                let lane = &self.lanes[lane as usize];
                // Advice may come late: only for what still holds the lane.
                if lane.invocation.load(Ordering::Relaxed) == invocation {
                    lane.cancelled.store(true, Ordering::Relaxed);
                }
            }
            Next::Stop => self.stopping.store(true, Ordering::Relaxed),
        }
        None
    }

    fn stopping(&self) -> bool {
        // Relaxed: written under the receiver's lock, which the reader holds too.
        self.stopping.load(Ordering::Relaxed)
    }
}

impl LaneAdvice<'_> {
    pub(crate) fn cancelled(&self) -> bool {
        let Runtime { receiver, desk, .. } = self.runtime;
        // An idle thread that waits for the worker holds the receiver and takes note itself; if there is none, this
        // thread looks.
        if let Ok(mut receiver) = receiver.try_lock() {
            while let Some(next) = receiver.poll_advice() {
                let invocation = desk.note(next);
                assert!(invocation.is_none(), "advice starts nothing");
            }
        }
        // Relaxed: see `Desk::note`.
        desk.lanes[self.lane as usize].cancelled.load(Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("only a worker that broke the protocol makes a holder panic")
}
