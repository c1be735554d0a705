//! A warm invocation allocates nothing on its shard: over HTTP and over the binary protocol, small and large.
//!
//! A worker of one shard runs in this process under an allocator that counts by thread; the client's thread and those off
//! the path may allocate as they like.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};

use vilya_protocol::wire::{self, ClientDecoder, ClientItem, Hello, RequestHead};
use vilya_worker::config::{Config, Host, Sources};
use vilya_worker::{Running, Worker};

/// Thread ids are told apart by their remainder; a collision could only add to a count that must not move.
const SLOTS: usize = 4096;
static ALLOCATIONS: [AtomicU64; SLOTS] = [const { AtomicU64::new(0) }; SLOTS];

struct Counting;

fn slot_of(thread: i32) -> usize {
    thread.unsigned_abs() as usize % SLOTS
}

fn count() {
    thread_local! {
        static SLOT: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    // A thread that is ending has no locals any more, and is not measured.
    let _ = SLOT.try_with(|slot| {
        if slot.get() == usize::MAX {
            slot.set(slot_of(nix::unistd::gettid().as_raw()));
        }
        // Relaxed: read when the counted thread waits for a request of the reader's.
        ALLOCATIONS[slot.get()].fetch_add(1, Ordering::Relaxed);
    });
}

// SAFETY: every call is passed on to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const CODE: &str = "import vilya\n@vilya.raw\ndef handler(request, context):\n    return bytes(request)\n";
const MANIFEST: &str = "name = \"echo\"\nruntime = \"python\"\nhandler = \"main.handler\"\n";
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn start(state: &std::path::Path) -> Running {
    let mut sources = Sources::default();
    for (key, value) in [
        ("server.address", "127.0.0.1:0"),
        ("cores.shards", "1"),
        ("cores.pin", "false"),
        // On a busy machine an invocation may be a long one, whose sandbox gives way by a message to another thread.
        ("policies.quantum", "off"),
        ("server.state_directory", state.to_str().expect("a plain path")),
    ] {
        sources.flags.push((key.into(), value.into()));
    }
    let host = Host::read().expect("a Linux host");
    Worker::start(&Config::load(&sources, &host).expect("good settings")).expect("it starts")
}

fn bundle() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, text) in [("function.toml", MANIFEST), ("main.py", CODE)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        archive.append_data(&mut header, path, text.as_bytes()).expect("memory does not fail");
    }
    archive.into_inner().expect("memory does not fail")
}

/// The allocations so far of the one thread named so.
fn allocations_of(name: &str) -> u64 {
    let mut found = None;
    for task in std::fs::read_dir("/proc/self/task").expect("procfs") {
        let task = task.expect("procfs");
        if std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name) {
            let id: i32 = task.file_name().to_string_lossy().parse().expect("a thread id");
            assert!(found.replace(id).is_none(), "two threads are called {name}");
        }
    }
    // Relaxed: see `count`.
    ALLOCATIONS[slot_of(found.expect("the thread is there"))].load(Ordering::Relaxed)
}

struct Http {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Http {
    fn open(address: SocketAddr) -> Http {
        Http { stream: TcpStream::connect(address).expect("it listens"), buffer: vec![0; 1 << 16] }
    }

    fn exchange(&mut self, method: &str, path: &str, body: &[u8]) {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: t\r\ncontent-type: text/plain\r\ntraceparent: {TRACE}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        self.stream.write_all(&[head.as_bytes(), body].concat()).expect("sent");
        let mut filled = 0;
        loop {
            filled += self.stream.read(&mut self.buffer[filled..]).expect("an answer");
            let text = String::from_utf8_lossy(&self.buffer[..filled]);
            let Some((head, rest)) = text.split_once("\r\n\r\n") else { continue };
            assert!(head.starts_with("HTTP/1.1 20"), "{text}");
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if rest.len() >= length.map_or(0, |length| length.parse::<usize>().expect("a number")) {
                return;
            }
        }
    }
}

struct Wire {
    stream: TcpStream,
    decoder: ClientDecoder,
    out: Vec<u8>,
}

impl Wire {
    fn open(address: SocketAddr) -> Wire {
        let stream = TcpStream::connect(address).expect("it listens");
        let mut wire = Wire { stream, decoder: ClientDecoder::new(), out: Vec::new() };
        let hello = Hello {
            lowest_version: 1,
            highest_version: 1,
            wants_map: false,
            takes_parts: true,
            response_credit_bytes: 1 << 20,
        };
        wire::hello(&mut wire.out, &hello);
        wire.stream.write_all(&wire.out).expect("sent");
        wire.answers(0);
        wire
    }

    /// Sends requests at once and waits for all their answers.
    fn exchange(&mut self, requests: u64, body: &[u8]) {
        self.out.clear();
        for id in 1..=requests {
            let (bytes, payload_bytes) = (body.len() as u64, body.len() as u32);
            let head = RequestHead { bytes, payload_bytes, content_type: b"a/b", ..RequestHead::new(id, "echo") };
            wire::request_head(&mut self.out, &head).expect("a valid head");
            self.out.extend_from_slice(body);
        }
        self.stream.write_all(&self.out).expect("sent");
        self.answers(requests);
    }

    /// Reads until so many answers have come; with none to come, until WELCOME.
    fn answers(&mut self, mut due: u64) {
        let (mut buffer, mut greeted) = (vec![0; 1 << 16], due > 0);
        while due > 0 || !greeted {
            let read = self.stream.read(&mut buffer).expect("an answer");
            assert!(read > 0, "closed");
            let mut used = 0;
            loop {
                let step = self.decoder.decode(&buffer[used..read]).expect("the protocol");
                used += step.consumed;
                match step.item {
                    ClientItem::NeedMore => break,
                    ClientItem::Welcome { .. } => greeted = true,
                    ClientItem::Response(head) => {
                        assert_eq!(head.status, 200);
                        due -= 1;
                    }
                    ClientItem::Payload { .. } => {}
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}

#[test]
fn a_warm_invocation_allocates_nothing_on_its_shard() {
    const SHARD: &str = "vilya-shard-0";
    const ROUNDS: usize = 4;
    let state = tempfile::tempdir().expect("a temporary directory");
    let worker = start(state.path());
    let mut http = Http::open(worker.address());
    http.exchange("PUT", "/v1/functions/echo", &bundle());
    let mut wire = Wire::open(worker.wire_address().expect("it is on"));
    let small = [7; 100];
    // More than a slot takes, less than what goes straight into a lane.
    let medium = vec![b'x'; 10_000];
    let mut round = |body: &[u8]| {
        for _ in 0..200 {
            http.exchange("POST", "/fn/echo", body);
        }
        for _ in 0..50 {
            wire.exchange(4, body);
        }
    };
    // Buffers find their sizes, tables their places.
    for _ in 0..4 {
        round(&small);
        round(&medium);
    }
    for body in [&small[..], &medium] {
        // What an invocation allocates shows in every round. On a busy machine a shard tells the control thread of it, and copies out what a
        // client is slow to take: both may take a block, which is not an invocation's.
        let mut during = || {
            let before = allocations_of(SHARD);
            round(body);
            allocations_of(SHARD) - before
        };
        let counted: Vec<u64> = (0..ROUNDS).map(|_| during()).collect();
        assert!(
            counted.contains(&0),
            "{counted:?} allocations in rounds of 400 warm invocations of {} bytes",
            body.len()
        );
    }
    worker.drain();
}
