//! Taking the image of a process that waits to be copied.
//!
//! Owns: which processes can be copied, and reading one. Invariant: the process is hostile: nothing is done on its word but to its copies,
//! which are as hostile. What a copy would lack is found from outside and is a reason to make none. Does not know: what the process ran.
//!
//! The process waits in `read` on descriptor 3. A copy finds that this read returned 0.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::CaptureError;
use super::image::{Identity, Image};
use super::maps::{self, Backing, Mapping};
use super::pages::{self, Kind};
use super::script::{self, AX, Process};
use super::touched::Places;
use super::tracee::Tracee;

/// Descriptors that a waiting process may have.
const DESCRIPTORS: Range<u32> = 0..6;
/// The descriptor that it waits on.
const WAITS_ON: u64 = 3;
/// What an interrupted `read` is to return, in the kernel's own words: it is begun again.
const RESTARTS: [i64; 4] = [-512, -513, -514, -516];
/// How often, and with which pauses, it is looked whether it waits.
const WAIT_LOOKS: u32 = 200;
const WAIT_LOOK: Duration = Duration::from_millis(5);
/// Most mappings, and stretches of pages in them: a script of more would take longer than a start.
const MAPPINGS: usize = 4096;
const RUNS: usize = 8192;
/// Largest mapping that is looked through. What a program reserves, without touching it, may be larger than any memory.
const LOOKED_THROUGH: u64 = 16 << 30;
/// Untouched pages that are taken along rather than making another mapping.
const GAP_PAGES: u64 = 4;

/// Takes the image of a process of a sandbox, which must be killed afterwards. `working_directory` is what its copies begin in, and
/// `limit_bytes` the most memory of its own that it may have.
///
/// # Errors
/// When its copies would not be like it; the message says why.
pub fn capture(pid: i32, working_directory: &str, limit_bytes: u64) -> Result<Image, CaptureError> {
    let unfit = |reason: String| CaptureError::Unfit(reason);
    let proc = PathBuf::from(format!("/proc/{pid}"));
    await_wait(&proc)?;
    check_outside(&proc, working_directory)?;
    let tracee = Tracee::seize(pid)?;
    // What could have changed until it stopped.
    check_outside(&proc, working_directory)?;
    let process = look(&proc, &tracee, limit_bytes)?;
    let waiting = mappings_of_the_waiting()?;
    let pages = script::region_pages(&process);
    let script = script::write(&process, &waiting, pages).map_err(unfit)?;
    let files = identities(&proc, &process.mappings);
    let places = Places::of(&process.mappings);
    Ok(Image::write(&script, files, places, |file| copy_pages(&tracee, &process.runs, file))?)
}

/// Waits a moment until it waits: it says so just before.
fn await_wait(proc: &Path) -> Result<(), CaptureError> {
    let expected = format!("{} {WAITS_ON:#x} ", libc::SYS_read);
    for _ in 0..WAIT_LOOKS {
        if fs::read_to_string(proc.join("syscall"))?.starts_with(&expected) {
            return Ok(());
        }
        thread::sleep(WAIT_LOOK);
    }
    Err(CaptureError::Unfit("it does not wait to be copied".into()))
}

/// A waiting sandbox is a copy of the worker's own memory, so what this process has of the kernel's is where it is there.
fn mappings_of_the_waiting() -> io::Result<Vec<Mapping>> {
    let text = fs::read_to_string("/proc/self/maps")?;
    maps::parse(&text).map_err(io::Error::other)
}

/// What can be seen without stopping it.
fn check_outside(proc: &Path, working_directory: &str) -> Result<(), CaptureError> {
    let unfit = |reason: String| Err(CaptureError::Unfit(reason));
    let threads = fs::read_dir(proc.join("task"))?.count();
    if threads != 1 {
        return unfit(format!("it has {threads} threads"));
    }
    let pid = proc.file_name().unwrap_or_default().to_owned();
    let children = fs::read_to_string(proc.join("task").join(pid).join("children"))?;
    if !children.trim().is_empty() {
        return unfit("it has child processes".into());
    }
    let open: BTreeSet<u32> = numbers(&proc.join("fd"))?;
    if let Some(extra) = open.iter().find(|fd| !DESCRIPTORS.contains(fd)) {
        let target = fs::read_link(proc.join("fd").join(extra.to_string())).unwrap_or_default();
        return unfit(format!("it has {} open as descriptor {extra}", target.display()));
    }
    if fs::read_link(proc.join("cwd"))? != Path::new(working_directory) {
        return unfit("it has changed its working directory".into());
    }
    if !fs::read_to_string(proc.join("timers"))?.trim().is_empty() {
        return unfit("it has timers".into());
    }
    for place in ["tmp", "dev/shm"] {
        if fs::read_dir(proc.join("root").join(place))?.next().is_some() {
            return unfit(format!("it has left files in /{place}"));
        }
    }
    Ok(())
}

fn numbers(directory: &Path) -> io::Result<BTreeSet<u32>> {
    let names = fs::read_dir(directory)?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.filter_map(|name| name.parse().ok()).collect())
}

/// A line of `/proc/<pid>/status` in base 16 or 8.
fn field(status: &str, name: &str, radix: u32) -> Result<u64, CaptureError> {
    let text = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or("").trim();
    u64::from_str_radix(text, radix)
        .map_err(|_| CaptureError::Unseen(io::Error::other(format!("/proc/<pid>/status has no {name}"))))
}

fn look(proc: &Path, tracee: &Tracee, limit_bytes: u64) -> Result<Process, CaptureError> {
    let unfit = |reason: &str| CaptureError::Unfit(reason.to_owned());
    let (call, waits_on, result) = tracee.interrupted_call();
    if call != libc::SYS_read as u64 || waits_on != WAITS_ON || !RESTARTS.contains(&result) {
        return Err(unfit("it does not wait to be copied"));
    }
    let status = fs::read_to_string(proc.join("status"))?;
    if field(&status, "Umask", 8)? != 0o022 {
        return Err(unfit("it has changed its umask"));
    }
    if field(&status, "SigPnd", 16)? | field(&status, "ShdPnd", 16)? != 0 {
        return Err(unfit("it has signals pending"));
    }
    for which in 0..3 {
        let timer: [u8; 32] = tracee.ask(libc::SYS_getitimer, |place| [which, place, 0, 0])?;
        if timer != [0; 32] {
            return Err(unfit("it has timers"));
        }
    }
    let listed = fs::read_to_string(proc.join("maps"))?;
    let own = || fs::read_to_string("/proc/self/maps").map(|maps| heap(&maps));
    if is_above(heap(&listed), crate::heap::of_waiting().map_or_else(own, |waiting| Ok(Some(waiting)))?) {
        return Err(CaptureError::Misplaced);
    }
    let mappings = maps::parse(&listed).map_err(CaptureError::Unfit)?;
    if let Some(shared) = mappings.iter().find(|mapping| !can_be_mapped_again(mapping)) {
        return Err(CaptureError::Unfit(format!("it shares memory or has mapped what is gone: {:?}", shared.backing)));
    }
    if mappings.len() > MAPPINGS {
        return Err(CaptureError::Unfit(format!("it has {} mappings, more than {MAPPINGS}", mappings.len())));
    }
    let runs = runs(proc, &mappings, limit_bytes)?;
    let mut registers = tracee.registers();
    registers.general[AX] = 0;
    let mut name = [0; 16];
    let comm = fs::read(proc.join("comm"))?;
    let comm = comm.trim_ascii_end();
    name[..comm.len().min(15)].copy_from_slice(&comm[..comm.len().min(15)]);
    Ok(Process {
        registers,
        floating_point: tracee.floating_point()?,
        blocked_signals: tracee.blocked_signals()?,
        actions: actions(tracee, &status)?,
        signal_stack: words(tracee.ask::<24>(libc::SYS_sigaltstack, |place| [0, place, 0, 0])?),
        robust_list: tracee.robust_list()?,
        restartable: tracee.restartable()?,
        name,
        runs,
        mappings,
    })
}

/// The first heap of a process, if it has one.
fn heap(listed: &str) -> Option<Range<u64>> {
    let (start, rest) = listed.lines().find(|line| line.ends_with("[heap]"))?.split_once('-')?;
    let address = |text| u64::from_str_radix(text, 16).ok();
    Some(address(start)?..address(rest.split_once(' ')?.0)?)
}

/// Whether a heap ends above where a waiting sandbox's may begin to grow. glibc takes an end of the heap that went down for damage, and ends
/// the process.
fn is_above(heap: Option<Range<u64>>, waiting: Option<Range<u64>>) -> bool {
    heap.is_some_and(|heap| waiting.is_none_or(|waiting| heap.end > waiting.start))
}

/// Whether a private mapping in a copy shows what this one does.
fn can_be_mapped_again(mapping: &Mapping) -> bool {
    match mapping.backing {
        Backing::Other(_) => false,
        Backing::File { .. } => !mapping.is_shared || mapping.protection & libc::PROT_WRITE == 0,
        _ => !mapping.is_shared,
    }
}

/// What it does about each signal that it does not leave to its default.
fn actions(tracee: &Tracee, status: &str) -> Result<Vec<(u32, [u64; 4])>, CaptureError> {
    const SET_BYTES: u64 = 8;
    let handled = field(status, "SigIgn", 16)? | field(status, "SigCgt", 16)?;
    let signals = (1..=64_u32).filter(|signal| handled >> (signal - 1) & 1 == 1);
    let ask = |signal: u32| {
        let action: [u8; 32] = tracee.ask(libc::SYS_rt_sigaction, |place| [u64::from(signal), 0, place, SET_BYTES])?;
        Ok((signal, words(action)))
    };
    signals.map(ask).collect()
}

fn words<const BYTES: usize, const WORDS: usize>(bytes: [u8; BYTES]) -> [u64; WORDS] {
    let mut words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
    std::array::from_fn(|_| words.next().unwrap_or(0))
}

/// The stretches of pages that are this process's own, of no more bytes in all than the limit.
fn runs(proc: &Path, mappings: &[Mapping], limit_bytes: u64) -> Result<Vec<Range<u64>>, CaptureError> {
    let pagemap = File::open(proc.join("pagemap"))?;
    let wiped = wiped_on_fork(&fs::read_to_string(proc.join("smaps"))?);
    let mut runs = Vec::new();
    let mut left_bytes = limit_bytes;
    for mapping in mappings {
        let is_kernel = matches!(mapping.backing, Backing::Kernel(_) | Backing::Vsyscall);
        if is_kernel || mapping.protection == 0 || wiped.contains(&mapping.range.start) {
            continue;
        }
        let bytes = mapping.range.end - mapping.range.start;
        if bytes > LOOKED_THROUGH {
            return Err(CaptureError::Unfit(format!("it has a mapping of {bytes} bytes, more than {LOOKED_THROUGH}")));
        }
        for stretch in pages::stretches(&pagemap, &mapping.range, Kind::Own, GAP_PAGES, RUNS)? {
            let bytes = stretch.end - stretch.start;
            left_bytes = left_bytes.checked_sub(bytes).ok_or_else(|| {
                CaptureError::Unfit(format!("it has more memory of its own than {limit_bytes} bytes"))
            })?;
            runs.push(stretch);
        }
        if runs.len() > RUNS {
            return Err(CaptureError::Unfit("its memory is in too many pieces".into()));
        }
    }
    Ok(runs)
}

/// Where mappings begin whose contents a child of a fork would not get: state of random generators, which no two copies may share.
fn wiped_on_fork(smaps: &str) -> BTreeSet<u64> {
    let mut wiped = BTreeSet::new();
    let mut start = None;
    for line in smaps.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            // Wiped on fork, droppable, and not there at all after a fork.
            if flags.split_whitespace().any(|flag| ["wf", "dp", "dc"].contains(&flag)) {
                wiped.extend(start);
            }
        } else if let Some((first, _)) = line.split_once('-') {
            start = u64::from_str_radix(first, 16).ok().or(start);
        }
    }
    wiped
}

fn copy_pages(tracee: &Tracee, runs: &[Range<u64>], file: &mut File) -> io::Result<u64> {
    const CHUNK: u64 = 1 << 20;
    let mut buffer = vec![0; CHUNK as usize];
    let mut copied = 0;
    for run in runs {
        let mut at = run.start;
        while at < run.end {
            let chunk = &mut buffer[..(run.end - at).min(CHUNK) as usize];
            tracee.memory().read_exact_at(chunk, at)?;
            file.write_all(chunk)?;
            at += chunk.len() as u64;
        }
        copied += run.end - run.start;
    }
    Ok(copied)
}

/// The files whose pages belong to an image and that the host may change: those at the same path outside.
fn identities(proc: &Path, mappings: &[Mapping]) -> Vec<Identity> {
    let paths = mappings.iter().filter_map(|mapping| match &mapping.backing {
        Backing::File { path, .. } => Some(Path::new(path.as_str())),
        _ => None,
    });
    let paths: BTreeSet<&Path> = paths.collect();
    let is_same = |path: &&Path| {
        let inside = proc.join("root").join(path.strip_prefix("/").unwrap_or(path));
        match (Identity::of(path), Identity::of(&inside)) {
            (Some(outside), Some(inside)) => outside.is_same_file(&inside),
            _ => false,
        }
    };
    paths.into_iter().filter(is_same).filter_map(Identity::of).collect()
}

#[cfg(test)]
mod tests {
    use super::{heap, is_above, wiped_on_fork};

    #[test]
    fn a_heap_must_end_below_where_a_copy_grows() {
        let listed = "55d0c0000000-55d0c0001000 r-xp 00002000 fe:00 12 /usr/bin/x\n55d0c1000000-55d0c1021000 rw-p 00000000 00:00 0 [heap]\n";
        let found = heap(listed);
        assert_eq!(found, Some(0x55d0_c100_0000..0x55d0_c102_1000));
        assert!(is_above(found.clone(), Some(0x55d0_c000_0000..0x55d0_c001_0000)));
        assert!(!is_above(found.clone(), Some(0x55d0_c102_1000..0x55d0_c110_0000)));
        assert!(is_above(found, None) && !is_above(None, None));
    }

    #[test]
    fn what_a_fork_wipes_is_found() {
        let smaps = "7f0000000000-7f0000001000 rw-p 00000000 00:00 0 \nRss: 4 kB\nVmFlags: rd wr mr mw me ac wf sd \n\
                     7f0000002000-7f0000003000 rw-p 00000000 00:00 0 \nVmFlags: rd wr mr mw me ac sd \n";
        assert_eq!(wiped_on_fork(smaps).into_iter().collect::<Vec<_>>(), [0x7f00_0000_0000]);
    }
}
