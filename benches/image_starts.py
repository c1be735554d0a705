"""What a cold start takes in an image and without one: `python3 benches/image_starts.py VILYA [ECHO]`.

Medians, in milliseconds, of what the worker says that starts took (`start` of `server-timing`, from the wish for a sandbox to the ready
runtime) and of what a client waited for its answer. Each start is of a function whose only sandbox has just ended by itself. The image has this
machine's Python and its libraries. ECHO is an executable that serves as a function in Rust and ends on the body `exit` (target/debug/echo-function);
it is run with this machine's libraries from the same image. The first four lines are with everything made ahead, the others with
`sandbox.prepared_images=0`: then sandboxes in an image are made whole.
"""

import http.client
import io
import os
import statistics
import subprocess
import sys
import tarfile
import time

sys.path.insert(0, os.path.dirname(__file__))
import image_deploy

STARTS = 40
PYTHON = b"import os\ndef handler(event, context):\n    if event == 'exit': os._exit(0)\n    return 1\n"


def layer(more):
    """The layer of `image_deploy`, and what the extensions of the standard library and `more` are linked with."""
    tar, _ = image_deploy.layer()
    place = io.BytesIO(tar)
    with tarfile.open(fileobj=place, mode="r") as there:
        names = set(there.getnames())
    extensions = ["/" + name for name in names if name.endswith(".so")]
    linked = subprocess.run(["ldd", *extensions, *more], capture_output=True, text=True, check=True).stdout
    place.seek(0)
    with tarfile.open(fileobj=place, mode="a") as out:
        for path in sorted({word for word in linked.split() if word.startswith("/") and not word.endswith(":")}):
            name = (path if path.startswith("/usr/") else "/usr" + path).lstrip("/")
            if name not in names:
                out.add(os.path.realpath(path), name)
    return place.getvalue()


def bundle(name, runtime, archive, executable):
    manifest = f'name = "{name}"\nruntime = "{runtime}"\n'
    parts = {}
    if runtime == "rust":
        manifest += 'handler = "run"\n'
        parts["run"] = executable
    else:
        parts["main.py"] = PYTHON
    if archive:
        manifest += 'image = "image.tar"\n'
        parts["image.tar"] = archive
    parts["function.toml"] = manifest.encode()
    return image_deploy.packed(parts, 0o755)


class Worker(image_deploy.Worker):
    def request(self, method, path, body=None, kind="application/json"):
        connection = http.client.HTTPConnection(self.address, timeout=300)
        since = time.perf_counter()
        connection.request(method, path, body, {"content-type": kind})
        answer = connection.getresponse()
        answer.text = answer.read()
        return answer, 1000 * (time.perf_counter() - since)

    def deploy_function(self, name, archive):
        answer, _ = self.request("PUT", f"/v1/functions/{name}", archive, "application/x-tar")
        assert answer.status in (200, 201), answer.status

    def starts(self, name, runtime):
        """Milliseconds of starts, and of their clients."""
        ends = b"exit" if runtime == "rust" else b'"exit"'
        starts, waits = [], []
        for number in range(STARTS + 5):
            answer, waited = self.request("POST", f"/fn/{name}", b"1")
            assert answer.status == 200 and answer.headers["x-vilya-start"] == "cold", (number, answer.text)
            took = next(part for part in answer.headers["server-timing"].split(", ") if part.startswith("start;"))
            if number >= 5:
                starts.append(float(took.split("=")[1]))
                waits.append(waited)
            self.request("POST", f"/fn/{name}", ends)
            time.sleep(0.05)
        return statistics.median(starts), statistics.median(waits)


def main():
    program, executable = sys.argv[1], open(sys.argv[2], "rb").read() if len(sys.argv) > 2 else None
    archive = image_deploy.image(layer(sys.argv[2:]), b"mark", lambda data: data)
    runtimes = ["python", "rust"] if executable else ["python"]
    for settings, words in (([], "made ahead"), (["sandbox.prepared_images=0"], "made whole in images")):
        os.environ.update({"VILYA_SANDBOX__PREPARED_IMAGES": "0"} if settings else {})
        worker = Worker(program)
        try:
            for runtime in runtimes:
                for within, image in (("image", archive), ("host", None)):
                    name = f"{runtime}-{within}"
                    worker.deploy_function(name, bundle(name, runtime, image, executable))
                    start, wait = worker.starts(name, runtime)
                    print(f"{words:22} {runtime:7} {within:6} start {start:7.2f}  client {wait:7.2f}")
        finally:
            worker.end()


if __name__ == "__main__":
    main()
