//! From the policy to one program for the kernel.
//!
//! Owns: the order of the program. Invariant: numbers are found by halving, never one after the other: the kernel runs the program once for
//! every number when it is installed, to learn which ones need not be looked at again, and a start waits for that. Does not know: which
//! calls are allowed.

use libc::sock_filter;

use super::rules::{Argument, Case, Half, Rule};

/// What to do about the calls from one number on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) first: u32,
    pub(super) verdict: Verdict,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Verdict {
    /// EPERM.
    Refuse,
    /// ENOSYS.
    Absent,
    Judge(Rule),
}

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
const SKIP: u32 = libc::BPF_JMP | libc::BPF_JA;
const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const IF_AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// Places in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

const fn plain(code: u32, k: u32) -> sock_filter {
    branch(code, k, 0, 0)
}

/// Skips `jt` instructions if the condition holds, `jf` if not.
const fn branch(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}

const fn refuse(errno: i32) -> sock_filter {
    plain(RETURN, libc::SECCOMP_RET_ERRNO | errno as u32)
}

const ALLOW: sock_filter = plain(RETURN, libc::SECCOMP_RET_ALLOW);
const REFUSE: sock_filter = refuse(libc::EPERM);
const ABSENT: sock_filter = refuse(libc::ENOSYS);

/// The program. `spans` are in order of their numbers, and the first begins at 0.
pub(super) fn program(architecture: u32, spans: &[Span]) -> Vec<sock_filter> {
    let mut program = vec![
        plain(LOAD, ARCHITECTURE),
        branch(IF_EQUAL, architecture, 1, 0),
        plain(RETURN, libc::SECCOMP_RET_KILL_PROCESS),
        plain(LOAD, NUMBER),
    ];
    program.extend(search(spans));
    program
}

/// Halves until one span is left.
fn search(spans: &[Span]) -> Vec<sock_filter> {
    if let [span] = spans {
        return judge(span.verdict);
    }
    let (lower, upper) = spans.split_at(spans.len() / 2);
    let Some(middle) = upper.first() else {
        // No spans at all: nothing is allowed.
        return vec![REFUSE];
    };
    let (below, above) = (search(lower), search(upper));
    let mut code = match u8::try_from(below.len()) {
        Ok(length) => vec![branch(IF_AT_LEAST, middle.first, length, 0)],
        Err(_) => vec![branch(IF_AT_LEAST, middle.first, 0, 1), plain(SKIP, below.len() as u32)],
    };
    code.extend(below);
    code.extend(above);
    code
}

fn judge(verdict: Verdict) -> Vec<sock_filter> {
    match verdict {
        Verdict::Refuse => vec![REFUSE],
        Verdict::Absent => vec![ABSENT],
        Verdict::Judge(Rule::Always) => vec![ALLOW],
        Verdict::Judge(Rule::Only(cases)) => cases_then(cases, ALLOW, REFUSE),
        Verdict::Judge(Rule::Except(cases)) => cases_then(cases, REFUSE, ALLOW),
    }
}

fn cases_then(cases: &[Case], holds: sock_filter, otherwise: sock_filter) -> Vec<sock_filter> {
    cases.iter().flat_map(|case| conditions(case, holds)).chain([otherwise]).collect()
}

/// Ends the program with `holds` if all do; falls through behind itself if one does not.
fn conditions(case: Case, holds: sock_filter) -> Vec<sock_filter> {
    let mut code = vec![holds];
    // From the last to the first, because each jumps over what follows.
    for argument in case.iter().rev() {
        let over = code.len() as u8;
        let jump = if argument.equal { (0, over) } else { (over, 0) };
        let mut condition = vec![plain(LOAD, place(argument))];
        if argument.mask != u32::MAX {
            condition.push(plain(AND, argument.mask));
        }
        condition.push(branch(IF_EQUAL, argument.value, jump.0, jump.1));
        condition.extend(code);
        code = condition;
    }
    code
}

/// Where half an argument lies: the kernel stores it as a 64-bit number in the processor's own byte order.
fn place(argument: &Argument) -> u32 {
    let second = (argument.half == Half::High) != cfg!(target_endian = "big");
    ARGUMENTS + 8 * u32::from(argument.index) + 4 * u32::from(second)
}
