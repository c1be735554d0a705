//! A stopped process that is looked at through ptrace.
//!
//! Owns: seizing, reading registers, and having it perform a system call that only tells. Invariant: the process is traced by the calling
//! thread until this is dropped. What it says is taken for what it is: the word of whoever runs there. Does not know: what it is read for.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use super::script::Registers;
use crate::sys::{self, Word};

/// From `linux/ptrace.h`; libc has them not for every libc.
const GET_SIGNAL_MASK: libc::c_uint = 0x420a;
const GET_RSEQ_CONFIGURATION: libc::c_uint = 0x420f;

/// How long a process may take to stop, and the pause between two looks.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_micros(50);

/// A stopped process.
pub(crate) struct Tracee {
    pid: i32,
    registers: libc::user_regs_struct,
    memory: File,
}

impl Tracee {
    /// Stops a process.
    pub(crate) fn seize(pid: i32) -> io::Result<Tracee> {
        // SAFETY: these requests take no addresses.
        unsafe {
            request(libc::PTRACE_SEIZE, pid, 0, 0)?;
            request(libc::PTRACE_INTERRUPT, pid, 0, 0)?;
        }
        let memory = File::open(format!("/proc/{pid}/mem"));
        // SAFETY: all zeroes is a valid set of registers.
        let registers = unsafe { std::mem::zeroed() };
        let mut tracee = Tracee { pid, registers, memory: memory? };
        tracee.wait_for_stop()?;
        tracee.registers = tracee.read_registers()?;
        Ok(tracee)
    }

    /// It may be where no signal but the last reaches it, as in `vfork`: then it is not waited for.
    fn wait_for_stop(&self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut status = 0;
            // SAFETY: the status outlives the call.
            match unsafe { libc::waitpid(self.pid, &raw mut status, libc::__WALL | libc::WNOHANG) } {
                0 if Instant::now() < deadline => thread::sleep(LOOK),
                0 => return Err(io::Error::from(io::ErrorKind::TimedOut)),
                -1 => return Err(io::Error::last_os_error()),
                _ if libc::WIFSTOPPED(status) => return Ok(()),
                _ => return Err(io::Error::other("it ended while it was looked at")),
            }
        }
    }

    fn read_registers(&self) -> io::Result<libc::user_regs_struct> {
        // SAFETY: all zeroes is a valid set of registers.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        // SAFETY: room for the registers, which outlives the call.
        unsafe { request(libc::PTRACE_GETREGS, self.pid, 0, (&raw mut registers) as Word) }?;
        Ok(registers)
    }

    /// Its memory.
    pub(crate) fn memory(&self) -> &File {
        &self.memory
    }

    /// The system call that it stopped in, its first argument, and what it would have returned.
    pub(crate) fn interrupted_call(&self) -> (u64, u64, i64) {
        (self.registers.orig_rax, self.registers.rdi, self.registers.rax.cast_signed())
    }

    /// Its registers.
    pub(crate) fn registers(&self) -> Registers {
        let r = &self.registers;
        Registers {
            general: [
                r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15, r.rdi, r.rsi, r.rbp, r.rbx, r.rdx, r.rax, r.rcx,
                r.rsp, r.rip, r.eflags,
            ],
            fs_base: r.fs_base,
            gs_base: r.gs_base,
        }
    }

    /// The state of its floating-point unit, as FXSAVE writes it.
    pub(crate) fn floating_point(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0_u8; size_of::<libc::user_fpregs_struct>()];
        // SAFETY: room for the state, which outlives the call.
        unsafe { request(libc::PTRACE_GETFPREGS, self.pid, 0, bytes.as_mut_ptr() as Word) }?;
        // What is behind would be taken for a description of more state than there is.
        const DESCRIBED_AT: usize = 464;
        bytes[DESCRIBED_AT..].fill(0);
        Ok(bytes)
    }

    /// The signals that it blocks.
    pub(crate) fn blocked_signals(&self) -> io::Result<u64> {
        let mut mask = 0_u64;
        // SAFETY: room for the mask, of the size given as the address.
        unsafe { request(GET_SIGNAL_MASK, self.pid, 8, (&raw mut mask) as Word) }?;
        Ok(mask)
    }

    /// Where its restartable sequences are registered: address, length and signature.
    pub(crate) fn restartable(&self) -> io::Result<Option<[u64; 3]>> {
        let mut words = [0_u64; 3];
        let bytes = size_of_val(&words) as Word;
        // SAFETY: room for the configuration, of the size given as the address.
        unsafe { request(GET_RSEQ_CONFIGURATION, self.pid, bytes, words.as_mut_ptr() as Word) }?;
        let (length, signature) = (words[1] & 0xffff_ffff, words[1] >> 32);
        Ok((words[0] != 0).then_some([words[0], length, signature]))
    }

    /// Head and length of its list of robust locks.
    pub(crate) fn robust_list(&self) -> io::Result<[u64; 2]> {
        let mut list = [0_u64; 2];
        let [head, length] = &mut list;
        let arguments = [self.pid.into(), std::ptr::from_mut(head) as Word, std::ptr::from_mut(length) as Word];
        // SAFETY: both places outlive the call.
        unsafe { sys::call(libc::SYS_get_robust_list, arguments) }.map_err(io::Error::from_raw_os_error)?;
        Ok(list)
    }

    /// Has it perform a system call that writes what it tells to one place, and reads that.
    pub(crate) fn ask<const BYTES: usize>(
        &self,
        number: libc::c_long,
        arguments: impl FnOnce(u64) -> [u64; 4],
    ) -> io::Result<[u8; BYTES]> {
        /// Below everything that a function without a frame may use.
        const BELOW: u64 = 1024;
        /// Bytes of the instruction that makes a system call; the one that it stopped in is before where it goes on.
        const INSTRUCTION: u64 = 2;
        let place = self.registers.rsp.wrapping_sub(BELOW) & !63;
        let [first, second, third, fourth] = arguments(place);
        let mut registers = self.registers;
        registers.rax = number as u64;
        registers.orig_rax = u64::MAX;
        (registers.rdi, registers.rsi, registers.rdx, registers.r10) = (first, second, third, fourth);
        registers.rip = registers.rip.wrapping_sub(INSTRUCTION);
        // SAFETY: the registers outlive the calls; a step takes no address.
        let after = unsafe {
            request(libc::PTRACE_SETREGS, self.pid, 0, (&raw const registers) as Word)?;
            request(libc::PTRACE_SINGLESTEP, self.pid, 0, 0)?;
            self.wait_for_stop()?;
            let after = self.read_registers()?;
            request(libc::PTRACE_SETREGS, self.pid, 0, (&raw const self.registers) as Word)?;
            after
        };
        match after.rax.cast_signed() {
            errno @ -4095..0 => return Err(io::Error::from_raw_os_error(-errno as i32)),
            _ if after.rip != self.registers.rip => return Err(io::Error::other("it did not make the call")),
            _ => {}
        }
        let mut told = [0; BYTES];
        self.memory.read_exact_at(&mut told, place)?;
        Ok(told)
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        // SAFETY: no addresses. It fails if the process is gone.
        let _ = unsafe { request(libc::PTRACE_DETACH, self.pid, 0, 0) };
    }
}

/// One ptrace request.
///
/// # Safety
/// The address and the data must be what this request demands.
unsafe fn request(request: libc::c_uint, pid: i32, address: Word, data: Word) -> io::Result<Word> {
    // SAFETY: passed on to the caller.
    unsafe { sys::call(libc::SYS_ptrace, [request.into(), pid.into(), address, data]) }
        .map_err(io::Error::from_raw_os_error)
}
