//! The policy in the words of others: the `linux.seccomp` object of an OCI bundle, which container engines take too.
//!
//! Owns: the translation. Invariant: it allows a call if and only if the compiled program does, as far as the library behind a runtime knows
//! the call's name; what it does not know is refused. Only masked comparisons for equality are used: comparisons of whole registers would
//! let a caller set the half that the kernel does not read. Does not know: who loads it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::policy::{ROWS, unimplemented};
use super::rules::{Argument, Case, Half, Rule};

/// Names of the calls that answer ENOSYS. What is newer has no name in any library that is known here.
const ABSENT: [(libc::c_long, &str); 17] = [
    (libc::SYS_clone3, "clone3"),
    (449, "futex_waitv"),
    (450, "set_mempolicy_home_node"),
    (451, "cachestat"),
    (454, "futex_wake"),
    (455, "futex_wait"),
    (456, "futex_requeue"),
    (457, "statmount"),
    (458, "listmount"),
    (459, "lsm_get_self_attr"),
    (460, "lsm_set_self_attr"),
    (461, "lsm_list_modules"),
    (463, "setxattrat"),
    (464, "getxattrat"),
    (465, "listxattrat"),
    (466, "removexattrat"),
    (467, "open_tree_attr"),
];

/// The runtime specification's name of this architecture; the others are killed, as by the compiled program.
const ARCHITECTURE: &str = if cfg!(target_arch = "x86_64") { "SCMP_ARCH_X86_64" } else { "SCMP_ARCH_AARCH64" };

/// The `linux.seccomp` object.
pub(crate) fn profile() -> Value {
    let mut plain = Vec::new();
    let mut entries = Vec::new();
    for row in ROWS.iter().copied().flatten() {
        let name = row.name.trim_start_matches("SYS_").to_ascii_lowercase();
        match alternatives(row.rule) {
            None => plain.push(name),
            Some(cubes) => entries.extend(cubes.iter().map(|cube| entry(&[&name], ALLOW, cube))),
        }
    }
    let plain: Vec<&str> = plain.iter().map(String::as_str).collect();
    entries.push(entry(&plain, ALLOW, &Cube::new()));
    let absent = ABSENT.iter().filter(|(number, _)| unimplemented().any(|known| known == *number));
    let absent: Vec<&str> = absent.map(|(_, name)| *name).collect();
    let mut unknown = entry(&absent, REFUSE, &Cube::new());
    unknown["errnoRet"] = json!(libc::ENOSYS);
    entries.push(unknown);
    json!({
        "defaultAction": REFUSE,
        "defaultErrnoRet": libc::EPERM,
        "architectures": [ARCHITECTURE],
        "syscalls": entries,
    })
}

const ALLOW: &str = "SCMP_ACT_ALLOW";
const REFUSE: &str = "SCMP_ACT_ERRNO";

/// For some arguments: which bits are looked at, and what they must be. All must hold.
type Cube = BTreeMap<u8, (u64, u64)>;

fn entry(names: &[&str], action: &str, cube: &Cube) -> Value {
    let arguments: Vec<Value> = cube
        .iter()
        .map(|(index, (mask, value))| {
            json!({ "index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ" })
        })
        .collect();
    json!({ "names": names, "action": action, "args": arguments })
}

/// The cubes of which one must hold; `None` if the call is always allowed.
fn alternatives(rule: Rule) -> Option<Vec<Cube>> {
    match rule {
        Rule::Always => None,
        Rule::Only(cases) => Some(cases.iter().flat_map(|case| product(case, &Cube::new())).collect()),
        Rule::Except(cases) => Some(complement(cases, &Cube::new())),
    }
}

/// The cubes of a case: an argument that must differ makes many of one.
fn product(case: Case, given: &Cube) -> Vec<Cube> {
    let Some((argument, rest)) = case.split_first() else {
        return vec![given.clone()];
    };
    let ways = if argument.equal { vec![bits(argument)] } else { differing(&[argument.value], argument) };
    ways.into_iter().flat_map(|way| product(rest, &with(given, argument.index, way))).collect()
}

/// Everything but these cases, by their first argument: another value than any of them has, or one that they have and then not the rest.
fn complement(cases: &[Case], given: &Cube) -> Vec<Cube> {
    // A case without conditions left holds whatever follows.
    let Some(firsts) = cases.iter().map(|case| case.first()).collect::<Option<Vec<&Argument>>>() else {
        return Vec::new();
    };
    let Some(like) = firsts.first() else {
        return vec![given.clone()];
    };
    let mut values: Vec<u32> = firsts.iter().map(|argument| argument.value).collect();
    values.sort_unstable();
    values.dedup();
    let others = differing(&values, like).into_iter().map(|way| with(given, like.index, way));
    let same = values.iter().flat_map(|value| {
        let rest: Vec<Case> = cases
            .iter()
            .filter(|case| case.first().is_some_and(|argument| argument.value == *value))
            .map(|case| &case[1..])
            .collect();
        complement(&rest, &with(given, like.index, bits(&Argument { value: *value, ..**like })))
    });
    others.chain(same).collect()
}

fn with(given: &Cube, index: u8, (mask, value): (u64, u64)) -> Cube {
    let mut cube = given.clone();
    let looked_at = cube.entry(index).or_default();
    *looked_at = (looked_at.0 | mask, looked_at.1 | value);
    cube
}

/// Mask and value in the whole register.
fn bits(argument: &Argument) -> (u64, u64) {
    let shift = if argument.half == Half::Low { 0 } else { 32 };
    (u64::from(argument.mask) << shift, u64::from(argument.value) << shift)
}

/// Every word but these, as ways in which a word can part from all of them: the leading bits of some, and then a bit that none of those has.
fn differing(values: &[u32], like: &Argument) -> Vec<(u64, u64)> {
    debug_assert!(like.mask == u32::MAX, "no rule demands that part of a word differs");
    let mut ways = Vec::new();
    for bit in 0..u32::BITS {
        let lead = if bit == 0 { 0 } else { u32::MAX << (u32::BITS - bit) };
        let next = 1 << (u32::BITS - 1 - bit);
        let mut prefixes: Vec<u32> = values.iter().map(|value| value & lead).collect();
        prefixes.dedup();
        for prefix in prefixes {
            let has = |set: u32| values.iter().any(|value| value & lead == prefix && value & next == set);
            ways.extend(
                [0, next]
                    .into_iter()
                    .filter(|set| !has(*set))
                    .map(|set| bits(&Argument { mask: lead | next, value: prefix | set, ..*like })),
            );
        }
    }
    ways
}

#[cfg(test)]
mod tests {
    use super::{ABSENT, Cube, alternatives, profile, unimplemented};
    use crate::seccomp::policy::ROWS;
    use crate::seccomp::tests::{ALLOW, demanded, samples};

    fn holds(cube: &Cube, arguments: &[u64; 6]) -> bool {
        cube.iter().all(|(index, (mask, value))| arguments[usize::from(*index)] & mask == *value)
    }

    #[test]
    fn the_cubes_allow_what_the_rules_allow() {
        for row in ROWS.iter().copied().flatten() {
            let Some(cubes) = alternatives(row.rule) else { continue };
            for arguments in samples(row.rule) {
                let allowed = cubes.iter().any(|cube| holds(cube, &arguments));
                assert_eq!(allowed, demanded(row.rule, &arguments) == ALLOW, "{} with {arguments:x?}", row.name);
            }
        }
    }

    #[test]
    fn every_call_that_has_a_name_and_is_absent_says_so() {
        for (number, name) in ABSENT {
            assert!(unimplemented().any(|known| known == number), "{name} has a row now: take it from this table");
        }
        let last = ABSENT.iter().map(|(number, _)| *number).max().expect("some");
        let named = |number| ABSENT.iter().any(|(known, _)| *known == number);
        let nameless: Vec<i64> = unimplemented().filter(|number| *number <= last && !named(*number)).collect();
        assert!(nameless.is_empty(), "{nameless:?}");
    }

    #[test]
    fn a_profile_refuses_by_default_and_names_each_plain_call_once() {
        let profile = profile();
        assert_eq!((&profile["defaultAction"], &profile["defaultErrnoRet"]), (&"SCMP_ACT_ERRNO".into(), &1.into()));
        let entries = profile["syscalls"].as_array().expect("a list");
        let plain = entries.iter().filter(|entry| entry["args"].as_array().is_some_and(Vec::is_empty));
        let names: Vec<&str> = plain
            .flat_map(|entry| entry["names"].as_array().expect("names"))
            .filter_map(|name| name.as_str())
            .collect();
        assert!(names.contains(&"newfstatat") && names.contains(&"mseal") && names.contains(&"clone3"));
        let mut once = names.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), names.len());
        println!("{} entries", entries.len());
    }
}
