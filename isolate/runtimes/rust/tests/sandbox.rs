//! A real process behind the runtime, and a host in this one: what the platform sees of a Rust function.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use vilya_ipc::claim::{Claim, ClaimKind};
use vilya_ipc::host::{GuestFds, Host, Payload, ReadOnlyBy, Submission};
use vilya_ipc::layout::{DOORBELL_FD, DOWN_FD, RegionSpec, UP_FD};
use vilya_ipc::metadata::RequestMetadata;
use vilya_runtime::{Request, Response};

const LIMIT: u64 = 1 << 20;
const ROLE: &str = "VILYA_TEST_SANDBOX";

/// The function: does what the first word of its payload says.
fn handler(request: &Request<'_>, response: &mut Response<'_>) -> Result<(), Box<dyn std::error::Error>> {
    match request.payload().split(|byte| *byte == b' ').next() {
        Some(b"describe") => {
            let (id, content_type) = (request.id(), request.content_type());
            let (trace, received) = (request.trace_parent(), request.received_unix_ms());
            let in_time = request.remaining() > Duration::from_secs(60);
            response.set_content_type("text/x-description")?;
            response.write(format!("{id} {content_type:?} {trace:?} {received} {in_time}").as_bytes())?;
        }
        Some(b"raise") => Err("this request is \"bad\"")?,
        Some(b"panic") => panic!("out of cheese"),
        Some(b"grow") => {
            response.reserve(LIMIT as usize + 1)?;
        }
        Some(b"wait-for-cancel") => {
            while !request.cancelled() {
                std::thread::yield_now();
            }
            response.write(b"cancelled")?;
        }
        _ => response.reserve(request.payload().len())?.copy_from_slice(request.payload()),
    }
    Ok(())
}

/// Not a test by itself: the body of the process that the other tests start.
#[test]
fn sandbox_process() {
    if std::env::var_os(ROLE).is_some() {
        vilya_runtime::run(handler);
        std::process::exit(0);
    }
}

struct Sandbox {
    host: Host,
    process: Child,
}

impl Sandbox {
    fn start(lanes: u16, spin_us: &str) -> Sandbox {
        let (host, fds) = Host::create(&RegionSpec { lanes, payload_limit_bytes: LIMIT }, ReadOnlyBy::Seal).unwrap();
        let process = command(Some(fds)).env("VILYA_SPIN_US", spin_us).spawn().unwrap();
        let mut sandbox = Sandbox { host, process };
        assert_eq!(sandbox.wait().0.kind, ClaimKind::Ready);
        sandbox
    }

    fn submit(&mut self, invocation: u64, lane: u16, payload: &[u8]) {
        self.place(invocation, lane, payload);
        self.host.wake_if_parked();
    }

    /// Submits without waking.
    fn place(&mut self, invocation: u64, lane: u16, payload: &[u8]) {
        let mut metadata = Default::default();
        RequestMetadata {
            request_id: [0xAB; 16],
            received_unix_ms: 1234,
            content_type: b"text/plain",
            trace_parent: &[],
        }
        .encode(&mut metadata)
        .unwrap();
        let payload = Payload::Bytes(payload);
        let submission = Submission { invocation, lane, deadline_ns: u64::MAX, metadata: &metadata, payload };
        self.host.submit(&submission).unwrap();
    }

    /// The next claim and its payload, waiting on the doorbell as a shard does.
    fn wait(&mut self) -> (Claim, Vec<u8>) {
        loop {
            if let Some(claim) = self.host.pop().unwrap() {
                let mut payload = Vec::new();
                self.host.copy_payload(&claim, &mut payload);
                return (claim, payload);
            }
            if self.host.announce_park() {
                let fd = self.host.doorbell().as_raw_fd();
                let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
                // SAFETY: one pollfd, for a descriptor that the host keeps open.
                let ready = unsafe { libc::poll(&mut poll, 1, 60_000) };
                assert_eq!(ready, 1, "the sandbox answers and rings");
                let mut count = [0; 8];
                // SAFETY: eight bytes of room for the count of an eventfd.
                unsafe { libc::read(fd, count.as_mut_ptr().cast(), 8) };
                self.host.announce_unpark();
            }
        }
    }

    fn call(&mut self, invocation: u64, payload: &[u8]) -> (Claim, Vec<u8>) {
        self.submit(invocation, 0, payload);
        let (claim, answer) = self.wait();
        assert_eq!((claim.invocation, claim.lane), (invocation, 0));
        (claim, answer)
    }

    fn stop(mut self) {
        self.host.stop().unwrap();
        self.host.wake_if_parked();
        assert_eq!(self.process.wait().unwrap().code(), Some(0));
    }
}

/// This test binary again, as the sandbox, with its three descriptors in their places.
fn command(fds: Option<GuestFds>) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "sandbox_process", "--nocapture"]).env(ROLE, "1");
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let places = [DOWN_FD, UP_FD, DOORBELL_FD];
    // High numbers, so that no source is overwritten before it is moved.
    let high = fds.map(|fds| [fds.down, fds.up, fds.doorbell].map(|fd| duplicate_high(&fd)));
    // SAFETY: between fork and exec only `dup2` and `close` are called, which are async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            for (at, place) in places.into_iter().enumerate() {
                match &high {
                    Some(high) if libc::dup2(high[at].as_raw_fd(), place) < 0 => {
                        return Err(std::io::Error::last_os_error());
                    }
                    Some(_) => {}
                    None => drop(libc::close(place)),
                }
            }
            Ok(())
        });
    }
    command
}

fn duplicate_high(fd: &OwnedFd) -> OwnedFd {
    // SAFETY: duplicates an open descriptor; the result is owned by nobody else.
    unsafe {
        let high = libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_DUPFD_CLOEXEC, 100);
        assert!(high >= 100);
        OwnedFd::from_raw_fd(high)
    }
}

#[test]
fn requests_of_any_size_are_answered_across_processes() {
    for spin_us in ["0", "50"] {
        let mut sandbox = Sandbox::start(1, spin_us);
        for (invocation, size) in [0, 1, 1000, 1217, 5000, LIMIT as usize].into_iter().enumerate() {
            let payload: Vec<u8> = (0..size).map(|at| b'a' + (at % 23) as u8).collect();
            let (claim, answer) = sandbox.call(invocation as u64, &payload);
            assert_eq!(claim.kind, ClaimKind::Returned);
            assert!(answer == payload, "{size} bytes");
        }
        for invocation in 0..2000 {
            assert_eq!(sandbox.call(invocation, b"again").1, b"again");
        }
        sandbox.stop();
    }
}

#[test]
fn a_handler_sees_its_request_and_names_its_content_type() {
    let mut sandbox = Sandbox::start(1, "0");
    let (claim, answer) = sandbox.call(1, b"describe");
    assert_eq!(*claim.metadata.content_type, *b"text/x-description");
    let expected = format!("{} Some(\"text/plain\") None 1234 true", "ab".repeat(16));
    assert_eq!(String::from_utf8(answer).unwrap(), expected);
    // The next answer does not inherit it.
    assert!(sandbox.call(2, b"echo").0.metadata.content_type.is_empty());
    sandbox.stop();
}

#[test]
fn errors_and_panics_are_raised_and_the_sandbox_lives_on() {
    let mut sandbox = Sandbox::start(1, "0");
    let (claim, answer) = sandbox.call(1, b"raise");
    assert_eq!(claim.kind, ClaimKind::Raised);
    let expected = r#"{"errorType":"Error","errorMessage":"this request is \"bad\"","stackTrace":[]}"#;
    assert_eq!(String::from_utf8(answer).unwrap(), expected);
    let (claim, answer) = sandbox.call(2, b"panic");
    assert_eq!(claim.kind, ClaimKind::Raised);
    let expected = r#"{"errorType":"Panic","errorMessage":"out of cheese","stackTrace":[]}"#;
    assert_eq!(String::from_utf8(answer).unwrap(), expected);
    let (claim, answer) = sandbox.call(3, b"grow");
    assert_eq!(claim.kind, ClaimKind::Raised);
    assert!(String::from_utf8(answer).unwrap().contains("1048577 bytes do not fit"));
    assert_eq!(sandbox.call(4, b"alive").1, b"alive");
    sandbox.stop();
}

#[test]
fn lanes_answer_in_any_order_and_advice_reaches_a_busy_handler() {
    for lanes in [1, 2, 4] {
        let mut sandbox = Sandbox::start(lanes, "0");
        sandbox.submit(100, 0, b"wait-for-cancel");
        for lane in 1..lanes {
            sandbox.submit(100 + u64::from(lane), lane, b"quick");
            let (claim, answer) = sandbox.wait();
            assert_eq!((claim.lane, answer.as_slice()), (lane, b"quick".as_slice()));
        }
        sandbox.host.cancel(100, 0).unwrap();
        sandbox.host.wake_if_parked();
        let (claim, answer) = sandbox.wait();
        assert_eq!((claim.invocation, answer.as_slice()), (100, b"cancelled".as_slice()));
        // Its lane's next invocation is not cancelled by it.
        assert_eq!(sandbox.call(200, b"fresh").1, b"fresh");
        sandbox.stop();
    }
}

#[test]
fn a_burst_is_answered_whichever_of_its_handlers_block() {
    let lanes = 4;
    let mut sandbox = Sandbox::start(lanes, "0");
    for round in 0..200u64 {
        let blocked = (round % 4) as u16;
        let also_blocked = (round / 4 % 4) as u16;
        let blocks = |lane: u16| lane == blocked || lane == also_blocked;
        for lane in 0..lanes {
            let payload: &[u8] = if blocks(lane) { b"wait-for-cancel" } else { b"quick" };
            sandbox.place(round * 4 + u64::from(lane), lane, payload);
        }
        sandbox.host.wake_if_parked();
        for _ in (0..lanes).filter(|lane| !blocks(*lane)) {
            let (claim, answer) = sandbox.wait();
            assert!(!blocks(claim.lane) && answer == b"quick");
        }
        for lane in (0..lanes).filter(|lane| blocks(*lane)) {
            sandbox.host.cancel(round * 4 + u64::from(lane), lane).unwrap();
        }
        sandbox.host.wake_if_parked();
        for _ in (0..lanes).filter(|lane| blocks(*lane)) {
            assert_eq!(sandbox.wait().1, b"cancelled");
        }
    }
    sandbox.stop();
}

#[test]
fn stop_lets_what_runs_finish() {
    for lanes in [1, 3] {
        let mut sandbox = Sandbox::start(lanes, "0");
        for lane in 0..lanes {
            sandbox.submit(u64::from(lane), lane, b"wait-for-cancel");
        }
        for lane in 0..lanes {
            sandbox.host.cancel(u64::from(lane), lane).unwrap();
        }
        sandbox.host.stop().unwrap();
        sandbox.host.wake_if_parked();
        for _ in 0..lanes {
            assert_eq!(sandbox.wait().1, b"cancelled");
        }
        assert_eq!(sandbox.process.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn started_by_hand_it_says_what_it_is_and_fails() {
    let output = command(None).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("descriptor 3 is unusable"), "{text}");
    assert!(text.contains("started by a Vilya worker"), "{text}");
}
