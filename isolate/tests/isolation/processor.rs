//! What a sandbox shares in the processor, as the kernel shows it inside and outside.

use std::process::Command;

use vilya_isolate::{Cores, Guess, Mechanism, Speculation};

use crate::support::{PYTHON, Room, Running, python};

const STATUS: &str = r#"
for line in open("/proc/self/status"):
    if line.startswith(("Speculation_Store_Bypass", "SpeculationIndirectBranch")):
        name, value = line.rstrip("\n").split(":", 1)
        print(name, value.strip(), sep="\t")
print("done\tyes")
"#;

/// What the kernel says of this process, which no sandbox holds.
fn outside(field: &str) -> Option<String> {
    let status = std::fs::read_to_string("/proc/thread-self/status").expect("procfs");
    let line = status.lines().find(|line| line.starts_with(field))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[test]
fn speculation_is_off_where_the_kernel_turns_it_off() {
    for mut room in [Room::new(), Room::unprepared()] {
        let processor = room.native.host().processor;
        let seen = room.python(STATUS).answers();
        for (guess, field, forbidden) in [
            (Guess::StoreBypass, "Speculation_Store_Bypass", "thread force mitigated"),
            (Guess::IndirectBranch, "SpeculationIndirectBranch", "conditional force disabled"),
        ] {
            let state = match guess {
                Guess::StoreBypass => processor.store_bypass,
                Guess::IndirectBranch => processor.indirect_branch,
            };
            if state == Speculation::Controllable {
                assert_eq!(seen[field], forbidden);
            } else {
                println!("not controllable here: {guess:?} is {state:?}");
                assert_eq!(seen.get(field).cloned(), outside(field));
            }
        }
    }
}

/// The cookie of a process: 0 where it shares cores with everybody.
fn cookie(running: &Running) -> String {
    let program = format!(
        "import ctypes, sys; libc = ctypes.CDLL(None, use_errno=True); cookie = ctypes.c_uint64()\n\
         result = libc.prctl(62, 0, {}, 0, ctypes.byref(cookie)); print(cookie.value if result == 0 else 'error %d' % ctypes.get_errno())",
        running.started.pid
    );
    let output = Command::new(PYTHON).args(["-I", "-c", &program]).output().expect("python runs");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

#[test]
fn no_core_is_shared_at_a_time_where_the_kernel_schedules_so() {
    let mut room = Room::new();
    let cores = room.native.host().processor.cores;
    if cores != Cores::Controllable {
        println!("skipped: cores are {cores:?} here");
        return;
    }
    let mut start = || {
        let program = "print('up', flush=True); import time; time.sleep(1000)";
        let mut running = room.start(&python(program)).expect("it starts");
        assert_eq!(running.line(), "up");
        running
    };
    let (one, other) = (start(), start());
    let cookies = [cookie(&one), cookie(&other)];
    for running in [one, other] {
        running.started.remains.kill();
        running.finish();
    }
    assert!(cookies.iter().all(|cookie| cookie.parse::<u64>().is_ok_and(|cookie| cookie != 0)), "{cookies:?}");
    assert_ne!(cookies[0], cookies[1]);
}

/// The list says what the host says of itself, in sysfs.
#[test]
fn what_is_in_force_is_what_the_host_says() {
    let room = Room::unprepared();
    let protections = room.native.protections();
    let processor = room.native.host().processor;
    for (name, file, state) in [
        ("no speculative store bypass", "spec_store_bypass", processor.store_bypass),
        ("no shared indirect branch speculation", "spectre_v2", processor.indirect_branch),
    ] {
        let listed = protections.iter().find(|protection| protection.name == name).expect("it is listed");
        assert_eq!(listed.in_force, !matches!(state, Speculation::On | Speculation::Unknown), "{listed:?}");
        let said = std::fs::read_to_string(format!("/sys/devices/system/cpu/vulnerabilities/{file}"));
        if said.is_ok_and(|said| said.trim() == "Not affected") {
            assert!(listed.in_force, "{listed:?}");
        }
    }
    let two_threads =
        std::fs::read_to_string("/sys/devices/system/cpu/smt/active").is_ok_and(|active| active.trim() == "1");
    if two_threads {
        assert_ne!(processor.cores, Cores::Single);
    }
}
