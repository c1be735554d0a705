//! What a prepared sandbox runs until it is needed: it waits for one message and becomes what that says.
//!
//! Owns: the last moments of our own code inside a sandbox. Invariant: it runs with everything of the sandbox already in force: no
//! capability, the system call filter, its own namespaces and groups; so nothing that it does, or that it is told, can weaken them. Like all
//! code between `clone3` and `exec` it neither allocates nor locks. Does not know: who tells it.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::os::fd::RawFd;

use crate::apply::{change_directory, exit};
use crate::order::{self, Becoming, ORDER_BYTES, Order};
use crate::sys::{self, DESCRIPTORS_SENT, Errno, Word, call};

/// Where messages come from: the place of the ring's first half, which comes with the message.
const TOLD_AT: RawFd = 3;
/// Descriptors of a message: standard output and error, and the three of the ring.
pub(crate) const PLACED: usize = 5;
/// Where the way back is kept until the sandbox has become what it was told.
pub(crate) const BACK: RawFd = 12;
/// Where the image of a copy is until it was restored.
pub(crate) const IMAGE: RawFd = 6;
/// No descriptor lies above.
const LAST: RawFd = RawFd::MAX;
/// Exit status of a sandbox that could not become what it was told.
const FAILED: Word = 127;

/// The message, and the pointers that `execve` wants.
const BUFFER_BYTES: usize = ORDER_BYTES + POINTERS * size_of::<u64>();
const POINTERS: usize = crate::limits::ARGUMENTS + crate::limits::ENVIRONMENT + 2;

/// Waits, and becomes what it is told. Returns only with the reason why it cannot wait.
pub(crate) fn wait_for_order() -> Result<(), Errno> {
    // What it has is 0 to 5; the report is told.
    close_range(6, LAST)?;
    let buffer = buffer()?;
    let (message, pointers) = buffer.split_at_mut(ORDER_BYTES);
    let mut descriptors = [-1; DESCRIPTORS_SENT];
    let (bytes, count) = sys::receive_with(TOLD_AT, message, &mut descriptors, 0)?;
    if bytes == 0 {
        // The worker has no use for it.
        exit(0);
    }
    let failure = match place(&descriptors[..count]) {
        Ok(()) => match order::decode(&message[..bytes]) {
            Some(order) => become_told(&order, pointers),
            None => Failure { part: Part::Becoming, errno: libc::EBADMSG },
        },
        Err(errno) => Failure { part: Part::Becoming, errno },
    };
    let _ = sys::send_with(BACK, &failure.to_bytes(), &[]);
    exit(FAILED)
}

fn buffer() -> Result<&'static mut [u8], Errno> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new anonymous mapping at a place of the kernel's choice.
    let address = unsafe { call(libc::SYS_mmap, [0, BUFFER_BYTES as Word, protection.into(), flags.into(), -1, 0]) }?;
    // SAFETY: the mapping was just made, is this long, zeroed, aligned to a page, and lives until this process becomes another program.
    Ok(unsafe { std::slice::from_raw_parts_mut(address as *mut u8, BUFFER_BYTES) })
}

/// Puts the descriptors of the message where a program expects them.
fn place(descriptors: &[RawFd]) -> Result<(), Errno> {
    if !(PLACED..=PLACED + 1).contains(&descriptors.len()) {
        return Err(libc::EBADMSG);
    }
    duplicate(TOLD_AT, BACK, libc::O_CLOEXEC)?;
    for (place, source) in (1..).zip(&descriptors[..PLACED]) {
        duplicate(*source, place, 0)?;
    }
    // Those that came have the numbers from 6 on, the image last, so this overwrites nothing that is still needed.
    if let Some(image) = descriptors.get(PLACED) {
        duplicate(*image, IMAGE, libc::O_CLOEXEC)?;
    }
    let kept = if descriptors.len() > PLACED { IMAGE + 1 } else { IMAGE };
    close_range(kept, BACK - 1)
}

/// What could not be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Entering,
    Becoming,
}

/// Why a sandbox did not become what it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) part: Part,
    pub(crate) errno: Errno,
}

impl Failure {
    pub(crate) const BYTES: usize = 8;

    fn to_bytes(self) -> [u8; Failure::BYTES] {
        let mut bytes = [0; Failure::BYTES];
        bytes[0] = u8::from(self.part == Part::Entering);
        bytes[4..].copy_from_slice(&self.errno.to_ne_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: [u8; Failure::BYTES]) -> Failure {
        let part = if bytes[0] == 1 { Part::Entering } else { Part::Becoming };
        Failure { part, errno: Errno::from_ne_bytes(std::array::from_fn(|index| bytes[4 + index])) }
    }
}

/// Returns only if it fails, with the reason.
fn become_told(order: &Order<'_>, pointers: &mut [u8]) -> Failure {
    if let Err(errno) = change_directory(order.working_directory) {
        return Failure { part: Part::Entering, errno };
    }
    let errno = match order.becoming {
        Becoming::Program => execute(order, pointers),
        Becoming::Copy { address, bytes } => crate::zygote::restore::enter(IMAGE, address, bytes),
    };
    Failure { part: Part::Becoming, errno }
}

fn execute(order: &Order<'_>, pointers: &mut [u8]) -> Errno {
    if order.arguments + order.environment + 2 > POINTERS {
        return libc::E2BIG;
    }
    let pointers = pointers.as_chunks_mut::<8>().0;
    let mut rest = order.strings;
    // Two arrays, each with a null at the end, which the buffer of zeroes has already.
    for index in (0..order.arguments).chain(order.arguments + 1..=order.arguments + order.environment) {
        let Ok(string) = CStr::from_bytes_until_nul(rest) else { return libc::EBADMSG };
        pointers[index] = (string.as_ptr() as u64).to_ne_bytes();
        rest = &rest[string.count_bytes() + 1..];
    }
    let arguments = pointers.as_ptr() as Word;
    let environment = pointers[order.arguments + 1..].as_ptr() as Word;
    // SAFETY: null-terminated strings of the message, and two null-terminated arrays of pointers to them.
    match unsafe { call(libc::SYS_execve, [order.strings.as_ptr() as Word, arguments, environment]) } {
        Ok(_) => libc::EIO,
        Err(errno) => errno,
    }
}

fn duplicate(source: RawFd, place: RawFd, flags: i32) -> Result<(), Errno> {
    // SAFETY: no pointers.
    unsafe { call(libc::SYS_dup3, [source.into(), place.into(), flags.into()]) }.map(drop)
}

fn close_range(first: RawFd, last: RawFd) -> Result<(), Errno> {
    // SAFETY: no pointers.
    unsafe { call(libc::SYS_close_range, [first.into(), last.into(), 0]) }.map(drop)
}
