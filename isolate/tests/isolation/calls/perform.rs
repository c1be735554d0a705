//! Makes system calls by number, each in a process of its own, and says what came of it.
//!
//! Owns: the calls themselves. Invariant: no libc stands between a case and the kernel, and a call that blocks is interrupted until it
//! returns, so the answer does not depend on time. Does not know: which answers are right.
#![allow(unsafe_code)]

use std::arch::asm;

use super::table::{BUFFER, Case};

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It returned: 0 or an error number.
    Answered(i32),
    /// The process ended in it.
    Ended(i32),
    /// The process was killed in it.
    Killed(i32),
}

/// The door that a call goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// The architecture's own.
    Native,
    /// The door of 32-bit programs, which a 64-bit program can use as well.
    Interrupt,
}

const BUFFER_BYTES: usize = 1 << 16;
/// What is in the answer's place while there is none.
const NONE: i64 = i64::MAX;
/// How often a call that blocks is interrupted, in µs.
const INTERVAL: i64 = 10_000;

/// Where the calls are made from: memory that every child of this process shares, at an address that a table can name.
pub(super) struct Bench {
    answer: *mut i64,
}

extern "C" fn interrupted(_: libc::c_int) {}

impl Bench {
    pub(super) fn new() -> Bench {
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // The page behind what calls may write is for the answer.
        let bytes = BUFFER_BYTES + 4096;
        // SAFETY: a new mapping where nothing is.
        let mapped = unsafe { libc::mmap(BUFFER as *mut libc::c_void, bytes, protection, flags, -1, 0) };
        assert_eq!(mapped as u64, BUFFER, "the place of the buffer is free");
        // SAFETY: all zeroes is a valid action, and the handler does nothing. Without SA_RESTART: calls are to be interrupted.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = interrupted as *const () as libc::sighandler_t;
            assert_eq!(libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()), 0);
        }
        Bench { answer: mapped.wrapping_byte_add(BUFFER_BYTES).cast() }
    }

    /// Makes the call in a child.
    pub(super) fn make(&self, case: &Case, door: Door) -> Outcome {
        // SAFETY: the mapping is ours, and no child is alive.
        unsafe { self.answer.write_volatile(NONE) };
        // SAFETY: the child makes system calls and nothing else.
        let child = unsafe { libc::fork() };
        assert!(child >= 0, "fork: {}", std::io::Error::last_os_error());
        if child == 0 {
            // SAFETY: this is the child.
            unsafe { self.make_here(case, door) }
        }
        let mut status = 0;
        // SAFETY: the status outlives the call.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        // SAFETY: the mapping is ours, and the child is dead.
        let answer = unsafe { self.answer.read_volatile() };
        if libc::WIFSIGNALED(status) {
            Outcome::Killed(libc::WTERMSIG(status))
        } else if answer == NONE {
            Outcome::Ended(libc::WEXITSTATUS(status))
        } else {
            Outcome::Answered(if (-4095..0).contains(&answer) { -answer as i32 } else { 0 })
        }
    }

    /// # Safety
    /// In a child of a process that may have had threads: nothing here takes a lock or uses memory of its own.
    unsafe fn make_here(&self, case: &Case, door: Door) -> ! {
        let again = libc::timeval { tv_sec: 0, tv_usec: INTERVAL };
        let timer = libc::itimerval { it_interval: again, it_value: again };
        // SAFETY: the timer outlives the call; the arguments of a case are harmless, and this process ends at once. A child that the call
        // makes goes on here as well, on this stack or a copy of it, and ends itself without a return from any function.
        unsafe {
            call(libc::SYS_setitimer, [libc::ITIMER_REAL as u64, (&raw const timer) as u64, 0, 0, 0, 0]);
            let result = match (case.number, door) {
                // It is made by returning from a handler, and nobody comes back from it who did not.
                (libc::SYS_rt_sigreturn, Door::Native) => {
                    let own = call(libc::SYS_getpid, [0; 6]) as u64;
                    call(libc::SYS_kill, [own, libc::SIGALRM as u64, 0, 0, 0, 0])
                }
                (number, Door::Native) => call(number, case.arguments),
                (number, Door::Interrupt) => interrupt(number),
            };
            self.answer.write_volatile(result);
            call(libc::SYS_exit_group, [0; 6]);
            std::hint::unreachable_unchecked()
        }
    }
}

/// In place, so that a child which shares the stack, as after `vfork`, does not return into a frame that its parent still needs.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn call(number: libc::c_long, [a, b, c, d, e, f]: [u64; 6]) -> i64 {
    let mut result = number;
    // SAFETY: the caller answers for the arguments; the registers are those of a system call.
    unsafe {
        asm!("syscall", inlateout("rax") result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
             lateout("rcx") _, lateout("r11") _);
    }
    result
}

#[cfg(target_arch = "aarch64")]
#[inline(always)]
unsafe fn call(number: libc::c_long, [a, b, c, d, e, f]: [u64; 6]) -> i64 {
    let result: i64;
    // SAFETY: the caller answers for the arguments; the registers are those of a system call.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a => result, in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x5") f);
    }
    result
}

/// `int 0x80`, without arguments.
#[cfg(target_arch = "x86_64")]
unsafe fn interrupt(number: libc::c_long) -> i64 {
    let mut result = number;
    // SAFETY: as for `call`. RBX, the first argument there, is kept by hand, since the compiler keeps it for itself.
    unsafe {
        asm!("push rbx", "xor ebx, ebx", "int 0x80", "pop rbx", inlateout("rax") result,
             in("rcx") 0, in("rdx") 0, in("rsi") 0, in("rdi") 0, lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _);
    }
    result
}

#[cfg(not(target_arch = "x86_64"))]
unsafe fn interrupt(_: libc::c_long) -> i64 {
    -i64::from(libc::ENOSYS)
}
