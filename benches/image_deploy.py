"""How long deploying an image takes: of this machine's Python and its libraries, as one layer, plain and gzipped.

Usage: python3 benches/image_deploy.py VILYA [VILYA ...]

Each program given is a `vilya`; they take turns, in rounds, so that two versions can be compared on a machine that is not idle. Each
deployment is of an image that the worker does not have; then the same image once more, under another name.
"""

import gzip
import hashlib
import http.client
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time

ROUNDS = 5
LEFT_OUT = {"test", "__pycache__", "idlelib", "ensurepip", "lib2to3", "site-packages", "dist-packages"}


def layer():
    """A tar of the interpreter, its standard library and what they are linked with."""
    interpreter = os.path.realpath("/usr/bin/python3")
    asked = [interpreter, "-I", "-c", "import sysconfig; print(sysconfig.get_path('stdlib'))"]
    library = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    files = {interpreter}
    for folder, folders, names in os.walk(library):
        folders[:] = [name for name in folders if name not in LEFT_OUT]
        files.update(os.path.join(folder, name) for name in names)
    linked = subprocess.run(["ldd", interpreter], capture_output=True, text=True, check=True).stdout
    files.update(word for word in linked.split() if word.startswith("/"))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path in sorted(files):
            if os.path.isfile(path):
                name = path if path.startswith("/usr/") else "/usr" + path
                tar.add(os.path.realpath(path), name.lstrip("/"))
        for name in ("lib", "lib64"):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, "usr/" + name
            tar.addfile(link)
        link = tarfile.TarInfo("usr/local/bin/python3")
        link.type, link.linkname = tarfile.SYMTYPE, interpreter
        tar.addfile(link)
    return out.getvalue(), len(files)


def image(tar, mark, compress):
    """An OCI archive of this layer and a small one that makes it another image than any before."""
    top = io.BytesIO()
    with tarfile.open(fileobj=top, mode="w") as layer_of_mark:
        entry = tarfile.TarInfo("etc/mark")
        entry.size = len(mark)
        layer_of_mark.addfile(entry, io.BytesIO(mark))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        def add(name, data):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))

        def blob(data):
            digest = hashlib.sha256(data).hexdigest()
            add("blobs/sha256/" + digest, data)
            return {"digest": "sha256:" + digest, "size": len(data)}

        plain = [tar, top.getvalue()]
        ids = ["sha256:" + hashlib.sha256(data).hexdigest() for data in plain]
        layers = [blob(compress(data)) for data in plain]
        config = blob(json.dumps({"rootfs": {"diff_ids": ids}}).encode())
        manifest = blob(json.dumps({"config": config, "layers": layers}).encode())
        add("index.json", json.dumps({"manifests": [manifest]}).encode())
    return out.getvalue()


def bundle(name, archive):
    """A function's folder with that image in it."""
    manifest = f'name = "{name}"\nruntime = "python"\nimage = "image.tar"\n'
    return packed({"function.toml": manifest.encode(), "main.py": b"def handler(event, context): return 1\n", "image.tar": archive})


def packed(parts, mode=0o644):
    """Files by their paths, as an archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, data in parts.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(data), mode
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


class Worker:
    def __init__(self, program):
        self.state = tempfile.TemporaryDirectory()
        settings = ["server.address=127.0.0.1:0", f"server.state_directory={self.state.name}", "server.max_payload=512MiB"]
        command = [program, "serve", *(word for setting in settings for word in ("--set", setting))]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        line = self.process.stdout.readline()
        self.address = next(word for word in line.split() if word.startswith("http://"))[len("http://"):].rstrip("/")

    def deploy(self, name, archive):
        """In seconds."""
        body = bundle(name, archive)
        connection = http.client.HTTPConnection(self.address, timeout=300)
        since = time.perf_counter()
        connection.request("PUT", f"/v1/functions/{name}", body, {"content-type": "application/x-tar"})
        answer = connection.getresponse()
        text = answer.read()
        took = time.perf_counter() - since
        assert answer.status in (200, 201), text
        return took

    def end(self):
        self.process.terminate()
        self.process.wait()
        self.state.cleanup()


def main():
    programs = sys.argv[1:]
    if not programs:
        sys.exit(__doc__)
    tar, files = layer()
    print(f"{files} files, {len(tar) / 2**20:.1f} MiB; medians of {ROUNDS} rounds, in milliseconds")
    workers = {program: Worker(program) for program in programs}
    for form, compress in (("plain", lambda data: data), ("gzip", lambda data: gzip.compress(data, 6))):
        found = {program: ([], []) for program in programs}
        for round in range(ROUNDS):
            archive = image(tar, f"{form}{round}".encode(), compress)
            for program, worker in workers.items():
                found[program][0].append(worker.deploy(f"first-{form}-{round}", archive))
                found[program][1].append(worker.deploy(f"second-{form}-{round}", archive))
        for program, (first, second) in found.items():
            middle = [1000 * statistics.median(times) for times in (first, second)]
            print(f"{form:6} {program}: {middle[0]:8.0f} an image that is not there, {middle[1]:8.0f} one that is")
    for worker in workers.values():
        worker.end()


if __name__ == "__main__":
    main()
