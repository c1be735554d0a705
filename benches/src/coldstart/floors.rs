//! Bare processes: made without and with all namespaces, and executed. Measured by a small process of their own, since a large one takes
//! longer to copy.
#![allow(unsafe_code)]

use std::io::{self, BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::libc;
use vilya_benches::Failure;
use vilya_benches::figures::Figures;
use vilya_benches::sample::Samples;

const VARIABLE: &str = "BENCH_FLOOR";
const NONE: &str = "clone3";
const ALL: &str = "clone3-all";
const NAMESPACES: i32 = libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUSER;

/// What this process is to measure as the small one.
pub(crate) fn asked_for() -> Option<String> {
    std::env::var(VARIABLE).ok()
}

/// Prints so many times, in nanoseconds, as are asked for on the command line.
pub(crate) fn play(floor: &str) -> Result<(), Failure> {
    let count: usize = std::env::args().nth(1).ok_or("how often?")?.parse()?;
    let flags = if floor == ALL { NAMESPACES } else { 0 };
    for _ in 0..count {
        println!("{}", child_says_hello(flags)?);
    }
    Ok(())
}

/// The kernel's `struct clone_args`.
#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    rest: [u64; 6],
}

/// From the call until the child's first byte, in nanoseconds.
fn child_says_hello(flags: i32) -> Result<u64, Failure> {
    let (mut heard, said) = io::pipe()?;
    let arguments =
        CloneArguments { flags: flags as u64, exit_signal: libc::SIGCHLD as u64, ..CloneArguments::default() };
    let said_fd = std::os::fd::AsRawFd::as_raw_fd(&said);
    let since = Instant::now();
    // SAFETY: a copy of this process of one thread; the child makes two system calls and ends.
    let pid = unsafe {
        let pid = libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<CloneArguments>());
        if pid == 0 {
            libc::write(said_fd, c"h".as_ptr().cast(), 1);
            libc::_exit(0);
        }
        pid
    };
    if pid < 0 {
        return Err(io::Error::last_os_error().into());
    }
    heard.read_exact(&mut [0])?;
    let took = since.elapsed();
    // SAFETY: waits for the child just made; its status is not asked for.
    unsafe { libc::waitpid(pid as i32, std::ptr::null_mut(), 0) };
    Ok(took.as_nanos() as u64)
}

pub(crate) fn measure(count: usize, figures: &mut Figures) -> Result<(), Failure> {
    for (name, floor) in [("floor.clone3_us", NONE), ("floor.clone3_all_namespaces_us", ALL)] {
        figures.push(name, in_a_small_process(floor, count)?.percentile_us(0.5));
    }
    figures.push("floor.exec_true_us", run("/usr/bin/true", &[], count)?.percentile_us(0.5));
    let mut python = run("/usr/bin/python3", &["-c", "pass"], count.min(100))?;
    figures.push("floor.python_bare_ms", python.percentile_us(0.5) / 1000.0);
    Ok(())
}

fn in_a_small_process(floor: &str, count: usize) -> Result<Samples, Failure> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg(count.to_string())
        .env(VARIABLE, floor)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut samples = Samples::default();
    for line in BufReader::new(child.stdout.take().ok_or("its output is piped")?).lines() {
        samples.push(line?.parse()?);
    }
    if child.wait()?.success() { Ok(samples) } else { Err(format!("{floor} cannot be measured here").into()) }
}

/// From fork to the end of a program.
fn run(program: &str, arguments: &[&str], count: usize) -> Result<Samples, Failure> {
    let mut samples = Samples::default();
    for _ in 0..count {
        let since = Instant::now();
        let status = Command::new(program).args(arguments).stdin(Stdio::null()).status()?;
        samples.push(since.elapsed().as_nanos() as u64);
        if !status.success() {
            return Err(format!("{program} failed").into());
        }
    }
    Ok(samples)
}
