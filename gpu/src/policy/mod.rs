//! Queueing policies: which flow's oldest invocation takes the next free place on the device.
//!
//! Invariant: a policy owns orders over flows and nothing else; it starts nothing and never reads a clock, and every
//! call is logarithmic in the flows. Within one flow invocations never overtake each other. As long as anything waits,
//! some flow is selectable, so that no place stays free beside waiting work. A new policy is one file, one variant
//! and one line in the conformance suite. Does not know the device or its memory: it says how a flow stands, and the
//! scheduler moves memory accordingly.

mod fcfs;
#[cfg(test)]
mod literal;
mod mqfq_sticky;

use vilya_engine::{LimitError, Nanos};

use crate::flow::{Flow, Tags};
use fcfs::Fcfs;
use mqfq_sticky::{Charge, MqfqSticky};

/// Whose turn it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Policy {
    /// First come, first served, over all functions.
    #[default]
    Fcfs,
    /// Multi-queue fair queueing that lets a flow run ahead of its share, up to a bound, so that its memory is used
    /// while it is on the device. Charges what a function has taken on average.
    MqfqSticky(StickySettings),
    /// The same, but every run is charged in the end what it took.
    MqfqStickyMeasured(StickySettings),
}

/// How far fairness gives way to locality.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct StickySettings {
    /// How far a flow may run ahead of the least served one, in service for one share.
    pub overrun: Nanos,
    /// A flow without work stays active for this share of its mean inter-arrival time, in hundredths.
    pub ttl_percent: u32,
    /// At least so long.
    pub ttl_least: Nanos,
    /// At most so long, and exactly so long while it has arrived only once.
    pub ttl_most: Nanos,
    /// When the memory of a flow leaves that is not active any more.
    pub departure: Departure,
}

/// When memory leaves that no active flow needs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Departure {
    /// At once, so that room is free before it is wanted: as published.
    #[default]
    AtOnce,
    /// When another flow wants the room, before any memory of an active flow.
    WhenWanted,
}

impl Default for StickySettings {
    fn default() -> StickySettings {
        StickySettings {
            overrun: Nanos::from_secs(10),
            ttl_percent: 150,
            ttl_least: Nanos::from_millis(100),
            ttl_most: Nanos::from_secs(600),
            departure: Departure::AtOnce,
        }
    }
}

impl Policy {
    /// Whether a scheduler can be made with it.
    ///
    /// # Errors
    /// The setting that is zero and would keep no function's memory on the device at all.
    pub fn check(&self) -> Result<(), LimitError> {
        match self {
            Policy::Fcfs => Ok(()),
            Policy::MqfqSticky(settings) | Policy::MqfqStickyMeasured(settings) => {
                let positive = [
                    ("overrun", settings.overrun > Nanos::ZERO),
                    ("ttl_percent", settings.ttl_percent > 0),
                    ("ttl_most", settings.ttl_most > Nanos::ZERO),
                ];
                match positive.iter().find(|(_, holds)| !holds) {
                    Some((name, _)) => Err(LimitError::Zero { name }),
                    None => Ok(()),
                }
            }
        }
    }
}

/// A run that gave its place back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completed {
    /// What its flow's tags were moved by when it was queued.
    pub(crate) charge: u64,
    /// From the start of the run to its end; `None` if it never started.
    pub(crate) took: Option<Nanos>,
}

/// A policy at work: its orders over flows. Flows are named by number; the caller passes the flow with it.
#[derive(Debug)]
pub(crate) enum Queueing {
    Fcfs(Fcfs),
    MqfqSticky(MqfqSticky),
}

impl Queueing {
    pub(crate) fn new(policy: Policy, functions: u32) -> Queueing {
        match policy {
            Policy::Fcfs => Queueing::Fcfs(Fcfs::new(functions)),
            Policy::MqfqSticky(settings) => {
                Queueing::MqfqSticky(MqfqSticky::new(settings, Charge::Estimated, functions))
            }
            Policy::MqfqStickyMeasured(settings) => {
                Queueing::MqfqSticky(MqfqSticky::new(settings, Charge::Measured, functions))
            }
        }
    }

    /// The tags for an arrival at this flow, which is about to be queued.
    pub(crate) fn tag(&self, flow: &Flow) -> Tags {
        match self {
            Queueing::Fcfs(_) => Tags::default(),
            Queueing::MqfqSticky(mqfq) => mqfq.tag(flow),
        }
    }

    /// The flow's queue, its places or its tags have changed.
    pub(crate) fn place(&mut self, number: u32, flow: &mut Flow) {
        match self {
            Queueing::Fcfs(fcfs) => fcfs.place(number, flow),
            Queueing::MqfqSticky(mqfq) => mqfq.place(number, flow),
        }
    }

    /// A run of this flow has given its place back; [`Queueing::place`] follows.
    pub(crate) fn complete(&self, flow: &mut Flow, completed: Completed) {
        if let Some(took) = completed.took {
            flow.service.record(took);
        }
        if let Queueing::MqfqSticky(mqfq) = self {
            mqfq.complete(flow, completed);
        }
    }

    /// The flow whose first invocation takes the next free place.
    pub(crate) fn select(&self) -> Option<u32> {
        match self {
            Queueing::Fcfs(fcfs) => fcfs.select(),
            Queueing::MqfqSticky(mqfq) => mqfq.select(),
        }
    }

    /// The next flow that stands otherwise than it should by now; [`Queueing::place`] it after
    /// [`Queueing::turn`].
    pub(crate) fn due(&self, now: Nanos) -> Option<u32> {
        match self {
            Queueing::Fcfs(_) => None,
            Queueing::MqfqSticky(mqfq) => mqfq.due(now),
        }
    }

    /// The flow that [`Queueing::due`] named is made to stand as it should.
    pub(crate) fn turn(&mut self, flow: &mut Flow) {
        if let Queueing::MqfqSticky(mqfq) = self {
            mqfq.turn(flow);
        }
    }

    /// When [`Queueing::due`] will next name one, if nothing else happens.
    pub(crate) fn next_due(&self) -> Option<Nanos> {
        match self {
            Queueing::Fcfs(_) => None,
            Queueing::MqfqSticky(mqfq) => mqfq.next_due(),
        }
    }

    /// The flow is gone.
    pub(crate) fn forget(&mut self, number: u32) {
        match self {
            Queueing::Fcfs(fcfs) => fcfs.forget(number),
            Queueing::MqfqSticky(mqfq) => mqfq.forget(number),
        }
    }

    /// When memory leaves whose flow is not active any more.
    pub(crate) fn departure(&self) -> Departure {
        match self {
            Queueing::Fcfs(_) => Departure::WhenWanted,
            Queueing::MqfqSticky(mqfq) => mqfq.departure(),
        }
    }

    /// Whether the memory of flows that may be served next is moved in before their turn.
    pub(crate) fn prefetches(&self) -> bool {
        matches!(self, Queueing::MqfqSticky(_))
    }
}
