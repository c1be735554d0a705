"""A worker made of Python, to run the real runtime against.

Owns two sealed memfds and an eventfd laid out as in `layout`, and the process that
runs `__main__.py` with them as descriptors 3, 4 and 5. It plays the worker's part of
the parking protocol. Waits are bounded only so that a broken runtime fails the test.
"""

import contextlib
import ctypes
import errno
import fcntl
import json
import mmap
import os
import select
import signal
import struct
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from types import SimpleNamespace

RUNTIME = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "vilya_runtime")
sys.path.insert(0, os.path.dirname(RUNTIME))

from vilya_runtime import kernel, layout  # noqa: E402

PATIENCE_S = 60
_SEAL_SHRINK, _SEAL_GROW, _SEAL_SEAL, _SEAL_FUTURE_WRITE = 2, 4, 1, 16
_FUTEX_WAKE = 1
_libc = ctypes.CDLL(None, use_errno=True)


def _round_up(count, unit):
    return -(-count // unit) * unit


def _power_of_two(count):
    return 1 << (count - 1).bit_length()


def request_metadata(request_id=bytes(range(16)), received_unix_ms=1_700_000_000_123, content_type=b"", trace_parent=b""):
    """A `RequestMetadata` archive: the two strings, padding, the root."""
    strings = content_type + trace_parent
    strings += bytes(-len(strings) % layout.REQUEST_METADATA_ALIGN)
    root = len(strings)
    return strings + struct.pack(
        layout.REQUEST_METADATA_ROOT_FORMAT,
        request_id,
        received_unix_ms,
        -(root + layout.REQUEST_METADATA_CONTENT_TYPE_OFFSET),
        len(content_type),
        len(content_type) - (root + layout.REQUEST_METADATA_TRACE_PARENT_OFFSET),
        len(trace_parent),
    )


def open_when_read(path):
    """Opens a FIFO for writing once a handler has it open; unlike `open`, not for ever."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            return os.fdopen(os.open(path, os.O_WRONLY | os.O_NONBLOCK), "w")
        except OSError as error:
            if error.errno != errno.ENXIO or time.monotonic() > until:
                raise
            time.sleep(0.0005)


class Regions:
    """The two regions and the doorbell, from the worker's side."""

    def __init__(self, lanes=1, payload_limit=6 << 20, first_index=0):
        self.lanes, self.payload_limit = lanes, payload_limit
        self.submission_entries = _power_of_two(lanes * 3 + 1)
        self.completion_entries = max(4, _power_of_two(lanes + 2))
        ring = lambda entries: _round_up(entries * layout.SLOT_STRIDE_BYTES, layout.PAGE_BYTES)  # noqa: E731
        self.lane_bytes = layout.METADATA_BYTES + _round_up(payload_limit, layout.PAGE_BYTES)
        self.request_offset = layout.HEADER_BYTES + ring(self.submission_entries)
        self.response_offset = layout.HEADER_BYTES + ring(self.completion_entries)
        down_bytes = self.request_offset + lanes * self.lane_bytes
        up_bytes = self.response_offset + lanes * self.lane_bytes
        self.header = {
            "magic": layout.DOWN_MAGIC,
            "abi": layout.ABI_VERSION,
            "header_bytes": layout.HEADER_BYTES,
            "lanes": lanes,
            "submission_entries": self.submission_entries,
            "submission_offset": layout.HEADER_BYTES,
            "submission_stride": layout.SLOT_STRIDE_BYTES,
            "inline_bytes": layout.INLINE_BYTES,
            "completion_entries": self.completion_entries,
            "completion_stride": layout.SLOT_STRIDE_BYTES,
            "completion_offset": layout.HEADER_BYTES,
            "request_offset": self.request_offset,
            "request_lane_bytes": self.lane_bytes,
            "response_offset": self.response_offset,
            "response_lane_bytes": self.lane_bytes,
            "metadata_bytes": layout.METADATA_BYTES,
            "reserved": 0,
            "payload_limit": payload_limit,
            "down_bytes": down_bytes,
            "up_bytes": up_bytes,
        }
        self.down_fd = os.memfd_create("down", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self.up_fd = os.memfd_create("up", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.down_fd, down_bytes)
        os.ftruncate(self.up_fd, up_bytes)
        self.down = mmap.mmap(self.down_fd, down_bytes)
        self.up = mmap.mmap(self.up_fd, up_bytes)
        fcntl.fcntl(self.down_fd, 1033, _SEAL_SHRINK | _SEAL_GROW | _SEAL_SEAL | _SEAL_FUTURE_WRITE)
        fcntl.fcntl(self.up_fd, 1033, _SEAL_SHRINK | _SEAL_GROW | _SEAL_SEAL)
        self.doorbell = _libc.eventfd(0, os.O_NONBLOCK | os.O_CLOEXEC)
        self.down_words = memoryview(self.down)[: layout.HEADER_BYTES].cast("I")
        self.up_words = memoryview(self.up)[: layout.HEADER_BYTES].cast("I")
        self.write_header(self.header)

        self.tail = self.head = first_index
        for words, offset in (
            (self.down_words, layout.SUBMISSION_TAIL_OFFSET),
            (self.down_words, layout.COMPLETION_HEAD_OFFSET),
            (self.up_words, layout.COMPLETION_TAIL_OFFSET),
            (self.up_words, layout.SUBMISSION_HEAD_OFFSET),
        ):
            words[offset // 4] = first_index
        self.fence = threading.Lock()
        self.wakes = self.rings = self.sleep = 0
        self.imported = None

    def write_header(self, header):
        values = [header[name] for name in layout.DOWN_HEADER_FIELDS]
        struct.pack_into(layout.DOWN_HEADER_FORMAT, self.down, 0, *values)

    def close(self):
        self.down_words.release()
        self.up_words.release()
        self.down.close()
        self.up.close()
        for descriptor in (self.down_fd, self.up_fd, self.doorbell):
            os.close(descriptor)

    # Down.

    def submit(self, payload, invocation=7, lane=0, metadata=None, deadline_ns=None):
        """An Invoke: inline where it fits, else in the lane."""
        metadata = request_metadata() if metadata is None else metadata
        slot = self._submission_slot()
        start = slot + layout.DESCRIPTOR_BYTES
        content = start + _round_up(len(metadata), layout.PAYLOAD_ALIGN_BYTES)
        if content + len(payload) > slot + layout.SLOT_STRIDE_BYTES:
            start = self.request_offset + lane * self.lane_bytes
            content = start + layout.METADATA_BYTES
        self.down[start : start + len(metadata)] = metadata
        self.down[content : content + len(payload)] = payload
        if deadline_ns is None:
            deadline_ns = time.monotonic_ns() + 10_000_000_000
        self._post(slot, invocation, layout.INVOKE, lane, deadline_ns, start, len(metadata), content, len(payload))

    def cancel(self, invocation, lane=0):
        self._post(self._submission_slot(), invocation, layout.CANCEL, lane, 0, 0, 0, 0, 0)

    def stop(self):
        self._post(self._submission_slot(), 0, layout.STOP, 0, 0, 0, 0, 0, 0)

    def advise_trim(self):
        self._post(self._submission_slot(), 0, layout.TRIM, 0, 0, 0, 0, 0, 0)

    def _submission_slot(self):
        assert (self.tail - self.up_words[layout.SUBMISSION_HEAD_OFFSET // 4]) & 0xFFFFFFFF < self.submission_entries
        return layout.HEADER_BYTES + (self.tail & (self.submission_entries - 1)) * layout.SLOT_STRIDE_BYTES

    def _post(self, slot, invocation, kind, lane, deadline_ns, metadata, metadata_bytes, payload, payload_bytes):
        struct.pack_into(
            layout.SUBMISSION_FORMAT, self.down, slot,
            invocation, kind, 0, lane, deadline_ns, metadata, metadata_bytes, 0, payload, payload_bytes, self.tail + 1,
        )  # fmt: skip
        self.tail = (self.tail + 1) & 0xFFFFFFFF
        self.down_words[layout.SUBMISSION_TAIL_OFFSET // 4] = self.tail
        with self.fence:  # the worker's SeqCst fence
            pass
        if self.up_words[layout.SANDBOX_PARKED_OFFSET // 4]:
            address = kernel.address_of(self.down) + layout.SUBMISSION_TAIL_OFFSET
            _libc.syscall(
                ctypes.c_long(202 if kernel.MACHINE == "x86_64" else 98), ctypes.c_void_p(address),
                ctypes.c_int(_FUTEX_WAKE), ctypes.c_int(1), None, None, ctypes.c_int(0),
            )  # fmt: skip
            self.wakes += 1

    def wait_until_parked(self):
        until = time.monotonic() + PATIENCE_S
        while not self.up_words[layout.SANDBOX_PARKED_OFFSET // 4]:
            assert time.monotonic() < until, "the runtime did not park"
            time.sleep(0.0005)

    # Up.

    def pop(self):
        """The next completion of an invocation or of the start, or None. What was imported is kept in `imported`."""
        claim = self._pop()
        while claim is not None and claim.kind == layout.IMPORTED:
            assert self.imported is None, "said once"
            self.imported = claim.payload.decode()
            claim = self._pop()
        return claim

    def _pop(self):
        if self.up_words[layout.COMPLETION_TAIL_OFFSET // 4] == self.head:
            return None
        slot = layout.HEADER_BYTES + (self.head & (self.completion_entries - 1)) * layout.SLOT_STRIDE_BYTES
        values = struct.unpack_from(layout.COMPLETION_FORMAT, self.up, slot)
        claim = SimpleNamespace(**dict(zip(layout.COMPLETION_FIELDS, values)))
        self._await_sequence(slot)
        lane_start = self.response_offset + claim.lane * self.lane_bytes
        parts = (claim.metadata_offset, claim.metadata_bytes), (claim.payload_offset, claim.payload_bytes)
        for offset, count in parts:
            in_slot = slot + layout.DESCRIPTOR_BYTES <= offset and offset + count <= slot + layout.SLOT_STRIDE_BYTES
            in_lane = lane_start <= offset and offset + count <= lane_start + self.lane_bytes
            assert count == 0 or in_slot or in_lane, "a claim out of bounds"
        claim.inline = slot <= claim.payload_offset < slot + layout.SLOT_STRIDE_BYTES
        claim.payload = self.up[claim.payload_offset : claim.payload_offset + claim.payload_bytes]
        archived = self.up[claim.metadata_offset : claim.metadata_offset + claim.metadata_bytes]
        claim.content_type = None
        if archived:
            root = len(archived) - layout.RESPONSE_METADATA_ROOT_BYTES
            assert (claim.metadata_offset + root) % layout.RESPONSE_METADATA_ALIGN == 0
            offset, count = struct.unpack_from(layout.RESPONSE_METADATA_ROOT_FORMAT, archived, root)
            claim.content_type = archived[root + offset : root + offset + count].decode()
        self.head = (self.head + 1) & 0xFFFFFFFF
        self.down_words[layout.COMPLETION_HEAD_OFFSET // 4] = self.head
        return claim

    def _await_sequence(self, slot):
        # Stored after the tail that was just seen, so not always there yet.
        until = time.monotonic() + PATIENCE_S
        while struct.unpack_from("<Q", self.up, slot + layout.SEQUENCE_OFFSET) != (self.head + 1,):
            assert time.monotonic() < until, "the slot's sequence is not that of its message"

    def wait(self, pidfd=None):
        """The next completion, parking for it; None if the process behind `pidfd` is gone without one."""
        until = time.monotonic() + PATIENCE_S
        poll = select.poll()
        poll.register(self.doorbell, select.POLLIN)
        if pidfd is not None:
            poll.register(pidfd, select.POLLIN)
        while True:
            self.sleep += 1
            self.down_words[layout.WORKER_PARKED_OFFSET // 4] = self.sleep
            with self.fence:  # announce_park's SeqCst fence
                pass
            claim = self.pop()
            if claim is None:
                ready = dict(poll.poll(max(0, until - time.monotonic()) * 1000))
                if self.doorbell in ready:
                    os.read(self.doorbell, 8)
                    self.rings += 1
                claim = self.pop()
                assert ready, "no completion: the doorbell was not rung"
                if claim is None and pidfd in ready:
                    return None
            if claim is not None:
                self.down_words[layout.WORKER_PARKED_OFFSET // 4] = 0
                return claim


class Sandbox:
    """The real runtime in a process of its own, running `source` as `app.py`."""

    def __init__(self, source, handler="app.handler", lanes=1, environment=(), header=None, folder=None, **regions):
        self.regions = Regions(lanes=lanes, **regions)
        if header:
            self.regions.write_header({**self.regions.header, **header})
        self._cleanup = contextlib.ExitStack()
        if folder is None:
            folder = self._cleanup.enter_context(tempfile.TemporaryDirectory())
            with open(os.path.join(folder, "app.py"), "w", encoding="utf-8") as file:
                file.write(textwrap.dedent(source))
        self.stdout = self._cleanup.enter_context(tempfile.TemporaryFile())
        self.stderr = self._cleanup.enter_context(tempfile.TemporaryFile())
        owned = self.regions.down_fd, self.regions.up_fd, self.regions.doorbell
        passed = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 100) for descriptor in owned]

        def place():
            for target, descriptor in enumerate(passed, start=3):
                os.dup2(descriptor, target)

        self.process = subprocess.Popen(
            [sys.executable, "-I", "-B", "-X", "utf8", os.path.join(RUNTIME, "__main__.py")],
            cwd=folder,
            env={
                "VILYA_FUNCTION": "tested",
                "VILYA_VERSION": "3",
                "VILYA_HANDLER": handler,
                "VILYA_MEMORY_BYTES": str(128 << 20),
                "VILYA_SPIN_US": "0",
                "PATH": os.environ["PATH"],
                **dict(environment),
            },
            stdin=subprocess.DEVNULL,
            stdout=self.stdout,
            stderr=self.stderr,
            close_fds=False,
            preexec_fn=place,
        )
        for descriptor in passed:
            os.close(descriptor)
        self.pidfd = os.pidfd_open(self.process.pid)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        os.close(self.pidfd)
        self._cleanup.close()
        self.regions.close()

    def wait(self):
        return self.regions.wait(self.pidfd)

    def ready(self):
        claim = self.wait()
        assert claim is not None, self.log()
        assert claim.kind == layout.READY, claim
        return self

    def invoke(self, payload, **fields):
        """One invocation from submission to completion."""
        self.regions.submit(payload, **fields)
        claim = self.wait()
        assert claim is not None, self.log()
        return claim

    def call(self, event, **fields):
        """A JSON invocation that must return; its parsed result."""
        claim = self.invoke(json.dumps(event).encode(), **fields)
        assert claim.kind == layout.RETURNED, claim.payload
        return json.loads(claim.payload)

    def output(self):
        return self._read(self.stdout)

    def log(self):
        return self._read(self.stderr)

    def exit_status(self):
        return self.process.wait(PATIENCE_S)

    @staticmethod
    def _read(file):
        return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode()
