"""Other machines, all of them: answers at whatever address it was given, and remembers who came."""

import json, socket, struct, subprocess, sys, threading

ADDRESSES = [
    "198.51.100.1/24", "203.0.113.7/32", "203.0.113.99/32", "169.254.169.254/32", "10.77.0.53/32", "10.77.0.8/32",
]
SERVICE = socket.inet_aton("203.0.113.7")
seen, lock = [], threading.Lock()


def remember(*what):
    with lock:
        seen.append(list(what))


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def serve_tcp(port):
    listener = socket.create_server(("0.0.0.0", port), backlog=512)

    def talk(stream, peer):
        local = stream.getsockname()[0]
        remember("tcp", local, peer[0], port)
        try:
            stream.sendall(f"{peer[0]} at {local}\n".encode())
            while piece := stream.recv(4096):
                stream.sendall(piece)
        except OSError:
            pass
        stream.close()

    def run():
        while True:
            threading.Thread(target=talk, args=listener.accept(), daemon=True).start()

    threading.Thread(target=run, daemon=True).start()


def serve_udp(port, answer):
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
    server.bind(("0.0.0.0", port))

    def run():
        while True:
            asked, [(_, _, info)], _, peer = server.recvmsg(4096, 256)
            local = info[4:8]
            remember("udp", socket.inet_ntoa(local), peer[0], port, asked.decode("latin-1"))
            source = struct.pack("I4s4s", 0, local, bytes(4))
            try:
                server.sendmsg([answer(asked)], [(socket.IPPROTO_IP, 8, source)], 0, peer)
            except OSError:
                pass  # Nobody is there who could be answered.

    threading.Thread(target=run, daemon=True).start()


def name(asked):
    """An A record of the service for every question of that kind, and nothing for others."""
    end = asked.index(0, 12) + 1
    kind = asked[end : end + 2]
    record = b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4" + SERVICE if kind == b"\0\1" else b""
    counts = struct.pack(">HHHH", 1, int(bool(record)), 0, 0)
    return asked[:2] + b"\x81\x80" + counts + asked[12 : end + 4] + record


sys.stdin.readline()  # The interface is there.
ip("link", "set", "lo", "up")
ip("link", "set", "up1", "up")
for address in ADDRESSES:
    ip("address", "add", address, "dev", "up1")
for port in (80, 7000):
    serve_tcp(port)
serve_udp(7000, lambda asked: asked)
serve_udp(53, name)
print("ready", flush=True)
for line in sys.stdin:
    with lock:
        print(json.dumps(seen), flush=True)
