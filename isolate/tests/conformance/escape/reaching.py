"""What attempts share that go out over a network.

Stands before `inside.py`, whose names it uses. Whoever is silent counts as not there.
"""
import socket


def heard(caller, begin):
    """Something is answered."""
    caller.settimeout(1)
    try:
        begin()
        caller.recv(64) or nothing("an end")
    except TimeoutError:
        nothing("silence")


def connect(host, port, family=socket.AF_INET):
    with socket.socket(family) as caller:
        heard(caller, lambda: caller.connect((host, port)))


def connect_at_once(host, port):
    """With the first data in the packet that begins it."""
    with socket.socket() as caller:
        for limit in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            caller.setsockopt(socket.SOL_SOCKET, limit, struct.pack("qq", 1, 0))
        try:
            caller.sendto(b"asked", 0x20000000, (host, port))
            caller.recv(64) or nothing("an end")
        except BlockingIOError:
            nothing("silence")


def ask(host, port, size=5, options=None):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        if options:
            asker.setsockopt(0, 4, options)
        asker.connect((host, port))
        heard(asker, lambda: asker.send(b"a" * size))


def shout(host, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        heard(asker, lambda: asker.sendto(b"asked", (host, port)))


def ask_on_link(host, port):
    """By version 6, at the link that is not the loopback."""
    index = next(index for index, name in socket.if_nameindex() if name != "lo")
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as asker:
        heard(asker, lambda: asker.sendto(b"asked", (host, port, 0, index)))


def ask_from(source, host, port):
    """From a source that is named with the packet."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        named = struct.pack("I4s4s", 0, socket.inet_aton(source), bytes(4))
        heard(asker, lambda: asker.sendmsg([b"asked"], [(0, 8, named)], 0, (host, port)))


def ask_as(source, host, port):
    """From a source that is bound although nobody here has it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.setsockopt(0, 15, 1)
        asker.bind((source, 0))
        heard(asker, lambda: asker.sendto(b"asked", (host, port)))


def more_than(most, kind, host, port):
    """More of them are answered at once than may be."""
    import select
    held, answered = [], 0
    for _ in range(150):
        caller = socket.socket(socket.AF_INET, kind)
        caller.setblocking(False)
        caller.connect_ex((host, port))
        if kind == socket.SOCK_DGRAM:
            try:
                caller.send(b"asked")
            except OSError:
                pass
        held.append(caller)
    waiting, until = list(held), time.monotonic() + 3
    while answered <= most and time.monotonic() < until:
        for caller in select.select(waiting, [], [], 0.1)[0]:
            waiting.remove(caller)
            try:
                answered += bool(caller.recv(64))
            except OSError:
                pass
    if answered <= most:
        nothing("%d of %d" % (answered, len(held)))
