//! What the tests share: one test at a time, no descriptor left behind, and a loop of turns.

use std::collections::VecDeque;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::thread;

use vilya_reactor::{Completion, Config, Op, OpId, Outcome, Reactor, Wait};

/// How long to wait for something that must happen, before calling it lost.
pub(crate) const PATIENCE_NS: u64 = 30_000_000_000;

/// Runs one test alone and checks that it left no descriptor open.
pub(crate) fn scene(test: impl FnOnce()) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    // A failed test must not fail the others.
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let before = open_descriptors();
    test();
    assert_eq!(open_descriptors(), before, "descriptors left open");
}

fn open_descriptors() -> Vec<String> {
    let mut open: Vec<_> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| {
            let entry = entry.unwrap();
            // The directory's own descriptor is gone by the time it is looked at.
            let target = std::fs::read_link(entry.path()).ok()?;
            (!target.starts_with("/proc")).then(|| format!("{:?} {}", entry.file_name(), target.display()))
        })
        .collect();
    open.sort();
    open
}

pub(crate) fn small() -> Config {
    Config { entries: 16, completion_entries: 64, buffer_count: 16, buffer_bytes: 1024, operations: 64, files: 2 }
}

/// A reactor and the completions that were not looked at yet.
pub(crate) struct Rig {
    pub(crate) reactor: Reactor,
    waiting: VecDeque<Completion>,
    out: Vec<Completion>,
}

impl Rig {
    pub(crate) fn new(config: &Config) -> Rig {
        Rig { reactor: Reactor::new(config).unwrap(), waiting: VecDeque::new(), out: Vec::new() }
    }

    pub(crate) fn submit(&mut self, owner: u64, op: Op) -> OpId {
        self.reactor.submit(owner, op).unwrap()
    }

    /// The next completion, however long it takes.
    pub(crate) fn next(&mut self) -> Completion {
        let until_ns = Reactor::now_ns() + PATIENCE_NS;
        loop {
            if let Some(completion) = self.waiting.pop_front() {
                return completion;
            }
            assert!(Reactor::now_ns() < until_ns, "lost: {:?}", self.reactor.counters());
            self.turn(Wait::Until(until_ns));
        }
    }

    pub(crate) fn turn(&mut self, wait: Wait) {
        self.reactor.turn(wait, &mut self.out).unwrap();
        self.waiting.extend(self.out.drain(..));
    }

    /// The next completion if there is one already.
    pub(crate) fn poll(&mut self) -> Option<Completion> {
        if self.waiting.is_empty() {
            self.turn(Wait::No);
        }
        self.waiting.pop_front()
    }

    /// Turns until `done` says so.
    pub(crate) fn turn_until(&mut self, mut done: impl FnMut(&Rig) -> bool) {
        let until_ns = Reactor::now_ns() + PATIENCE_NS;
        while !done(self) {
            assert!(Reactor::now_ns() < until_ns, "never done: {:?}", self.reactor.counters());
            self.turn(Wait::Until(until_ns));
        }
    }
}

pub(crate) fn listener() -> (TcpListener, std::net::SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Waits on another thread's progress, for as long as `Rig` would.
pub(crate) fn yield_until(mut done: impl FnMut() -> bool) {
    let until_ns = Reactor::now_ns() + PATIENCE_NS;
    while !done() {
        assert!(Reactor::now_ns() < until_ns, "the other thread made no progress");
        thread::yield_now();
    }
}

/// Two ends of one loopback connection.
pub(crate) fn connection() -> (TcpStream, TcpStream) {
    let (listener, address) = listener();
    let near = TcpStream::connect(address).unwrap();
    let (far, _) = listener.accept().unwrap();
    (near, far)
}

/// Bytes that differ from one place to the next and from one seed to the next.
pub(crate) fn pattern(seed: u64, bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|place| ((place ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

pub(crate) fn read_all(mut stream: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

/// The error number of a failure.
pub(crate) fn errno(outcome: &Outcome) -> Option<i32> {
    match outcome {
        Outcome::Failed { errno, .. } => Some(*errno),
        _ => None,
    }
}
