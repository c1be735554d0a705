//! System calls of a process while something is done, counted by the kernel's tracepoint through `perf stat`.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Failure;

/// Until `perf` has attached to every thread.
const ATTACH: Duration = Duration::from_millis(300);

/// System calls that a process makes while `act` is done, with what it came to; `None` for the count where there is no
/// `perf`, or it may not count.
///
/// # Errors
/// Those of `act`.
pub fn during<T>(process: u32, act: impl FnOnce() -> Result<T, Failure>) -> Result<(Option<u64>, T), Failure> {
    let mut command = Command::new("perf");
    command.args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p"]).arg(process.to_string());
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let Ok(mut perf) = spawned else { return Ok((None, act()?)) };
    std::thread::sleep(ATTACH);
    let done = act();
    // One that may not count has ended by itself.
    let _ = kill(Pid::from_raw(perf.id().try_into()?), Signal::SIGINT);
    let said = perf.stderr.take().map(BufReader::new).into_iter().flat_map(BufRead::lines).map_while(Result::ok);
    let count = said.filter(|line| line.contains("raw_syscalls")).find_map(|line| count(&line));
    let _ = perf.wait();
    Ok((count, done?))
}

/// The first field of a line of `perf stat -x ,`.
fn count(line: &str) -> Option<u64> {
    line.split(',').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_the_first_field_and_one_that_was_refused_is_none() {
        assert_eq!(count("109,,raw_syscalls:sys_enter,1000,100.00,,"), Some(109));
        assert_eq!(count("<not supported>,,raw_syscalls:sys_enter,0,100.00,,"), None);
    }
}
