//! Scripts of system calls, and the few instructions that perform them.
//!
//! Owns: the machine code, and how a script is laid out. Invariant: the code needs no stack, no library and no memory but its own page and the
//! script, so it can replace all other memory of its process. It runs inside sandboxes, under their filter and without a capability: what a
//! script demands is no more than the function could demand itself. Does not know: what scripts are for.
//!
//! A call is eight words: number, six arguments, and what its result must be: [`ANY`], [`NO_ERROR`], or a value. The number [`JUMP`] goes on at
//! another script; [`END`] loads every register from the signal frame behind its first argument, by `rt_sigreturn`. A call with another
//! result is told to [`BACK`], two words, the result and where the call is, and the process ends.
#![allow(unsafe_code)]

use std::os::fd::RawFd;

/// Words of a call in a script.
pub(crate) const CALL_WORDS: usize = 8;
/// Bytes of one.
pub(crate) const CALL_BYTES: usize = CALL_WORDS * 8;
/// The number that ends a script.
pub(crate) const END: u64 = u64::MAX;
/// The number that goes on elsewhere.
pub(crate) const JUMP: u64 = u64::MAX - 1;
/// Any result will do.
pub(crate) const ANY: u64 = u64::MAX;
/// Any result but an error will do.
pub(crate) const NO_ERROR: u64 = u64::MAX - 1;
/// No result will do: of a call that does not return if it succeeds.
pub(crate) const NEVER: u64 = u64::MAX - 2;
/// Where a failure is told.
pub(crate) const BACK: RawFd = 14;
/// Exit status of a process whose script failed.
const FAILED: i32 = 126;
/// Data is laid out in these steps; FXSAVE wants 16.
const ALIGN: usize = 64;

#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".pushsection .text.vilya_calls, \"ax\", @progbits",
    ".balign 64",
    ".hidden vilya_calls_begin",
    ".globl vilya_calls_begin",
    "vilya_calls_begin:",
    // rdi: the script. rsi: two words to tell a failure from.
    "mov r15, rdi",
    "mov r14, rsi",
    "2:",
    "mov rax, [r15]",
    "cmp rax, -1",
    "je 5f",
    "cmp rax, -2",
    "je 7f",
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
    "7:",
    "mov r15, [r15 + 8]",
    "jmp 2b",
    "5:",
    "mov rsp, [r15 + 8]",
    "mov eax, 15",
    "syscall",
    "6:",
    "mov [r14], rax",
    "mov [r14 + 8], r15",
    "mov edi, {back}",
    "mov rsi, r14",
    "mov edx, 16",
    "mov eax, 1",
    "syscall",
    "mov edi, {failed}",
    "mov eax, 231",
    "syscall",
    "ud2",
    ".hidden vilya_calls_end",
    ".globl vilya_calls_end",
    "vilya_calls_end:",
    ".popsection",
    failed = const FAILED,
    back = const BACK,
);

#[cfg(target_arch = "x86_64")]
unsafe extern "C" {
    static vilya_calls_begin: u8;
    static vilya_calls_end: u8;
}

/// The machine code; none on machines that it was not written for.
#[cfg(target_arch = "x86_64")]
pub(crate) fn code() -> Option<&'static [u8]> {
    let (begin, end) = (&raw const vilya_calls_begin, &raw const vilya_calls_end);
    // SAFETY: both lie in one section, in this order, with initialised bytes between them.
    Some(unsafe { std::slice::from_raw_parts(begin, end.addr() - begin.addr()) })
}

/// The machine code; none on machines that it was not written for.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn code() -> Option<&'static [u8]> {
    None
}

/// A word of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Word {
    Is(u64),
    /// The address of this place in the data.
    Data(usize),
}

/// A script that is being written.
#[derive(Debug, Default)]
pub(crate) struct Script {
    calls: Vec<[Word; CALL_WORDS]>,
    data: Vec<u8>,
    /// Places in the data that hold the address of another.
    pointers: Vec<(usize, usize)>,
}

impl Script {
    /// Adds a call; its position.
    pub(crate) fn call(&mut self, number: libc::c_long, arguments: &[Word], result: u64) -> usize {
        self.entry(number as u64, arguments, result)
    }

    /// Adds a call whose arguments are numbers.
    pub(crate) fn numbers(&mut self, number: libc::c_long, arguments: &[u64], result: u64) -> usize {
        let words: Vec<Word> = arguments.iter().map(|argument| Word::Is(*argument)).collect();
        self.call(number, &words, result)
    }

    /// How many bytes the calls take so far.
    pub(crate) fn bytes(&self) -> u64 {
        (self.calls.len() * CALL_BYTES) as u64
    }

    /// Goes on at the script at this address.
    pub(crate) fn jump(&mut self, address: u64) {
        self.entry(JUMP, &[Word::Is(address)], ANY);
    }

    /// Ends with the frame at this place, which `rt_sigreturn` wants its stack pointer at.
    pub(crate) fn end(&mut self, frame: Word) {
        self.entry(END, &[frame], ANY);
    }

    fn entry(&mut self, number: u64, arguments: &[Word], result: u64) -> usize {
        let mut call = [Word::Is(0); CALL_WORDS];
        call[0] = Word::Is(number);
        call[1..=arguments.len()].copy_from_slice(arguments);
        call[CALL_WORDS - 1] = Word::Is(result);
        self.calls.push(call);
        self.calls.len() - 1
    }

    /// Puts data; its place.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> usize {
        let place = self.data.len().next_multiple_of(ALIGN);
        self.data.resize(place, 0);
        self.data.extend_from_slice(bytes);
        place
    }

    /// Puts data close behind what was put last.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> usize {
        let place = self.data.len();
        self.data.extend_from_slice(bytes);
        place
    }

    /// Has one place of the data hold the address of another.
    pub(crate) fn point(&mut self, from: usize, to: usize) {
        self.pointers.push((from, to));
    }

    /// The bytes of calls and data, to lie at this address, which is a multiple of 64.
    pub(crate) fn lay_out(mut self, address: u64) -> Vec<u8> {
        let calls_bytes = self.calls.len() * CALL_BYTES;
        let data_at = address + calls_bytes as u64;
        for (place, of) in self.pointers {
            self.data[place..place + 8].copy_from_slice(&(data_at + of as u64).to_le_bytes());
        }
        let mut bytes = Vec::with_capacity(calls_bytes + self.data.len());
        for word in self.calls.iter().flatten() {
            let value = match word {
                Word::Is(value) => *value,
                Word::Data(place) => data_at + *place as u64,
            };
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        bytes.extend_from_slice(&self.data);
        bytes
    }
}

const _: () = assert!(CALL_BYTES.is_multiple_of(ALIGN), "data behind calls is aligned as they are");

#[cfg(test)]
mod tests {
    use super::{ANY, CALL_BYTES, Script, Word};

    #[test]
    fn data_is_found_where_it_lies() {
        let mut script = Script::default();
        let name = script.put(b"name\0");
        let table = script.put(&[0; 16]);
        script.point(table, name);
        script.call(1, &[Word::Data(name), Word::Is(7)], ANY);
        script.jump(99);
        let bytes = script.lay_out(0x1000);
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let data_at = 0x1000 + 2 * CALL_BYTES as u64;
        assert_eq!((word(0), word(8), word(16), word(56)), (1, data_at, 7, ANY));
        assert_eq!(word(2 * CALL_BYTES + 64), data_at);
    }
}
