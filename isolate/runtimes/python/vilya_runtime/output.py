"""What a function prints: out of this process before its invocation is answered.

Flushing two streams that hold nothing takes longer than finding and calling a small
handler, so the standard streams are replaced by ones that note when they are written to.

Invariant: while `waiting` is empty, no `Stream` holds a byte. One whose buffer was
handed out can be written to unseen, so it counts as waiting for ever. Knows nothing of
invocations.
"""

import io
import sys

#: The streams that may hold something.
waiting = set()

_Plain = io.TextIOWrapper


class Stream(io.TextIOWrapper):
    """A text stream that says in `waiting` when it was written to."""

    _handed_out = False  # whether others have its buffer

    def write(self, text):
        """As `io.TextIOWrapper.write`."""
        try:
            return _Plain.write(self, text)
        finally:
            # Only now: said before, a flush by another thread in between would unsay it.
            waiting.add(self)

    @property
    def buffer(self):
        """As `io.TextIOWrapper.buffer`."""
        self._hand_out()
        return _Plain.buffer.__get__(self)

    def detach(self):
        """As `io.TextIOWrapper.detach`."""
        self._hand_out()
        return _Plain.detach(self)

    def _hand_out(self):
        self._handed_out = True
        waiting.add(self)


def adopt():
    """Replaces the standard streams by a `Stream` each, flushed at the end of each line besides."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if type(stream) is not _Plain:
            continue  # None: its descriptor was closed when this process began
        stream.flush()
        mode, encoding, errors = stream.mode, stream.encoding, stream.errors
        own = Stream(stream.detach(), encoding=encoding, errors=errors, newline="\n", line_buffering=True)
        own.mode = mode
        setattr(sys, name, own)
        setattr(sys, f"__{name}__", own)


def flush():
    """Brings out what both standard streams hold, whoever made them."""
    for stream in (sys.stdout, sys.stderr):
        if not getattr(stream, "_handed_out", False):
            waiting.discard(stream)
        try:
            stream.flush()
        except OSError:
            if type(stream) is Stream:
                waiting.add(stream)  # still there: tried again after the next invocation
        except (AttributeError, ValueError):
            pass  # the handler closed or replaced it
