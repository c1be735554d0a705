//! Which program a maker's children show as theirs in `/proc/self/exe`: one of the system's, not the worker's.
//!
//! Owns: letting the worker's program go. Invariant: what the maker executes is the same bytes before, between and after. Does not know: what
//! it is needed for afterwards.
//!
//! Why: a copy never calls `execve`, so it would show what the maker shows. That link leads to the file itself, past every read-only mount,
//! and where the worker and its sandboxes are one user, the file's mode is the sandbox's to change.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::ops::Range;

use crate::apply;
use crate::sys::{Errno, Word, call};

/// Where the worker's program lies in memory, and where the heap of who shows another is to begin.
#[derive(Debug)]
pub(crate) struct Program {
    /// With `PROT_*`.
    pub(crate) mappings: Vec<(Range<u64>, i32)>,
    pub(crate) heap: u64,
}

/// The kernel's `struct prctl_mm_map`.
#[repr(C)]
struct Places {
    code: [u64; 2],
    data: [u64; 2],
    heap: [u64; 2],
    stack: u64,
    arguments: [u64; 2],
    environment: [u64; 2],
    auxiliary: *const u64,
    auxiliary_bytes: u32,
    program: i32,
}

/// An address that every process may have, and that tells nothing of this one.
const NOWHERE: u64 = 0x1_0000;

/// Shows this program instead of the worker's, and nothing of where that lies; the heap begins elsewhere, where copies grow theirs.
///
/// # Safety
/// In a process of one thread that has its memory to itself.
pub(crate) unsafe fn show_instead(path: &CStr, program: &Program) -> Result<(), Errno> {
    for (range, protection) in &program.mappings {
        // SAFETY: the caller's promise.
        unsafe { replace_by_copy(range, *protection) }?;
    }
    let shown = apply::open(libc::AT_FDCWD, path, libc::O_RDONLY, 0)?;
    let none = [0_u64; 2];
    let places = Places {
        code: [NOWHERE, NOWHERE + 1],
        data: [NOWHERE; 2],
        heap: [program.heap; 2],
        stack: NOWHERE,
        arguments: [NOWHERE; 2],
        environment: [NOWHERE; 2],
        auxiliary: none.as_ptr(),
        auxiliary_bytes: size_of_val(&none) as u32,
        program: shown,
    };
    let option = [libc::PR_SET_MM.into(), libc::PR_SET_MM_MAP.into()];
    let arguments = [option[0], option[1], (&raw const places) as Word, size_of::<Places>() as Word, 0];
    // SAFETY: the places and the list that they point to outlive the call, and the size is theirs.
    unsafe { call(libc::SYS_prctl, arguments) }?;
    apply::close(shown)
}

/// Has the same bytes lie there without the file behind them.
///
/// # Safety
/// As [`show_instead`].
unsafe fn replace_by_copy(range: &Range<u64>, protection: i32) -> Result<(), Errno> {
    let bytes = range.end - range.start;
    let writable = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping of the kernel's choice is filled with what can be read, and put where it was read from. Between the two, this
    // thread, the only one, writes to nothing that lies there.
    unsafe {
        let copy = call(libc::SYS_mmap, [0, bytes as Word, writable.into(), flags.into(), -1, 0])?;
        if protection & libc::PROT_READ != 0 {
            std::ptr::copy_nonoverlapping(range.start as *const u8, copy as *mut u8, bytes as usize);
        }
        call(libc::SYS_mprotect, [copy, bytes as Word, protection.into()])?;
        let move_there = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        call(libc::SYS_mremap, [copy, bytes as Word, bytes as Word, move_there.into(), range.start as Word]).map(drop)
    }
}
