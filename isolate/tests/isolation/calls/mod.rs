//! Every system call number, made for real in a sandbox: what the allow-list lets through and what it refuses.
//!
//! Owns: the tests. Invariant: a row without a case, and a condition of a row that no case meets from both sides, fail. Does not know:
//! how the filter is compiled.

mod perform;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use libc::c_long;
use vilya_isolate::{Bind, allowed_calls};

use crate::support::{Room, spec};
use perform::{Bench, Door, Outcome};
use table::{Case, PASS, REFUSE, STATUS};

/// Set for the process that makes the calls.
const ROLE: &str = "VILYA_ISOLATE_TEST_CALLS";
/// Numbers up to here are made: every call of any kernel so far, those that only x32 programs have, and some that nobody has.
const LAST: c_long = 600;
/// What marks a call as one of an x32 program.
const X32: c_long = 0x4000_0000;

/// Calls, as a 64-bit number finds them and as a 32-bit one does: exit and write, write and stat, execve and munmap, getpid and writev,
/// socketcall and getuid, mount and getitimer.
const THIRTY_TWO_BIT: [c_long; 6] = [1, 4, 11, 20, 102, 21];

/// `uretprobe` and `uprobe` of x86-64: the kernel takes these before any filter, because its own probes make them; whoever else does is
/// killed or refused by the calls themselves.
const PROBES: [c_long; 2] = [335, 336];

fn nameless(number: c_long) -> Case {
    Case { name: "", number, arguments: [0; 6] }
}

fn has_row(number: c_long) -> bool {
    allowed_calls().any(|call| call.number() == number)
}

/// Everything that is made, in this order, by the process inside.
fn all() -> Vec<(Case, Door)> {
    let listed = PASS.iter().chain(REFUSE).copied().flatten().copied();
    let rest = (0..=LAST).filter(|number| !has_row(*number)).map(nameless);
    let x32 = PASS.iter().copied().flatten().map(|case| Case { number: case.number | X32, ..*case });
    let x32 = x32.filter(|_| cfg!(target_arch = "x86_64"));
    let native = listed.chain(rest).chain(x32).map(|case| (case, Door::Native));
    let interrupts = THIRTY_TWO_BIT.map(nameless).map(|case| (case, Door::Interrupt));
    native.chain(interrupts.into_iter().filter(|_| cfg!(target_arch = "x86_64"))).collect()
}

/// Does nothing unless this process was started to make the calls.
#[test]
fn the_calls_when_this_process_makes_them() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let bench = Bench::new();
    let mut lines = String::new();
    for (index, (case, door)) in all().iter().enumerate() {
        let (kind, value) = match bench.make(case, *door) {
            Outcome::Answered(errno) => ("answered", errno),
            Outcome::Ended(status) => ("ended", status),
            Outcome::Killed(signal) => ("killed", signal),
        };
        writeln!(lines, "made {index} {kind} {value}").expect("memory");
    }
    print!("\n{lines}");
}

/// Makes all calls in a sandbox.
fn made_in(mut room: Room) -> Vec<(Case, Door, Outcome)> {
    let own = std::env::current_exe().expect("this program");
    let name = own.file_name().and_then(|name| name.to_str()).expect("its name");
    let program = Path::new("/function").join(name);
    let test = "calls::the_calls_when_this_process_makes_them";
    let command = [program.to_str().expect("its path"), "--exact", test, "--nocapture", "--test-threads=1"];
    let mut spec = spec(&command);
    spec.environment.push((ROLE.into(), "1".into()));
    let folder = own.parent().expect("a folder").into();
    spec.binds = vec![Bind { source: folder, target: "/function".into(), read_only: true }];
    let is_made_ahead = room.native.wait_until_prepared(Duration::from_secs(20));
    let running = room.start(&spec).expect("it starts");
    assert_eq!(running.started.stages.prepared, is_made_ahead);
    println!("in a sandbox that was made ahead: {is_made_ahead}");
    let ran = running.finish();
    assert!(ran.succeeded(), "{ran:?}");
    let said: BTreeMap<usize, Outcome> = ran.stdout.lines().filter_map(parse).collect();
    let all = all();
    assert_eq!(said.len(), all.len(), "every call was made");
    all.into_iter().enumerate().map(|(index, (case, door))| (case, door, said[&index])).collect()
}

fn parse(line: &str) -> Option<(usize, Outcome)> {
    let mut words = line.strip_prefix("made ")?.split(' ');
    let index = words.next()?.parse().ok()?;
    let kind = words.next()?;
    let value = words.next()?.parse().ok()?;
    let outcome = match kind {
        "answered" => Outcome::Answered(value),
        "ended" => Outcome::Ended(value),
        "killed" => Outcome::Killed(value),
        _ => return None,
    };
    Some((index, outcome))
}

/// The documented answer to a call without a row: libc takes its older way from ENOSYS, everything else is forbidden.
fn refusal(number: c_long) -> i32 {
    let newer_than_the_list = (libc::SYS_futex_waitv..512).contains(&number);
    if number == libc::SYS_clone3 || newer_than_the_list { libc::ENOSYS } else { libc::EPERM }
}

#[test]
fn every_number_gets_what_the_list_says_in_a_sandbox() {
    let mut unknown = Vec::new();
    for room in [Room::new(), Room::unprepared()] {
        for (case, door, outcome) in made_in(room) {
            let allowed = allowed_calls().any(|call| call.number() == case.number && call.allows(&case.arguments));
            let right = match (door, outcome) {
                // A kernel without 32-bit programs faults instead.
                (Door::Interrupt, Outcome::Killed(libc::SIGSYS | libc::SIGSEGV)) => true,
                (Door::Interrupt, _) => false,
                (_, Outcome::Answered(libc::ENOSYS)) if allowed => {
                    unknown.push(case);
                    true
                }
                (_, Outcome::Answered(errno)) if allowed => errno != libc::EPERM,
                (_, Outcome::Ended(status)) => {
                    allowed && [libc::SYS_exit, libc::SYS_exit_group].contains(&case.number) && status as u64 == STATUS
                }
                (_, Outcome::Answered(libc::ENXIO)) if PROBES.contains(&case.number) => true,
                (_, Outcome::Answered(errno)) if has_row(case.number) => errno == libc::EPERM,
                (_, Outcome::Answered(errno)) => errno == refusal(case.number),
                (_, Outcome::Killed(signal)) => signal == libc::SIGILL && PROBES.contains(&case.number),
            };
            assert!(right, "{case:x?} through {door:?}: {outcome:?}");
        }
    }
    // The kernel's own answer if it is the same where no filter is.
    let bench = Bench::new();
    for case in unknown {
        assert_eq!(bench.make(&case, Door::Native), Outcome::Answered(libc::ENOSYS), "{}", case.name);
        println!("this kernel has no {}", case.name);
    }
}

#[test]
fn every_row_and_every_condition_has_its_cases() {
    let of = |lists: &[&[Case]], number| -> Vec<Case> {
        lists.iter().copied().flatten().filter(|case| case.number == number).copied().collect()
    };
    for call in allowed_calls() {
        let (passing, refused) = (of(PASS, call.number()), of(REFUSE, call.number()));
        let name = call.name();
        assert!(!passing.is_empty(), "{name} has no case in PASS: add one with which it returns at once");
        assert!(passing.iter().all(|case| call.allows(&case.arguments)), "{name}: a case of PASS is not allowed");
        assert!(!refused.iter().any(|case| call.allows(&case.arguments)), "{name}: a case of REFUSE is allowed");
        assert_eq!(refused.is_empty(), call.conditions() == 0, "{name}: conditions are met from both sides");
        for condition in 0..call.conditions() {
            let met = passing.iter().chain(&refused).any(|case| call.holds(condition, &case.arguments));
            assert!(met, "{name}: no case meets condition {condition}");
        }
    }
    let rows: BTreeSet<c_long> = allowed_calls().map(|call| call.number()).collect();
    let listed = PASS.iter().chain(REFUSE).copied().flatten();
    let stray: Vec<_> = listed.filter(|case| !rows.contains(&case.number)).collect();
    assert!(stray.is_empty(), "cases of calls that have no row: {stray:?}");
}
