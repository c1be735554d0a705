//! The ways out of a sandbox that are known, each tried by a program inside and judged from outside.
//!
//! Owns: attempts, the proof that each is one, and the look at the host before and after. An attempt runs in a process of its own, first
//! with the host's root and nothing around it, where it must succeed or come as far as the kernel lets anybody come; then in a sandbox of
//! every mechanism, where it must be refused by what is meant to refuse it, and the host must be as it was.
//! What a kernel here lacks, or what root here may not do, is printed.

mod attempt;
mod calls;
mod host;
mod kernel;
mod masks;
mod namespaces;
mod others;
mod privilege;
mod reaching;
mod smuggling;
mod subject;
mod surroundings;

use attempt::{Attempt, Outcome, Outside, Refusal, is_lack};
use host::Host;
use subject::{Form, Subject, outside};
use surroundings::Surroundings;

use crate::support::{Kind, Room, each_of};

/// Every mechanism, and every way in which the native one makes sandboxes.
const KINDS: [Kind; 6] = {
    let [native, crun, runc, youki, docker] = Kind::ALL;
    [native, Kind::Prepared, crun, runc, youki, docker]
};

const CAP_SYS_RESOURCE: u64 = 1 << 24;
/// Of the capabilities, those that attempts need outside: all but the one that virtual machines often withhold.
const CAPABILITIES: u64 = 0x1_ffff_ffff & !CAP_SYS_RESOURCE;

#[test]
fn through_namespaces() {
    nothing_gets_out(&[namespaces::NAMESPACES]);
}

#[test]
fn through_mounts_and_groups() {
    nothing_gets_out(&[namespaces::MOUNTS]);
}

#[test]
fn through_system_calls() {
    nothing_gets_out(&[kernel::CALLS, kernel::OWN_CALLS]);
}

#[test]
fn through_settings_and_devices() {
    nothing_gets_out(&[kernel::SETTINGS]);
}

#[test]
fn to_other_processes() {
    nothing_gets_out(&[others::PROCESSES]);
}

/// Where processes can write their own turn to be killed, the bound is set with a capability that an engine may lack as well.
#[test]
fn out_of_turn_when_memory_is_short() {
    let [made_here @ .., docker] = KINDS;
    let mut kinds = made_here.to_vec();
    if effective_capabilities() & CAP_SYS_RESOURCE != 0 {
        kinds.push(docker);
    } else {
        println!("not enforced by {docker:?} here: an engine without CAP_SYS_RESOURCE bounds nobody's turn");
    }
    each_of(&kinds, |room| deny(room, others::TURNS, Form::Whole, &mut Surroundings::plain()));
}

#[test]
fn to_files() {
    nothing_gets_out(&[others::FILES]);
}

#[test]
fn around_what_is_masked() {
    nothing_gets_out(&[masks::NAMES, masks::MASKS]);
}

#[test]
fn while_paths_change() {
    nothing_gets_out(&[masks::RACES]);
}

#[test]
fn by_descriptors_that_change_hands() {
    nothing_gets_out(&[smuggling::SMUGGLING]);
}

#[test]
fn through_privileged_programs() {
    nothing_gets_out(&[privilege::PRIVILEGES]);
    each_of(&KINDS, |room| deny(room, privilege::PRIVILEGES, Form::Image, &mut Surroundings::plain()));
}

#[test]
fn over_the_network() {
    nothing_gets_out(&[others::NETWORK, reaching::LINKS, reaching::OPTIONS]);
}

/// What a sandbox may reach of the host's loopback opens nothing else.
#[test]
fn past_the_ports_of_the_host_that_it_reaches() {
    let attempts = [others::NETWORK, reaching::LINKS, reaching::OPTIONS, reaching::PORTS].concat();
    prove(&attempts, &mut Surroundings::with_a_service());
    each_of(&[Kind::Native], |room| deny(room, &attempts, Form::Whole, &mut Surroundings::with_a_service()));
}

/// What a sandbox may reach of other machines opens nothing else.
#[test]
fn past_the_machines_that_it_reaches() {
    let Some(mut surroundings) = Surroundings::with_machines("escape::past_the_machines_that_it_reaches") else {
        return;
    };
    let attempts = [reaching::LINKS, reaching::OPTIONS, reaching::MACHINES].concat();
    prove(&attempts, &mut surroundings);
    deny(&mut surroundings.let_out(), &attempts, Form::Whole, &mut surroundings);
}

fn nothing_gets_out(tables: &[&[Attempt]]) {
    let attempts: Vec<Attempt> = tables.concat();
    let mut plain = Surroundings::plain();
    prove(&attempts, &mut plain);
    each_of(&KINDS, |room| {
        let kind = room.kind;
        let mut deny = |form| deny(room, &attempts, form, &mut Surroundings::plain());
        deny(Form::Whole);
        if matches!(kind, Kind::Prepared) {
            [Form::Copied, Form::Loaded].into_iter().for_each(deny);
        }
    });
}

/// Has each attempt made where nothing stands in its way.
fn prove(attempts: &[Attempt], surroundings: &mut Surroundings) {
    if effective_capabilities() & CAPABILITIES != CAPABILITIES {
        println!("not proved here: only a root with all of its capabilities can make these attempts outside");
        return;
    }
    let mut host = Host::new(surroundings.told());
    let (before, quiet) = (host.look(), surroundings.look());
    let tried: Vec<Attempt> =
        attempts.iter().filter(|attempt| !matches!(attempt.outside, Outside::NotTried(_))).copied().collect();
    let outcomes = outside(&host, &tried);
    let mut wrong = Vec::new();
    for attempt in &tried {
        let outcome = outcomes[attempt.name];
        let reached = match attempt.outside {
            Outside::Done => outcome == Outcome::Done,
            _ => !refused_as_meant(attempt, outcome),
        };
        if outcome == Outcome::Refused(Refusal::Errno(libc::ENOSYS)) || !reached && is_lack(outcome) {
            println!("not proved here: {}: {outcome:?}", attempt.name);
        } else if !reached {
            wrong.push(format!("{}: {outcome:?}", attempt.name));
        }
    }
    assert!(wrong.is_empty(), "these are no attempts, not even outside: {wrong:#?}");
    // Whether harm shows is proved as well, by those that do harm.
    let after = host.look();
    let harms = ["kill a process of the host", "change its code", "a port of the host"];
    if tried.iter().any(|attempt| harms.contains(&attempt.name)) {
        assert_ne!(before, after, "harm that was done does not show");
    } else {
        assert_eq!(before, after, "an attempt outside must do no lasting harm");
    }
    if !surroundings.told().is_empty() {
        assert_ne!(quiet, surroundings.look(), "what was reached around does not show");
    }
}

/// Has each attempt made in a sandbox.
fn deny(room: &mut Room, attempts: &[Attempt], form: Form, surroundings: &mut Surroundings) {
    let kind = room.kind;
    println!("on one of form {form:?}");
    let mut host = Host::new(surroundings.told());
    let mut subject = Subject::start(room, &host, form, surroundings.reach());
    let before = (host.look(), subject.look(), surroundings.look());
    let outcomes = subject.attack(&host, attempts);
    let after = (host.look(), subject.look(), surroundings.look());
    assert_eq!(before, after, "{kind:?}: the host is not as it was");
    subject.end();
    let wrong: Vec<String> = attempts
        .iter()
        .map(|attempt| (attempt, outcomes[attempt.name]))
        .filter(|(attempt, outcome)| !refused_as_meant(attempt, *outcome))
        .map(|(attempt, outcome)| format!("{}: {outcome:?}", attempt.name))
        .collect();
    assert!(wrong.is_empty(), "{kind:?}, {form:?}: not refused as it should be: {wrong:#?}");
}

fn refused_as_meant(attempt: &Attempt, outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Refused(refusal) if attempt.refused_by.contains(&refusal))
}

fn effective_capabilities() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("our own status");
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("what it may");
    u64::from_str_radix(line.trim(), 16).expect("a set of bits")
}

#[test]
fn every_attempt_has_a_name_of_its_own() {
    let all = [
        namespaces::NAMESPACES,
        namespaces::MOUNTS,
        kernel::CALLS,
        kernel::OWN_CALLS,
        kernel::SETTINGS,
        others::PROCESSES,
        others::TURNS,
        others::FILES,
        others::NETWORK,
        privilege::PRIVILEGES,
        masks::NAMES,
        masks::RACES,
        masks::MASKS,
        smuggling::SMUGGLING,
        reaching::LINKS,
        reaching::OPTIONS,
        reaching::PORTS,
        reaching::MACHINES,
    ];
    let mut names: Vec<&str> = all.concat().iter().map(|attempt| attempt.name).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    println!("{count} attempts");
}
