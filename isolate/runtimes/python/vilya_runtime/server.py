"""The life of the runtime: load the function, say Ready, run invocations, stop.

Owns the lanes and the order of things at the end of a call: output is flushed, then
views are settled, then the completion is published; so what a handler printed
belongs to its invocation, and no view of it sees the next one.

With one lane the main thread does everything. With more, a thread a lane: the thread
that took a submission runs it and another one takes over looking at the ring, so that
no invocation is handed from thread to thread.
"""

import gc
import os
import sys
from _thread import allocate_lock

from . import failures, handlers, layout, output, zygote
from .channel import Channel, HandshakeError
from .context import Context, Function
from .imports import Imports
from .metadata import response_metadata
from .output import waiting

_JSON = response_metadata("application/json")
_modules = sys.modules  # looked at after every invocation


def main(environment):
    """Runs until the worker says Stop; returns the exit status."""
    role = environment.pop("VILYA_ZYGOTE", None)
    if role is not None:
        zygote.watch_forks()
    output.adopt()
    if role == "runtime":
        zygote.become_copy()
        zygote.adopt_environment(environment)
        # What is copied further has been told so.
        role = environment.pop("VILYA_ZYGOTE", None)
    sys.path.insert(0, os.getcwd())
    if role is not None:
        return _run_copy(environment)
    channel = _join(environment)
    if channel is None:
        return 1
    try:
        function = handlers.load(environment.get("VILYA_HANDLER", ""))
        zygote.preload(_preloads(environment))
    except BaseException as error:
        channel.publish(layout.INIT_FAILED, 0, 0, b"", report(error, channel.payload_limit))
        output.flush()
        return 1
    # What was imported stays: the collector need not walk it again.
    gc.freeze()
    return _serve(channel, function, environment)


def _run_copy(environment):
    """Loads the function, waits to be copied, and serves as a copy. A function that cannot be loaded has no copies."""
    function = handlers.load(environment.get("VILYA_HANDLER", ""))
    zygote.preload(_preloads(environment))
    zygote.preload_learned(environment.pop("VILYA_LEARNED", "").split())
    output.flush()
    zygote.become_copy()
    channel = _join(environment)
    return 1 if channel is None else _serve(channel, function, environment)


def _join(environment):
    descriptors = layout.DOWN_FD, layout.UP_FD, layout.DOORBELL_FD
    try:
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)  # not for the function's own children
        return Channel(*descriptors, _spin_limit_ns(environment))
    except (HandshakeError, OSError) as error:
        print(f"vilya: descriptors 3, 4 and 5 are not those of a sandbox: {error}", file=sys.stderr)
        return None


def _serve(channel, function, environment):
    server = Server(channel, function, Function(environment))
    channel.publish(layout.READY, 0, 0, b"", b"")
    server.serve()
    return 0


def _preloads(environment):
    return environment.get("VILYA_PRELOAD", "").split()


def _spin_limit_ns(environment):
    """The longest spin before parking; without a wish, none where cores are few."""
    wish = environment.get("VILYA_SPIN_US", "")
    if wish.isdigit():
        return int(wish) * 1_000
    return 0 if len(os.sched_getaffinity(0)) <= 2 else 200_000


class Lane:
    """One invocation at a time, and the shared bytes lent to it."""

    __slots__ = ("number", "response", "call", "_request", "_request_start", "_inline")

    def __init__(self, function, channel, number):
        self.number = number
        self.call = handlers.adapt(function, channel, self)
        self._request, self._request_start = channel.request_window(number)
        self.response = channel.response_window(number)
        self._inline = None

    def lend(self, request):
        """The request's bytes as a read-only view, until `settle`."""
        if type(request) is bytes:
            self._inline = memoryview(request)
            return self._inline
        start, count = request
        return self._request.lend(start - self._request_start, count)

    def starts_response(self, view):
        """Whether `view` is the beginning of what `context.reserve` gave out."""
        return self.response.begins(view)

    def settle(self):
        """Ends the call for everything that was lent."""
        if self._inline is not None:
            try:
                self._inline.release()
            except BufferError:
                pass  # private bytes: what was built upon them may stay
            self._inline = None
        self._request.settle()
        self.response.settle()


class Server:
    """Runs invocations of one loaded function."""

    def __init__(self, channel, function, about):
        self._channel = channel
        self._about = about
        self._raw = handlers.is_raw(function)
        self._default_metadata = b"" if self._raw else _JSON
        # Streams that say when they must be flushed; any other is flushed after each call.
        self._stdout, self._stderr = (
            stream if isinstance(stream, output.Stream) else None for stream in (sys.stdout, sys.stderr)
        )
        self._lanes = [Lane(function, channel, number) for number in range(channel.lanes)]
        self._imports = Imports(channel)

    def serve(self):
        """Until Stop, with everything that was taken also finished."""
        if len(self._lanes) > 1:
            Crew(self._channel, self.run, len(self._lanes)).work()
            return
        take, run = self._channel.take, self.run
        submission = take()
        while submission is not None:
            run(submission)
            submission = take()

    def run(self, submission):
        """Runs one invocation and publishes its completion."""
        channel = self._channel
        invocation, number, _, _, request = submission
        lane = self._lanes[number]
        kind = layout.RETURNED
        try:
            context = Context(self._about, channel, submission)
            payload = lane.call(request, context)
            if type(payload) in handlers.PARTS:
                payload = self._send_parts(payload, invocation, number, context)
            if type(payload) is bytes and len(payload) > channel.payload_limit:
                raise handlers.too_large(len(payload), channel)
            metadata = context._archived_content_type or self._default_metadata
        except SystemExit:
            raise  # the handler ends its process: the worker sees the sandbox die
        except NobodyTakes as error:
            kind, metadata = layout.RAISED, b""
            payload = failures.record("Runtime.NobodyTakes", str(error), [], channel.payload_limit)
        except BaseException as error:
            kind, metadata = layout.RAISED, b""
            payload = report(error, channel.payload_limit)
        if waiting or sys.stdout is not self._stdout or sys.stderr is not self._stderr:
            output.flush()
        if self._raw:
            lane.settle()
        if type(payload) is bytes:
            channel.publish(kind, invocation, number, metadata, payload)
        else:
            channel.publish_staged(kind, invocation, number, metadata, payload)
        if len(_modules) > self._imports.known:
            self._imports.tell()


    def _send_parts(self, parts, invocation, number, context):
        """Sends what a generator yields, and gives what is left to answer with."""

        def send(part):
            metadata = context._archived_content_type or b""
            return self._channel.send_part(invocation, number, metadata, part)

        if not handlers.send_parts(parts, send):
            raise NobodyTakes("the client left, or the time was over, before all parts of the answer were taken")
        return b""


class NobodyTakes(Exception):
    """Nothing that the function did wrong."""


class Crew:
    """Threads that take turns at the ring. One looks; the others run what they took.

    Threads are started when all there are have work, up to one a lane.
    """

    def __init__(self, channel, run, lanes):
        self._take = channel.take
        self._run = run
        self._lanes = lanes
        self._looking = allocate_lock()  # held by the thread that waits for a submission
        self._counting = allocate_lock()  # guards the three below
        self._threads = []
        self._size = 1
        self._busy = 0

    def work(self):
        """Runs until Stop; returns when every thread is done."""
        self._grow()
        self._work()
        for thread in self._threads:
            thread.join()

    def _work(self):
        try:
            while True:
                with self._looking:
                    submission = self._take()
                if submission is None:
                    return
                with self._counting:
                    self._busy += 1
                    alone = self._busy == self._size
                if alone and self._size < self._lanes:
                    self._grow()
                self._run(submission)
                del submission
                with self._counting:
                    self._busy -= 1
        except SystemExit as error:
            _end_process(error.code)
        except BaseException:
            import traceback

            traceback.print_exc()
            _end_process(1)

    def _grow(self):
        import threading

        with self._counting:
            thread = threading.Thread(target=self._work, name=f"vilya-{self._size}", daemon=True)
            self._threads.append(thread)
            self._size += 1
        try:
            thread.start()
        except RuntimeError as error:  # the sandbox may have no more processes: go on with fewer
            with self._counting:
                self._threads.remove(thread)
                self._size -= 1
            print(f"vilya: running {self._size} of {self._lanes} invocations at once: {error}", file=sys.stderr)


def report(error, limit_bytes):
    """Writes an exception to the function's log and returns its error record."""
    error_type, message, lines = failures.describe(error)
    text = "\n".join([f"[ERROR] {error_type}: {message}", *lines])
    try:
        print(text, file=sys.stderr)
    except (OSError, ValueError):
        pass  # the handler closed it; the record still says everything
    return failures.record(error_type, message, lines, limit_bytes)


def _end_process(code):
    # A thread cannot end its process by raising, so it leaves the way sys.exit describes.
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    output.flush()
    os._exit((code or 0) & 0xFF)
