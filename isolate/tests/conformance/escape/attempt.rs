//! One thing that a hostile program tries, and what must come of it on either side of the boundary.

use std::collections::BTreeMap;

use serde_json::Value;

/// An attempt: a Python program that raises what the kernel answers, and ends quietly if it got what it wanted. See `inside.py`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub(super) name: &'static str,
    pub(super) program: &'static str,
    /// What may refuse it in a sandbox: any of these, and nothing else, so that a program that is wrong in itself does not pass.
    pub(super) refused_by: &'static [Refusal],
    /// What it comes to with the host's root and no sandbox: the proof that it is an attempt at all.
    pub(super) outside: Outside,
}

/// How an attempt is turned down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Errno(i32),
    Signal(i32),
}

/// What an attempt comes to where nothing confines it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outside {
    /// It succeeds.
    Done,
    /// It reaches what a sandbox keeps it from: it succeeds, or fails for another reason than in a sandbox.
    Reached,
    /// It is not tried outside, for this reason.
    NotTried(&'static str),
}

/// What became of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    Refused(Refusal),
}

pub(super) type Outcomes = BTreeMap<String, Outcome>;

/// Reads the word on one attempt.
pub(super) fn outcome(line: &str) -> (String, Outcome) {
    let said: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
    let name = said[0].as_str().expect("a name").to_owned();
    let number = i32::try_from(said[2].as_i64().expect("a number")).expect("a small one");
    let outcome = match said[1].as_str().expect("a word") {
        "done" => Outcome::Done,
        "refused" => Outcome::Refused(Refusal::Errno(number)),
        "killed" => Outcome::Refused(Refusal::Signal(number)),
        other => panic!("{name}: {other}"),
    };
    (name, outcome)
}

/// Shorter tables.
pub(super) const fn attempt(
    name: &'static str,
    program: &'static str,
    refused_by: &'static [Refusal],
    outside: Outside,
) -> Attempt {
    Attempt { name, program, refused_by, outside }
}

/// By the filter of system calls, or by a capability that is missing: nothing of it was done.
pub(super) const FORBIDDEN: &[Refusal] = &[Refusal::Errno(libc::EPERM)];
/// By the filter, as a call that this kernel might not have.
pub(super) const UNKNOWN: &[Refusal] = &[Refusal::Errno(libc::ENOSYS)];
/// A container runtime cannot be told of a call without a name.
pub(super) const UNKNOWN_OR_FORBIDDEN: &[Refusal] = &[Refusal::Errno(libc::ENOSYS), Refusal::Errno(libc::EPERM)];
/// It leads to what a sandbox has as well, or nowhere.
pub(super) const LEADS_NOWHERE: &[Refusal] = &[Refusal::Errno(libc::ENODATA)];
/// There is no such file in a sandbox, or it is masked and empty, or the way there is somebody else's.
pub(super) const HIDDEN: &[Refusal] = &[
    Refusal::Errno(libc::ENOENT),
    Refusal::Errno(libc::ENODATA),
    Refusal::Errno(libc::EACCES),
    Refusal::Errno(libc::EPERM),
];
/// There is no such file in a sandbox, or it is masked and empty.
pub(super) const ABSENT: &[Refusal] = &[Refusal::Errno(libc::ENOENT), Refusal::Errno(libc::ENODATA)];
/// It cannot be written: read-only, another's, or not there.
pub(super) const UNWRITABLE: &[Refusal] = &[
    Refusal::Errno(libc::EROFS),
    Refusal::Errno(libc::EACCES),
    Refusal::Errno(libc::EPERM),
    Refusal::Errno(libc::ENOENT),
    Refusal::Errno(libc::ENODATA),
];
/// There is no such process in a sandbox.
pub(super) const NOBODY: &[Refusal] = &[Refusal::Errno(libc::ESRCH), Refusal::Errno(libc::ENOENT)];

/// What a kernel answers that was built without the thing.
pub(super) fn is_lack(outcome: Outcome) -> bool {
    let lacks = [
        libc::ENOSYS,
        libc::ENOENT,
        libc::EAFNOSUPPORT,
        libc::EPROTONOSUPPORT,
        libc::EOPNOTSUPP,
        libc::ENODEV,
        libc::ENXIO,
    ];
    lacks.into_iter().any(|errno| outcome == Outcome::Refused(Refusal::Errno(errno)))
}
