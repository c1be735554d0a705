//! What a measuring program is when it starts itself again for another purpose: the worker under test, or a function in
//! one of its sandboxes.
//!
//! Invariant: a program needs no file but its own, so that it can be copied to another machine as it is. The part to play
//! is a variable of the environment, since a function has nothing else to be told by.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use vilya_ipc::guest::{Guest, Next};
use vilya_runtime::{Request, Response, TooLarge};
use vilya_worker::Worker;
use vilya_worker::config::{Config, Host, Problem, Sources};

use crate::Failure;

/// The variable that names the part.
pub const VARIABLE: &str = "BENCH_ROLE";
/// How often a parked invocation asks whether it may end.
const PARKED_POLL: Duration = Duration::from_millis(50);

/// A part to play.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A worker with the settings given as arguments (`key=value`), until its standard input ends.
    Worker,
    /// The `vilya` command with the arguments given.
    Command,
    /// A function that answers with its payload.
    Echo,
    /// A function that runs until nobody waits for its answer.
    Park,
    /// A function that answers with its payload, holds its sandbox for a while (`hold`, `hold-long`, `until-told`), or ends its process
    /// (`exit`).
    Mortal,
    /// The far side of a pair of rings, which answers with its payload, without a worker.
    RingEcho,
}

impl Role {
    const ALL: [Role; 6] = [Role::Worker, Role::Command, Role::Echo, Role::Park, Role::Mortal, Role::RingEcho];

    /// The word in the variable.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Role::Worker => "worker",
            Role::Command => "command",
            Role::Echo => "echo",
            Role::Park => "park",
            Role::Mortal => "mortal",
            Role::RingEcho => "ring-echo",
        }
    }
}

/// Plays the part that the environment names, if any. True: it was played to its end, and the process should end too.
///
/// # Errors
/// The part is unknown, or could not be played.
pub fn play() -> Result<bool, Failure> {
    let Some(word) = std::env::var_os(VARIABLE) else { return Ok(false) };
    let role = Role::ALL.into_iter().find(|role| word == role.word());
    match role.ok_or_else(|| format!("{VARIABLE}: {} is no role", word.display()))? {
        Role::Worker => serve()?,
        Role::Command => std::process::exit(command()),
        Role::Echo => vilya_runtime::run(echo),
        Role::Park => vilya_runtime::run(park),
        Role::Mortal => vilya_runtime::run(mortal),
        Role::RingEcho => ring_echo()?,
    }
    Ok(true)
}

/// Runs the command; its exit code as a number, which [`std::process::ExitCode`] does not give.
fn command() -> i32 {
    i32::from(vilya::main() != std::process::ExitCode::SUCCESS)
}

fn echo(request: &Request<'_>, response: &mut Response<'_>) -> Result<(), TooLarge> {
    response.reserve(request.payload().len())?.copy_from_slice(request.payload());
    Ok(())
}

fn park(request: &Request<'_>, _: &mut Response<'_>) -> Result<(), TooLarge> {
    while !request.cancelled() {
        std::thread::sleep(PARKED_POLL);
    }
    Ok(())
}

/// How long `hold` and `hold-long` last.
pub const HOLD: Duration = Duration::from_millis(200);
const HOLD_LONG: Duration = Duration::from_secs(5);

fn mortal(request: &Request<'_>, response: &mut Response<'_>) -> Result<(), TooLarge> {
    match request.payload() {
        b"exit" => std::process::exit(0),
        b"hold" => std::thread::sleep(HOLD),
        b"hold-long" => std::thread::sleep(HOLD_LONG),
        b"until-told" => return park(request, response),
        _ => {}
    }
    echo(request, response)
}

fn ring_echo() -> Result<(), Failure> {
    set_pdeathsig(Signal::SIGKILL)?;
    let mut guest = Guest::from_standard_fds()?;
    guest.set_spin_cap(Duration::ZERO);
    guest.ready();
    loop {
        match guest.next() {
            Next::Invoke(mut invocation) => {
                let (request, mut response) = invocation.parts();
                response.reserve(request.payload().len())?.copy_from_slice(request.payload());
                guest.returned(invocation);
            }
            Next::Cancel { .. } => {}
            Next::Stop => return Ok(()),
        }
    }
}

fn serve() -> Result<(), Failure> {
    let mut sources = Sources::default();
    for argument in std::env::args().skip(1) {
        let (key, value) = argument.split_once('=').ok_or_else(|| format!("{argument}: write key=value"))?;
        sources.flags.push((key.into(), value.into()));
    }
    let problems = |problems: Vec<Problem>| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let config = Config::load(&sources, &Host::read()?).map_err(problems)?;
    let running = Worker::start(&config)?;
    announce(running.address(), running.wire_address())?;
    // Ends with the program that started this one, however that ends.
    io::stdin().read_to_end(&mut Vec::new())?;
    running.drain();
    Ok(())
}

fn announce(address: SocketAddr, wire_address: Option<SocketAddr>) -> io::Result<()> {
    let mut out = io::stdout();
    write!(out, "{address}")?;
    wire_address.map_or(Ok(()), |address| write!(out, " {address}"))?;
    writeln!(out)?;
    out.flush()
}
