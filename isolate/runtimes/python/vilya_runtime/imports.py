"""What invocations import that loading the function did not.

Told to the worker once, after the first invocation that imported something, so that the
next process which is copied has imported it too.
"""

import sys

from . import layout


class Imports:
    """Watches the modules of this process."""

    def __init__(self, channel):
        self._channel = channel
        #: How many there were when the function was ready; once it is told, more than there can be.
        self.known = len(sys.modules)
        self._first = [self.known]

    def tell(self):
        """Names the modules that were added, packages before what is in them, as far as a message holds them."""
        self.known = sys.maxsize
        try:
            first = self._first.pop()  # of several threads one has it
        except IndexError:
            return
        added = [name for name in list(sys.modules)[first:] if _is_importable(name)]
        text = b""
        for name in sorted(added, key=lambda name: "." in name):
            longer = text + b" " * bool(text) + name.encode()
            if len(longer) <= layout.INLINE_BYTES:
                text = longer
        if text:
            self._channel.publish(layout.IMPORTED, 0, 0, b"", text)


def _is_importable(name):
    parts = name.split(".")
    return all(part.isidentifier() for part in parts) and parts[0] not in ("vilya_runtime", "__main__")
