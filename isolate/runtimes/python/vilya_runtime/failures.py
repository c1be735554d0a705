"""Exceptions as the error record: `{"errorType", "errorMessage", "stackTrace"}`.

Invariant: whatever was raised, `record` returns JSON of at most `limit_bytes`. An
exception whose `__str__` raises, or whose message is a hundred megabytes, is still
reported. Knows nothing of rings.
"""

import json
import os

_RUNTIME_FOLDER = os.path.dirname(os.path.abspath(__file__)) + os.sep
_MESSAGE_CHARACTERS = 16 * 1024
_LINE_CHARACTERS = 1024
_FRAMES = 64
#: What is always left of a message when the whole record does not fit.
_SHORT_MESSAGE_CHARACTERS = 80


class Failure(Exception):
    """An error whose type is named by the runtime; its cause, if any, has the stack."""

    def __init__(self, error_type, message):
        super().__init__(message)
        self.error_type = error_type


def describe(error):
    """Returns (type name, message, stack trace lines) of an exception."""
    if isinstance(error, Failure):
        error_type = error.error_type
        lines = [] if error.__cause__ is None else _stack(error.__cause__)
    else:
        error_type = type(error).__name__
        lines = _stack(error)
    try:
        message = str(error)
    except Exception:  # the function's own __str__
        message = "<the message of this exception cannot be read>"
    return error_type, _cut(message, _MESSAGE_CHARACTERS), lines


def record(error_type, message, lines, limit_bytes):
    """Encodes the error record, shedding detail until it fits."""
    for kept in (lines, lines[-4:], []):
        encoded = _encode(error_type, message, kept)
        if len(encoded) <= limit_bytes:
            return encoded
    return _encode(_cut(error_type, _SHORT_MESSAGE_CHARACTERS), _cut(message, _SHORT_MESSAGE_CHARACTERS), [])


def _encode(error_type, message, lines):
    # ASCII: a message may hold lone surrogates, which UTF-8 cannot carry.
    return json.dumps({"errorType": error_type, "errorMessage": message, "stackTrace": lines}).encode("ascii")


def _stack(error):
    # Imported here: most sandboxes never raise, and it is slow to import.
    import traceback

    if isinstance(error, SyntaxError):
        # The place is in the error itself; its last line is the message.
        return _lines(traceback.format_exception_only(type(error), error)[:-1])
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((_RUNTIME_FOLDER, "<frozen importlib"))
    ]
    return _lines(traceback.format_list(frames[-_FRAMES:]))


def _lines(formatted):
    return [_cut(line.rstrip("\n"), _LINE_CHARACTERS) for line in formatted]


def _cut(text, characters):
    return text if len(text) <= characters else text[: characters - 1] + "\u2026"
