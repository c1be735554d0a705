//! The script of an image: the system calls that a waiting sandbox performs to become a copy, and the data they point to.
//!
//! Owns: which calls, in which order. Invariant: pure; the same process gives the same script, which can be performed any number of times.
//! Every call with a result that matters names it, so a copy that cannot be made ends instead of running half made. Does not know: how the
//! process was looked at (`capture`), or who performs the calls (`calls`).

use std::ops::Range;

use super::maps::{Backing, Mapping, PAGE, kernel_mappings};
use crate::calls::{self, ANY, BACK, CALL_BYTES, NO_ERROR, Word};
use crate::order::IMAGE;
use crate::stub::{BUFFER, CODE, END_OF_MEMORY, wait_at};

/// A process, as it was seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Process {
    pub(crate) mappings: Vec<Mapping>,
    /// Stretches of private pages that are not what their file or a new mapping would show, by address.
    pub(crate) runs: Vec<Range<u64>>,
    pub(crate) registers: Registers,
    /// The 512 bytes of FXSAVE.
    pub(crate) floating_point: Vec<u8>,
    pub(crate) blocked_signals: u64,
    /// Signal, and the kernel's `struct sigaction` as four words.
    pub(crate) actions: Vec<(u32, [u64; 4])>,
    /// `stack_t` as three words: address, flags, bytes.
    pub(crate) signal_stack: [u64; 3],
    /// Head and length.
    pub(crate) robust_list: [u64; 2],
    /// Address, length and signature; none where libc did not register one.
    pub(crate) restartable: Option<[u64; 3]>,
    /// The name of its thread, with its NUL.
    pub(crate) name: [u8; 16],
}

/// The registers that a copy begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Registers {
    /// r8 to r15, di, si, bp, bx, dx, ax, cx, sp, ip, flags: the order of the kernel's `sigcontext`.
    pub(crate) general: [u64; 18],
    pub(crate) fs_base: u64,
    pub(crate) gs_base: u64,
}

/// Where `ax` is among the general registers.
pub(crate) const AX: usize = 13;

/// What lies at the beginning of an image: calls and data.
#[derive(Debug)]
pub(crate) struct Script {
    /// Where it must be mapped.
    pub(crate) address: u64,
    /// Whole pages.
    pub(crate) bytes: Vec<u8>,
    /// Where it goes on when the copy is told to: until then the sandbox waits for another message.
    pub(crate) resume: u64,
}

/// Why an image of this process cannot be made.
pub(crate) type Unfit = String;

/// The first descriptor that is free while the script runs.
const OPENED: u64 = IMAGE as u64 + 1;
/// The stack of a first thread: what RLIMIT_STACK is nearly everywhere.
const STACK_BYTES: u64 = 8 << 20;
/// Data is laid out in these steps; FXSAVE wants 16.
const ALIGN: usize = 64;

/// Writes the script, which takes so many pages. `waiting` is what a waiting sandbox has mapped. In the image file the pages of the runs
/// follow the script.
pub(crate) fn write(process: &Process, waiting: &[Mapping], region_pages: u64) -> Result<Script, Unfit> {
    let bytes = region_pages * PAGE;
    if process.mappings.iter().any(|mapping| [CODE, BUFFER].iter().any(|own| overlap(&mapping.range, own))) {
        return Err("it has mapped what the code of a waiting sandbox takes".into());
    }
    let address = free_place(process, waiting, bytes)?;
    let mut writer = Writer { script: calls::Script::default() };
    writer.clear(address..address + bytes, waiting);
    writer.move_kernel_mappings(process, waiting)?;
    writer.map_files(process);
    writer.map_anonymous(process);
    writer.map_runs(process, bytes);
    writer.restore_thread(process);
    let resume = address + writer.await_word();
    let frame = writer.frame(process);
    writer.script.end(frame);
    let mut script = writer.script.lay_out(address);
    if script.len() as u64 > bytes {
        return Err(format!("the script takes {} bytes", script.len()));
    }
    script.resize(bytes as usize, 0);
    Ok(Script { address, bytes: script, resume })
}

/// Pages that are enough for the script of this process.
pub(crate) fn region_pages(process: &Process) -> u64 {
    let paths: usize = process.mappings.iter().filter_map(path_of).map(|path| path.len() + 1 + ALIGN).sum();
    let calls = 64 + 3 * process.mappings.len() + process.runs.len() + process.actions.len();
    let bytes = calls * CALL_BYTES + paths + process.actions.len() * ALIGN + 4096;
    (bytes as u64).div_ceil(PAGE)
}

fn path_of(mapping: &Mapping) -> Option<&str> {
    match &mapping.backing {
        Backing::File { path, .. } => Some(path),
        _ => None,
    }
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

/// Far from where programs, libraries and stacks are put; a few places to choose from.
fn free_place(process: &Process, waiting: &[Mapping], bytes: u64) -> Result<u64, Unfit> {
    const FIRST: u64 = 0x1_0000_0000;
    const STEP: u64 = 0x1_0000_0000;
    let is_free = |place: &u64| {
        let range = *place..*place + bytes;
        process.mappings.iter().chain(waiting).all(|mapping| !overlap(&mapping.range, &range))
    };
    (0..64).map(|step| FIRST + step * STEP).find(is_free).ok_or_else(|| "no free place for the script".into())
}

/// Adds what each part of a process needs.
struct Writer {
    script: calls::Script,
}

impl Writer {
    /// Unmaps everything but the script, what receives messages, and the kernel's own.
    fn clear(&mut self, script: Range<u64>, waiting: &[Mapping]) {
        let mut kept: Vec<Range<u64>> = kernel_mappings(waiting).map(|(_, range)| range.clone()).collect();
        kept.extend([script, CODE, BUFFER]);
        kept.sort_by_key(|range| range.start);
        let mut from = 0;
        for range in kept.into_iter().chain(std::iter::once(END_OF_MEMORY..END_OF_MEMORY)) {
            if from < range.start {
                self.script.numbers(libc::SYS_munmap, &[from, range.start - from], 0);
            }
            from = range.end;
        }
    }

    /// Libc keeps the addresses of the kernel's functions, so these must be where they were.
    fn move_kernel_mappings(&mut self, process: &Process, waiting: &[Mapping]) -> Result<(), Unfit> {
        const FLAGS: u64 = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64;
        let there: Vec<_> = kernel_mappings(&process.mappings).collect();
        let here: Vec<_> = kernel_mappings(waiting).collect();
        let alike = there.len() == here.len()
            && there
                .iter()
                .zip(&here)
                .all(|(one, other)| one.0 == other.0 && one.1.end - one.1.start == other.1.end - other.1.start);
        let apart = there.iter().all(|(_, one)| here.iter().all(|(_, other)| !overlap(one, other)));
        if !alike || !apart {
            return Err("the kernel's own mappings differ or overlap".into());
        }
        for ((_, to), (_, from)) in there.iter().zip(&here) {
            let bytes = to.end - to.start;
            self.script.numbers(libc::SYS_mremap, &[from.start, bytes, bytes, FLAGS, to.start], to.start);
        }
        Ok(())
    }

    fn map_files(&mut self, process: &Process) {
        const FLAGS: u64 = (libc::MAP_PRIVATE | libc::MAP_FIXED) as u64;
        let mut paths: Vec<&str> = process.mappings.iter().filter_map(path_of).collect();
        paths.sort_unstable();
        paths.dedup();
        for path in paths {
            let name = Word::Data(self.script.put(&[path.as_bytes(), b"\0"].concat()));
            let open = [
                Word::Is(libc::AT_FDCWD as i64 as u64),
                name,
                Word::Is((libc::O_RDONLY | libc::O_CLOEXEC) as u64),
                Word::Is(0),
            ];
            self.script.call(libc::SYS_openat, &open, OPENED);
            for mapping in &process.mappings {
                let Backing::File { path: of, offset } = &mapping.backing else { continue };
                // One that the image covers is mapped from there.
                if of == path && !process.runs.contains(&mapping.range) {
                    let Range { start, end } = mapping.range;
                    let arguments = [start, end - start, mapping.protection as u64, FLAGS, OPENED, *offset];
                    self.script.numbers(libc::SYS_mmap, &arguments, start);
                }
            }
            self.script.numbers(libc::SYS_close, &[OPENED], 0);
        }
    }

    fn map_anonymous(&mut self, process: &Process) {
        const FLAGS: i32 = libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        for mapping in &process.mappings {
            let Range { mut start, end } = mapping.range;
            match mapping.backing {
                Backing::Anonymous => {}
                // Where it could have grown to, the kernel may put something else in a copy; so it has all of its room from the beginning.
                Backing::Stack => start = start.min(end.saturating_sub(STACK_BYTES)),
                _ => continue,
            }
            // One that the image covers is mapped from there.
            if process.runs.contains(&mapping.range) && mapping.backing == Backing::Anonymous {
                continue;
            }
            let arguments = [start, end - start, mapping.protection as u64, FLAGS as u64, u64::MAX, 0];
            self.script.numbers(libc::SYS_mmap, &arguments, start);
        }
    }

    fn map_runs(&mut self, process: &Process, mut place: u64) {
        const FLAGS: u64 = (libc::MAP_PRIVATE | libc::MAP_FIXED) as u64;
        for run in &process.runs {
            let bytes = run.end - run.start;
            let mapping = process.mappings.iter().find(|mapping| overlap(&mapping.range, run));
            match mapping {
                // A stack of anonymous memory, as programs that look at their mappings expect.
                Some(Mapping { backing: Backing::Stack, .. }) => {
                    self.script.numbers(libc::SYS_pread64, &[IMAGE as u64, run.start, bytes, place], bytes);
                }
                Some(Mapping { protection, .. }) => {
                    let arguments = [run.start, bytes, *protection as u64, FLAGS, IMAGE as u64, place];
                    self.script.numbers(libc::SYS_mmap, &arguments, run.start);
                }
                None => {}
            }
            place += bytes;
        }
    }

    fn restore_thread(&mut self, process: &Process) {
        const SET_GS: u64 = 0x1001;
        const SET_FS: u64 = 0x1002;
        /// Bytes of the kernel's signal set.
        const SET_BYTES: u64 = 8;
        let Registers { fs_base, gs_base, .. } = process.registers;
        self.script.numbers(libc::SYS_arch_prctl, &[SET_FS, fs_base], 0);
        if gs_base != 0 {
            self.script.numbers(libc::SYS_arch_prctl, &[SET_GS, gs_base], 0);
        }
        if process.robust_list[0] != 0 {
            self.script.numbers(libc::SYS_set_robust_list, &process.robust_list, 0);
        }
        if let Some([address, bytes, signature]) = process.restartable {
            self.script.numbers(libc::SYS_rseq, &[address, bytes, 0, signature], 0);
        }
        for (signal, action) in &process.actions {
            let action = Word::Data(self.script.put(&words_to_bytes(action)));
            let arguments = [Word::Is((*signal).into()), action, Word::Is(0), Word::Is(SET_BYTES)];
            self.script.call(libc::SYS_rt_sigaction, &arguments, 0);
        }
        let name = Word::Data(self.script.put(&process.name));
        self.script.call(libc::SYS_prctl, &[Word::Is(libc::PR_SET_NAME as u64), name], NO_ERROR);
        self.script.numbers(libc::SYS_close, &[IMAGE as u64], 0);
    }

    /// Waits for the next message, which goes on behind this; how many bytes into the script that is.
    fn await_word(&mut self) -> u64 {
        self.script.jump(wait_at(1));
        let resume = self.script.bytes();
        let done = Word::Data(self.script.put(&[1]));
        // Whoever started this may have gone; the copy serves all the same.
        self.script.call(libc::SYS_write, &[Word::Is(BACK as u64), done, Word::Is(1)], ANY);
        self.script.numbers(libc::SYS_close, &[BACK as u64], 0);
        self.script.numbers(libc::SYS_munmap, &[BUFFER.start, BUFFER.end - BUFFER.start], 0);
        resume
    }

    /// What `rt_sigreturn` loads: a signal frame after its return address. The address is the stack pointer that it wants.
    fn frame(&mut self, process: &Process) -> Word {
        const SAVES_STACK_SEGMENT: u64 = 2 | 4;
        /// Code segment 0x33 in the lowest quarter, stack segment 0x2b in the highest.
        const SEGMENTS: u64 = 0x33 | 0x2b << 48;
        let floating_point = self.script.put(&process.floating_point);
        let mut words = vec![0, SAVES_STACK_SEGMENT, 0];
        words.extend(process.signal_stack);
        words.extend(process.registers.general);
        // Segments, error, trap number, old mask, fault address.
        words.extend([SEGMENTS, 0, 0, 0, 0]);
        let pointer = words.len() * 8;
        words.extend([0; 9]);
        words.push(process.blocked_signals);
        let frame = self.script.put(&words_to_bytes(&words));
        self.script.point(frame + pointer, floating_point);
        // Past the return address, which nobody returns to.
        Word::Data(frame + 8)
    }
}

fn words_to_bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
