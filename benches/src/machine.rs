//! The machine that figures are from, and the share of it that a program may use.
#![allow(unsafe_code)]

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// Cores this process may use. Ask before binding a thread: a bound one sees its own core alone.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Cores that this thread may use, ascending.
///
/// # Errors
/// The kernel does not tell.
pub fn available_cores() -> nix::Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false)).collect())
}

/// Binds the calling thread, and what it starts from then on, to these cores.
///
/// # Errors
/// None of them is this process's to use.
pub fn confine(cores: &[usize]) -> nix::Result<()> {
    let mut set = CpuSet::new();
    cores.iter().try_for_each(|&core| set.set(core))?;
    sched_setaffinity(Pid::from_raw(0), &set)
}

/// Has the calling thread go before everything else on its core, as one on another machine would: what it measures is then no wait of its
/// own. Whether it may.
pub fn stand_apart() -> bool {
    let first = nix::libc::sched_param { sched_priority: 1 };
    // SAFETY: the parameter outlives the call.
    unsafe {
        nix::libc::sched_setscheduler(0, nix::libc::SCHED_FIFO | nix::libc::SCHED_RESET_ON_FORK, &raw const first) == 0
    }
}

/// Processor, cores and kernel.
#[must_use]
pub fn description() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model =
        cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
    let memory = read("/proc/meminfo");
    let kib =
        memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    json!({
        "processor": model.unwrap_or("unknown"),
        "cores": cores(),
        "memory_bytes": kib.map(|kib: u64| kib * 1024),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
    })
}
