"""A neighbour that conspires: it waits for whoever meets it, wherever it can wait, and hands out descriptors.

Told its name and the function's folder. It also answers at a port. On descriptor 3 (or 0) it answers what it is asked: how it is, and how many came.
"""
import os, socket, sys, threading

channel, name, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
secret = os.open("/tmp", os.O_RDONLY)
came = []


def bound(kind, address):
    place = socket.socket(socket.AF_UNIX, kind)
    try:
        place.bind(address)
    except OSError:
        return None  # It may not wait there.
    return place


def hand_out(listener):
    while True:
        caller, _ = listener.accept()
        came.append("taken")
        with caller:
            try:
                socket.send_fds(caller, [b"!"], [secret])
            except OSError:
                pass  # It has left.


def receive(place):
    while True:
        socket.recv_fds(place, 1, 1)
        came.append("given")


def wait(serve, place):
    if place is not None:
        threading.Thread(target=serve, args=(place,), daemon=True).start()


for kind, address in [
    (socket.SOCK_STREAM, "\0" + name), (socket.SOCK_SEQPACKET, "\0" + name + "-packets"), (socket.SOCK_STREAM, "/tmp/" + name),
    (socket.SOCK_STREAM, "/dev/shm/" + name), (socket.SOCK_STREAM, folder + "/" + name),
]:
    listener = bound(kind, address)
    if listener is not None:
        listener.listen()
    wait(hand_out, listener)
for address in ("\0" + name + "-datagrams", "/tmp/" + name + "-datagrams"):
    wait(receive, bound(socket.SOCK_DGRAM, address))


def greet(listener):
    while True:
        caller, _ = listener.accept()
        came.append("greeted")
        with caller:
            try:
                caller.sendall(b"a neighbour")
            except OSError:
                pass  # It has left.


def answer(place):
    while True:
        _, asker = place.recvfrom(64)
        came.append("asked")
        place.sendto(b"a neighbour", asker)


try:
    wait(greet, socket.create_server(("0.0.0.0", 9000)))
    place = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    place.bind(("0.0.0.0", 9000))
    wait(answer, place)
except OSError:
    pass  # Another on this host has it.
while word := os.read(channel, 5):
    os.write(channel, word if word == b"well?" else b"%5d" % len(came))
