//! The `vilya` command: run a worker, deploy functions to one, invoke them, look at them, try it all out.
//!
//! It owns what a person types and reads: arguments, wording, exit codes. A worker is started through `vilya-worker` and
//! otherwise spoken to over HTTP or the binary protocol, like any client: nothing here knows how an invocation is run.

mod arguments;
mod bundle;
mod client;
mod demo;
mod deploy;
mod doctor;
mod failure;
mod functions;
mod invoke;
mod load;
mod logs;
mod output;
mod sandboxes;
mod serve;
mod settings;
mod signals;
mod wire;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command, Config};
use client::Client;
use failure::{Failure, Fault};
use output::Screen;

/// Reads the process's arguments and does what they ask. The exit codes are listed by `vilya --help`.
pub fn main() -> ExitCode {
    match act(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if failure.fault() != Fault::OutputClosed {
                output::complain(&failure);
            }
            failure.exit_code()
        }
    }
}

fn act(arguments: Arguments) -> Result<(), Failure> {
    let mut screen = Screen::stdout();
    let worker = || Client::new(&arguments.server);
    match arguments.command {
        Command::Serve(sources) => serve::serve(&sources, &mut screen),
        Command::Doctor { sources, json } => doctor::doctor(&sources, json, &mut screen),
        Command::Deploy { directory } => deploy::deploy(&worker()?, &directory, &mut screen),
        Command::List { json } => functions::list(&worker()?, json, &mut screen),
        Command::Ps { json } => sandboxes::ps(&worker()?, json, &mut screen),
        Command::Get { name, json } => functions::get(&worker()?, &name, json, &mut screen),
        Command::Remove { name } => functions::remove(&worker()?, &name, &mut screen),
        Command::Invoke(invocation) => invoke::invoke(&worker()?, &invocation, &mut screen),
        Command::Load(asked) => load::load(&arguments.server, &asked, &mut screen),
        Command::Logs { name, tail, follow } => logs::logs(&worker()?, &name, tail, follow, &mut screen),
        Command::Demo { keep, json } => demo::demo(keep, json, &mut screen),
        Command::Config(Config::Check(sources)) => settings::check(&sources, &mut screen),
        Command::Config(Config::Print(sources)) => settings::print(&sources, &mut screen),
        Command::Version => screen.line(format_args!("vilya {}", env!("CARGO_PKG_VERSION"))),
    }
}
