"""What attempts share that go around a mask, or meet a neighbour: names, races, and descriptors that change hands.

Stands before `inside.py`, whose names it uses.
"""
import contextlib, socket


def unmasked(path):
    with open(path, "rb") as file:
        return file.read(1) or nothing()


def with_thread(look):
    """Looks while there is a second thread, by its number."""
    import threading
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    try:
        return look(thread.native_id)
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def own_folder():
    import shutil
    folder = "/tmp/vilya-escape-%d" % os.getpid()
    os.mkdir(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


LOOKS = 2000
BETWEEN = 50


def race(changes, look, apart=True):
    """Looks many times while the way there changes without a pause: by another process, or by a thread where they share what changes."""
    import mmap, threading
    over, rounds = threading.Event(), mmap.mmap(-1, 8)
    sys.setswitchinterval(1e-5)

    def change():
        for made in range(1 << 30):
            if over.is_set():
                break
            rounds[:] = struct.pack("q", made)
            for step in changes:
                with contextlib.suppress(OSError):
                    step()

    changer = os.fork() if apart else threading.Thread(target=change)
    if changer == 0:
        # Should the one that looks be gone.
        signal.alarm(30)
        change()
    if not apart:
        changer.start()
    try:
        looks, between, last = 0, 0, rounds[:]
        # However the two are scheduled, so many looks came upon a change since the one before.
        while looks < LOOKS or between < BETWEEN:
            looks, between, last = looks + 1, between + (rounds[:] != last), rounds[:]
            with contextlib.suppress(OSError):
                return look()
    finally:
        if apart:
            os.kill(changer, signal.SIGKILL)
            os.waitpid(changer, 0)
        else:
            over.set()
            changer.join()
            os.chdir("/")
    nothing("no look of many")


def exchange(folder, *places):
    """Makes `link` lead to one place after the other; no place is an empty directory."""
    made = []
    for number, place in enumerate(places):
        path = "%s/%d" % (folder, number)
        os.symlink(place, path) if place else os.mkdir(path)
        made.append(path)
    os.symlink("/", folder + "/link")
    swap = lambda path: lambda: call("renameat2", -100, path.encode(), -100, (folder + "/link").encode(), 2)
    return [swap(path) for path in made]


def put(path, fd):
    """Has a descriptor lead to a place."""
    opened = os.open(path, os.O_RDONLY)
    os.dup2(opened, fd)
    os.close(opened)


def moving(folder):
    """Moves a directory up and down again."""
    os.makedirs(folder + "/a/b/c")
    low, high = folder + "/a/b/c", folder + "/c"
    return [lambda: os.rename(low, high), lambda: os.rename(high, low)]


def not_below(folder, fd):
    """What was opened is not its own."""
    if os.readlink("/proc/self/fd/%d" % fd).startswith(folder):
        os.close(fd)
        nothing()


def list_mounts():
    """By a system call: struct mnt_id_req of the mounts below the first root (linux/mount.h), and its number everywhere."""
    request = buffer(struct.pack("IIQQ", 24, 0, 2 ** 64 - 1, 0), 24)
    if libc.syscall(ctypes.c_long(458), request, buffer(), ctypes.c_long(64), ctypes.c_long(0)) == -1:
        refuse()


def take(address, kind=socket.SOCK_STREAM):
    """A descriptor from whoever waits there."""
    with socket.socket(socket.AF_UNIX, kind) as caller:
        caller.settimeout(20)
        caller.connect(address)
        _, taken, _, _ = socket.recv_fds(caller, 1, 1)
    if not taken:
        nothing()


def give(address):
    """A descriptor to whoever waits there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as giver:
        giver.connect(address)
        socket.send_fds(giver, [b"!"], [0])


def offer(address):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
    os.unlink(address)


def sockets():
    """Every open socket but the one that attempts are told on."""
    found = []
    for fd in range(1024):
        with contextlib.suppress(OSError):
            if fd != CHANNEL and stat.S_ISSOCK(os.fstat(fd).st_mode):
                found.append(fd)
    return found or nothing("no socket")


def push():
    """A descriptor to whoever is at the other end of a descriptor that was left open, of whatever kind that is."""
    taken = 0
    for fd in range(1024):
        if fd == CHANNEL or not is_open(fd):
            continue
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as pushed:
            socket.send_fds(pushed, [b"!"], [0])
            taken += 1
    return taken or nothing("nobody takes one")
