"""The sandbox's end of the two shared regions.

Owns the ring indices, the parking protocol and the placing of payloads. Every offset
comes from `layout`, which is generated from the ABI's source.

Invariant: a submission's slot is given back (`submission_head` moves) only after
everything in the slot was copied out, and a completion's index moves only after its
descriptor and payload are written, and its sequence after that. What is read was
written by the worker, which is trusted; magic and version are checked all the same, to
explain a mismatched pair.

Memory ordering, for a language without atomics. Indices are aligned u32 words, read
and written through `memoryview.cast("I")`: one 4-byte move each. x86-64 keeps loads in
order and stores in order, which is all that publishing a slot needs (it pairs with
the worker's Acquire load of `completion_tail` and Release store of `submission_tail`).
A store followed by a load of another word is the one pair it may reorder:

- Down: `sandbox_parked = 1`, then `submission_tail` is compared. The comparison is the
  kernel's: FUTEX_WAIT counts itself as a waiter with a full barrier before it reads the
  word. It pairs with the worker's SeqCst fence between storing the tail and loading
  `sandbox_parked`: either the kernel sees the new tail and does not sleep, or the
  worker sees the flag and wakes.
- Up: `completion_tail` and then the slot's `sequence` are stored (a worker that is
  awake looks at the sequence alone, and one that saw it must not see an older tail),
  then `worker_parked` is loaded. Between them the publishing lock is released, and
  acquiring or releasing a lock of CPython is a `lock`-prefixed instruction, a full
  barrier. It pairs with the worker's fence in `announce_park`.

On other machines `_barrier` orders the slots and the doorbell is always rung.
"""

import mmap
import os
import struct
import time
from _thread import allocate_lock

from . import kernel, layout
from .windows import Window


def _record(layout_format, fields, wanted):
    """The `Struct` of those `fields` of a record that are `wanted`; the others are skipped, or written as zeros."""
    codes = zip(layout_format[1:], fields)
    parts = (code if name in wanted else f"{struct.calcsize('<' + code)}x" for code, name in codes)
    return struct.Struct("<" + "".join(parts))


_unpack_submission = _record(
    layout.SUBMISSION_FORMAT,
    layout.SUBMISSION_FIELDS,
    ("invocation", "kind", "lane", "deadline_ns", "metadata_offset", "metadata_bytes", "payload_offset", "payload_bytes"),
).unpack_from
# All of a completion that is not zero, but for its sequence, which is stored after everything else.
_pack_completion = _record(
    layout.COMPLETION_FORMAT,
    layout.COMPLETION_FIELDS,
    ("invocation", "kind", "lane", "metadata_offset", "metadata_bytes", "payload_offset", "payload_bytes"),
).pack_into
# The ABI fixes these; `_read_header` checks that the worker's header agrees.
_RING = layout.HEADER_BYTES
_STRIDE = layout.SLOT_STRIDE_BYTES
_INVOKE = layout.INVOKE
_SEQUENCE = layout.SEQUENCE_OFFSET
_DESCRIPTOR_BYTES = layout.DESCRIPTOR_BYTES
_INLINE_BYTES = layout.INLINE_BYTES
_ALIGN = layout.PAYLOAD_ALIGN_BYTES  # a power of two
# Places in the headers seen as u32 words.
_SUBMISSION_TAIL = layout.SUBMISSION_TAIL_OFFSET // 4
_SUBMISSION_HEAD = layout.SUBMISSION_HEAD_OFFSET // 4
_SANDBOX_PARKED = layout.SANDBOX_PARKED_OFFSET // 4
_COMPLETION_TAIL = layout.COMPLETION_TAIL_OFFSET // 4
_WORKER_PARKED = layout.WORKER_PARKED_OFFSET // 4

_U32 = 0xFFFF_FFFF
_ONE = (1).to_bytes(8, "little")  # what an eventfd is rung with
_STRONGLY_ORDERED = kernel.MACHINE == "x86_64"
_SAME_RELEASE = "use the runtime of the worker's release"

#: Spinning starts here and is doubled or halved by how the last waits went.
_FIRST_SPIN_NS = 50_000
_SHORTEST_SPIN_NS = 1_000
#: Looks at the word between two looks at the clock.
_LOOKS = 32


class HandshakeError(Exception):
    """The regions are not ones this runtime can speak to."""


class Channel:
    """Takes submissions and publishes completions.

    `take` is called by one thread at a time; everything else by any.
    """

    def __init__(self, down_fd, up_fd, doorbell_fd, spin_limit_ns):
        self._down_fd, self._up_fd, self._doorbell_fd = down_fd, up_fd, doorbell_fd
        self._geometry = geometry = _read_header(down_fd)
        self.lanes = geometry["lanes"]
        self.payload_limit = geometry["payload_limit"]
        self._submission_mask = geometry["submission_entries"] - 1
        self._completion_mask = geometry["completion_entries"] - 1

        self._down = mmap.mmap(down_fd, geometry["down_bytes"], access=mmap.ACCESS_READ)
        self._up = mmap.mmap(up_fd, geometry["up_bytes"], access=mmap.ACCESS_WRITE)
        self._down_words = memoryview(self._down)[: layout.HEADER_BYTES].cast("I")
        self._up_words = memoryview(self._up)[: layout.HEADER_BYTES].cast("I")
        ring_end = _RING + geometry["completion_entries"] * _STRIDE
        self._up_quads = memoryview(self._up)[:ring_end].cast("Q")
        struct.pack_into(layout.UP_HEADER_FORMAT, self._up, 0, layout.UP_MAGIC, layout.ABI_VERSION, 0)
        self._head = self._up_words[_SUBMISSION_HEAD]
        self._tail = self._up_words[_COMPLETION_TAIL]

        self._publishing = allocate_lock()
        self._fence = allocate_lock()
        self._rung = 0  # the worker's sleep in which it was last rung; once is enough
        self._stopped = False
        self._part_waiters = {}  # lane -> what sleeps until a part of it was taken
        self._cancelled = {}  # lane -> the invocation last advised to give up
        self._doze, self._futex_wait = kernel.futex_waiter(kernel.address_of(self._down) + layout.SUBMISSION_TAIL_OFFSET)
        # Whoever spins holds the interpreter's lock, which the handlers of other lanes need.
        self._spin_limit_ns = spin_limit_ns if self.lanes == 1 else 0
        self._spin_ns = min(_FIRST_SPIN_NS, self._spin_limit_ns)

    def request_window(self, lane):
        """The lane's part of the request arena, and where it starts in the region."""
        start = self._geometry["request_offset"] + lane * self._geometry["request_lane_bytes"]
        return Window(self._down_fd, start, self._geometry["request_lane_bytes"], writable=False), start

    def response_window(self, lane):
        """The lane's part of the response arena; its payload starts at `METADATA_BYTES`."""
        lane_bytes = self._geometry["response_lane_bytes"]
        return Window(self._up_fd, self._response_lane(lane), lane_bytes, writable=True)

    # Down.

    def take(self):
        """The next invocation, waiting for it; None once the worker said Stop.

        A tuple: `(invocation, lane, deadline_ns, metadata, request)`. `request` is the payload
        where that rode in the slot, else its place in the region, for `view`.
        """
        words, down = self._down_words, self._down
        while not self._stopped:
            head = self._head
            if words[_SUBMISSION_TAIL] == head:
                self._await_submission(head)
            if not _STRONGLY_ORDERED:
                self._barrier()
            slot = _RING + (head & self._submission_mask) * _STRIDE
            invocation, kind, lane, deadline_ns, metadata, metadata_bytes, payload, count = _unpack_submission(down, slot)
            submission = None
            if kind == _INVOKE:
                inline = slot < payload < slot + _STRIDE or count == 0
                request = down[payload : payload + count] if inline else (payload, count)
                submission = invocation, lane, deadline_ns, down[metadata : metadata + metadata_bytes], request
            else:
                self._obey(invocation, kind, lane)
            if not _STRONGLY_ORDERED:
                self._barrier()
            self._head = self._up_words[_SUBMISSION_HEAD] = (head + 1) & _U32
            if submission is not None:
                return submission
        return None

    def _obey(self, invocation, kind, lane):
        if kind == layout.CANCEL:
            self._cancelled[lane] = invocation
        elif kind == layout.STOP:
            self._stopped = True
        elif kind == layout.TRIM:
            from . import memory  # most sandboxes never need it

            memory.give_back()
        else:
            raise HandshakeError(f"the worker sent a submission of unknown kind {kind}; {_SAME_RELEASE}")

    def cancelled(self, invocation, lane):
        """Whether the worker advised to give up `invocation`, also if nobody took that advice yet."""
        if self._cancelled.get(lane) == invocation:
            return True
        head, tail = self._head, self._down_words[_SUBMISSION_TAIL]
        if not _STRONGLY_ORDERED:
            self._barrier()
        while head != tail:
            fields = _unpack_submission(self._down, _RING + (head & self._submission_mask) * _STRIDE)
            if fields[0] == invocation and fields[1] == layout.CANCEL:
                return True
            head = (head + 1) & _U32
        return False

    def view(self, place):
        """A payload that did not ride in its slot, to read at once: it must not outlive the invocation."""
        start, count = place
        return memoryview(self._down)[start : start + count]

    def _await_submission(self, seen):
        if not self._spin_limit_ns:
            self._park(seen)
            return
        words, budget = self._down_words, self._spin_ns
        started = time.monotonic_ns()
        if budget:
            until = started + budget
            while time.monotonic_ns() < until:
                for _ in range(_LOOKS):
                    if words[_SUBMISSION_TAIL] != seen:
                        return
        self._park(seen)
        self._spin_ns = self._next_budget(budget, time.monotonic_ns() - started)

    def _park(self, seen):
        words, own_words = self._down_words, self._up_words
        own_words[_SANDBOX_PARKED] = 1
        self._doze(seen)
        while words[_SUBMISSION_TAIL] == seen:
            self._futex_wait(seen)
        own_words[_SANDBOX_PARKED] = 0

    def _next_budget(self, budget, waited_ns):
        # Halt polling: a longer spin would have met a wait this short; a long one was
        # spun for in vain.
        if waited_ns <= self._spin_limit_ns:
            return min(max(budget * 2, _FIRST_SPIN_NS), self._spin_limit_ns)
        return budget // 2 if budget >= 2 * _SHORTEST_SPIN_NS else 0

    # Up.

    def publish(self, kind, invocation, lane, metadata, payload):
        """Completes an invocation with a copy of `payload` (bytes), in the slot if it fits."""
        count = len(payload)
        content = (len(metadata) + _ALIGN - 1) & -_ALIGN
        if content + count > _INLINE_BYTES:
            self.stage(lane, payload)
            self.publish_staged(kind, invocation, lane, metadata, count)
            return
        up, publishing = self._up, self._publishing
        publishing.acquire()  # not `with`, which takes half as long again
        try:
            slot = _RING + (self._tail & self._completion_mask) * _STRIDE
            start = slot + _DESCRIPTOR_BYTES
            content += start
            up[start : start + len(metadata)] = metadata
            up[content : content + count] = payload
            _pack_completion(up, slot, invocation, kind, lane, start, len(metadata), content, count)
            self._commit(slot)
        finally:
            publishing.release()
        self._ring_doorbell()

    def stage(self, lane, payload):
        """Copies a payload to where `publish_staged` sends it from."""
        start = self._response_lane(lane) + layout.METADATA_BYTES
        view = memoryview(self._up)
        view[start : start + len(payload)] = payload
        view.release()

    def publish_staged(self, kind, invocation, lane, metadata, count):
        """Completes an invocation with the first `count` payload bytes of its lane."""
        start = self._response_lane(lane)
        content = start + layout.METADATA_BYTES
        self._up[start : start + len(metadata)] = metadata
        with self._publishing:
            slot = _RING + (self._tail & self._completion_mask) * _STRIDE
            _pack_completion(self._up, slot, invocation, kind, lane, start, len(metadata), content, count)
            self._commit(slot)
        self._ring_doorbell()

    def send_part(self, invocation, lane, metadata, data):
        """Sends bytes as parts of an answer, each when the one before was taken. Whether somebody takes more."""
        view = memoryview(data).cast("B")
        word = (layout.PARTS_TAKEN_OFFSET >> 2) + lane
        wait = self._part_waiters.get(lane)
        if wait is None:
            wait = self._part_waiters[lane] = kernel.futex_waiter(kernel.address_of(self._down) + (word << 2))[1]
        step = min(layout.PART_BYTES, self.payload_limit)
        for at in range(0, len(view), step):
            before = self._down_words[word]
            self.publish(layout.PART, invocation, lane, metadata, bytes(view[at : at + step]))
            while (taken := self._down_words[word]) == before:
                wait(before)
            if not _STRONGLY_ORDERED:
                self._barrier()
            if taken & 1:
                return False
        return True

    def _commit(self, slot):
        if not _STRONGLY_ORDERED:
            self._barrier()
        sequence = self._tail + 1
        self._tail = self._up_words[_COMPLETION_TAIL] = sequence & _U32
        if not _STRONGLY_ORDERED:
            self._barrier()
        self._up_quads[(slot + _SEQUENCE) >> 3] = sequence

    def _ring_doorbell(self):
        # Having left the lock was the fence between the index and this flag.
        sleep = self._down_words[_WORKER_PARKED]
        if sleep != self._rung or not _STRONGLY_ORDERED:
            self._rung = sleep
            if sleep or not _STRONGLY_ORDERED:
                os.write(self._doorbell_fd, _ONE)

    def _response_lane(self, lane):
        return self._geometry["response_offset"] + lane * self._geometry["response_lane_bytes"]

    def _barrier(self):
        # A release followed by an acquire keeps everything before in front of everything
        # after; one acquire and release would let both sides meet in the middle.
        for _ in range(2):
            self._fence.acquire()
            self._fence.release()


def _read_header(down_fd):
    with mmap.mmap(down_fd, layout.HEADER_BYTES, access=mmap.ACCESS_READ) as page:
        values = struct.unpack_from(layout.DOWN_HEADER_FORMAT, page)
    header = dict(zip(layout.DOWN_HEADER_FIELDS, values))
    if header["magic"] != layout.DOWN_MAGIC:
        raise HandshakeError(
            f"descriptor {down_fd} is not a region of a worker (its magic number is {header['magic']:#018x}); "
            "start the runtime through one"
        )
    if header["abi"] != layout.ABI_VERSION:
        raise HandshakeError(
            f"the worker speaks ABI {header['abi']}, this runtime {layout.ABI_VERSION}; {_SAME_RELEASE}"
        )
    fixed = {
        "header_bytes": layout.HEADER_BYTES,
        "submission_offset": _RING,
        "submission_stride": _STRIDE,
        "completion_offset": _RING,
        "completion_stride": _STRIDE,
        "inline_bytes": layout.INLINE_BYTES,
        "metadata_bytes": layout.METADATA_BYTES,
    }
    for name, value in fixed.items():
        if header[name] != value:
            raise HandshakeError(f"the region's header says {name} = {header[name]}, not {value}; {_SAME_RELEASE}")
    return header
