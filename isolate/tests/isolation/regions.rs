//! A sandbox reads the region that the worker writes, and writes nothing of it.

use vilya_ipc::host::{Host, ReadOnlyBy};
use vilya_ipc::layout::RegionSpec;
use vilya_isolate::Mechanism;

use crate::support::{Room, python, start_with};

/// Each line names a way to write descriptor 3 and whether it was open; `read` must be.
const PROBE: &str = r#"
import ctypes, fcntl, mmap, os
libc = ctypes.CDLL(None, use_errno=True)
def tried(name, attempt):
    try: result = attempt()
    except (OSError, PermissionError, ValueError): result = False
    print(name, "refused" if result is False else "done")
memory = mmap.mmap(3, 4096, prot=mmap.PROT_READ)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
at = libc.mmap(None, 4096, 1, 1, 3, 0)
def itself():
    fd = os.open("/proc/self/mem", os.O_RDWR)
    return os.pwrite(fd, b"x", at)
def shared(fd): return mmap.mmap(fd, 4096, prot=3) and True
print("read", memory[:8].decode())
for flags in ("O_RDWR", "O_WRONLY", "O_TRUNC"):
    for path in ("/proc/self/fd/3", "/dev/fd/3", "/proc/thread-self/fd/3"):
        def reopened(path=path, flags=flags):
            fd = os.open(path, getattr(os, flags) | (os.O_RDWR if flags == "O_TRUNC" else 0))
            return os.pwrite(fd, b"x", 0)
        tried("reopen:" + flags + ":" + path, reopened)
tried("reopen:mapped", lambda: shared(os.open("/proc/self/fd/3", os.O_RDWR)))
tried("chmod", lambda: os.fchmod(3, 0o666) or PERMITTED)
tried("chown", lambda: os.fchown(3, os.getuid(), os.getgid()) or PERMITTED)
tried("mmap", lambda: shared(3))
tried("mprotect", lambda: libc.mprotect(at, 4096, 3) == 0)
tried("truncate", lambda: os.ftruncate(3, 0))
tried("pwrite", lambda: os.pwrite(3, b"x", 0))
tried("memory file", itself)
tried("punch", lambda: libc.fallocate(3, 3, ctypes.c_long(0), ctypes.c_long(4096)) == 0)
tried("seal", lambda: fcntl.fcntl(3, 1033, 8))
print("after", memory[:8].decode())
"#;

#[test]
fn a_sandbox_cannot_write_the_region_that_it_reads() {
    let mut room = Room::new();
    let guards: &[ReadOnlyBy] = match room.native.distinct_users() {
        true => &[ReadOnlyBy::Permission, ReadOnlyBy::Seal],
        false => &[ReadOnlyBy::Seal],
    };
    for guard in guards {
        let spec = RegionSpec { lanes: 1, payload_limit_bytes: 4096 };
        let (host, fds) = Host::create(&spec, *guard).expect("regions can be made");
        let ring = [fds.down, fds.up, fds.doorbell];
        // By the owner's own user, a mode can be changed and changes nothing; the seal is what holds.
        let probe = PROBE.replace("PERMITTED", if room.native.distinct_users() { "True" } else { "False" });
        let ran = start_with(&mut room.native, &python(&probe), ring).expect("it must start").finish();
        assert!(ran.succeeded(), "{guard:?}: {ran:?}");
        let lines: Vec<&str> = ran.stdout.lines().collect();
        let (first, last) = (lines[0], lines[lines.len() - 1]);
        assert_eq!((first, last), ("read VILYADN1", "after VILYADN1"));
        let tried = &lines[1..lines.len() - 1];
        assert_eq!(tried.len(), 19, "{ran:?}");
        assert!(tried.iter().all(|line| line.ends_with(" refused")), "{guard:?}: {ran:?}");
        drop(host);
    }
}
