"""What runs each attempt: in a sandbox, or outside of one, where the attempt must come to what it is meant to come to.

Owns: one process for each attempt, and the word on how it ended. It is told what to try on one descriptor, a line of JSON, and answers on
the same, a line an attempt. Before these lines stand the numbers of system calls (SYS).
"""
import ctypes, errno, fcntl, json, os, signal, socket, stat, struct, sys, time

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
heap_end = ctypes.c_void_p.in_dll(libc, "__curbrk")


def call(name, *arguments):
    """A system call by its name; what the kernel refuses is raised."""
    if name not in SYS:
        raise OSError(errno.ENOSYS, name)
    ctypes.set_errno(0)
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    result = libc.syscall(ctypes.c_long(SYS[name]), *words)
    if result == -1:
        raise OSError(ctypes.get_errno(), name)
    return result


def nothing(what="nothing to be had"):
    raise OSError(errno.ENODATA, what)


def buffer(content=b"", size=4096):
    return ctypes.create_string_buffer(content, size)


def refuse():
    raise OSError(ctypes.get_errno(), "refused")


def not_null(fd):
    """A file that is masked is /dev/null."""
    if os.fstat(fd).st_rdev == os.makedev(1, 3):
        nothing()
    return fd


def rewrite(path):
    """Writes to a setting what it holds: the host has it as it was."""
    fd = not_null(os.open(path, os.O_RDWR))
    held = os.read(fd, 4096)
    os.lseek(fd, 0, os.SEEK_SET)
    os.write(fd, held)


def find(top, *names):
    """A file of one of these names."""
    for folder, _, files in os.walk(top):
        for name in names:
            if name in files:
                return os.path.join(folder, name)
    raise OSError(errno.ENOENT, top)


def is_open(fd):
    try:
        return bool(os.fstat(fd))
    except OSError:
        return False


def run_code(code):
    """Calls machine code that lies where 32 bits reach; it is told where."""
    at = call("mmap", 0, 4096, 7, 0x62, -1, 0)
    ctypes.memmove(at, code(at), len(code(at)))
    ctypes.CFUNCTYPE(ctypes.c_int)(at)()


def own_network():
    """What would change the network of the host is tried in one that is nobody else's."""
    if told["outside"]:
        call("unshare", 0x40000000)


def netlink(kind, body):
    """A request to change the network (create, exclusive), and what the kernel answers."""
    route = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    route.send(struct.pack("IHHII", 16 + len(body), kind, 0x605, 1, 0) + body)
    answer = struct.unpack_from("i", route.recv(4096), 16)[0]
    if answer:
        raise OSError(-answer, "netlink")


def ordinary():
    """Outside: a user without privileges, for whom the function's folder is mounted as any disk is."""
    if told["outside"]:
        folder = HOST["function"].encode()
        call("mount", folder, folder, None, 0x1000, None)
        call("mount", None, folder, None, 0x1020, None)
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)


def gain(before, after):
    if before == after:
        raise OSError(errno.EPERM, "nothing gained")


def run(*command):
    import subprocess
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def capabilities(status):
    return next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))


def set_user_id_programs(*folders):
    found = [entry for folder in folders for entry in os.scandir(folder) if not entry.is_symlink()]
    return [entry.path for entry in found if entry.stat().st_mode & stat.S_ISUID] or nothing()


def gains(program):
    """Whether a program has another effective user: it is looked at while it waits to say what version it is."""
    import subprocess
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    try:
        while True:
            os.write(writes, bytes(4096))
    except BlockingIOError:
        os.set_blocking(writes, True)
    with subprocess.Popen([program, "--version"], stdin=subprocess.DEVNULL, stdout=writes, stderr=writes) as child:
        os.close(writes)
        while True:
            with open("/proc/%d/status" % child.pid) as status:
                said = {line.partition(":")[0]: line.partition(":")[2].strip() for line in status}
            if said["State"][0] == "Z" or said["State"][0] == "S" and said["Name"] == os.path.basename(program)[:15]:
                break
            time.sleep(0.001)
        os.close(reads)
    return said["Uid"].split()[1] != str(os.getuid())


def any_time():
    """Outside: a group of version 1 may have no time for real-time processes; the first has."""
    if told["outside"]:
        try:
            with open("/sys/fs/cgroup/cpu/cgroup.procs", "w") as first:
                first.write(str(os.getpid()))
        except OSError:
            pass


def own_mounts():
    """Mounts and a host name that are nobody else's, for what would change them."""
    call("unshare", 0x00020000 | 0x04000000)
    call("mount", b"none", b"/", None, 0x4000 | 0x40000, None)


def say(*words):
    os.write(CHANNEL, json.dumps(words).encode() + b"\n")


def attempt(name, program, outside):
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(30)
            if outside:
                own_mounts()
            exec(program, dict(globals()))
            say(name, "done", 0)
        except OSError as error:
            say(name, "refused", error.errno or 0)
        except BaseException as error:
            say(name, "broken: " + repr(error), 0)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        say(name, "killed", os.WTERMSIG(status))


def wait_to_be_copied():
    """Stands still until its image was taken, and goes on in each copy."""
    os.write(CHANNEL, b"Z")
    if os.read(CHANNEL, 1):
        os._exit(9)
    heap_end.value = None


CHANNEL = int(sys.argv[1])
if "copied" in sys.argv:
    wait_to_be_copied()
told = b""
while not told.endswith(b"\n"):
    told += os.read(CHANNEL, 1 << 16) or os._exit(8)
told = json.loads(told)
HOST = told["host"]
if told["outside"]:
    # As a runtime that forgot one would leave it.
    os.dup2(os.open("/", os.O_RDONLY | os.O_DIRECTORY), 20)
    left_open = socket.socketpair()
    os.dup2(left_open[0].fileno(), 21)
for name, program in told["attempts"]:
    attempt(name, program, told["outside"])
say("end", "done", 0)
# Stays until it has been looked at.
os.read(CHANNEL, 1)
