//! Who attacks: a program in a sandbox, beside a neighbour, or one that nothing confines.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use vilya_isolate::{Bind, CopyOf, ImageRoot, Reach, Root, Spec, capture};

use super::attempt::{Attempt, Outcomes, outcome};
use super::calls::prelude;
use super::host::{Host, sandbox};
use crate::neighbour::Neighbour;
use crate::sandboxes::running_with;
use crate::support::{PYTHON, Room, Running, null, python, unique};

/// No attempt waits for long; whoever says nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(120);
const FUNCTION: &str = "/function";
const INSIDE: &str = concat!(include_str!("races.py"), include_str!("reaching.py"), include_str!("inside.py"));
const NEIGHBOUR: &str = include_str!("neighbour.py");

/// How the sandbox that attacks is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// From the beginning.
    Whole,
    /// As a copy of one that has begun.
    Copied,
    /// As a copy that was loaded before anybody asked for it.
    Loaded,
    /// From the beginning, on the root of an image.
    Image,
}

/// A sandbox that attacks, and its neighbour.
pub(super) struct Subject {
    running: Running,
    channel: BufReader<UnixStream>,
    neighbour: Neighbour,
}

impl Subject {
    /// Both reach the same.
    pub(super) fn start(room: &mut Room, host: &Host, form: Form, reach: &Reach) -> Subject {
        let mut conspires = python(NEIGHBOUR);
        conspires.command.extend(["3", host.meeting(), FUNCTION].map(str::to_owned));
        conspires.reach = reach.clone();
        conspires.binds.push(function(host));
        let mut neighbour = Neighbour::of(room, &conspires);
        // It waits wherever it can.
        neighbour.is_well();
        let (channel, theirs) = pair();
        let spec = Spec { reach: reach.clone(), ..spec(host, form) };
        let running = match form {
            Form::Whole | Form::Image => start(room, &spec, theirs),
            Form::Copied | Form::Loaded => start_copy(room, &spec, theirs, form),
        };
        Subject { running, channel: BufReader::new(channel), neighbour }
    }

    /// The neighbour must answer; what is seen is of the attacker, and how many came to the neighbour.
    pub(super) fn look(&mut self) -> String {
        self.neighbour.is_well();
        let came = String::from_utf8_lossy(&self.neighbour.asked(b"came?")).into_owned();
        sandbox(self.running.started.pid) + &sandbox(self.neighbour.pid()) + &came
    }

    pub(super) fn attack(&mut self, host: &Host, attempts: &[Attempt]) -> Outcomes {
        let order = order(&host.facts(FUNCTION, Some(self.neighbour.pid())), attempts, false);
        self.channel.get_mut().write_all(&order).expect("it listens");
        outcomes(&mut self.channel)
    }

    pub(super) fn end(self) {
        drop(self.channel);
        self.running.started.remains.kill();
        assert!(self.running.finish().ended.left_behind.is_empty());
        self.neighbour.end();
    }
}

fn spec(host: &Host, form: Form) -> Spec {
    let mut spec = python(&(prelude() + INSIDE));
    spec.command.push("3".into());
    if matches!(form, Form::Copied | Form::Loaded) {
        spec.command.push("copied".into());
    }
    if form == Form::Image {
        spec.root = Root::Image(image());
    }
    spec.binds.push(function(host));
    spec
}

fn function(host: &Host) -> Bind {
    Bind { source: host.function().into(), target: FUNCTION.into(), read_only: true }
}

/// The host's own system as an image, with every program that it has.
fn image() -> ImageRoot {
    let (mut directories, mut links) = (vec!["usr".to_owned()], Vec::new());
    for name in ["bin", "sbin", "lib", "lib64"] {
        match std::fs::read_link(Path::new("/").join(name)) {
            Ok(to) => links.push((name.to_owned(), to.to_string_lossy().into_owned())),
            Err(_) if Path::new("/").join(name).is_dir() => directories.push(name.to_owned()),
            Err(_) => {}
        }
    }
    ImageRoot { directory: "/".into(), directories, links }
}

fn start(room: &mut Room, spec: &Spec, channel: UnixStream) -> Running {
    room.start_with(spec, ring(channel)).unwrap_or_else(|error| panic!("{:?}: it must start: {error}", room.kind))
}

/// Starts the program, takes its image where it waits to be copied, ends it, and starts a copy.
fn start_copy(room: &mut Room, spec: &Spec, channel: UnixStream, form: Form) -> Running {
    let (mut says, told) = pair();
    let first = start(room, spec, told);
    says.read_exact(&mut [0]).expect("it says that it waits");
    let image = capture(first.started.pid, &spec.working_directory, 1 << 30).map(Arc::new).expect("it can be copied");
    first.started.remains.kill();
    first.finish();
    let of_image = CopyOf { image: &image, tells_environment: false };
    let spec = Spec { name: unique("copy"), ..spec.clone() };
    if form == Form::Loaded {
        load(room, &spec, of_image);
    }
    let copy =
        running_with(ring(channel), |descriptors| room.mechanism.begin(&spec, descriptors, Some(of_image))?.finish());
    let copy = copy.expect("a copy");
    assert_eq!((copy.started.stages.copied, copy.started.stages.loaded), (true, form == Form::Loaded));
    copy
}

/// As soon as a sandbox that was made ahead is to spare.
fn load(room: &mut Room, spec: &Spec, of_image: CopyOf<'_>) {
    let until = Instant::now() + PATIENCE;
    while !room.mechanism.load(spec, of_image).expect("it can be loaded") {
        assert!(Instant::now() < until, "no sandbox was to spare");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The neighbour's program where nothing confines it.
struct Outsider {
    process: Child,
    channel: UnixStream,
}

impl Outsider {
    fn start(host: &Host) -> Outsider {
        let (mut channel, theirs) = pair();
        let mut command = Command::new(PYTHON);
        command.args(["-I", "-B", "-c", NEIGHBOUR, "0", host.meeting()]).arg(host.function());
        let process = command.stdin(OwnedFd::from(theirs)).spawn().expect("the tests need /usr/bin/python3");
        drop(command);
        channel.write_all(b"well?").expect("it listens");
        channel.read_exact(&mut [0; 5]).expect("it waits wherever it can");
        Outsider { process, channel }
    }

    fn end(mut self) {
        drop(self.channel);
        assert!(self.process.wait().expect("our child").success());
    }
}

/// Makes the attempts with what this process may do, in mounts of their own.
pub(super) fn outside(host: &Host, attempts: &[Attempt]) -> Outcomes {
    let outsider = Outsider::start(host);
    let (channel, theirs) = pair();
    let program = prelude() + INSIDE;
    let mut command = Command::new(PYTHON);
    command.args(["-I", "-B", "-c", &program, "0"]).stdin(OwnedFd::from(theirs)).stdout(Stdio::null());
    let mut child = command.spawn().expect("the tests need /usr/bin/python3");
    // It holds the other end.
    drop(command);
    let function = host.function().to_string_lossy().into_owned();
    let mut channel = BufReader::new(channel);
    channel.get_mut().write_all(&order(&host.facts(&function, None), attempts, true)).expect("it listens");
    let outcomes = outcomes(&mut channel);
    drop(channel);
    assert!(child.wait().expect("our child").success());
    outsider.end();
    outcomes
}

fn order(host: &serde_json::Value, attempts: &[Attempt], outside: bool) -> Vec<u8> {
    let attempts: Vec<_> = attempts.iter().map(|attempt| (attempt.name, attempt.program)).collect();
    format!("{}\n", json!({ "host": host, "attempts": attempts, "outside": outside })).into_bytes()
}

fn outcomes(channel: &mut impl BufRead) -> Outcomes {
    let mut outcomes = Outcomes::new();
    loop {
        let mut line = String::new();
        channel.read_line(&mut line).expect("it answers in time");
        let (name, outcome) = outcome(&line);
        if name == "end" {
            return outcomes;
        }
        outcomes.insert(name, outcome);
    }
}

fn pair() -> (UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    ours.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    (ours, theirs)
}

fn ring(channel: UnixStream) -> [OwnedFd; 3] {
    [channel.into(), null(), null()]
}
