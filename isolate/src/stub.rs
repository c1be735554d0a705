//! What a prepared sandbox is until it is needed: a page of machine code that waits for a message, a script, and performs it.
//!
//! Owns: where that page and the message lie, and giving up all other memory. Invariant: it runs with everything of the sandbox already in
//! force: no capability, the system call filter, its own namespaces and groups; so nothing that it is told can weaken them. Nothing of the
//! worker's memory is left in it. Does not know: who tells it, or what.
#![allow(unsafe_code)]

use std::ops::Range;
use std::os::fd::RawFd;

use crate::calls::{self, ANY, CALL_BYTES, CALL_WORDS, JUMP, NO_ERROR};
use crate::sys::{Errno, Word, call};

/// Where messages come from: the place of the ring's first half, which comes with the message.
pub(crate) const TOLD_AT: RawFd = 3;
/// Descriptors that come with a message have the numbers from here on.
pub(crate) const FIRST_RECEIVED: RawFd = 6;

/// The page of code, and one for the script that waits: below 4 GiB, where neither programs nor the kernel put anything by themselves.
pub(crate) const CODE: Range<u64> = 0xe000_0000..0xe000_2000;
/// The messages, behind a page for what receives them.
pub(crate) const BUFFER: Range<u64> = 0xe010_0000..0xe010_1000 + (MESSAGES * MESSAGE_BYTES) as u64;
/// How many messages there can be: each has a place and a receiver of its own, into which the kernel writes.
pub(crate) const MESSAGES: usize = 3;
/// Largest message: a command and an environment at their bounds with room to spare.
pub(crate) const MESSAGE_BYTES: usize = 128 << 10;
/// Two words to tell a failure from.
const FAILURE_AT: u64 = BUFFER.start + 0xf00;
/// No process maps anything from here on.
pub(crate) const END_OF_MEMORY: u64 = 0x7fff_ffff_f000;

/// Where a message lies.
pub(crate) const fn message_at(number: usize) -> u64 {
    BUFFER.start + 0x1000 + (number * MESSAGE_BYTES) as u64
}

/// The script that waits for a message.
pub(crate) const fn wait_at(number: usize) -> u64 {
    SCRIPT_AT + ((UNMAPS + 2 * number) * CALL_BYTES) as u64
}

/// What receives a message, at the beginning of the buffer.
#[repr(C)]
struct Receiver {
    header: libc::msghdr,
    bytes: libc::iovec,
    control: [u64; 16],
}

const _: () = assert!((MESSAGES * size_of::<Receiver>()) as u64 <= FAILURE_AT - BUFFER.start);

/// Gives up all memory but the page of code, the message's and the kernel's own, and waits. Returns only with the reason why it cannot.
pub(crate) fn wait_for_order(kernel: &Range<u64>) -> Result<(), Errno> {
    let code = calls::code().ok_or(libc::ENOSYS)?;
    let script = waiting(kernel);
    // What it has is 0 to 5; the report is told.
    // SAFETY: no pointers.
    unsafe { call(libc::SYS_close_range, [FIRST_RECEIVED.into(), RawFd::MAX.into(), 0]) }?;
    map(&BUFFER)?;
    map(&CODE)?;
    // SAFETY: both mappings were just made, zeroed, writable, and as long as what is written; the code fits its page and the script the next.
    unsafe {
        for number in 0..MESSAGES {
            (receiver_at(number) as *mut Receiver).write(receiver(number));
            // Until a message overwrites it: an end of the socket ends the process.
            (message_at(number) as *mut u64).write(libc::SYS_exit_group as u64);
        }
        std::ptr::copy_nonoverlapping(code.as_ptr(), CODE.start as *mut u8, code.len());
        (SCRIPT_AT as *mut [[u64; CALL_WORDS]; CALLS]).write(script);
        let arguments =
            [CODE.start as Word, (CODE.end - CODE.start) as Word, (libc::PROT_READ | libc::PROT_EXEC).into()];
        call(libc::SYS_mprotect, arguments)?;
        let perform: extern "C" fn(u64, u64) -> ! = std::mem::transmute(CODE.start as usize);
        perform(SCRIPT_AT, FAILURE_AT)
    }
}

const SCRIPT_AT: u64 = CODE.start + 0x1000;
const UNMAPS: usize = 4;
const CALLS: usize = UNMAPS + 2 * MESSAGES;
const _: () = assert!(CALLS * CALL_BYTES <= 0x1000);

fn map(range: &Range<u64>) -> Result<(), Errno> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    let bytes = range.end - range.start;
    let arguments = [range.start as Word, bytes as Word, protection.into(), flags.into(), -1, 0];
    // SAFETY: a new mapping where nothing is.
    let mapped = unsafe { call(libc::SYS_mmap, arguments) }?;
    if mapped as u64 == range.start { Ok(()) } else { Err(libc::EEXIST) }
}

const fn receiver_at(number: usize) -> u64 {
    BUFFER.start + (number * size_of::<Receiver>()) as u64
}

fn receiver(number: usize) -> Receiver {
    let place = receiver_at(number) as usize;
    // SAFETY: all zeroes is a valid msghdr.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = (place + std::mem::offset_of!(Receiver, bytes)) as *mut libc::iovec;
    header.msg_iovlen = 1;
    header.msg_control = (place + std::mem::offset_of!(Receiver, control)) as *mut libc::c_void;
    header.msg_controllen = size_of::<[u64; 16]>();
    let bytes = libc::iovec { iov_base: message_at(number) as *mut libc::c_void, iov_len: MESSAGE_BYTES };
    Receiver { header, bytes, control: [0; 16] }
}

/// Unmaps what lies before, between and behind, receives the first message, and goes on in it. What receives the others follows.
fn waiting(kernel: &Range<u64>) -> [[u64; CALL_WORDS]; CALLS] {
    let unmap = |from: u64, to: u64| [libc::SYS_munmap as u64, from, to - from, 0, 0, 0, 0, 0];
    let mut calls = [[0; CALL_WORDS]; CALLS];
    calls[..UNMAPS].copy_from_slice(&[
        unmap(0, CODE.start),
        unmap(CODE.end, BUFFER.start),
        unmap(BUFFER.end, kernel.start),
        unmap(kernel.end, END_OF_MEMORY),
    ]);
    for (number, pair) in calls[UNMAPS..].as_chunks_mut::<2>().0.iter_mut().enumerate() {
        let flags = libc::MSG_CMSG_CLOEXEC as u64;
        *pair = [
            [libc::SYS_recvmsg as u64, TOLD_AT as u64, receiver_at(number), flags, 0, 0, 0, NO_ERROR],
            [JUMP, message_at(number), 0, 0, 0, 0, 0, ANY],
        ];
    }
    calls
}
