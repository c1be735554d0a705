//! Bombs of what is counted: by groups, and by resource limits where there are none.

use super::{Bomb, nothing_but_the_bomb_is_harmed};

/// As the usual spec has them.
const PROCESSES: u32 = 64;
const FILES: u32 = 256;

#[rustfmt::skip]
const BOMBS: &[Bomb] = &[
    Bomb::new("processes", "def take(n):\n    if os.fork() == 0: time.sleep(1000)", PROCESSES),
    Bomb::new("processes that made themselves leaders", "def take(n):\n    if os.fork() == 0:\n        os.setsid()\n        if os.fork() == 0: signal.signal(15, signal.SIG_IGN)\n        time.sleep(1000)", PROCESSES),
    Bomb::new("processes that nobody waits for", "def take(n):\n    if os.fork() == 0: os._exit(0)", PROCESSES),
    Bomb::new("threads", "import threading\ndef take(n):\n    try: threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n    except RuntimeError: raise MemoryError", PROCESSES),
    Bomb::new("descriptors", "def take(n): held.append(os.open('/dev/null', os.O_RDONLY))", FILES),
    Bomb::new("sockets", "def take(n): held.append(socket.socket())", FILES),
    Bomb::new("timers as descriptors", "def take(n): held.append(checked(libc.timerfd_create(1, 0)))", FILES),
    Bomb::new("watchers of files", "def take(n): held.append(checked(libc.inotify_init()))", FILES),
    Bomb::new("watched descriptors", "watchers = [select.epoll() for _ in range(100)]\nwatched = [os.pipe()[1] for _ in range(60)]\ndef take(n): watchers[n // 60].register(watched[n % 60]) if n < 6000 else held.append(os.pipe())", 6000 + FILES),
    Bomb::new("timers", "def take(n): checked(libc.timer_create(1, None, ctypes.byref(ctypes.c_void_p())))", 1024),
    Bomb::new("signals that wait", "signal.pthread_sigmask(signal.SIG_BLOCK, [40])\ndef take(n): checked(libc.sigqueue(os.getpid(), 40, None))", 1024),
    Bomb::new("names of files", "def take(n): os.close(os.open('/tmp/%d' % n, os.O_CREAT))", 2048),
    Bomb::new("directories in one another", "os.chdir('/tmp')\ndef take(n): os.mkdir('d'); os.chdir('d')", 2048),
    Bomb::new("bytes in /tmp", "file = open('/tmp/x', 'wb', 0)\ndef take(n):\n    if file.write(bytes(1 << 20)) < 1 << 20: raise MemoryError", 8),
    Bomb::new("locked memory", "def take(n): held.append(mmap.mmap(-1, 4096)); checked(libc.mlock(ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(held[-1]))), 4096))", 16),
];

#[test]
fn what_is_counted_is_bounded() {
    nothing_but_the_bomb_is_harmed(BOMBS, None);
}
