//! `serve`: a worker in this process, from its start to the signal that stops it.

use std::process;
use std::thread;

use tracing_subscriber::filter::LevelFilter;
use vilya_worker::Worker;

use crate::arguments::ConfigSources;
use crate::failure::Failure;
use crate::output::{Screen, colours, note};
use crate::settings;
use crate::signals::StopSignals;

/// How much the worker writes: `error`, `warn`, `info` (the default), `debug` or `trace`.
const LOG_VARIABLE: &str = "VILYA_LOG";

pub(crate) fn serve(typed: &ConfigSources, screen: &mut Screen) -> Result<(), Failure> {
    let config = settings::load(typed)?;
    write_log(log_level(std::env::var(LOG_VARIABLE).ok().as_deref())?);
    let signals = StopSignals::block()?;
    let running = Worker::start(&config).map_err(Failure::local)?;
    // For whoever started us with port 0, or waits for us to be up.
    match running.wire_address() {
        Some(wire) => screen.line(format_args!("listening on http://{} and vilya://{wire}", running.address()))?,
        None => screen.line(format_args!("listening on http://{}", running.address()))?,
    }
    let signal = signals.wait()?;
    note(format_args!("{signal}: running invocations finish, new ones are refused; once more to stop at once"));
    thread::spawn(move || {
        // Sandboxes die with this process, so leaving at once leaves nothing running.
        if let Ok(signal) = signals.wait() {
            process::exit(StopSignals::exit_status(signal));
        }
    });
    running.drain();
    Ok(())
}

fn log_level(word: Option<&str>) -> Result<LevelFilter, Failure> {
    let Some(word) = word else { return Ok(LevelFilter::INFO) };
    word.parse().map_err(|_| {
        Failure::usage(format_args!("{LOG_VARIABLE}={word}: write error, warn, info, debug, trace or off"))
    })
}

/// Sends what the worker says of itself to standard error, which is where a service manager looks.
pub(crate) fn write_log(level: LevelFilter) {
    let subscriber = tracing_subscriber::fmt().with_max_level(level).with_ansi(colours(&std::io::stderr()));
    // Fails only if this process has one already, which then serves as well.
    let _ = subscriber.with_target(false).with_writer(std::io::stderr).try_init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_is_a_word() {
        assert_eq!(log_level(None).unwrap(), LevelFilter::INFO);
        assert_eq!(log_level(Some("debug")).unwrap(), LevelFilter::DEBUG);
        assert_eq!(log_level(Some("loud")).unwrap_err().fault().code(), 2);
    }
}
