//! Functions' archives that are unpacked for deployments, each on a thread of its own, so that one that hangs its decoder holds up nobody.
//!
//! Invariant: a deployment that was begun comes back exactly once, as [`UnpackingEnded`] or from [`Unpackings::give_up`], unless the worker
//! ends. At most [`AT_ONCE`] are under way and [`WAITING`] wait for that, with their archives; more are refused. It does not know what is
//! in an archive.

use std::collections::VecDeque;

use crossbeam_channel::Sender;
use vilya_protocol::error::ErrorKind;

use super::Caller;
use super::crew::Crew;
use super::fetches;
use crate::mesh::ControlMessage;
use crate::response::Response;
use crate::storage::{Asked, CatalogError, Opened};

/// Archives under way.
const AT_ONCE: usize = 8;
/// Archives that wait. Their bytes stay charged to the shards that they came to.
const WAITING: usize = 64;
/// An image may be unpacked by each of its threads besides.
const _: () = assert!(AT_ONCE + fetches::AT_ONCE <= vilya_isolate::UNPACKING);

/// What is under way, and what waits.
pub(super) struct Unpackings {
    crew: Crew,
    waiting: VecDeque<(Asked, Caller)>,
    ended: bool,
}

/// A deployment whose archive was unpacked, or was not.
pub(crate) struct UnpackingEnded {
    thread: u64,
    /// Of the deployment, and its function.
    pub(super) number: u64,
    pub(super) name: String,
    pub(super) caller: Caller,
    pub(super) outcome: Result<Opened, CatalogError>,
}

impl Unpackings {
    /// `control` is the control thread's own inbox, where what was unpacked arrives.
    pub(super) fn new(control: Sender<ControlMessage>) -> Unpackings {
        let crew = Crew::new("vilya-unpack", "the unpacking of a function", control);
        Unpackings { crew, waiting: VecDeque::new(), ended: false }
    }

    /// Has an archive unpacked, at once or in its turn. The answer, when it is not.
    pub(super) fn begin(&mut self, asked: Asked, caller: Caller) -> Option<Response> {
        if self.ended {
            return Some(Response::error(ErrorKind::Draining, "the worker is stopping"));
        }
        if self.crew.len() < AT_ONCE {
            return self.start(asked, caller);
        }
        if self.waiting.len() >= WAITING {
            let message =
                format!("{} functions are being deployed, as many as may be: try again later", AT_ONCE + WAITING);
            return Some(Response::error(ErrorKind::Overloaded, &message));
        }
        self.waiting.push_back((asked, caller));
        None
    }

    fn start(&mut self, asked: Asked, caller: Caller) -> Option<Response> {
        let begun = self.crew.begin(move |thread| {
            let (number, name) = (asked.number(), asked.name().to_owned());
            let outcome = asked.unpack();
            ControlMessage::Unpacked(Box::new(UnpackingEnded { thread, number, name, caller, outcome }))
        });
        let failed = |error| format!("a thread for the archive could not be started: {error}");
        begun.err().map(|error| Response::error(ErrorKind::Internal, &failed(error)))
    }

    /// Takes note that one has ended, and begins the next. Whoever is to be told that theirs could not be.
    pub(super) fn end(&mut self, ended: &UnpackingEnded) -> Vec<(Caller, u64, Response)> {
        self.crew.end(ended.thread);
        let mut refused = Vec::new();
        while self.crew.len() < AT_ONCE
            && let Some((asked, caller)) = self.waiting.pop_front()
        {
            let number = asked.number();
            refused.extend(self.start(asked, caller).map(|response| (caller, number, response)));
        }
        refused
    }

    /// Begins nothing more. Whoever is to be told so.
    pub(super) fn give_up(&mut self) -> Vec<(Caller, u64, Response)> {
        self.ended = true;
        let told = |(asked, caller): (Asked, Caller)| {
            (caller, asked.number(), Response::error(ErrorKind::Draining, "the worker is stopping"))
        };
        self.waiting.drain(..).map(told).collect()
    }

    /// Waits until nothing is under way.
    pub(super) fn join(&mut self) {
        self.crew.join();
    }
}
