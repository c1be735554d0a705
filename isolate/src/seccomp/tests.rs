//! The compiled program is run, instruction by instruction, and compared with the policy as it is written down.

use super::rules::{Case, Half, Rule};
use super::{ARCHITECTURE, Filter, FilterError, ROWS, Row, policy, unpacking};

pub(super) const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const ABSENT: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// A machine for the few instructions that the program uses; its answer, and how many it took.
fn run(program: &[libc::sock_filter], architecture: u32, number: u32, arguments: &[u64; 6]) -> (u32, usize) {
    let (mut at, mut accumulator) = (0, 0_u32);
    for steps in 1..=program.len() {
        let instruction = &program[at];
        at += 1;
        match instruction.code {
            0x20 => {
                accumulator = match instruction.k {
                    0 => number,
                    4 => architecture,
                    place @ 16..64 => (arguments[(place as usize - 16) / 8] >> (8 * (place % 8))) as u32,
                    place => panic!("nothing lies at {place}"),
                }
            }
            0x54 => accumulator &= instruction.k,
            0x05 => at += instruction.k as usize,
            0x15 => at += usize::from(if accumulator == instruction.k { instruction.jt } else { instruction.jf }),
            0x35 => at += usize::from(if accumulator >= instruction.k { instruction.jt } else { instruction.jf }),
            0x06 => return (instruction.k, steps),
            code => panic!("an instruction that the kernel would have to be asked about: {code:#x}"),
        }
    }
    panic!("it does not end")
}

pub(super) fn demanded(rule: Rule, arguments: &[u64; 6]) -> u32 {
    if rule.allows(arguments) { ALLOW } else { REFUSE }
}

/// Arguments around everything that the rule mentions: each value, its neighbours and single other bits, in both halves.
pub(super) fn samples(rule: Rule) -> Vec<[u64; 6]> {
    let (Rule::Only(cases) | Rule::Except(cases)) = rule else {
        return vec![[0; 6], [u64::MAX; 6]];
    };
    let mut samples = vec![[0; 6], [u64::MAX; 6]];
    for case in cases {
        let mut exact = [0_u64; 6];
        for argument in *case {
            let shift = if argument.half == Half::Low { 0 } else { 32 };
            exact[usize::from(argument.index)] |= u64::from(argument.value) << shift;
        }
        samples.push(exact);
        for argument in *case {
            let index = usize::from(argument.index);
            let changed = (0..64).map(|bit| exact[index] ^ (1 << bit));
            samples.extend(changed.chain([exact[index].wrapping_add(1), exact[index].wrapping_sub(1)]).map(|value| {
                let mut sample = exact;
                sample[index] = value;
                sample
            }));
        }
    }
    samples
}

/// The lists and what became of each.
fn lists() -> [(&'static [&'static [Row]], &'static [libc::sock_filter]); 2] {
    let program = |filter: Result<&'static Filter, FilterError>| filter.expect("the policy compiles").program();
    [(ROWS, program(Filter::shared())), (unpacking::ROWS, program(Filter::unpacking()))]
}

#[test]
fn the_program_says_what_the_policy_says() {
    let architecture = ARCHITECTURE.expect("this architecture has a table");
    let numbers = || (0..1024).chain([0x3fff_ffff, 0x4000_0000, 0x4000_0001, 0x4000_0027, 0x7fff_ffff, u32::MAX]);
    for ((rows, program), number) in lists().into_iter().flat_map(|list| numbers().map(move |number| (list, number))) {
        let row = rows.iter().copied().flatten().find(|row| row.number as u32 == number);
        let absent = policy::unimplemented().any(|known| known as u32 == number);
        for arguments in row.map_or_else(|| samples(Rule::Always), |row| samples(row.rule)) {
            let demanded = match row {
                Some(row) => demanded(row.rule, &arguments),
                None if absent => ABSENT,
                None => REFUSE,
            };
            let (answer, _) = run(program, architecture, number, &arguments);
            assert_eq!(answer, demanded, "call {number} {} with {arguments:x?}", row.map_or("", |row| row.name));
        }
    }
}

#[test]
fn other_architectures_are_killed() {
    // 32-bit x86 and ARM.
    for architecture in [0x4000_0003, 0x4000_0028, 0] {
        for (_, program) in lists() {
            let (answer, _) = run(program, architecture, libc::SYS_read as u32, &[0; 6]);
            assert_eq!(answer, libc::SECCOMP_RET_KILL_PROCESS);
        }
    }
}

/// The kernel runs it for every number at every start.
#[test]
fn numbers_are_found_by_halving() {
    let architecture = ARCHITECTURE.expect("this architecture has a table");
    for row in ROWS.iter().copied().flatten().filter(|row| matches!(row.rule, Rule::Always)) {
        let (_, steps) = run(lists()[0].1, architecture, row.number as u32, &[0; 6]);
        assert!(steps <= 16, "{} takes {steps} instructions", row.name);
    }
}

/// A condition that never decides is one that nobody need review.
#[test]
fn no_condition_is_implied_by_the_others() {
    for row in lists().into_iter().flat_map(|(rows, _)| rows.iter().copied().flatten()) {
        let (Rule::Only(cases) | Rule::Except(cases)) = row.rule else { continue };
        for (index, case) in cases.iter().enumerate() {
            let met = |case: &Case, arguments: &[u64; 6]| case.iter().all(|argument| argument.holds(arguments));
            let others = || cases.iter().enumerate().filter(|(other, _)| *other != index);
            let alone =
                |arguments: &[u64; 6]| met(case, arguments) && !others().any(|(_, other)| met(other, arguments));
            assert!(samples(row.rule).iter().any(alone), "{}: condition {index} decides nothing", row.name);
        }
    }
}
