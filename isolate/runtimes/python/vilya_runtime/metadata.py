"""The records that travel beside a payload, in rkyv's archived form.

Owns these two records and nothing else. rkyv 0.8, little endian, 32-bit relative
pointers: a vector is `(offset: i32, length: u32)`, the offset counted from the vector
itself, and the root is the last thing in the buffer.

    RequestMetadata   request_id [u8; 16] · received_unix_ms u64 · content_type · trace_parent
    ResponseMetadata  content_type

What is read here was written by the worker and is trusted; what is written here is
validated by the worker.
"""

import struct

from . import layout

_REQUEST = struct.Struct(layout.REQUEST_METADATA_ROOT_FORMAT)
_VECTOR = struct.Struct(layout.VECTOR_FORMAT)


class RequestMetadata:
    """One request's metadata, decoded. Sent without any, it is all zeros and empty."""

    __slots__ = ("request_id", "received_unix_ms", "content_type", "trace_parent")

    def __init__(self, archived):
        root = len(archived) - _REQUEST.size
        if root < 0:
            self.request_id = bytes(16)
            self.received_unix_ms = 0
            self.content_type = self.trace_parent = ""
            return
        self.request_id, self.received_unix_ms, *_ = _REQUEST.unpack_from(archived, root)
        self.content_type = _text(archived, root + layout.REQUEST_METADATA_CONTENT_TYPE_OFFSET)
        self.trace_parent = _text(archived, root + layout.REQUEST_METADATA_TRACE_PARENT_OFFSET)


def _text(archived, field):
    offset, count = _VECTOR.unpack_from(archived, field)
    # Header values are bytes on the wire; latin-1 maps every one of them.
    return archived[field + offset : field + offset + count].decode("latin-1")


def response_metadata(content_type):
    """Archives `ResponseMetadata` for a content type, checked as the worker will check it."""
    if not isinstance(content_type, str):
        raise TypeError(f"a content type is a str, not {type(content_type).__name__}")
    if len(content_type) > layout.MAX_CONTENT_TYPE_BYTES or not all(" " <= c <= "~" for c in content_type):
        raise ValueError(
            f"a content type is at most {layout.MAX_CONTENT_TYPE_BYTES} characters of printable ASCII, "
            f"not {content_type[:80]!r}"
        )
    text = content_type.encode("ascii")
    padded = text + bytes(-len(text) % layout.RESPONSE_METADATA_ALIGN)
    return padded + _VECTOR.pack(-len(padded), len(text))
