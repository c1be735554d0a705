//! Bombs of memory, in every form in which a program can have some: each is a mebibyte at a time, or a number of things that make many.

use super::{Bomb, nothing_but_the_bomb_is_harmed};

const TMP: u64 = 256 << 20;
/// Mebibytes of the memory limit.
const MEBIBYTES: u32 = 64;

#[rustfmt::skip]
const BOMBS: &[Bomb] = &[
    Bomb::new("heap", "def take(n): held.append(bytearray(b'x' * (1 << 20)))", MEBIBYTES),
    Bomb::new("files in /tmp", "def take(n): open('/tmp/%d' % n, 'wb').write(bytes(1 << 20))", MEBIBYTES).with_tmp(TMP),
    Bomb::new("files in /dev/shm", "def take(n): open('/dev/shm/%d' % n, 'wb').write(bytes(1 << 20))", MEBIBYTES).with_tmp(TMP),
    Bomb::new("files in memory", "file = os.memfd_create('x')\ndef take(n): os.write(file, bytes(1 << 20))", MEBIBYTES),
    Bomb::new("shared mappings", "def take(n): held.append(mmap.mmap(-1, 1 << 20)); held[-1].write(bytes(1 << 20))", MEBIBYTES),
    Bomb::new("segments", "def take(n):\n    segment = checked(libc.shmget(0, ctypes.c_size_t(1 << 20), 0o1600))\n    ctypes.memset(libc.shmat(segment, None, 0), 1, 1 << 20)", MEBIBYTES),
    Bomb::new("pipes", "def take(n):\n    held.append(os.pipe())\n    checked(libc.fcntl(held[-1][1], 1031, 1 << 20))\n    os.write(held[-1][1], bytes(1 << 20))", MEBIBYTES),
    Bomb::new("stacks", "import threading\nthreading.stack_size(16 << 20)\nbody = 'def deep(n): return deep(n - 1) if n else time.sleep(1000)'\nexec(body)\ndef take(n):\n    held.append(bytearray(b'x' * (1 << 20)))\n    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()", MEBIBYTES),
    // A page of the kernel's for every two mebibytes that are looked at, and none for what is seen there.
    Bomb::new("page tables", "space = mmap.mmap(-1, 1 << 38, flags=0x4022)\nspace.madvise(15)\ndef take(n): [space[(n * 256 + at) << 21] for at in range(256)]", MEBIBYTES),
    Bomb::new("message queues", "text = ctypes.create_string_buffer(struct.pack('q', 1), 8200)\ndef take(n):\n    queue = checked(libc.msgget(0, 0o1600))\n    checked(libc.msgsnd(queue, text, ctypes.c_size_t(8000), 0o4000)); checked(libc.msgsnd(queue, text, ctypes.c_size_t(8000), 0o4000))", 0),
    Bomb::new("semaphores", "def take(n): checked(libc.semget(0, 250, 0o1600))", 64 * MEBIBYTES),
    Bomb::new("socket pairs", "def take(n):\n    ends = socket.socketpair()\n    held.extend(ends)\n    for end in ends:\n        end.setblocking(False)\n        try:\n            while True: end.send(bytes(1 << 16))\n        except BlockingIOError: pass", 4 * MEBIBYTES),
];

#[test]
fn memory_in_any_form_is_bounded() {
    nothing_but_the_bomb_is_harmed(BOMBS, Some("memory limit"));
}
