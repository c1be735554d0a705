//! A server of the binary protocol that does as it is told, for tests: a thread a connection, blocking.
//!
//! Invariant: it keeps the rules of the protocol unless told otherwise, and checks that the client does: a client that
//! breaks one gets GOAWAY 400. It writes without reading, which a client must bear.
//!
//! Does not know: how a worker runs functions.

mod conversation;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use vilya_protocol::wire::{self, Report, Welcome};

/// A request as the server has it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Its place among all requests of the server.
    pub index: usize,
    /// The shard at which it arrived.
    pub shard: u16,
    /// The function.
    pub name: &'a str,
    /// What was there of the payload: all of it, unless the function is among [`Settings::early`].
    pub payload: &'a [u8],
    /// Type of the payload.
    pub content_type: &'a [u8],
    /// Milliseconds that the client waits.
    pub deadline_ms: u32,
}

/// What to do with a request.
#[derive(Clone, Debug)]
pub enum Reaction {
    /// Answer it: status, report, content type, body.
    Answer(u16, Report, &'static str, Vec<u8>),
    /// The same after a while, in which the connection does nothing else.
    AnswerAfter(Duration, Box<Reaction>),
    /// Answer in parts: report, content type, the parts, each in frames of its own, and the end. A client that takes no parts
    /// gets the answer whole.
    Parts(Report, &'static str, Vec<Vec<u8>>, Ending),
    /// Answer when the client cancels it, with 499.
    AwaitCancel,
    /// Say nothing, ever.
    Silence,
    /// Say GOAWAY; at 503 go on, else close.
    Goaway(u16, &'static str),
    /// Send these bytes, whatever they are, and close.
    Raw(Vec<u8>),
}

/// How an answer in parts ends.
#[derive(Clone, Copy, Debug)]
pub enum Ending {
    /// It is whole: END is in the last part, or in an empty DATA if that has no bytes.
    Whole,
    /// CUT: status and error.
    Cut(u16, &'static str),
    /// When the client cancels it, with CUT 499.
    AwaitCancel,
    /// The connection ends.
    Gone,
}

impl Reaction {
    /// 200 with this body, and a report of zeros.
    pub fn ok(body: &[u8]) -> Reaction {
        Reaction::Answer(200, Report::default(), "application/octet-stream", body.to_vec())
    }
}

/// How the server is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What WELCOME says; the shard in it is each connection's own.
    pub welcome: Welcome,
    /// How many shards there are.
    pub shards: u16,
    /// The map: functions and their owners.
    pub map: Vec<(String, Vec<u16>)>,
    /// Functions that are answered before their payload is whole.
    pub early: Vec<String>,
    /// Shards whose ports nobody listens at.
    pub unreachable: Vec<u16>,
    /// Shards that have no port.
    pub portless: Vec<u16>,
}

impl Default for Settings {
    /// One shard, frames of 1 MiB, 128 in flight, payloads to 1 GiB, 64 KiB of credit, an empty map.
    fn default() -> Settings {
        let welcome = Welcome {
            version: 1,
            shard: 0,
            frame_bytes: 1 << 20,
            in_flight: 128,
            payload_bytes: 1 << 30,
            request_credit_bytes: 1 << 16,
        };
        Settings {
            welcome,
            shards: 1,
            map: Vec::new(),
            early: Vec::new(),
            unreachable: Vec::new(),
            portless: Vec::new(),
        }
    }
}

/// A running server; it runs until the process ends.
pub struct Peer {
    common: SocketAddr,
    shared: Arc<Shared>,
}

/// In place of a shard: the common address.
const COMMON: u16 = u16::MAX;

type React = dyn Fn(&Asked<'_>) -> Reaction + Send + Sync;

struct Shared {
    settings: Settings,
    ports: Vec<u16>,
    react: Box<React>,
    requests: AtomicUsize,
    connections: AtomicUsize,
    /// Where changes of the map go.
    listeners: Mutex<Vec<Arc<Mutex<TcpStream>>>>,
}

impl Peer {
    /// Starts one on ports of the system's choice.
    ///
    /// # Errors
    /// The system has no port.
    pub fn start(
        settings: Settings,
        react: impl Fn(&Asked<'_>) -> Reaction + Send + Sync + 'static,
    ) -> io::Result<Peer> {
        let bind = || TcpListener::bind("127.0.0.1:0");
        let listeners: Vec<TcpListener> = (0..settings.shards).map(|_| bind()).collect::<io::Result<_>>()?;
        let ports = listeners.iter().map(|at| Ok(at.local_addr()?.port())).collect::<io::Result<Vec<u16>>>()?;
        let mut ports = ports;
        settings.portless.iter().for_each(|shard| ports[usize::from(*shard)] = 0);
        let common = bind()?;
        let peer = Peer {
            common: common.local_addr()?,
            shared: Arc::new(Shared {
                settings,
                ports,
                react: Box::new(react),
                requests: AtomicUsize::new(0),
                connections: AtomicUsize::new(0),
                listeners: Mutex::new(Vec::new()),
            }),
        };
        let shards = listeners.into_iter().enumerate().map(|(shard, listener)| (shard as u16, listener));
        for (shard, listener) in shards.chain([(COMMON, common)]) {
            if peer.shared.settings.unreachable.contains(&shard) {
                continue;
            }
            let shard = if shard == COMMON { 0 } else { shard };
            let shared = Arc::clone(&peer.shared);
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    // Relaxed: a count for whoever asks after the fact.
                    shared.connections.fetch_add(1, Ordering::Relaxed);
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || conversation::hold(stream, shard, &shared));
                }
            });
        }
        Ok(peer)
    }

    /// Its common address, served by shard 0.
    pub fn address(&self) -> SocketAddr {
        self.common
    }

    /// Requests that came so far.
    pub fn requests(&self) -> usize {
        // Relaxed: as above.
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Connections that came so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Tells every client that wants the map of a change.
    pub fn change_map(&self, entries: &[(&str, &[u16])]) {
        let mut out = Vec::new();
        wire::map(&mut out, 2, false, self.shared.settings.welcome.frame_bytes, entries.iter().copied());
        let listeners = self.shared.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        for listener in listeners.iter() {
            conversation::send(listener, &out);
        }
    }
}
