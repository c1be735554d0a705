//! A host and a guest of the ring ABI in one process, and the bare floors they are held against.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::libc;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use vilya_ipc::guest::{Guest, Next};
use vilya_ipc::host::{GuestFds, Host, Payload, ReadOnlyBy, Submission};
use vilya_ipc::layout::RegionSpec;
use vilya_ipc::metadata::{AlignedVec, RequestMetadata};

/// A host whose guest echoes on a thread of its own.
pub struct RingPeer {
    host: Host,
    /// Wakes for each ring of the doorbell, which is never read: as a shard's poll does.
    sleeper: Epoll,
    metadata: AlignedVec,
    guest: Option<JoinHandle<()>>,
    next: u64,
}

impl RingPeer {
    /// Starts the guest. `spin` is how long it spins before it parks; `core` is where it runs.
    ///
    /// # Panics
    /// If the machine has no memory or descriptors for a region.
    pub fn start(spin: Duration, core: Option<usize>) -> RingPeer {
        let spec = RegionSpec { lanes: 1, payload_limit_bytes: 64 << 10 };
        let (mut host, fds) = Host::create(&spec, ReadOnlyBy::Seal).expect("regions can be made");
        let guest = std::thread::spawn(move || {
            pin(core);
            let mut guest = join(fds);
            guest.set_spin_cap(spin);
            guest.ready();
            while echo_next(&mut guest) {}
        });
        while host.pop().expect("a true claim").is_none() {
            std::hint::spin_loop();
        }
        let sleeper = sleeper(&host);
        RingPeer { host, sleeper, metadata: plain_metadata(), guest: Some(guest), next: 1 }
    }

    /// One echo, the host spinning for the answer.
    ///
    /// # Panics
    /// If the guest breaks the protocol.
    pub fn round_trip_spinning(&mut self, payload: &[u8]) {
        self.host.announce_unpark();
        self.submit(payload);
        while !self.host.pending() {
            std::hint::spin_loop();
        }
        assert!(self.host.pop().expect("a true claim").is_some());
    }

    /// One echo, the host asleep on the doorbell until the answer is there.
    ///
    /// # Panics
    /// If the guest breaks the protocol.
    pub fn round_trip_parked(&mut self, payload: &[u8]) {
        self.host.announce_unpark();
        self.submit(payload);
        while self.host.pop().expect("a true claim").is_none() {
            if self.host.announce_park() {
                let mut events = [EpollEvent::empty()];
                self.sleeper.wait(&mut events, EpollTimeout::NONE).expect("the doorbell can be polled");
                self.host.announce_unpark();
            }
        }
    }

    fn submit(&mut self, payload: &[u8]) {
        self.next += 1;
        let submission = Submission {
            invocation: self.next,
            lane: 0,
            deadline_ns: u64::MAX,
            metadata: &self.metadata,
            payload: Payload::Bytes(payload),
        };
        self.host.submit(&submission).expect("the lane is idle");
        self.host.wake_if_parked();
    }
}

impl Drop for RingPeer {
    fn drop(&mut self) {
        if self.host.stop().is_ok() {
            self.host.wake_if_parked();
        }
        if let Some(guest) = self.guest.take() {
            let _ = guest.join();
        }
    }
}

/// Joins the host that made these descriptors.
pub(crate) fn join(fds: GuestFds) -> Guest {
    // SAFETY: the descriptors come from `Host::create` of a host of this package, and no other guest has them.
    unsafe { Guest::from_fds(fds.down, fds.up, fds.doorbell) }.expect("of one ABI")
}

/// Waits for the next submission and answers it; false when it is the last.
pub(crate) fn echo_next(guest: &mut Guest) -> bool {
    match guest.next() {
        Next::Invoke(mut invocation) => {
            let (request, mut response) = invocation.parts();
            response.write(request.payload()).expect("it fits");
            guest.returned(invocation);
        }
        Next::Cancel { .. } => {}
        Next::Stop => return false,
    }
    true
}

/// Wakes for each ring of the host's doorbell.
pub(crate) fn sleeper(host: &Host) -> Epoll {
    let sleeper = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("a descriptor is left");
    let each_ring = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0);
    sleeper.add(host.doorbell(), each_ring).expect("the doorbell can be polled");
    sleeper
}

/// The metadata of a request that names nothing.
pub(crate) fn plain_metadata() -> AlignedVec {
    let mut metadata = AlignedVec::new();
    RequestMetadata::default().encode(&mut metadata).expect("it fits");
    metadata
}

/// Two threads that pass a word to and fro on one cache line: the floor of any shared-memory round trip.
pub struct CacheLine {
    word: Arc<Line>,
    peer: Option<JoinHandle<()>>,
    turn: u32,
}

#[repr(align(128))]
struct Line(AtomicU32);

const STOP: u32 = u32::MAX;

impl CacheLine {
    /// Starts the other thread on `core`.
    pub fn start(core: Option<usize>) -> CacheLine {
        let word = Arc::new(Line(AtomicU32::new(0)));
        let theirs = Arc::clone(&word);
        let peer = std::thread::spawn(move || {
            pin(core);
            loop {
                // Acquire and Release pair with those of `round_trip`.
                match theirs.0.load(Ordering::Acquire) {
                    STOP => return,
                    odd if odd % 2 == 1 => theirs.0.store(odd.wrapping_add(1), Ordering::Release),
                    _ => std::hint::spin_loop(),
                }
            }
        });
        CacheLine { word, peer: Some(peer), turn: 0 }
    }

    /// To and fro once.
    pub fn round_trip(&mut self) {
        // Kept even and below the word that means stop.
        self.turn = (self.turn + 2) % 1_000_000;
        // Release and Acquire pair with those of the peer.
        self.word.0.store(self.turn + 1, Ordering::Release);
        while self.word.0.load(Ordering::Acquire) != self.turn + 2 {
            std::hint::spin_loop();
        }
    }
}

impl Drop for CacheLine {
    fn drop(&mut self) {
        // Release pairs with the peer's Acquire.
        self.word.0.store(STOP, Ordering::Release);
        if let Some(peer) = self.peer.take() {
            let _ = peer.join();
        }
    }
}

/// Two threads that wake each other through a pair of eventfds: the floor of a parked round trip.
pub struct EventPair {
    there: Arc<nix::sys::eventfd::EventFd>,
    back: Arc<nix::sys::eventfd::EventFd>,
    peer: Option<JoinHandle<()>>,
}

impl EventPair {
    /// Starts the other thread on `core`.
    ///
    /// # Panics
    /// If the machine has no descriptors left.
    pub fn start(core: Option<usize>) -> EventPair {
        let fresh = || Arc::new(nix::sys::eventfd::EventFd::new().expect("an eventfd"));
        let (there, back) = (fresh(), fresh());
        let (wait, answer) = (Arc::clone(&there), Arc::clone(&back));
        let peer = std::thread::spawn(move || {
            pin(core);
            // A large word means stop.
            while wait.read().expect("an eventfd") < u64::from(STOP) {
                answer.write(1).expect("an eventfd");
            }
        });
        EventPair { there, back, peer: Some(peer) }
    }

    /// To and fro once; both sides sleep in between.
    ///
    /// # Panics
    /// If an eventfd fails.
    pub fn round_trip(&self) {
        self.there.write(1).expect("an eventfd");
        self.back.read().expect("an eventfd");
    }
}

impl Drop for EventPair {
    fn drop(&mut self) {
        let _ = self.there.write(u64::from(STOP));
        if let Some(peer) = self.peer.take() {
            let _ = peer.join();
        }
    }
}

/// Two threads that wake each other through a pair of words in shared memory: the other floor of a parked round trip.
pub struct FutexPair {
    words: Arc<FutexWords>,
    peer: Option<JoinHandle<()>>,
    turn: u32,
}

/// Two words, each on a page of its own that could be shared with another process.
struct FutexWords(NonNull<u8>);

// SAFETY: the words are atomics in memory that lives as long as this.
unsafe impl Send for FutexWords {}
// SAFETY: as for Send.
unsafe impl Sync for FutexWords {}

impl FutexWords {
    const PAGE_BYTES: usize = 4096;

    fn new() -> FutexWords {
        let (read_write, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a mapping at an address of the kernel's choice.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), 2 * Self::PAGE_BYTES, read_write, shared, -1, 0) };
        assert!(at != libc::MAP_FAILED, "memory for two pages");
        FutexWords(NonNull::new(at.cast()).expect("no mapping is at address zero"))
    }

    fn word(&self, index: usize) -> &AtomicU32 {
        assert!(index < 2, "there are two words");
        // SAFETY: an aligned word of the mapping, which lives as long as `self` and is only accessed atomically.
        unsafe { AtomicU32::from_ptr(self.0.as_ptr().add(index * Self::PAGE_BYTES).cast()) }
    }

    fn wake(&self, index: usize, value: u32) {
        // Release pairs with the Acquire of `wait`.
        self.word(index).store(value, Ordering::Release);
        // SAFETY: a word of the mapping; waking reads nothing through it.
        unsafe { libc::syscall(libc::SYS_futex, self.word(index).as_ptr(), libc::FUTEX_WAKE, 1) };
    }

    /// Sleeps while the word is `value`; what it is then.
    fn wait(&self, index: usize, value: u32) -> u32 {
        loop {
            // Acquire pairs with the Release of `wake`.
            let found = self.word(index).load(Ordering::Acquire);
            if found != value {
                return found;
            }
            let forever = std::ptr::null::<libc::timespec>();
            // SAFETY: a word of the mapping.
            unsafe { libc::syscall(libc::SYS_futex, self.word(index).as_ptr(), libc::FUTEX_WAIT, value, forever) };
        }
    }
}

impl Drop for FutexWords {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, to which nothing refers any more.
        unsafe { libc::munmap(self.0.as_ptr().cast(), 2 * Self::PAGE_BYTES) };
    }
}

impl FutexPair {
    /// Starts the other thread on `core`.
    ///
    /// # Panics
    /// If the machine has no memory left.
    pub fn start(core: Option<usize>) -> FutexPair {
        let words = Arc::new(FutexWords::new());
        let theirs = Arc::clone(&words);
        let peer = std::thread::spawn(move || {
            pin(core);
            let mut turn = 0;
            loop {
                turn = theirs.wait(0, turn);
                if turn == STOP {
                    return;
                }
                theirs.wake(1, turn);
            }
        });
        FutexPair { words, peer: Some(peer), turn: 0 }
    }

    /// To and fro once; both sides sleep in between.
    pub fn round_trip(&mut self) {
        let last = self.turn;
        // Kept below the word that means stop.
        self.turn = (self.turn + 1) % 1_000_000;
        self.words.wake(0, self.turn);
        self.words.wait(1, last);
    }
}

impl Drop for FutexPair {
    fn drop(&mut self) {
        self.words.wake(0, STOP);
        if let Some(peer) = self.peer.take() {
            let _ = peer.join();
        }
    }
}

/// Binds the calling thread to a core, where there is such a core.
pub fn pin(core: Option<usize>) {
    if let Some(core) = core {
        let mut set = CpuSet::new();
        // A machine with fewer cores measures unpinned.
        let _ = set.set(core).and_then(|()| sched_setaffinity(nix::unistd::Pid::from_raw(0), &set));
    }
}
