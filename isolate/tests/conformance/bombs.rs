//! Programs that take all they can get of one thing after the other: each is stopped where it should be, and nobody else notices.
//!
//! Owns: the bombs, and the look from outside while they go off: what the groups of the sandbox say, a neighbour, and a program of the host.
//! A bomb says how much it had when it was refused more, or is killed for memory.

mod memory;
mod objects;

use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use vilya_isolate::Exit;

use crate::groups;
use crate::neighbour::Neighbour;
use crate::support::{Kind, Ran, Room, each_of, null, python};

/// Every mechanism, and sandboxes that were made ahead.
const KINDS: [Kind; 6] = {
    let [native, crun, runc, youki, docker] = Kind::ALL;
    [native, Kind::Prepared, crun, runc, youki, docker]
};
const MEMORY: u64 = 64 << 20;
/// Memory that the kernel charges whatever the limit, because it could not go on otherwise: to processes that are dying, for example.
const FORCED: u64 = MEMORY / 16;
const PRELUDE: &str = r#"
import ctypes, errno, mmap, os, select, signal, socket, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
held = []
def checked(result):
    if result == -1: raise OSError(ctypes.get_errno(), "refused")
    return result
"#;

/// One thing of which a program takes as much as it gets.
#[derive(Clone, Copy, Debug)]
struct Bomb {
    name: &'static str,
    /// Defines `take`, which takes one more of it and raises what the kernel answers.
    take: &'static str,
    /// How many it may get without being killed for memory; 0 is a thing that it may have none of.
    most: u32,
    /// How many are too many: if it gets so many, nothing stopped it.
    tries: u32,
    /// Size of `/tmp`, and of `/dev/shm`, where it is not the usual one.
    tmp_bytes: Option<u64>,
}

impl Bomb {
    const fn new(name: &'static str, take: &'static str, most: u32) -> Bomb {
        Bomb { name, take, most, tries: 4 * most + 1, tmp_bytes: None }
    }

    const fn with_tmp(self, bytes: u64) -> Bomb {
        Bomb { tmp_bytes: Some(bytes), ..self }
    }

    fn program(&self) -> String {
        let (take, tries) = (self.take, self.tries);
        format!(
            "{PRELUDE}{take}\ncount = 0\nprint('lit', flush=True)\ntry:\n    while count < {tries}:\n        take(count)\n        \
             count += 1\nexcept (OSError, MemoryError): pass\nos.write(1, b'%d\\n' % count)\n\
             os.read(3, 1)\nos._exit(0)\n"
        )
    }
}

/// Has every bomb of a table go off on every mechanism, unless what stops them is a protection that is not in force.
fn nothing_but_the_bomb_is_harmed(bombs: &[Bomb], stopped_by: Option<&str>) {
    each_of(&KINDS, |room| {
        if stopped_by.is_some_and(|name| !room.enforces(name)) {
            return;
        }
        let mut neighbour = Neighbour::start(room);
        for bomb in bombs {
            go_off(room, bomb, &mut neighbour);
        }
        neighbour.end();
        // There is room for another as there was before.
        assert_eq!(room.python("print('well')").stdout, "well\n");
    });
}

fn go_off(room: &mut Room, bomb: &Bomb, neighbour: &mut Neighbour) {
    let kind = room.kind;
    let mut spec = python(&bomb.program());
    spec.limits.memory_bytes = MEMORY;
    spec.limits.tmp_bytes = bomb.tmp_bytes.unwrap_or(spec.limits.tmp_bytes);
    let processes = spec.limits.processes;
    let (channel, theirs) = UnixStream::pair().expect("a pair of sockets");
    let mut running = room.start_with(&spec, [theirs.into(), null(), null()]).expect("it starts");
    assert_eq!(running.line(), "lit", "{kind:?}: {}", bomb.name);
    let pid = running.started.pid;
    let over = AtomicBool::new(false);
    let said = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let said = running.line();
            // Relaxed: only when to stop looking hangs on it.
            over.store(true, Ordering::Relaxed);
            said
        });
        while !over.load(Ordering::Relaxed) {
            neighbour.is_well();
            bounds_hold(pid, processes, bomb);
        }
        reader.join().expect("it reads")
    });
    // Where it was only refused, it still holds all that it got.
    bounds_hold(pid, processes, bomb);
    drop(channel);
    judge(kind, bomb, &said, &running.finish());
    neighbour.is_well();
}

/// The sandbox has what it may have and no more, and the host can still make a process.
fn bounds_hold(pid: i32, processes: u32, bomb: &Bomb) {
    assert!(Command::new("/bin/true").status().expect("the host can make a process").success());
    let memory = groups::most(pid, &["memory.current", "memory.usage_in_bytes"]);
    assert!(memory.is_none_or(|memory| memory <= MEMORY + FORCED), "{}: {memory:?} bytes", bomb.name);
    let count = groups::most(pid, &["pids.current"]);
    assert!(count.is_none_or(|count| count <= processes.into()), "{}: {count:?} processes", bomb.name);
}

fn judge(kind: Kind, bomb: &Bomb, said: &str, ran: &Ran) {
    let name = bomb.name;
    assert!(ran.ended.left_behind.is_empty(), "{kind:?}: {name}: {ran:?}");
    if ran.ended.out_of_memory {
        println!("{name}: killed for memory");
        return;
    }
    let count: u32 = said.parse().unwrap_or_else(|_| panic!("{kind:?}: {name}: neither killed nor refused: {ran:?}"));
    println!("{name}: refused after {count}");
    assert_eq!(ran.ended.exit, Exit::Code(0), "{kind:?}: {name}: {ran:?}");
    // What gets nothing where it may have some is no bomb.
    assert!((bomb.most.min(1)..=bomb.most).contains(&count), "{kind:?}: {name}: it got {count}");
}
