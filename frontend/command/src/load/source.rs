//! Where a thread's requests come from: a schedule, or clients that each wait for their answer.
//!
//! Invariant: jobs of a schedule come in the order in which they are due.

use std::iter::Peekable;

use super::connection::Job;
use super::driver::Task;
use super::plan::{Extent, Pace};
use super::schedule::{Choice, Mix, Random, Schedule};

/// Streams of the seed: each step has two, closed-loop clients have the ones after.
const FIRST_CLIENT_STREAM: u64 = 1 << 32;

/// Where requests come from.
pub(super) enum Source<'a> {
    Open(Peekable<Box<dyn Iterator<Item = Job> + 'a>>),
    Closed(Clients),
}

/// The clients of a closed loop, one a place: as many a connection as may be in flight on it.
pub(super) struct Clients {
    randoms: Vec<Random>,
    mix: Mix,
    pub(super) ready: Vec<usize>,
    /// Those that could not connect, and until when they rest.
    pub(super) resting: Vec<(u64, usize)>,
}

impl Clients {
    pub(super) fn new(task: &Task<'_>, clients: usize) -> Clients {
        let before: usize = (0..task.part.thread).map(|thread| task.plan.places_of(thread)).sum();
        let stream = |client: usize| FIRST_CLIENT_STREAM + (before + client) as u64;
        Clients {
            randoms: (0..clients).map(|client| Random::new(task.plan.seed, stream(client))).collect(),
            mix: task.plan.mix(),
            ready: (0..clients).collect(),
            resting: Vec::new(),
        }
    }

    pub(super) fn choose(&mut self, client: usize) -> Choice {
        self.mix.choose(&mut self.randoms[client])
    }

    /// The clients that may send now.
    pub(super) fn take_ready(&mut self, now_ns: u64) -> Vec<usize> {
        let mut ready = std::mem::take(&mut self.ready);
        self.resting.retain(|(until_ns, client)| {
            let rested = *until_ns <= now_ns;
            ready.extend(rested.then_some(*client));
            !rested
        });
        ready
    }
}

/// The jobs of an open loop's step that are this thread's: the warm-up's, then those that count.
pub(super) fn open_loop<'a>(task: &Task<'a>, rate_per_s: f64) -> Box<dyn Iterator<Item = Job> + 'a> {
    let (plan, window, part) = (task.plan, task.window, task.part);
    let Pace::Open { arrivals, .. } = plan.pace else { return Box::new(std::iter::empty()) };
    let stream = 2 * task.step as u64;
    let schedule = |stream| Schedule::new(arrivals, rate_per_s, plan.mix(), Random::new(plan.seed, stream), part);
    let warm_up = schedule(stream + 1).take_while(move |due| due.at_ns < plan.warm_up_ns).map(move |due| Job {
        due_ns: window.start_ns + due.at_ns,
        choice: due.choice,
        counted: false,
    });
    let counted = schedule(stream)
        .take_while(move |due| match plan.extent {
            Extent::Duration { ns } => due.at_ns < ns,
            Extent::Count(count) => due.index < count,
        })
        .map(move |due| Job { due_ns: window.counted_from_ns + due.at_ns, choice: due.choice, counted: true });
    Box::new(warm_up.chain(counted))
}
