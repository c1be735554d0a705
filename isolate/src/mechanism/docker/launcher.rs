//! The first program of a Docker container: takes its descriptors from the worker and becomes the function.
//!
//! Owns: the way of five descriptors through a socket to their numbers. Invariant: what it becomes has them, and no other but 0; it uses
//! nothing of the container's own files, so that it runs in any. Does not know: what it becomes.
//!
//! It is a program of its own without a library, compiled by `build.rs` and carried inside the worker. Arguments: how many arguments the
//! function has, these arguments, one that is ignored, and the function's environment, whole.
#![no_std]
#![no_main]
#![allow(unsafe_code)]

use core::arch::{asm, global_asm};

/// What the worker listens on, inside the container.
const SOCKET: &[u8] = b"/.vilya/socket\0";
/// Above every number that a function is given.
const KEPT_FROM: usize = 10;
const UNREACHABLE: usize = 125;
const MISUSED: usize = 126;
const NOT_EXECUTED: usize = 127;

#[cfg(target_arch = "x86_64")]
mod numbers {
    pub const WRITE: usize = 1;
    pub const CLOSE: usize = 3;
    pub const SOCKET: usize = 41;
    pub const CONNECT: usize = 42;
    pub const RECVMSG: usize = 47;
    pub const EXECVE: usize = 59;
    pub const FCNTL: usize = 72;
    pub const EXIT_GROUP: usize = 231;
    pub const DUP3: usize = 292;
}

#[cfg(target_arch = "aarch64")]
mod numbers {
    pub const WRITE: usize = 64;
    pub const CLOSE: usize = 57;
    pub const SOCKET: usize = 198;
    pub const CONNECT: usize = 203;
    pub const RECVMSG: usize = 212;
    pub const EXECVE: usize = 221;
    pub const FCNTL: usize = 25;
    pub const EXIT_GROUP: usize = 94;
    pub const DUP3: usize = 24;
}

use numbers::*;

#[cfg(target_arch = "x86_64")]
global_asm!(".globl _start", "_start:", "xor ebp, ebp", "mov rdi, rsp", "and rsp, -16", "call {start}", "ud2", start = sym start);
#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start:", "mov x29, #0", "mov x0, sp", "and sp, x0, #-16", "bl {start}", "brk #1", start = sym start);

/// # Safety
/// The arguments must be what this call demands.
#[cfg(target_arch = "x86_64")]
unsafe fn call(number: usize, a: usize, b: usize, c: usize) -> isize {
    let result: isize;
    // SAFETY: the kernel keeps every register but these; the caller answers for the arguments.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a, in("rsi") b, in("rdx") c, out("rcx") _, out("r11") _);
    }
    result
}

/// # Safety
/// The arguments must be what this call demands.
#[cfg(target_arch = "aarch64")]
unsafe fn call(number: usize, a: usize, b: usize, c: usize) -> isize {
    let result: isize;
    // SAFETY: the kernel keeps every register but these; the caller answers for the arguments.
    unsafe { asm!("svc 0", in("x8") number, inlateout("x0") a as isize => result, in("x1") b, in("x2") c) };
    result
}

#[repr(C)]
struct Address {
    family: u16,
    path: [u8; 108],
}

#[repr(C)]
struct Part {
    base: *mut u8,
    length: usize,
}

#[repr(C)]
struct Message {
    name: usize,
    name_length: usize,
    parts: *mut Part,
    count: usize,
    control: *mut Control,
    control_length: usize,
    flags: usize,
}

#[repr(C)]
struct Control {
    length: usize,
    level: i32,
    kind: i32,
    descriptors: [i32; 5],
    padding: i32,
}

fn exit(status: usize) -> ! {
    loop {
        // SAFETY: ends the process.
        unsafe { call(EXIT_GROUP, status, 0, 0) };
    }
}

fn checked(result: isize, status: usize) -> usize {
    if result < 0 { exit(status) } else { result as usize }
}

/// The socket, above the numbers that the function is given, so that the descriptors that arrive take the lowest from 3 on.
fn connected() -> usize {
    const AF_UNIX: u16 = 1;
    const STREAM_CLOSE_ON_EXEC: usize = 0o2_000_001;
    const F_DUPFD_CLOEXEC: usize = 1030;
    let mut address = Address { family: AF_UNIX, path: [0; 108] };
    let mut at = 0;
    while at < SOCKET.len() {
        address.path[at] = SOCKET[at];
        at += 1;
    }
    // SAFETY: the address outlives the call, and the length is its own.
    unsafe {
        let first = checked(call(numbers::SOCKET, AF_UNIX as usize, STREAM_CLOSE_ON_EXEC, 0), UNREACHABLE);
        checked(call(CONNECT, first, &raw const address as usize, 2 + SOCKET.len()), UNREACHABLE);
        let kept = checked(call(FCNTL, first, F_DUPFD_CLOEXEC, KEPT_FROM), UNREACHABLE);
        call(CLOSE, first, 0, 0);
        kept
    }
}

/// Standard output, standard error, and the three of the ring.
fn received(socket: usize) -> [i32; 5] {
    const CLOSE_ON_EXEC: usize = 0x4000_0000;
    const WHOLE: usize = 16 + 4 * 5;
    let mut byte = 0_u8;
    let mut part = Part { base: &raw mut byte, length: 1 };
    let mut control = Control { length: 0, level: 0, kind: 0, descriptors: [-1; 5], padding: 0 };
    let mut message = Message {
        name: 0,
        name_length: 0,
        parts: &raw mut part,
        count: 1,
        control: &raw mut control,
        control_length: size_of::<Control>(),
        flags: 0,
    };
    // SAFETY: the message and all that it points to outlive the call.
    let length = unsafe { call(RECVMSG, socket, &raw mut message as usize, CLOSE_ON_EXEC) };
    if length != 1 || control.length != WHOLE {
        exit(MISUSED);
    }
    control.descriptors
}

/// # Safety
/// The stack must be that of a process that has just begun.
unsafe extern "C" fn start(stack: *mut usize) -> ! {
    // SAFETY: a count, and so many pointers to arguments, each ending with a null byte, and a null pointer.
    let (count, arguments) = unsafe { (*stack, stack.add(1)) };
    if count < 4 {
        exit(MISUSED);
    }
    // SAFETY: there are at least four.
    let own = unsafe { number(*arguments.add(1) as *const u8) };
    if own == 0 || own > count - 3 {
        exit(MISUSED);
    }
    let socket = connected();
    let descriptors = received(socket);
    let mut target = 0;
    while target < descriptors.len() {
        // Each comes from above its place, so none is overwritten before it was moved.
        if descriptors[target] <= target as i32 + 1 {
            exit(MISUSED);
        }
        // SAFETY: no pointers.
        checked(unsafe { call(DUP3, descriptors[target] as usize, target + 1, 0) }, MISUSED);
        target += 1;
    }
    // SAFETY: the argument after the function's own is given up for the null pointer that ends them; the rest are its environment, ended by
    // the null pointer that ends all.
    let errno = unsafe {
        let (first, end) = (arguments.add(2), arguments.add(2 + own));
        *end = 0;
        (-call(EXECVE, *first, first as usize, end.add(1) as usize)) as u32
    };
    // SAFETY: the number outlives the call.
    unsafe { call(WRITE, socket, &raw const errno as usize, size_of::<u32>()) };
    exit(NOT_EXECUTED)
}

/// # Safety
/// Digits, ended by a null byte.
unsafe fn number(mut text: *const u8) -> usize {
    let mut value = 0_usize;
    // SAFETY: read up to its end.
    unsafe {
        while *text != 0 {
            value = value.wrapping_mul(10).wrapping_add((*text).wrapping_sub(b'0') as usize);
            text = text.add(1);
        }
    }
    value
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(MISUSED)
}
