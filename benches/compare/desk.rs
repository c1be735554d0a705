//! What both servers do with a request that has arrived: rings to one process, and the answers out of them.
//!
//! Invariant: a connection has one request at a time. A request that finds every lane busy waits here. It knows no sockets
//! and waits for nothing.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};

use vilya_ipc::host::{GuestFds, Host, Payload, ReadOnlyBy, Submission};
use vilya_ipc::layout::RegionSpec;
use vilya_ipc::metadata::{AlignedVec, RequestMetadata};
use vilya_protocol::http::{Decoder, Item, ResponseHead};

use crate::role::{self, Role};

/// Moves the descriptors that a process can be started with to where a sandbox expects its own.
const MOVE_DESCRIPTORS: &str = "exec 3<&0 4>&1 5>&2 0</dev/null 1>/dev/null 2>/dev/null; exec \"$0\"";
const LANES: u16 = 64;
const PAYLOAD_BYTES: u64 = 64 << 10;

/// The rings to a process of this desk's own, and who waits for which lane.
pub(super) struct Desk {
    host: Host,
    metadata: AlignedVec,
    /// By lane: the connection that its invocation is for.
    serving: Vec<usize>,
    idle: Vec<u16>,
    waiting: VecDeque<(usize, Vec<u8>)>,
    invocations: u64,
    /// Something was submitted since the process was last woken.
    submitted: bool,
    body: Vec<u8>,
}

impl Desk {
    /// Starts the process from a thread that outlives it and on whose core it stays. `doorbell` is what it rings, where
    /// that is not the eventfd of the rings.
    pub(super) fn start(doorbell: Option<OwnedFd>) -> io::Result<Desk> {
        let spec = RegionSpec { lanes: LANES, payload_limit_bytes: PAYLOAD_BYTES };
        let (host, fds) = Host::create(&spec, ReadOnlyBy::Seal).map_err(io::Error::other)?;
        start_process(fds, doorbell)?;
        let mut metadata = AlignedVec::new();
        RequestMetadata::default().encode(&mut metadata).map_err(io::Error::other)?;
        let mut desk = Desk {
            host,
            metadata,
            serving: vec![0; usize::from(LANES)],
            idle: (0..LANES).collect(),
            waiting: VecDeque::new(),
            invocations: 0,
            submitted: false,
            body: Vec::new(),
        };
        // It says that it is ready before anything else.
        while desk.host.pop().map_err(io::Error::other)?.is_none() {
            std::thread::yield_now();
        }
        Ok(desk)
    }

    /// What the process rings, unless it was given something else.
    pub(super) fn doorbell(&self) -> BorrowedFd<'_> {
        self.host.doorbell()
    }

    /// Gives a request's body to the process, or keeps it until a lane is idle.
    pub(super) fn submit(&mut self, connection: usize, body: &[u8]) -> io::Result<()> {
        let Some(lane) = self.idle.pop() else {
            self.waiting.push_back((connection, body.to_vec()));
            return Ok(());
        };
        self.serving[usize::from(lane)] = connection;
        self.invocations += 1;
        self.submitted = true;
        let submission = Submission {
            invocation: self.invocations,
            lane,
            deadline_ns: u64::MAX,
            metadata: &self.metadata,
            payload: Payload::Bytes(body),
        };
        self.host.submit(&submission).map_err(io::Error::other)
    }

    /// Wakes the process if it sleeps, once for all that was submitted.
    pub(super) fn wake(&mut self) {
        if std::mem::take(&mut self.submitted) {
            self.host.wake_if_parked();
        }
    }

    /// Whether the process would have to ring for its next answer; if not, there is one.
    pub(super) fn announce_park(&mut self) -> bool {
        self.host.announce_park()
    }

    /// Says that answers are looked for.
    pub(super) fn announce_unpark(&mut self) {
        self.host.announce_unpark();
    }

    /// Hands on every answer there is, and gives the lanes to who waits for them.
    pub(super) fn answers(&mut self, mut each: impl FnMut(usize, &[u8])) -> io::Result<()> {
        while let Some(claim) = self.host.pop().map_err(io::Error::other)? {
            self.body.clear();
            self.host.copy_payload(&claim, &mut self.body);
            each(self.serving[usize::from(claim.lane)], &self.body);
            self.idle.push(claim.lane);
            if let Some((connection, body)) = self.waiting.pop_front() {
                self.submit(connection, &body)?;
            }
        }
        Ok(())
    }
}

fn start_process(fds: GuestFds, doorbell: Option<OwnedFd>) -> io::Result<()> {
    let mut command = Command::new("sh");
    command.args(["-c", MOVE_DESCRIPTORS]).arg(std::env::current_exe()?);
    command.env(role::VARIABLE, Role::RingEcho.word());
    command.stdin(Stdio::from(fds.down)).stdout(Stdio::from(fds.up));
    command.stderr(Stdio::from(doorbell.unwrap_or(fds.doorbell)));
    // It dies with the thread that starts it.
    command.spawn().map(drop)
}

/// Reads on in a connection's bytes; true when the request is whole and its body in `body`.
pub(super) fn read(decoder: &mut Decoder, bytes: &[u8], body: &mut Vec<u8>) -> io::Result<bool> {
    let mut at = 0;
    loop {
        let step = decoder.decode(&bytes[at..]).map_err(|reject| io::Error::other(format!("{reject:?}")))?;
        at += step.consumed;
        match step.item {
            Item::NeedMore => return Ok(false),
            Item::Head(_) => body.clear(),
            Item::Body(part) => body.extend_from_slice(part),
            Item::End => return Ok(true),
        }
    }
}

/// Appends an answer with this body.
pub(super) fn write(body: &[u8], out: &mut Vec<u8>) {
    let head = ResponseHead {
        content_type: Some("application/octet-stream"),
        content_length: Some(body.len() as u64),
        ..ResponseHead::new(200)
    };
    head.write(out);
    out.extend_from_slice(body);
}
