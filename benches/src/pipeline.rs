//! Many invocations under way at once over one pair of rings.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollEvent, EpollTimeout};
use vilya_ipc::guest::Guest;
use vilya_ipc::host::{Host, Payload, ReadOnlyBy, Submission};
use vilya_ipc::layout::RegionSpec;
use vilya_ipc::metadata::AlignedVec;

use crate::peer::{echo_next, join, pin, plain_metadata, sleeper};

fn spec(lanes: u16) -> RegionSpec {
    RegionSpec { lanes, payload_limit_bytes: 64 << 10 }
}

fn submit(host: &mut Host, lane: u16, metadata: &[u8], payload: &[u8]) {
    let payload = Payload::Bytes(payload);
    let submission = Submission { invocation: u64::from(lane), lane, deadline_ns: u64::MAX, metadata, payload };
    host.submit(&submission).expect("the lane is idle");
}

/// A host that keeps every lane busy, and a guest that echoes on a thread of its own; both sleep when there is nothing.
pub struct Pipeline {
    host: Host,
    sleeper: Epoll,
    metadata: AlignedVec,
    idle: Vec<u16>,
    guest: Option<JoinHandle<()>>,
}

impl Pipeline {
    /// Starts the guest on `core`.
    ///
    /// # Panics
    /// If the machine has no memory or descriptors for a region.
    pub fn start(lanes: u16, core: Option<usize>) -> Pipeline {
        let (mut host, fds) = Host::create(&spec(lanes), ReadOnlyBy::Seal).expect("regions can be made");
        let guest = std::thread::spawn(move || {
            pin(core);
            let mut guest = join(fds);
            guest.set_spin_cap(Duration::ZERO);
            guest.ready();
            while echo_next(&mut guest) {}
        });
        while host.pop().expect("a true claim").is_none() {
            std::hint::spin_loop();
        }
        let sleeper = sleeper(&host);
        Pipeline { host, sleeper, metadata: plain_metadata(), idle: (0..lanes).collect(), guest: Some(guest) }
    }

    /// Has at least `invocations` answered. Each turn gives every idle lane an invocation, wakes the guest once for all
    /// of them, and takes every answer that is there.
    ///
    /// # Panics
    /// If the guest breaks the protocol.
    pub fn answer(&mut self, invocations: u64, payload: &[u8]) {
        let mut answered = 0;
        while answered < invocations {
            let given = !self.idle.is_empty();
            while let Some(lane) = self.idle.pop() {
                submit(&mut self.host, lane, &self.metadata, payload);
            }
            if given {
                self.host.wake_if_parked();
            }
            while let Some(claim) = self.host.pop().expect("a true claim") {
                self.idle.push(claim.lane);
                answered += 1;
            }
            if self.idle.is_empty() && self.host.announce_park() {
                let mut events = [EpollEvent::empty()];
                self.sleeper.wait(&mut events, EpollTimeout::NONE).expect("the doorbell can be polled");
                self.host.announce_unpark();
            }
        }
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        if self.host.stop().is_ok() {
            self.host.wake_if_parked();
        }
        if let Some(guest) = self.guest.take() {
            let _ = guest.join();
        }
    }
}

/// A host and its guest on one thread, so that the work of one side can be timed without the other.
pub struct Loopback {
    host: Host,
    guest: Guest,
    metadata: AlignedVec,
    lanes: u16,
}

impl Loopback {
    /// A pair past its handshake.
    ///
    /// # Panics
    /// If the machine has no memory or descriptors for a region.
    #[must_use]
    pub fn new(lanes: u16) -> Loopback {
        let (mut host, fds) = Host::create(&spec(lanes), ReadOnlyBy::Seal).expect("regions can be made");
        let mut guest = join(fds);
        guest.ready();
        assert!(host.pop().expect("a true claim").is_some());
        Loopback { host, guest, metadata: plain_metadata(), lanes }
    }

    /// Has an answer ready on every lane, and gives how long it takes to pop them all.
    ///
    /// # Panics
    /// If either side breaks the protocol.
    pub fn time_pops(&mut self, payload: &[u8]) -> Duration {
        for lane in 0..self.lanes {
            submit(&mut self.host, lane, &self.metadata, payload);
        }
        for _ in 0..self.lanes {
            assert!(echo_next(&mut self.guest));
        }
        let started = Instant::now();
        for _ in 0..self.lanes {
            std::hint::black_box(self.host.pop().expect("a true claim").expect("an answer"));
        }
        started.elapsed()
    }
}
