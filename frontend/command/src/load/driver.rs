//! One sending thread: its connections, its part of the schedule, its tally. Nothing on its path is shared but counters
//! that it alone writes and, for `--count` in a closed loop, one that the clients draw from.
//!
//! Invariant: every counted request is recorded exactly once, however it ends; only an interrupt leaves requests out, and
//! says how many. A backlog takes no memory: it is the part of the schedule not yet drawn.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::clock::{Clock, ThreadLoad, Usage};
use super::connection::{Connection, Finished, Job, News, Surroundings};
use super::plan::{Extent, Plan};
use super::reach::Routes;
use super::rows::Feeder;
use super::schedule::Part;
use super::source::{Clients, Source, open_loop};
use super::tally::{Broke, Ending, Sample, Tally};

/// How often time limits and interrupts are looked at, at least, in milliseconds.
const LOOK_MS: u16 = 50;
/// A client of a closed loop that could not connect waits so long before it tries again.
const REST_NS: u64 = 100_000_000;
const RECEIVE_BYTES: usize = 64 << 10;
const EVENTS: usize = 256;
const TIMER: u64 = u64::MAX;
/// The most that the timer is set ahead of a request.
const LEAD_MAX_NS: u64 = 100_000;

/// When a step begins, counts and ends, on the run's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) start_ns: u64,
    pub(super) counted_from_ns: u64,
    /// No request is due from here on; without end if requests are counted instead.
    pub(super) end_ns: u64,
}

impl Window {
    pub(super) fn new(plan: &Plan, start_ns: u64) -> Window {
        let counted_from_ns = start_ns + plan.warm_up_ns;
        let end_ns = match plan.extent {
            Extent::Duration { ns } => counted_from_ns + ns,
            Extent::Count(_) => u64::MAX,
        };
        Window { start_ns, counted_from_ns, end_ns }
    }
}

/// What a thread shows while it works. On a cache line of its own: only that thread writes it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Meter {
    pub(super) done: AtomicU64,
    pub(super) failed: AtomicU64,
    /// Of those that are done, and count nowhere else.
    pub(super) warm_up: AtomicU64,
}

/// What one thread is to do.
pub(super) struct Task<'a> {
    pub(super) plan: &'a Plan,
    /// The step's place among the steps, and its rate in an open loop.
    pub(super) step: usize,
    pub(super) rate_per_s: Option<f64>,
    pub(super) part: Part,
    pub(super) clock: Clock,
    pub(super) window: Window,
    /// Requests that clients of a closed loop have begun and that count.
    pub(super) claimed: &'a AtomicU64,
    pub(super) interrupted: &'a AtomicBool,
    pub(super) meter: &'a Meter,
    pub(super) rows: Option<Feeder>,
    pub(super) routes: Routes,
}

/// What one thread found.
pub(super) struct Found {
    pub(super) tally: Tally,
    /// Absent if the part that counts was never reached.
    pub(super) load: Option<ThreadLoad>,
    pub(super) dropped_rows: u64,
}

pub(super) struct Driver<'a> {
    task: Task<'a>,
    epoll: Epoll,
    timer: TimerFd,
    /// When the timer goes off; zero if it is not set.
    timer_ns: u64,
    /// How long this thread takes to wake once the timer has gone off, smoothed: the timer is set so much ahead.
    lead_ns: u64,
    connections: Vec<Connection>,
    /// Places with a job. A connection has as many places as requests may be in flight on it.
    busy: usize,
    /// Open loop: places without a job, those last used on top.
    free: Vec<usize>,
    /// Open loop: since when one of them has been free.
    free_since_ns: u64,
    source: Source<'a>,
    tally: Tally,
    buffer: Vec<u8>,
    news: News,
    looked_ns: u64,
    usage_from: Option<Usage>,
    usage_to: Option<Usage>,
}

impl<'a> Driver<'a> {
    /// # Errors
    /// This machine refused an epoll or a timer.
    pub(super) fn new(task: Task<'a>) -> io::Result<Driver<'a>> {
        let plan = task.plan;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        // Edge-triggered, so that it need not be read: setting it again clears it.
        epoll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, TIMER))?;
        let (clients, places) = (plan.clients_of(task.part.thread), plan.places_of(task.part.thread));
        let source = match task.rate_per_s {
            Some(rate_per_s) => Source::Open(open_loop(&task, rate_per_s).peekable()),
            None => Source::Closed(Clients::new(&task, places)),
        };
        Ok(Driver {
            epoll,
            timer,
            timer_ns: 0,
            lead_ns: 0,
            connections: (0..clients).map(|client| Connection::new(plan.protocol, client)).collect(),
            busy: 0,
            free: (0..places).rev().collect(),
            free_since_ns: 0,
            source,
            tally: Tally::new(plan.functions.len(), plan.payloads.len()),
            buffer: vec![0; RECEIVE_BYTES],
            news: News::default(),
            looked_ns: 0,
            usage_from: None,
            usage_to: None,
            task,
        })
    }

    /// Sends until there is no more to send, and waits for what was sent.
    ///
    /// # Errors
    /// This machine refused a socket or a wait.
    pub(super) fn run(mut self) -> io::Result<Found> {
        let mut events = [EpollEvent::empty(); EVENTS];
        let early_ns = self.task.window.start_ns.saturating_sub(self.task.clock.now_ns());
        thread::sleep(Duration::from_nanos(early_ns));
        loop {
            let now_ns = self.task.clock.now_ns();
            self.look(now_ns)?;
            // Relaxed: a flag that stands alone; nothing is published with it.
            if self.task.interrupted.load(Ordering::Relaxed) {
                self.leave(now_ns);
                break;
            }
            let more = self.issue()?;
            self.flush()?;
            if !more && self.busy == 0 {
                break;
            }
            let timeout = self.arm()?;
            let count = match self.epoll.wait(&mut events, timeout) {
                Ok(count) => count,
                Err(nix::errno::Errno::EINTR) => 0,
                Err(error) => return Err(error.into()),
            };
            for event in &events[..count] {
                match event.data() {
                    TIMER => self.learn_lead(),
                    token => self.progress(token, event.events())?,
                }
            }
        }
        self.finish()
    }

    fn finish(self) -> io::Result<Found> {
        let last = match self.usage_to {
            Some(usage) => usage,
            None => Usage::read(self.task.clock)?,
        };
        let load = self.usage_from.map(|from| from.until(&last));
        let dropped_rows = self.task.rows.map_or(0, Feeder::close);
        Ok(Found { tally: self.tally, load, dropped_rows })
    }

    /// Begins every request that can go out now. False when no more will come.
    fn issue(&mut self) -> io::Result<bool> {
        match &self.source {
            Source::Open(_) => self.issue_due(),
            Source::Closed(_) => self.issue_ready(),
        }
    }

    fn issue_due(&mut self) -> io::Result<bool> {
        loop {
            let now_ns = self.task.clock.now_ns();
            let Source::Open(jobs) = &mut self.source else { return Ok(false) };
            let Some(job) = jobs.peek().copied() else { return Ok(false) };
            if job.due_ns > now_ns {
                return Ok(true);
            }
            if now_ns - job.due_ns >= self.task.plan.timeout_ns {
                jobs.next();
                self.record(&never_sent(job, now_ns));
                continue;
            }
            let Some(place) = self.free.pop() else { return Ok(true) };
            jobs.next();
            if job.counted {
                let possible_ns = job.due_ns.max(self.free_since_ns);
                self.tally.lateness.saturating_record(now_ns.saturating_sub(possible_ns));
                self.tally.connections.waited_requests += u64::from(self.free_since_ns > job.due_ns);
            }
            self.begin(place, job)?;
        }
    }

    fn issue_ready(&mut self) -> io::Result<bool> {
        let now_ns = self.task.clock.now_ns();
        let Source::Closed(clients) = &mut self.source else { return Ok(false) };
        let mut ready = clients.take_ready(now_ns);
        for client in ready.drain(..) {
            let now_ns = self.task.clock.now_ns();
            let Some(counted) = self.may_begin(now_ns) else { continue };
            let Source::Closed(clients) = &mut self.source else { return Ok(false) };
            let job = Job { due_ns: now_ns, choice: clients.choose(client), counted };
            self.begin(client, job)?;
        }
        let Source::Closed(clients) = &mut self.source else { return Ok(false) };
        if clients.ready.is_empty() {
            // Its memory is used again.
            clients.ready = ready;
        }
        Ok(!clients.ready.is_empty() || !clients.resting.is_empty())
    }

    /// Whether a client may send one more request, and whether that counts.
    fn may_begin(&self, now_ns: u64) -> Option<bool> {
        if now_ns < self.task.window.counted_from_ns {
            return Some(false);
        }
        let begin = match self.task.plan.extent {
            Extent::Duration { .. } => now_ns < self.task.window.end_ns,
            // Relaxed: the number alone matters, and each is drawn once whatever the order.
            Extent::Count(count) => self.task.claimed.fetch_add(1, Ordering::Relaxed) < count,
        };
        begin.then_some(true)
    }

    fn begin(&mut self, place: usize, job: Job) -> io::Result<()> {
        self.busy += 1;
        let client = place % self.connections.len();
        let (connections, mut around) = self.around();
        connections[client].begin(client, place, job, &mut around)?;
        self.take_news();
        Ok(())
    }

    fn progress(&mut self, token: u64, flags: EpollFlags) -> io::Result<()> {
        let (client, lane) = self.task.routes.place(token);
        let (connections, mut around) = self.around();
        connections[client].advance(lane, flags, &mut around)?;
        self.take_news();
        Ok(())
    }

    /// Sends what the connections have gathered since the last time.
    fn flush(&mut self) -> io::Result<()> {
        // One that finds its connection gone may have something to send on the next.
        while let Some((client, lane)) = self.news.unsent.pop() {
            let (connections, mut around) = self.around();
            connections[client].flush(lane, &mut around)?;
            self.take_news();
        }
        Ok(())
    }

    fn around(&mut self) -> (&mut [Connection], Surroundings<'_>) {
        let around = Surroundings {
            epoll: &self.epoll,
            clock: self.task.clock,
            buffer: &mut self.buffer,
            functions: &self.task.plan.functions,
            content_type: &self.task.plan.content_type,
            pipeline: self.task.plan.pipeline,
            routes: &mut self.task.routes,
            news: &mut self.news,
        };
        (&mut self.connections, around)
    }

    /// Records how jobs ended, if they did, and gives their places to whoever is next.
    fn take_news(&mut self) {
        self.tally.connections.opened += std::mem::take(&mut self.news.opened);
        self.tally.connections.reopened += std::mem::take(&mut self.news.reopened);
        let mut all = std::mem::take(&mut self.news.finished);
        for finished in all.drain(..) {
            self.release(&finished);
            self.record(&finished);
        }
        // Its memory is used again.
        self.news.finished = all;
    }

    fn release(&mut self, finished: &Finished) {
        self.busy -= 1;
        match &mut self.source {
            Source::Open(_) => {
                if self.free.is_empty() {
                    self.free_since_ns = finished.done_ns;
                }
                self.free.push(finished.place);
            }
            Source::Closed(clients) if finished.ending == Ending::Broke(Broke::Connect) => {
                clients.resting.push((finished.done_ns + REST_NS, finished.place));
            }
            Source::Closed(clients) => clients.ready.push(finished.place),
        }
    }

    fn record(&mut self, finished: &Finished) {
        let succeeded = finished.ending.succeeded();
        // Relaxed: counters for the eye, each written by this thread alone.
        self.task.meter.done.fetch_add(1, Ordering::Relaxed);
        self.task.meter.failed.fetch_add(u64::from(!succeeded), Ordering::Relaxed);
        if !finished.job.counted {
            let warm_up = &mut self.tally.warm_up;
            warm_up.requests += 1;
            warm_up.cold += u64::from(finished.cold == Some(true));
            warm_up.failed += u64::from(!succeeded);
            self.task.meter.warm_up.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let sample = Sample {
            choice: finished.job.choice,
            due_ns: finished.job.due_ns,
            sent_ns: finished.sent_ns,
            done_ns: finished.done_ns,
            ending: finished.ending,
            cold: finished.cold,
            phases: finished.phases,
            shard: finished.shard,
            bytes_in: finished.bytes_in,
            bytes_out: finished.bytes_out,
        };
        self.tally.record(&sample, &finished.error_type);
        if let Some(rows) = &mut self.task.rows {
            rows.push(sample);
        }
    }

    /// Looks at what only needs looking at now and then: requests that ran out of time, and what this thread used.
    fn look(&mut self, now_ns: u64) -> io::Result<()> {
        if self.usage_from.is_none() && now_ns >= self.task.window.counted_from_ns {
            self.usage_from = Some(Usage::read(self.task.clock)?);
        }
        if self.usage_to.is_none() && now_ns >= self.task.window.end_ns {
            self.usage_to = Some(Usage::read(self.task.clock)?);
        }
        if now_ns - self.looked_ns < u64::from(LOOK_MS) * 1_000_000 {
            return Ok(());
        }
        self.looked_ns = now_ns;
        if let Some(due_before_ns) = now_ns.checked_sub(self.task.plan.timeout_ns) {
            let (connections, mut around) = self.around();
            connections.iter_mut().for_each(|connection| connection.time_out(due_before_ns, &mut around));
            self.take_news();
        }
        Ok(())
    }

    /// How long to wait for events at most. Sets the timer for the next request if one could go out when it is due; the
    /// last stretch before it, too short to sleep and wake in, is spent looking for events.
    fn arm(&mut self) -> io::Result<EpollTimeout> {
        let look = EpollTimeout::from(LOOK_MS);
        let due_ns = match &mut self.source {
            Source::Open(jobs) if !self.free.is_empty() => jobs.peek().map(|job| job.due_ns),
            Source::Open(_) => None,
            Source::Closed(clients) if !clients.ready.is_empty() => return Ok(EpollTimeout::ZERO),
            Source::Closed(_) => None,
        };
        let Some(due_ns) = due_ns else { return Ok(look) };
        let now_ns = self.task.clock.now_ns();
        let wake_ns = due_ns.saturating_sub(self.lead_ns);
        if wake_ns <= now_ns {
            return Ok(EpollTimeout::ZERO);
        }
        if wake_ns != self.timer_ns {
            let after = TimeSpec::from_duration(Duration::from_nanos(wake_ns - now_ns));
            self.timer.set(Expiration::OneShot(after), TimerSetTimeFlags::empty())?;
            self.timer_ns = wake_ns;
        }
        Ok(look)
    }

    /// Takes note of how late the timer woke this thread.
    fn learn_lead(&mut self) {
        if self.timer_ns == 0 {
            return;
        }
        let woke_after_ns = self.task.clock.now_ns().saturating_sub(self.timer_ns).min(LEAD_MAX_NS);
        self.lead_ns = (7 * self.lead_ns + woke_after_ns) / 8;
        self.timer_ns = 0;
    }

    /// Counts what an interrupt leaves without an answer.
    fn leave(&mut self, now_ns: u64) {
        self.tally.left_out = self.connections.iter().map(Connection::counted_jobs).sum::<usize>() as u64;
        if let Source::Open(jobs) = &mut self.source {
            let due = std::iter::from_fn(|| jobs.next_if(|job| job.due_ns <= now_ns));
            self.tally.left_out += due.filter(|job| job.counted).count() as u64;
        }
    }
}

/// A request whose time was up before a connection was free for it.
fn never_sent(job: Job, now_ns: u64) -> Finished {
    Finished {
        place: usize::MAX,
        job,
        ending: Ending::Broke(Broke::Timeout),
        sent_ns: None,
        done_ns: now_ns,
        cold: None,
        phases: super::tally::Phases::default(),
        shard: None,
        bytes_in: 0,
        bytes_out: 0,
        error_type: String::new(),
    }
}
