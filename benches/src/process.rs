//! What the kernel counts of processes: processor time, memory, parentage (`proc(5)`).

use std::collections::HashMap;
use std::fs;
use std::io;

/// Processor time of the threads of a process whose name is wanted, in nanoseconds: the first number of `schedstat`.
///
/// # Errors
/// There is no such process, or the kernel keeps no such account.
pub fn threads_cpu_ns(process: u32, wanted: impl Fn(&str) -> bool) -> io::Result<u64> {
    let mut sum_ns = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let thread = thread?.path();
        // One that ended since the listing has no more to add.
        let Ok(name) = fs::read_to_string(thread.join("comm")) else { continue };
        let Ok(account) = fs::read_to_string(thread.join("schedstat")) else { continue };
        if wanted(name.trim_end()) {
            let first = account.split_whitespace().next().and_then(|number| number.parse::<u64>().ok());
            sum_ns += first.ok_or_else(|| io::Error::other("schedstat is not in the kernel's format"))?;
        }
    }
    Ok(sum_ns)
}

/// Processor time of all threads of a process so far, in nanoseconds.
///
/// # Errors
/// There is no such process.
pub fn cpu_ns(process: u32) -> io::Result<u64> {
    threads_cpu_ns(process, |_| true)
}

/// The process and everything that descends from it.
///
/// # Errors
/// `/proc` cannot be read.
pub fn family(process: u32) -> io::Result<Vec<u32>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let Some(id) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(format!("/proc/{id}/stat")) else { continue };
        if let Some(parent) = parent(&stat) {
            children.entry(parent).or_default().push(id);
        }
    }
    let mut family = vec![process];
    let mut next = 0;
    while let Some(&id) = family.get(next) {
        family.extend(children.remove(&id).unwrap_or_default());
        next += 1;
    }
    Ok(family)
}

/// The fourth field; the second is a name in brackets that may hold anything.
fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Resident memory of a process, in bytes.
///
/// # Errors
/// There is no such process.
pub fn resident_bytes(process: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    kib.map(|kib: u64| kib * 1024).ok_or_else(|| io::Error::other("status is not in the kernel's format"))
}

/// Memory that a process shares with no other, in KiB.
///
/// # Errors
/// There is no such process.
pub fn private_kib(process: u32) -> io::Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    let lines = rollup.lines().filter(|line| line.starts_with("Private_"));
    let kib = lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    Ok(kib.sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_found_behind_any_name() {
        assert_eq!(parent("7 (a) b) c) S 3 7 7"), Some(3));
        assert_eq!(parent("7"), None);
    }

    #[test]
    fn this_process_has_run_and_has_memory() {
        let this = std::process::id();
        assert!(cpu_ns(this).unwrap() > 0);
        assert!(resident_bytes(this).unwrap() > 0);
        assert_eq!(family(this).unwrap()[0], this);
        assert!(family(std::os::unix::process::parent_id()).unwrap().contains(&this));
    }
}
