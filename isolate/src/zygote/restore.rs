//! The few instructions that turn a waiting sandbox into a copy: they perform the system calls of a script and then continue where the copied
//! process stood.
//!
//! Owns: the machine code and how it is entered. Invariant: it runs inside the sandbox, under its filter, without a capability, and outside
//! of all memory that the script replaces. What a script demands is therefore no more than what the function itself could demand. Does not
//! know: how a script is made (`script`).
//!
//! The code, for x86-64. A call is eight words: number, six arguments, and what its result must be: [`ANY`], [`NO_ERROR`], or a value. The
//! number [`END`] continues: `rt_sigreturn` loads every register from the frame that its first argument points to.
#![allow(unsafe_code)]

use std::os::fd::RawFd;

use crate::sys::{Errno, Word, call};

/// Words of a call in a script.
pub(crate) const CALL_WORDS: usize = 8;
/// The number that ends a script.
pub(crate) const END: u64 = u64::MAX;
/// Any result will do.
pub(crate) const ANY: u64 = u64::MAX;
/// Any result but an error will do.
pub(crate) const NO_ERROR: u64 = u64::MAX - 1;
/// Exit status of a copy whose script failed.
pub(crate) const FAILED: i32 = 126;
/// Where the script begins, after the code.
pub(crate) const SCRIPT_AT: usize = 4096;

#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".pushsection .text.vilya_restorer, \"ax\", @progbits",
    ".balign 64",
    ".hidden vilya_restorer_begin",
    ".globl vilya_restorer_begin",
    "vilya_restorer_begin:",
    "mov r15, rdi",
    "2:",
    "mov rax, [r15]",
    "cmp rax, -1",
    "je 5f",
    "mov rdi, [r15 + 8]",
    "mov rsi, [r15 + 16]",
    "mov rdx, [r15 + 24]",
    "mov r10, [r15 + 32]",
    "mov r8, [r15 + 40]",
    "mov r9, [r15 + 48]",
    "syscall",
    "mov rcx, [r15 + 56]",
    "cmp rcx, -1",
    "je 4f",
    "cmp rcx, -2",
    "je 3f",
    "cmp rax, rcx",
    "jne 6f",
    "jmp 4f",
    "3:",
    "cmp rax, -4096",
    "ja 6f",
    "4:",
    "add r15, 64",
    "jmp 2b",
    "5:",
    "mov rsp, [r15 + 8]",
    "mov eax, 15",
    "syscall",
    "6:",
    "mov edi, {failed}",
    "mov eax, 231",
    "syscall",
    "ud2",
    ".hidden vilya_restorer_end",
    ".globl vilya_restorer_end",
    "vilya_restorer_end:",
    ".popsection",
    failed = const FAILED,
);

#[cfg(target_arch = "x86_64")]
unsafe extern "C" {
    static vilya_restorer_begin: u8;
    static vilya_restorer_end: u8;
}

/// The machine code; none on machines that it was not written for.
#[cfg(target_arch = "x86_64")]
pub(crate) fn code() -> Option<&'static [u8]> {
    let (begin, end) = (&raw const vilya_restorer_begin, &raw const vilya_restorer_end);
    // SAFETY: both lie in one section, in this order, with initialised bytes between them.
    let code = unsafe { std::slice::from_raw_parts(begin, end.addr() - begin.addr()) };
    debug_assert!(code.len() <= SCRIPT_AT);
    Some(code)
}

/// The machine code; none on machines that it was not written for.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn code() -> Option<&'static [u8]> {
    None
}

/// Maps the beginning of an image and runs it. Returns only if it cannot be mapped, with the reason.
pub(crate) fn enter(image: RawFd, address: u64, bytes: u64) -> Errno {
    const FLAGS: i32 = libc::MAP_PRIVATE | libc::MAP_FIXED_NOREPLACE;
    const PROTECTION: i32 = libc::PROT_READ | libc::PROT_EXEC;
    if code().is_none() || bytes <= SCRIPT_AT as u64 {
        return libc::ENOSYS;
    }
    let arguments = [address as Word, bytes as Word, PROTECTION.into(), FLAGS.into(), image.into(), 0];
    // SAFETY: a new mapping where nothing is.
    match unsafe { call(libc::SYS_mmap, arguments) } {
        Ok(mapped) if mapped as u64 == address => {}
        Ok(_) => return libc::EEXIST,
        Err(errno) => return errno,
    }
    // SAFETY: what was mapped begins with the code above, which the worker put there and whose image nobody can write (it is sealed). It does
    // not return: this process is given up for what the script makes of it, and whatever that is, it has no more rights than it has now.
    unsafe {
        let run: extern "C" fn(u64) -> ! = std::mem::transmute(address as usize);
        run(address + SCRIPT_AT as u64)
    }
}
